"""Means over networks and images, differences of arms, and the verdict."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from effjax.studies.spade import measures

_SCORES = ("insertion", "deletion")


def gather(config: Any, outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Put the outcomes of all networks together.

  Args:
    config: The configuration of the study.
    outcomes: What `study` keeps of each network.

  Returns:
    What the report needs, ready for `results.json`.
  """
  areas = {
    arm: _table(outcomes, lambda o, arm=arm: o["areas"][arm], config.methods)
    for arm in config.arms
  }
  table, differences = {}, {}
  for arm, by_method in areas.items():
    dense = areas["dense"]
    if arm == "spade":
      # The exact solver saw some of the images only.
      dense = {n: _exact(outcomes, values) for n, values in dense.items()}
    table[arm] = {n: measures.interval(v) for n, v in by_method.items()}
    table[arm]["mean"] = measures.interval(_over_methods(by_method))
    if arm == "dense":
      continue
    differences[arm] = {
      name: measures.interval(values, dense[name])
      for name, values in by_method.items()
    }
    differences[arm]["mean"] = measures.interval(
      _over_methods(by_method), _over_methods(dense)
    )
  return {
    "accuracy": [o["accuracy"] for o in outcomes],
    **_agreement(outcomes),
    **_answer_kept(config, outcomes),
    "success": {
      name: [o["success"][name] for o in outcomes]
      for name in outcomes[0]["success"]
    },
    "images": len(next(iter(areas["dense"].values()))[0]),
    "exact_images": len(outcomes[0]["exact_images"]),
    "tuned": [o["tuned"] for o in outcomes],
    "auc": table,
    "auc_against_dense": differences,
    "faithfulness": _faithfulness(config, outcomes),
    "ablations": _ablations(outcomes),
    "seconds": {
      k: sum(o["seconds"][k] for o in outcomes) for k in ("wall", "cpu")
    },
    "verdict": verdict(differences),
  }


def _agreement(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Say how often networks with Trojans agree with those without."""
  if any("agreement" not in o for o in outcomes):
    return {}  # networks of an earlier version
  return {"agreement": [o["agreement"] for o in outcomes]}


def _answer_kept(
  config: Any, outcomes: Sequence[dict[str, Any]]
) -> dict[str, Any]:
  """Say to how many images networks still give the class of the patch."""
  if any("answer_kept" not in o for o in outcomes):
    return {}  # networks of an earlier version
  return {
    "answer_kept": {
      arm: measures.interval([o["answer_kept"][arm] for o in outcomes])
      for arm in config.arms
    }
  }


def verdict(differences: dict[str, Any]) -> dict[str, str]:
  """Judge whether FastSPADE finds patches better than the dense network.

  Args:
    differences: Intervals of AUC against the dense network.

  Returns:
    `outcome` ("reproduced", "not reproduced" or "inconclusive") and `text`.
  """
  found = differences["fast_spade"]["mean"]
  text = (
    "The mean pixel AUC over methods changes by"
    f" {found['estimate']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"
    " from the dense network to FastSPADE."
  )
  if found["low"] > 0:
    return {"outcome": "reproduced", "text": text}
  if found["high"] < 0:
    return {"outcome": "not reproduced", "text": text}
  return {"outcome": "inconclusive", "text": text}


def _table(outcomes, read, methods) -> dict[str, np.ndarray]:
  """Stack scores [S, N] of each method."""
  return {
    name: np.stack([np.asarray(read(o)[name], float) for o in outcomes])
    for name in methods
  }


def _exact(outcomes, values: np.ndarray) -> np.ndarray:
  """Take the scores of the images that the exact solver saw."""
  rows = [outcome["exact_images"] for outcome in outcomes]
  return np.stack([v[r] for v, r in zip(values, rows, strict=True)])


def _over_methods(by_method: dict[str, np.ndarray]) -> np.ndarray:
  return np.mean(list(by_method.values()), axis=0)


def _faithfulness(config: Any, outcomes: Sequence[dict[str, Any]]) -> Any:
  found: dict[str, Any] = {}
  arms = list(outcomes[0]["faithfulness"])
  for score in _SCORES:
    values = {
      arm: _table(
        outcomes,
        lambda o, arm=arm, score=score: {
          name: both[score] for name, both in o["faithfulness"][arm].items()
        },
        config.methods,
      )
      for arm in arms
    }
    found[score] = {
      arm: {
        **{n: measures.interval(v) for n, v in by_method.items()},
        "mean": measures.interval(_over_methods(by_method)),
      }
      for arm, by_method in values.items()
    }
    found[f"{score}_against_dense"] = {
      arm: measures.interval(
        _over_methods(by_method), _over_methods(values["dense"])
      )
      for arm, by_method in values.items()
      if arm != "dense"
    }
  return found


def _ablations(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Average over networks and images, with intervals."""
  return {
    name: [
      {
        "value": rows[0]["value"],
        "area": measures.interval([row["area"] for row in rows]),
      }
      for rows in zip(*(o["ablations"][name] for o in outcomes), strict=True)
    ]
    for name in outcomes[0]["ablations"]
  }
