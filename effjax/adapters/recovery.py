"""A LoRA that begins with what quantising its base has lost.

LoftQ (Li et al. 2023, arXiv 2310.08659): the base is rounded, the best product
of low rank of what the rounding lost is taken from the weights, and so on.
"""

from typing import Any

import jax
import jax.numpy as jnp

from effjax import arguments
from effjax import tree as trees
from effjax.adapters import layouts
from effjax.adapters.base import Flat, key_of, widen
from effjax.adapters.factored import parts
from effjax.adapters.low_rank import Alpha, Rank, leading, lora
from effjax.adapters.quantized import dense_value, is_quantized, quantize

Tree = Any


def loftq(
  params: Tree,
  rank: Rank,
  kind: str = "nf4",
  *,
  iterations: int = 5,
  alpha: Alpha = None,
  where: trees.Where = None,
  layout: layouts.Layout = None,
  rank_stabilized: bool = False,
  block: int | None = None,
  double: bool = True,
) -> tuple[Tree, Flat]:
  """Quantise a base, and make the factors that bring it back nearest.

  In turn Q = quantize(W - s A B), from A B = 0, and s A B becomes the best
  approximation of W - Q of that rank. PEFT's program leaves s out, so that its
  result is right for s = 1 alone.

  Args:
    params: Any pytree of floating kernels.
    rank: As for `lora`, like `alpha`, `where`, `layout` and `rank_stabilized`.
    kind: As for `quantize`, like `block` and `double`.
    iterations: How often both are done, 1 or more.
    alpha: What the product is scaled with.
    where: Selector of the kernels, of which all are quantised.
    layout: Which axes of a kernel are inputs and outputs.
    rank_stabilized: Whether to divide by the square root of the rank.
    block: Weights that share a scale.
    double: Whether the scales of NF4 are quantised too.

  Returns:
    The tree with quantised kernels, and theta of `lora` with the same options.

  Raises:
    ValueError: If `iterations` is below 1 or a leaf is quantised already, or as
      `lora` and `quantize` do.

  >>> params = {"kernel": jax.random.normal(jax.random.key(0), (64, 64))}
  >>> base, theta = loftq(params, 8)
  >>> near = lora(8).merge(base, theta, {})["kernel"] - params["kernel"]
  >>> lost = dense_value(quantize(params)["kernel"]) - params["kernel"]
  >>> bool(jnp.linalg.norm(near) < 0.9 * jnp.linalg.norm(lost))
  True
  """
  iterations = arguments.whole("iterations", iterations)
  if any(map(is_quantized, jax.tree.leaves(params, is_leaf=is_quantized))):
    raise ValueError(
      "params must be floating kernels, got quantised ones, of which what was"
      " lost is not known"
    )
  adapter = lora(
    rank,
    alpha=alpha,
    where=where,
    layout=layout,
    rank_stabilized=rank_stabilized,
  )
  # B is 0 in the beginning, so no key matters.
  theta, fixed = adapter.init(jax.random.key(0), params)
  names = jax.tree.leaves(trees.names(params))
  leaves, structure = jax.tree.flatten(params)
  kernels = dict(zip(names, leaves, strict=True))
  found = parts(adapter, params, theta, fixed)
  words = {
    path: layouts.resolve(layout, path, kernels[path].shape) for path in found
  }
  base = params
  for _ in range(iterations):
    rest = dict(kernels)
    for path, part in found.items():
      product = part.scale * jnp.matmul(
        theta[key_of(path, "lora_a")],
        theta[key_of(path, "lora_b")],
        precision="highest",
      )
      matrix = layouts.to_matrix(widen(kernels[path]), words[path]) - product
      rest[path] = layouts.from_matrix(
        matrix, words[path], kernels[path].shape
      ).astype(kernels[path].dtype)
    base = quantize(
      structure.unflatten([rest[name] for name in names]),
      kind,
      where=structure.unflatten([name in found for name in names]),
      block=block,
      double=double,
      layout=layout,
    )
    coded = dict(zip(names, structure.flatten_up_to(base), strict=True))
    for path, part in found.items():
      lost = widen(kernels[path]) - widen(dense_value(coded[path]))
      matrix = layouts.to_matrix(lost, words[path])
      size = theta[key_of(path, "lora_a")].shape[-1]
      a, b = leading(matrix, size, part.scale)
      theta[key_of(path, "lora_a")], theta[key_of(path, "lora_b")] = a, b
  return base, theta
