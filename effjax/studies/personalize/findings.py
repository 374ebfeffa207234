"""What the study of personalization finds: rows, differences, panels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effjax import metrics
from effjax.data import batches
from effjax.studies import elements
from effjax.studies.personalize import arms

# Of each mail, and so with intervals over mails and seeds.
BY_MAIL = ("bleu", "rouge_l")
# Of all mails of a person together, and so with intervals over seeds alone.
TOGETHER = (
  "perplexity",
  "copied",
  "length_ratio",
  "greeting",
  "closing",
  "self_bleu",
)
_RESAMPLES = 2000

# By person and seed, what `Examiner.examine` measured of an arm.
Measured = Mapping[str, Mapping[int, Mapping[str, Any]]]


def row(
  arm: arms.Arm,
  measured: Measured,
  facts: Sequence[Mapping[str, Any]],
  feature: str,
) -> dict[str, Any]:
  """Sum up an arm.

  Args:
    arm: The arm.
    measured: What was measured, by person and seed.
    facts: Of each training.
    feature: The source of the features of MAUVE.

  Returns:
    Plain values, most of them with intervals.
  """
  name = f"mauve_{feature}"
  found: dict[str, Any] = {"arm": arm.name, "title": arm.title}
  for measure in BY_MAIL:
    found[measure] = resampled(*_by_mail(measured, measure))
  for measure in TOGETHER:
    found[measure] = over_seeds(by_seed(measured, measure))
  for part in ("", "_with_train"):
    found[f"mauve{part}"] = over_seeds(by_seed(measured, f"{name}{part}.mean"))
    found[f"mauve_star{part}"] = over_seeds(
      by_seed(measured, f"{name}{part}.star")
    )
  found["mauve_sd"] = _mean(by_seed(measured, f"{name}.sd"))
  found["buckets"] = sorted(
    {m[name]["buckets"] for own in measured.values() for m in own.values()}
  )
  minilm = any(
    "mauve_minilm" in m for o in measured.values() for m in o.values()
  )
  found["mauve_minilm"] = (
    over_seeds(by_seed(measured, "mauve_minilm.mean")) if minilm else None
  )
  for kind in ("without_names", "with_names"):
    found[f"recognized_{kind}"] = over_seeds(
      by_seed(measured, f"recognized.{kind}.share")
    )
  found["unfinished"] = _mean(by_seed(measured, "unfinished"))
  found["reference"] = {
    measure: _mean(by_seed(measured, f"reference.{measure}"))
    for measure in BY_MAIL
  }
  first = facts[0]
  found["rate"] = first.get("rate")
  found["trained"] = first["trained"]
  found["share"] = first["trained"] / first["weights"] if arm.trained else 0.0
  for cost in ("cpu", "wall", "memory"):
    values = [each["cost"][cost] for each in facts if "cost" in each]
    known = [value for value in values if value is not None]
    found[cost] = float(np.mean(known)) if known else None
  for count in ("learned_tokens", "read_tokens", "steps"):
    found[count] = _mean([each.get(count, 0) for each in facts])
  return found


def difference(
  first: Measured, second: Measured, feature: str
) -> dict[str, Any]:
  """Compare two arms on the same mails and seeds.

  Args:
    first: What was measured of an arm.
    second: What was measured of another one.
    feature: The source of the features of MAUVE.

  Returns:
    The first minus the second: `bleu` and `rouge_l` with paired intervals over
    mails and seeds, `mauve` with those over seeds.
  """
  found = {}
  for measure in BY_MAIL:
    scores, strata = _by_mail(first, measure)
    other, _ = _by_mail(second, measure)
    found[measure] = resampled(scores - other, strata)
  name = f"mauve_{feature}.mean"
  one, two = (np.array(by_seed(each, name)) for each in (first, second))
  found["mauve"] = over_seeds(one - two)
  return found


def by_seed(measured: Measured, path: str) -> list[float]:
  """Average a measure over persons for each seed.

  Args:
    measured: What was measured, by person and seed.
    path: Names of the measure, with dots between them.

  Returns:
    A number for each seed; NaN where it is undefined for all persons.
  """
  seeds = sorted({seed for own in measured.values() for seed in own})
  return [
    _mean([_at(own[seed], path) for own in measured.values() if seed in own])
    for seed in seeds
  ]


def resampled(scores: np.ndarray, strata: np.ndarray) -> dict[str, float]:
  """Average scores, with the percentile interval of resampled mails and seeds.

  A resample draws seeds, and for all of them the same mails, as many of each
  person as there are.

  Args:
    scores: Of each seed and mail [S, N]; NaN is left out.
    strata: The number of the person of each mail [N].

  Returns:
    `estimate`, `low`, `high`.
  """
  generator = batches.generator(0, 8)
  seeds, count = scores.shape
  places = np.empty((_RESAMPLES, count), int)
  for person in np.unique(strata):
    own = np.flatnonzero(strata == person)
    drawn = generator.integers(0, len(own), (_RESAMPLES, len(own)))
    places[:, own] = own[drawn]
  chosen = generator.integers(0, seeds, (_RESAMPLES, seeds))
  known = ~np.isnan(scores)
  filled = np.where(known, scores, 0.0)
  totals = [
    (filled[np.ix_(s, n)].sum(), known[np.ix_(s, n)].sum())
    for s, n in zip(chosen, places, strict=True)
  ]
  values = [total / kept for total, kept in totals if kept]
  if not known.any():
    return dict.fromkeys(("estimate", "low", "high"), float("nan"))
  low, high = np.quantile(values, (0.025, 0.975))
  estimate = filled.sum() / known.sum()
  return {
    "estimate": float(estimate),
    "low": float(low),
    "high": float(high),
  }


def over_seeds(values: Sequence[float] | np.ndarray) -> dict[str, float]:
  """Average over seeds, with Student's 95 % interval; NaN ends for one seed."""
  interval = metrics.seed_interval(values)
  return {
    end: float(getattr(interval, end)) for end in ("estimate", "low", "high")
  }


