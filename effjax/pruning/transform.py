"""Pruning as the last link of an optax chain.

The update that leaves the chain is `-p` where a weight is pruned, so that
`optax.apply_updates` yields an exact zero there, in any type, and nothing else
has to be called. Everything that can differ between the members of a population
(steps, counts, masks) is an array in the state, so that one compiled update
serves stacked states.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import tree as trees
from effjax.pruning import scores as scoring
from effjax.pruning.allocation import uniform
from effjax.pruning.counts import static_kept
from effjax.pruning.deferred import as_deferred
from effjax.pruning.integers import Wide, wide
from effjax.pruning.masks import global_topk, topk
from effjax.pruning.schedules import Schedule, check
from effjax.pruning.structured import MASKS, channels
from effjax.pruning.updates import (
  gradients_of,
  is_placeholder,
  promote,
  prune_updates,
)

Tree = Any


class PruneState(NamedTuple):
  """State of `prune`; find the masks with `optax.tree.get(state, "mask")`.

  Attributes:
    count: Number of updates done, int32 [].
    mask: Masks, True = kept, None for leaves that are not pruned.
    steps: Steps at which the masks are updated, int32 [U].
    keep: Counts of kept weights at each of them as two words, int32 [U, G, 2];
      one group for a global mask, one for each leaf otherwise.
    dense: With `regrow`, the dense weights of the selected leaves, else None.
    key: Typed random key of random scores, else None.
    squared: For the score "fisher" the moving average of squared gradients of
      the selected leaves, float32 or wider, else None.
  """

  count: jax.Array
  mask: Tree
  steps: jax.Array
  keep: jax.Array
  dense: Tree
  key: jax.Array | None = None
  squared: Tree = None


# Of the moving average of squared gradients: the last hundred updates count.
_DECAY = 0.99


def _score_function(score: str | Callable) -> Callable[[Tree, Tree], Tree]:
  """Make any score a function of (params, grads)."""
  if isinstance(score, str):
    if score not in scoring.SCORES:
      known = [*scoring.SCORES, "random"]
      raise ValueError(
        f"there is no score {score!r}; choose one of"
        f" {', '.join(trees.nearest(score, known))}"
      )
    return scoring.SCORES[score]
  needed = [
    p
    for p in inspect.signature(score).parameters.values()
    if p.default is p.empty
    and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
  ]
  if len(needed) == 1:
    return lambda params, grads: score(params)
  return score


def _mask_function(mask: str | Callable) -> Callable:
  if isinstance(mask, str):
    if mask not in MASKS:
      raise ValueError(
        f"there is no kind of mask {mask!r}; choose one of"
        f" {', '.join(trees.nearest(mask, list(MASKS)))}"
      )
    return MASKS[mask]
  return mask


def _counts(
  levels: tuple[float, ...],
  params: Tree,
  chosen: Tree,
  mask: Callable,
  allocation: Callable,
) -> np.ndarray:
  """Compute the counts [U, G] of kept weights on the host."""
  picked = jax.tree.leaves(trees.partition(params, chosen)[0])
  options = getattr(mask, "keywords", {})
  axis = options.get("axis", -1 if _is(mask, channels) else None)
  kept = functools.partial(
    static_kept, convention=options.get("convention", "exact")
  )
  rows = []
  for level in levels:
    if _is(mask, global_topk):
      rows.append([kept(sum(leaf.size for leaf in picked), level)])
    elif _is(mask, topk) or _is(mask, channels):
      shares = jax.tree.leaves(allocation(params, level, where=chosen))
      sizes = [p.size if axis is None else p.shape[axis] for p in picked]
      rows.append([kept(n, s) for n, s in zip(sizes, shares, strict=True)])
    else:
      rows.append([0])
  return np.asarray(rows, np.int64)


def _is(mask: Callable, function: Callable) -> bool:
  return getattr(mask, "func", mask) is function


def prune(
  schedule: Schedule,
  *,
  score: str | Callable = "magnitude",
  mask: str | Callable = "global",
  where: trees.Where = None,
  allocation: Callable = uniform,
  regrow: bool = False,
  key: jax.Array | None = None,
) -> optax.GradientTransformationExtraArgs:
  """Prune while training, as the last link of `optax.chain`.

  At the steps of the schedule the weights that enter the update are scored and
  the masks chosen; from then on the pruned weights are exactly zero. Pruned
  weights stay pruned unless `regrow` is set or the schedule alternates.

  The update of a pruned weight is minus the weight, which no sum with it makes
  zero where it is infinite or NaN: such a weight becomes NaN.

  Args:
    schedule: When to update the masks and to which sparsity.
    score: A name of `scoring.SCORES` or a function of `(params)` or of
      `(params, grads)`; the gradients are those given to
      `update(..., grads=)`, or the updates that arrive if none are given.
      "random" draws new scores at every update of the masks and needs `key`;
      "fisher" averages the squared gradients of about the last 100 updates.
    mask: A name of `MASKS` ("global", "layer", "2:4", ...) or a function such
      as `pruning.topk`. N:M masks ignore the sparsity of the schedule.
    where: Selector of the leaves; by default floating ones of rank 2 or more.
    allocation: Sparsity of each leaf for the layer-wise mask, such as `erk`.
    regrow: Keep the dense weights in the state, train them with the gradients
      at the sparse ones, and choose the masks from them.
    key: Typed random key of the score "random".

  Returns:
    A transformation whose `update` needs the parameters.

  Raises:
    ValueError: If a name is unknown, the schedule is none, nothing is selected,
      or the parameters are missing.

  >>> from effjax.pruning.schedules import one_shot
  >>> params = {"w": jnp.array([[3.0, -1.0], [0.5, 2.0]])}
  >>> optimizer = optax.chain(optax.sgd(0.1), prune(one_shot(0.5)))
  >>> state = optimizer.init(params)
  >>> updates, state = optimizer.update(params, state, params)
  >>> optax.apply_updates(params, updates)["w"].tolist()
  [[2.700000047683716, 0.0], [0.0, 1.7999999523162842]]
  """
  check(schedule)
  draws = score == "random"
  if draws != (key is not None):
    raise ValueError(
      'the score "random" needs key=, a typed random key, and no other score'
      " takes one"
    )
  averages = score == "fisher" or score is scoring.fisher
  score_of = (
    None if draws else scoring.fisher if averages else _score_function(score)
  )
  elementwise = (scoring.fisher, *scoring.SCORES.values())
  mask_of = _mask_function(mask)
  # These two need no array of scores; along an axis they do.
  by_reading = (_is(mask_of, global_topk) or _is(mask_of, topk)) and (
    getattr(mask_of, "keywords", {}).get("axis") is None
  )

  def init_fn(params: Tree) -> PruneState:
    if is_placeholder(params):
      nothing: list[Any] = [0] * len(PruneState._fields)
      return PruneState(*nothing)
    chosen = trees.select(params, where)
    masks = jax.tree.map(
      lambda p, c: jnp.ones_like(p, dtype=bool) if c else None, params, chosen
    )
    # One row more tells the number of groups when the schedule has no steps.
    levels = (0.0, *schedule.levels)
    keep = wide(_counts(levels, params, chosen, mask_of, allocation)[1:])
    dense = (
      jax.tree.map(lambda p, c: jnp.asarray(p) if c else None, params, chosen)
      if regrow
      else None
    )
    return PruneState(
      count=jnp.zeros((), jnp.int32),
      mask=masks,
      steps=jnp.asarray(schedule.steps, jnp.int32),
      keep=jnp.stack([keep.high, keep.low], axis=-1),
      dense=dense,
      key=key,
      squared=_zeros(params, chosen) if averages else None,
    )

  def choose(weights: Tree, grads: Tree, state: PruneState, row: Any) -> Tree:
    chosen = jax.tree.map(lambda _, m: m is not None, weights, state.mask)
    free = regrow or schedule.alternates
    if state.squared is not None:
      grads = _overlay(grads, state.squared)
    if score_of is None:
      assert state.key is not None  # checked above
      own = jax.random.fold_in(state.key, state.count)
      scores = scoring.random(own, weights)
    elif by_reading and score_of in elementwise:
      scores = scoring.deferred(score_of, weights, grads)
    else:
      scores = score_of(weights, grads)
    if by_reading:
      scores = as_deferred(scores)
    if not free:
      scores = scoring.hold_down(scores, state.mask)
    if _is(mask_of, global_topk):
      masks = mask_of(scores, keep=Wide(row[0, 0], row[0, 1]), where=chosen)
    elif _is(mask_of, topk) or _is(mask_of, channels):
      words = iter(row)
      counts = jax.tree.map(lambda c: Wide(*next(words)) if c else None, chosen)
      masks = mask_of(scores, keep=counts, where=chosen)
    else:
      masks = mask_of(scores, where=chosen)
    return masks if free else jax.tree.map(jnp.logical_and, masks, state.mask)

  def update_fn(
    updates: Tree,
    state: PruneState,
    params: Tree = None,
    *,
    grads: Tree = None,
    **extra: Any,
  ) -> tuple[Tree, PruneState]:
    del extra
    if params is None:
      raise ValueError(
        "prune needs the parameters: optimizer.update(updates, state, params)"
      )
    hit = state.steps == state.count
    row = jnp.sum(
      jnp.where(hit[:, None, None], state.keep, 0), axis=0, dtype=jnp.int32
    )
    gradients = gradients_of(updates, params, grads)
    if state.squared is not None:
      state = state._replace(squared=_averaged(gradients, state.squared))
    weights = params if state.dense is None else _overlay(params, state.dense)
    masks = jax.lax.cond(
      jnp.any(hit),
      lambda: choose(weights, gradients, state, row),
      lambda: state.mask,
    )
    dense = state.dense
    if dense is not None:
      dense = jax.tree.map(
        lambda u, d: (
          None if d is None else (promote(d, u) + promote(u, d)).astype(d.dtype)
        ),
        updates,
        dense,
      )
      updates = jax.tree.map(
        lambda u, p, d: u if d is None else d - p, updates, params, dense
      )
    return prune_updates(updates, params, masks), state._replace(
      count=jnp.asarray(optax.safe_increment(state.count)),
      mask=masks,
      dense=dense,
    )

  # optax types a state as any tree of arrays; this one is a named tuple.
  # pyrefly: ignore[bad-argument-type]
  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _zeros(params: Tree, chosen: Tree) -> Tree:
  """Make the average of no squared gradients."""
  return jax.tree.map(
    lambda p, c: jnp.zeros(p.shape, _wide(p.dtype)) if c else None,
    params,
    chosen,
  )


def _wide(dtype: Any) -> Any:
  return jnp.promote_types(dtype, jnp.float32)


def _averaged(gradients: Tree, squared: Tree) -> Tree:
  """Add the squares of new gradients to their moving average."""
  return jax.tree.map(
    lambda g, s: (
      None
      if s is None
      else _DECAY * s + (1 - _DECAY) * jnp.square(g.astype(s.dtype))
    ),
    gradients,
    squared,
  )


def _overlay(params: Tree, partial: Tree) -> Tree:
  """Replace the leaves that the other tree has."""
  return jax.tree.map(lambda p, d: p if d is None else d, params, partial)
