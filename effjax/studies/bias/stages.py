"""A stage of the study: models that are trained, asked, and not asked again."""

import dataclasses
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import optax

from effjax import pruning, training
from effjax.io import files
from effjax.studies.bias.arms import PLAIN, Member, Recipe, Trainer
from effjax.training import mesh as meshes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
  """Trained models with their logits.

  Attributes:
    members: The M models.
    validation: Their logits, float32 [M, N, A].
    test: The same of the test split.
    achieved: The sparsity of each.
    states: Their states where they were asked for, else none.
    attributes: The labels of the logits where they are not all of them.
  """

  members: list[Member]
  validation: np.ndarray
  test: np.ndarray
  achieved: list[float]
  states: list[training.TrainState]
  attributes: tuple[str, ...] = ()


def run(
  name: str,
  members: Sequence[Member],
  trainer: Trainer,
  place: pathlib.Path,
  *,
  epochs: int,
  starts: Sequence[Any] | None = None,
  constants: Sequence[Any] | None = None,
  recipe: Recipe = PLAIN,
  keep: bool = False,
) -> Stage:
  """Train the members of a stage and predict, or load what was done before.

  The members train together in one program, or, where `training.together` is
  False, one after another, each in a directory of its own: for models that fill
  the devices by themselves, which `mesh` then spreads over.

  Args:
    name: Name of the stage and of its directory.
    members: The models.
    trainer: What trains them.
    place: Directory of the study.
    epochs: How long to train.
    starts: States to start from, one a member; see `Trainer.train`.
    constants: What the loss needs besides, one dict a member.
    recipe: How the members are pruned and what they minimise.
    keep: Whether the states are needed afterwards; without, nothing is loaded
      of a model whose predictions are there.

  Returns:
    The stage.
  """
  axes = trainer.config.mesh
  mesh = meshes.from_config(axes) if axes else None
  if trainer.config.training.get("together", True):
    mesh = mesh if len(members) == 1 else None
    how = dict(epochs=epochs, workdir=place / name, name=name, recipe=recipe)
    how |= dict(starts=starts, constants=constants)
    return _crew(trainer, members, how, mesh, keep)
  parts = []
  for i, member in enumerate(members):
    how = dict(
      epochs=epochs,
      workdir=place / name / _label(member),
      name=f"{name} {i + 1}/{len(members)}",
      recipe=recipe,
      starts=None if starts is None else [starts[i]],
      constants=None if constants is None else [constants[i]],
    )
    parts.append(_crew(trainer, [member], how, mesh, keep))
  return Stage(
    members=list(members),
    validation=np.concatenate([part.validation for part in parts]),
    test=np.concatenate([part.test for part in parts]),
    achieved=[part.achieved[0] for part in parts],
    states=[state for part in parts for state in part.states],
  )


def _label(member: Member) -> str:
  """Name the directory of a member, e.g. "ri-0.95-23-0.256"."""
  numbers = member.sparsity, member.seed, member.learning_rate
  parts = (member.arm, member.attribute, *(f"{x:.10g}" for x in numbers))
  return "-".join(filter(None, parts))


def _crew(
  trainer: Trainer,
  members: Sequence[Member],
  how: dict[str, Any],
  mesh: Any,
  keep: bool,
) -> Stage:
  """Train members in one program and predict, or read what they predicted."""
  path = how["workdir"] / "predictions.npz"
  saved, states = _read(path), []
  if saved is None or keep:
    states = trainer.train(members, mesh=mesh, **how)
  if saved is None:
    masks = [optax.tree.get(state.opt_state, "mask") for state in states]
    saved = {
      "validation": trainer.predict(states, "validation", mesh=mesh),
      "test": trainer.predict(states, "test", mesh=mesh),
      "achieved": np.array([float(pruning.sparsity(mask)) for mask in masks]),
    }
    with files.explained("save the predictions", path):
      temporary = path.with_name("predictions.tmp.npz")
      np.savez(temporary, **saved)
      temporary.replace(path)
  return Stage(
    members=list(members),
    validation=saved["validation"],
    test=saved["test"],
    achieved=saved["achieved"].tolist(),
    states=states if keep else [],
  )


def _read(path: pathlib.Path) -> dict[str, np.ndarray] | None:
  """Read saved predictions; None where they are not there, or not whole."""
  damaged = EOFError, KeyError, ValueError, zipfile.BadZipFile
  try:
    with path.open("rb") as file, np.load(file) as saved:
      return {name: saved[name] for name in ("validation", "test", "achieved")}
  except (FileNotFoundError, *damaged):
    return None
