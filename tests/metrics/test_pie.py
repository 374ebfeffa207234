import pathlib

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.stats

from effjax import metrics

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "bias" / "pie.npz"
FEW = hypothesis.settings(max_examples=20, deadline=None, derandomize=True)


@pytest.mark.parametrize(
  ("case", "classes"),
  [("mc", None), ("mc", 10), ("even", None), ("even", 4), ("binary", 2)],
)
def test_golden(case, classes):
  data = np.load(GOLDEN, allow_pickle=False)
  dense, pruned = data[f"{case}_dense"], data[f"{case}_pruned"]
  value = metrics.exemplars(dense, pruned, classes)
  for name in ("modal_dense", "modal_pruned", "pie", "all_disagree"):
    np.testing.assert_array_equal(getattr(value, name), data[f"{case}_{name}"])
  if case == "binary":
    flags = metrics.exemplars(dense > 0, pruned > 0)
    assert flags.modal_dense.dtype == bool
    for ours, theirs in zip(flags, value, strict=True):
      np.testing.assert_array_equal(ours, theirs)


def brute_mode(votes):
  values, counts = np.unique(votes, return_counts=True)
  return values[counts.argmax()]  # the first, hence the smallest, on ties


@FEW
@hypothesis.given(seed=st.integers(0, 2**32 - 1), spread=st.integers(1, 6))
def test_equals_loops(seed, spread):
  rng = np.random.default_rng(seed)
  dense = rng.integers(0, spread, (5, 24))
  pruned = rng.integers(0, spread, (4, 24)) + rng.integers(0, 2, 24)
  teacher = rng.integers(0, spread, 24)
  value = metrics.exemplars(dense, pruned, teacher=teacher)
  for i in range(24):
    modes = brute_mode(dense[:, i]), brute_mode(pruned[:, i])
    assert (value.modal_dense[i], value.modal_pruned[i]) == modes
    assert value.pie[i] == (modes[0] != modes[1])
    assert value.all_disagree[i] == (pruned[:, i] != teacher[i]).all()
    a, b = (int((x[:, i] == modes[0]).sum()) for x in (dense, pruned))
    assert value.dense_agreement[i] == a
    assert value.pruned_agreement[i] == b
    expected = scipy.stats.binom.cdf(b, 4, (a + 1) / 7)
    np.testing.assert_allclose(value.p[i], expected, rtol=1e-6)
  np.testing.assert_allclose(
    value.adjusted, metrics.benjamini_hochberg(value.p), rtol=1e-6
  )
  np.testing.assert_array_equal(
    value.corrected, value.pie & (value.adjusted <= 0.05)
  )
  # Who agrees with the mode of the pruned models cannot agree with another.
  agree = value.pruned_agreement
  assert (np.where(value.pie, agree, 0) <= 2).all()
  # All disagree with a teacher who votes with the majority: an exemplar.
  typical = teacher == value.modal_dense
  assert (value.pie | ~(value.all_disagree & typical)).all()


def test_null_of_large_populations_equals_scipy_in_float64():
  rng = np.random.default_rng(0)
  dense = (rng.random((30, 500)) < rng.random(500)).astype(int)
  pruned = (rng.random((40, 500)) < rng.random(500)).astype(int)
  with jax.enable_x64(True):
    value = metrics.exemplars(dense, pruned, 2)
  a, b = np.asarray(value.dense_agreement), np.asarray(value.pruned_agreement)
  cdf = scipy.stats.binom.cdf(b, 40, (a + 1) / 32)
  np.testing.assert_allclose(value.p, cdf, rtol=1e-10)
  assert cdf.min() < 1e-15


def noisy(key, shift, shape=(20, 400, 3)):
  """Votes whose rate is that of the sample, moved by `shift` for some."""
  rng = np.random.default_rng(key)
  rate = np.random.default_rng(9).random(shape[1:])
  rate[:40] = 0.9 - shift
  return rng.random(shape) < rate


def test_correction_keeps_real_changes_and_drops_chance():
  value = metrics.exemplars(noisy(0, 0.0), noisy(1, 0.8))
  assert value.pie.shape == (400, 3)
  assert (value.corrected <= value.pie).all()
  assert value.corrected[:40].all()
  # Samples near a tie change sides by chance.
  chance = int(value.pie[40:].sum())
  assert chance > 100
  assert int(value.corrected[40:].sum()) < chance / 4
  holm = metrics.exemplars(noisy(0, 0.0), noisy(1, 0.8), correction="holm")
  assert (holm.corrected <= value.corrected).all()
  np.testing.assert_array_equal(holm.p, value.p)
  for a in range(3):
    np.testing.assert_allclose(
      holm.adjusted[:, a], metrics.holm(value.p[:, a]), rtol=1e-6
    )
  same = metrics.exemplars(noisy(0, 0.0), noisy(0, 0.0))
  assert not same.pie.any()


def test_mapped_over_sparsities():
  rng = np.random.default_rng(3)
  dense = rng.integers(0, 3, (4, 50))
  pruned = rng.integers(0, 3, (2, 5, 50))
  mapped = jax.jit(
    jax.vmap(lambda pruned: metrics.exemplars(dense, pruned, 3))
  )(pruned)
  for i in range(2):
    alone = metrics.exemplars(dense, pruned[i], 3)
    for x, y in zip(mapped, alone, strict=True):
      np.testing.assert_allclose(x[i], y, rtol=1e-6)


def test_one_model_each_is_a_flip():
  rng = np.random.default_rng(4)
  dense, pruned = rng.integers(0, 3, (2, 1, 50))
  value = metrics.exemplars(dense, pruned)
  flips = dense[0] != pruned[0]
  np.testing.assert_array_equal(value.pie, flips)
  np.testing.assert_array_equal(value.all_disagree, flips)
  # Laplace's rule leaves one in three to chance: no flip is significant.
  np.testing.assert_allclose(value.p[flips], 1 / 3, rtol=1e-6)
  assert not value.corrected.any()


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((np.zeros((2, 3), int), np.zeros((2, 4), int)), "one kind"),
    ((np.zeros((2, 3), int), np.zeros((2, 3), bool)), "one kind"),
    ((np.zeros((0, 3), int), np.zeros((2, 3), int)), "at least one model"),
    ((np.zeros(3, int), np.zeros((2, 3), int)), "[models, N]"),
    ((np.zeros((2, 3)), np.zeros((2, 3))), "integers"),
    ((np.ones((2, 3), int), np.ones((2, 3), int), 1), "classes=1"),
  ],
)
def test_errors(arguments, message):
  with pytest.raises(ValueError) as error:
    metrics.exemplars(*arguments)
  assert message in str(error.value)


def test_errors_of_options():
  votes = np.zeros((2, 3), int)
  with pytest.raises(ValueError, match="teacher must have shape"):
    metrics.exemplars(votes, votes, teacher=votes)
  with pytest.raises(ValueError, match="correction"):
    metrics.exemplars(votes, votes, correction="none")
