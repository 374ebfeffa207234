import jax
import ml_collections
import numpy as np
import optax
import pytest

from configs.bias import celeba_resnet18
from effjax import models, pruning
from effjax.studies.bias.arms import (
  Member,
  Trainer,
  make_optimizer,
  prune_schedule,
)
from tests.studies.bias import small

KERNELS = 16 * 8 + 8 * 3


def member(arm, sparsity, seed=0, learning_rate=0.02):
  return Member(
    arm=arm, sparsity=sparsity, seed=seed, learning_rate=learning_rate
  )


MEMBERS = (
  member("dense", 0.0),
  member("ri", 0.5, seed=1, learning_rate=0.01),
  member("ri", 0.9),
)


def trainer(**training):
  return Trainer(small.problem(), small.Model(), small.config(**training))


def masks(state):
  return optax.tree.get(state.opt_state, "mask")


def kept(state):
  return sum(int(m.sum()) for m in jax.tree.leaves(masks(state)))


def plain(state):
  data = lambda x: (
    jax.random.key_data(x)
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    else x
  )
  return jax.tree.map(lambda x: np.asarray(data(x)), state)


@pytest.fixture(scope="module")
def population(tmp_path_factory):
  return trainer().train(
    MEMBERS,
    epochs=3,
    workdir=tmp_path_factory.mktemp("population"),
    name="main",
  )


@pytest.fixture(scope="module")
def separate(tmp_path_factory):
  one = trainer()
  states = [
    one.train([m], epochs=3, workdir=tmp_path_factory.mktemp("one"), name="x")
    for m in MEMBERS
  ]
  return one, [state for (state,) in states]


def test_a_member_fares_as_it_would_alone(population, separate):
  for together, alone in zip(population, separate[1], strict=True):
    a, b = plain(together), plain(alone)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_members_of_one_arm_share_a_step(separate):
  assert len(separate[0].steps) == 1


def test_arms_reach_their_exact_sparsities(population):
  for m, state in zip(MEMBERS, population, strict=True):
    pruned = int(np.floor(m.sparsity * KERNELS + 0.5))
    assert kept(state) == KERNELS - pruned
    zeros = sum(
      int((p == 0).sum()) for p in jax.tree.leaves(state.params) if p.ndim > 1
    )
    assert zeros == pruned
    assert float(pruning.sparsity(masks(state))) == pytest.approx(
      pruned / KERNELS, rel=1e-6
    )


def test_members_differ_in_what_they_should(population):
  dense, half, sparse = (
    state.params["dense"]["kernel"] for state in population
  )
  start = trainer().initialise(jax.random.key(0))["params"]["dense"]["kernel"]
  kept_here = np.asarray(masks(population[2])["dense"]["kernel"])
  far = lambda a, b: float(abs(np.asarray(a) - np.asarray(b))[kept_here].max())
  assert far(dense, start) > 1e-3  # it trained
  assert far(dense, half) > 1e-2  # another seed
  assert far(dense, sparse) > 1e-3  # the same seed, pruned


def test_post_training_starts_from_a_state(separate, tmp_path):
  one, (start, *_) = separate
  arguments = dict(epochs=3, workdir=tmp_path / "pt", name="pt", starts=[start])
  (state,) = one.train([member("pt", 0.75)], **arguments)
  assert len(one.steps) == 1  # optimized alike, so nothing compiles anew
  assert kept(state) == KERNELS - round(0.75 * KERNELS)
  # A run that is done is loaded.
  (again,) = one.train([member("pt", 0.75)], **arguments)
  jax.tree.map(np.testing.assert_array_equal, plain(state), plain(again))
  # It has moved from where it started, but started there.
  moved = abs(state.params["head"]["bias"] - start.params["head"]["bias"])
  assert 0 < float(moved.max()) < 0.5


def test_arms_with_optimizers_of_their_own_cannot_share(tmp_path):
  mixed = trainer(optimizers={"dense": {"weight_decay": 0.0}})
  with pytest.raises(ValueError, match=r"dense and ri .* training.together"):
    mixed.train(MEMBERS, epochs=3, workdir=tmp_path, name="main")


def test_predictions_are_those_of_the_model(population):
  one = trainer()
  predicted = one.predict(population, "test")
  assert predicted.shape == (3, small.SIZES["test"], 3)
  assert predicted.dtype == np.float32
  (images,) = one.problem.pictures("test", 100)
  for state, logits in zip(population, predicted, strict=True):
    direct = one.module.apply(
      {"params": state.params, **state.model_state},
      images.astype(np.float32) / 255 * 2 - 1,
    )
    np.testing.assert_allclose(logits, direct, rtol=1e-4, atol=1e-5)


