"""Edits and compression: does one outlast the other?

A model is edited and then pruned or quantised, or pruned or quantised first and
then edited, with pruned weights kept at zero. Beside both stands the compressed
model that nobody edited: what it has lost, compression took.
"""

import functools
import itertools
import pathlib
import types
from typing import Any, NamedTuple

import jax
import numpy as np

from effjax import adapters, pruning, tree
from effjax.adapters import quantized
from effjax.studies.edit import (
  arms,
  examiner,
  pretraining,
  sweep,
  tasks,
  updates,
)

Tree = Any
ORDERS = ("edited_first", "compressed_first")
KERNELS = r"layer_\d+/.*/kernel"  # what is pruned and quantised


class Level(NamedTuple):
  """How a model is compressed.

  Attributes:
    sparsity: share of each kernel that is pruned, the smallest weights.
    kind: of quantisation, a kind of `adapters.quantize`, or none.
    relearned: whether weights are pruned step by step while the model learns
      its world again, instead of at once.
  """

  sparsity: float = 0.0
  kind: str = ""
  relearned: bool = False

  @property
  def title(self) -> str:
    """What the level is called."""
    if self.kind:
      return self.kind
    if not self.sparsity:
      return "dense"
    again = " and relearned" if self.relearned else ""
    return f"{100 * self.sparsity:g} % pruned{again}"


def levels(options: Any) -> list[Level]:
  """List the levels of a study, dense first.

  Args:
    options: `interplay` of the configuration: `sparsities`, `kinds`, `arms`;
      `relearned`, sparsities of models that learn their world again.

  Returns:
    The levels.

  Raises:
    ValueError: If a sparsity, a kind or an arm is impossible.
  """
  for share in (*options.sparsities, *options.relearned):
    if not 0 < share < 1:
      raise ValueError(
        f"a model is pruned by a share between 0 and 1, say 0.5, got {share}"
      )
  for kind in options.kinds:
    if kind not in quantized.KINDS:
      raise ValueError(
        f"a model is quantised to {' or '.join(quantized.KINDS)}, got {kind!r}"
      )
  for name in options.arms:
    if arms.find(name).method not in ("full", "lora"):
      raise ValueError(
        f"the arm {name!r} cannot edit a pruned model; choose full or LoRA"
      )
  pruned = [Level(sparsity=share) for share in options.sparsities]
  coded = [Level(kind=kind) for kind in options.kinds]
  again = [Level(sparsity=s, relearned=True) for s in options.relearned]
  return [Level(), *pruned, *coded, *again]


def compress(params: Tree, level: Level) -> Tree:
  """Prune or quantise the kernels of all blocks.

  Args:
    params: Parameters.
    level: How.

  Returns:
    Parameters of the same shapes; quantised ones are the numbers that their
    codes stand for, which is what an adapter on a quantised base computes with.
  """
  if level.kind:
    coded = adapters.quantize(params, level.kind, where=KERNELS)
    return adapters.dequantize(coded)
  if not level.sparsity:
    return params
  scores = pruning.magnitude(params)
  masks = pruning.topk(scores, level.sparsity, where=KERNELS)
  return pruning.apply_mask(params, masks)


