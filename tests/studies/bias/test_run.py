"""The study from the command line: to the end, killed, misspelt."""

import json
import math
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from effjax.data import celeba, celeba_example
from launch import run
from tests.studies.bias import tiny

pytest.importorskip("jinja2")
ROOT = pathlib.Path(__file__).parents[3]
# Programs that run for a second need not be compiled for speed.
ENVIRONMENT = os.environ | {
  "JAX_PLATFORMS": "cpu",
  "XLA_FLAGS": "--xla_backend_optimization_level=0"
  " --xla_llvm_disable_expensive_passes=true",
}
TIMEOUT = 500
pytestmark = pytest.mark.timeout(600)  # seconds, where others are at work
FASHION = (
  "--config=configs/bias/fashion.py:quick,seeds=2,sparsities=0.9",
  "--config.data.validation=60",
  "--config.model.options.features=4,8",
  "--config.model.options.hidden=16",
  "--config.training.batch_size=32",
  "--config.training.eval_batch_size=64",
  "--config.training.warmup_epochs=0",
  "--config.training.epochs=2",
  "--config.training.epochs_pt=1",
  "--config.training.pruning.ri.end=1.5",
  "--config.training.pruning.pt.end=0.5",
)
# The small network has so many weights that can be pruned.
WEIGHTS = 9 * 4 + 9 * 4 * 8 + 7 * 7 * 8 * 16 + 16 * 22


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("fashion")
  tiny.write(folder)
  (folder / "cache").mkdir(mode=0o700)
  return folder


