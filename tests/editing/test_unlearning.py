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


FEW = jnp.array([[-100, 1, 2, -100, -100]])
EVEN = jnp.zeros((1, 5, 3))
# With a shift or without, the position before the last is not counted.
ONE_NAN = EVEN.at[0, 3].set(jnp.nan)


@pytest.mark.parametrize("loss", [editing.kl, editing.undial])
def test_a_nan_that_is_counted_stays_one(loss):
  rest = () if loss is editing.kl else (FEW,)
  nan = jnp.full_like(EVEN, jnp.nan)
  one = EVEN.at[0, 1, 0].set(jnp.nan)
  for now, before in ((EVEN, nan), (nan, EVEN), (EVEN, one), (one, EVEN)):
    assert np.isnan(loss(now, before, *rest))


@pytest.mark.parametrize(
  "loss",
  [
    lambda now: editing.nll(now, FEW),
    lambda now: editing.npo(now, ONE_NAN, FEW),
    lambda now: editing.simnpo(now, FEW),
    lambda now: editing.dpo((now, ONE_NAN, FEW), (2 * now, ONE_NAN, FEW)),
    lambda now: editing.undial(now, ONE_NAN, FEW),
    lambda now: editing.wga(now, FEW),
    lambda now: editing.satimp(now, FEW),
    lambda now: editing.kl(now, ONE_NAN, mask=FEW > 0),
    lambda now: editing.rmu(now, jnp.ones(3), FEW),
    lambda now: editing.activation_distance(now, ONE_NAN, FEW),
  ],
)
def test_a_nan_that_is_not_counted_reaches_nothing(loss):
  now = ONE_NAN.at[..., 0].add(1.0)
  value, slope = jax.value_and_grad(loss)(now)
  assert np.isfinite(value)
  assert np.isfinite(slope).all()
  assert np.any(slope)


def test_weighted_ascent_where_a_label_is_impossible():
  now = EVEN.at[0, 0, 1].set(-jnp.inf)
  third = np.log(3) / 3
  for loss in (editing.wga, lambda *x: editing.satimp(*x, beta1=1, beta2=0)):
    value, slope = jax.value_and_grad(loss)(now, FEW)
    # One token of probability 0, and one of 1/3.
    np.testing.assert_allclose(value, -third / 2, rtol=1e-6)
    assert np.isfinite(slope).all()
  assert editing.wga(now, FEW, beta=0) == -np.inf  # that of gradient ascent
  assert np.isnan(editing.wga(now.at[0, 1].set(jnp.nan), FEW))


@pytest.mark.parametrize("beta", [0, -1, np.nan, np.inf, None, "1e-1x"])
def test_powers_that_cannot_be(beta):
  both = (EVEN, EVEN, FEW)
  wrong = [
    lambda: editing.npo(*both, beta=beta),
    lambda: editing.simnpo(EVEN, FEW, beta=beta),
    lambda: editing.dpo(both, both, beta=beta),
  ]
  if beta != 0:
    wrong += [
      lambda: editing.undial(*both, beta=beta),
      lambda: editing.wga(EVEN, FEW, beta=beta),
      lambda: editing.satimp(EVEN, FEW, beta1=beta),
      lambda: editing.satimp(EVEN, FEW, beta2=beta),
    ]
  for call in wrong:
    with pytest.raises(ValueError, match=r"beta.? must be a finite number"):
      call()


def test_labels_that_are_none():
  both = (EVEN, EVEN)
  for label in (3, 9):
    wrong = FEW.at[0, 2].set(label)
    for loss, given in (
      (editing.nll, (EVEN, wrong)),
      (editing.undial, (*both, wrong)),
      (editing.npo, (*both, np.asarray(wrong))),
    ):
      with pytest.raises(ValueError, match=f"below the 3 classes.*got {label}"):
        loss(*given)
      assert np.isnan(jax.jit(loss)(*given))
  # The first one is ignored, and RMU wants no classes.
  assert np.isfinite(editing.nll(EVEN, FEW.at[0, 0].set(9)))
  assert np.isfinite(editing.rmu(EVEN, jnp.ones(3), FEW.at[0, 2].set(9)))
  for loss in (editing.nll, jax.jit(editing.nll)):
    with pytest.raises(ValueError, match="whole numbers, got float32"):
      loss(EVEN, FEW.astype(jnp.float32))
  lists = editing.nll(EVEN.tolist(), FEW.tolist())
  assert lists == editing.nll(EVEN, FEW)


def test_directions_that_cannot_be():
  for direction in (jnp.ones(1), jnp.ones((1, 3)), jnp.float32(1)):
    with pytest.raises(ValueError, match=r"direction must be \[D\] = \[3\]"):
      editing.rmu(EVEN, direction, FEW)
  with pytest.raises(ValueError, match="width must be a whole number"):
    editing.rmu_direction(jax.random.key(0), 2.5)
