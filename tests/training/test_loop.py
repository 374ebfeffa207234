import errno
import json
import logging
import os
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import training
from effjax.io import checkpoint
from effjax.training import interrupt
from tests.training import tiny


def fit(workdir, *, optimizer=None, state=None, batches=None, **options):
  optimizer = optimizer or tiny.adam()
  state = tiny.start(optimizer) if state is None else state
  settings = {"steps": 20, "log_every": 5, "checkpoint_every": 8} | options
  return training.fit(
    state,
    tiny.step(optimizer),
    batches or tiny.Batches(),
    workdir=workdir,
    **settings,
  )


def by_hand(steps):
  optimizer = tiny.adam()
  step = jax.jit(tiny.step(optimizer))
  state, batches, losses = tiny.start(optimizer), tiny.Batches(), []
  for position in range(steps):
    state, measures = step(state, batches[position])
    losses.append(float(measures["loss"]))
  return state, losses


def test_fit_is_the_plain_loop(tmp_path):
  given = tiny.start(tiny.adam())
  batches = tiny.Batches()
  state = fit(tmp_path, state=given, batches=batches)
  expected, losses = by_hand(20)
  tiny.assert_same(state, expected)
  assert batches.seen == list(range(20))
  lines = tiny.lines(tmp_path)
  assert [line["step"] for line in lines] == [5, 10, 15, 20]
  assert {line["split"] for line in lines} == {"train"}
  found = [line["values"]["loss"] for line in lines]
  np.testing.assert_allclose(found, losses[4::5], rtol=1e-7)
  # What was given is still there, though the step is donated its state.
  assert int(given.step) == 0
  assert jnp.all(given.params["a"]["bias"] == 0)


def test_checkpoints_and_keep(tmp_path):
  fit(tmp_path, steps=40, keep=2)
  names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
  assert names == ["000032", "000040"]


def test_a_complete_run_returns_at_once(tmp_path):
  first = fit(tmp_path)
  before = (tmp_path / "metrics.jsonl").read_bytes()
  batches = tiny.Batches()
  again = fit(tmp_path, batches=batches)
  tiny.assert_same(first, again)
  assert batches.seen == []
  assert (tmp_path / "metrics.jsonl").read_bytes() == before


class Broken(tiny.Batches):
  """Data that cannot be read at one position, as when a disk fails."""

  def __init__(self, position):
    super().__init__()
    self.position = position

  def __getitem__(self, position):
    if position == self.position:
      raise OSError(errno.EIO, "the disk failed")
    return super().__getitem__(position)


def test_a_broken_run_goes_on_as_if_nothing_had_happened(tmp_path, capsys):
  values = lambda state: {"norm": optax.tree.norm(state.params)}
  options = {"evaluate": values, "evaluate_every": 6, "steps": 30}
  whole = fit(tmp_path / "whole", **options)
  with pytest.raises(OSError, match="the disk failed"):
    fit(tmp_path / "parts", batches=Broken(21), **options)
  assert tiny.lines(tmp_path / "parts")[-1]["step"] > 16
  batches = tiny.Batches()
  parts = fit(tmp_path / "parts", batches=batches, name="dense", **options)
  assert batches.seen == list(range(16, 30))
  tiny.assert_same(whole, parts)
  assert tiny.lines(tmp_path / "whole") == tiny.lines(tmp_path / "parts")
  assert "dense: goes on from step 16" in capsys.readouterr().err


def test_damaged_checkpoint_is_passed_over(tmp_path, caplog):
  whole = fit(tmp_path / "whole", steps=24)
  with pytest.raises(OSError, match="the disk failed"):
    fit(tmp_path / "parts", batches=Broken(18), steps=24)
  damaged = tmp_path / "parts" / "checkpoints" / "000016"
  file = max(damaged.rglob("d/*"), key=lambda p: p.stat().st_size)
  os.truncate(file, 10)
  with caplog.at_level(logging.WARNING):
    batches = tiny.Batches()
    parts = fit(tmp_path / "parts", batches=batches, steps=24)
  assert "000016" in caplog.text
  assert batches.seen[0] == 8
  tiny.assert_same(whole, parts)
  assert tiny.lines(tmp_path / "whole") == tiny.lines(tmp_path / "parts")
  assert (damaged.parent / "000016.damaged1").exists()


def test_evaluation(tmp_path):
  seen = []

  def evaluate(state):
    seen.append(int(state.step))
    return {"step": state.step, "both": jnp.array([1.0, 2.0])}

  fit(tmp_path, evaluate=evaluate, evaluate_every=6)
  assert seen == [6, 12, 18, 20]
  lines = [x for x in tiny.lines(tmp_path) if x["split"] == "validation"]
  assert lines[0]["values"] == {"both": [1.0, 2.0], "step": 6}
  seen.clear()
  fit(tmp_path / "end", evaluate=evaluate)
  assert seen == [20]


