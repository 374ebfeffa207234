"""Started by test_sharding.py in a process with eight CPU devices."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from effjax import adapters
from tests.adapters.draws import close, draw, start

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

PARAMS = {"a": draw(64, 32), "b": draw(32, 64, seed=1)}
MASKS = {"a": draw(64, 32, seed=2) > 1, "b": draw(32, 64, seed=3) > 1}
ROWS, COLUMNS = PartitionSpec("x"), PartitionSpec(None, "x")
TABLE = {
  "lora": adapters.lora(4),
  "dora": adapters.dora(4),
  "rosa": adapters.rosa(4, MASKS),
}


def check(kind: AxisType, specs: tuple, names: tuple) -> None:
  mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
  placed = {
    name: jax.device_put(w, NamedSharding(mesh, spec))
    for (name, w), spec in zip(PARAMS.items(), specs, strict=True)
  }
  arrays = {name: start(TABLE[name], PARAMS) for name in names}

  def step(params, arrays):
    found = {}
    for name, (theta, fixed) in arrays.items():
      apply = TABLE[name].apply

      def loss(theta, apply=apply, fixed=fixed):
        out = apply(params, theta, fixed)
        return sum(jnp.sum(jnp.sin(x)) for x in out.values()), out

      found[name] = jax.grad(loss, has_aux=True)(theta)
    return found

  expected = jax.jit(step)(PARAMS, arrays)
  with jax.set_mesh(mesh):
    found = jax.jit(step)(placed, arrays)
  close(found, expected, rtol=1e-4, atol=1e-5)
  if kind == AxisType.Explicit:
    for _, out in found.values():
      for name, kernel in out.items():
        assert kernel.sharding.is_equivalent_to(placed[name].sharding, 2)
  print("agree", kind, specs)


def main() -> None:
  assert jax.device_count() == 8
  assert np.any(MASKS["a"])
  check(AxisType.Auto, (ROWS, COLUMNS), ("lora", "dora", "rosa"))
  for specs in ((ROWS, COLUMNS), (COLUMNS, ROWS)):
    check(AxisType.Explicit, specs, ("lora", "dora", "rosa"))


if __name__ == "__main__":
  sys.exit(main())
