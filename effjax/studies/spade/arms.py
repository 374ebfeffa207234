"""The arms of the study: networks that are explained instead of the dense one.

Every arm maps examples to parameters. Those of one network for all examples
have no leading axis; the others are pruned for each example by itself.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import models, spade, tree
from effjax.studies.spade import trojans

Rules = Sequence[tuple[str, float | None]]

# Pruned for each example, and the solver of each.
SOLVERS = {
  "fast_spade": "sparsegpt",
  "spade": "exact_obs",
  "wanda": "wanda",
  "magnitude": "magnitude",
  "random": "random",
}
TITLES = {
  "dense": "dense",
  "fast_spade": "FastSPADE",
  "spade": "SPADE, exact",
  "wanda": "Wanda",
  "magnitude": "magnitude",
  "random": "random",
  "sparse_head": "sparse last layer",
}
_BATCH = 500  # images that go through the network at once


class Subject(NamedTuple):
  """A network that is explained.

  Attributes:
    f: `(params, its inputs) -> logits`.
    capture: The same with the inputs of layers, `(logits, inputs)`.
    params: Its parameters.
    normalise: From pixels 0..1 [N, H, W, C] to its inputs.
    kept: Patterns of the kernels that are never pruned.
  """

  f: Callable
  capture: Callable
  params: Any
  normalise: Callable[[jax.Array], jax.Array] = trojans.normalise
  kept: tuple[str, ...] = ()


def subject(module: Any, variables: Any) -> Subject:
  """Bind the statistics of a network.

  Args:
    module: A linen module.
    variables: Its variables.

  Returns:
    The network as a function of its parameters.
  """
  rest = {k: v for k, v in variables.items() if k != "params"}

  def f(params, x):
    return module.apply({**rest, "params": params}, x, train=False)

  capture = models.capture(module, variables, train=False)
  return Subject(f, capture, variables["params"])


def _copy(limit: float, key: jax.Array, image: jax.Array) -> jax.Array:
  return spade.augment(key, image, area=(limit, 1.0))


# One object for each limit: a trace looks up compiled programs by it.
@functools.cache
def copier(limit: float) -> Callable:
  """Make random copies of crops that cover at least a share of the image."""
  return functools.partial(_copy, limit)


def trace(
  network: Subject,
  key: jax.Array,
  images: jax.Array,
  rules: Rules,
  config: Any,
  solver: str = "sparsegpt",
  **changes: Any,
) -> Any:
  """Prune a network for each image.

  Args:
    network: The network.
    key: A random key.
    images: Pixels from 0 to 1, [N, H, W, C].
    rules: The sparsities.
    config: `copies`, `damping`, `least_area`.
    solver: A key of `spade.SOLVERS`.
    **changes: Other values of what `config` says, or of `mask_block`.

  Returns:
    Parameters with a leading axis N.
  """
  options = {
    "copies": config.copies,
    "damping": config.damping,
    **changes,
  }
  return spade.trace(
    key,
    network.capture,
    network.params,
    images,
    rules,
    augment=copier(config.least_area),
    preprocess=network.normalise,
    solver=solver,
    **options,
  )


def split_by_size(network: Subject, rules: Rules, most: int) -> tuple:
  """Split rules into those for small layers and those for large ones.

  Args:
    network: The network.
    rules: The rules.
    most: Inputs of a small layer at most.

  Returns:
    Rules that leave large layers as they are, and rules that leave small ones.
  """
  kernels = {
    name: leaf
    for name, leaf in zip(
      jax.tree.leaves(tree.names(network.params)),
      jax.tree.leaves(network.params),
      strict=True,
    )
    if tree.default_where(name, leaf)
  }
  shares = tree.assign(kernels, list(rules))
  small, large = [], []
  for name, leaf in kernels.items():
    fits = int(np.prod(leaf.shape[:-1])) <= most
    small.append((name, shares[name] if fits else None))
    large.append((name, None if fits else shares[name]))
  return small, large


def exact(
  network: Subject,
  key: jax.Array,
  images: jax.Array,
  rules: Rules,
  config: Any,
) -> Any:
  """Prune small layers by the exact solver, larger ones by the fast one.

  Args:
    network: The network.
    key: A random key.
    images: Pixels from 0 to 1, [N, H, W, C].
    rules: The sparsities.
    config: As for `trace`, and `exact_inputs`: what small means.

  Returns:
    Parameters with a leading axis N.
  """
  small, large = split_by_size(network, rules, config.exact_inputs)
  names = tree.names(network.params)
  exactly = dict(small)
  parts = {}
  for solver, part in (("exact_obs", small), ("sparsegpt", large)):
    if any(share is not None for _, share in part):
      parts[solver] = trace(network, key, images, part, config, solver)
  if len(parts) == 1:
    return next(iter(parts.values()))
  pick = lambda name, one, other: (
    one if exactly.get(name) is not None else other
  )
  return jax.tree.map(pick, names, parts["exact_obs"], parts["sparsegpt"])


def with_sparse_head(
  network: Subject,
  head: str,
  images: jax.Array,
  labels: np.ndarray,
  classes: int,
  strength: float,
) -> tuple[Any, float]:
  """Replace the last layer by a sparse one, fitted on clean images.

  Args:
    network: The network.
    head: The path of the last layer.
    images: Pixels from 0 to 1, [N, H, W, C].
    labels: Their classes [N].
    classes: How many there are.
    strength: Of the elastic net.

  Returns:
    Parameters, and the share of zeros in the new layer.
  """
  features = jax.jit(
    lambda params, x: network.capture(params, x)[1][f"{head}/kernel"]
  )
  size = min(_BATCH, len(images))
  met = jnp.concatenate(
    [
      features(network.params, network.normalise(images[i : i + size]))
      for i in range(0, len(images) // size * size, size)
    ]
  )
  kernel, bias = spade.sparse_head(
    met, jnp.asarray(labels[: len(met)]), classes, strength=strength
  )
  layer = {"kernel": kernel, "bias": bias}
  zeros = float(jnp.mean(kernel == 0.0, dtype=jnp.float32))
  return {**network.params, head: layer}, zeros
