"""The arms of the bias study: models trained dense, while pruned, or after.

dense  trained dense
ri     "from random initialisation": pruned gradually while it trains
base   trained dense, the start of pt
pt     "post-training": a base model, pruned gradually while it is trained on
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import pruning, training, tree
from effjax.data import batches as batches_lib
from effjax.data import images
from effjax.studies.bias import losses, optimizers
from effjax.studies.bias.problems import Problem
from effjax.training import mesh as meshes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
  """One model of a population.

  Attributes:
    arm: "dense", "base" (the start of "pt"), "ri", "pt" or a variant's name.
    sparsity: The sparsity it ends with; 0 for a dense one.
    seed: Of initial weights and of the order of the data.
    learning_rate: The highest learning rate.
    like: The arm that a variant follows, "" for the arms themselves.
    attribute: The only label it learns, "" for all of them.
  """

  arm: str
  sparsity: float
  seed: int
  learning_rate: float
  like: str = ""
  attribute: str = ""

  @property
  def kind(self) -> str:
    """The arm whose schedule and optimizer it has."""
    return self.like or self.arm


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """How models are pruned and what they minimise; None takes the config's.

  Attributes:
    score: Score of the weights.
    mask: Kind of mask.
    where: Which weights are pruned.
    loss: A name of `losses.LOSSES`.
  """

  score: str | None = None
  mask: str | None = None
  where: str | None = None
  loss: str = "plain"


PLAIN = Recipe()


def epochs(config: Any, arm: str = "dense") -> int:
  """Tell how long an arm trains; base and pt share the epochs unless told.

  Args:
    config: The whole configuration.
    arm: The arm.

  Returns:
    A number of epochs.

  Raises:
    ValueError: If nothing would be left for base.
  """
  whole, pt = config.training.epochs, config.training.epochs_pt
  base = config.training.get("epochs_base")
  if base is None:
    if not 0 < pt < whole:
      raise ValueError(
        f"training.epochs_pt must lie between 0 and training.epochs, {whole},"
        f" not {pt}; or set training.epochs_base"
      )
    base = whole - pt
  return {"pt": pt, "base": base}.get(arm, whole)


def make_optimizer(
  config: Any,
  member: Member,
  epochs: int,
  per_epoch: int,
  recipe: Recipe = PLAIN,
) -> optax.GradientTransformationExtraArgs:
  """Make the optimizer of a member; members differ in their state alone.

  Args:
    config: The section `training` of a configuration.
    member: The member.
    epochs: How long it trains.
    per_epoch: Updates in an epoch.
    recipe: How it is pruned.

  Returns:
    An optax chain that ends in `pruning.prune`.

  Raises:
    ValueError: If the configuration names something that does not exist.
  """
  options = optimizers.options(config, member.kind)
  schedule = prune_schedule(config.pruning, member, per_epoch)
  return optax.chain(
    *optimizers.links(options, epochs, per_epoch),
    # The rate is a number in the state: members share one compiled update.
    optax.inject_hyperparams(optax.scale)(step_size=-member.learning_rate),
    pruning.prune(schedule, **_choice(config.pruning, recipe, member.seed)),
  )


def _choice(config: Any, recipe: Recipe, seed: int) -> dict[str, Any]:
  """Name the score and the mask, under the convention that is asked for."""
  score, mask = recipe.score or config.score, recipe.mask or config.mask
  if config.get("convention", "exact") == "exact":
    options = {"score": score, "mask": mask, "where": recipe.where}
    if score == "random":
      options["key"] = jax.random.key(seed)
    return options
  if (score, mask) not in (("magnitude", "global"), ("magnitude", "layer")):
    raise ValueError(
      f"training.pruning.convention {config.convention!r} is for the score"
      f" magnitude and global or layer masks, not for {score} and {mask}"
    )
  functions = {"score": pruning.magnitude, "mask": pruning.MASKS[mask]}
  return {
    name: functools.partial(function, convention=config.convention)
    for name, function in functions.items()
  }


def prune_schedule(
  config: Any, member: Member, per_epoch: int
) -> pruning.Schedule:
  """Make the schedule of a member, in updates.

  Args:
    config: The section `training.pruning`: under "ri" and "pt" the `initial`
      sparsity and `begin`, `every`, `end` in epochs, fractions allowed; and a
      `convention`, by default "exact".
    member: The member.
    per_epoch: Updates in an epoch.

  Returns:
    A cubic schedule; a dense member has the same steps at sparsity 0.
  """
  plan = config["pt" if member.kind == "pt" else "ri"]
  step = lambda epochs: math.floor(epochs * per_epoch + 0.5)
  return pruning.cubic(
    min(plan.initial, member.sparsity),
    member.sparsity,
    step(plan.begin),
    step(plan.end),
    max(1, step(plan.every)),
    convention=config.get("convention", "exact"),
  )


@dataclasses.dataclass(frozen=True)
class Trainer:
  """Trains models and asks them; what can be compiled once is.

  Attributes:
    problem: The data.
    module: A linen module.
    config: The whole configuration.
    steps: The training steps made so far, by what they depend on.
  """

  problem: Problem
  module: Any
  config: Any
  steps: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)

  @functools.cached_property
  def prepare(self) -> Any:
    """A function of the inputs of a batch to what the module takes."""
    if len(self.problem.shape) == 1:  # features of a table, standardised there
      return lambda features: jnp.asarray(features, jnp.float32)
    mean, std = self.config.data.normalise
    return lambda pictures: images.standardise(pictures, mean, std)

  @functools.cached_property
  def initialise(self) -> Any:
    """A function of a key to the variables of a new model."""
    sample = jnp.zeros((1, *self.problem.shape), jnp.float32)
    return jax.jit(lambda key: self.module.init(key, sample, train=False))

  @functools.cached_property
  def shapes(self) -> Any:
    """The parameters of a model without their values."""
    return jax.eval_shape(self.initialise, jax.random.key(0))["params"]

  @functools.cached_property
  def parameters(self) -> int:
    """How many parameters a model has."""
    return sum(leaf.size for leaf in jax.tree.leaves(self.shapes))

  def describe(self) -> str:
    """Tabulate the parameters of a model, all trained, and which are pruned."""
    masks = jax.tree.map(
      lambda leaf, chosen: np.ones(leaf.shape, bool) if chosen else None,
      self.shapes,
      tree.select(self.shapes),
    )
    return "parameters of a dense model, all trained\n" + str(
      pruning.summary(self.shapes, masks)
    )

  @functools.cached_property
  def logits(self) -> Any:
    """A function of parameters, batch statistics and pictures to logits."""

    @jax.jit
    def logits(params, model_state, batch):
      x = self.prepare(batch)
      variables = {"params": params, **losses.statistics(model_state)}
      return self.module.apply(variables, x, train=False)

    return logits

  def train(
    self,
    members: Sequence[Member],
    *,
    epochs: int,
    workdir: Any,
    name: str,
    starts: Sequence[Any] | None = None,
    constants: Sequence[Any] | None = None,
    recipe: Recipe = PLAIN,
    mesh: Any = None,
  ) -> list[training.TrainState]:
    """Train a population in one compiled program, or load it where it is done.

    Args:
      members: The models.
      epochs: How long to train.
      workdir: Directory of this population.
      name: What the progress line calls it.
      starts: States to take parameters and batch statistics from, one a
        member; by default a member starts from its seed.
      constants: What the loss needs besides, one dict a member.
      recipe: How the members are pruned and what they minimise.
      mesh: Devices for a single member; populations fill one device.

    Returns:
      The final states, one a member.

    Raises:
      ValueError: If the members cannot share an update, or as `make_optimizer`
        does.
    """
    options = self.config.training
    by_seed = {
      seed: self.problem.train(seed, options.batch_size)
      for seed in dict.fromkeys(m.seed for m in members)
    }
    per_epoch = by_seed[members[0].seed].per_epoch
    made = [
      make_optimizer(options, m, epochs, per_epoch, recipe) for m in members
    ]
    states = []
    for i, member in enumerate(members):
      key = jax.random.key(member.seed)
      if starts is None:
        rest = dict(self.initialise(key))
        params = rest.pop("params")
      else:
        params = starts[i].params
        rest = losses.statistics(starts[i].model_state)
      if constants is not None:
        rest = {**rest, "constants": constants[i]}
      states.append(training.create(key, params, made[i], rest))
    step = self._step(members, made[0], epochs, per_epoch, recipe)
    alone = len(members) == 1
    final = training.fit(
      states[0] if alone else training.stack(states),
      step,
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
      rules=self.config.mesh_rules,
      profile=self.config.get("profile") or None,
    )
    return [final] if alone else training.unstack(final)

  def _step(
    self,
    members: Sequence[Member],
    optimizer: optax.GradientTransformationExtraArgs,
    epochs: int,
    per_epoch: int,
    recipe: Recipe,
  ) -> Any:
    """Make the step of a population, or find the one that was made before."""
    kinds = {
      optimizers.options(self.config.training, m.kind): m.arm for m in members
    }
    if len(kinds) > 1:
      raise ValueError(
        f"the arms {' and '.join(kinds.values())} are optimized in ways of"
        " their own and cannot train together; set training.together to False"
      )
    alone = len(members) == 1
    key = (*kinds, epochs, per_epoch, recipe, alone)
    if key not in self.steps:
      loss = losses.make_loss(self.module, self.prepare, recipe.loss)
      step = training.make_step(loss, optimizer)
      self.steps[key] = step if alone else training.population(step)
    return self.steps[key]

  def predict(
    self,
    states: Sequence[training.TrainState],
    split: str,
    *,
    mesh: Any = None,
  ) -> np.ndarray:
    """Compute the logits of every member on a split.

    Args:
      states: M states of one structure.
      split: "train", "validation" or "test".
      mesh: The devices that the states lie on, None for one.

    Returns:
      float32 [M, N, A].
    """
    size = self.config.training.eval_batch_size
    place = None
    if mesh is not None:
      place = meshes.batch_sharding(mesh, self.config.mesh_rules)
    parts: list[list[np.ndarray]] = [[] for _ in states]
    for batch in self.problem.pictures(split, size):
      # A short last batch is filled up, so that nothing compiles twice.
      rest = np.zeros((size - len(batch), *batch.shape[1:]), batch.dtype)
      filled = np.concatenate([batch, rest])
      if place is not None:
        filled = meshes.place_batch({"images": filled}, place)["images"]
      for part, state in zip(parts, states, strict=True):
        out = self.logits(state.params, state.model_state, filled)
        part.append(np.asarray(out[: len(batch)], np.float32))
    return np.stack([np.concatenate(part) for part in parts])
