"""Low-rank adapters: LoRA with its scales and initialisations, and DoRA.

With the kernel as a matrix W [I, O] the layer y = x W becomes x (W + s A B), A
[I, R], B [R, O]: the transpose of what papers in the layout of torch write.
Sources: LoRA (Hu et al. 2021, arXiv 2106.09685), rsLoRA (Kalajdzievski 2023,
2312.03732), PiSSA (Meng et al. 2024, 2404.02948), OLoRA (Bueyuekakyuez 2024,
2406.01775), DoRA (Liu et al. 2024, 2402.09353).
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from effjax import arguments
from effjax import tree as trees
from effjax.adapters import layouts
from effjax.adapters.base import (
  Adapter,
  Flat,
  Plan,
  Recipe,
  key_of,
  make,
  selected,
  taken,
  wide_type,
  widen,
)
from effjax.adapters.factored import Part, column_factors
from effjax.adapters.quantized import dense_value

Rank = int | Sequence[tuple[str, int | None]]
Alpha = float | Sequence[tuple[str, float]] | None

INITIAL = ("uniform", "gaussian", "pissa", "olora")
_FACTORS = ("lora_a", "lora_b")
_INITIAL_FACTORS = ("initial_a", "initial_b")


def lora(
  rank: Rank,
  *,
  alpha: Alpha = None,
  where: trees.Where = None,
  layout: layouts.Layout = None,
  rank_stabilized: bool = False,
  initial: str = "uniform",
) -> Adapter:
  """Add a product of two thin matrices to every kernel.

  W becomes W + s A B with s = alpha / rank, or alpha / sqrt(rank) for rsLoRA.
  In the beginning B = 0, and the kernels are unchanged bit for bit. Dropout
  belongs to inputs and is an option of `adapters.dense`.

  Args:
    rank: The rank R; or rules (regular expression, rank), the first of which
      that matches the whole path decides, None for kernels that stay as they
      are.
    alpha: What the product is scaled with, before it is divided by the rank; or
      rules; None for the rank itself.
    where: Selector of the kernels; by default floating leaves of rank 2 or
      more.
    layout: Which axes of a kernel are inputs and outputs, see
      `adapters.layouts`; stacked kernels get factors of their own.
    rank_stabilized: Whether to divide by the square root of the rank.
    initial: "uniform" (Kaiming) or "gaussian" A and B = 0; or "pissa" and
      "olora", which begin with the leading singular vectors or the first
      columns of a QR decomposition. The product they begin with is kept in
      fixed and subtracted, so that the kernels begin unchanged but for
      rounding.

  Returns:
    The adapter; its theta has the roles "lora_a" [..., I, R] and "lora_b"
    [..., R, O].

  Raises:
    ValueError: If a number or name is none; from init, if the rank is larger
      than a matrix.

  >>> adapter = lora(2)
  >>> theta, fixed = adapter.init(jax.random.key(0), {"kernel": jnp.eye(4)})
  >>> {key: x.shape for key, x in theta.items()}, fixed
  ({'kernel/lora_a': (4, 2), 'kernel/lora_b': (2, 4)}, {})
  """
  return _LowRank(
    rank=rank,
    alpha=alpha,
    where=where,
    layout=layout,
    rank_stabilized=rank_stabilized,
    initial=initial,
    decomposed=False,
  ).adapter()


def dora(
  rank: Rank,
  *,
  alpha: Alpha = None,
  where: trees.Where = None,
  layout: layouts.Layout = None,
  rank_stabilized: bool = False,
  initial: str = "uniform",
) -> Adapter:
  """Train the norm of every column apart from its direction.

  With V = W + s A B, column by column W becomes m V / |V|, where the trained
  magnitude m begins as |W|; the norm |V| is a constant for gradients.

  Args:
    rank: As for `lora`, like what follows.
    alpha: Scale.
    where: Selector of the kernels.
    layout: Which axes are inputs and outputs.
    rank_stabilized: Whether to divide by the square root of the rank.
    initial: How A and B begin.

  Returns:
    The adapter; its theta has the role "magnitude" [..., O] too.

  Raises:
    ValueError: As for `lora`.
  """
  return _LowRank(
    rank=rank,
    alpha=alpha,
    where=where,
    layout=layout,
    rank_stabilized=rank_stabilized,
    initial=initial,
    decomposed=True,
  ).adapter()


def ruled(value: Any, paths: Sequence[str], what: str) -> dict[str, Any]:
  """Find the value of every path.

  Args:
    value: One value for all, or rules (regular expression, value).
    paths: The paths.
    what: What it is called in the error.

  Returns:
    The values by path.

  Raises:
    ValueError: If no rule matches a path.
  """
  if not isinstance(value, list | tuple):
    return dict.fromkeys(paths, value)
  places = {path: jax.ShapeDtypeStruct((), jnp.float32) for path in paths}
  try:
    return trees.assign(places, value)
  except ValueError as error:
    raise ValueError(f"of the rules of {what}, {error}") from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LowRank:
  """The recipe of LoRA, or with `decomposed` of DoRA."""

  rank: Rank
  alpha: Alpha
  where: trees.Where
  layout: layouts.Layout
  rank_stabilized: bool
  initial: str
  decomposed: bool

  def __post_init__(self):
    if self.initial not in INITIAL:
      raise ValueError(
        f"there is no initialisation {self.initial!r}; choose one of"
        f" {', '.join(trees.nearest(self.initial, INITIAL))}"
      )
    # NumPy's integers become Python's, which mix with any floating type.
    ranks = [
      (pattern, n if n is None else arguments.whole(f"rank of {pattern!r}", n))
      for pattern, n in _rules(self.rank)
    ]
    ruled = isinstance(self.rank, list | tuple)
    object.__setattr__(self, "rank", ranks if ruled else ranks[0][1])
    for pattern, number in _rules(self.alpha):
      if number is not None:
        arguments.finite(f"alpha of {pattern!r}", number, 0, above=True)

  @property
  def roles(self) -> tuple[str, ...]:
    return (*_FACTORS, "magnitude") if self.decomposed else _FACTORS

  @property
  def fixed_roles(self) -> tuple[str, ...]:
    return _INITIAL_FACTORS if self.initial in _INITIAL_FROM else ()

  def word(self, path: str, leaf: Any) -> str:
    return layouts.resolve(self.layout, path, leaf.shape)

  def select(self, params: Any) -> dict[str, Any]:
    found = selected(params, self.where)
    ranks = ruled(self.rank, list(found), "rank")
    kernels = {path: x for path, x in found.items() if ranks[path] is not None}
    for path, leaf in kernels.items():
      layouts.sizes(self.word(path, leaf), leaf.shape)  # refuses what is none
    return kernels

  def plan(self, params: Any) -> Plan:
    kernels = self.select(params)
    return Plan(
      kernels=kernels,
      start=self.start,
      rewrite=self.rewrite,
      parts=functools.partial(self.parts, kernels),
    )

  def scales(self, ranks: dict[str, int]) -> dict[str, float]:
    """Return what multiplies A B, from the rank of every path."""
    alphas = ruled(self.alpha, list(ranks), "alpha")
    root = math.sqrt if self.rank_stabilized else float
    return {
      path: float(rank if alphas[path] is None else alphas[path]) / root(rank)
      for path, rank in ranks.items()
    }

  def start(self, key: jax.Array, leaves: dict[str, Any]) -> tuple[Flat, Flat]:
    ranks = ruled(self.rank, list(leaves), "rank")
    scales = self.scales(ranks)
    keys = trees.keys(key, dict.fromkeys(leaves, 0))
    theta, fixed = {}, {}
    for path, leaf in leaves.items():
      word, rank = self.word(path, leaf), ranks[path]
      # What others have made is read at any rank, so only a start is limited.
      sizes = layouts.sizes(word, leaf.shape)
      if rank > min(sizes[1:]):
        raise ValueError(
          f"rank {rank} is larger than {path!r} allows, a matrix of"
          f" {sizes[1]} inputs and {sizes[2]} outputs: at most {min(sizes[1:])}"
        )
      if self.decomposed:
        theta[key_of(path, "magnitude")] = _norms(_matrix(leaf, word))
      if self.fixed_roles:
        begin = _INITIAL_FROM[self.initial]
        a, b = begin(_matrix(leaf, word), rank, scales[path])
        # The two must not share memory: theta may be donated.
        fixed[key_of(path, "initial_a")] = a.copy()
        fixed[key_of(path, "initial_b")] = b.copy()
      else:
        a, b = _drawn(keys[path], sizes, rank, self.initial, wide_type(leaf))
      theta[key_of(path, "lora_a")] = a
      theta[key_of(path, "lora_b")] = b
    return theta, fixed

  def rewrite(self, kernels: Flat, theta: Flat, fixed: Flat) -> Flat:
    found = {}
    parts = self.parts(kernels, theta, fixed)
    for path, part in parts.items():
      kernel, word = kernels[path], self.word(path, kernels[path])
      product = lambda a, b, dtype=kernel.dtype: jnp.matmul(
        a.astype(dtype), b.astype(dtype), precision="highest"
      )
      delta = product(part.a, part.b)
      if part.initial_a is not None:
        delta = delta - product(part.initial_a, part.initial_b)
      matrix = layouts.to_matrix(kernel, word) + part.scale * delta
      if part.magnitude is not None:
        gains = column_factors(part.magnitude, _norms(matrix))
        matrix = matrix * gains[..., None, :]
      found[path] = layouts.from_matrix(matrix, word, kernel.shape)
    return found

  def parts(
    self, kernels: dict[str, Any], theta: Flat, fixed: Flat
  ) -> dict[str, Part]:
    found = {}
    for path, leaf in kernels.items():
      arrays = dict(
        zip(
          (*self.roles, *self.fixed_roles),
          [
            *taken(theta, path, self.roles, "theta"),
            *taken(fixed, path, self.fixed_roles, "fixed"),
          ],
          strict=True,
        )
      )
      _check_shapes(arrays, path, self.word(path, leaf), leaf.shape)
      rank = arrays["lora_a"].shape[-1]
      found[path] = Part(
        a=arrays.pop("lora_a"),
        b=arrays.pop("lora_b"),
        scale=self.scales({path: rank})[path],
        **arrays,
      )
    return found

  def adapter(self) -> Adapter:
    return make(
      Recipe(
        roles=frozenset(self.roles),
        fixed_roles=frozenset(self.fixed_roles),
        plan=self.plan,
      )
    )


def _rules(value: Any) -> Sequence[tuple[str, Any]]:
  return value if isinstance(value, list | tuple) else [(".*", value)]


def _check_shapes(arrays, path, word, shape):
  """Check what theta and fixed hold for a kernel against its shape."""
  batch, inputs, outputs = layouts.sizes(word, shape)
  rank = arrays["lora_a"].shape[-1:]
  for role, x in arrays.items():
    wanted = {"a": (inputs, *rank), "b": (*rank, outputs)}
    wanted = (*batch, *wanted.get(role[-1], (outputs,)))
    if x.shape != wanted:
      raise ValueError(
        f"{key_of(path, role)!r} has shape {x.shape}; {wanted} is wanted for a"
        f" kernel of shape {tuple(shape)} and layout {word!r}"
      )


def _matrix(leaf: Any, word: str) -> jax.Array:
  return layouts.to_matrix(widen(dense_value(leaf)), word)


def _norms(matrix: jax.Array) -> jax.Array:
  """Compute the norms of columns, [..., I, O] to [..., O]."""
  return jnp.sqrt(jnp.sum(matrix * matrix, axis=-2))


def _drawn(key, sizes, rank, initial, dtype):
  """Draw A, and make B = 0."""
  batch, inputs, outputs = sizes
  shape = (*batch, inputs, rank)
  if initial == "gaussian":
    a = jax.random.normal(key, shape, dtype) / rank
  else:
    bound = 1 / math.sqrt(inputs)
    a = jax.random.uniform(key, shape, dtype, minval=-bound, maxval=bound)
  return a, jnp.zeros((*batch, rank, outputs), dtype)


def leading(
  matrix: jax.Array, rank: int, scale: float
) -> tuple[jax.Array, jax.Array]:
  """Return the factors whose scaled product is the best of that rank.

  Args:
    matrix: [..., I, O].
    rank: The rank R.
    scale: What their product is multiplied with, above 0.

  Returns:
    A [..., I, R] and B [..., R, O], of equal size each for each.
  """
  left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
  roots = jnp.sqrt(values[..., :rank] / scale)
  return (
    left[..., :, :rank] * roots[..., None, :],
    right[..., :rank, :] * roots[..., :, None],
  )


def _olora(matrix, rank, scale):
  """Return the first columns and rows of the QR of the transposed matrix."""
  del scale
  q, r = jnp.linalg.qr(jnp.swapaxes(matrix, -1, -2))
  a = jnp.swapaxes(r[..., :rank, :], -1, -2)
  return a, jnp.swapaxes(q[..., :, :rank], -1, -2)


_INITIAL_FROM = {"pissa": leading, "olora": _olora}
