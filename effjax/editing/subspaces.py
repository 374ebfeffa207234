"""Ranks, sizes and subspaces of deltas, by singular values.

A leaf of a delta is read as a matrix: kernels as `effjax.adapters.layouts` says
(`layout=` for those of unusual shape), vectors as one row. Stacked kernels are
a matrix each. Statistics are float32 or wider.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from effjax import arguments
from effjax.adapters import layouts
from effjax.editing.solving import compiled

Array = jax.Array
Delta = dict[str, Array]


class Spectrum(NamedTuple):
  """How large a change is, and how many directions it has.

  Attributes:
    frobenius: [...], root of the sum of squares.
    spectral: [...], largest singular value.
    nuclear: [...], sum of the singular values.
    stable_rank: [...], squared ratio of frobenius and spectral norm.
    effective_rank: [...], exponential of the entropy of the singular values as
      shares (Roy and Vetterli 2007).
    rank: int32 [...], singular values that are not rounding: above max(O, I)
      times the largest times the precision.
  """

  frobenius: Array
  spectral: Array
  nuclear: Array
  stable_rank: Array
  effective_rank: Array
  rank: Array


class Comparison(NamedTuple):
  """How two changes of a matrix lie to each other.

  Attributes:
    cosine: [...], of the matrices as vectors; NaN if one is zero.
    input_angles: [..., R], principal angles in radians between the spaces of
      the first R right singular vectors, ascending; NaN beyond the rank of
      either.
    output_angles: [..., R], the same of the left ones.
    input_overlap: [...], mean squared cosine of the angles that exist: 1 for
      the same space, 0 for orthogonal ones, NaN without any.
    output_overlap: [...], the same of the left ones.
  """

  cosine: Array
  input_angles: Array
  output_angles: Array
  input_overlap: Array
  output_overlap: Array


def project(
  delta: Mapping[str, Array], rank: Any, *, layout: layouts.Layout = None
) -> Delta:
  """Replace a delta by the nearest one of a given rank, matrix by matrix.

  D_r = U_r S_r V_r^T (Eckart and Young 1936), the truncation after training
  that separates "low rank" from "trained as low rank".

  Args:
    delta: The delta.
    rank: How many singular values are kept, a number or traced; vectors stay
      as they are.
    layout: How the axes of a kernel form a matrix.

  Returns:
    The delta, of the same types.

  Raises:
    ValueError: If the rank is no whole number of 0 or more, or the axes of a
      kernel are not known.
  """
  if not isinstance(rank, jax.core.Tracer):
    rank = arguments.whole("rank", rank, 0)
  projected = {}
  for path, x in delta.items():
    if x.ndim < 2:
      projected[path] = x
      continue
    matrix, word = _matrix(path, x, layout)
    low = _truncated(matrix, rank)
    projected[path] = layouts.from_matrix(low, word, x.shape).astype(x.dtype)
  return projected


def spectra(
  delta: Mapping[str, Array], *, layout: layouts.Layout = None
) -> dict[str, Spectrum]:
  """Measure norms and ranks of a delta, matrix by matrix.

  Args:
    delta: The delta.
    layout: How the axes of a kernel form a matrix.

  Returns:
    A `Spectrum` by path; its ranks are 0 and its stable and effective ranks
    NaN where the change is zero, or has no weights.
  """
  return {
    path: _spectrum(_matrix(path, x, layout)[0]) for path, x in delta.items()
  }


def norm(delta: Mapping[str, Array]) -> Array:
  """Measure the length of a whole delta.

  Args:
    delta: The delta.

  Returns:
    The root of the sum of all squares [].

  >>> float(norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])}))
  5.0
  """
  return jnp.sqrt(_inner(delta, delta))


def cosine(a: Mapping[str, Array], b: Mapping[str, Array]) -> Array:
  """Compare the directions of two whole deltas.

  Args:
    a: A delta.
    b: Another one; a path that one lacks is unchanged by it.

  Returns:
    The cosine of their angle [], NaN if one is zero.

  >>> float(cosine({"a": jnp.ones(1)}, {"a": -jnp.ones(1)}))
  -1.0
  """
  return _inner(a, b) / (norm(a) * norm(b))


def compare(
  a: Mapping[str, Array],
  b: Mapping[str, Array],
  *,
  rank: int = 1,
  layout: layouts.Layout = None,
) -> dict[str, Comparison]:
  """Compare two deltas, matrix by matrix, and the spaces that they act in.

  Args:
    a: A delta.
    b: Another one.
    rank: Singular vectors that span the spaces compared, R; a matrix that has
      fewer, such as a vector, is compared in those.
    layout: How the axes of a kernel form a matrix.

  Returns:
    A `Comparison` for each path that both have.

  Raises:
    ValueError: If the deltas share no path, shapes differ, or the rank is no
      whole number above 0.
  """
  shared = [path for path in a if path in b]
  if not shared:
    raise ValueError("the deltas have no path in common")
  rank = arguments.whole("rank", rank)
  found: dict[str, Comparison] = {}
  for path in shared:
    x, y = a[path], b[path]
    if x.shape != y.shape:
      raise ValueError(
        f"the deltas of {path!r} have shapes {x.shape} and {y.shape}"
      )
    matrices = [_matrix(path, z, layout)[0] for z in (x, y)]
    found[path] = _stacked(*matrices, rank)
  return found


def _matrix(path: str, x: Array, layout: layouts.Layout) -> tuple[Array, str]:
  """Write a leaf as [..., I, O] in a wide type, and return its layout."""
  x = x if x.dtype == jnp.float64 else x.astype(jnp.float32)
  if x.ndim < 2:
    return x.reshape(1, -1), "io"
  word = layouts.resolve(layout, path, x.shape)
  return layouts.to_matrix(x, word), word


def _inner(a: Mapping[str, Array], b: Mapping[str, Array]) -> Array:
  terms = []
  for path in a:
    if path in b:
      x, y = (_matrix(path, z.reshape(-1), None)[0] for z in (a[path], b[path]))
      terms.append(jnp.sum(x * y))
  return sum(terms[1:], terms[0]) if terms else jnp.zeros(())


def _counted(s: Array, shape: tuple[int, ...]) -> Array:
  """Say which singular values [..., M] are more than rounding."""
  least = max(shape[-2:]) * jnp.finfo(s.dtype).eps
  return s > least * s[..., :1]


@compiled
def _truncated(matrix, rank):
  u, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
  first = jnp.arange(s.shape[-1]) < rank
  kept = jnp.where(first.reshape((1,) * (s.ndim - 1) + (-1,)), s, 0.0)
  exact = jax.lax.Precision.HIGHEST
  return jnp.matmul(u * kept[..., None, :], vt, precision=exact)


@compiled
def _spectrum(matrix):
  s = jnp.linalg.svd(matrix, compute_uv=False)
  frobenius = jnp.sqrt(jnp.sum(s**2, axis=-1))
  # The first, or 0 where there is none.
  spectral, nuclear = jnp.sum(s[..., :1], axis=-1), jnp.sum(s, axis=-1)
  share = s / nuclear[..., None]
  logs = jnp.log(jnp.where(share > 0, share, 1.0))
  entropy = -jnp.sum(share * logs, axis=-1)
  return Spectrum(
    frobenius,
    spectral,
    nuclear,
    (frobenius / spectral) ** 2,
    jnp.where(nuclear > 0, jnp.exp(entropy), jnp.nan),
    jnp.sum(_counted(s, matrix.shape), axis=-1, dtype=jnp.int32),
  )


@functools.partial(jax.jit, static_argnums=2)
def _stacked(a, b, rank):
  compared = lambda a, b: _compared(a, b, rank)
  for _ in a.shape[:-2]:
    compared = jax.vmap(compared)
  return compared(a, b)


def _compared(a: Array, b: Array, rank: int) -> Comparison:
  """Compare two matrices [I, O]."""
  inner = lambda x, y: jnp.sum(x * y)
  cosine = inner(a, b) / jnp.sqrt(inner(a, a) * inner(b, b))
  spaces, ranks = [], []
  for matrix in (a, b):
    u, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
    live = _counted(s, matrix.shape)[:rank]
    first = (jnp.where(live, x[:, :rank], 0.0) for x in (u, vt.T))
    missing = (0, rank - live.shape[0])
    spaces.append([jnp.pad(x, ((0, 0), missing)) for x in first])
    ranks.append(jnp.sum(live, dtype=jnp.int32))
  common = jnp.minimum(*ranks)
  (inputs, outputs) = (
    _angles(x, y, common) for x, y in zip(*spaces, strict=True)
  )
  return Comparison(cosine, inputs[0], outputs[0], inputs[1], outputs[1])


def _angles(a: Array, b: Array, common: Array) -> tuple[Array, Array]:
  """Return principal angles [R] and the overlap [] of two spaces.

  Args:
    a: Orthonormal columns [M, R], zero where there are fewer.
    b: The same of the other space.
    common: The smaller number of columns that are not zero, [].
  """
  exact = jax.lax.Precision.HIGHEST
  left, cosines, right = jnp.linalg.svd(jnp.matmul(a.T, b, precision=exact))
  x = jnp.matmul(a, left, precision=exact)
  y = jnp.matmul(b, right.T, precision=exact)
  cosines = jnp.clip(cosines, 0.0, 1.0)
  # The cosine hardly moves where an angle is small, but the sine does.
  small = jnp.linalg.norm(y - x * cosines[None, :], axis=0)
  large = jnp.sqrt(1.0 - cosines**2)
  sines = jnp.where(cosines**2 > 0.5, small, large)
  valid = jnp.arange(cosines.shape[0]) < common
  overlap = jnp.sum(jnp.where(valid, cosines**2, 0.0)) / common.astype(a.dtype)
  return jnp.where(valid, jnp.arctan2(sines, cosines), jnp.nan), overlap
