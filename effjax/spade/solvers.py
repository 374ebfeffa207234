"""Ways to prune one layer for the inputs that it meets."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import pruning
from effjax.pruning import obs

_BLOCK = 128


class Problem(NamedTuple):
  """A layer to prune.

  Attributes:
    key: A random key.
    matrix: Its weights [I, O]; so are those of a solution, and its mask.
    met: The Gram matrix of its inputs [I, I], or few inputs as they are [M, I].
    few_inputs: Whether `met` is inputs.
    sparsity: The share to prune, a number.
    taps: How many neighbours of a row are the taps of one input channel.
    mask_block: Columns whose entries are chosen together, None for the solver's
      own choice.
    damping: What is added to the diagonal, as a share of its mean.
    convention: "exact" or "reference".
  """

  key: jax.Array
  matrix: jax.Array
  met: jax.Array
  few_inputs: bool
  sparsity: float
  taps: int
  mask_block: int | None
  damping: float
  convention: str


def sparsegpt(problem: Problem) -> obs.Solution:
  """Sweep over the columns; what stays makes up for what goes.

  Args:
    problem: The layer. By default the taps of one channel are chosen together,
      and 128 columns where there is one tap; by the reference one column.

  Returns:
    The solution, of FastSPADE (arXiv 2310.04519).
  """
  block = problem.mask_block
  if block is None:
    plain = problem.taps == 1 and problem.convention == "exact"
    block = _BLOCK if plain else problem.taps
  few = problem.few_inputs
  solve = obs.sparsegpt_from_inputs if few else obs.sparsegpt
  return solve(
    problem.matrix,
    problem.met,
    problem.sparsity,
    mask_block=block,
    damping=problem.damping,
    convention=problem.convention,
    transposed=True,
  )


def exact_obs(problem: Problem) -> obs.Solution:
  """Remove the cheapest weight, one after the other.

  Args:
    problem: The layer; layers of more than 512 inputs take long. By the
      reference as many neighbouring input channels of a tap go together as a
      kernel has taps.

  Returns:
    The solution, of SPADE (arXiv 2310.04519), whose program adds no damping.
  """
  met, taps = problem.met, problem.taps
  gram = pruning.input_gram(met) if problem.few_inputs else met
  solve = functools.partial(
    obs.exact_obs,
    sparsity=problem.sparsity,
    damping=problem.damping,
    convention=problem.convention,
  )
  w, block, order = problem.matrix.T, 1, np.arange(gram.shape[0])
  if problem.convention == "reference" and taps > 1:
    block, order = taps, order.reshape(-1, taps).T.reshape(-1)
  found = solve(w[:, order], gram[order][:, order], block=block)
  back = np.argsort(order)
  return found._replace(
    weights=found.weights[:, back].T, mask=found.mask[:, back].T
  )


def wanda(problem: Problem) -> obs.Solution:
  """Keep in each row the largest products of weight and input norm.

  Args:
    problem: The layer. By the reference floor(sparsity * I) go in each row, of
      equal products the first ones.

  Returns:
    The weights that stay, as they were (Sun et al. 2023, arXiv 2306.11695).
  """
  met = problem.met
  if problem.few_inputs:
    squares = jnp.sum(jnp.square(met), axis=0)
  else:
    squares = jnp.diagonal(met)
  norms = jnp.sqrt(squares)
  scores = jnp.abs(problem.matrix) * norms[:, None]
  if problem.convention == "exact":
    return _chosen(problem, scores, axis=1)
  removed = math.floor(scores.shape[0] * problem.sparsity)
  order = jnp.argsort(jnp.argsort(scores, axis=0, stable=True), axis=0)
  return _kept(problem, order >= removed)


def magnitude(problem: Problem) -> obs.Solution:
  """Keep the largest weights of the layer, whatever the example.

  Args:
    problem: The layer. By the reference all weights go that are no larger than
      the one of rank floor(sparsity * n), counted from 0: one more, and ties.

  Returns:
    The weights that stay, as they were.
  """
  sizes = jnp.abs(problem.matrix)
  if problem.convention == "exact":
    return _chosen(problem, sizes, axis=None)
  rank = min(math.floor(sizes.size * problem.sparsity), sizes.size - 1)
  return _kept(problem, sizes > jnp.sort(sizes, axis=None)[rank])


def random(problem: Problem) -> obs.Solution:
  """Keep weights drawn at random.

  Args:
    problem: The layer.

  Returns:
    The weights that stay, as they were.
  """
  scores = jax.random.uniform(problem.key, problem.matrix.T.shape).T
  return _chosen(problem, scores, axis=None)


def _chosen(
  problem: Problem, scores: jax.Array, axis: int | None
) -> obs.Solution:
  """Keep the weights with the largest scores [I, O], ties by row [O, I]."""
  mask = pruning.topk(
    scores.T, problem.sparsity, axis=axis, convention=problem.convention
  )
  return _kept(problem, mask.T)


def _kept(problem: Problem, mask: jax.Array) -> obs.Solution:
  """Keep the weights of a mask and change none."""
  weights = jnp.where(mask, problem.matrix, 0.0)
  change = problem.matrix - weights
  product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
  if problem.few_inputs:
    loss = 0.5 * jnp.sum(jnp.square(product(problem.met, change)))
  else:
    loss = 0.5 * jnp.sum(change * product(problem.met, change))
  return obs.Solution(weights, mask, loss, jnp.zeros((), weights.dtype))


SOLVERS: dict[str, Callable[[Problem], obs.Solution]] = {
  "sparsegpt": sparsegpt,
  "exact_obs": exact_obs,
  "wanda": wanda,
  "magnitude": magnitude,
  "random": random,
}