def cross(
  found: Mapping[str, Mapping[str, Mapping[str, Any]]], feature: str
) -> dict[str, Any]:
  """Set up the matrix of persons learned from and persons judged by.

  Args:
    found: By person learned from and person judged by, what was measured.
    feature: The source of the features of MAUVE.

  Returns:
    `names`, a matrix for each of `bleu`, `rouge_l` and `mauve`, rows learned
    and columns judged, and `dominant`: in how many rows and columns of each
    matrix the diagonal is the largest.
  """
  names = list(found)
  paths = {**{m: m for m in BY_MAIL}, "mauve": f"mauve_{feature}.mean"}
  result: dict[str, Any] = {"names": names, "dominant": {}}
  for name, path in paths.items():
    matrix = np.array([[_at(found[i][j], path) for j in names] for i in names])
    result[name] = matrix.tolist()
    own = np.diagonal(matrix)
    others = np.where(np.eye(len(names), dtype=bool), -np.inf, matrix)
    result["dominant"][name] = {
      "rows": int(np.sum(own > others.max(axis=1))),
      "columns": int(np.sum(own > others.max(axis=0))),
    }
  return result


def panel(found: Mapping[Any, Mapping[str, Any]], feature: str) -> list[dict]:
  """Sum up points of one person and seed that differ in one thing.

  Args:
    found: By what differs, `facts` and `measures`.
    feature: The source of the features of MAUVE.

  Returns:
    A row for each.
  """
  rows = []
  for value, each in found.items():
    measures, facts = each["measures"], each["facts"]
    rows.append(
      {
        "value": value,
        "mails": facts["mails"],
        "trained": facts["trained"],
        **{
          measure: resampled(*_by_mail({"": {0: measures}}, measure))
          for measure in BY_MAIL
        },
        "mauve": _at(measures, f"mauve_{feature}.mean"),
        "mauve_sd": _at(measures, f"mauve_{feature}.sd"),
        "perplexity": measures["perplexity"],
        "copied": measures["copied"],
        "cpu": facts.get("cost", {}).get("cpu"),
      }
    )
  return rows


def _by_mail(measured: Measured, measure: str) -> tuple[np.ndarray, np.ndarray]:
  """Return scores [S, N] of the mails of all persons, and whose they are."""
  columns, strata = [], []
  for number, own in enumerate(measured.values()):
    seeds = sorted(own)
    scores = np.array(
      [
        [elements.number(x) for x in own[seed]["scores"][measure]]
        for seed in seeds
      ]
    )
    columns.append(scores)
    strata += [number] * scores.shape[1]
  return np.concatenate(columns, axis=1), np.array(strata)


def _at(measures: Mapping[str, Any], path: str) -> float:
  """Read a measure; NaN where there is none."""
  value: Any = measures
  for name in path.split("."):
    value = value.get(name) if isinstance(value, Mapping) else None
  return elements.number(value)


def _mean(values: Sequence[float]) -> float:
  known = [value for value in values if not np.isnan(value)]
  return float(np.mean(known)) if known else float("nan")
