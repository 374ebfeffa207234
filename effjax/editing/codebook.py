"""A codebook of edits beside a layer, which replaces its output near a key.

Hartvigsen et al., "Aging with GRACE" (arXiv 2211.11031): each entry is a key
(an input of the layer at the token that decides), the value that the layer is
to return there, and a radius within which it does:

    done = editing.insert(book, key, value, label, radius=1.0)
    outputs = editing.lookup(done.book, inputs, layer(inputs))

Values are trained by the loss of the edit; keys, radii and labels follow the
rules of `insert`. The arrays have room for N entries, so that compiled
functions see one shape.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from effjax import arguments
from effjax.editing.solving import demand

Array = jax.Array

_MARGIN = 1e-5  # by which the older of two radii that meet is the smaller


class Codebook(NamedTuple):
  """Entries of a codebook.

  Attributes:
    keys: [N, I].
    values: [N, O].
    radii: [N].
    labels: int32 [N], what an entry answers; equal ones may share it.
    count: int32 [], how many entries there are.
  """

  keys: Array
  values: Array
  radii: Array
  labels: Array
  count: Array


class Insertion(NamedTuple):
  """What `insert` did.

  Attributes:
    book: The codebook.
    index: int32 [], the entry that now answers the key, -1 if the book is full.
    added: bool [], its value is new, and to be trained.
  """

  book: Codebook
  index: Array
  added: Array


def empty_codebook(
  capacity: int, inputs: int, outputs: int, dtype: Any = jnp.float32
) -> Codebook:
  """Make a codebook without entries.

  Args:
    capacity: N, how many entries there is room for.
    inputs: I.
    outputs: O.
    dtype: Type of keys, values and radii.

  Returns:
    The codebook.

  Raises:
    ValueError: If there is no room, or a size is no whole number above 0.

  >>> empty_codebook(4, 2, 3).values.shape
  (4, 3)
  """
  sizes = {"capacity": capacity, "inputs": inputs, "outputs": outputs}
  capacity, inputs, outputs = (
    arguments.whole(name, size) for name, size in sizes.items()
  )
  return Codebook(
    jnp.zeros((capacity, inputs), dtype),
    jnp.zeros((capacity, outputs), dtype),
    jnp.zeros(capacity, dtype),
    jnp.zeros(capacity, jnp.int32),
    jnp.zeros((), jnp.int32),
  )


def lookup(book: Codebook, queries: Array, outputs: Array) -> Array:
  """Replace outputs of a layer where an input lies near a key.

  Args:
    book: The codebook.
    queries: Inputs [..., I].
    outputs: What the layer returns for them [..., O].

  Returns:
    The value of the nearest key where its distance is at most its radius, else
    the output [..., O], in the type of the outputs. Gradients reach values and
    outputs.

  Raises:
    ValueError: If the shapes do not fit.
  """
  shape = (*queries.shape[:-1], book.values.shape[1])
  if queries.shape[-1] != book.keys.shape[1] or outputs.shape != shape:
    raise ValueError(
      f"queries {queries.shape} and outputs {outputs.shape} do not fit keys"
      f" {book.keys.shape} and values {book.values.shape}"
    )
  return _lookup(book, queries, outputs)


def insert(
  book: Codebook, key: Array, value: Array, label: Any, *, radius: Any
) -> Insertion:
  """Make room for the edit of one key.

  Far from all entries, by more than the nearest radius and `radius`, the key is
  added. Otherwise the nearest entry decides: with the same label it grows until
  it covers the key; with another one the key is added, and both radii become
  half of the distance, the older one a little less. An entry whose key is the
  very same but for its label gets the new value and label.

  Args:
    book: The codebook.
    key: The input that is edited [I].
    value: Where training of its value begins [O], such as the output of the
      layer; not used where an entry grows.
    label: What the edit answers, an integer.
    radius: Radius of an entry that is far from all others.

  Returns:
    The book, the entry, and whether it is new.

  Raises:
    ValueError: If the shapes do not fit, the radius is negative, a number is
      not finite, or the book is full (under jit it is returned as it is, with
      index -1).
  """
  key, value = (jnp.asarray(x).astype(book.keys.dtype) for x in (key, value))
  if key.shape != book.keys.shape[1:] or value.shape != book.values.shape[1:]:
    raise ValueError(
      f"key {key.shape} and value {value.shape} do not fit keys"
      f" {book.keys.shape} and values {book.values.shape}"
    )
  for name, x in (("key", key), ("value", value)):
    good = jnp.all(jnp.isfinite(x))
    demand(good, f"the {name} of an entry must be finite: NaN or infinity")
  arguments.finite("radius", radius, 0)
  label = jnp.asarray(label).astype(jnp.int32)
  radius = jnp.asarray(radius).astype(book.radii.dtype)
  done = _insert(book, key, value, label, radius)
  if not isinstance(done.index, jax.core.Tracer) and done.index < 0:
    raise ValueError(
      f"the codebook is full with its {book.radii.size} entries: make a larger"
      " one"
    )
  return done


@jax.jit
def _lookup(book, queries, outputs):
  index, distance = _nearest(book, queries)
  near = distance <= book.radii[index]
  values = book.values[index].astype(outputs.dtype)
  return jnp.where(near[..., None], values, outputs)


@jax.jit
def _insert(book, key, value, label, radius):
  capacity = book.radii.shape[0]
  nearest, distance = _nearest(book, key)
  # The distance to nothing is infinite.
  far = distance > book.radii[nearest] + radius
  same = book.labels[nearest] == label
  double = ~far & ~same & (distance == 0)
  grown, split = ~far & same, ~far & ~same & ~double
  fits = grown | double | (book.count < capacity)
  added = (far | split) & fits
  index = jnp.where(far | split, book.count, nearest)
  old = jnp.where(
    grown,
    jnp.maximum(book.radii[nearest], distance),
    jnp.where(
      split & added,
      jnp.maximum(0.5 * distance - _MARGIN, 0.0),
      book.radii[nearest],
    ),
  )
  radii = book.radii.at[nearest].set(old)
  # Beyond the end, where nothing is written.
  place = jnp.where(added | double, index, capacity)
  write = lambda array, x: array.at[place].set(x, mode="drop")
  own = jnp.where(far, radius, 0.5 * distance)
  own = jnp.where(double, book.radii[nearest], own)
  return Insertion(
    Codebook(
      write(book.keys, key),
      write(book.values, value),
      write(radii, own),
      write(book.labels, label),
      book.count + added.astype(jnp.int32),
    ),
    jnp.where(fits, index, -1).astype(jnp.int32),
    added | double,
  )


def _nearest(book: Codebook, queries: Array) -> tuple[Array, Array]:
  """Return the nearest entry [...], the first of equal ones, and how near."""
  lead = (1,) * (queries.ndim - 1)
  keys = book.keys.reshape(*lead, *book.keys.shape)
  gaps = queries.astype(keys.dtype)[..., None, :] - keys
  distances = jnp.sqrt(jnp.sum(jax.lax.stop_gradient(gaps) ** 2, axis=-1))
  entries = jnp.arange(book.radii.shape[0], dtype=jnp.int32)
  there = (entries < book.count).reshape(*lead, -1)
  distances = jnp.where(there, distances, jnp.inf)
  return jnp.argmin(distances, axis=-1), jnp.min(distances, axis=-1)
