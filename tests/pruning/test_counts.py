import fractions
import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import pruning
from effjax.pruning import counts
from tests.pruning import brute

quick = hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
SIZES = (1, 7, 1000, 2**24 + 1, 25_502_912, 10**8 + 1, 2**31 + 5, 2**45 - 3)


def value(number):
  return int(number.high) * 65536 + int(number.low)


@functools.partial(jax.jit, static_argnames="convention")
def traced(sparsity, convention="exact"):
  return [counts._traced_kept(sparsity, n, convention) for n in SIZES]


@quick
@hypothesis.given(bits=st.integers(2**23, 2**24), shift=st.integers(0, 6))
def test_traced_sparsities_count_exactly(bits, shift):
  # From 1/2 on, float32 numbers are multiples of 2^-24.
  sparsity = np.float32(bits / 2 ** (24 + shift))
  for size, found in zip(SIZES, traced(sparsity), strict=True):
    off = abs(value(found) - brute.kept(size, sparsity))
    assert off <= (1 if shift else 0)


def test_traced_ends_of_the_range():
  for sparsity in (0.0, -0.5):
    assert [value(n) for n in traced(jnp.float32(sparsity))] == list(SIZES)
  for sparsity in (1.0, 1.5):
    assert not any(value(n) for n in traced(jnp.float32(sparsity)))


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.75, 0.875, 0.99609375, 1.0])
def test_traced_reference_rank(sparsity):
  found = traced(jnp.float32(sparsity), convention="reference")
  expected = [counts.static_kept(n, sparsity, "reference") for n in SIZES]
  assert [value(n) for n in found] == expected


@quick
@hypothesis.given(size=st.integers(0, 10**12), share=st.integers(0, 1000))
def test_static_counts(size, share):
  exact = fractions.Fraction(share, 1000)
  found = counts.static_kept(size, share / 1000, "exact")
  pruned = size - found
  # A float64 product decides: half a unit where it is representable.
  assert abs(pruned - exact * size) <= fractions.Fraction(501, 1000)


def test_worked_values_of_the_reference_rank():
  rank = functools.partial(counts.static_kept, convention="reference")
  assert [rank(10, 0.5), rank(10, 0.95)] == [5, 1]
  assert [rank(1000, 0.95), rank(1000, 0.98)] == [51, 21]
  # Sparsity 0 keeps everything: nothing is the (n+1)-th largest.
  assert rank(10, 0.0) == 11


def test_counts_that_float32_gets_wrong():
  size = 100_000_001
  narrow = np.float32(size) * (np.float32(1) - np.float32(0.9))
  assert round(float(narrow)) == 10_000_002
  found = counts.kept_counts([size], [0.9], None, "exact")
  assert int(found.high[0]) * 65536 + int(found.low[0]) == 10_000_000


@quick
@hypothesis.given(
  # The hardware takes denormal numbers for zero.
  share=st.floats(0, 1, allow_subnormal=False),
  k=st.integers(0, 1000),
)
def test_traced_float64_counts_as_the_host_does(share, k):
  sizes = [n for n in SIZES if n < 2**45]
  for sparsity in (share, k / 1000):
    for convention in ("exact", "reference"):
      with jax.enable_x64(True):
        found = traced(jnp.float64(sparsity), convention=convention)
      expected = [counts.static_kept(n, sparsity, convention) for n in sizes]
      found = [value(n) for n in found[: len(sizes)]]
      # The compiler may fuse the product with the sum and round once less.
      off = np.abs(np.subtract(found, expected))
      assert (off <= 1).all()
      assert (off == 0).mean() > 0.8


def test_worked_values_of_traced_float64():
  """0.98 as float32 would prune one weight more."""
  for size, sparsity in ((1000, 0.98), (1000, 0.95), (10, 0.5)):
    with jax.enable_x64(True):
      found = jax.jit(
        lambda s, size=size: counts._traced_kept(s, size, "reference")
      )(jnp.float64(sparsity))
    assert value(found) == counts.static_kept(size, sparsity, "reference")


def test_a_traced_nan_prunes_nothing():
  assert [value(n) for n in traced(jnp.float32(np.nan))] == list(SIZES)


@pytest.mark.parametrize(
  ("kind", "keep", "size"),
  [("uint8", 200, 400), ("int8", 100, 400), ("int16", 100, 40_000)],
)
def test_traced_numbers_of_narrow_types(kind, keep, size):
  scores = {"w": jnp.arange(float(size)).reshape(2, -1)}
  for select in (pruning.topk, pruning.global_topk):
    mask = jax.jit(lambda k, select=select: select(scores, keep=k))(
      jnp.asarray(keep, kind)
    )
    assert int(mask["w"].sum()) == keep
