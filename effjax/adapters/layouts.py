"""How the axes of a kernel form a matrix [I, O].

A layout is a word with one letter for each axis: "i" for inputs, "o" for
outputs, "b" for axes along which kernels are stacked. A dense kernel of flax is
"io", one of equinox "oi", a convolution [kh, kw, I, O] "iiio", the queries of
an attention [D, H, K] "ioo", its output [H, K, D] "iio", the dense kernels of
scanned layers [L, I, O] "bio", and an embedding [V, D] "io".
"""

import math
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp

Layout = str | Sequence[tuple[str, str]] | None

# In flax; the last part of a path tells torch's order, which equinox shares.
_DEFAULTS = {2: "io", 4: "iiio", 5: "iiiio"}
_TRANSPOSED = {2: "oi", 4: "oiii", 5: "oiiii"}


def resolve(layout: Layout, name: str, shape: Sequence[int]) -> str:
  """Find the layout of a kernel.

  Args:
    layout: A word for all kernels; or rules (regular expression, word), of
      which the first that matches the whole path decides; without one, kernels
      of two axes are "io" and convolutions "iiio", or "oi" and "oiii" where the
      path ends in "weight".
    name: Path of the kernel.
    shape: Its shape.

  Returns:
    The word.

  Raises:
    ValueError: If the word does not fit the shape, or there is none.

  >>> resolve([(".*query/kernel", "ioo")], "query/kernel", (8, 2, 4))
  'ioo'
  """
  word = declared(layout, name)
  if word is None:
    transposed = re.split(r"[/.]", name)[-1] == "weight"
    word = (_TRANSPOSED if transposed else _DEFAULTS).get(len(shape))
    if word is None:
      raise ValueError(
        f"{name!r} has shape {tuple(shape)}, and it is not known which axes"
        f" are inputs and outputs; say so with layout=[({re.escape(name)!r},"
        " word)], a letter for each axis: 'bio' for stacked [L, I, O], 'ioo'"
        " for attention [D, H, K], 'iio' for its output [H, K, D]"
      )
  if len(word) != len(shape):
    raise ValueError(
      f"the layout {word!r} of {name!r} has {len(word)} letters, its shape"
      f" {tuple(shape)} {len(shape)} axes"
    )
  return word


def declared(layout: Layout, name: str) -> str | None:
  """Find the layout that was declared for a kernel.

  Args:
    layout: A word, rules, or None; see `resolve`.
    name: Path of the kernel.

  Returns:
    The word, None if no rule matches.

  Raises:
    ValueError: If it is not a word of b, i and o.
  """
  if layout is None:
    return None
  rules = [(".*", layout)] if isinstance(layout, str) else layout
  hits = (word for pattern, word in rules if re.fullmatch(pattern, name))
  word = next(hits, None)
  if word is not None and (
    set(word) - set("bio") or "i" not in word or "o" not in word
  ):
    raise ValueError(
      f"the layout {word!r} of {name!r} is not a word of i (inputs), o"
      " (outputs) and b (stacked), such as 'io' or 'bio'"
    )
  return word


def _axes(word: str) -> tuple[list[int], list[int], list[int]]:
  batch, rows, columns = (
    [axis for axis, letter in enumerate(word) if letter == group]
    for group in "bio"
  )
  return batch, rows, columns


def sizes(word: str, shape: Sequence[int]) -> tuple[tuple[int, ...], int, int]:
  """Return the sizes of the stacked axes, and of the matrix.

  Args:
    word: A layout.
    shape: Shape of the kernel.

  Returns:
    Sizes of the stacked axes, number of inputs I, number of outputs O.

  >>> sizes("iiio", (3, 3, 2, 8))
  ((), 18, 8)
  """
  batch, rows, columns = _axes(word)
  size = lambda axes: math.prod(shape[axis] for axis in axes)
  return tuple(shape[axis] for axis in batch), size(rows), size(columns)


def to_matrix(kernel: jax.Array, word: str) -> jax.Array:
  """Write a kernel as a matrix.

  Args:
    kernel: The kernel.
    word: Its layout.

  Returns:
    The matrix [..., I, O], stacked axes first.

  >>> to_matrix(jnp.ones((8, 2, 4)), "ioo").shape
  (8, 8)
  """
  batch, inputs, outputs = sizes(word, kernel.shape)
  order = [axis for group in _axes(word) for axis in group]
  if order != list(range(kernel.ndim)):
    kernel = jnp.transpose(kernel, order)
  if kernel.shape == (*batch, inputs, outputs):
    return kernel
  return kernel.reshape(*batch, inputs, outputs)


def from_matrix(
  matrix: jax.Array, word: str, shape: Sequence[int]
) -> jax.Array:
  """Write a matrix as the kernel that it came from.

  Args:
    matrix: [..., I, O].
    word: Layout of the kernel.
    shape: Its shape.

  Returns:
    The kernel.

  >>> from_matrix(jnp.ones((18, 8)), "iiio", (3, 3, 2, 8)).shape
  (3, 3, 2, 8)
  """
  order = [axis for group in _axes(word) for axis in group]
  ordered = tuple(shape[axis] for axis in order)
  if matrix.shape != ordered:
    matrix = matrix.reshape(ordered)
  if order == sorted(order):
    return matrix
  back = [order.index(axis) for axis in range(len(order))]
  return jnp.transpose(matrix, back)


def matrix_indices(
  indices: jax.Array, word: str, shape: Sequence[int]
) -> jax.Array:
  """Translate flat indices of a kernel to those of its matrix.

  Args:
    indices: Indices into the kernel [...] in C order, stacked axes left out.
    word: Its layout.
    shape: Its shape.

  Returns:
    Indices into the matrix [I, O] in C order; not sorted in general.

  >>> matrix_indices(jnp.array([0, 1, 2]), "oi", (2, 3)).tolist()
  [0, 2, 4]
  """
  inner = word.replace("b", "")
  kernel = tuple(
    n for n, letter in zip(shape, word, strict=True) if letter != "b"
  )
  if inner == "i" * inner.count("i") + "o" * inner.count("o"):
    return indices
  places = jnp.unravel_index(indices, kernel)
  _, rows, columns = _axes(inner)
  flat = jnp.zeros_like(indices)
  for axis in (*rows, *columns):
    flat = flat * kernel[axis] + places[axis].astype(indices.dtype)
  return flat
