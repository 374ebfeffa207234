import errno
import logging
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax.io import checkpoint, packing
from tests.training import tiny


def everything():
  """A leaf of every kind, one of each large enough to stand by itself."""
  return {
    "mask": {"kernel": jnp.arange(6).reshape(2, 3) % 2 == 0, "bias": None},
    "bf16": jnp.linspace(0, 1, 7, dtype=jnp.bfloat16),
    "key": jax.random.key(3),
    "keys": jax.random.split(jax.random.key(4, impl="rbg"), 3),
    "empty": {},
    "none": jnp.zeros((0, 3)),
    "scalar": jnp.int32(7),
    "host": np.arange(4, dtype=np.int64),
    "number": 3,
    "share": 0.25,
    "adam": optax.adam(0.1).init({"w": jnp.ones((2,))}),
    "list": [jnp.ones((1,)), (jnp.zeros((1,), jnp.uint8),)],
    "large": jnp.arange(300_000, dtype=jnp.float32),
    "large_bf16": jnp.arange(600_000, dtype=jnp.bfloat16),
    "large_mask": jnp.arange(1_100_000) % 3 == 0,
    "large_host": np.arange(200_000),
  }


def test_round_trip(tmp_path):
  tree = everything()
  checkpoint.save(tmp_path / "a" / "b", tree, metadata={"seed": [1, None]})
  loaded = checkpoint.load(tmp_path / "a" / "b", tree)
  assert jax.tree.structure(loaded) == jax.tree.structure(tree)

  def same(x, y):
    assert type(x) is type(y)
    if hasattr(x, "dtype"):
      assert x.dtype == y.dtype
      x, y = tiny.plain((x, y))
    np.testing.assert_array_equal(x, y)

  jax.tree.map(same, tree, loaded)
  assert checkpoint.read_metadata(tmp_path / "a" / "b") == {"seed": [1, None]}
  assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


def test_abstract_leaves(tmp_path):
  tree = {"w": jnp.ones((2, 2)), "key": jax.random.key(0)}
  checkpoint.save(tmp_path / "a", tree)
  abstract = jax.eval_shape(lambda: tree)
  loaded = checkpoint.load(tmp_path / "a", abstract)
  tiny.assert_same(loaded, tree)


def test_loaded_leaves_can_be_donated(tmp_path):
  tree = {str(i): jnp.full((5,), i) for i in range(4)}
  checkpoint.save(tmp_path / "a", tree)
  loaded = checkpoint.load(tmp_path / "a", tree)
  double = jax.jit(lambda t: jax.tree.map(lambda x: 2 * x, t), donate_argnums=0)
  tiny.assert_same(double(loaded), jax.tree.map(lambda x: 2 * x, tree))


@pytest.mark.parametrize(
  ("abstract", "words"),
  [
    ({"w": jnp.ones((2,)), "v": jnp.ones(())}, "no leaf 'v'"),
    ({}, "a leaf 'w' that is not asked for"),
    (
      {"w": jnp.ones((3,))},
      r"'w' is float32\[2\] in it, expected float32\[3\]",
    ),
    ({"w": jnp.ones((2,), jnp.int32)}, "expected int32"),
  ],
)
def test_another_tree_is_refused(tmp_path, abstract, words):
  checkpoint.save(tmp_path / "a", {"w": jnp.ones((2,))})
  with pytest.raises(ValueError, match=words) as caught:
    checkpoint.load(tmp_path / "a", abstract)
  assert str(tmp_path / "a") in str(caught.value)


def test_missing_checkpoint(tmp_path):
  with pytest.raises(FileNotFoundError, match="no checkpoint at"):
    checkpoint.load(tmp_path / "a", {})


def test_paths_that_coincide(tmp_path):
  with pytest.raises(ValueError, match="same path"):
    packing.pack({"a/b": jnp.ones(()), "a": {"b": jnp.ones(())}})


def test_an_intact_checkpoint_is_not_replaced(tmp_path):
  checkpoint.save(tmp_path / "a", {"w": jnp.ones(())})
  with pytest.raises(FileExistsError, match="already"):
    checkpoint.save(tmp_path / "a", {"w": jnp.zeros(())})
  assert checkpoint.load(tmp_path / "a", {"w": jnp.zeros(())})["w"] == 1


def largest_file(path):
  found = (
    p for p in path.rglob("*") if p.is_file() and "manifest.j" not in p.name
  )
  return max(found, key=lambda p: p.stat().st_size)


def truncate(path):
  file = largest_file(path)
  os.truncate(file, file.stat().st_size // 2)
  return file.name


def flip(path):
  file = largest_file(path)
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content)
  return file.name


def lose(path):
  file = largest_file(path)
  file.unlink()
  return file.name


def tear_manifest(path):
  file = path / "manifest.json"
  os.truncate(file, file.stat().st_size - 5)
  return file.name


def edit_manifest(path):
  file = path / "manifest.json"
  file.write_text(file.read_text().replace('"step": 2', '"step": 9'))
  return file.name


