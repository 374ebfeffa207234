"""Started by test_sharding.py in a process with eight CPU devices."""

import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from effjax import pruning

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def weights() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  # Rounded values tie across leaves and shards.
  return {"a": draw(64, 32).round(1), "b": draw(32, 64), "c": draw(64, 8)}


def place(kind: AxisType, specs: tuple) -> tuple[jax.sharding.Mesh, dict]:
  mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
  put = lambda w, spec: jax.device_put(w, NamedSharding(mesh, spec))
  leaves = zip(weights().items(), specs, strict=True)
  return mesh, {name: put(w, spec) for (name, w), spec in leaves}


TRANSFORMS = {
  "global_topk": lambda p: pruning.global_topk(pruning.magnitude(p), 0.7),
  "global_reference": lambda p: pruning.global_topk(
    pruning.magnitude(p), 0.7, convention="reference"
  ),
  "topk": lambda p: pruning.topk(pruning.magnitude(p), 0.7),
  "topk_of_columns": lambda p: pruning.topk(p, 0.7, axis=0),
  "topk_of_rows": lambda p: pruning.topk(p, 0.7, axis=1),
  "n_m": lambda p: pruning.n_m(pruning.magnitude(p), 2, 4),
  # Sums of signs are the same in any order.
  "channels": lambda p: pruning.channels(jax.tree.map(jnp.sign, p), 0.5),
  "random": lambda p: pruning.random(jax.random.key(0), p),
}
ROWS, COLUMNS = PartitionSpec("x"), PartitionSpec(None, "x")
WHOLE = PartitionSpec()


def check_masks(kind: AxisType, specs: tuple) -> None:
  plain = weights()
  mesh, placed = place(kind, specs)
  for name, transform in TRANSFORMS.items():
    expected = transform(plain)
    with jax.set_mesh(mesh):
      program = jax.jit(transform).lower(placed).compile()
      got = program(placed)
    text = program.as_text()
    for leaf, mask in expected.items():
      np.testing.assert_array_equal(got[leaf], mask, err_msg=f"{name} {leaf}")
    assert "all-gather" not in text, f"{name} gathers, {kind} {specs}"
    if name == "topk":
      with jax.set_mesh(mesh):
        packed = pruning.pack(got)
      for leaf, bits in pruning.pack(expected).items():
        np.testing.assert_array_equal(packed[leaf], bits)


UPDATES = {
  "prune": pruning.prune(pruning.from_table([0, 1], [0.4, 0.7])),
  "dynamic": pruning.dynamic(
    jax.random.key(0), pruning.constant(0.7, 0, 1, 1), grow="random"
  ),
}


def check_update(kind: AxisType, specs: tuple, last: str) -> None:
  plain = weights()
  optimizer = optax.chain(optax.adamw(1e-2), UPDATES[last])

  def two_steps(params):
    state = optimizer.init(params)
    for _ in range(2):
      grads = jax.tree.map(jnp.sin, params)
      with jax.numpy_dtype_promotion("standard"):
        updates, state = optimizer.update(grads, state, params)
      params = optax.apply_updates(params, updates)
    return params, optax.tree.get(state, "mask")

  expected, masks = jax.jit(two_steps)(plain)
  mesh, placed = place(kind, specs)
  with jax.set_mesh(mesh):
    program = jax.jit(two_steps).lower(placed).compile()
    got, got_masks = program(placed)
  text = program.as_text()
  for leaf, mask in masks.items():
    np.testing.assert_array_equal(got_masks[leaf], mask)
    np.testing.assert_allclose(got[leaf], expected[leaf], rtol=1e-5, atol=1e-7)
    assert not np.any(np.asarray(got[leaf])[~np.asarray(mask)])
    assert got[leaf].sharding.is_equivalent_to(placed[leaf].sharding, 2)
  assert "all-gather" not in text, f"{last} gathers, {kind} {specs}"


def main(whole: bool) -> None:
  """Check every kind of axis with every layout, or each of them once."""
  assert jax.device_count() == 8
  layouts = ((ROWS, COLUMNS, WHOLE), (COLUMNS, ROWS, ROWS))
  kinds = (AxisType.Explicit, AxisType.Auto)
  pairs = (
    itertools.product(kinds, layouts)
    if whole
    else zip(kinds, layouts, strict=True)
  )
  for kind, specs in pairs:
    check_masks(kind, specs)
    check_update(kind, specs, "prune")
    if kind == AxisType.Explicit and specs == layouts[0]:
      check_update(kind, specs, "dynamic")
    print("agree", kind, specs)


if __name__ == "__main__":
  sys.exit(main("whole" in sys.argv[1:]))
