"""The training loop, the only one."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import signal as signals
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from effjax.io import checkpoint
from effjax.training import diagnostics, interrupt
from effjax.training import mesh as meshes
from effjax.training import workdir as workdirs
from effjax.training.prefetch import Batches, Prefetch
from effjax.training.profiler import Tracer, parse_window
from effjax.training.progress import Progress
from effjax.training.state import TrainState, counters
from effjax.training.step import (
  Batch,
  Measures,
  Memberwise,
  Step,
  stack,
  unstack,
)
from effjax.training.writer import Writer


def fit(
  state: TrainState,
  step: Step,
  batches: Batches,
  *,
  steps: int,
  workdir: str | os.PathLike,
  config: Any = None,
  name: str = "train",
  log_every: int = 100,
  checkpoint_every: int = 1000,
  keep: int = 3,
  evaluate: Callable[[TrainState], Mapping[str, Any]] | None = None,
  evaluate_every: int | None = None,
  tensorboard: bool = False,
  mesh: jax.sharding.Mesh | None = None,
  rules: meshes.Rules = "data",
  profile: str | None = None,
  frozen: Any = None,
) -> TrainState:
  """Train until a number of updates is done, or go on where a run stopped.

  Killed at any instant, the same call goes on from the newest intact
  checkpoint and ends as the run would have ended: on one device bit for bit, in
  `metrics.jsonl` too but for the times. A run that is complete returns its
  state at once, so a study of several stages calls this once for each of them,
  with a directory of its own.

  Args:
    state: Where to start from when there is no checkpoint; it stays usable.
    step: `step(state, batch) -> (state, measures)` of `make_step` or
      `population`; it is jitted here and the state is donated to it.
    batches: `batches[position]` is a dict of arrays [B, ...] (populations:
      [M, B, ...]; several processes: the rows of this one) and depends on
      nothing but the position. The next one is fetched in a thread meanwhile.
    steps: Number of updates at the end.
    workdir: Directory for `metrics.jsonl`, `checkpoints/`, and `diagnostics/`
      when something goes wrong.
    config: If given, `config.json` and `environment.json` are written, and a
      directory made by another config is refused.
    name: What the progress line calls this run or stage.
    log_every: Steps between lines of the split "train".
    checkpoint_every: Steps between checkpoints; there is one at the end anyhow.
    keep: How many checkpoints to keep.
    evaluate: `evaluate(state) -> values`, written with the split "validation".
    evaluate_every: Steps between evaluations; None means only at the end.
    tensorboard: Whether to write TensorBoard events too.
    mesh: Devices to spread over, see `mesh.from_config`; None uses one.
    rules: Where parameters lie on the mesh, see `mesh.shardings`.
    profile: "a:b" traces the steps from a to b into `workdir/profile`.
    frozen: A tree of arrays that the step takes as its third argument, the base
      of an adapter for example: neither changed, nor saved, nor compiled into
      the program.

  Returns:
    The state after the last step.

  Raises:
    NotFiniteError: (a FloatingPointError) If a loss or a parameter is not
      finite. Diagnostics are saved, the last good checkpoint stays.
    Interrupted: (a SystemExit) on SIGTERM or SIGINT, after a checkpoint.
    ValueError: If the directory belongs to another config or state.
    OSError: If the directory cannot be written, in one sentence.
  """
  workdir = pathlib.Path(workdir)
  _check_counts(
    steps=steps,
    log_every=log_every,
    checkpoint_every=checkpoint_every,
    evaluate_every=evaluate_every,
  )
  window = parse_window(profile)
  if config is not None:
    workdirs.start(workdir, config)
  saved = checkpoint.Steps(directory=workdir / "checkpoints", keep=keep)
  state, start, position = _begin(state, saved, mesh, rules)
  if start > steps:
    raise ValueError(
      f"{workdir} holds a run of {start} steps, more than the {steps} asked for"
    )
  members = step if isinstance(step, Memberwise) and mesh is None else None
  with contextlib.ExitStack() as contexts:
    enter = contexts.enter_context
    progress = enter(Progress(name, start, steps))
    if saved.all():
      going = "complete at" if start == steps else "goes on from"
      progress.note(f"{name}: {going} step {start}")
    if start == steps:
      return state
    run = _Run(
      name=name,
      workdir=workdir,
      steps=steps,
      log_every=log_every,
      checkpoint_every=checkpoint_every,
      evaluate=evaluate,
      evaluate_every=evaluate_every or steps,
      saved=saved,
      writer=enter(Writer(workdir, step=start, tensorboard=tensorboard)),
      progress=progress,
      offset=position - start,
      watch=enter(interrupt.Watch()),
      tracer=enter(Tracer(window, workdir / "profile")),
      join=stack if members else lambda state: state,
    )
    place = _place_members if members else _placer(mesh, rules)
    fetch = enter(Prefetch(batches, place, position, steps - start))
    if members:
      pool = enter(futures.ThreadPoolExecutor(os.cpu_count()))
      return run.train(members.compiled(pool), unstack(state), fetch, start)
    compiled = _compile(step, state, mesh)
    if frozen is not None:
      compiled = functools.partial(_with_frozen, compiled, frozen)
    return run.train(compiled, state, fetch, start)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
  """What stays the same from one step to the next."""

  name: str
  workdir: pathlib.Path
  steps: int
  log_every: int
  checkpoint_every: int
  evaluate: Callable[[TrainState], Mapping[str, Any]] | None
  evaluate_every: int
  saved: checkpoint.Steps
  writer: Writer
  progress: Progress
  offset: int  # position of a batch minus the number of updates before it
  watch: interrupt.Watch
  tracer: Tracer
  join: Callable[[Any], TrainState]  # what the step carries, as one state

  def train(
    self,
    step: Callable[..., Any],
    state: Any,
    fetch: Callable[[], Any],
    start: int,
  ) -> TrainState:
    """Do the steps after `start`, whose number is the updates then done."""
    waiting = None
    for number in range(start + 1, self.steps + 1):
      self.tracer.before(number, state)
      state, measures = step(state, fetch())
      # Look at the step before while the device is busy with this one.
      if waiting is not None:
        self.report(number - 1, waiting, state, number)
      waiting = measures
      signal = self.watch.received(number)
      last = number == self.steps
      saves = last or signal or number % self.checkpoint_every == 0
      evaluates = last or number % self.evaluate_every == 0
      if evaluates or saves:
        self.report(number, waiting, state, number)
        waiting = None
      if evaluates and self.evaluate is not None:
        self.writer.write(number, "validation", self.evaluate(self.join(state)))
      if saves:
        self.save(number, state)
      if last:  # a signal may have come while that was written
        signal = signal or self.watch.received(number)
      if signal:
        self.stop(number, signal)
    return self.join(state)

  def report(
    self, number: int, measures: Any, state: Any, reached: int
  ) -> None:
    """Fetch, check and record the measures of a step."""
    fetched = jax.device_get(measures)
    values = {name: np.asarray(value) for name, value in fetched.items()}
    loss = values["loss"]
    if not np.all(np.isfinite(loss)):
      cause = f"the loss is {_brief(loss)}"
      self.fail(number, cause, values, self.join(state), reached)
    logs = number % self.log_every == 0 or number == self.steps
    if logs:
      self.writer.write(number, "train", values)
    self.progress.update(number, float(loss.mean()), line=logs)

  def save(self, number: int, state: Any) -> None:
    """Save a checkpoint of a state that is worth going back to."""
    state = self.join(state)
    if not bool(diagnostics.all_finite(state.params)):
      self.fail(number, "a parameter is not finite", {}, state, number)
    # Lines first: a checkpoint stands for all lines up to its step.
    self.writer.sync()
    counters = {"step": number, "position": number + self.offset}
    self.saved.save(number, state, metadata={"name": self.name, **counters})

  def stop(self, number: int, signal: signals.Signals) -> NoReturn:
    """End the program as a signal asks; the state has been saved."""
    self.progress.note(
      f"{self.name}: stopped by {signal.name} after step {number}, saved in"
      f" {self.saved.path(number)}; the same command goes on from there"
    )
    raise interrupt.Interrupted(signal, number)

  def fail(
    self,
    number: int,
    cause: str,
    values: Mapping[str, Any],
    state: TrainState,
    reached: int,
  ) -> NoReturn:
    """Save what may explain a number that is not finite, then raise."""
    place = self.workdir / "diagnostics"
    position = number - 1 + self.offset
    report = {"step": number, "batch_position": position, "cause": cause}
    report["state_step"] = reached  # the loop may be one step ahead
    diagnostics.save(place, number, report, values, state)
    raise diagnostics.NotFiniteError(
      f"{self.name}: {cause} at step {number} (batch {position}); diagnostics"
      f" are in {place}, the checkpoints made before are kept",
      step=number,
      loss=values.get("loss"),
    )


def _begin(
  state: TrainState,
  saved: checkpoint.Steps,
  mesh: jax.sharding.Mesh | None,
  rules: meshes.Rules,
) -> tuple[TrainState, int, int]:
  """The state to start from, its number of updates and its position."""
  newest = saved.newest()
  if newest is None:
    start, position = counters(state)
    # A copy, since the step is donated its state: the caller keeps his own, and
    # no two leaves share a buffer. It has no weak types, which would compile
    # the step twice.
    state = jax.tree.map(
      lambda x: jnp.array(x, dtype=x.dtype, copy=True), state
    )
    if mesh is not None:
      state = meshes.shard(state, mesh, rules)
    return state, start, position
  if mesh is not None:
    state = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      state,
      meshes.shardings(state, mesh, rules),
    )
  metadata = checkpoint.read_metadata(saved.path(newest))
  state = saved.load(newest, state)
  return state, metadata["step"], metadata["position"]


def _compile(
  step: Step, state: TrainState, mesh: jax.sharding.Mesh | None
) -> Step:
  if mesh is None:
    return jax.jit(step, donate_argnums=0)
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  # The state stays where it lies; measures are wanted by every process.
  where = jax.tree.map(lambda x: x.sharding, state)
  return jax.jit(step, donate_argnums=0, out_shardings=(where, everywhere))


def _with_frozen(
  step: Callable, frozen: Any, state: TrainState, batch: Batch
) -> tuple[TrainState, Measures]:
  return step(state, batch, frozen)


def _place_members(batch: Batch) -> list[Batch]:
  count = len(next(iter(batch.values())))
  return [
    jax.device_put({name: x[member] for name, x in batch.items()})
    for member in range(count)
  ]


def _placer(
  mesh: jax.sharding.Mesh | None, rules: meshes.Rules
) -> Callable[[Batch], Batch]:
  if mesh is None:
    return jax.device_put
  sharding = meshes.batch_sharding(mesh, rules)
  return lambda batch: meshes.place_batch(batch, sharding)


def _brief(loss: np.ndarray) -> str:
  if not loss.ndim:
    return str(loss)
  bad = np.flatnonzero(~np.isfinite(loss)).tolist()
  return f"not finite in the members {bad}"


def _check_counts(**counts: int | None) -> None:
  for name, count in counts.items():
    if count is not None and count < 1:
      raise ValueError(f"{name} must be at least 1, got {count}")