def test_stages_hand_their_state_on(tmp_path):
  dense = fit(tmp_path / "dense", steps=10, name="dense")
  pruned = optax.sgd(0.01)
  fresh = training.create(
    jax.random.key(5), dense.params, pruned, dense.model_state
  )
  first = fit(tmp_path / "pt", optimizer=pruned, state=fresh, steps=5)
  again = fit(tmp_path / "pt", optimizer=pruned, state=fresh, steps=5)
  tiny.assert_same(first, again)
  assert not jnp.array_equal(
    first.params["a"]["kernel"], dense.params["a"]["kernel"]
  )


def test_population_in_the_loop(tmp_path):
  optimizer = tiny.adam()
  members = [tiny.Batches(seed) for seed in range(2)]
  step = tiny.step(optimizer)
  starts = [tiny.start(optimizer, seed) for seed in range(2)]
  together = training.fit(
    training.stack(starts),
    training.population(step),
    tiny.Stacked(members),
    steps=10,
    workdir=tmp_path / "together",
    log_every=5,
  )
  for seed, member in enumerate(training.unstack(together)):
    alone = fit(
      tmp_path / str(seed),
      state=starts[seed],
      batches=members[seed],
      steps=10,
    )
    tiny.assert_same(alone, member)
  lines = tiny.lines(tmp_path / "together")
  assert [len(line["values"]["loss"]) for line in lines] == [2, 2]


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_population_goes_on_where_it_stopped(tmp_path):
  """Also in a loop of one program, and then member by member."""
  optimizer = tiny.masked()
  members = tiny.Stacked([tiny.Batches(seed) for seed in range(2)])
  start = training.stack([tiny.start(optimizer, seed) for seed in range(2)])
  together = training.population(tiny.step(optimizer), "map")

  def train(workdir, steps, step=together):
    return training.fit(start, step, members, steps=steps, workdir=workdir)

  whole = train(tmp_path / "whole", 10)
  train(tmp_path / "parts", 4)
  train(tmp_path / "parts", 7, lambda *operands: together(*operands))
  tiny.assert_same(whole, train(tmp_path / "parts", 10))


def test_masks_are_in_the_checkpoint(tmp_path):
  optimizer = tiny.pruned(12)
  whole = fit(tmp_path / "whole", optimizer=optimizer)
  with pytest.raises(OSError, match="the disk failed"):
    fit(tmp_path / "parts", optimizer=optimizer, batches=Broken(18))
  parts = fit(tmp_path / "parts", optimizer=optimizer)
  tiny.assert_same(whole, parts)
  mask = optax.tree.get(parts.opt_state, "mask")
  kept = jnp.concatenate([m.ravel() for m in jax.tree.leaves(mask)])
  assert float(jnp.mean(kept)) == pytest.approx(0.2, abs=0.01)
  kernel = parts.params["a"]["kernel"]
  assert bool(jnp.all((kernel == 0) >= ~mask["a"]["kernel"]))


class Poisoned(tiny.Batches):
  """A batch that is not finite, from a position on."""

  def __getitem__(self, position):
    batch = super().__getitem__(position)
    if position >= 13:
      batch["y"][3] = np.inf
    return batch


def test_loss_that_is_not_finite(tmp_path):
  with pytest.raises(FloatingPointError, match="the loss is inf") as caught:
    fit(tmp_path, batches=Poisoned(), name="dense", keep=1)
  message = str(caught.value)
  for part in ("dense", "step 14", "batch 13", str(tmp_path / "diagnostics")):
    assert part in message
  assert caught.value.step == 14
  assert not np.isfinite(caught.value.loss)
  assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
    "000008"
  ]
  report = json.loads((tmp_path / "diagnostics" / "report.json").read_text())
  assert (report["step"], report["batch_position"]) == (14, 13)
  assert report["measures"]["loss"] == "inf"
  assert report["not_finite"]["params/a/kernel"] == 128
  place = tmp_path / "diagnostics" / "000014"
  state = checkpoint.load(place, tiny.start(tiny.adam()))
  assert int(state.step) == report["state_step"]
  # Again: it fails again in the same way, and with whole data it goes on.
  with pytest.raises(FloatingPointError, match="step 14"):
    fit(tmp_path, batches=Poisoned())
  tiny.assert_same(fit(tmp_path), fit(tmp_path / "whole"))


def test_parameter_that_is_not_finite_is_no_checkpoint(tmp_path):
  def explode(updates, state, params=None):
    del params
    return jax.tree.map(
      lambda u: jnp.where(state < 7, u, jnp.inf), updates
    ), state + 1

  init = lambda params: jnp.zeros((), jnp.int32)
  optimizer = optax.chain(
    optax.sgd(0.01), optax.GradientTransformation(init, explode)
  )
  with pytest.raises(FloatingPointError, match="a parameter is not finite"):
    fit(tmp_path, optimizer=optimizer)
  assert not (tmp_path / "checkpoints").exists()
  assert (tmp_path / "diagnostics" / "000008").exists()


