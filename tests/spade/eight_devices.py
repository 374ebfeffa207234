"""Maps and traces of examples that are spread over eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from effjax import attribution, models, spade

KEY = jax.random.key(0)
SPEC = PartitionSpec("data")


def main():
  model = models.build("cnn", outputs=10)
  x = jax.random.uniform(jax.random.key(1), (8, 28, 28, 1))
  variables = model.init(KEY, x)
  params, target = variables["params"], jnp.arange(8)
  capture = models.capture(model, variables)
  f = lambda params, x: model.apply({"params": params}, x)
  rules = [("conv1/.*", None), (".*", 0.5)]

  def explain(x):
    traced = spade.trace(KEY, capture, params, x, rules, copies=2)
    return {
      "saliency": attribution.saliency(f, params, x, target),
      "integrated gradients": attribution.integrated_gradients(
        f, params, x, target, steps=4
      ),
      "lrp": attribution.lrp(f, params, x, target),
      "trace": traced["head"]["kernel"],
    }

  alone = explain(x)
  for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    run = explain
    if kind == AxisType.Explicit:
      run = jax.sharding.auto_axes(explain, axes="data", out_sharding=SPEC)
    with jax.set_mesh(mesh):
      found = run(jax.device_put(x, NamedSharding(mesh, SPEC)))
    for name, array in found.items():
      np.testing.assert_allclose(array, alone[name], rtol=1e-4, atol=1e-5)
    print(f"{kind.name} axes agree")


if __name__ == "__main__":
  main()
