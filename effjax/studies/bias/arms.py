"""The arms of the bias study: models trained dense, while pruned, or after.

Every arm spends the same number of epochs:

  dense  trained dense for all epochs
  ri     "from random initialisation": pruned gradually while it trains
  pt     "post-training": a dense model of fewer epochs, then pruned gradually
         while it is trained on
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import pruning, training
from effjax.data import batches as batches_lib
from effjax.data import images
from effjax.studies.bias.problems import Problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
  """One model of a population.

  Attributes:
    arm: "dense", "base" (the start of "pt"), "ri" or "pt".
    sparsity: The sparsity it ends with; 0 for a dense one.
    seed: Of initial weights and of the order of the data.
    learning_rate: The highest learning rate.
  """

  arm: str
  sparsity: float
  seed: int
  learning_rate: float


def make_loss(module: Any, mean: float = 0.5, std: float = 0.5):
  """Make the sigmoid cross-entropy, averaged over batch and labels.

  Args:
    module: A linen module that returns logits [B, A].
    mean: Of pixel values in [0, 1], for the normalisation.
    std: Of the same.

  Returns:
    A loss for `training.make_step`.
  """

  def loss(params, model_state, batch, key, train):
    del key
    x = images.standardise(batch["images"], mean, std)
    variables = {"params": params, **model_state}
    if model_state and train:
      logits, model_state = module.apply(
        variables, x, train=True, mutable=list(model_state)
      )
    else:
      logits = module.apply(variables, x, train=train)
    labels = batch["labels"].astype(logits.dtype)
    value = jnp.mean(optax.sigmoid_binary_cross_entropy(logits, labels))
    correct = jnp.mean((logits > 0) == batch["labels"], dtype=jnp.float32)
    return value, (model_state, {"accuracy": correct})

  return loss


def make_optimizer(
  config: Any, member: Member, epochs: int, per_epoch: int
) -> optax.GradientTransformationExtraArgs:
  """Make the optimizer of a member; members differ in their state alone.

  Args:
    config: The section `training` of a configuration.
    member: The member.
    epochs: How long it trains.
    per_epoch: Updates in an epoch.

  Returns:
    An optax chain that ends in `pruning.prune`.

  Raises:
    ValueError: If the optimizer or the kind of schedule is unknown.
  """
  if config.optimizer == "adamw":
    links = [
      optax.scale_by_adam(),
      optax.add_decayed_weights(config.weight_decay, mask=_kernels),
    ]
  elif config.optimizer == "sgd":
    links = [
      optax.add_decayed_weights(config.weight_decay, mask=_kernels),
      optax.trace(config.momentum),
    ]
  else:
    raise ValueError(
      f"training.optimizer {config.optimizer!r} is unknown; choose adamw or sgd"
    )
  schedule = prune_schedule(
    config.pruning[_phase(member.arm)], member, per_epoch
  )
  rate = training.warmup_cosine(1.0, config.warmup_epochs, epochs, per_epoch)
  return optax.chain(
    *links,
    optax.scale_by_schedule(rate),
    # The rate is a number in the state: members share one compiled update.
    optax.inject_hyperparams(optax.scale)(step_size=-member.learning_rate),
    pruning.prune(
      schedule, score=config.pruning.score, mask=config.pruning.mask
    ),
  )


def _kernels(params: Any) -> Any:
  return jax.tree.map(lambda p: p.ndim > 1, params)


def _phase(arm: str) -> str:
  return "pt" if arm == "pt" else "ri"


def prune_schedule(
  config: Any, member: Member, per_epoch: int
) -> pruning.Schedule:
  """Make the schedule of a member, in updates.

  Args:
    config: `initial` sparsity and `begin`, `every`, `end` in epochs, fractions
      allowed.
    member: The member.
    per_epoch: Updates in an epoch.

  Returns:
    A cubic schedule; a dense member has the same steps at sparsity 0.
  """
  step = lambda epochs: math.floor(epochs * per_epoch + 0.5)
  return pruning.cubic(
    min(config.initial, member.sparsity),
    member.sparsity,
    step(config.begin),
    step(config.end),
    max(1, step(config.every)),
  )


def train(
  members: Sequence[Member],
  problem: Problem,
  module: Any,
  config: Any,
  *,
  epochs: int,
  workdir: Any,
  name: str,
  starts: Sequence[Any] | None = None,
  mesh: Any = None,
) -> list[training.TrainState]:
  """Train a population in one compiled program, or load it where it is done.

  Args:
    members: The models.
    problem: The data.
    module: A linen module.
    config: The whole configuration.
    epochs: How long to train.
    workdir: Directory of this stage.
    name: What the progress line calls it.
    starts: States to take parameters and batch statistics from, one a member;
      by default a member starts from its seed.
    mesh: Devices for a single member; populations fill one device.

  Returns:
    The final states, one a member.
  """
  options = config.training
  by_seed = {m.seed: problem.train(m.seed, options.batch_size) for m in members}
  per_epoch = next(iter(by_seed.values())).per_epoch
  states, optimizers = [], []
  for i, member in enumerate(members):
    optimizer = make_optimizer(options, member, epochs, per_epoch)
    optimizers.append(optimizer)
    key = jax.random.key(member.seed)
    if starts is None:
      sample = jnp.zeros((1, *problem.shape), jnp.float32)
      variables = dict(_initialise(module, key, sample))
      params, rest = variables.pop("params"), variables
    else:
      params, rest = starts[i].params, starts[i].model_state
    states.append(training.create(key, params, optimizer, rest))
  step = training.make_step(
    make_loss(module, *config.data.normalise), optimizers[0]
  )
  alone = len(members) == 1
  final = training.fit(
    states[0] if alone else training.stack(states),
    step if alone else training.population(step),
    by_seed[members[0].seed]
    if alone
    else batches_lib.stack([by_seed[m.seed] for m in members]),
    steps=epochs * per_epoch,
    workdir=workdir,
    name=name,
    log_every=max(1, per_epoch // 4),
    checkpoint_every=per_epoch * options.checkpoint_epochs,
    keep=1,
    tensorboard=options.tensorboard,
    mesh=mesh if alone else None,
    rules=config.mesh_rules,
    profile=config.get("profile") or None,
  )
  return [final] if alone else training.unstack(final)


def _initialise(module: Any, key: jax.Array, sample: jax.Array) -> Any:
  return jax.jit(lambda k: module.init(k, sample, train=False))(key)


def predict(
  states: Sequence[training.TrainState],
  problem: Problem,
  module: Any,
  config: Any,
  split: str,
) -> np.ndarray:
  """Compute the logits of every member on a split.

  Args:
    states: M states of one structure.
    problem: The data.
    module: The linen module.
    config: The whole configuration.
    split: "train", "validation" or "test".

  Returns:
    float32 [M, N, A].
  """
  size = config.training.eval_batch_size

  @jax.jit
  def logits(params, model_state, batch):
    x = images.standardise(batch, *config.data.normalise)
    return module.apply({"params": params, **model_state}, x, train=False)

  parts: list[list[np.ndarray]] = [[] for _ in states]
  for batch in problem.pictures(split, size):
    # A short last batch is filled up, so that nothing compiles twice.
    filled = np.concatenate(
      [batch, np.zeros((size - len(batch), *batch.shape[1:]), batch.dtype)]
    )
    for part, state in zip(parts, states, strict=True):
      out = logits(state.params, state.model_state, filled)
      part.append(np.asarray(out[: len(batch)], np.float32))
  return np.stack([np.concatenate(part) for part in parts])