def test_member_that_is_not_finite_is_named(tmp_path):
  optimizer = tiny.adam()
  members = [tiny.Batches(), Poisoned()]
  starts = [tiny.start(optimizer) for _ in members]
  with pytest.raises(FloatingPointError, match=r"in the members \[1\]"):
    training.fit(
      training.stack(starts),
      training.population(tiny.step(optimizer)),
      tiny.Stacked(members),
      steps=20,
      workdir=tmp_path,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_stops(tmp_path, capsys, number):
  before = signal.getsignal(number)
  # An evaluation runs in the main thread, where signals are handled.
  with pytest.raises(training.Interrupted) as caught:
    fit(
      tmp_path,
      evaluate=lambda state: signal.raise_signal(number) or {},
      evaluate_every=6,
      name="dense",
    )
  assert caught.value.code == 128 + number
  assert (caught.value.step, caught.value.signal) == (7, number)
  assert signal.getsignal(number) is before
  assert (tmp_path / "checkpoints" / "000007").exists()
  message = capsys.readouterr().err
  assert f"dense: stopped by {number.name} after step 7" in message
  assert "the same command goes on" in message
  state = fit(tmp_path)
  tiny.assert_same(state, by_hand(20)[0])


def test_signal_at_the_last_step_is_not_lost(tmp_path):
  with pytest.raises(training.Interrupted):
    fit(
      tmp_path,
      evaluate=lambda state: signal.raise_signal(signal.SIGTERM) or {},
    )
  assert (tmp_path / "checkpoints" / "000020").exists()
  tiny.assert_same(fit(tmp_path), by_hand(20)[0])


def test_second_signal_is_obeyed_at_once():
  # A process in the background may have inherited that SIGINT is ignored.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    with interrupt.Watch() as watch:
      signal.raise_signal(signal.SIGINT)
      assert watch.received(1) == signal.SIGINT
      with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
  finally:
    signal.signal(signal.SIGINT, before)


def test_loop_outside_the_main_thread(tmp_path):
  found = []
  thread = threading.Thread(target=lambda: found.append(fit(tmp_path)))
  thread.start()
  thread.join()
  tiny.assert_same(found[0], by_hand(20)[0])


def test_another_config(tmp_path):
  fit(tmp_path, config={"rate": 0.01})
  with pytest.raises(ValueError, match=r"rate: 0\.01 -> 0\.1"):
    fit(tmp_path, config={"rate": 0.1})


def test_another_model(tmp_path):
  fit(tmp_path)
  with pytest.raises(ValueError, match=r"opt_state.* in it") as caught:
    fit(tmp_path, optimizer=optax.sgd(0.1, momentum=0.9))
  assert "000020" in str(caught.value)


def test_more_steps_than_asked_for(tmp_path):
  fit(tmp_path)
  with pytest.raises(ValueError, match="a run of 20 steps, more than the 10"):
    fit(tmp_path, steps=10)
  assert int(fit(tmp_path, steps=30).step) == 30


def test_disk_that_fills_up_loses_nothing(tmp_path, monkeypatch):
  save = checkpoint._orbax_save

  def full(path, arrays):
    if "000016" in str(path):
      raise ValueError("No space left on device")
    save(path, arrays)

  with monkeypatch.context() as patch:
    patch.setattr(checkpoint, "_orbax_save", full)
    with pytest.raises(OSError, match="no space is left") as caught:
      fit(tmp_path)
  assert caught.value.errno == errno.ENOSPC
  assert "000016" in str(caught.value)
  tiny.assert_same(fit(tmp_path), by_hand(20)[0])


@pytest.mark.parametrize(
  "name", ["steps", "log_every", "checkpoint_every", "evaluate_every"]
)
def test_counts_must_be_positive(tmp_path, name):
  with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
    fit(tmp_path, **{name: 0})


@pytest.mark.parametrize("window", ["5", "a:b", "6:5", "3:3", "-1:4"])
def test_senseless_profile(tmp_path, window):
  with pytest.raises(ValueError, match="profile must be"):
    fit(tmp_path, profile=window)


def test_profile(tmp_path, monkeypatch):
  events = []
  monkeypatch.setattr(jax.profiler, "start_trace", events.append)
  monkeypatch.setattr(jax.profiler, "stop_trace", lambda: events.append("stop"))
  fit(tmp_path / "a", profile="5:8")
  fit(tmp_path / "b", profile="15:100")
  assert events == [
    str(tmp_path / "a" / "profile"),
    "stop",
    str(tmp_path / "b" / "profile"),
    "stop",
  ]


def test_measures_are_fetched_one_step_late(tmp_path, monkeypatch):
  """The device is given the next step before the host waits for one."""
  order = []
  get = jax.device_get
  monkeypatch.setattr(
    jax, "device_get", lambda x: order.append("fetch") or get(x)
  )
  optimizer = tiny.adam()
  step = tiny.step(optimizer)
  jit = jax.jit

  def watched(function, **options):
    compiled = jit(function, **options)
    if function is not step:
      return compiled
    return lambda *args: order.append("dispatch") or compiled(*args)

  monkeypatch.setattr(jax, "jit", watched)
  training.fit(
    tiny.start(optimizer), step, tiny.Batches(), steps=4, workdir=tmp_path
  )
  assert order[:7] == ["dispatch", *["dispatch", "fetch"] * 3]
