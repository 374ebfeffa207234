"""Checks on eight CPU devices: python -m tests.training.eight_devices WORKDIR.

Run by test_mesh.py in a process of its own, since the number of devices is
fixed when JAX starts.
"""

import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from effjax import training
from effjax.io import checkpoint
from effjax.training import mesh as meshes
from tests.training import tiny


def optimizer():
  return tiny.masked()


def wide():
  """A state whose kernels are large enough to be split by "fsdp"."""
  params = {
    "a": {"kernel": jnp.ones((8, 256)), "bias": jnp.ones((256,))},
    "b": {"kernel": jnp.ones((256, 12)), "odd": jnp.ones((35, 35))},
  }
  return training.create(jax.random.key(0), params, optimizer())


def specs(state, mesh, rules):
  return jax.tree.map(lambda s: s.spec, meshes.shardings(state, mesh, rules))


def check_meshes():
  mesh = meshes.from_config("auto")
  assert dict(mesh.shape) == {"data": 8}
  mesh = meshes.from_config({"data": -1, "model": 2})
  assert dict(mesh.shape) == {"data": 4, "model": 2}
  assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)
  assert meshes.describe(mesh) == "8 cpu devices, mesh data=4 model=2"
  mesh = meshes.from_config({"data": 2}, devices=jax.devices()[:2])
  assert meshes.describe(mesh) == "2 cpu devices, mesh data=2"


def check_policies():
  mesh, state = meshes.from_config(), wide()
  for policy in ("replicated", "data"):
    found = specs(state, mesh, policy)
    assert set(jax.tree.leaves(found, is_leaf=meshes._is_spec)) == {P()}
  found = specs(state, mesh, "fsdp")
  assert found.params == {
    "a": {"kernel": P(None, "data"), "bias": P()},
    "b": {"kernel": P("data"), "odd": P()},
  }
  moments = found.opt_state[0][0].mu
  assert moments == found.params
  masks = found.opt_state[1].mask
  assert masks["a"] == {"kernel": P(None, "data"), "bias": None}
  placed = meshes.shard(state, mesh, "fsdp")
  kernel = placed.opt_state[0][0].mu["a"]["kernel"]
  assert kernel.addressable_shards[0].data.shape == (8, 32)
  assert meshes.batch_sharding(mesh, "replicated").spec == P()
  assert meshes.batch_sharding(mesh, "fsdp").spec == P("data")


def check_rules():
  mesh, state = meshes.from_config({"data": 4, "model": 2}), wide()
  rules = [
    ("b/kernel", P(("data", "model"), None)),
    (".*/kernel", P(None, "model")),
    (".*", P()),
  ]
  found = specs(state, mesh, rules)
  assert found.params["b"]["kernel"] == P(("data", "model"), None)
  assert found.params["a"]["kernel"] == P(None, "model")
  assert found.opt_state[0][0].nu["a"]["kernel"] == P(None, "model")
  for wrong, words in (
    ([("a/.*", P())], "no rule covers the leaf 'b/kernel'"),
    ([(".*", P("modl"))], "did you mean 'model'"),
    ([("b/odd", P("data")), (".*", P())], "splits 35 rows of the leaf 'b/odd'"),
    ([("a/bias", P(None, "data")), (".*", P())], "more entries than"),
    ([(".*", "data")], "expected a PartitionSpec"),
    ("fsdpp", "did you mean 'fsdp'"),
  ):
    refused(lambda wrong=wrong: meshes.shardings(state, mesh, wrong), words)
  refused(lambda: meshes.from_config({"data": 3}), "there are 8")
  refused(lambda: meshes.from_config({"data": -1, "model": -1}), "at most one")
  refused(lambda: meshes.from_config("data"), 'must be "auto"')
  sharding = meshes.batch_sharding(mesh)
  batch = {"x": np.ones((6, 2))}
  refused(lambda: meshes.place_batch(batch, sharding), "batch of 6 in 'x'")


def refused(call, words):
  with pytest.raises(ValueError, match=re.escape(words)):
    call()


def fit(workdir, **options):
  return training.fit(
    tiny.start(optimizer()),
    tiny.step(optimizer()),
    tiny.Batches(),
    **{"steps": 12, "log_every": 4, "workdir": workdir} | options,
  )


def close(a, b):
  """Equal up to rounding; the sums of a batch are made in another order."""

  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-6),
    tiny.plain(a),
    tiny.plain(b),
  )


def check_training(workdir):
  alone = fit(workdir / "alone")
  rules = {
    "replicated": ("auto", "replicated"),
    "data": ("auto", "data"),
    "fsdp": ("auto", "fsdp"),
    "model": (
      {"data": 2, "model": 4},
      [
        ("a/kernel", P(None, "model")),
        ("a/bias", P("model")),
        ("b/kernel", P("model")),
      ],
    ),
  }
  for name, (axes, rule) in rules.items():
    mesh = meshes.from_config(axes)
    options = {"mesh": mesh, "rules": rule, "workdir": workdir / name}
    if name == "model":  # goes on from a checkpoint that was sharded
      fit(**options | {"steps": 6})
    state = fit(**options)
    close(alone, state)
    wanted = meshes.shardings(state, mesh, rule)
    same = lambda x, s: x.sharding.is_equivalent_to(s, x.ndim)
    assert all(jax.tree.leaves(jax.tree.map(same, state, wanted))), name
  assert [x["step"] for x in tiny.lines(workdir / "model")] == [4, 6, 8, 12]
  # A checkpoint may be loaded onto another mesh, or onto none.
  path = workdir / "model" / "checkpoints" / "000012"
  close(alone, checkpoint.load(path, tiny.start(optimizer())))


def check_large_leaves(workdir):
  """Leaves that orbax stores by themselves, sharded and resharded."""
  mesh = meshes.from_config({"data": 4, "model": 2})
  across = jax.NamedSharding(mesh, P("data", "model"))
  along = jax.NamedSharding(mesh, P(None, "data"))
  values = jnp.arange(2**20, dtype=jnp.float32).reshape(1024, 1024)
  tree = {"w": jax.device_put(values, across)}
  checkpoint.save(workdir / "large", tree)
  for sharding in (across, along):
    abstract = jax.ShapeDtypeStruct(
      values.shape, values.dtype, sharding=sharding
    )
    loaded = checkpoint.load(workdir / "large", {"w": abstract})["w"]
    assert loaded.sharding.is_equivalent_to(sharding, 2)
    np.testing.assert_array_equal(loaded, values)


def check_members(workdir):
  """A population whose members lie on different devices."""
  starts = [tiny.start(optimizer(), seed) for seed in range(8)]
  batches = tiny.Stacked([tiny.Batches(seed) for seed in range(8)])
  step = training.population(tiny.step(optimizer()), "vmap")
  run = lambda name, **options: training.fit(
    training.stack(starts),
    step,
    batches,
    steps=4,
    log_every=2,
    workdir=workdir / name,
    **options,
  )
  spread = run("spread", mesh=meshes.from_config(), rules="members")
  assert spread.params["a"]["kernel"].sharding.spec == P("data")
  close(run("together"), spread)


def main(workdir):
  assert jax.device_count() == 8
  check_meshes()
  check_policies()
  check_rules()
  check_training(workdir)
  check_large_leaves(workdir)
  check_members(workdir)
  print("eight devices: all checks passed")


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))
