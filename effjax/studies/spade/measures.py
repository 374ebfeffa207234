"""What one network with Trojans tells about the arms, and means over networks.

All scores of a network are kept as plain lists, so that they can be written
down and a study that was interrupted goes on with the next network.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import metrics, spade
from effjax.studies.spade import arms as spade_arms
from effjax.studies.spade import explanations, trojans

# Methods that are quick, one of each family, by which sparsities are tuned.
TUNED_BY = ("saliency", "input_x_gradient", "lrp")


def tuned_by(methods: Iterable[str]) -> tuple[str, ...]:
  """Name the quick methods among those of a study.

  Args:
    methods: Those of the study.

  Returns:
    Those of `TUNED_BY` that are among them.

  Raises:
    ValueError: If there is none.

  >>> tuned_by(["rise", "lrp", "saliency"])
  ('saliency', 'lrp')
  """
  known = set(methods)
  found = tuple(name for name in TUNED_BY if name in known)
  if not found:
    raise ValueError(
      f"sparsities are tuned by {', '.join(TUNED_BY)}: methods must hold one of"
      " them"
    )
  return found


class Examiner:
  """A network, how it is explained, and on which images.

  Attributes:
    network: The network as a function of its parameters.
    methods: The methods by name.
    config: The configuration of the study.
    seed: The seed of the network.
    quick: The methods by which sparsities are tuned and choices compared.
  """

  def __init__(self, network, methods, config, seed):
    self.network, self.methods = network, methods
    self.config, self.seed = config, seed
    self.quick = tuned_by(methods)

  def key(self, purpose: int) -> jax.Array:
    """Make a key for one purpose, the same in every arm."""
    return jax.random.fold_in(jax.random.key(self.seed), purpose)

  def maps(
    self,
    name: str,
    params: Any,
    images: jax.Array,
    targets: np.ndarray,
    per_example: bool,
  ) -> jax.Array:
    """Explain images by a method, maps [N, H, W]."""
    return explanations.maps(
      self.methods[name],
      self.network.f,
      self.key(1),
      params,
      trojans.normalise(images),
      jnp.asarray(targets),
      per_example=per_example,
    )

  def areas(
    self,
    params: Any,
    flipped: trojans.Flipped,
    per_example: bool,
    names: Sequence[str],
  ) -> dict[str, list[float]]:
    """Measure how well maps find the patches, [N] for each method."""
    images = trojans.pixels(flipped.images)
    return {
      name: np.asarray(
        metrics.pixel_auc(
          self.maps(name, params, images, flipped.targets, per_example),
          flipped.masks,
        )
      ).tolist()
      for name in names
    }

  def trace(self, flipped: trojans.Flipped, rules, solver, **changes) -> Any:
    """Prune for each image."""
    images = trojans.pixels(flipped.images)
    return spade_arms.trace(
      self.network, self.key(2), images, rules, self.config, solver, **changes
    )


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
      params = examiner.trace(calibration, rules, solver)
      areas = examiner.areas(params, calibration, True, examiner.quick)
      return float(np.mean(list(areas.values())))

    tuned = spade.tune(
      score,
      list(config.layers),
      grid=tuple(config.grid),
      fixed=[(config.first_layer, None)],
      budget=config.budget,
    )
    found[arm] = {
      "rules": [list(rule) for rule in tuned.rules],
      "score": tuned.score,
      "tried": len(tuned.history),
    }
    say(f"{arm}: {tuned.score:.3f} with {dict(tuned.rules)}")
  return found


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
    areas = examiner.areas(params, calibration, False, examiner.quick)
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
  params: Any,
  images: np.ndarray,
  targets: np.ndarray,
  per_example: bool,
) -> dict[str, dict[str, list[float]]]:
  """Insert and delete pixels of clean images by the order of the maps.

  Args:
    examiner: The network; the dense one is asked.
    params: Parameters that are explained.
    images: uint8 [N, H, W, C].
    targets: What the dense network sees [N].
    per_example: Whether every image has parameters of its own.

  Returns:
    By method the areas below both curves, [N].
  """
  x = trojans.pixels(images)
  given = trojans.normalise(x)
  blurred = metrics.gaussian_blur(given)
  found = {}
  for name in examiner.methods:
    maps = examiner.maps(name, params, x, targets, per_example)
    curves = metrics.insertion_deletion(
      examiner.network.f,
      examiner.network.params,
      given,
      jnp.asarray(targets),
      maps,
      step=max(maps[0].size // 28, 1),
      insert_into=blurred,
      delete_to=-1.0,
    )
    found[name] = {
      "insertion": np.asarray(curves.insertion_auc).tolist(),
      "deletion": np.asarray(curves.deletion_auc).tolist(),
    }
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
    params = examiner.trace(flipped, rules, "sparsegpt", **changes)
    areas = examiner.areas(params, flipped, True, examiner.quick)
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
  fixed = [(config.first_layer, None)]
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
  module: Any,
  variables: Any,
  test: Mapping[str, np.ndarray],
  count: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Draw clean test images that the network gets right.

  Returns:
    Images [N, H, W, C] and their classes [N].
  """
  right = trojans.predict(module, variables, test["images"]) == test["classes"]
  chosen = generator.permutation(np.flatnonzero(right))[:count]
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
