import warnings

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.stats

from effjax import metrics

FEW = hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
CORRECTIONS = pytest.mark.parametrize("name", metrics.CORRECTIONS)


def peer(first, second):
  """SciPy's test; it warns of constant and of small samples."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    return scipy.stats.ttest_ind(
      first, second, equal_var=False, nan_policy="omit"
    )


def populations(first=5, second=7, seed=0):
  rng = np.random.default_rng(seed)
  a = rng.normal(0.9, 0.01, (first, 40))
  b = rng.normal(0.9, 0.03, (second, 40)) - np.linspace(0, 0.3, 40)
  return a, b


def check(test, first, second, tolerance):
  expected = peer(first, second)
  for ours, theirs in (
    (test.t, expected.statistic),
    (test.freedom, expected.df),
    (test.p, expected.pvalue),
  ):
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=1e-300)


def test_welch_equals_scipy_in_float64():
  with jax.enable_x64(True):
    for sizes in ((2, 2), (30, 3)):
      first, second = populations(*sizes)
      test = metrics.welch(first, second)
      assert test.p.dtype == np.float64
      check(test, first, second, 1e-9)


def test_welch_in_float32_keeps_three_digits():
  first, second = (x.astype(np.float32) for x in populations())
  test = metrics.welch(first, second)
  assert test.p.dtype == np.float32
  expected = peer(first.astype(np.float64), second.astype(np.float64))
  np.testing.assert_allclose(test.t, expected.statistic, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(test.freedom, expected.df, rtol=1e-4)
  np.testing.assert_allclose(test.p, expected.pvalue, rtol=1e-3)


def test_undefined_models_are_left_out_and_counted():
  first, second = populations(6, 6)
  rng = np.random.default_rng(1)
  for x in (first, second):
    x[rng.random(x.shape) < 0.4] = np.nan
  first[:, 0], first[1:, 1] = np.nan, np.nan
  with jax.enable_x64(True):
    test = metrics.welch(first, second)
  counts = [(~np.isnan(x)).sum(axis=0) for x in (first, second)]
  np.testing.assert_array_equal(test.first_count, counts[0])
  np.testing.assert_array_equal(test.second_count, counts[1])
  tested = np.minimum(*counts) > 1
  assert 5 < tested.sum() < 40
  for x in (test.t, test.freedom, test.p):
    np.testing.assert_array_equal(np.isnan(x), ~tested)
  check(
    jax.tree.map(lambda x: x[tested], test),
    first[:, tested],
    second[:, tested],
    1e-9,
  )
  assert np.isnan(test.difference[0])


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3])
def test_populations_that_do_not_vary(value):
  same, other = np.full((3, 1), value), np.full((3, 1), value + 0.5)
  for first, second in ((same, same), (same, other), (other, same)):
    test = metrics.welch(first, second)
    difference = first[0] - second[0]
    assert test.freedom == 1.0
    np.testing.assert_allclose(test.difference, difference, rtol=1e-6)
    if difference == 0.0:
      assert np.isnan(test.t)
      assert np.isnan(test.p)
    else:
      np.testing.assert_array_equal(test.t, np.sign(difference) * np.inf)
      assert test.p == 0.0
  zero, one, some = np.zeros((3, 1)), np.ones((3, 1)), np.eye(3)[:, :1]
  check(metrics.welch(zero, one), zero, one, 0)
  # One side that varies is enough for a test.
  check(metrics.welch(some, one), some, one, 1e-4)


def test_too_few_models_are_no_test():
  for first, second in ((4, 1), (0, 3)):
    test = metrics.welch(
      np.zeros((first, 2)), np.arange(2.0 * second).reshape(second, 2)
    )
    assert np.isnan(test.p).all()
    np.testing.assert_array_equal(test.first_count, [first] * 2)


def test_welch_under_jit_and_vmap():
  first, second = populations()
  test = jax.jit(jax.vmap(metrics.welch, in_axes=1))(
    first.astype(np.float32), second.astype(np.float32)
  )
  np.testing.assert_allclose(test.p, metrics.welch(first, second).p, rtol=1e-3)


def test_shapes_of_populations_are_checked():
  with pytest.raises(ValueError, match="same axes"):
    metrics.welch(np.zeros((3, 2)), np.zeros((3, 4)))


def brute_holm(p):
  """Holm's procedure as written: reject until the first failure."""
  order = np.argsort(p, kind="stable")
  adjusted, worst = np.empty(len(p)), 0.0
  for rank, index in enumerate(order):
    worst = max(worst, p[index] * (len(p) - rank))
    adjusted[index] = min(worst, 1.0)
  return adjusted


def brute_benjamini_hochberg(p):
  return scipy.stats.false_discovery_control(p)


BRUTE = {"holm": brute_holm, "benjamini_hochberg": brute_benjamini_hochberg}


@CORRECTIONS
@FEW
@hypothesis.given(
  p=st.lists(
    st.sampled_from([0.0, 1e-6, 0.01, 0.02, 0.03, 0.25, 0.5, 1.0, np.nan])
    | st.floats(0, 1),
    min_size=16,
    max_size=16,
  )
)
def test_corrections_equal_brute_force(name, p):
  p = np.float32(p)
  defined = ~np.isnan(p)
  expected = np.full(16, np.nan)
  if defined.any():
    expected[defined] = BRUTE[name](p[defined].astype(np.float64))
  ours = metrics.CORRECTIONS[name](p)
  np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-37)


@CORRECTIONS
@FEW
@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_counts_repeat_p_values(name, seed):
  rng = np.random.default_rng(seed)
  p = rng.integers(0, 11, 12).astype(np.float32) / np.float32(10)
  p[rng.random(12) < 0.2] = np.nan
  counts = rng.integers(0, 4, 12)
  correct = metrics.CORRECTIONS[name]
  ours = np.asarray(correct(p, counts=counts))
  repeated = np.repeat(p, counts)
  padded = np.full(36, np.nan, np.float32)
  padded[: len(repeated)] = repeated
  expected = np.asarray(correct(padded))[: len(repeated)]
  np.testing.assert_allclose(np.repeat(ours, counts), expected, rtol=1e-6)
  assert np.isnan(ours[counts == 0]).all()


@CORRECTIONS
def test_corrections_under_jit_vmap_and_float64(name):
  correct = metrics.CORRECTIONS[name]
  p = np.random.default_rng(2).random((3, 8))
  mapped = jax.jit(jax.vmap(correct))(p.astype(np.float32))
  for ours, row in zip(mapped, p, strict=True):
    np.testing.assert_allclose(ours, BRUTE[name](row), rtol=1e-6)
  whole = correct(p)
  assert whole.shape == p.shape
  np.testing.assert_allclose(whole.ravel(), BRUTE[name](p.ravel()), rtol=1e-6)
  with jax.enable_x64(True):
    exact = correct(p[0], counts=np.ones(8, int))
    np.testing.assert_allclose(exact, BRUTE[name](p[0]), rtol=1e-14)
  closed = jax.jit(lambda: correct(p[0]))()
  np.testing.assert_allclose(closed, BRUTE[name](p[0]), rtol=1e-6)


@CORRECTIONS
def test_errors(name):
  with pytest.raises(ValueError, match=r"in \[0, 1\]"):
    metrics.CORRECTIONS[name](np.array([0.5, 1.5]))
  with pytest.raises(ValueError, match="one shape"):
    metrics.CORRECTIONS[name](np.array([0.5]), counts=np.array([1, 2]))
