"""Bootstrap intervals of group rates, areas and calibration errors."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import metrics
from effjax.metrics import resampling
from launch.benchmarks import harness

# So many resamples of a slow peer are timed; the notes say so.
_FEW = 10


def cases(quick: bool) -> list[harness.Case]:
  """Return the comparison of resampled cells with resampled rows.

  Args:
    quick: Use a hundredth of the rows and a tenth of the resamples.

  Returns:
    A case for each metric, for differences between two models, and for draws
    that attributes share.
  """
  rows, attributes = (2_000, 40) if quick else (200_000, 40)
  resamples = 100 if quick else 1000
  rng = np.random.default_rng(0)
  labels = rng.random((rows, attributes)) < 0.3
  logits = rng.normal(size=(rows, attributes)) * 1.5 + 2 * labels - 1
  arrays = {
    "logits": logits.astype(np.float32),
    "labels": labels,
    "groups": rng.random((rows, 4)) < 0.4,
    "reference_logits": logits.astype(np.float32),
  }
  arrays["logits"] = (logits + 0.5 * rng.normal(size=logits.shape)).astype(
    np.float32
  )
  batch = {name: jnp.asarray(x) for name, x in arrays.items()}
  size = f"{rows:,} x {attributes}"
  few = f"peers run {_FEW} resamples: multiply by {resamples // _FEW}"
  rates = metrics.group_rates()
  chosen = {
    "group_rates, 4 overlapping groups": rates,
    "auc": metrics.auc(),
    "calibration_error": metrics.calibration_error(),
    "excess_error of 4 groups": metrics.excess_error(),
    "group_auc, 4 overlapping groups": metrics.group_auc(),
    "calibration_error of 4 groups": metrics.calibration_error(by_group=True),
  }
  dense = {**batch, "logits": batch["reference_logits"]}
  found = [
    harness.Case(
      name=f"bootstrap of {name}, {size}, {resamples} resamples",
      ours=_run(metric, batch, resamples),
      peers={
        f"our rows, {_FEW} resamples": _run(
          metric._replace(cells=None), batch, _FEW
        ),
        **(
          {f"numpy rows, {_FEW} resamples": _numpy_rates(arrays)}
          if metric is rates
          else {}
        ),
      },
      note=few,
    )
    for name, metric in chosen.items()
  ]
  pairs = [
    harness.Case(
      name=f"bootstrap of the difference of {name} between two models, {size},"
      f" {resamples} resamples",
      ours=_run(chosen[name], batch, resamples, paired=dense),
      peers={
        f"our rows, {_FEW} resamples": _run(
          chosen[name]._replace(cells=None), batch, _FEW, paired=dense
        )
      },
      note=few,
    )
    for name in ("auc", "calibration_error")
  ]
  shared = harness.Case(
    name=f"bootstrap of group_rates, rows shared by all attributes, {size},"
    f" {resamples} resamples",
    ours=_run(rates, batch, resamples, joint=True),
    peers={
      f"our rows, {_FEW} resamples": _run(
        rates._replace(cells=None), batch, _FEW
      )
    },
    note=few,
  )
  return [*found, *pairs, shared]


def _run(
  metric: metrics.Metric, batch: dict[str, Any], resamples: int, **options: Any
) -> Callable[[], Any]:
  def run():
    return jax.block_until_ready(
      resampling.bootstrap(
        jax.random.key(0), metric, batch, resamples, **options
      )
    )

  return run


def _numpy_rates(arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
  """Resamples rows and counts them by products of float32 matrices."""
  predicted = arrays["logits"] > 0
  labels, groups = arrays["labels"], arrays["groups"]
  parts = (predicted & labels, predicted, labels)
  columns = np.concatenate(parts, axis=1).astype(np.float32)
  left = np.concatenate([groups, np.ones((len(groups), 1), bool)], axis=1)

  def run():
    rng = np.random.default_rng(0)
    tpr = []
    for _ in range(_FEW):
      chosen = rng.integers(0, len(labels), len(labels))
      times = np.bincount(chosen, minlength=len(labels)).astype(np.float32)
      counts = (left * times[:, None]).T @ columns
      both, _, positive = np.split(counts, 3, axis=1)
      tpr.append(both / positive)
    return np.quantile(tpr, [0.025, 0.975], axis=0)

  return run
