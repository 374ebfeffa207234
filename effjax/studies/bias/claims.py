"""The claims of the bias study, judged by intervals over seeds.

A claim is reproduced if the whole interval lies where the claim says, not
reproduced if it lies wholly outside, inconclusive otherwise.
"""

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
import scipy.stats

from effjax import metrics
from effjax.studies.bias.measures import Outcomes, mean_defined


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
  """How a claim fared.

  Attributes:
    claim: Its number.
    text: What it says.
    quantity: What the estimate measures.
    arm: The arm it is judged on.
    estimate: Mean over seeds.
    low: Lower end of the 95 % interval.
    high: Upper end.
    result: "reproduced", "not reproduced" or "inconclusive".
  """

  claim: str
  text: str
  quantity: str
  arm: str
  estimate: float
  low: float
  high: float
  result: str


def _judge(
  interval: metrics.Interval, below: float | None, above: float | None
):
  low, high = float(interval.low), float(interval.high)
  if np.isnan(low) or np.isnan(high):
    return "inconclusive"
  inside = (below is None or high <= below) and (above is None or low > above)
  outside = (below is not None and low > below) or (
    above is not None and high <= above
  )
  return (
    "reproduced" if inside else "not reproduced" if outside else "inconclusive"
  )


def verdict(
  claim: str,
  text: str,
  quantity: str,
  arm: str,
  interval: metrics.Interval,
  *,
  below: float | None = None,
  above: float | None = None,
) -> Verdict:
  """Judge a claim by an interval.

  Args:
    claim: Its number.
    text: What it says.
    quantity: What the interval is of.
    arm: The arm it is judged on.
    interval: Estimate and ends.
    below: The claim is that the quantity is at most this,
    above: or above this.

  Returns:
    The verdict.
  """
  return Verdict(
    claim=claim,
    text=text,
    quantity=quantity,
    arm=arm,
    estimate=float(interval.estimate),
    low=float(interval.low),
    high=float(interval.high),
    result=_judge(interval, below, above),
  )


def _trend(
  outcomes: Outcomes, arm: str, quantity: str, levels: Sequence[float]
):
  """Spearman's correlation of sparsity and quantity, one a seed."""
  columns = np.stack([outcomes.by_seed(arm, s, quantity) for s in levels], 1)
  with warnings.catch_warnings():
    # A constant row has no ranks; its NaN is left out of the interval.
    warnings.simplefilter("ignore", scipy.stats.ConstantInputWarning)
    return np.array([scipy.stats.spearmanr(levels, row)[0] for row in columns])


def _correlation(interval: metrics.Interval) -> metrics.Interval:
  """Keep an interval of Student's t where a correlation can lie."""
  low, high = (np.clip(x, -1.0, 1.0) for x in (interval.low, interval.high))
  return interval._replace(low=low, high=high)


def judge(
  outcomes: Outcomes, arm: str, *, level: float = 0.95
) -> list[Verdict]:
  """Judge the claims T1 to T6 on one arm.

  Args:
    outcomes: The measured values, with an arm "dense".
    arm: "ri" or "pt".
    level: Coverage of the intervals.

  Returns:
    The verdicts of all claims whose sparsities were run.
  """
  levels = outcomes.sparsities(arm)
  high = [s for s in levels if s >= 0.95]
  verdicts = []

  def add(claim, text, quantity, interval, **bounds):
    verdicts.append(verdict(claim, text, quantity, arm, interval, **bounds))

  paired = lambda a, b: metrics.seed_interval(a, level=level, reference=b)
  plain = lambda a: metrics.seed_interval(a, level=level)
  ranked = lambda a: _correlation(plain(a))
  dense = lambda quantity: outcomes.by_seed("dense", 0.0, quantity)
  for s in (0.8, 0.9):
    if s in levels:
      add(
        "T1",
        f"{s:.0%} sparsity keeps the mean AUC within 0.005 of dense",
        "dense AUC − sparse AUC",
        paired(dense("auc"), outcomes.by_seed(arm, s, "auc")),
        below=0.005,
      )
  if len(high) >= 2:
    span = f"{high[0]:.1%} to {high[-1]:.1%} sparsity"
    for claim, quantity, word in (
      ("T2", "uncertainty", "uncertainty"),
      ("T3", "interdependence", "interdependence"),
    ):
      add(
        claim,
        f"{word} rises from {span}",
        f"Spearman(sparsity, {word})",
        ranked(_trend(outcomes, arm, quantity, high)),
        above=0.0,
      )
    add(
      "T4",
      f"the rare value is predicted ever less from {span}",
      "Spearman(sparsity, threshold calibration bias)",
      ranked(_trend(outcomes, arm, "tcb", high)),
      below=0.0,
    )
  if levels:
    top = levels[-1]
    add(
      "T4",
      f"the rare value is under-predicted at {top:.1%} sparsity",
      "threshold calibration bias − 1",
      plain(outcomes.by_seed(arm, top, "tcb") - 1.0),
      below=0.0,
    )
  for s in (0.98, 0.99):
    if s in levels:
      add(
        "T5",
        f"bias amplification grows at {s:.0%} sparsity",
        "bias amplification, sparse − dense",
        paired(
          outcomes.by_seed(arm, s, "amplification"), dense("amplification")
        ),
        above=0.0,
      )
  for s in [s for s in (0.98, 0.99) if s in levels]:
    before = _distance(outcomes, arm, s, "tcb")
    after = _distance(outcomes, arm, s, "tcb_adjusted")
    add(
      "T6",
      "threshold adjustment at least halves the distance of threshold"
      f" calibration bias from 1 at {s:.0%} sparsity",
      "mean |TCB − 1| after / before",
      plain(
        np.divide(
          after, before, out=np.full_like(after, np.nan), where=before > 0
        )
      ),
      below=0.5,
    )
  return verdicts


def _distance(
  outcomes: Outcomes, arm: str, s: float, quantity: str
) -> np.ndarray:
  """Mean distance from 1 over attributes, one a seed; NaN if undefined."""
  values = outcomes.by_attribute(arm, s, quantity)
  return mean_defined(np.abs(values - 1.0), 1)