def lose_manifest(path):
  (path / "manifest.json").unlink()
  return "manifest.json"


@pytest.mark.parametrize(
  "damage",
  [truncate, flip, lose, tear_manifest, edit_manifest, lose_manifest],
)
def test_damage_is_found_named_and_left_alone(tmp_path, caplog, damage):
  steps = checkpoint.Steps(directory=tmp_path)
  tree = {"w": jax.random.normal(jax.random.key(0), (64, 64))}
  for step in (1, 2):
    steps.save(step, tree, metadata={"step": step})
  name = damage(tmp_path / "000002")
  content = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
  with pytest.raises(checkpoint.CorruptCheckpointError, match=name):
    checkpoint.load(tmp_path / "000002", tree)
  with caplog.at_level(logging.WARNING):
    assert steps.newest() == 1
  assert "000002" in caplog.text
  assert name in caplog.text
  tiny.assert_same(steps.load(1, tree), tree)
  for path, before in content.items():
    assert path.read_bytes() == before
  # The run reaches the step again: its checkpoint takes the name, what was
  # there is kept beside it.
  steps.save(2, tree)
  assert steps.newest() == 2
  aside = tmp_path / "000002.damaged1"
  for path, before in content.items():
    kept = (
      aside / path.relative_to(tmp_path / "000002")
      if (path.is_relative_to(tmp_path / "000002"))
      else path
    )
    assert kept.read_bytes() == before


def test_no_intact_checkpoint_is_an_error(tmp_path):
  steps = checkpoint.Steps(directory=tmp_path)
  assert steps.newest() is None
  steps.save(1, {"w": jnp.ones((8,))})
  truncate(tmp_path / "000001")
  with pytest.raises(ValueError, match="none of the checkpoints") as caught:
    steps.newest()
  assert str(tmp_path) in str(caught.value)
  assert (tmp_path / "000001").is_dir()


def test_keep_counts_intact_ones_only(tmp_path):
  steps = checkpoint.Steps(directory=tmp_path, keep=2)
  tree = {"w": jnp.ones((8,))}
  for step in (1, 2, 3, 4):
    steps.save(step, tree)
  assert steps.all() == [3, 4]
  truncate(tmp_path / "000004")
  steps.save(5, tree)
  assert steps.all() == [3, 4, 5]
  steps.save(6, tree)
  assert steps.all() == [4, 5, 6]
  assert not list(tmp_path.glob("*.tmp"))


def test_a_step_saved_before_is_left_as_it_is(tmp_path):
  steps = checkpoint.Steps(directory=tmp_path)
  steps.save(1, {"w": jnp.ones(())})
  before = (tmp_path / "000001" / "manifest.json").stat().st_mtime_ns
  steps.save(1, {"w": jnp.ones(())})
  after = (tmp_path / "000001" / "manifest.json").stat().st_mtime_ns
  assert before == after


def test_what_a_kill_leaves_is_no_checkpoint(tmp_path):
  steps = checkpoint.Steps(directory=tmp_path)
  steps.save(1, {"w": jnp.ones(())})
  (tmp_path / "000002.tmp" / "arrays").mkdir(parents=True)
  assert steps.newest() == 1
  steps.save(2, {"w": jnp.ones(())})
  assert steps.newest() == 2
  assert not (tmp_path / "000002.tmp").exists()


def test_keep_must_be_positive(tmp_path):
  with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
    checkpoint.Steps(directory=tmp_path, keep=0)


@pytest.mark.parametrize("stage", ["_orbax_save", "os.replace"])
def test_full_disk(tmp_path, monkeypatch, stage):
  steps = checkpoint.Steps(directory=tmp_path)
  steps.save(1, {"w": jnp.ones(())})

  def full(*_):
    if stage == "os.replace":
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

  with monkeypatch.context() as patch:
    if stage == "os.replace":
      patch.setattr(os, "replace", full)
    else:
      patch.setattr(checkpoint, "_orbax_save", full)
    with pytest.raises(OSError, match="no space is left") as caught:
      steps.save(2, {"w": jnp.ones(())})
  assert "000002" in str(caught.value)
  assert sorted(p.name for p in tmp_path.iterdir()) == ["000001"]
  assert steps.newest() == 1


def test_small_states_are_saved_quickly(tmp_path):
  tree = {
    str(i): {"w": jnp.ones((100, 100)), "m": jnp.ones((100, 100), bool)}
    for i in range(20)
  }
  checkpoint.save(tmp_path / "warm", tree)
  seconds = []
  for i in range(5):
    begin = time.process_time()  # the wall clock would tell of the neighbours
    checkpoint.save(tmp_path / str(i), tree)
    seconds.append(time.process_time() - begin)
  # 0.04 s; 40 arrays of their own would take 0.2 s.
  assert min(seconds) < 0.15
  files = [p for p in (tmp_path / "0").rglob("*") if p.is_file()]
  assert len(files) < 15