def test_parameters_are_counted():
  assert trainer().parameters == KERNELS + 8 + 3 + 2 * 8
  other = Trainer(
    small.problem(), models.build("cnn", outputs=3), small.config()
  )
  assert other.parameters == sum(
    leaf.size
    for leaf in jax.tree.leaves(
      jax.eval_shape(
        lambda key: other.module.init(key, np.zeros((1, 4, 4, 1), np.float32)),
        jax.random.key(0),
      )
    )
  )


def test_schedule_in_epochs():
  plan = small.config().training.pruning
  ri = prune_schedule(plan, member("ri", 0.9), 100)
  assert ri.steps == (50, 100, 150, 200)
  assert ri.levels[0] == pytest.approx(0.05)
  assert ri.levels[-1] == 0.9
  pt = prune_schedule(plan, member("pt", 0.9), 100)
  assert pt.steps == (0, 25, 50, 75, 100)
  # The same steps, so that a dense member fits into the population.
  for arm in ("dense", "base"):
    dense = prune_schedule(plan, member(arm, 0.0), 100)
    assert dense.steps == ri.steps
    assert set(dense.levels) == {0.0}
  # Less than the initial sparsity is never exceeded on the way.
  low = prune_schedule(plan, member("ri", 0.02), 100)
  assert max(low.levels) == 0.02
  # Epochs shorter than the interval: an update at every step.
  assert prune_schedule(plan, member("pt", 0.9), 2).steps == (0, 1, 2)


def test_published_schedules():
  plan = celeba_resnet18.get_config().training.pruning
  ri = prune_schedule(plan, member("ri", 0.95), 636)
  assert ri.steps == tuple(636 * e for e in range(10, 81, 10))
  assert ri.levels[-1] == pytest.approx(0.949997, abs=1e-6)
  path = [0.05, 0.379, 0.616, 0.777, 0.875, 0.927, 0.947, 0.950]
  np.testing.assert_allclose(ri.levels, path, atol=6e-4)
  pt = prune_schedule(plan, member("pt", 0.95), 636)
  assert pt.steps == tuple(636 * e for e in range(1, 58, 4))
  assert pt.levels[-1] == pytest.approx(0.949882, abs=1e-6)


@pytest.mark.parametrize("mask", ["global", "layer"])
def test_reference_convention(mask):
  """Scores strictly above the k-th largest, k a ceiling in float64."""
  config = small.config().training
  config.pruning.mask = mask
  config.pruning.ri.end = 1.7  # which no update hits
  with config.unlocked():
    config.pruning.convention = "reference"
  rng = np.random.default_rng(0)
  random = lambda: {"w": rng.normal(size=(40, 25)).astype(np.float32)}
  one, dense = member("ri", 0.9), member("dense", 0.0)
  optimizer = make_optimizer(config, one, 3, 10)
  schedule = prune_schedule(config.pruning, one, 10)
  assert schedule.steps == (5, 10, 15)

  @jax.jit
  def step(params, state, grads):
    with jax.numpy_dtype_promotion("standard"):
      updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  params = random()
  state = optimizer.init(params)
  expected = np.ones((40, 25), bool)
  for number in range(20):
    if number in schedule.steps:
      level = schedule.levels[schedule.steps.index(number)]
      scores = (np.abs(params["w"]) + np.float32(1e-4)) * expected
      k = int(np.ceil(1000 * (1.0 - level)))
      expected = scores > -np.sort(-scores.ravel())[k - 1]
      assert expected.sum() == k - 1
    params, state = step(params, state, random())
    found = optax.tree.get(state, "mask")["w"]
    np.testing.assert_array_equal(found, expected, err_msg=f"step {number}")
  params = random()
  state = make_optimizer(config, dense, 3, 10).init(params)
  for _ in range(12):
    params, state = step(params, state, random())
    assert optax.tree.get(state, "mask")["w"].all()


def test_reference_convention_knows_magnitudes_only():
  config = ml_collections.ConfigDict(small.config().training.to_dict())
  config.pruning.score, config.pruning.convention = "taylor", "reference"
  with pytest.raises(ValueError, match="score magnitude and global or layer"):
    make_optimizer(config, member("ri", 0.9), 3, 4)


def test_unknown_convention():
  config = ml_collections.ConfigDict(small.config().training.to_dict())
  config.pruning.convention = "referense"
  with pytest.raises(ValueError, match="referense"):
    make_optimizer(config, member("ri", 0.9), 3, 4)
