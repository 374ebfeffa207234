"""Worlds of facts, and the sweep of the study of edits.

The sweep fine-tunes the small model of `configs/edit/iid.py`; what it does in
few compiled programs a loop of PyTorch does one run after another.

  python -m launch.benchmarks.editing

makes the world of 600,000 facts in a process of its own, and prints by how many
MB that raises its memory at most.
"""

import functools
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax.data import corpora, vocabulary, worlds
from effjax.models import neox
from effjax.studies.edit import arms, pretraining, sweep, tasks, updates
from launch import configuring
from launch.benchmarks import harness, torch_sweep

# The share of the sweep that is measured, of 15 arms, 6 rates and 4 seeds.
ARMS = ("full", "full_layer1", "lora1", "lora4_mlp")
RATES = (1e-3, 3e-3)
WHOLE = 15 * 6 * 4
_CHUNK = 8


def cases(quick: bool) -> list[harness.Case]:
  """Return the comparisons, with a small world if quick."""
  return [_stream(quick), _sweep(quick)]


def _corpus(subjects: int, rows: int) -> corpora.Corpus:
  key = jax.random.key(0)
  world = worlds.make_world(key, subjects=subjects)
  words = vocabulary.make_vocabulary(world)
  return corpora.make_corpus(key, world, words, rows=rows, layout="packed")


def _stream(quick: bool) -> harness.Case:
  subjects, rows, steps = (100, 4, 2) if quick else (100_000, 128, 40)
  corpus = _corpus(subjects, rows)
  count = rows * steps * 1024

  def run() -> None:
    for found in corpora.stream(corpus, 0, steps):
      jax.block_until_ready(found)

  return harness.Case(
    name=f"{count} tokens of a corpus of {6 * subjects} facts",
    ours=run,
    note="" if quick else f"the world and its corpus need {_memory()} MB",
    limit=f"wanted: 2 million tokens a CPU second, {count / 2e6:.3g} s",
  )


def _memory() -> str:
  """Measure the memory of the world in a fresh process, in MB."""
  command = [sys.executable, "-m", "launch.benchmarks.editing"]
  run = subprocess.run(command, capture_output=True, text=True, check=True)
  return run.stdout.split()[-1]


def main() -> None:
  """Print by how many MB the default world raises the peak memory."""
  jax.block_until_ready(corpora.batch(_corpus(100, 8), 0))
  before = harness.peak_memory()
  jax.block_until_ready(corpora.batch(_corpus(100_000, 8), 0))
  print(f"{(harness.peak_memory() - before) / 1e6:.0f}")


def _sweep(quick: bool) -> harness.Case:
  config = configuring.load(
    "configs/edit/iid.py" + (":miniature" if quick else "")
  )
  about = pretraining.subject(config)
  module = about.module
  # What a model knows changes nothing of what its fine-tuning costs.
  start = jnp.zeros((1, 2), jnp.int32)
  base = module.init(jax.random.key(0), start)["params"]
  data = tasks.make(jax.random.key(1), about, config, 1).data
  factors = updates.factors(jax.random.key(2), base)
  made = [
    (arm, _run(arm, base, rate, factors))
    for arm in map(arms.find, ARMS)
    for rate in RATES[: 1 if quick else None]
  ]
  fresh = lambda: sweep.Sweep(module, every=config.every)
  sweeps = functools.partial(_sweeps, base=base, data=data, made=made)
  ours = functools.partial(sweeps, fresh())
  loops = _loops(module, base, data, made, config.every)
  return harness.Case(
    name=f"{len(made)} fine-tunings of {config.steps} steps of a model of"
    f" {module.config.block_parameters} parameters",
    ours=ours,
    peers=loops,
    note="" if quick else _scaled(ours, loops, sweeps, fresh, made),
  )


def _run(arm: arms.Arm, base: Any, rate: float, factors: Any) -> updates.Run:
  theta = factors if arm.method == "lora" else None
  return updates.make_run(arm, base, rate=rate, edit=0, mix=0, theta=theta)


def _sweeps(
  program: sweep.Sweep, base: Any, data: Any, made: Any, chunk: int = _CHUNK
) -> list[sweep.Outcome]:
  """Run full fine-tuning, then LoRA."""
  found = []
  for method in ("full", "lora"):
    own = [run for arm, run in made if arm.method == method]
    if own:
      found.append(
        program(method, base, data, own, chunk=min(chunk, len(own)), keep=True)
      )
  return found


def _loops(
  module: neox.NeoX, base: Any, data: Any, made: Any, every: int
) -> dict[str, Callable[[], Any]]:
  """Return the same by PyTorch, on one thread and on all."""
  torch = harness.torch_or_none()
  if torch is None:
    return {}
  loop = torch_sweep.Loop(torch, module.config, data, every)

  def run(threads: int) -> Any:
    torch.set_num_threads(threads)
    return loop(base, made)

  # Tensors are on the CPU: on a GPU, so small a model waits for its kernels.
  return {
    f"torch, {n} threads": functools.partial(run, n)
    for n in sorted({1, harness.cores()})
  }


def _scaled(ours, loops, sweeps, fresh, made) -> str:
  """Say what the whole sweep costs, from one more measurement of its share.

  Programs are compiled anew for one run of each method, which is what a sweep
  costs that compiles every run.
  """
  first = _seconds(ours)
  warm = _seconds(ours)
  each = {name: _seconds(loop) / len(made) for name, loop in loops.items()}
  alone = [
    _seconds(functools.partial(sweeps, fresh(), made=[pair], chunk=1))
    for pair in (made[0], made[-1])
  ]
  compiling, running = first - warm, WHOLE * warm / len(made)
  parts = [
    f"15 arms x 6 rates x 4 seeds, in CPU s, from this share of {len(made)} of"
    f" {WHOLE} runs: {compiling + running:.0f} with the {compiling:.0f} of"
    " compiling two programs",
    f"{15 * compiling / 2 + running:.0f} with a program for each arm",
    f"{WHOLE * np.mean(alone):.0f} with every run compiled (two were)",
    *(f"{WHOLE * cost:.0f} {name}" for name, cost in each.items()),
  ]
  return ", ".join(parts)


def _seconds(run: Callable[[], Any]) -> float:
  started = time.process_time()
  run()
  return time.process_time() - started


if __name__ == "__main__":
  main()
