import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import metrics

ROWS = 30


def brute_force(logits, labels, convention):
  """Thresholds of columns by sorting, in float64."""
  thresholds = []
  for z, y in zip(logits.T.astype(np.float64), labels.T, strict=True):
    descending = np.sort(z)[::-1]
    k = int(y.sum())
    if k:
      thresholds.append(descending[k - 1])
    else:
      thresholds.append(np.inf if convention == "exact" else descending[-1])
  return np.array(thresholds)


@pytest.mark.parametrize("convention", ["exact", "reference"])
@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
  logits=hnp.arrays(
    np.float32,
    (ROWS, 3),
    elements=st.sampled_from([-2.5, -0.0, 0.0, 0.25, 1.0, 1e-30, np.inf]),
  ),
  labels=hnp.arrays(bool, (ROWS, 3)),
)
def test_rate_after_adjustment(convention, logits, labels):
  labels[:, 0] = False
  labels[:, 1] |= labels[:, 2].any()
  threshold = np.asarray(
    metrics.adjust_thresholds(logits, labels, convention=convention)
  )
  np.testing.assert_array_equal(
    threshold, brute_force(logits, labels, convention)
  )
  selected = np.asarray(metrics.decisions(logits, threshold)).sum(axis=0)
  positives, ties = labels.sum(axis=0), (logits == threshold).sum(axis=0)
  some = positives > 0
  assert (selected < positives)[some].all()
  # With its ties the threshold would select at least the base rate.
  assert (selected + ties >= positives)[some].all()
  if convention == "exact":
    assert (selected[~some] == 0).all()
  else:
    assert (selected + ties == ROWS)[~some].all()


def example(rows=4000, seed=0):
  """A model that predicts the rarer value too rarely."""
  rng = np.random.default_rng(seed)
  labels = rng.random((rows, 4)) < [[0.1, 0.2, 0.3, 0.4]]
  logits = rng.normal(0, 1, labels.shape) + 3.0 * labels - 2.5
  return logits.astype(np.float32), labels


def test_adjustment_restores_the_base_rate_on_new_data():
  logits, labels = example()
  threshold = metrics.adjust_thresholds(logits[::2], labels[::2])
  before, after = (
    metrics.compute(
      metrics.threshold_calibration_bias(labels[::2], threshold=t),
      logits=logits[1::2],
      labels=labels[1::2],
    )
    for t in (0.0, threshold)
  )
  assert (np.asarray(before) < 0.8).all()
  np.testing.assert_allclose(after, 1.0, atol=0.12)
  # Ranks do not see a threshold.
  moved = logits - np.asarray(threshold)
  np.testing.assert_allclose(
    metrics.auc_exact(moved, labels),
    metrics.auc_exact(logits, labels),
    atol=1e-6,
  )


def test_one_column_is_a_column_of_many():
  logits, labels = example(50)
  many = metrics.adjust_thresholds(logits, labels)
  for a in range(4):
    one = metrics.adjust_thresholds(logits[:, a], labels[:, a])
    assert one.shape == ()
    assert one == many[a]


def test_under_jit_and_vmap():
  pair = [example(50, seed) for seed in (1, 2)]
  logits, labels = (np.stack(x) for x in zip(*pair, strict=True))
  mapped = jax.jit(jax.vmap(metrics.adjust_thresholds))(logits, labels)
  for found, (z, y) in zip(mapped, pair, strict=True):
    np.testing.assert_array_equal(found, brute_force(z, y, "exact"))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_type_of_the_logits_is_kept(dtype):
  logits, labels = example(50)
  logits = jnp.asarray(logits, dtype)
  threshold = metrics.adjust_thresholds(logits, labels)
  assert threshold.dtype == dtype
  np.testing.assert_array_equal(
    threshold, brute_force(np.asarray(logits), labels, "exact")
  )


def test_numbers_as_labels_and_nan():
  logits = np.array([[3, 0], [1, np.nan], [2, 1], [0, 2]], np.float32)
  labels = np.array([[1, 1], [-1, 0], [1, 0], [0, 0]], np.int32)
  np.testing.assert_array_equal(
    metrics.adjust_thresholds(logits, labels), [2.0, np.nan]
  )


def test_unusable_input():
  logits, labels = example(4)
  with pytest.raises(ValueError, match=r"got \[4, 4\] and \[3, 4\]"):
    metrics.adjust_thresholds(logits, labels[:3])
  with pytest.raises(ValueError, match=r"shape \[N\] or \[N, A\], got \[\]"):
    metrics.adjust_thresholds(1.0, True)
  with pytest.raises(ValueError, match="without any sample"):
    metrics.adjust_thresholds(logits[:0], labels[:0])
  with pytest.raises(ValueError, match="convention must be"):
    metrics.adjust_thresholds(logits, labels, convention="loose")
