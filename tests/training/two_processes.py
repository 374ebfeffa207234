"""One of two processes that train together.

python -m tests.training.two_processes WORKDIR PORT PROCESS PROCESSES STEPS...
"""

import pathlib
import sys

import jax
import numpy as np

from effjax import training
from effjax.training import mesh as meshes
from tests.training import tiny


class Share:
  """The rows of every batch that one process reads."""

  def __init__(self, index, count):
    self.index, self.count = index, count
    self.whole = tiny.Batches()

  def __getitem__(self, position):
    rows = lambda x: np.array_split(x, self.count)[self.index]
    return {k: rows(v) for k, v in self.whole[position].items()}


def main(workdir, port, index, count, *stops):
  if count > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", count, index)
  mesh = meshes.from_config()
  assert mesh.size == count
  optimizer = tiny.masked()
  for steps in stops:
    state = training.fit(
      tiny.start(optimizer),
      tiny.step(optimizer),
      Share(index, count),
      steps=steps,
      workdir=workdir,
      config={"a": 1},
      log_every=7,
      checkpoint_every=5,
      evaluate=lambda state: {"step": state.step},
      mesh=mesh,
      rules="fsdp",
    )
  print(f"process {index}: {meshes.describe(mesh)}, step {int(state.step)}")


if __name__ == "__main__":
  directory, *numbers = sys.argv[1:]
  main(pathlib.Path(directory), *map(int, numbers))
