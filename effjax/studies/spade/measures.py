"""What one network with Trojans tells about the arms, and means over networks.

All scores of a network are kept as plain lists, so that they can be written
down and a study that was interrupted goes on with the next network.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import metrics, spade
from effjax.studies.spade import arms as spade_arms
from effjax.studies.spade import trojans
from effjax.studies.spade.examiner import Examiner, Explained


def tuned_rules(
  examiner: Examiner, calibration: trojans.Flipped, say: Callable[[str], None]
) -> dict[str, Any]:
  """Choose the sparsities of every arm on calibration images.

  Every arm may try as many choices.

  Args:
    examiner: The network.
    calibration: Images with patches that are not tested on.
    say: Tells of progress.

  Returns:
    By arm: rules, score, and how many were tried.
  """
  config, found = examiner.config, {}
  for arm in config.arms:
    solver = spade_arms.SOLVERS.get(arm)
    if solver is None or solver == "exact_obs":
      continue

    def score(rules, solver=solver):
      traced = examiner.traced(rules, solver)
      areas = examiner.areas(traced, calibration, examiner.quick)
      return float(np.mean(list(areas.values())))

    tuned = spade.tune(
      score,
      list(config.layers),
      grid=tuple(config.grid),
      fixed=fixed_rules(examiner),
      budget=config.budget,
    )
    found[arm] = {
      "rules": [list(rule) for rule in tuned.rules],
      "score": tuned.score,
      "tried": len(tuned.history),
    }
    say(f"{arm}: {tuned.score:.3f} with {dict(tuned.rules)}")
  return found


def fixed_rules(examiner: Examiner) -> list[tuple[str, None]]:
  """Return the rules that leave layers as they are."""
  return [(pattern, None) for pattern in examiner.network.kept]


def tuned_strength(
  examiner: Examiner,
  calibration: trojans.Flipped,
  clean: Mapping[str, np.ndarray],
  classes: int,
) -> tuple[Any, dict[str, float]]:
  """Fit the sparse last layer; its strength is tuned like sparsities.

  Args:
    examiner: The network.
    calibration: Images with patches that are not tested on.
    clean: Clean images to fit on, `images` and `classes`.
    classes: How many classes there are.

  Returns:
    Parameters, and strength, sparsity and score.
  """
  images = trojans.pixels(clean["images"])
  best: tuple[Any, dict[str, float]] | None = None
  for strength in examiner.config.strengths:
    params, zeros = spade_arms.with_sparse_head(
      examiner.network,
      examiner.config.head,
      images,
      clean["classes"],
      classes,
      strength,
    )
    areas = examiner.areas(Explained(params), calibration, examiner.quick)
    score = float(np.mean(list(areas.values())))
    if best is None or score > best[1]["score"]:
      best = (
        params,
        {"strength": strength, "sparsity": zeros, "score": score},
      )
  if best is None:
    raise ValueError(
      "strengths of the sparse last layer are wanted: none given"
    )
  return best


def faithfulness(
  examiner: Examiner,
  explained: Explained,
  images: np.ndarray,
  targets: np.ndarray,
) -> dict[str, dict[str, list[float]]]:
  """Insert and delete pixels of clean images by the order of the maps.

  Args:
    examiner: The network; the dense one is asked.
    explained: Parameters that are explained.
    images: uint8 [N, H, W, C].
    targets: What the dense network sees [N].

  Returns:
    By method the areas below both curves, [N].
  """
  found = {
    name: {score: [] for score in ("insertion", "deletion")}
    for name in examiner.methods
  }
  network = examiner.network
  for group in examiner.groups(images, targets, explained, purpose=3):
    given = network.normalise(group.x)
    blurred = metrics.gaussian_blur(given)
    black = network.normalise(jnp.zeros_like(group.x))
    for name, both in found.items():
      maps = examiner.maps(name, group)
      curves = metrics.insertion_deletion(
        network.f,
        network.params,
        given,
        group.targets,
        maps,
        step=max(maps[0].size // 28, 1),
        insert_into=blurred,
        delete_to=black,
        chunk_size=examiner.config.get("curve_points") or None,
      )
      for score, areas in (
        ("insertion", curves.insertion_auc),
        ("deletion", curves.deletion_auc),
      ):
        both[score] += np.asarray(areas)[: group.real].tolist()
  return found


def ablations(
  examiner: Examiner, flipped: trojans.Flipped, rules: Any
) -> dict[str, list[dict[str, Any]]]:
  """Vary one choice of FastSPADE at a time.

  Args:
    examiner: The network.
    flipped: Images with patches.
    rules: The tuned sparsities.

  Returns:
    By choice its values, each with the mean area [N] over the quick methods.
  """
  config = examiner.config

  def area(rules, **changes):
    traced = examiner.traced(rules, **changes)
    areas = examiner.areas(traced, flipped, examiner.quick)
    return np.mean(list(areas.values()), axis=0).tolist()

  found: dict[str, list[dict[str, Any]]] = {}
  for name in ("copies", "damping", "mask_block"):
    if name in config.ablations:
      found[name] = [
        {"value": value, "area": area(rules, **{name: value})}
        for value in config.ablations[name]
      ]
  if "sparsity" not in config.ablations:
    return found
  fixed = fixed_rules(examiner)
  found["sparsity"] = [
    {
      "value": value,
      "area": area([*fixed, *((layer, value) for layer in config.layers)]),
    }
    for value in config.ablations["sparsity"]
  ]
  return found


def some(flipped: trojans.Flipped, each: int) -> trojans.Flipped:
  """Take the first images of every patch."""
  kept = np.concatenate(
    [
      np.flatnonzero(flipped.patches == number)[:each]
      for number in np.unique(flipped.patches)
    ]
  )
  return trojans.Flipped(*(field[kept] for field in flipped))


def clean_images(
  generator: np.random.Generator,
  answer: Callable[[np.ndarray], np.ndarray],
  test: Mapping[str, np.ndarray],
  count: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Draw clean test images that the network gets right.

  Args:
    generator: Draws them.
    answer: From images to the classes that the network gives them.
    test: `images` uint8, `classes` and `ids`.
    count: How many.

  Returns:
    Images [N, H, W, C] and their classes [N].
  """
  right = answer(test["images"]) == test["classes"]
  chosen = generator.permutation(np.flatnonzero(right))
  chosen = trojans.in_turns(chosen, test["ids"])[:count]
  return test["images"][chosen], test["classes"][chosen].astype(np.int32)


def interval(
  values: Any, reference: Any = None, *, resamples: int = 2000
) -> dict[str, Any]:
  """Find the mean over networks and images, and its 95 % interval.

  Networks are drawn with replacement, and within them images.

  Args:
    values: Scores [S, N] of networks and images.
    reference: Scores of another arm, of the same; then of the difference.
    resamples: How many draws.

  Returns:
    `estimate`, `low`, `high`.
  """
  # A metric of one column; what it averages bears the name of a column.
  column = lambda x: {"logits": np.asarray(x, np.float32)[..., None]}
  found = metrics.hierarchical_bootstrap(
    jax.random.key(0),
    _MEAN,
    column(values),
    resamples,
    reference=None if reference is None else column(reference),
    shared=False,
  )
  return {
    "estimate": float(found.estimate[0]),
    "low": float(found.low[0]),
    "high": float(found.high[0]),
  }


_MEAN = metrics.mean(lambda batch: batch.logits, "logits")
