"""Fine-tuning a language model on dialogues by a plan.

RoSA needs places for its sparse weights before it trains: the low-rank part
warms up alone, squared gradients of single examples choose the places where it
then stands, and training begins anew with both parts (Nikdan et al. 2024, arXiv
2401.04679).
"""

import copy
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import adapters, training, tree
from effjax.data import batches as batching
from effjax.data import packing
from effjax.data.dialogues import Example
from effjax.io import safetensors
from effjax.studies.adapters import plans
from effjax.training import language


class Tuned(NamedTuple):
  """What fine-tuning made.

  Attributes:
    chosen: What was trained.
    trained: Its values, of adapters theta.
    frozen: What was not trained.
  """

  chosen: plans.Chosen
  trained: Any
  frozen: Any

  @property
  def merged(self) -> Any:
    """The parameters of the model afterwards."""
    return self.chosen.arm.merge(self.trained, self.frozen)


class Tuner:
  """Fine-tunes a model by plans; what was compiled for one serves the next."""

  def __init__(self, module: Any, params: Any, examples: Sequence[Example]):
    """Take a model and what it shall learn.

    Args:
      module: A `models.Llama`.
      params: Its parameters, layers not stacked.
      examples: The texts to train on.
    """
    self.module = module.clone(apply_part=adapters.dense)
    self.params = params
    self.examples = examples
    self.variants: Callable[[int], Sequence[Example]] | None = None
    self.beginning = packing.common_beginning(examples)
    self._steps: dict[Any, Any] = {}

  def on(
    self,
    examples: Sequence[Example],
    params: Any = None,
    *,
    variants: Callable[[int], Sequence[Example]] | None = None,
    beginning: int | None = None,
  ) -> "Tuner":
    """Take other texts, and what was compiled already.

    Args:
      examples: The texts to train on.
      params: Other parameters of the same shapes, or None.
      variants: The texts of each epoch, as in `packing.packed`.
      beginning: How many tokens all texts begin with, likewise; by default as
        many as they do, and none where there are variants.

    Returns:
      A tuner.
    """
    other = copy.copy(self)
    other.examples, other.variants = examples, variants
    if beginning is None:
      alike = packing.common_beginning(examples)
      beginning = 0 if variants is not None else alike
    other.beginning = beginning
    other.params = self.params if params is None else params
    return other

  def tune(
    self,
    plan: plans.Plan,
    workdir: str | os.PathLike,
    *,
    rows: int,
    length: int,
    checkpoint_every: int = 100,
    started: Callable[[plans.Chosen, Any], None] | None = None,
    reduction: str = "token",
  ) -> Tuned:
    """Fine-tune, or go on where it was interrupted.

    Args:
      plan: How.
      workdir: Where checkpoints and metrics are written.
      rows: Rows of a batch.
      length: Tokens of a row.
      checkpoint_every: Steps between checkpoints.
      started: Called with the arm and what will be trained, before it is.
      reduction: Of the loss, as in `packing.packed`.

    Returns:
      What was made.

    Raises:
      ValueError: If the plan or the examples make no sense.
    """
    layers, place = self.module.config.layers, pathlib.Path(workdir)
    plans.check(plan, layers)
    batches = _even(
      packing.packed(
        self.examples,
        rows,
        length,
        seed=plan.seed,
        reduction=reduction,
        variants=self.variants,
        beginning=self.beginning,
      )
    )
    masks = None
    if plan.arm == "rosa":
      masks = self._masks(
        plan, place, rows=rows, length=length, reduction=reduction
      )
    chosen = plans.choose(plan, layers, masks)
    key = jax.random.key(plan.seed)
    trained, frozen = chosen.arm.init(jax.random.fold_in(key, 0), self.params)
    if started is not None:
      started(chosen, trained)
    update = plans.optimizer(plan)
    state = training.create(jax.random.fold_in(key, 1), trained, update)
    final = training.fit(
      state,
      self._step(plan, chosen, update, masks, rows),
      batches,
      steps=plan.steps,
      workdir=place,
      name=plan.arm,
      log_every=max(plan.steps // 10, 1),
      checkpoint_every=checkpoint_every,
      keep=1,
      frozen=frozen,
    )
    return Tuned(chosen, final.params, frozen)

  def _step(
    self,
    plan: plans.Plan,
    chosen: plans.Chosen,
    update: Any,
    masks: Any,
    rows: int,
  ) -> Any:
    """Make the step, or take the one of an earlier plan that differs little."""
    # Adding up the gradients of all weights would cost more than it saves.
    small = chosen.adapter is not None
    make = functools.partial(
      language.finetune_step,
      self.module,
      chosen.arm,
      update,
      accumulate=language.micro_batches(rows) if small else 1,
    )
    if masks is not None:
      return make()
    same = dataclasses.replace(plan, learning_rate=None, seed=0), rows
    if same not in self._steps:
      self._steps[same] = make()
    return self._steps[same]

  def _masks(
    self,
    plan: plans.Plan,
    place: pathlib.Path,
    *,
    rows: int,
    length: int,
    reduction: str = "token",
  ) -> Any:
    """Choose where RoSA has sparse weights, or read what was chosen."""
    path = place / "masks.safetensors"
    if path.is_file():
      return _from_places(self.params, safetensors.read(path))
    agenda = adapters.agenda(f"wl{plan.warm_up}", density=plan.density)
    params = self.params
    # A density that leaves a kernel without a place is told before training.
    kernels, _ = tree.partition(params, plans.KERNELS)
    jax.eval_shape(lambda x: adapters.sparse_masks(x, plan.density), kernels)
    if agenda.warm_up:
      warm = dataclasses.replace(plan, arm="lora", steps=agenda.warm_up)
      warm = dataclasses.replace(warm, learning_rate=plan.rate)
      params = self.tune(
        warm,
        place / "warm_up",
        rows=rows,
        length=length,
        reduction=reduction,
      ).merged
    found = _squared_gradients(
      self.module, params, self.examples, plan.collected, length, plan.seed
    )
    masks = adapters.sparse_masks(found, plan.density)
    safetensors.write(path, _places(masks))
    return masks


def _squared_gradients(
  module: Any,
  params: Any,
  examples: Sequence[Example],
  count: int,
  length: int,
  seed: int,
) -> Any:
  """Average the squared gradients of the losses of single examples."""
  count = min(count, len(examples))
  order = batching.order(seed + 2, 0, len(examples), True)[:count]
  batch = packing.bucketed(
    [examples[i] for i in order], count, seed=0, multiple=length, shuffle=False
  )[0]

  def loss(params, example):
    # The mean over the tokens of this example, however long it is.
    return language.mean_loss(
      module, params, example, train_head=False
    ) / example["weights"].sum(dtype=jnp.float32)

  collect = functools.partial(adapters.collect, loss, where=plans.KERNELS)
  return jax.jit(collect)(params, batch).mean


def _places(masks: Any) -> dict[str, np.ndarray]:
  """Write masks as the flat places that they have."""
  return {
    path: np.flatnonzero(np.asarray(mask)).astype(np.int32)
    for path, mask in plans.named(masks).items()
  }


def _from_places(params: Any, places: Mapping[str, np.ndarray]) -> Any:
  """Make masks of flat places."""

  def mask(leaf, path):
    if path not in places:
      return None
    made = np.zeros(leaf.size, bool)
    made[places[path]] = True
    return jnp.asarray(made.reshape(leaf.shape))

  return jax.tree.map(mask, params, tree.names(params))


def held_out(
  module: Any, examples: Sequence[Example], *, length: int
) -> Callable[[Any], float]:
  """Make a function that measures the loss on texts never trained on.

  Args:
    module: A `models.Llama`.
    examples: The texts, each of which counts once.
    length: Tokens of a row.

  Returns:
    From parameters to the mean loss over the tokens of the responses.
  """
  # A row is a batch, so that none is dropped.
  found = packing.packed(
    examples,
    1,
    length,
    seed=0,
    shuffle=False,
    beginning=packing.common_beginning(examples),
  )
  arm = language.full()
  loss = language.held_out_loss(module, arm, _even(found))
  return lambda params: loss(*arm.init(jax.random.key(0), params))


_LOOKED_AT = 256


def _even(found: batching.Batches) -> batching.Batches:
  """Make as many places of tokens that count in all batches.

  So one program is compiled, but for later epochs that need more places.
  """
  looked = range(min(found.per_epoch, _LOOKED_AT))
  most = max(found[i]["places"].shape[1] for i in looked)

  def get(position: int) -> batching.Batch:
    batch = found[position]
    short = max(most - batch["places"].shape[1], 0)
    widened = {
      name: np.pad(batch[name], ((0, 0), (0, short)))
      for name in ("places", "targets", "weights")
    }
    return {**batch, **widened}

  return dataclasses.replace(found, get=get)


def split(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Split examples into those to train on and those held out.

  Args:
    count: How many there are.
    share: Share of those held out, at least one if it is above 0.
    seed: Chooses them.

  Returns:
    The numbers of both, ascending.

  Raises:
    ValueError: If nothing would be left to train on.

  >>> train, held = split(10, 0.2, seed=0)
  >>> len(train), len(held), sorted({*train.tolist(), *held.tolist()})[-1]
  (8, 2, 9)
  """
  if not 0 <= share < 1:
    raise ValueError(f"held_out must lie in [0, 1), got {share}")
  held = max(round(share * count), 1) if share else 0
  if held >= count:
    raise ValueError(
      f"of {count} dialogues {held} would be held out, and none be left to"
      " train on; give more, or take held_out=0"
    )
  order = batching.generator(seed, 3).permutation(count)
  return np.sort(order[held:]), np.sort(order[:held])
