"""Rates of overlapping groups, from decisions and from logits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import metrics
from launch.benchmarks import harness

ATTRIBUTES, GROUPS = 40, 4


def _batch(rows: int) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  logits = rng.normal(-1, 1, (rows, ATTRIBUTES)).astype(np.float32)
  return {
    "logits": logits,
    "predictions": logits > 0,
    "labels": rng.random((rows, ATTRIBUTES)) < 0.2,
    "groups": rng.random((rows, GROUPS)) < 0.5,
  }


def cases(quick: bool) -> list[harness.Case]:
  """Return the comparison of group rates.

  Args:
    quick: Use 20,000 rows in place of 200,000.

  Returns:
    All rates from decisions, beside NumPy and fairlearn; and an update of a
    running state from logits.
  """
  rows = 20_000 if quick else 200_000
  batch = _batch(rows)
  device = {name: jnp.asarray(x) for name, x in batch.items()}
  decided = {n: x for n, x in device.items() if n != "logits"}
  scored = {n: x for n, x in device.items() if n != "predictions"}
  metric = metrics.group_rates()
  state = metrics.start(metric, **scored)
  update = jax.jit(lambda state, batch: metric.update(state, **batch))

  def ours() -> Any:
    return jax.block_until_ready(metrics.compute(metric, **decided))

  def stream() -> Any:
    return jax.block_until_ready(update(state, scored))

  rates = ours()
  cells = np.stack([rates.tp, rates.fp, rates.tn, rates.fn])
  peers = {
    "numpy loop over groups and attributes": lambda: _loop(batch),
    "numpy float32 products": lambda: _products(batch),
    "numpy packed bits": lambda: _packed(batch),
  }
  for name, run in peers.items():
    if not np.array_equal(run(), cells):
      raise AssertionError(f"{name} counts otherwise.")
  size = f"{rows:,} rows x {ATTRIBUTES} attributes"
  return [
    harness.Case(
      name=f"group_rates, {size} x {GROUPS} overlapping groups",
      ours=ours,
      peers={**peers, **_fairlearn(batch)},
      limit=_limit(decided),
      note="ours are twelve rates with those of everyone, the NumPy peers only"
      " the four counts, all equal; fairlearn has three rates of ONE attribute"
      " in ONE group and its complement",
    ),
    harness.Case(
      name=f"update of group_rates from logits, {size}",
      ours=stream,
      peers={"numpy packed bits": lambda: _packed_logits(batch)},
      limit=_limit(scored),
      note="ours also counts NaN logits",
    ),
  ]


def _limit(batch: dict[str, Any]) -> str:
  size = sum(x.nbytes for x in batch.values())
  return f"reading the batch once, {size / 1e6:.1f} MB"


def _loop(batch: dict[str, np.ndarray]) -> np.ndarray:
  """Count TP, FP, TN, FN, [4, G, A]."""
  counts = np.zeros((4, GROUPS, ATTRIBUTES), int)
  for g in range(GROUPS):
    members = batch["groups"][:, g]
    for a in range(ATTRIBUTES):
      p = batch["predictions"][members, a]
      y = batch["labels"][members, a]
      counts[:, g, a] = [
        np.count_nonzero(x) for x in (p & y, p & ~y, ~p & ~y, ~p & y)
      ]
  return counts


def _cells(both, predicted, labelled, members) -> np.ndarray:
  fp, fn = predicted - both, labelled - both
  return np.stack([both, fp, members[:, None] - labelled - fp, fn])


def _products(batch: dict[str, np.ndarray]) -> np.ndarray:
  p, y = batch["predictions"], batch["labels"]
  left = batch["groups"].astype(np.float32).T
  sums = [left @ x.astype(np.float32) for x in (p & y, p, y)]
  both, predicted, labelled = sums
  return _cells(both, predicted, labelled, left.sum(axis=1)).astype(int)


def _packed(
  batch: dict[str, np.ndarray], predictions: np.ndarray | None = None
) -> np.ndarray:
  """The fastest that was found: 8 rows to a byte, contiguous operands."""
  if predictions is None:
    predictions = batch["predictions"]
  g, p, y = map(_pack, (batch["groups"], predictions, batch["labels"]))
  sums = np.empty((3, GROUPS, ATTRIBUTES), int)
  for i, x in enumerate((p & y, p, y)):
    for j in range(GROUPS):
      bits = np.bitwise_count(x & g[:, j, None])
      sums[i, j] = bits.sum(axis=0, dtype=np.int32)
  both, predicted, labelled = sums
  members = np.count_nonzero(batch["groups"], axis=0)
  return _cells(both, predicted, labelled, members)


def _packed_logits(batch: dict[str, np.ndarray]) -> np.ndarray:
  return _packed(batch, batch["logits"] > 0)


def _pack(columns: np.ndarray) -> np.ndarray:
  rows, width = columns.shape
  columns = np.pad(columns, ((0, -rows % 8), (0, 0))) if rows % 8 else columns
  slices = columns.view(np.uint8).reshape(8, -1)
  packed = slices[0].copy()
  for bit in range(1, 8):
    packed |= slices[bit] << np.uint8(bit)
  return packed.reshape(-1, width)


def _fairlearn(batch: dict[str, np.ndarray]) -> dict[str, Any]:
  try:
    import fairlearn.metrics as fair
  except ModuleNotFoundError:
    return {}

  def one_attribute():
    return fair.MetricFrame(
      metrics={
        "tpr": fair.true_positive_rate,
        "fpr": fair.false_positive_rate,
        "selection_rate": fair.selection_rate,
      },
      y_true=batch["labels"][:, 0],
      y_pred=batch["predictions"][:, 0],
      sensitive_features=batch["groups"][:, 0],
    ).by_group

  return {"fairlearn MetricFrame, ONE attribute": one_attribute}