def begin(folder, workdir):
  command = (
    *(sys.executable, "-m", "tests.studies.bias.tiny", str(folder)),
    *(*FASHION, f"--workdir={workdir}"),
    # Compiled once, so that runs that are killed and resumed are quick.
    f"--jax_cache_dir={folder / 'cache'}",
  )
  return subprocess.Popen(
    command,
    cwd=ROOT,
    env=ENVIRONMENT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def wait(process):
  """Wait for the end of a process, or make an end of it."""
  try:
    return process.communicate(timeout=TIMEOUT)[0]
  finally:
    process.kill()
    process.wait()


def end(process):
  output = wait(process)
  assert process.returncode == 0, output
  return output


def result(workdir):
  """What a run must reproduce: all but times and environment."""
  content = json.loads((workdir / "results.json").read_text())
  timed = ("seconds", "environment")
  logits = {}
  for stage in ("main", "base", "pt"):
    with np.load(workdir / stage / "predictions.npz") as saved:
      logits[stage] = {k: saved[k].tobytes() for k in saved}
  return {k: v for k, v in content.items() if k not in timed}, logits


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("finished") / "run"
  return workdir, end(begin(folder, workdir))


def test_results_of_fashion(finished):
  workdir, output = finished
  assert f"report: {workdir / 'report.html'}" in output
  assert "data:image/png" in (workdir / "report.html").read_text()
  results = json.loads((workdir / "results.json").read_text())
  runs = [(r["arm"], r["sparsity"], r["seed"]) for r in results["runs"]]
  arms = [("dense", 0.0), ("ri", 0.9), ("base", 0.0), ("pt", 0.9)]
  assert runs == [(*arm, seed) for arm in arms for seed in (0, 1)]
  reached = math.floor(0.9 * WEIGHTS + 0.5) / WEIGHTS
  for r in results["runs"]:
    expected = reached if r["sparsity"] else 0.0
    assert r["achieved_sparsity"] == pytest.approx(expected, rel=1e-6)
    assert 0.0 <= r["mean"]["accuracy"] <= 1.0
  rows = [(row["arm"], row["sparsity"]) for row in results["table"]]
  assert rows == [("dense", 0.0), ("ri", 0.9), ("pt", 0.9)]
  assert results["sizes"] == {"train": 240, "validation": 60, "test": 120}
  assert results["epochs"] == {"dense": 2, "base": 1, "ri": 2, "pt": 1}
  assert {v["claim"] for v in results["verdicts"]} == {"T1", "T4", "T8"}
  assert {v["arm"] for v in results["verdicts"]} == {"ri", "pt"}
  lines = (workdir / "main" / "metrics.jsonl").read_text().splitlines()
  assert json.loads(lines[-1])["step"] == 14


def kill(folder, workdir, stage, lines, delay):
  """Kill a run when a stage has written so many lines; tell whether it was."""
  process = begin(folder, workdir)
  path = workdir / stage / "metrics.jsonl"
  limit = time.monotonic() + TIMEOUT
  while process.poll() is None and time.monotonic() < limit:
    if path.exists() and path.read_bytes().count(b"\n") >= lines:
      break
    time.sleep(0.002)
  time.sleep(delay)
  process.kill()
  output = wait(process)
  assert process.returncode in (0, -signal.SIGKILL), output
  return process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_killed_and_resumed(folder, finished, tmp_path):
  workdir = tmp_path / "run"
  assert kill(folder, workdir, "main", 9, 0.05)
  assert not (workdir / "results.json").exists()
  assert "main: goes on from step 7" in end(begin(folder, workdir))
  assert result(workdir) == result(finished[0])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_often(folder, finished, tmp_path, seed):
  workdir, rng = tmp_path / "run", random.Random(seed)
  stages = [("main", 14), ("base", 7), ("pt", 7)]
  killed = 0
  for stage, most in stages:
    moment = rng.randint(1, most), rng.uniform(0.0, 0.3)
    killed += kill(folder, workdir, stage, *moment)
  end(begin(folder, workdir))
  assert killed >= 1
  assert result(workdir) == result(finished[0])


@pytest.mark.parametrize(
  ("change", "messages"),
  [
    (["--config.training.epoch=3"], ["training.epoch", "training.epochs"]),
    (["--config.trainin.epochs=3"], ["trainin.epochs", "training.epochs"]),
    (["--config.seeds=a"], ["config.seeds", "not a whole number"]),
    (["--config.data.name=fashion"], ["'fashion'", "fashion_mnist"]),
    (["--config.model.name=cn"], ["no model 'cn'", "cnn"]),
    (["--config.training.optimizer=adamv"], ["'adamv'", "adamw"]),
    (["--config.training.pruning.score=size"], ["no score 'size'"]),
    (["--config.training.pruning.mask=globl"], ["'globl'", "global"]),
    (["--config.training.epochs_pt=2"], ["epochs_pt", "not 2"]),
    (["--config.sparsities=0.9,1.5"], ["1.5", "[0, 1]"]),
  ],
)
def test_a_users_mistake_is_one_sentence(
  folder, tmp_path, monkeypatch, capsys, change, messages
):
  monkeypatch.chdir(ROOT)
  monkeypatch.setitem(
    tiny.registry.SOURCES, "fashion_mnist", tiny.declared(folder)
  )
  arguments = [
    *FASHION,
    f"--config.data.directory={folder}",
    f"--workdir={tmp_path / 'run'}",
  ]
  assert run.main([*arguments, *change]) == 2
  error = capsys.readouterr().err
  for message in messages:
    assert message in error
  assert "Traceback" not in error
  assert not (tmp_path / "run" / "results.json").exists()


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
  pytest.importorskip("PIL")
  folder = tmp_path_factory.mktemp("celeba")
  celeba_example.write(jax.random.key(0), folder, 40)
  return folder


def rename_an_attribute(folder):
  path = folder / celeba.ATTRIBUTE_LIST
  path.write_text(path.read_text().replace(" Bald ", " Bold "))


def cut_a_list(folder):
  path = folder / celeba.ATTRIBUTE_LIST
  path.write_bytes(path.read_bytes()[:-800])


def cut_pictures(folder):
  # The training pictures, so that the first batch meets one.
  for number in range(1, 41):
    path = folder / celeba.FOLDER / f"{number:06d}.jpg"
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (shutil.rmtree, "does not exist"),
    (rename_an_attribute, "has 'Bold' where 'Bald' is expected"),
    (cut_a_list, "it is truncated or was edited"),
    (cut_pictures, ".jpg cannot be read (Truncated File Read)"),
  ],
)
def test_damage_of_celeba_is_told(
  faces, tmp_path, monkeypatch, capsys, damage, message
):
  monkeypatch.chdir(ROOT)
  folder = tmp_path / "celeba"
  shutil.copytree(faces, folder)
  damage(folder)
  status = run.main(
    [
      "--config=configs/bias/celeba_resnet18.py:quick,size=16",
      "--config.model.options.stage_sizes=1",
      "--config.model.options.width=2",
      f"--config.data.directory={folder}",
      f"--workdir={tmp_path / 'run'}",
    ]
  )
  assert status == 2
  error = capsys.readouterr().err
  assert message in error
  assert str(folder) in error
  assert "Traceback" not in error


