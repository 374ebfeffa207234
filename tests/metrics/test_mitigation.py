import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import metrics


def brute_force(logits, budget):
  """The floor(b N + 1e-9) smallest sizes of each column, one by one."""
  logits = np.asarray(logits, np.float64)
  chosen = np.zeros(logits.shape, bool)
  for column, marks in zip(logits.T, chosen.T, strict=True):
    order = sorted(range(len(column)), key=lambda i: (abs(column[i]), i))
    marks[order[: int(np.floor(budget * len(column) + 1e-9))]] = True
  return chosen


@pytest.mark.parametrize("decimals", [6, 0])
@pytest.mark.parametrize(
  "budget", [0, 0.01, 0.05, 0.07, 0.29, 0.57, 0.5, 0.999, 1, 1.0]
)
def test_budget_equals_brute_force(decimals, budget):
  logits = np.random.default_rng(0).normal(0, 2, (100, 3)).round(decimals)
  logits = logits.astype(np.float32)
  np.testing.assert_array_equal(
    metrics.susceptible(logits, budget=budget), brute_force(logits, budget)
  )


def test_size_of_a_budget_is_exact():
  # 0.29 * 100 is 28.999999999999996 in float64.
  assert int(0.29 * 100) == 28
  logits = np.zeros((100, 1), np.float32)
  chosen = metrics.susceptible(logits, budget=0.29)
  np.testing.assert_array_equal(np.flatnonzero(chosen), np.arange(29))


def test_order_of_special_logits():
  logits = np.array(
    [np.nan, np.inf, -0.0, 1e-40, 0.0, -1e-45, -np.inf, -np.nan, 2.0],
    np.float32,
  )
  places = []
  for count in range(1, 10):
    chosen = np.flatnonzero(metrics.susceptible(logits, budget=count / 9))
    places += [i for i in chosen if i not in places]
  assert places == [2, 4, 5, 3, 8, 1, 6, 0, 7]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_floats_are_ordered_exactly(dtype):
  logits = jnp.asarray(
    np.random.default_rng(1).normal(size=(64, 2)), dtype=dtype
  )
  np.testing.assert_array_equal(
    metrics.susceptible(logits, budget=0.3), brute_force(logits, 0.3)
  )


def test_double_precision_is_used_where_there_is_any():
  logits = 1.0 + 1e-12 * np.random.default_rng(2).permutation(50)[:, None]
  with jax.enable_x64(True):
    chosen = metrics.susceptible(logits, budget=0.4)
  np.testing.assert_array_equal(chosen, brute_force(logits, 0.4))


def test_cut_agrees_with_uncertainty():
  rng = np.random.default_rng(3)
  edge = np.float32(np.log(9.0))
  logits = np.concatenate(
    [rng.normal(0, 3, 500), [edge, np.nextafter(edge, np.float32(0)), -edge]]
  ).astype(np.float32)[:, None]
  chosen = metrics.susceptible(logits, cut=0.4)
  assert chosen[-3:, 0].tolist() == [False, True, False]
  share = metrics.compute(metrics.uncertainty(0.4), logits=logits)
  assert int(chosen.sum()) == round(float(share[0]) * 503)
  probability = 1 / (1 + np.exp(-logits[:500].astype(np.float64)))
  np.testing.assert_array_equal(chosen[:500], abs(probability - 0.5) < 0.4)
  assert not metrics.susceptible(np.float32([np.nan]), cut=0.5).any()


def test_random_control_has_equal_size_and_is_nested():
  key = jax.random.key(0)
  shape = (200, 4)
  small = metrics.random_susceptible(key, shape, 0.07)
  large = metrics.random_susceptible(key, shape, 0.29)
  assert small.sum(axis=0).tolist() == [14] * 4
  assert large.sum(axis=0).tolist() == [58] * 4
  assert not (small & ~large).any()
  assert (small[:, 0] != small[:, 1]).any()
  np.testing.assert_array_equal(
    small, metrics.random_susceptible(key, shape, 0.07)
  )
  other = metrics.random_susceptible(jax.random.key(1), shape, 0.07)
  assert (other != small).any()
  # The control of a cut has the sizes of the cut.
  logits = np.random.default_rng(4).normal(0, [1, 2, 4, 8], shape)
  chosen = metrics.susceptible(logits.astype(np.float32), cut=0.3)
  control = metrics.random_susceptible(key, shape, count=chosen.sum(axis=0))
  np.testing.assert_array_equal(control.sum(axis=0), chosen.sum(axis=0))


def test_random_control_is_uniform():
  draw = lambda key: metrics.random_susceptible(key, (20, 2), 0.25)
  drawn = jax.vmap(draw)(jax.random.split(jax.random.key(2), 4000))
  # A share of 1/4 over 4000 draws has a standard error of 0.0068.
  np.testing.assert_allclose(drawn.mean(axis=0), 0.25, atol=0.03)


def test_override():
  sparse = np.array([[1, 0], [1, 0]], bool)
  trusted = np.array([[0, 1], [0, 1]], bool)
  chosen = np.array([[1, 0], [0, 1]], bool)
  np.testing.assert_array_equal(
    metrics.override(sparse, trusted, chosen), [[0, 0], [1, 1]]
  )


def example(rows=160, attributes=3, seed=5):
  rng = np.random.default_rng(seed)
  labels = rng.random((rows, attributes)) < 0.4
  dense = rng.normal(0, 1, labels.shape) + 2.0 * labels - 1.0
  sparse = 0.3 * dense + 0.4 * rng.normal(size=labels.shape) - 0.4
  return {
    "dense": dense.astype(np.float32),
    "sparse": sparse.astype(np.float32),
    "labels": labels,
    "groups": rng.random((rows, 2)) < 0.5,
  }


