"""A fine-tuning as numbers that a program takes, and what it makes of a model.

Which leaves are trained is a tree of booleans, the rank of LoRA a mask over
factors of rank `arms.RANK`, the learning rate a number.
"""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import editing, tree
from effjax.studies.edit import arms

Tree = Any
Numbers = jax.Array | np.ndarray


class Run(NamedTuple):
  """One fine-tuning, or many with a leading axis.

  Attributes:
    train: which leaves are trained: bool, one for each leaf or for each weight.
    rank: bool [R], which columns of the factors there are.
    scale: of the product of factors, float32 [].
    rate: learning rate [].
    decay: weight decay [].
    clamp: how far a parameter may go [].
    edit: number of the edit, int32 [].
    mix: number of the mix, int32 [].
    theta: what is trained, in the beginning; None for parameters themselves.
    fixed: what belongs to it and is not trained.
  """

  train: Tree
  rank: Numbers
  scale: Numbers
  rate: Numbers
  decay: Numbers
  clamp: Numbers
  edit: Numbers
  mix: Numbers
  theta: Tree = None
  fixed: Tree = None


def make_run(
  arm: arms.Arm,
  base: Tree,
  *,
  rate: float,
  edit: int,
  mix: int,
  theta: Tree = None,
  fixed: Tree = None,
  train: Tree = None,
) -> Run:
  """Write an arm as the arguments of a program.

  Args:
    arm: The arm.
    base: Parameters.
    rate: Learning rate.
    edit: Number of the edit.
    mix: Number of the mix.
    theta: What is trained in the beginning, but of full fine-tuning.
    fixed: What goes with it.
    train: Masks instead of those of the arm, see `Run`.

  Returns:
    The run.
  """
  if train is None:
    train = _masks(arm, base, theta)
  number = lambda x: np.asarray(x, np.float32)
  return Run(
    train=train,
    rank=np.arange(arms.RANK) < arm.rank,
    scale=number(arm.scale),
    rate=number(rate),
    decay=number(0.0),
    clamp=number(arm.clamp),
    edit=np.asarray(edit, np.int32),
    mix=np.asarray(mix, np.int32),
    theta=theta,
    fixed=fixed,
  )


def _masks(arm, base, theta) -> Tree:
  """Mask leaves of parameters, or what belongs to a kernel by its path."""
  if theta is None:
    return arms.trainable(arm, base)
  pattern = re.compile(arms.selector(arm.targets))
  masks = {}
  for path, value in theta.items():
    chosen = np.asarray(pattern.fullmatch(path) is not None)
    masks[path] = jax.tree.map(lambda _, chosen=chosen: chosen, value)
  return masks


def factors(key: jax.Array, params: Tree, rank: int = arms.RANK) -> Tree:
  """Draw the factors that LoRA begins with.

  Column j of A depends on its kernel and on j alone, so that factors of less
  rank are the first columns of those of more.

  Args:
    key: A typed random key.
    params: Parameters.
    rank: Columns R.

  Returns:
    By path of the kernel a pair: A [I, R], uniform in +-sqrt(1 / I), and B
    [R, O] of zeros.
  """
  found = {}
  for path, kernel in arms.kernels(params).items():
    own = tree.keys(key, {path: 0})[path]
    columns = jnp.arange(rank)
    draw = lambda j, own=own, size=kernel.shape[0]: jax.random.uniform(
      jax.random.fold_in(own, j), (size,), minval=-1.0
    )
    a = jax.vmap(draw, out_axes=1)(columns) * kernel.shape[0] ** -0.5
    found[path] = (a, jnp.zeros((rank, kernel.shape[1]), a.dtype))
  return found


def merged(base: Tree, theta: Tree, run: Run) -> Tree:
  """Add the products of factors to kernels, W + s A diag(m) B.

  Args:
    base: Parameters.
    theta: Factors, see `factors`.
    run: The run, whose `train` says for each kernel whether it changes.

  Returns:
    Parameters.
  """

  def change(path, leaf):
    if path not in theta:
      return leaf
    a, b = theta[path]
    kept = jnp.where(run.rank[None, :], a, 0.0)
    moved = leaf + run.scale * (kept @ b)
    return jnp.where(run.train[path][0], moved, leaf)

  return jax.tree.map(change, tree.names(base), base)


def truncated(base: Tree, theta: Tree, run: Run) -> Tree:
  """Keep of the change of each kernel its leading singular directions.

  Args:
    base: Parameters before.
    theta: Parameters after.
    run: The run, whose `rank` says how many.

  Returns:
    Parameters; what is no kernel of a block is that of `theta`.
  """
  delta = editing.task_vector(base, theta)
  kernels = {path: delta.pop(path) for path in arms.kernels(base)}
  count = jnp.sum(run.rank, dtype=jnp.int32)
  return editing.add(base, delta | editing.project(kernels, count))


def both(base: Tree, theta: Tree, run: Run) -> Tree:
  """Add the products of factors to kernels some of whose weights are trained.

  Args:
    base: Parameters, which are not read.
    theta: "weights", parameters, and "factors", see `factors`.
    run: The run, whose `train` has masks of both.

  Returns:
    Parameters.
  """
  del base
  own = run._replace(train=run.train["factors"])
  return merged(theta["weights"], theta["factors"], own)
