"""Sparse from start to finish: SET and RigL move weights about while training.

The masks start at random and keep their size. At every update each layer drops
its smallest live weights and grows as many others, where the gradient is
largest (RigL) or at random (SET); a grown weight starts at zero.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from effjax import tree as trees
from effjax.pruning import scores as scoring
from effjax.pruning.allocation import count_kept, erk
from effjax.pruning.deferred import as_deferred
from effjax.pruning.masks import topk
from effjax.pruning.schedules import Schedule, check
from effjax.pruning.updates import (
  gradients_of,
  is_placeholder,
  prune_updates,
)

Tree = Any


class DynamicState(NamedTuple):
  """State of `dynamic`; find the masks with `optax.tree.get(state, "mask")`.

  Attributes:
    count: Number of updates done, int32 [].
    mask: Masks, True = kept, None for leaves that are not pruned.
    key: Typed random key; that of an update is folded from it.
    steps: Steps at which the masks are updated, int32 [U].
    moved: How many weights each layer moves at each of them, int32 [U, L].
  """

  count: jax.Array
  mask: Tree
  key: jax.Array
  steps: jax.Array
  moved: jax.Array


def dynamic(
  key: jax.Array,
  schedule: Schedule,
  *,
  grow: str = "gradient",
  fraction: float = 0.3,
  where: trees.Where = None,
  allocation: Callable = erk,
) -> optax.GradientTransformationExtraArgs:
  """Train sparse with moving masks, as the last link of `optax.chain`.

  The parameters become sparse with the first update; mask them beforehand with
  `apply_mask(params, optax.tree.get(state, "mask"))` if the first loss matters.

  Args:
    key: Typed random key of the first masks and of random growth.
    schedule: Its steps say when masks move and its last level is the sparsity;
      see `pruning.constant`.
    grow: "gradient" (RigL, Evci et al. 2020, arXiv 1911.11134) or "random"
      (SET, Mocanu et al. 2018, arXiv 1707.04780). Gradients are those given to
      `update(..., grads=)`, or the updates that arrive if none are given.
    fraction: Share of the live weights of a layer that the first update moves;
      it falls to zero along a half cosine until the last one.
    where: Selector of the leaves; by default floating ones of rank 2 or more.
    allocation: Sparsity of each leaf, `erk` or `uniform`.

  Returns:
    A transformation whose `update` needs the parameters.

  Raises:
    ValueError: If `grow` is unknown, `fraction` is outside [0, 1], the schedule
      has no steps, or nothing is selected.

  >>> from effjax.pruning.schedules import constant
  >>> optimizer = optax.chain(
  ...   optax.sgd(0.1), dynamic(jax.random.key(0), constant(0.5, 10, 50, 10))
  ... )
  >>> state = optimizer.init({"w": jnp.ones((4, 4))})
  >>> int(jnp.sum(optax.tree.get(state, "mask")["w"]))
  8
  """
  if grow not in ("gradient", "random"):
    raise ValueError(f"grow must be 'gradient' or 'random', not {grow!r}")
  if not 0.0 <= fraction <= 1.0:
    raise ValueError(f"fraction {fraction} is outside [0, 1]")
  if not check(schedule).steps:
    raise ValueError("the schedule has no steps at which masks could move")

  def init_fn(params: Tree) -> DynamicState:
    if is_placeholder(params):
      nothing: list[Any] = [0] * len(DynamicState._fields)
      return DynamicState(*nothing)
    chosen = trees.select(params, where)
    shares = allocation(params, schedule.levels[-1], where=chosen)
    start, later = jax.random.split(key)
    masks = topk(scoring.random(start, params), shares, where=chosen)
    kept = [
      count_kept(leaf.size, share)
      for leaf, share in zip(
        jax.tree.leaves(trees.partition(params, chosen)[0]),
        jax.tree.leaves(shares),
        strict=True,
      )
    ]
    first, last = schedule.steps[0], schedule.steps[-1]
    shrink = [
      fraction
      / 2
      * (1 + math.cos(math.pi * (s - first) / max(last - first, 1)))
      for s in schedule.steps
    ]
    sizes = [m.size for m in jax.tree.leaves(masks)]
    moved = [
      # No layer can grow more weights than it has pruned ones.
      [
        min(math.floor(f * k + 0.5), n - k)
        for k, n in zip(kept, sizes, strict=True)
      ]
      for f in shrink
    ]
    return DynamicState(
      count=jnp.zeros((), jnp.int32),
      mask=masks,
      key=later,
      steps=jnp.asarray(schedule.steps, jnp.int32),
      moved=jnp.asarray(moved, jnp.int32),
    )

  def move(params: Tree, grads: Tree, state: DynamicState, moved: jax.Array):
    chosen = jax.tree.map(lambda _, m: m is not None, params, state.mask)
    numbers = iter(moved)
    drop = jax.tree.map(lambda _: next(numbers), state.mask)
    left = jax.tree.map(
      lambda m, d: jnp.sum(m, dtype=jnp.int32) - d, state.mask, drop
    )
    magnitude = scoring.SCORES["magnitude"]
    live = scoring.deferred(magnitude, params, None)
    live = scoring.hold_down(live, state.mask)
    stay = topk(live, keep=left, where=chosen)
    if grow == "gradient":
      want = scoring.deferred(magnitude, grads, None)
    else:
      want = scoring.random(jax.random.fold_in(state.key, state.count), params)
      want = as_deferred(want)
    # A weight that was just dropped may not come straight back.
    dead = jax.tree.map(jnp.logical_not, state.mask)
    grown = topk(scoring.hold_down(want, dead), keep=drop, where=chosen)
    return jax.tree.map(jnp.logical_or, stay, grown)

  def update_fn(
    updates: Tree,
    state: DynamicState,
    params: Tree = None,
    *,
    grads: Tree = None,
    **extra: Any,
  ) -> tuple[Tree, DynamicState]:
    del extra
    if params is None:
      raise ValueError(
        "dynamic needs the parameters: optimizer.update(updates, state, params)"
      )
    hit = state.steps == state.count
    moved = jnp.sum(
      jnp.where(hit[:, None], state.moved, 0), axis=0, dtype=jnp.int32
    )
    masks = jax.lax.cond(
      jnp.any(hit),
      lambda: move(params, gradients_of(updates, params, grads), state, moved),
      lambda: state.mask,
    )
    # Weights that were pruned before, grown ones included, start at zero.
    alive = jax.tree.map(jnp.logical_and, masks, state.mask)
    return prune_updates(updates, params, alive), state._replace(
      count=jnp.asarray(optax.safe_increment(state.count)), mask=masks
    )

  # optax types a state as any tree of arrays; this one is a named tuple.
  # pyrefly: ignore[bad-argument-type]
  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