def curve_metric(data):
  train = data["labels"], data["groups"]
  return metrics.collection(
    {
      "accuracy": metrics.accuracy(),
      "tcb": metrics.threshold_calibration_bias(train[0]),
      "amplification": metrics.bias_amplification(
        *train, min_positives=1, min_gap=0.0
      ),
    }
  )


def test_curve_equals_a_loop_over_budgets():
  data = example()
  metric = curve_metric(data)
  batch = {
    "predictions": data["sparse"] > 0,
    "labels": data["labels"],
    "groups": data["groups"],
    "weights": None,
  }
  budgets = [0.0, 0.05, 0.29, 1.0]
  curve = metrics.override_curve(
    jax.random.key(0),
    metric,
    batch,
    data["dense"] > 0,
    data["dense"],
    budgets=budgets,
    draws=3,
  )
  assert curve.count.tolist() == [0, 8, 46, 160]
  for i, budget in enumerate(budgets):
    chosen = brute_force(data["dense"], budget)
    predictions = np.where(chosen, data["dense"] > 0, batch["predictions"])
    expected = metrics.compute(metric, **{**batch, "predictions": predictions})
    for name, value in expected.items():
      np.testing.assert_array_equal(curve.susceptible[name][i], value)
  assert curve.control["amplification"].shape == (3, 4, 2, 3)
  # Without a budget, and with all of it, there is nothing to draw.
  for name, value in curve.susceptible.items():
    for draw in curve.control[name]:
      np.testing.assert_array_equal(draw[0], value[0])
      np.testing.assert_array_equal(draw[-1], value[-1])
  first, second, _ = curve.control["accuracy"][:, 2]
  assert (first != second).any()


def test_doubtful_decisions_are_worth_more_than_random_ones():
  # What the sparse model gets wrong are the samples near the boundary; labels
  # are the trusted source.
  data = example(4000)
  curve = metrics.override_curve(
    jax.random.key(1),
    curve_metric(data),
    {
      "predictions": data["sparse"] > 0,
      "labels": data["labels"],
      "groups": data["groups"],
    },
    data["labels"],
    data["dense"],
    budgets=[0.05],
  )
  assert (
    curve.susceptible["accuracy"] > curve.control["accuracy"].max(axis=0)
  ).all()


def test_under_jit_and_vmap():
  logits = np.stack([example(40, seed=s)["dense"] for s in (6, 7)])
  choose = lambda z: metrics.susceptible(z, budget=0.2)
  mapped = jax.jit(jax.vmap(choose))(logits)
  for chosen, z in zip(mapped, logits, strict=True):
    np.testing.assert_array_equal(chosen, brute_force(z, 0.2))


def call_curve(**change):
  data = example(20)
  given = {
    "batch": {"predictions": data["sparse"] > 0, "labels": data["labels"]},
    "trusted": data["dense"] > 0,
    "logits": data["dense"],
    "budgets": [0.1],
    "draws": 1,
  } | change
  return metrics.override_curve(
    jax.random.key(0),
    metrics.accuracy(),
    given["batch"],
    given["trusted"],
    given["logits"],
    budgets=given["budgets"],
    draws=given["draws"],
  )


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"batch": {"labels": 1}}, "no predictions, .* it holds labels"),
    ({"logits": np.zeros((20, 2))}, r"dense_logits \[20, 2\]"),
    ({"trusted": np.zeros((9, 3))}, r"trusted_predictions \[9, 3\]"),
    ({"budgets": 0.1}, r"budgets must have shape \[B\], got \[\]"),
    ({"budgets": [0.1, 1.5]}, r"share in \[0, 1\]"),
    ({"draws": 0}, "draws must be a whole number"),
    ({"draws": 2.5}, "draws must be a whole number"),
  ],
)
def test_unusable_input_of_the_curve(change, message):
  with pytest.raises(ValueError, match=message):
    call_curve(**change)


def test_unusable_options():
  logits = np.zeros((4, 2), np.float32)
  with pytest.raises(ValueError, match="either cut or budget, got cut=None"):
    metrics.susceptible(logits)
  with pytest.raises(ValueError, match=r"got cut=0.4 and budget=0.1"):
    metrics.susceptible(logits, cut=0.4, budget=0.1)
  with pytest.raises(ValueError, match="cut must lie in"):
    metrics.susceptible(logits, cut=0.6)
  for budget in (-0.1, 1.1, np.nan):
    with pytest.raises(ValueError, match=r"share in \[0, 1\]"):
      metrics.susceptible(logits, budget=budget)
  with pytest.raises(ValueError, match="budget is static"):
    jax.jit(lambda b: metrics.susceptible(logits, budget=b))(0.1)
  with pytest.raises(ValueError, match=r"must be \[N\] or \[N, A\], got \[\]"):
    metrics.susceptible(np.float32(0.0), budget=0.1)
  key = jax.random.key(0)
  with pytest.raises(ValueError, match="either budget or count"):
    metrics.random_susceptible(key, (4, 2))
  with pytest.raises(ValueError, match=r"shape \[2\], .* got \[3\]"):
    metrics.random_susceptible(key, (4, 2), count=[1, 2, 3])
  with pytest.raises(ValueError, match=r"chosen \[4\]"):
    metrics.override(logits > 0, logits > 0, np.zeros(4, bool))
