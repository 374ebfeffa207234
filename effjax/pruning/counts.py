"""How many weights remain: exact counts from a sparsity, static or traced."""

import math
import operator
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from effjax.pruning.allocation import check_sparsity, count_kept
from effjax.pruning.integers import Wide, wide


def is_traced(x: Any) -> bool:
  """Say whether a value is known only when the compiled program runs.

  Args:
    x: Any object.

  Returns:
    True for a tracer.

  >>> is_traced(1)
  False
  """
  return isinstance(x, jax.core.Tracer)


def static_kept(size: int, sparsity: float, convention: str) -> int:
  """Count the weights that remain, on the host.

  Args:
    size: Number of weights.
    sparsity: Share of pruned weights.
    convention: "exact" or "reference", see `kept_counts`.

  Returns:
    The count; under "reference" the rank k of the threshold.

  >>> static_kept(1000, 0.95, "exact"), static_kept(1000, 0.95, "reference")
  (50, 51)
  """
  if convention == "exact":
    return count_kept(size, sparsity)
  # Nothing is the (n+1)-th largest, so that sparsity 0 keeps everything.
  everything = check_sparsity(sparsity) == 0.0
  return size + 1 if everything else math.ceil(size * (1.0 - sparsity))


def _traced_kept(sparsity: jax.Array, size: int, convention: str) -> Wide:
  """Compute `static_kept` of a traced sparsity in integers.

  The sparsity is taken as the float32 number it is (or float64, where that is
  enabled), or as the nearer end of [0, 1], NaN as 0; limbs of 12 bits keep
  every product within 32 bits.
  """
  if sparsity.ndim:
    raise ValueError(
      f"the sparsity is an array of shape {sparsity.shape}; one number, or a"
      " tree of them, is wanted"
    )
  share = sparsity
  if share.dtype != jnp.float64:
    share = share.astype(jnp.float32)
  share = jnp.where(jnp.isnan(share), jnp.zeros_like(share), share)
  share = jnp.clip(share, 0.0, 1.0)
  if share.dtype == jnp.float64:
    return _double_kept(share, size, convention)
  rounding = 0.5 if convention == "exact" else 0.0
  scaled = share * jnp.float32(2**24)
  whole = jnp.floor(scaled)
  rest = (scaled - whole) * jnp.float32(size / 2**24) + jnp.float32(rounding)
  whole = whole.astype(jnp.int32)
  factor = (whole & 0xFFF, (whole >> 12) & 0xFFF, whole >> 24)
  digits = [(size >> shift) & 0xFFF for shift in (0, 12, 24, 36)]
  limbs = [jnp.zeros((), jnp.int32)] * 7
  for i, a in enumerate(factor):
    for j, b in enumerate(digits):
      limbs[i + j] = limbs[i + j] + a * jnp.int32(b)
  # The two lowest limbs are the fraction of the product.
  fraction = jnp.zeros((), jnp.float32)
  carry = jnp.zeros((), jnp.int32)
  for i in range(7):
    carry, limbs[i] = (limbs[i] + carry) >> 12, (limbs[i] + carry) & 0xFFF
    if i < 2:
      fraction = fraction + limbs[i].astype(jnp.float32) * 2.0 ** (12 * (i - 2))
  extra = jnp.floor(fraction + rest).astype(jnp.int32)
  low = limbs[2] + (limbs[3] << 12) + extra
  # low < 2**24 + 2**23; the rest stands 2**24 higher.
  pruned = Wide(
    (low >> 16) + ((limbs[4] + (limbs[5] << 12)) << 8), low & 0xFFFF
  )
  all_of_it = wide([size])
  # Sparsity 0 asks for one more than there are, see `static_kept`.
  more = (share == 0.0).astype(jnp.int32) if convention == "reference" else 0
  low = all_of_it.low[0] - pruned.low + more
  high = all_of_it.high[0] - pruned.high + (low >> 16)
  return Wide(jnp.maximum(high, 0), jnp.where(high < 0, 0, low & 0xFFFF))


def _double_kept(share: jax.Array, size: int, convention: str) -> Wide:
  """Compute `static_kept` of a traced float64 sparsity as the host does."""
  if convention == "exact":
    kept = size - jnp.floor(share * size + 0.5)
  else:
    kept = jnp.where(share == 0.0, size + 1.0, jnp.ceil(size * (1.0 - share)))
  high = jnp.floor(kept / 65536)
  return Wide(high.astype(jnp.int32), (kept - high * 65536).astype(jnp.int32))


def kept_counts(
  sizes: Sequence[int],
  sparsity: Sequence[Any] | None,
  keep: Sequence[Any] | None,
  convention: str,
  labels: Sequence[str] | None = None,
) -> Wide:
  """Turn sparsities or counts into the numbers of kept entries of G groups.

  Args:
    sizes: Number of entries of each group.
    sparsity: Share to prune of each group, host number or traced scalar.
    keep: Instead, the numbers of entries to keep, host integers or traced.
    convention: "exact" prunes floor(sparsity * n + 1/2); "reference" keeps what
      lies above the k-th largest, k = ceil(n (1 - sparsity)).
    labels: What the groups are called in errors.

  Returns:
    The counts, Wide [G].

  Raises:
    ValueError: If both or neither are given, or a number is out of range, of
      another type or an array.
  """
  if (sparsity is None) == (keep is None):
    raise ValueError("give either a sparsity or keep=, the number to keep")
  counts = []
  for i, size in enumerate(sizes):
    of = f" of {labels[i]}" if labels else ""
    if keep is not None:
      counts.append(_given(keep[i], size, of))
      continue
    assert sparsity is not None  # one of the two is given
    if is_traced(sparsity[i]):
      counts.append(_traced_kept(sparsity[i], size, convention))
    else:
      share = check_sparsity(sparsity[i], f"sparsity{of}")
      if share == 1.0 and size:
        warnings.warn("sparsity 1 prunes every weight", stacklevel=3)
      counts.append(_scalar(wide([static_kept(size, share, convention)])))
  return Wide(
    jnp.stack([count.high for count in counts]),
    jnp.stack([count.low for count in counts]),
  )


def _scalar(count: Wide) -> Wide:
  return Wide(count.high[0], count.low[0])


def _given(keep: Any, size: int, of: str) -> Wide:
  if is_traced(keep):
    if keep.ndim or not jnp.issubdtype(keep.dtype, jnp.integer):
      raise ValueError(
        f"keep{of} is {keep.dtype}{list(keep.shape)}; one whole number is"
        " wanted"
      )
    if jnp.iinfo(keep.dtype).bits < 32:
      keep = keep.astype(jnp.int32)  # which holds the bound
    # Totals beyond 32 bits come in as Wide already.
    return wide(jnp.clip(keep, 0, min(size, 2**31 - 1)))
  if isinstance(keep, Wide):
    return keep
  try:
    count = operator.index(int(keep) if keep == int(keep) else keep)
  except (TypeError, ValueError, OverflowError):
    count = -1
  if not 0 <= count <= size:
    raise ValueError(
      f"keep {textwrap.shorten(repr(keep), 60)}{of} is not a whole number"
      f" between 0 and the {size} entries"
    )
  return _scalar(wide([count]))
