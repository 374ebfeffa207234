"""The sparse last layer against scikit-learn's elastic net."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from effjax import spade

CLASSES, ROWS, COLUMNS = 3, 240, 12


def data():
  rng = np.random.default_rng(0)
  labels = np.arange(ROWS) % CLASSES
  means = 1.2 * rng.normal(size=(CLASSES, COLUMNS))
  means[:, 6:] = 0.0  # say nothing
  features = means[labels] + rng.normal(size=(ROWS, COLUMNS))
  # Other units and offsets; one feature is always the same.
  features = features * np.geomspace(0.1, 10, COLUMNS) + 3.0
  features[:, 3] = 7.0
  return features.astype(np.float32), labels


def objective(kernel, bias, strength, share):
  """The penalised loss of a layer for features as given, in float64."""
  features, labels = data()
  features = features.astype(np.float64)
  logits = features @ kernel + bias
  logits -= logits.max(1, keepdims=True)
  log = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  weights = kernel * features.std(0)[:, None]
  return (
    -log[np.arange(ROWS), labels].mean()
    + strength * share * np.abs(weights).sum()
    + strength * (1 - share) / 2 * np.square(weights).sum()
  )


def sklearn(strength, share):
  """The same by scikit-learn: C weighs the sum of the losses."""
  features, labels = data()
  features = features.astype(np.float64)
  mean, deviation = features.mean(0), features.std(0)
  scale = np.where(deviation > 0, deviation, 1.0)
  peer = LogisticRegression(
    solver="saga",
    l1_ratio=share,
    C=1 / (strength * ROWS),
    max_iter=20000,
    tol=1e-7,
    random_state=0,
  )
  peer.fit((features - mean) / scale, labels)
  kernel = peer.coef_.T / scale[:, None]
  return kernel, peer.intercept_ - mean @ kernel


@pytest.mark.parametrize("strength", [0.003, 0.03, 0.15])
@pytest.mark.parametrize("share", [0.99, 0.5])
def test_the_objective_is_as_low_as_scikit_learns(strength, share):
  features, labels = data()
  kernel, bias = spade.sparse_head(
    features, labels, CLASSES, strength=strength, share=share
  )
  with warnings.catch_warnings():
    # Versions differ in how they are told of an elastic net.
    warnings.simplefilter("ignore", FutureWarning)
    peer = sklearn(strength, share)
  ours = objective(
    np.asarray(kernel, np.float64), np.asarray(bias), strength, share
  )
  theirs = objective(*peer, strength, share)
  assert ours <= theirs + 2e-4
  assert ours >= theirs - 2e-4
  found = np.asarray(kernel)
  assert np.all(found[3] == 0.0)
  # The zeros are those of the peer, but for weights that just vanish.
  disagree = (found != 0) != (np.abs(peer[0]) > 1e-6)
  assert disagree.sum() <= 2
  size = np.abs(found) * features.std(0)[:, None]
  assert np.all(size[disagree] < 0.02)


def test_stronger_penalties_leave_fewer_weights():
  features, labels = data()
  kernels = [
    spade.sparse_head(features, labels, CLASSES, strength=s)[0]
    for s in (0.0003, 0.003, 0.03, 0.15, 3.0)
  ]
  counts = [int(jnp.sum(kernel != 0)) for kernel in kernels]
  assert not any(np.any(kernel[3]) for kernel in kernels)  # always the same
  assert counts == sorted(counts, reverse=True)
  assert counts[0] > 20
  assert counts[-1] == 0


def test_without_weights_the_bias_tells_the_frequencies():
  features, labels = data()
  labels = np.where(labels == 2, 0, labels)
  _, bias = spade.sparse_head(
    features, labels, CLASSES, strength=5.0, steps=2000
  )
  shares = np.exp(bias - np.max(bias))
  np.testing.assert_allclose(
    shares[:2] / shares[:2].sum(), [2 / 3, 1 / 3], atol=0.01
  )


def test_bad_input_is_named():
  features, labels = data()
  fit = spade.sparse_head
  with pytest.raises(ValueError, match=r"\(240, 12\) and int32\[239\]"):
    fit(features, labels[1:], CLASSES, strength=0.1)
  for options in ({"strength": -1.0}, {"strength": 0.1, "share": 1.5}):
    with pytest.raises(ValueError, match="strength must not be negative"):
      fit(features, labels, CLASSES, **options)
  with pytest.raises(ValueError, match="steps at least 1"):
    fit(features, labels, CLASSES, strength=0.1, steps=0)


def test_labels_that_are_none():
  with pytest.raises(ValueError, match="labels must be 0 to 1, got 0 to 2"):
    spade.sparse_head(jnp.ones((3, 2)), jnp.arange(3), 2, strength=0.1)


def test_a_constant_feature_says_nothing_however_it_is_rounded():
  rng = np.random.default_rng(0)
  features = rng.normal(size=(1000, 5)).astype(np.float32)
  features[:, 2] = 0.1
  labels = (features[:, 0] + rng.normal(size=1000) > 1.0).astype(np.int32)
  kernel, bias = spade.sparse_head(features, labels, 2, strength=0.0)
  rest = np.delete(features, 2, axis=1)
  other, same = spade.sparse_head(rest, labels, 2, strength=0.0)
  assert not np.any(kernel[2])
  np.testing.assert_allclose(np.delete(kernel, 2, axis=0), other, atol=1e-4)
  np.testing.assert_allclose(bias, same, atol=1e-4)


def test_labels_that_are_flags():
  with pytest.raises(ValueError, match=r"labels integers \[N\].*bool\[3\]"):
    spade.sparse_head(jnp.ones((3, 2)), jnp.ones(3, bool), 2, strength=0.1)
