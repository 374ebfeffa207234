"""Started by test_sharding.py in a process with eight CPU devices."""

import sys

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from effjax import metrics
from tests.metrics.test_laws import METRICS

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

ROWS, ATTRIBUTES, GROUPS = 12_000, 4, 3
# One for each way of adding up rows.
CHOSEN = (
  "group_auc",
  "calibration_of_groups",
  "group_rates",
  "divergence",
  "entropy",
  "interdependence",
)


def example() -> dict[str, np.ndarray]:
  """Rows for several blocks, some of which do not count."""
  rng = np.random.default_rng(0)
  draw = lambda: rng.normal(0, 2, (ROWS, ATTRIBUTES)).astype(np.float32)
  return {
    "logits": draw(),
    "reference_logits": draw(),
    "labels": rng.random((ROWS, ATTRIBUTES)) < 0.5,
    "groups": rng.random((ROWS, GROUPS)) < 0.5,
    "weights": np.arange(ROWS) % 7 > 0,
  }


def main() -> None:
  assert jax.device_count() == 8
  metric = metrics.collection({name: METRICS[name] for name in CHOSEN})
  arrays = example()
  expected = metrics.compute(metric, **arrays)
  for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    rows = NamedSharding(mesh, PartitionSpec("x"))
    with jax.set_mesh(mesh):
      found = metrics.compute(metric, **jax.device_put(arrays, rows))
    pairs = zip(
      *map(jax.tree_util.tree_leaves_with_path, (found, expected)), strict=True
    )
    for (path, x), (_, y) in pairs:
      name = f"{kind} {jax.tree_util.keystr(path)}"
      tolerance = 1e-5 if np.issubdtype(y.dtype, np.floating) else 0
      np.testing.assert_allclose(x, y, tolerance, tolerance, err_msg=name)
    print("agree", kind)


if __name__ == "__main__":
  sys.exit(main())
