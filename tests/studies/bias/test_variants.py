import jax
import ml_collections
import numpy as np
import optax
import pytest

from effjax.studies.bias import problems, stages, variants
from effjax.studies.bias.arms import Member, Trainer
from tests.studies.bias import small


def read(*entries):
  config = ml_collections.ConfigDict(dict(variants=entries))
  return variants.read(config, small.problem())


def test_read():
  (one,) = read(dict(name="2:4", sparsities=(0.5,), mask="2:4"))
  assert (one.like, one.mask, one.loss, one.attributes) == (
    "pt",
    "2:4",
    "plain",
    (),
  )
  assert variants.read(ml_collections.ConfigDict(), small.problem()) == []


@pytest.mark.parametrize(
  ("entry", "message"),
  [
    (dict(name="a", sparsity=0.5), "'a' has no 'sparsity'; .*sparsities"),
    (dict(name="a"), "has no sparsities"),
    (dict(sparsities=(0.5,)), "has no name"),
    (dict(name="a", sparsities=(0.5,), like="rt"), "no 'rt'"),
    (dict(name="a", sparsities=(0.5,), loss="plan"), "nearest are plain"),
    (dict(name="ri", sparsities=(0.5,)), "'ri' of a variant is taken"),
    (dict(name="a", sparsities=(0.0,)), "no dense model"),
    (
      dict(name="a", sparsities=(0.5,), like="ri", attributes=("firts",)),
      "nearest are first",
    ),
    (
      dict(name="a", sparsities=(0.5,), attributes=("first",)),
      "start from scratch",
    ),
  ],
)
def test_bad_variants(entry, message):
  with pytest.raises(ValueError, match=message):
    read(entry)


def test_members_of_one_label_stand_beside_each_other():
  (single,) = read(
    dict(
      name="single",
      like="ri",
      sparsities=(0.0, 0.5),
      attributes=("first", "third"),
    )
  )
  crew = variants.members(single, single.sparsities, (3, 4), (0.1,))
  assert [(m.sparsity, m.seed, m.attribute) for m in crew] == [
    (s, seed, a)
    for s in (0.0, 0.5)
    for seed in (3, 4)
    for a in ("first", "third")
  ]
  assert {m.kind for m in crew} == {"ri"}
  columns = variants.constants(
    single, crew, small.problem(), starts=None, begin=0
  )
  assert [int(c["column"]) for c in columns] == [0, 2] * 4


def test_joined_and_restricted():
  logits = np.arange(12.0).reshape(4, 3, 1)
  joined = variants.joined(logits, ["a", "b"])
  np.testing.assert_array_equal(joined[1, :, 0], logits[2, :, 0])
  np.testing.assert_array_equal(joined[1, :, 1], logits[3, :, 0])
  some = problems.restrict(small.problem(), ["third"])
  assert some.attributes == ("third",)
  np.testing.assert_array_equal(
    some.labels["test"], small.problem().labels["test"][:, 2:]
  )


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  """Trainer, folder, and two dense models to start from."""
  config = small.config(epochs=4, epochs_pt=2)
  trainer = Trainer(small.problem(), small.Model(), config)
  place = tmp_path_factory.mktemp("base")
  members = [
    Member(arm="base", sparsity=0.0, seed=s, learning_rate=0.02)
    for s in range(2)
  ]
  stage = stages.run("base", members, trainer, place, epochs=2, keep=True)
  return trainer, place, stage.states


VARIANTS = {
  "random": dict(score="random"),
  "fisher": dict(score="fisher"),
  "channels": dict(mask="channels", where="dense/kernel"),
  "1:4": dict(mask="1:4", where="dense/kernel"),
  "distilled": dict(loss="distillation"),
  "weighted": dict(loss="performance_weighted"),
  "balanced": dict(loss="label_balanced"),
}


QUICK = ("fisher", "1:4", "distilled")


@pytest.mark.parametrize(
  "name",
  [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in VARIANTS
  ],
)
def test_variants_train_and_end_at_their_sparsity(base, name):
  trainer, place, starts = base
  (variant,) = read(dict(name=name, sparsities=(0.75,), **VARIANTS[name]))
  crew = variants.members(variant, (0.75,), (0, 1), (0.02,))
  stage = variants.stage(name, variant, crew, trainer, place, starts)
  assert stage.achieved == [0.75, 0.75]
  assert stage.test.shape == (2, 26, 3)
  assert np.isfinite(stage.test).all()
  assert (stage.test[0] != stage.test[1]).any()


def test_a_member_with_a_teacher_fares_as_it_would_alone(base, tmp_path):
  trainer, _, starts = base
  (variant,) = read(
    dict(name="distilled", sparsities=(0.75,), loss="distillation")
  )
  crew = variants.members(variant, (0.75,), (0, 1), (0.02,))
  constants = variants.constants(
    variant, crew, trainer.problem, starts=starts, begin=0
  )
  how = dict(epochs=2, name="x", recipe=variant.recipe)
  together = trainer.train(
    crew, workdir=tmp_path / "a", starts=starts, constants=constants, **how
  )
  alone = trainer.train(
    crew[1:],
    workdir=tmp_path / "b",
    starts=starts[1:],
    constants=constants[1:],
    **how,
  )
  jax.tree.map(
    np.testing.assert_array_equal, together[1].params, alone[0].params
  )
  # The teacher stays what it was.
  teacher = together[1].model_state["constants"]["teacher"]["params"]
  jax.tree.map(np.testing.assert_array_equal, teacher, starts[1].params)


@pytest.mark.slow
def test_models_of_one_label(base, tmp_path):
  trainer, _, _ = base
  config = trainer.config.copy_and_resolve_references()
  config.model = dict(name="cnn", options=dict(features=(2,), hidden=4))
  single = Trainer(trainer.problem, trainer.module, config)
  labels = ("third", "first")
  (variant,) = read(
    dict(name="single", like="ri", sparsities=(0.0, 0.5), attributes=labels)
  )
  crew = variants.members(variant, variant.sparsities, (0, 1), (0.02,))
  stage = variants.stage("single", variant, crew, single, tmp_path, None)
  assert stage.attributes == labels
  assert [(m.sparsity, m.seed) for m in stage.members] == [
    (0.0, 0),
    (0.0, 1),
    (0.5, 0),
    (0.5, 1),
  ]
  assert stage.test.shape == (4, 26, 2)
  assert stage.achieved == pytest.approx([0.0, 0.0, 0.5, 0.5], abs=0.02)


def test_random_masks_of_members_differ(base):
  trainer, place, starts = base
  (variant,) = read(dict(name="drawn", sparsities=(0.5,), score="random"))
  crew = variants.members(variant, (0.5,), (0, 1), (0.02,))
  states = trainer.train(
    crew,
    epochs=2,
    workdir=place / "drawn",
    name="drawn",
    starts=[starts[0], starts[0]],
    recipe=variant.recipe,
  )
  first, second = (optax.tree.get(s.opt_state, "mask") for s in states)
  kernel = lambda masks: np.asarray(masks["dense"]["kernel"])
  assert (kernel(first) != kernel(second)).any()
