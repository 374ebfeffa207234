"""A network that is asked to explain images, some of them at a time."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import metrics
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


class Explained(NamedTuple):
  """The parameters that are explained.

  Attributes:
    params: Of one network for all images, or with a leading axis of images.
    per_example: Whether they have that axis.
    prune: Instead of them `(key, pixels [B, H, W, C]) -> parameters` with a
      leading axis.
  """

  params: Any = None
  per_example: bool = False
  prune: Callable[[jax.Array, jax.Array], Any] | None = None


class Group(NamedTuple):
  """Images that are examined together.

  Attributes:
    rows: Their numbers [B].
    real: How many of them count; the others fill up.
    key: What random methods draw by.
    x: Their pixels from 0 to 1 [B, H, W, C].
    targets: The classes to explain [B].
    params: Parameters, with a leading axis if `per_example`.
    per_example: Whether every image has parameters of its own.
  """

  rows: np.ndarray
  real: int
  key: jax.Array
  x: jax.Array
  targets: jax.Array
  params: Any
  per_example: bool


class Examined(NamedTuple):
  """What is found about images with patches.

  Attributes:
    areas: By method the pixel AUC of its maps, [N].
    answer_kept: Whether the network still gives the class of the patch, [N].
    params: By the numbers of some images, what they were explained by.
  """

  areas: dict[str, list[float]]
  answer_kept: list[bool]
  params: dict[int, Any]


class Examiner:
  """A network, how it is explained, and on which images.

  Attributes:
    network: The network as a function of its parameters.
    methods: The methods by name.
    config: The configuration of the study; `together`: how many images are
      examined at once, all of them where it is 0 or not said.
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

  def traced(
    self, rules: Any, solver: str = "sparsegpt", **changes: Any
  ) -> Explained:
    """Say that a network is pruned for each image, as `arms.trace` does."""

    def prune(key, images):
      return spade_arms.trace(
        self.network, key, images, rules, self.config, solver, **changes
      )

    return Explained(prune=prune)

  def groups(
    self,
    images: np.ndarray,
    targets: np.ndarray,
    explained: Explained,
    purpose: int = 2,
  ) -> Iterator[Group]:
    """Divide images into groups that fit into memory.

    All groups are of one size, and then every image has parameters of its own,
    those of one network too: so programs are compiled once.

    Args:
      images: uint8 [N, H, W, C].
      targets: The classes to explain [N].
      explained: The parameters.
      purpose: What pruning draws by.

    Yields:
      The groups.
    """
    count, given = len(images), self.config.get("together", 0)
    size = given or count
    for start in range(0, count, size):
      rows = np.arange(start, start + size) % count
      x = trojans.pixels(images[rows])
      params, per_example = explained.params, explained.per_example
      if explained.prune is not None:
        params = explained.prune(self._key(purpose, start), x)
        per_example = True
      elif per_example:
        params = jax.tree.map(lambda leaf, rows=rows: leaf[rows], params)
      elif given:
        params = jax.tree.map(
          lambda leaf: jnp.broadcast_to(leaf, (size, *leaf.shape)), params
        )
        per_example = True
      yield Group(
        rows,
        min(size, count - start),
        self._key(1, start),
        x,
        jnp.asarray(targets[rows]),
        params,
        per_example,
      )

  def _key(self, purpose: int, start: int) -> jax.Array:
    key = self.key(purpose)
    return jax.random.fold_in(key, start) if start else key

  def maps(self, name: str, group: Group) -> jax.Array:
    """Explain the images of a group by a method, maps [B, H, W]."""
    return explanations.maps(
      self.methods[name],
      self.network.f,
      group.key,
      group.params,
      self.network.normalise(group.x),
      group.targets,
      per_example=group.per_example,
    )

  def areas(
    self, explained: Explained, flipped: trojans.Flipped, names: Sequence[str]
  ) -> dict[str, list[float]]:
    """Measure how well maps find the patches: pixel AUC [N] by method."""
    return self.examine(explained, flipped, names).areas

  def examine(
    self,
    explained: Explained,
    flipped: trojans.Flipped,
    names: Sequence[str],
    shown: Collection[int] = (),
  ) -> Examined:
    """Measure how well maps find the patches, and see what is still answered.

    Args:
      explained: The parameters.
      flipped: Images with patches.
      names: The methods.
      shown: Numbers of images whose parameters are kept.

    Returns:
      What was found.
    """
    found = Examined({name: [] for name in names}, [], {})
    for group in self.groups(flipped.images, flipped.targets, explained):
      for name in names:
        areas = metrics.pixel_auc(
          self.maps(name, group), flipped.masks[group.rows]
        )
        found.areas[name].extend(np.asarray(areas)[: group.real].tolist())
      answers = explanations.answers(
        self.network.f,
        group.params,
        self.network.normalise(group.x),
        per_example=group.per_example,
      )
      kept = np.asarray(answers == group.targets)[: group.real]
      found.answer_kept.extend(kept.tolist())
      for place, row in enumerate(group.rows[: group.real].tolist()):
        if row in shown:
          found.params[row] = jax.tree.map(
            lambda leaf, place=place: leaf[place], group.params
          )
    return found
