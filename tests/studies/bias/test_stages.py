from types import SimpleNamespace

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from effjax.pruning.transform import PruneState
from effjax.studies.bias import stages
from effjax.studies.bias.arms import Member

MEMBERS = [
  Member(arm="dense", sparsity=0.0, seed=23, learning_rate=0.256),
  Member(arm="ri", sparsity=0.5, seed=23, learning_rate=0.256),
  Member(arm="ri", sparsity=0.75, seed=24, learning_rate=0.256),
]


class Recorder:
  """Stands for a `Trainer`: it trains nothing and remembers what it was told.

  The logits of a member are its seed plus its sparsity.
  """

  def __init__(self, mesh="", **training):
    self.config = ml_collections.ConfigDict(
      dict(mesh=mesh, mesh_rules="data", training=training)
    )
    self.trained, self.predicted = [], []

  def train(
    self, members, *, epochs, workdir, name, starts, constants, recipe, mesh
  ):
    workdir.mkdir(parents=True, exist_ok=True)
    self.trained.append(
      SimpleNamespace(
        members=members,
        epochs=epochs,
        workdir=workdir,
        name=name,
        starts=starts,
        constants=constants,
        recipe=recipe,
        mesh=mesh,
      )
    )
    return [self._state(m) for m in members]

  def _state(self, member):
    mask = jnp.arange(8).reshape(2, 4) >= round(8 * member.sparsity)
    state = PruneState(0, {"w": mask}, 0, 0, None)
    return SimpleNamespace(opt_state=state, member=member)

  def predict(self, states, split, *, mesh):
    self.predicted.append((split, len(states), mesh))
    size = {"validation": 2, "test": 3}[split]
    value = [s.member.seed + s.member.sparsity for s in states]
    return np.ones((len(states), size, 4), np.float32) * np.reshape(
      np.array(value, np.float32), (-1, 1, 1)
    )


def check(stage):
  assert stage.members == MEMBERS
  assert stage.validation.shape == (3, 2, 4)
  assert stage.test.shape == (3, 3, 4)
  np.testing.assert_array_equal(stage.test[:, 0, 0], [23, 23.5, 24.75])
  assert stage.achieved == [0.0, 0.5, 0.75]


def test_together_is_the_default(tmp_path):
  trainer = Recorder()
  stage = stages.run("main", MEMBERS, trainer, tmp_path, epochs=7)
  check(stage)
  (call,) = trainer.trained
  assert (call.members, call.epochs, call.name) == (MEMBERS, 7, "main")
  assert call.workdir == tmp_path / "main"
  assert stage.states == []


def test_one_by_one_each_in_its_directory(tmp_path):
  trainer = Recorder(together=False)
  starts = ["a", "b", "c"]
  stage = stages.run(
    "main", MEMBERS, trainer, tmp_path, epochs=7, starts=starts, keep=True
  )
  check(stage)
  assert [call.members for call in trainer.trained] == [[m] for m in MEMBERS]
  assert [call.starts for call in trainer.trained] == [["a"], ["b"], ["c"]]
  assert [call.name for call in trainer.trained] == [
    "main 1/3",
    "main 2/3",
    "main 3/3",
  ]
  names = [
    call.workdir.relative_to(tmp_path).as_posix() for call in trainer.trained
  ]
  assert names == [
    "main/dense-0-23-0.256",
    "main/ri-0.5-23-0.256",
    "main/ri-0.75-24-0.256",
  ]
  assert [state.member for state in stage.states] == MEMBERS


@pytest.mark.parametrize("together", [True, False])
def test_what_is_done_is_not_done_again(tmp_path, together):
  stages.run("x", MEMBERS, Recorder(together=together), tmp_path, epochs=1)
  trainer = Recorder(together=together)
  check(stages.run("x", MEMBERS, trainer, tmp_path, epochs=1))
  assert not trainer.trained
  assert not trainer.predicted
  # Who needs the states gets them; the predictions are still read.
  stage = stages.run("x", MEMBERS, trainer, tmp_path, epochs=1, keep=True)
  check(stage)
  assert len(stage.states) == 3
  assert not trainer.predicted


def test_only_what_is_missing_is_trained(tmp_path):
  stages.run("x", MEMBERS, Recorder(together=False), tmp_path, epochs=1)
  path = tmp_path / "x" / "ri-0.5-23-0.256" / "predictions.npz"
  path.unlink()
  trainer = Recorder(together=False)
  check(stages.run("x", MEMBERS, trainer, tmp_path, epochs=1))
  assert [call.members for call in trainer.trained] == [[MEMBERS[1]]]


@pytest.mark.parametrize("damage", ["empty", "cut", "other"])
def test_damaged_predictions_are_made_anew(tmp_path, damage):
  stages.run("x", MEMBERS, Recorder(), tmp_path, epochs=1)
  path = tmp_path / "x" / "predictions.npz"
  if damage == "other":
    np.savez(path, validation=np.zeros(3), test=np.zeros(3))
  else:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
  trainer = Recorder()
  check(stages.run("x", MEMBERS, trainer, tmp_path, epochs=1))
  assert trainer.predicted == [("validation", 3, None), ("test", 3, None)]
  assert not list(tmp_path.glob("x/*.tmp.npz"))


def test_a_mesh_is_for_single_members(tmp_path):
  together = Recorder(mesh="auto")
  stages.run("a", MEMBERS, together, tmp_path, epochs=1)
  assert together.trained[0].mesh is None
  single = Recorder(mesh="auto")
  stages.run("b", MEMBERS[:1], single, tmp_path, epochs=1)
  assert single.trained[0].mesh.axis_names == ("data",)
  apart = Recorder(mesh="auto", together=False)
  stages.run("c", MEMBERS, apart, tmp_path, epochs=1)
  assert all(call.mesh.axis_names == ("data",) for call in apart.trained)
  assert apart.predicted[0] == ("validation", 1, apart.trained[0].mesh)
