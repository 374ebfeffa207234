"""launch.run with studies that need no data: -m tests.launch.trivial ..."""

import json
import os
import pathlib
import sys

import jax
import numpy as np
import optax

from effjax import training
from effjax.training import mesh
from launch import run
from tests.training import tiny, two_processes


def sums(config, workdir):
  """Write a number; fails when told to, once or always."""
  if config.get("fail"):
    raise RuntimeError("the study failed")
  calls = pathlib.Path(workdir, "calls.txt")
  with open(calls, "a") as file:
    file.write("called\n")
  write(workdir, {"sum": config.a + config.inner.b})


def tiny_training(config, workdir):
  """Two stages, the second of which starts from the first."""
  optimizer = tiny.adam()
  state = tiny.start(optimizer)
  for name in ("first", "second"):
    state = training.fit(
      state._replace(step=np.int32(0), position=np.int32(0)),
      tiny.step(optimizer),
      tiny.Batches(),
      steps=config.steps,
      workdir=pathlib.Path(workdir, name),
      checkpoint_every=10,
      log_every=5,
      profile=config.get("profile"),
      name=name,
    )
  write(workdir, {"norm": float(optax.tree.norm(state.params))})


def together(config, workdir):
  """One model on all devices of all processes."""
  optimizer = tiny.adam()
  state = training.fit(
    tiny.start(optimizer),
    tiny.step(optimizer),
    two_processes.Share(jax.process_index(), jax.process_count()),
    steps=config.steps,
    workdir=workdir,
    mesh=mesh.from_config(config.mesh),
  )
  norm = float(optax.tree.norm(state.params))
  if jax.process_index() == 0:
    write(workdir, {"norm": norm, "processes": jax.process_count()})


def diverging(config, workdir):
  raise FloatingPointError("dense: the loss is nan at step 3")


def broken(config, workdir):
  """A mistake of the program, not of the user."""
  return np.zeros((2,)).reshape(3)


def full(config, workdir):
  raise OSError(28, os.strerror(28), "a/file")


def write(workdir, content):
  pathlib.Path(workdir, "results.json").write_text(json.dumps(content))


STUDIES = {
  "sums": sums,
  "tiny": tiny_training,
  "together": together,
  "diverging": diverging,
  "broken": broken,
  "full": full,
}

if __name__ == "__main__":
  sys.exit(run.main(studies=STUDIES))
