"""Dense layers that keep the low-rank path apart: x W + s (x A) B.

Forming W + s A B in every step costs a matrix product more than keeping the two
paths apart. A model offers this faster way by calling `dense` for its layers
and taking from its caller a dict of parts, by the path of the kernel:

    parts = adapters.parts(adapter, params, theta, fixed, key=key, dropout=0.05)
    logits = model.apply(variables, tokens, parts=parts)

    # Inside of the model, for each dense layer:
    y = adapters.dense(x, kernel, parts.get(path))

The kernel is [I, O], in whatever shape it is stored; a path without a part is a
plain product. Of scanned layers, declared "bio", the arrays of a part begin
with the axis of layers, and a scan takes a part for each. A function of theta
that calls `parts` and the model has the gradients of `apply`; kernels that have
a part get none. `models.llama.Llama(config, apply_part=adapters.dense)` is such
a model.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from effjax import tree as trees
from effjax.adapters.base import (
  Adapter,
  Flat,
  Tree,
  recipe_of,
  shapes_of,
  wide_type,
  widen,
)
from effjax.adapters.quantized import dense_value

# Sparse weights whose gradients are gathered at a time: with more the rows miss
# the cache, 5 times slower at 4096.
_CHUNK = 128
_GRADIENTS = ("auto", "dense", "gathered")


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=[
    "a",
    "b",
    "initial_a",
    "initial_b",
    "magnitude",
    "values",
    "indices",
    "inputs",
    "outputs",
    "key",
  ],
  meta_fields=["scale", "dropout"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
  """What an adapter does to one kernel [I, O], None for what it does not.

  Attributes:
    a: Low-rank factor [I, R].
    b: Low-rank factor [R, O].
    initial_a: Factor that is subtracted [I, R], of PiSSA and OLoRA.
    initial_b: Factor that is subtracted [R, O].
    magnitude: Norms of the columns [O], of DoRA.
    values: Sparse weights [K].
    indices: Their places in the matrix [I, O], int32 [K].
    inputs: Factors of the inputs [I], of (IA)^3.
    outputs: Factors of the outputs [O], of (IA)^3.
    key: Typed random key of dropout.
    scale: Factor of the product A B.
    dropout: Share of the inputs that the low-rank path drops.
  """

  a: jax.Array | None = None
  b: jax.Array | None = None
  initial_a: jax.Array | None = None
  initial_b: jax.Array | None = None
  magnitude: jax.Array | None = None
  values: jax.Array | None = None
  indices: jax.Array | None = None
  inputs: jax.Array | None = None
  outputs: jax.Array | None = None
  key: jax.Array | None = None
  scale: float = 1.0
  dropout: float = 0.0


def parts(
  adapter: Adapter,
  params: Tree,
  theta: Flat,
  fixed: Flat,
  *,
  key: jax.Array | None = None,
  dropout: float = 0.0,
) -> dict[str, Part]:
  """Split theta into what `dense` needs for each kernel.

  Args:
    adapter: An adapter.
    params: The base; shapes will do.
    theta: What is trained.
    fixed: What is not.
    key: Typed random key of dropout, another one in each step of training; each
      kernel gets its own.
    dropout: Share of the inputs that the low-rank path drops.

  Returns:
    A part for each kernel, by its path.

  Raises:
    ValueError: If theta does not fit, the adapter has no such form, or there is
      dropout and no key.
  """
  if not 0 <= dropout < 1 or (dropout and key is None):
    raise ValueError(
      f"dropout={dropout} must lie in [0, 1) and needs key=, a typed random key"
    )
  plan = recipe_of(adapter).plan(shapes_of(params))
  found = plan.parts(theta, fixed)
  if not dropout or key is None:
    return found
  keys = trees.keys(key, dict.fromkeys(found, 0))
  for path, part in found.items():
    if part.a is not None:
      # Stacked kernels need as many keys.
      stacked = part.a.shape[:-2]
      own = jax.random.split(keys[path], stacked) if stacked else keys[path]
      found[path] = dataclasses.replace(part, key=own, dropout=dropout)
  return found


def joined(one: Part, two: Part, path: str) -> Part:
  """Unite what two adapters do to a kernel.

  Args:
    one: What the first does.
    two: What the second does.
    path: Path of the kernel, for the error.

  Returns:
    The part that does both.

  Raises:
    ValueError: If that is not the same as one after the other.
  """
  kinds = lambda part: {
    name
    for name in ("a", "magnitude", "values", "inputs", "outputs")
    if getattr(part, name) is not None
  }
  if kinds(one) | kinds(two) != {"a", "values"} or kinds(one) & kinds(two):
    raise ValueError(
      f"two adapters of {path!r} have no factored form together, but for a"
      " low-rank and a sparse one; use apply"
    )
  low, sparse = (one, two) if one.a is not None else (two, one)
  return dataclasses.replace(low, values=sparse.values, indices=sparse.indices)


def dense(
  x: jax.Array,
  kernel: Any,
  part: Part | None = None,
  *,
  gradient: str = "auto",
  precision: Any = None,
) -> jax.Array:
  """Multiply inputs with an adapted kernel without forming W + s A B.

  Args:
    x: Inputs [..., I].
    kernel: The frozen kernel [I, O], quantised if you like.
    part: What the adapter does to it; None for the plain product, which has
      gradients for the kernel too.
    gradient: How the gradient of sparse values is found: "dense" gathers it
      from that of the whole kernel, "gathered" multiplies the rows of inputs
      and outputs that belong to each value, at a density of 1 % in a third of
      the time on CPUs; "auto" is "gathered" on CPUs, "dense" elsewhere.
    precision: Of the products, as in `jax.numpy.matmul`.

  Returns:
    The outputs [..., O] in the type of x.

  Raises:
    ValueError: If shapes do not fit, or the name of the gradient is neither.

  >>> part = Part(a=jnp.ones((3, 1)), b=jnp.ones((1, 2)), scale=0.5)
  >>> dense(jnp.ones((1, 3)), jnp.zeros((3, 2)), part).tolist()
  [[1.5, 1.5]]
  """
  x, kernel = jnp.asarray(x), jnp.asarray(dense_value(kernel))
  if kernel.ndim != 2 or x.shape[-1:] != kernel.shape[:1]:
    raise ValueError(
      f"dense multiplies inputs [..., I] with a kernel [I, O], got shapes"
      f" {x.shape} and {kernel.shape}"
    )
  product = functools.partial(_product, precision=precision)
  if part is None:
    return product(x, kernel).astype(x.dtype)
  kernel = jax.lax.stop_gradient(kernel)
  if part.inputs is not None:
    x = _scaled(x, part.inputs)
  if part.values is not None:
    if gradient not in _GRADIENTS:
      raise ValueError(
        f"gradient={gradient!r} is none of {', '.join(_GRADIENTS)}"
      )
    y = _sparse_product(
      x, kernel, part.values, part.indices, gradient, precision
    )
  else:
    y = product(x, kernel)
  if part.a is not None and part.b is not None:
    low = _low_rank(precision, _dropped(x, part), part.a, part.b)
    y = y + part.scale * low
  if part.initial_a is not None and part.initial_b is not None:
    low = product(x, part.initial_a).astype(x.dtype)
    y = y - part.scale * product(low, part.initial_b)
  if part.magnitude is not None:
    norms = _column_norms(kernel, part)
    y = _scaled(y, column_factors(part.magnitude, norms))
  if part.outputs is not None:
    y = _scaled(y, part.outputs)
  return y.astype(x.dtype)


def _scaled(x: jax.Array, factors: jax.Array) -> jax.Array:
  """Multiply x [..., C] with factors [C]."""
  return x * jnp.expand_dims(factors.astype(x.dtype), tuple(range(x.ndim - 1)))


def column_factors(magnitude: jax.Array, norms: jax.Array) -> jax.Array:
  """Return what columns are multiplied with to have given norms.

  The norms are constants for gradients (DoRA, Liu et al. 2024, arXiv
  2402.09353, section 4.3). A column of zeros keeps the factor 1.

  Args:
    magnitude: The norms that are wanted [..., O].
    norms: Those that there are [..., O].

  Returns:
    The factors [..., O].
  """
  norms = jax.lax.stop_gradient(norms)
  zero = norms == 0
  factors = magnitude.astype(norms.dtype) / jnp.where(zero, 1, norms)
  return jnp.where(zero, 1, factors)


def _product(x: jax.Array, y: jax.Array, *, precision: Any) -> jax.Array:
  return jnp.matmul(
    x,
    y.astype(x.dtype),
    precision=precision,
    preferred_element_type=wide_type(x),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _low_rank(precision, x, a, b):
  """Multiply x [..., I] with A and then with B; the product is wide."""
  inner = _product(x, a, precision=precision).astype(x.dtype)
  return _product(inner, b, precision=precision)


def _low_rank_fwd(precision, x, a, b):
  inner = _product(x, a, precision=precision).astype(x.dtype)
  return _product(inner, b, precision=precision), (x, inner, a, b)


def _low_rank_bwd(precision, residuals, dy):
  """Find the gradients by products whose left factor is the narrow one.

  By itself, XLA on the CPU writes x and dy anew, transposed, for them: a third
  of the time of a training step.
  """
  x, inner, a, b = residuals
  product = functools.partial(_product, precision=precision)
  rows = lambda z: z.reshape(-1, z.shape[-1])
  dy = dy.astype(x.dtype)
  slopes = product(dy, b.T).astype(x.dtype)
  dx = product(slopes, a.T).astype(x.dtype)
  # The barrier keeps the transpose from becoming one of x.
  da = jax.lax.optimization_barrier(product(rows(slopes).T, rows(x)))
  db = product(rows(inner).T, rows(dy))
  return dx, da.T.astype(a.dtype), db.astype(b.dtype)


_low_rank.defvjp(_low_rank_fwd, _low_rank_bwd)


def _dropped(x: jax.Array, part: Part) -> jax.Array:
  if not part.dropout or part.key is None:
    return x
  kept = jax.random.bernoulli(part.key, 1 - part.dropout, x.shape)
  return jnp.where(kept, x / (1 - part.dropout), jnp.zeros((), x.dtype))


def _column_norms(kernel: jax.Array, part: Part) -> jax.Array:
  """Compute the norms of the columns of V = W + s A B, which is not formed.

  By column |V|^2 = |W|^2 + 2 s sum(A'W * B) + s^2 sum((A'A) B * B).
  """
  wide = lambda m: jax.lax.stop_gradient(widen(m))
  exact = functools.partial(jnp.matmul, precision="highest")
  w = wide(kernel)
  a, b = wide(part.a), part.scale * wide(part.b)
  if part.initial_a is not None:
    a = jnp.concatenate([a, wide(part.initial_a)], axis=1)
    b = jnp.concatenate([b, -part.scale * wide(part.initial_b)])
  cross = 2 * exact(a.T, w) + exact(exact(a.T, a), b)
  squares = jnp.sum(w * w, axis=0) + jnp.sum(cross * b, axis=0)
  return jnp.sqrt(jnp.maximum(squares, 0))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _sparse_product(x, kernel, values, indices, gradient, precision):
  """Multiply x [..., I] with W + S, where S has values at flat indices."""
  del gradient
  return _product(x, scattered(kernel, values, indices), precision=precision)


def scattered(
  kernel: jax.Array, values: jax.Array, places: jax.Array
) -> jax.Array:
  """Add values to a kernel; their gradient is gathered at their places.

  Args:
    kernel: The kernel.
    values: The values [K].
    places: Their flat indices in C order [K], none of them twice.

  Returns:
    The sum, in the type of the kernel and sharded like it.
  """
  sharding = jax.typeof(kernel).sharding
  return kernel.at[jnp.unravel_index(places, kernel.shape)].add(
    values.astype(kernel.dtype),
    unique_indices=True,
    # On a mesh of explicit axes it must be said where the result lies.
    out_sharding=sharding if any(sharding.spec) else None,
  )


def _sparse_product_fwd(x, kernel, values, indices, gradient, precision):
  y = _sparse_product(x, kernel, values, indices, gradient, precision)
  return y, (x, kernel, values, indices)


def _sparse_product_bwd(gradient, precision, residuals, dy):
  x, kernel, values, indices = residuals
  dy = dy.astype(x.dtype)
  filled = scattered(kernel, values, indices)
  dx = _product(dy, filled.T, precision=precision).astype(x.dtype)
  rows, columns = jnp.unravel_index(indices, kernel.shape)
  flat_x, flat_dy = (z.reshape(-1, z.shape[-1]) for z in (x, dy))
  whole = lambda x, dy: _product(x.T, dy, precision=precision)[rows, columns]
  gathered = lambda x, dy: _gathered(x.T, dy.T, rows, columns)
  if gradient == "auto":
    slopes = jax.lax.platform_dependent(
      flat_x, flat_dy, cpu=gathered, default=whole
    )
  else:
    slopes = (whole if gradient == "dense" else gathered)(flat_x, flat_dy)
  # The kernel is a constant; zeros are not even formed.
  return dx, None, slopes.astype(values.dtype), None


def _gathered(x, dy, rows, columns):
  """Compute sum_t x[row, t] dy[column, t] for many pairs, some at a time."""
  count = rows.size
  chunk = min(_CHUNK, max(count, 1))
  pad = lambda index: jnp.pad(index, (0, -count % chunk)).reshape(-1, chunk)
  some = lambda pair: jnp.einsum(
    "kt,kt->k",
    x[pair[0]],
    dy[pair[1]],
    preferred_element_type=wide_type(x),
  )
  return jax.lax.map(some, (pad(rows), pad(columns))).reshape(-1)[:count]


_sparse_product.defvjp(_sparse_product_fwd, _sparse_product_bwd)