class Interplay:
  """The programs of this stage; each is compiled once for all levels."""

  def __init__(self, about: pretraining.Subject, config: Any):
    """Take a model and what is to be run.

    Args:
      about: The world and the model.
      config: The configuration.
    """
    self.about, self.config = about, config
    self.levels = levels(config.interplay)
    self._arms = {name: arms.find(name) for name in config.interplay.arms}
    self._adapters = {
      name: adapters.masked(
        adapters.lora(
          arm.rank,
          alpha=arm.scale * arm.rank,
          where=arms.selector(arm.targets) + "/kernel",
        )
      )
      for name, arm in self._arms.items()
      if arm.method == "lora"
    }
    self.sweep = sweep.Sweep(
      about.module, every=config.steps, adapters=self._adapters
    )

  def __call__(
    self,
    base: Tree,
    own: tasks.Tasks,
    seed: int,
    rates: np.ndarray,
    place: pathlib.Path,
  ) -> dict[str, np.ndarray]:
    """Compress and edit one model in both orders.

    Args:
      base: Parameters of the model.
      own: Its edits; those for tuning are left out.
      seed: Of initial factors.
      rates: Learning rates [arms, mixes].
      place: Where checkpoints are while a model learns again.

    Returns:
      Accuracies of the sets: `unedited` [levels, edits, sets], and by order
      [levels, arms, edits, mixes, sets], NaN where an arm cannot edit what is
      quantised, and where a model that learned again would have unlearned its
      edits; `recall` of all facts before edits, by family [levels,
      families]; `failed` [levels, arms, edits, mixes].
    """
    edits = range(self.config.tuning, len(own.made))
    mixes = range(len(self.config.mixes))
    shape = len(self.levels), len(self._arms), len(edits), len(mixes)
    sets = len(own.names)
    found = {name: np.full((*shape, sets), np.nan) for name in ORDERS}
    found["failed"] = np.zeros(shape, bool)
    bases: list[Tree] = []
    places = list(itertools.product(edits, mixes))
    edited: list[Tree] = [base] * len(edits)
    for number, level in enumerate(self.levels):
      small = self._small(base, level, seed, place)
      bases.append(small)
      for a, name in enumerate(self._arms):
        if level.kind and name not in self._adapters:
          continue  # its weights would not stay quantised
        outcome = self._edit(name, small, own, places, seed, rates[a])
        last = outcome.history["accuracy"][:, -1]
        found[ORDERS[1]][number, a] = last.reshape(*shape[2:], sets)
        found["failed"][number, a] = outcome.failed.reshape(shape[2:])
        if not number:
          edited += self._models(name, base, outcome.theta)
    about = [*edits, *[e for _ in self._arms for e, _ in places]]
    after = np.stack(
      [
        self._ask(
          [small] * len(edited)
          if level.relearned
          else [compress(params, level) for params in edited],
          own,
          about,
        )
        for level, small in zip(self.levels, bases, strict=True)
      ]
    )
    # To learn the world again is to unlearn an edit.
    again = [level.relearned for level in self.levels]
    after[again, len(edits) :] = np.nan
    found["unedited"] = after[:, : len(edits)]
    found[ORDERS[0]] = after[:, len(edits) :].reshape(*shape, sets)
    found["recall"] = np.array([self._recall(small) for small in bases])
    return found

  def _small(self, base, level, seed, place) -> Tree:
    """Compress a model that nobody edited."""
    if not level.relearned:
      return compress(base, level)
    steps, recipe = self.config.interplay.steps, self.config.pretraining
    # Half of the time is left to learn without losing more weights.
    half = steps // 2
    ramp = pruning.cubic(0.0, level.sparsity, 0, half, max(1, half // 10))
    own = {
      "steps": steps,
      "rate": self.config.interplay.rate,
      "warm_up": min(recipe.warm_up, steps // 4),
    }
    return pretraining.learn(
      self.about,
      types.SimpleNamespace(**{**dict(recipe), **own}),
      seed,
      place / f"seed{seed}",
      start=base,
      last=pruning.prune(ramp, mask="layer", where=KERNELS),
    )

  def _edit(self, name, base, own, places, seed, rates) -> sweep.Outcome:
    """Fine-tune one arm, pruned weights kept at zero."""
    arm, adapter = self._arms[name], self._adapters.get(name)
    made = []
    for edit, mix in places:
      options: dict[str, Any] = {"train": _kept(arm, base)}
      if adapter is not None:
        key = jax.random.fold_in(jax.random.key(seed), edit)
        theta, fixed = adapter.init(key, base)
        options = {"theta": theta, "fixed": fixed}
      made.append(
        updates.make_run(
          arm, base, rate=rates[mix], edit=edit, mix=mix, **options
        )
      )
    method = "sparse" if adapter is None else name
    return self.sweep(method, base, own.data, made, chunk=len(made), keep=True)

  def _models(self, name: str, base: Tree, theta: Tree) -> list[Tree]:
    """Take the edited models of an outcome apart."""
    count = len(jax.tree.leaves(theta)[0])
    each = [jax.tree.map(lambda x, i=i: x[i], theta) for i in range(count)]
    adapter = self._adapters.get(name)
    return (
      each
      if adapter is None
      else [adapter.merge(base, own, {}) for own in each]
    )

  def _ask(self, models, own, edits) -> np.ndarray:
    """Ask each model for the sets of its edit."""
    stacked = jax.tree.map(lambda *x: np.stack(x), *models)
    return np.array(
      _accuracy(self.about.module, stacked, own.data.asked, np.array(edits))
    )

  def _recall(self, params) -> list[float]:
    found = pretraining.recall(self.about, params)["recall"]
    return [found[name] for name in pretraining.families(self.about.world)]


def _kept(arm: arms.Arm, base: Tree) -> Tree:
  """Mask the weights that an arm trains and that are not pruned."""
  kernels = arms.kernels(base)
  return jax.tree.map(
    lambda name, chosen, leaf: (
      np.asarray(leaf) != 0
      if chosen and name in kernels
      else np.full(leaf.shape, bool(chosen))
    ),
    tree.names(base),
    arms.trainable(arm, base),
    base,
  )


@functools.partial(jax.jit, static_argnames="module")
def _accuracy(
  module: Any, models: Tree, asked: examiner.Asked, edits: jax.Array
) -> jax.Array:
  """Ask models [R, ...] for the sets of one edit each; [R, sets]."""

  def one(params, edit):
    own = jax.tree.map(lambda x: x[edit], asked)
    now = examiner.logits(module, params, own)
    return examiner.measure(now, now, own)["accuracy"]

  return jax.vmap(one)(models, edits)
