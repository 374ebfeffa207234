"""Mean squared gradients of single examples, as they stream by."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import arguments
from effjax import tree as trees
from effjax.adapters.base import Tree, widen

MODES = ("mean_squared", "mean")


class GradientMean(NamedTuple):
  """A running mean over micro-batches.

  Attributes:
    count: Micro-batches so far, int32 [].
    mean: Means of the selected leaves, float32 or wider, None for the others.
  """

  count: jax.Array
  mean: Tree


def collect(
  loss: Callable[[Tree, Tree], jax.Array],
  params: Tree,
  batch: Tree,
  *,
  where: trees.Where = None,
  mode: str = "mean_squared",
  micro_batch: int = 1,
  state: GradientMean | None = None,
) -> GradientMean:
  """Average the squared gradients of single examples.

  With micro-batches of one example this is the diagonal of the empirical Fisher
  information, from which RoSA chooses its places; of larger ones the gradient
  of a micro-batch is squared as a whole. One micro-batch after the other is
  differentiated, with respect to the selected leaves only: what is kept at any
  time is one gradient of them, and the mean.

  Args:
    loss: `(params, examples) -> scalar`; examples has the leaves of the batch,
      [micro_batch, ...].
    params: Where gradients are taken, such as `adapter.merge(...)` while the
      low-rank part warms up.
    batch: A tree of arrays [N, ...], N a multiple of `micro_batch`.
    where: Selector of the leaves; by default floating ones of rank 2 or more.
    mode: "mean_squared", or "mean" of the gradients themselves.
    micro_batch: Examples that are differentiated together.
    state: What earlier batches gave, which the result continues.

  Returns:
    The running mean; its `mean` goes to `sparse_masks`.

  Raises:
    ValueError: If the mode is unknown, `micro_batch` no whole number above 0 or
      the batch cannot be divided.

  >>> loss = lambda w, x: jnp.sum(w * x)
  >>> x = jnp.array([[[1.0, 2.0]], [[3.0, 0.0]]])
  >>> collect(loss, jnp.ones((1, 1, 2)), x).mean.tolist()
  [[[5.0, 2.0]]]
  """
  if mode not in MODES:
    raise ValueError(
      f"there is no mode {mode!r}; choose one of"
      f" {', '.join(trees.nearest(mode, MODES))}"
    )
  micro_batch = arguments.whole("micro_batch", micro_batch)
  shapes = [np.shape(x) for x in jax.tree.leaves(batch)]
  counts = {shape[:1] for shape in shapes}
  if len(counts) != 1 or () in counts or counts.pop()[0] % micro_batch:
    raise ValueError(
      f"the batch has arrays of shapes {shapes}; all must begin with the same"
      f" number, a multiple of micro_batch={micro_batch}"
    )
  trained, rest = trees.partition(params, where)
  split = lambda x: x.reshape(-1, micro_batch, *x.shape[1:])
  if state is None:
    zeros = jax.tree.map(lambda p: jnp.zeros_like(widen(p)), trained)
    state = GradientMean(jnp.zeros((), jnp.int32), zeros)

  def step(state: GradientMean, examples: Tree) -> tuple[GradientMean, None]:
    own = lambda trained: loss(trees.combine(trained, rest), examples)
    grads = jax.grad(own)(trained)

    def mix(mean: jax.Array, grad: jax.Array) -> jax.Array:
      new = widen(grad)
      new = new * new if mode == "mean_squared" else new
      count = state.count.astype(mean.dtype)
      return (mean * count + new) / (count + 1)

    return GradientMean(
      state.count + 1, jax.tree.map(mix, state.mean, grads)
    ), None

  return jax.lax.scan(step, state, jax.tree.map(split, batch))[0]
