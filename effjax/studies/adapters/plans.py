"""Plans of fine-tuning: which arm, which rate, for how long."""

import dataclasses
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import adapters, tree
from effjax.studies.text import meant
from effjax.training import language

# The kernels of the layers; the embedding and the last layer stay as they are.
KERNELS = r"layer_\d+/.*kernel"
TITLES = {
  "full": "all weights",
  "blocks": "a range of layers",
  "lora": "LoRA",
  "dora": "DoRA",
  "rosa": "RoSA",
}
# What is good for each arm within a few hundred steps of a small model.
RATES = {
  "full": 3e-5,
  "blocks": 1e-4,
  "lora": 1e-3,
  "dora": 1e-3,
  "rosa": 1e-3,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """How to fine-tune.

  Attributes:
    arm: A key of `TITLES`.
    rank: Of low-rank adapters.
    density: Share of the weights in the sparse part of RoSA.
    layers: First and last layer that the arm "blocks" trains; by default the
      last third.
    steps: Number of updates.
    learning_rate: The highest; by default that of `RATES`.
    dropout: Share of the inputs that low-rank paths drop.
    warm_up: Steps of LoRA before RoSA chooses its places.
    collected: Examples whose gradients choose them.
    seed: Of the initial values, the order of the examples, and dropout.
  """

  arm: str = "lora"
  rank: int = 8
  density: float = 0.01
  layers: tuple[int, int] | None = None
  steps: int = 100
  learning_rate: float | None = None
  dropout: float = 0.0
  warm_up: int = 16
  collected: int = 8
  seed: int = 0

  @property
  def rate(self) -> float:
    """The highest learning rate."""
    given = self.learning_rate
    return RATES[self.arm] if given is None else given


class Chosen(NamedTuple):
  """What is trained of a model, chosen by a plan.

  Attributes:
    arm: The arm.
    adapter: Its adapter; None if weights of the model are trained themselves.
  """

  arm: language.Arm
  adapter: adapters.Adapter | None


def check(plan: Plan, layers: int) -> None:
  """Check a plan before anything costly begins.

  Args:
    plan: The plan.
    layers: How many layers the model has.

  Raises:
    ValueError: If a value makes no sense.
  """
  if plan.arm not in TITLES:
    raise ValueError(
      f"there is no arm {plan.arm!r}{meant(plan.arm, TITLES)}; known are"
      f" {', '.join(TITLES)}"
    )
  for name in ("rank", "steps", "collected"):
    if getattr(plan, name) < 1:
      raise ValueError(f"{name} must be at least 1, got {getattr(plan, name)}")
  if plan.warm_up < 0 or not 0 <= plan.seed < 2**31:
    raise ValueError(
      f"warm_up={plan.warm_up} must not be negative, and seed={plan.seed} must"
      f" lie in [0, {2**31})"
    )
  if not 0 < plan.density <= 1:
    raise ValueError(f"density must lie in (0, 1], got {plan.density}")
  if not 0 <= plan.dropout < 1:
    raise ValueError(f"dropout must lie in [0, 1), got {plan.dropout}")
  if not 0 < plan.rate < np.inf:
    raise ValueError(f"the learning rate must be above 0, got {plan.rate}")
  first, last = plan.layers or (0, 0)
  if not 0 <= first <= last < layers:
    raise ValueError(
      f"the layers {first} to {last} are no range of the {layers} of the model,"
      f" 0 to {layers - 1}"
    )
  if plan.layers and plan.arm != "blocks":
    raise ValueError(
      f"layers are chosen for the arm 'blocks'; {plan.arm!r} is of all layers"
    )


def choose(plan: Plan, layers: int, masks: Any = None) -> Chosen:
  """Make the arm of a plan.

  Args:
    plan: The plan.
    layers: How many layers the model has.
    masks: Where RoSA has sparse weights.

  Returns:
    The arm.

  Raises:
    ValueError: See `check`.
  """
  check(plan, layers)
  if plan.arm == "full":
    return Chosen(language.full(), None)
  if plan.arm == "blocks":
    first, last = plan.layers or (layers - max(layers // 3, 1), layers - 1)
    numbers = "|".join(map(str, range(first, last + 1)))
    return Chosen(language.full(rf"layer_({numbers})/.*"), None)
  if plan.arm == "rosa":
    adapter = adapters.rosa(plan.rank, masks, where=KERNELS)
  else:
    make = {"lora": adapters.lora, "dora": adapters.dora}[plan.arm]
    adapter = make(plan.rank, where=KERNELS)
  return Chosen(language.adapted(adapter, dropout=plan.dropout), adapter)


def optimizer(plan: Plan) -> optax.GradientTransformation:
  """Make Adam with a rate that rises over a tenth of the steps, then falls.

  The rate is part of its state, so that one compiled step serves all rates.

  Args:
    plan: The plan.

  Returns:
    The transformation.
  """
  rise = max(plan.steps // 10, 1)

  def shape(count):
    done = jnp.asarray(count, jnp.float32)
    fall = (plan.steps - done) / max(plan.steps - rise, 1)
    return jnp.clip(jnp.minimum((done + 1) / rise, fall), 0.0, 1.0)

  return optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.scale_by_adam(),
    optax.scale_by_schedule(shape),
    optax.inject_hyperparams(optax.scale)(step_size=-plan.rate),
  )


def summary(params: Any, tuned: Any, adapter: Any) -> adapters.Summary:
  """Tabulate how many numbers are trained, by kind of weight.

  Args:
    params: The model's parameters.
    tuned: What is trained: of adapters theta, else the weights.
    adapter: The adapter, or None.

  Returns:
    A summary that prints as a table.
  """
  theta = tuned
  if adapter is None:
    theta = {f"{path}/weight": x for path, x in named(tuned).items()}
  names = jax.tree.leaves(tree.names(params))
  kinds = dict.fromkeys(re.sub(r"^layer_\d+", r"layer_*", n) for n in names)
  rules = [re.escape(k).replace(r"layer_\*", r"layer_\d+") for k in kinds]
  return adapters.summary(params, theta, rules=rules)


def named(values: Any) -> dict[str, Any]:
  """Return the leaves of a tree by their path.

  Args:
    values: The tree.

  Returns:
    A flat dict, without leaves that are None.
  """
  names = jax.tree.leaves(tree.names(values))
  return dict(zip(names, jax.tree.leaves(values), strict=True))
