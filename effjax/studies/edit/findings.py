"""What the study of edits finds: tables, and the claims judged apart.

A measure is an array [models, arms, rates, edits, mixes, evaluations], NaN
where an arm was not tried at a rate. Learning rates, and which of several arms
stands for a claim, are chosen on the first edits of each model, and reported on
the others. Claims are judged by Student's intervals over pretrained models, in
pairs between arms; other intervals are of resampled models and, in each,
resampled edit sets.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effjax.studies import elements
from effjax.studies.edit import intervals

Values = Mapping[str, np.ndarray]
STOPS = ("end", "first success")
PROTOCOLS = ("tuned", "matched")
REFERENCE = "full"
# What is compared with full fine-tuning of all blocks, where the study has it.
CLAIMS = {
  "rank": (
    "An update of low rank, 4 at most, edits better than one of full rank",
    ("lora1", "lora2", "lora4"),
  ),
  "blocks": (
    "Tuning some blocks only edits better than tuning all",
    ("full_attention", "full_mlp", "full_layer0", "full_layer1"),
  ),
}
# What tables tell of an arm first, and the measure it is.
TOLD = {
  "edited": "efficacy",
  "paraphrases": "generalization",
  "preserved": "preservation",
}
_TOLERANCE = 0.01  # a difference in score that counts as a tie


def at(values: np.ndarray, efficacy: np.ndarray, stop: str) -> np.ndarray:
  """Take a measure at the end, or where the edit first held.

  Args:
    values: [..., T].
    efficacy: [..., T].
    stop: One of `STOPS`.

  Returns:
    [...]; NaN where the edit never held.
  """
  if stop == "end":
    return values[..., -1]
  held = efficacy >= 1
  first = np.argmax(held, axis=-1)[..., None]
  chosen = np.take_along_axis(values, first, axis=-1)[..., 0]
  return np.where(held.any(axis=-1), chosen, np.nan)


def scores(values: Values, stop: str) -> np.ndarray:
  """Score runs, the harmonic mean of efficacy and preservation; 0 for failure.

  Args:
    values: Measures.
    stop: One of `STOPS`.

  Returns:
    [models, arms, rates, edits, mixes].
  """
  found = at(values["score"], values["efficacy"], stop)
  return np.where(np.isnan(found), 0.0, found)


def chosen_rates(values: Values, tuning: int, stop: str = "end") -> np.ndarray:
  """Choose the learning rate of each arm on the edits that tune it.

  Args:
    values: Measures.
    tuning: How many edits of each model, the first, are for that.
    stop: One of `STOPS`.

  Returns:
    Numbers of rates, int [arms, mixes].
  """
  return np.argmax(_tuned(values, tuning, stop), axis=1)


def tried(values: Values) -> np.ndarray:
  """Say which arms were tried at which learning rates.

  Args:
    values: Measures.

  Returns:
    bool [arms, rates].
  """
  return np.asarray((~np.isnan(values["score"][..., -1])).any(axis=(0, 3, 4)))


def at_edges(values: Values, tuning: int) -> np.ndarray:
  """Say whose chosen learning rate is the lowest or highest that was tried.

  Args:
    values: Measures.
    tuning: See `chosen_rates`.

  Returns:
    -1 for the lowest, 1 for the highest, or 0: int [arms, mixes].
  """
  there = tried(values)
  lowest = there.argmax(axis=1)[:, None]
  highest = there.shape[1] - 1 - there[:, ::-1].argmax(axis=1)[:, None]
  best = chosen_rates(values, tuning)
  return np.where(best == lowest, -1, np.where(best == highest, 1, 0))


def _tuned(values, tuning, stop) -> np.ndarray:
  """Average scores over the edits that tune: [arms, rates, mixes]."""
  found = scores(values, stop)[:, :, :, :tuning].mean(axis=(0, 3))
  return np.where(tried(values)[:, :, None], found, -np.inf)


def table(
  names: Sequence[str], mixes: Sequence[str], values: Values, tuning: int
) -> list[dict[str, Any]]:
  """Sum up every arm at the learning rate that was chosen for it.

  Args:
    names: The arms.
    mixes: The mixes.
    values: Measures.
    tuning: See `chosen_rates`.

  Returns:
    Rows by mix and arm.
  """
  best, edges = chosen_rates(values, tuning), at_edges(values, tuning)
  shape = values["score"].shape
  draw = intervals.Resampled(shape[0], shape[3] - tuning)
  rows = []
  for m, mix in enumerate(mixes):
    for a, name in enumerate(names):
      pick = lambda x, a=a, m=m: x[:, a, best[a, m], tuning:, m]
      first = at(
        pick(values["preservation"]), pick(values["efficacy"]), STOPS[1]
      )
      end = {k: pick(v)[..., -1] for k, v in values.items()}
      rows.append(
        {
          "mix": mix,
          "arm": name,
          "rate": int(best[a, m]),
          "at_the_edge": bool(edges[a, m]),
          **{k: draw.interval(v) for k, v in end.items() if k.count("/") == 0},
          "first_preservation": draw.interval(first),
          "never": int(np.isnan(first).sum()),
          "sets": {
            k.removeprefix("set/"): draw.interval(v)
            for k, v in end.items()
            if k.startswith("set/")
          },
        }
      )
  return rows


def matched(
  names: Sequence[str], mixes: Sequence[str], values: Values, tuning: int
) -> list[dict[str, Any]]:
  """Measure every arm at every learning rate, on the reported edits.

  Args:
    names: The arms.
    mixes: The mixes.
    values: Measures.
    tuning: See `chosen_rates`.

  Returns:
    Rows by mix and arm: `score`, `efficacy` and `preservation`, each a list
    over rates, NaN where the arm was not tried.
  """
  shape = values["score"].shape
  draw = intervals.Resampled(shape[0], shape[3] - tuning)
  there = tried(values)[None, :, :, None, None]
  every = {
    "score": np.where(there, scores(values, "end"), np.nan),
    **{
      k: at(values[k], values[k], "end") for k in ("efficacy", "preservation")
    },
  }
  return [
    {
      "mix": mix,
      "arm": name,
      **{
        k: [draw.interval(v[:, a, r, tuning:, m]) for r in range(shape[2])]
        for k, v in every.items()
      },
    }
    for m, mix in enumerate(mixes)
    for a, name in enumerate(names)
  ]


def claims(
  names: Sequence[str], mixes: Sequence[str], values: Values, tuning: int
) -> list[dict[str, Any]]:
  """Judge the claims: in what share of the settings does each hold?

  A setting is a pretrained model, and a learning rate where these are matched,
  of those at which every arm was tried. The arm that stands for a claim is the
  one with the best score on the edits for tuning, at its own best rate or at
  the matched one.

  Args:
    names: The arms.
    mixes: The mixes.
    values: Measures.
    tuning: See `chosen_rates`.

  Returns:
    A row for each claim, mix, protocol and rule of stopping: `share`, of the
    settings with a higher score; `ties`, with one that is not lower by more
    than a hundredth; `difference`, of scores, with its `result`.
  """
  rows = []
  shape = values["score"].shape
  draw = intervals.Resampled(shape[0], shape[3] - tuning)
  reference = list(names).index(REFERENCE)
  for claim, (text, candidates) in CLAIMS.items():
    own = [names.index(name) for name in candidates if name in names]
    if not own:
      continue
    for stop in STOPS:
      found = scores(values, stop)
      tuned = _tuned(values, tuning, stop)
      for m, mix in enumerate(mixes):
        for protocol in PROTOCOLS:
          pairs = _pairs(tuned[:, :, m], own, reference, protocol)
          gaps = [
            found[:, a, r, tuning:, m] - found[:, reference, q, tuning:, m]
            for a, r, q in pairs
          ]
          rows.append(
            {
              "claim": claim,
              "text": text,
              "mix": mix,
              "protocol": protocol,
              "stop": stop,
              "arms": [names[a] for a, _, _ in pairs],
              "settings": len(pairs) * shape[0],
              **_judged(gaps, draw),
            }
          )
  return rows


def _pairs(tuned, own, reference, protocol):
  """Choose what is compared: arm and rate, and the rate of the reference."""
  if protocol == "tuned":
    flat = [(tuned[a].max(), a, int(tuned[a].argmax())) for a in own]
    _, arm, rate = max(flat)
    return [(arm, rate, int(tuned[reference].argmax()))]
  return [
    (max(own, key=lambda a: tuned[a, rate]), rate, rate)
    for rate in np.flatnonzero(np.isfinite(tuned).all(axis=0)).tolist()
  ]


def _judged(gaps, draw) -> dict[str, Any]:
  means = np.stack([gap.mean(axis=1) for gap in gaps])  # pairs, models
  drawn = np.stack([draw.draws(gap) for gap in gaps], axis=1)
  # Models are the units that a claim is about: their spread decides.
  difference = intervals.over_models(means.T)
  low, high = difference["low"], difference["high"]
  result = "inconclusive"
  if low > 0:
    result = "reproduced"
  elif high < 0:
    result = "not reproduced"
  share = lambda least: intervals.ends(
    (means > least).mean(), (drawn > least).mean(axis=(1, 2))
  )
  return {
    "share": share(0.0),
    "ties": share(-_TOLERANCE),
    "difference": difference,
    "result": result,
  }


def side_effects(
  mixes: Sequence[str], values: Values, tuning: int
) -> list[dict[str, Any]]:
  """Compare the damage to related facts with that to unrelated ones.

  Args:
    mixes: The mixes.
    values: Measures.
    tuning: See `chosen_rates`.

  Returns:
    By mix and related set the accuracy on unrelated facts minus that on the
    set, averaged over all arms at their chosen rates.
  """
  best = chosen_rates(values, tuning)
  shape = values["score"].shape
  draw = intervals.Resampled(shape[0], shape[3] - tuning)
  rows = []
  for m, mix in enumerate(mixes):
    take = lambda name, m=m: np.stack(
      [
        values[f"set/{name}"][:, a, best[a, m], tuning:, m, -1]
        for a in range(shape[1])
      ]
    )
    for name in ("with_same_value", "with_same_rel", "same_edges_diff_rel"):
      if f"set/{name}" in values:
        gap = (take("reg_data") - take(name)).mean(axis=0)
        rows.append({"mix": mix, "set": name, "more": draw.interval(gap)})
  return rows


def best(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
  """Return the row of a table with the highest score."""
  return max(rows, key=lambda row: elements.number(row["score"]["estimate"]))


def edge_notes(rows: Sequence[Mapping], names: Mapping[str, str]) -> list[str]:
  """Name the arms whose learning rate may not be the best there is.

  Args:
    rows: Of tables, with `arm` and `at_the_edge`.
    names: What the arms are called.

  Returns:
    A note for a table, or none.
  """
  edges = dict.fromkeys(names[row["arm"]] for row in rows if row["at_the_edge"])
  told = (
    f"At the edge of the learning rates that were tried: {', '.join(edges)}."
  )
  return [told] if edges else []


def titles(results: Mapping[str, Any]) -> dict[str, str]:
  """Return what the arms are called, by name.

  Args:
    results: The content of `results.json`.
  """
  return {arm["name"]: arm["title"] for arm in results["arms"]}
