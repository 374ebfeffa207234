"""Measures of whole edits: sets, moments, propagation, relearning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import metrics


def says(*ids):
  """Return logits [M, 3] of a model that says these ids."""
  return jnp.asarray(np.eye(3, dtype=np.float32)[list(ids)])


def ids(*values):
  return jnp.array(values, jnp.int32)


PROBES = {
  "edited": metrics.Probe(says(1, 1), ids(1, 1)),
  "old": metrics.Probe(says(1, 1), ids(0, 1)),
  "paraphrase": metrics.Probe(says(1, 0), ids(1, 1)),
  "with_same_rel": metrics.Probe(
    says(0, 1, 2, 2),
    ids(0, 1, 2, 0),
    says(0, 0, 0, 1),
    jnp.array([True, True, True, False]),
  ),
  "reg_data": metrics.Probe(says(2, 2), ids(2, 1), says(2, 1)),
  "with_same_value": metrics.Probe(
    says(2, 2), ids(2, 2), says(2, 2), jnp.zeros(2, bool)
  ),
  "nested": metrics.Probe(says(0), ids(1)),
}


MISSED = metrics.Probe(says(0, 0), ids(1, 1))


@functools.cache
def levels():
  few = {"edited": MISSED, "reg_data": PROBES["reg_data"]}
  probes = {"all": PROBES, "few": few, "one": {"edited": MISSED}}
  level = lambda probes: {k: metrics.edit_level(x) for k, x in probes.items()}
  return jax.jit(level)(probes)


def test_edit_level():
  found = levels()["all"]
  expected = {
    "efficacy": 1.0,
    "forgetting": 0.5,
    "generalization": 0.5,
    "preservation": 0.75,  # 1 and 1/2; sets without rows are left out
    "preservation_min": 0.5,
    "locality": 2 / 5,  # the union of rows, not the mean of sets
    "harmonic_egl": 3 / (1 + 2 + 2.5),
    "harmonic_el": 2 / (1 + 2.5),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(getattr(found, name), value, 1e-6, err_msg=name)
  assert {name: bool(x) for name, x in found.counted.items()} == {
    "with_same_value": False,
    "with_same_rel": True,
    "same_edges_diff_rel": False,
    "reg_data": True,
  }


def test_edit_level_of_few_sets():
  few, one = levels()["few"], levels()["one"]
  assert few.efficacy == 0
  assert few.harmonic_el == 0
  for name in ("harmonic_egl", "generalization", "forgetting"):
    assert np.isnan(getattr(few, name)), name
  for name in ("preservation", "preservation_min", "locality"):
    assert np.isnan(getattr(one, name)), name
  with pytest.raises(ValueError, match="'edited'"):
    metrics.edit_level({"reg_data": MISSED})
  with pytest.raises(ValueError, match="one set"):
    metrics.preservation({})


def test_preservation_of_many_edits():
  sets = {"a": np.array([0.5, np.nan, 1]), "b": np.array([1, np.nan, 0])}
  found = jax.jit(metrics.preservation)(sets)
  np.testing.assert_array_equal(found.mean, [0.75, np.nan, 0.5])
  np.testing.assert_array_equal(found.minimum, [0.5, np.nan, 0.0])


def test_moments():
  history = {
    "efficacy": [[0.0, 1.0, 0.5], [0.9, np.nan, 0.9], [1.0, 1.0, 1.0]],
    "locality": [[0.9, 0.8, 0.7], [0.9, 0.9, 0.9], [0.5, 0.4, 0.3]],
  }
  history = {name: np.array(x) for name, x in history.items()}
  found = jax.jit(metrics.at_end_and_first_success)(history)
  np.testing.assert_allclose(found.end["locality"], [0.7, 0.9, 0.3])
  np.testing.assert_allclose(found.first["locality"], [0.8, np.nan, 0.5])
  assert found.index.tolist() == [1, -1, 0]
  assert int(found.failures) == 1
  with pytest.raises(ValueError, match="'success'"):
    metrics.at_end_and_first_success(history, efficacy="success")


def test_propagation():
  # Both values coincide, and one row does not count.
  answers = says(0, 1, 2, 1, 1)
  where = jnp.array([True, True, True, True, False])
  old, new = ids(0, 0, 0, 1, 0), ids(1, 1, 1, 1, 1)
  propagation = jax.jit(metrics.propagation)
  found = propagation(answers, old, new, where=where)
  assert int(found.count) == 3
  np.testing.assert_allclose(found[:3], [1 / 3] * 3, rtol=1e-6)
  none = propagation(answers, new, new, where=where)
  assert np.isnan(none[:3]).all()
  lost = metrics.implicit_forgetting(
    1.0, 0.25, control_before=1.0, control_after=0.5
  )
  assert [float(x) for x in lost] == [0.75, 0.5, 0.25]


def test_relearning():
  steps, fresh = np.array([0, 10, 20]), np.array([0.0, 0.9, 1.0])
  old = np.array([[0.0, 1.0, 0.5], [0.0, 0.5, 0.9], [0.99, 1.0, 1.0]])
  found = jax.jit(metrics.relearning)(steps, old, fresh)
  np.testing.assert_array_equal(found.steps, [10, np.nan, 0])
  np.testing.assert_array_equal(found.ratio, [0.5, np.nan, 0])
  with pytest.raises(ValueError, match="3 steps"):
    metrics.relearning(steps, [0.0, 1.0], fresh)


def test_harmonic_mean():
  rows = [[1.0, 0.5, 0.25], [1.0, 0, 1], [1.0, np.nan, 0], [1.0, 0, -1]]
  values = np.array(rows, np.float32)
  found = jax.jit(metrics.harmonic_mean)(values)
  np.testing.assert_allclose(found, [3 / 7, 0, np.nan, np.nan], rtol=1e-6)


def test_a_set_of_nan_is_not_a_set_without_rows():
  diverged = metrics.Probe(jnp.full((2, 3), jnp.nan), ids(1, 1))
  found = metrics.edit_level(PROBES | {"with_same_value": diverged})
  assert bool(found.counted["with_same_value"])
  assert np.isnan(found.preservation)
  assert np.isnan(found.preservation_min)


def test_words_of_several_tokens():
  words = jnp.stack([says(0, 1), says(1, 2)])  # two words of two tokens
  right, wrong = jnp.array([[0, 1], [1, 2]]), jnp.array([[0, 1], [1, 0]])
  probes = {
    "edited": (words, right),
    "reg_data": (words, wrong, says(0, 1, 2, 2).reshape(2, 2, 3)),
  }
  found = metrics.edit_level(probes)
  assert (found.efficacy, found.preservation, found.locality) == (1.0, 0.5, 0.5)
  where = jnp.array([True, True])
  moved = metrics.propagation(words, wrong, right, where=where)
  # Only the second one's values differ, and it says the new one.
  assert (moved.stay, moved.follow, int(moved.count)) == (0.0, 1.0, 1)
  fed = jnp.stack([says(0, 1), says(1, 0)])
  moved = metrics.propagation(words, wrong, right, old_logits=fed)
  assert (moved.stay, moved.follow) == (1.0, 1.0)


@pytest.mark.parametrize("other", [[0.5], 0.5, [[0.5, 0.5, 0.5]]])
def test_a_history_of_one_shape(other):
  history = {"efficacy": np.array([0, 1, 1.0]), "p": np.array(other)}
  with pytest.raises(ValueError, match=r"'p': \[.*\]"):
    metrics.at_end_and_first_success(history)
  with pytest.raises(ValueError, match="one evaluation"):
    metrics.at_end_and_first_success({"efficacy": 1.0})


def test_preservation_of_sets_without_a_count():
  sets = {"a": np.float32(0.5), "b": np.float32(1)}
  with pytest.raises(ValueError, match=r"counted lacks the sets \['a', 'b'\]"):
    metrics.preservation(sets, counted={})
  counted = {"a": np.array(False), "b": np.array(True)}
  assert metrics.preservation(sets, counted=counted).mean == 1


def test_values_of_any_integers():
  answers = says(0, 1)
  old, new = np.array([0, 0], np.uint8), np.array([1, 1])
  assert metrics.propagation(answers, old, new).stay == 0.5
  with pytest.raises(ValueError, match="new must be integers"):
    metrics.propagation(answers, old, new.astype(np.float32))


def test_thresholds_that_are_none():
  with pytest.raises(ValueError, match="threshold must be a finite number"):
    metrics.relearning([0, 1], [0.0, 1.0], [0.0, 1.0], threshold=None)
