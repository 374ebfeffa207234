"""One picture explained: by the dense network, and by one pruned for it.

network = networks.load("efficientnet_lite0")
picture = photographs.read_image("cat.jpg")
found = explain(jax.random.key(0), network, picture, ["lrp", "saliency"])
overlays.figure(found).savefig("cat_explained.png")
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import spade, tree
from effjax.studies.spade import arms, explanations, networks
from effjax.studies.spade.networks import Network
from effjax.studies.spade.photographs import Picture

COPIES = 8
DAMPING = 0.01


class Seen(NamedTuple):
  """What the dense network makes of a picture.

  Attributes:
    x: Its input [1, side, side, 3].
    shown: The same for people, uint8 [side, side, 3].
    probabilities: Of the classes [A].
  """

  x: jax.Array
  shown: np.ndarray
  probabilities: np.ndarray


class Explanation(NamedTuple):
  """An explained picture.

  Attributes:
    network: The title of the network.
    shown: What the network saw, uint8 [side, side, 3].
    note: What was changed or left out when the picture was read.
    target: The class that is explained, and its name.
    chances: Its probability by the dense and by the traced network.
    top: The likeliest classes of the dense network: names, probabilities, and
      those of the traced one.
    maps: By method the maps of the dense and of the traced network [side,
      side].
    sparsity: Share of zeros in the layers that were pruned.
    options: What was asked for: copies, damping, sparsity.
    seconds: How long each step took.
  """

  network: str
  shown: np.ndarray
  note: str
  target: tuple[int, str]
  chances: tuple[float, float]
  top: list[tuple[str, float, float]]
  maps: dict[str, tuple[np.ndarray, np.ndarray]]
  sparsity: float
  options: dict[str, Any]
  seconds: dict[str, float]


def look(network: Network, picture: Picture) -> Seen:
  """Ask the dense network what a picture shows.

  Args:
    network: The network.
    picture: The picture.

  Returns:
    The input, how it looks, and the probabilities.
  """
  import PIL.Image

  x = network.prepare(picture.pixels[None])
  shown = PIL.Image.fromarray(picture.pixels).resize(
    (network.side, network.side), PIL.Image.Resampling.BICUBIC
  )
  found = probabilities(network, network.subject.params, x)
  return Seen(x, np.asarray(shown), found)


def probabilities(network: Network, params: Any, x: jax.Array) -> np.ndarray:
  """Return the probabilities of the classes [A] of one input."""
  return np.asarray(_probabilities(network.subject.f, params, x))


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(f, params, x):
  return jax.nn.softmax(f(params, x)[0].astype(jnp.float32))


def measure(
  key: jax.Array, network: Network, picture: Picture, copies: int = COPIES
) -> spade.LayerGrams:
  """Sum up what the layers meet on random crops of a picture.

  Args:
    key: A random key.
    network: The network.
    picture: The picture, of whose own pixels crops are cut.
    copies: How many.

  Returns:
    The Gram matrices of the layers that may be pruned.
  """
  keys = jax.random.split(key, copies)
  # The crops are made by themselves: so the large program is compiled once, and
  # not again for every size of pictures.
  crops = _crops(network.side, keys, jnp.asarray(picture.pixels))
  return spade.layer_grams(
    key,
    network.subject.capture,
    network.subject.params,
    crops,
    rules(network, network.sparsity),
    copies=1,
    augment=None,
    preprocess=_whole(network.normalise),
  )


@functools.partial(jax.jit, static_argnums=0)
def _crops(side, keys, pixels):
  image = pixels.astype(jnp.float32) / 255.0
  crop = functools.partial(spade.augment, size=(side, side))
  return jax.vmap(crop, in_axes=(0, None))(keys, image)


# One object for each network: compiled programs are looked up by it.
@functools.cache
def _whole(normalise: Callable) -> Callable:
  """Make the batch of crops, taken for one copy, the batch of the network."""
  return lambda copies: normalise(copies[0])


def rules(network: Network, sparsity: float) -> arms.Rules:
  """Return the rules by which the layers of a network are pruned."""
  kept: list[tuple[str, float | None]] = [(p, None) for p in network.kept]
  return [*kept, (".*", sparsity)]


def prune(
  network: Network,
  found: spade.LayerGrams,
  sparsity: float,
  *,
  damping: float = DAMPING,
  progress: Callable[[int, int], None] | None = None,
) -> tuple[Any, float]:
  """Prune a network for what its layers met.

  Args:
    network: The network.
    found: What they met.
    sparsity: The share to prune of every layer.
    damping: What is added to the diagonal of a Gram matrix.
    progress: Called with the number of layers done and of all.

  Returns:
    Parameters, and the share of zeros in the layers that were pruned.
  """
  params, report = spade.prune_layers(
    network.subject.params,
    found,
    rules(network, sparsity),
    damping=damping,
    progress=progress,
    has_aux=True,
  )
  names = jax.tree.leaves(tree.names(params))
  sizes = dict(zip(names, map(jnp.size, jax.tree.leaves(params)), strict=True))
  zeros = sum(float(made.sparsity) * sizes[p] for p, made in report.items())
  return params, zeros / sum(sizes[path] for path in report)


def attribute(
  key: jax.Array,
  network: Network,
  params: Any,
  x: jax.Array,
  target: int,
  method: str,
) -> np.ndarray:
  """Explain one class of one input.

  Args:
    key: A random key.
    network: The network.
    params: Parameters, dense or pruned: they share a compiled program.
    x: The input [1, side, side, C].
    target: The class.
    method: A key of `METHODS`.

  Returns:
    The map [side, side]: sums of sizes over the channels for gradients, signed
    sums for shares of the logit.
  """
  found = explanations.maps(
    network.methods[method],
    network.subject.f,
    key,
    jax.tree.map(lambda leaf: leaf[None], params),
    x,
    jnp.array([target]),
    per_example=True,
  )
  return np.asarray(found[0])


def best(probabilities: np.ndarray, number: int) -> list[int]:
  """Return the likeliest classes, the lower number first among equals."""
  return np.argsort(-probabilities, kind="stable")[:number].tolist()


def explain(
  key: jax.Array,
  network: Network,
  picture: Picture,
  methods: Sequence[str],
  *,
  target: int | None = None,
  sparsity: float | None = None,
  copies: int = COPIES,
  damping: float = DAMPING,
  shown: int = 5,
  progress: Callable[[str], None] | None = None,
) -> Explanation:
  """Explain a picture by the dense network and by one pruned for it.

  Args:
    key: A random key.
    network: The network.
    picture: The picture.
    methods: Keys of `METHODS`.
    target: The class to explain; by default the likeliest.
    sparsity: The share to prune of every layer; by default the network's own.
    copies: Random crops that say what the layers react to.
    damping: What is added to the diagonal of Gram matrices, as a share of its
      mean.
    shown: How many of the likeliest classes are named.
    progress: Called with what is being done.

  Returns:
    The explanation.

  Raises:
    ValueError: If there is no such method, or a number is out of range.
  """
  networks.check_methods(methods)
  sparsity = network.sparsity if sparsity is None else sparsity
  seconds: dict[str, float] = {}

  def timed(name: str, function: Callable[[], Any]) -> Any:
    if progress is not None:
      progress(name)
    start = time.perf_counter()
    result = function()
    seconds[name] = time.perf_counter() - start
    return result

  at_copies, at_methods = jax.random.split(key)
  seen = timed("prediction", lambda: look(network, picture))
  if target is None:
    target = best(seen.probabilities, 1)[0]
  grams = timed(
    "crops and Gram matrices",
    lambda: measure(at_copies, network, picture, copies),
  )
  traced, zeros = timed(
    "pruning", lambda: prune(network, grams, sparsity, damping=damping)
  )
  after = probabilities(network, traced, seen.x)
  maps = {}
  for method in methods:
    maps[method] = tuple(
      timed(
        f"{networks.METHODS[method]}, {arm}",
        functools.partial(
          attribute, at_methods, network, params, seen.x, target, method
        ),
      )
      for arm, params in (("dense", network.subject.params), ("SPADE", traced))
    )
  top = [
    (network.classes[i], float(seen.probabilities[i]), float(after[i]))
    for i in best(seen.probabilities, shown)
  ]
  return Explanation(
    network.title,
    seen.shown,
    picture.note,
    (target, network.classes[target]),
    (float(seen.probabilities[target]), float(after[target])),
    top,
    maps,
    zeros,
    {"copies": copies, "damping": damping, "sparsity": sparsity},
    seconds,
  )