def test_damage_of_an_archive_is_told(folder, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  declared = tiny.declared(folder)
  monkeypatch.setitem(tiny.registry.SOURCES, "fashion_mnist", declared)
  copied = tmp_path / "data"
  shutil.copytree(folder, copied)
  damaged = sorted(copied.rglob("*train-images*"))[0]
  content = bytearray(damaged.read_bytes())
  content[len(content) // 2] ^= 1
  damaged.write_bytes(content)
  arguments = [f"--config.data.directory={copied}"]
  arguments.append(f"--workdir={tmp_path / 'run'}")
  assert run.main([*FASHION, *arguments]) == 2
  error = capsys.readouterr().err
  assert damaged.name in error
  assert "truncated or damaged" in error
  assert "Traceback" not in error
  assert damaged.read_bytes() == content  # it is not overwritten


def run_celeba(config, faces, workdir, *overrides):
  command = (
    *(sys.executable, "-m", "launch.run"),
    f"--config=configs/bias/{config}",
    f"--config.data.directory={faces}",
    f"--workdir={workdir}",
    *overrides,
  )
  process = subprocess.Popen(
    command,
    cwd=ROOT,
    env=ENVIRONMENT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  end(process)
  results = json.loads((workdir / "results.json").read_text())
  runs = [(r["arm"], r["sparsity"], r["seed"]) for r in results["runs"]]
  assert runs[:4] == [
    ("dense", 0.0, 23),
    ("ri", 0.9, 23),
    ("base", 0.0, 22),
    ("pt", 0.9, 23),
  ]
  reached = [r["achieved_sparsity"] for r in results["runs"][:4]]
  np.testing.assert_allclose(reached, [0, 0.9, 0, 0.9], atol=0.01)
  assert reached[1] > 0.899
  assert len(results["attributes"]) == 40
  assert results["seeds"] == [23]
  assert (workdir / "report.html").exists()
  return results


@pytest.mark.slow
def test_celeba_from_end_to_end(faces, tmp_path):
  arguments = (
    "--config.model.options.stage_sizes=1",
    "--config.model.options.width=4",
    "--config.training.epochs=2",
    "--config.training.epochs_base=2",
    "--config.training.pruning.ri.end=1",
  )
  results = run_celeba(
    "celeba_resnet50.py:quick,size=24", faces, tmp_path / "run", *arguments
  )
  assert results["learning_rates"]["pt"] == 1e-4
  # No mark is planted, so there is nothing to amplify.
  assert all(r["mean"]["backdoor"] is None for r in results["runs"])
  names = {p.parent.name for p in tmp_path.glob("run/*/*/predictions.npz")}
  assert names == {
    "dense-0-23-0.032",
    "ri-0.9-23-0.032",
    "base-0-22-0.032",
    "pt-0.9-23-0.0001",
  }
  page = (tmp_path / "run/report.html").read_text()
  assert "for another 2 after 2 dense ones" in page
  assert "stand in for social attributes" not in page
  assert "data:image/png" not in page  # its pictures may not be shown


@pytest.mark.slow
@pytest.mark.parametrize(
  "config", ["celeba_resnet18.py", "celeba_resnet50.py", "celeba_mobilenet.py"]
)
def test_celeba_quick(config, faces, tmp_path):
  run_celeba(f"{config}:quick", faces, tmp_path / "run")


@pytest.mark.slow
def test_celeba_backdoor_and_models_of_one_label(faces, tmp_path):
  results = run_celeba(
    "celeba_mobilenet.py:quick,size=32,backdoor=Smiling,single",
    faces,
    tmp_path / "run",
  )
  assert results["marked"] == {"mark_square": "Smiling"}
  alone = [r for r in results["runs"] if r["arm"] == "single"]
  assert [r["sparsity"] for r in alone] == [0.0, 0.9]
  assert [row["sparsity"] for row in results["one_or_many"]] == [0.0, 0.9]
