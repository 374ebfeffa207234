import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.data import images
from effjax.studies.bias import losses
from tests.studies.bias import small

MODULE = small.Model()
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (8, 4, 4, 1)).astype(np.uint8)
PREPARE = images.standardise
LABELS = RNG.random((8, 3)) < 0.4
BATCH = {"images": jnp.asarray(IMAGES), "labels": jnp.asarray(LABELS)}
KEY = jax.random.key(0)


def variables(seed):
  x = jnp.zeros((1, 4, 4, 1))
  return MODULE.init(jax.random.key(seed), x, train=False)


def logits(made):
  x = (IMAGES / 255.0 - 0.5) / 0.5
  return np.asarray(MODULE.apply(made, x.astype(np.float32)), np.float64)


def entropy(z, target):
  """Cross-entropy of a logit with a probability, in float64."""
  p, target = 1 / (1 + np.exp(-z)), np.asarray(target, float)
  return -target * np.log(p) - (1 - target) * np.log(1 - p)


def value(kind, made, constants=None, train=False):
  """Loss and new state; without training, so that statistics stay."""
  state = {"batch_stats": made["batch_stats"]}
  if constants is not None:
    state["constants"] = constants
  loss = losses.make_loss(MODULE, PREPARE, kind=kind)
  value, (state, measures) = loss(made["params"], state, BATCH, KEY, train)
  assert set(measures) == {"accuracy"}
  return float(value), state


def test_plain():
  made = variables(0)
  found, _ = value("plain", made)
  assert found == pytest.approx(entropy(logits(made), LABELS).mean(), abs=1e-6)


def test_distillation_by_brute_force():
  made, teacher = variables(0), variables(1)
  z, t = logits(made), logits(teacher)
  soft = 1 / (1 + np.exp(-t / 2))
  wanted = 0.5 * entropy(z, LABELS) + 0.5 * 4 * entropy(z / 2, soft)
  found, state = value("distillation", made, {"teacher": teacher})
  assert found == pytest.approx(wanted.mean(), abs=1e-6)
  jax.tree.map(
    np.testing.assert_array_equal, state["constants"]["teacher"], teacher
  )


def test_a_perfect_copy_is_the_least_of_the_copied_part():
  teacher = variables(1)
  loss = losses.make_loss(MODULE, PREPARE, kind="distillation")
  state = {
    "batch_stats": teacher["batch_stats"],
    "constants": {"teacher": teacher},
  }

  def copied(params):
    both = loss(params, state, BATCH, KEY, False)[0]
    only = losses.make_loss(MODULE, PREPARE)(params, state, BATCH, KEY, False)[
      0
    ]
    return both - 0.5 * only

  gradient = jax.grad(copied)(teacher["params"])
  assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) < 1e-6


def test_performance_weights_by_brute_force():
  made, teacher = variables(0), variables(1)
  t = logits(teacher)
  right = 1 / (1 + np.exp(-np.where(LABELS, t, -t)))
  weights = 0.5 + 1 - right
  weights /= weights.mean(0)
  wanted = (weights * entropy(logits(made), LABELS)).mean()
  found, _ = value("performance_weighted", made, {"teacher": teacher})
  assert found == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("step", [0, 4, 5, 9])
def test_balance_begins_when_pruning_ends(step):
  made = variables(0)
  rates = np.array([0.1, 0.5, 0.9], np.float32)
  constants = {
    "rates": jnp.asarray(rates),
    "begin": jnp.int32(5),
    "step": jnp.int32(step),
  }
  weights = np.where(LABELS, 0.5 / rates, 0.5 / (1 - rates))
  if step < 5:
    weights = np.ones_like(weights)
  wanted = (weights * entropy(logits(made), LABELS)).mean()
  found, state = value("label_balanced", made, constants)
  assert found == pytest.approx(wanted, rel=1e-5)
  assert int(state["constants"]["step"]) == step
  _, state = value("label_balanced", made, constants, train=True)
  assert int(state["constants"]["step"]) == step + 1
  assert "batch_stats" in state


@pytest.mark.parametrize("column", [0, 2])
def test_one_label(column):
  module = small.Model(outputs=1)
  made = module.init(KEY, jnp.zeros((1, 4, 4, 1)), train=False)
  x = ((IMAGES / 255.0 - 0.5) / 0.5).astype(np.float32)
  z = np.asarray(module.apply(made, x), np.float64)
  state = {
    "batch_stats": made["batch_stats"],
    "constants": {"column": jnp.int32(column)},
  }
  found, _ = losses.make_loss(module, PREPARE)(
    made["params"], state, BATCH, KEY, False
  )
  wanted = entropy(z, LABELS[:, column : column + 1]).mean()
  assert float(found) == pytest.approx(wanted, abs=1e-6)


def test_an_unknown_loss_names_the_nearest():
  with pytest.raises(ValueError, match="'distilation'; choose distillation"):
    losses.make_loss(MODULE, PREPARE, kind="distilation")
