"""Unlearning losses: golden values, brute force in float64 and edges."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import editing

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "editing"
DATA = np.load(GOLDEN / "metric_inputs.npz", allow_pickle=False)
EXPECTED = json.loads((GOLDEN / "metric_expected.json").read_text())
NOW, BEFORE, LABELS = DATA["logits_cur"], DATA["logits_ref"], DATA["y_f"]
KEPT, KEPT_BEFORE = DATA["ret_cur"], DATA["ret_ref"]
OTHERS = np.where(LABELS < 0, LABELS, (LABELS + 3) % NOW.shape[-1])
DIRECTION = np.linspace(0.1, 1.0, NOW.shape[-1])


@jax.jit
def all_losses(now, before, kept, kept_before, labels, others, direction):
  npo = lambda beta: editing.npo(now, before, labels, beta=beta)
  return {
    "GA": editing.gradient_ascent(now, labels),
    "retain_KL": editing.kl(kept, kept_before),
    "NPO_beta0.1": npo(0.1),
    "NPO_beta1.0": npo(1.0),
    "SimNPO_beta4.5_delta0.0": editing.simnpo(now, labels),
    "SimNPO_beta1.0_delta0.5": editing.simnpo(now, labels, beta=1.0, delta=0.5),
    "grad_diff": editing.grad_diff(
      now, labels, kept, others, gamma=0.3, alpha=2.0
    ),
    "kl_masked": editing.kl(now, before, mask=labels >= 0),
    "dpo": editing.dpo((now, before, others), (now, before, labels)),
    "rmu": editing.rmu(now, direction, labels, scale=2.0),
    "distance": editing.activation_distance(now, before, labels),
    "undial": editing.undial(now, before, labels, beta=2.0),
    "wga": editing.wga(now, labels, beta=0.5),
    "satimp": editing.satimp(now, labels, beta1=0.5, beta2=1.5),
  }


def log_softmax(z):
  z = z - z.max(-1, keepdims=True)
  return z - np.log(np.exp(z).sum(-1, keepdims=True))


def texts(logits, labels):
  """Return for each text the losses of its labelled tokens."""
  logp = log_softmax(logits)
  return [
    np.array([-logp[b, t - 1, y] for t, y in enumerate(row) if t and y >= 0])
    for b, row in enumerate(labels)
  ]


def by_formulas(now, before, kept, labels, others, direction):
  sums = lambda logits, labels: np.array(
    [x.sum() for x in texts(logits, labels)]
  )
  flat = np.concatenate(texts(now, labels))
  gain = lambda y: sums(now, y) - sums(before, y)
  counted = labels >= 0
  reference, current = log_softmax(before), log_softmax(now)
  divergence = (np.exp(reference) * (reference - current)).sum(-1)
  undial = []
  for b, t in zip(*np.nonzero(counted[:, 1:]), strict=True):
    teacher = before[b, t].copy()
    teacher[labels[b, t + 1]] -= 2.0
    undial.append(-(np.exp(log_softmax(teacher)) * current[b, t]).sum())
  near = lambda x: np.mean(
    [((now - x) ** 2).mean(-1)[b][c].mean() for b, c in enumerate(counted)]
  )
  sigmoid = lambda x: 1 / (1 + np.exp(-x))
  return {
    "grad_diff": -0.3 * flat.mean()
    + 2.0 * np.concatenate(texts(kept, others)).mean(),
    "kl_masked": divergence[counted].mean(),
    "dpo": -20 * np.log(sigmoid(0.1 * (gain(labels) - gain(others)))).mean(),
    "rmu": near(2.0 * direction),
    "distance": near(before),
    "undial": np.mean(undial),
    "wga": -(np.exp(-0.5 * flat) * flat).mean(),
    "satimp": -(np.exp(-0.5 * flat) * (1 - np.exp(-flat)) ** 1.5 * flat).mean(),
  }


def test_values():
  with jax.enable_x64(True):
    inputs = (NOW, BEFORE, KEPT, KEPT_BEFORE, LABELS, OTHERS, DIRECTION)
    found = all_losses(*map(jnp.asarray, inputs))
  expected = by_formulas(NOW, BEFORE, KEPT, LABELS, OTHERS, DIRECTION)
  expected |= {name: EXPECTED[name] for name in found if name in EXPECTED}
  assert expected.keys() == found.keys()
  for name, value in found.items():
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, expected[name], 1e-6, err_msg=name)


def sure(size):
  """Return logits that are sure of token 0, in the golden shapes."""
  logits = np.zeros(NOW.shape, np.float32)
  logits[..., 0] = size
  return jnp.asarray(logits)


def terms(now, before, labels, direction):
  return {
    "GA": editing.gradient_ascent(now, labels),
    "kl": editing.kl(now, before),
    "npo": editing.npo(now, before, labels),
    "simnpo": editing.simnpo(now, labels),
    "rmu": editing.rmu(now, direction, labels),
    "undial": editing.undial(now, before, labels),
    "satimp": editing.satimp(now, labels),
  }


@jax.jit
def values_and_slopes(now, before, labels, direction):
  def total(now, before):
    found = terms(now, before, labels, direction)
    # The divergence looks at padding too, and RMU at the last position.
    rest = [x for name, x in found.items() if name not in ("kl", "rmu")]
    return sum(rest), found

  slopes, found = jax.grad(total, argnums=(0, 1), has_aux=True)(now, before)
  divergence = jax.grad(editing.kl)(now, before)
  return found, slopes, divergence


def test_edges():
  direction = jnp.asarray(DIRECTION, jnp.float32)
  labels = np.full(LABELS.shape, -100, np.int32)
  labels[:2, 2:] = 0  # the other texts are padding
  labels[0, 0] = 5  # what nothing predicts is ignored
  # Probabilities of 1, and of 0: finite, and so are the gradients.
  for size in (1e4, -1e4):
    now, before = sure(size), sure(-size)
    value, (current, reference), divergence = values_and_slopes(
      now, before, labels, direction
    )
    for name in value:
      assert np.isfinite(value[name]), name
    current = np.asarray(current)
    assert np.isfinite(current).all()
    assert np.isfinite(divergence).all()
    assert not np.asarray(reference).any()
    assert not current[2:].any()
    assert not current[:, -1].any()
  # Padding changes nothing: the two texts alone, repeated.
  labels[2:4], labels[4:] = labels[:2], labels[:2]
  again = values_and_slopes(now, before, labels, direction)[0]
  for name in value:
    np.testing.assert_allclose(again[name], value[name], 1e-6, err_msg=name)
  # Nothing at all is undefined.
  labels[:] = -100
  nothing = values_and_slopes(now, before, labels, direction)[0]
  assert all(np.isnan(x) for name, x in nothing.items() if name != "kl")


def test_direction():
  u = jax.jit(editing.rmu_direction, static_argnums=1)(jax.random.key(1), 50)
  assert np.min(u) >= 0
  np.testing.assert_allclose(np.linalg.norm(u), 1.0, rtol=1e-6)


def test_errors():
  with pytest.raises(ValueError, match="shapes"):
    editing.nll(NOW, LABELS[:, 1:])
  with pytest.raises(ValueError, match="reference"):
    editing.npo(NOW, BEFORE[:2], LABELS)


def test_shapes_that_would_broadcast_are_refused():
  for mask in (
    np.ones(LABELS.shape[1], bool),
    np.ones((1, LABELS.shape[1]), bool),
    np.full(LABELS.shape, 0.5),
  ):
    with pytest.raises(ValueError, match="mask must be bool"):
      editing.kl(NOW, BEFORE, mask=mask)
  one = tuple(x[:1] for x in (NOW, BEFORE, OTHERS))
  with pytest.raises(ValueError, match="1 answers to prefer"):
    editing.dpo(one, (NOW, BEFORE, LABELS))
