"""What edits of a language model show: a row for every method."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effjax import metrics

MEASURES = (
  "efficacy",
  "likeliest",
  "paraphrases",
  "paraphrases_likeliest",
  "neighbours",
  "neighbours_kept",
  "perplexity",
  "norm",
  "rank",
  "seconds",
)
_SCORED = ("efficacy", "paraphrases", "neighbours")
_RESAMPLES = 2000


def choose(
  rates: Sequence[float], cases: Sequence[Sequence[Mapping[str, Any]]]
) -> float:
  """Choose the learning rate of the highest score, the lower of equals.

  Args:
    rates: Learning rates.
    cases: Of each rate, the facts that choose.

  Returns:
    The rate.
  """
  scores = [score(each) for each in cases]
  return min(
    zip(rates, scores, strict=True), key=lambda both: (-both[1], both[0])
  )[0]


def score(cases: Sequence[Mapping[str, Any]]) -> float:
  """Return the harmonic mean of efficacy, paraphrases and neighbours.

  That of CounterFact (Meng et al., arXiv 2202.05262, section 3.4), over means
  of facts; an edit that failed counts as one that did nothing.

  Args:
    cases: Facts edited by one method.

  Returns:
    The score, from 0 to 1.

  >>> fact = {"efficacy": 1.0, "paraphrases": 0.5, "neighbours": 0.5}
  >>> round(score([fact]), 3)
  0.6
  """
  return float(_harmonic(_scored(cases).mean(1)[:, None])[0])


def rates(
  tried: Mapping[str, Sequence[float]],
  cases: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
) -> dict[str, list[dict[str, float]]]:
  """List the score of every learning rate, by method."""
  return {
    method: [
      {"rate": rate, "score": score(each)}
      for rate, each in zip(tried[method], own, strict=True)
    ]
    for method, own in cases.items()
  }


def gather(
  methods: Sequence[str], cases: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
  """Sum cases up by method.

  Args:
    methods: The methods.
    cases: Of all facts and methods.

  Returns:
    `table`, a row for each method, `differences` of scores between each two,
    paired by fact, `runs`, the cases, and `failed`, how many.
  """
  own = {m: [c for c in cases if c["method"] == m] for m in methods}
  count = len(own[methods[0]])
  # The same resamples of facts for all methods pair their differences.
  draws = np.random.default_rng(0).integers(0, count, (_RESAMPLES, count))
  samples = {m: _harmonic(_scored(own[m])[:, draws].mean(-1)) for m in methods}
  table = []
  for method in methods:
    done = [case for case in own[method] if "failed" not in case]
    table.append(
      {
        "method": method,
        "failed": len(own[method]) - len(done),
        "score": _percentiles(score(own[method]), samples[method]),
        **{name: _interval([case[name] for case in done]) for name in MEASURES},
      }
    )
  differences = [
    {
      "method": a,
      "than": b,
      "score": _percentiles(
        score(own[a]) - score(own[b]), samples[a] - samples[b]
      ),
    }
    for i, a in enumerate(methods)
    for b in methods[i + 1 :]
  ]
  return {
    "table": table,
    "differences": differences,
    "runs": list(cases),
    "failed": sum("failed" in case for case in cases),
  }


def _scored(cases: Sequence[Mapping[str, Any]]) -> np.ndarray:
  """Return what is scored [3, N]; what failed left everything as it was."""
  before = {"efficacy": 0.0, "paraphrases": 0.0, "neighbours": 1.0}
  value = lambda case, name: before[name] if "failed" in case else case[name]
  found = [[value(case, name) for case in cases] for name in _SCORED]
  return np.array(found, np.float64)


def _harmonic(means: np.ndarray) -> np.ndarray:
  """Return the harmonic mean over the first axis, 0 if one of them is 0."""
  some = (means > 0).all(0)
  inverse = (1 / np.where(means > 0, means, 1)).mean(0)
  return np.where(some, 1 / inverse, 0.0)


def _percentiles(estimate: float, samples: np.ndarray) -> dict[str, float]:
  low, high = np.quantile(samples, (0.025, 0.975))
  return {"estimate": estimate, "low": float(low), "high": float(high)}


def _interval(values: Sequence[float | None]) -> dict[str, float | None]:
  """Average over facts, with Student's 95 % interval."""
  there = [value for value in values if value is not None]
  if not there:
    return {"estimate": None, "low": None, "high": None}
  found = metrics.seed_interval(np.array(there))
  return {
    end: float(getattr(found, end)) for end in ("estimate", "low", "high")
  }
