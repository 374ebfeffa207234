"""What the models of the bias study minimise.

Every loss is a sigmoid cross-entropy, averaged over batch and labels; they
differ in the weights and in the targets. What a model needs for it and never
changes (a teacher, the rates of the labels, the label it learns) lies in its
state under "constants", so that the members of a population share one program.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from effjax import tree

# Ours: half of the loss comes from the teacher, whose logits are halved.
_SHARE, _TEMPERATURE = 0.5, 2.0
# Ours: the weight of a sample that the dense model is sure of and right about,
# relative to one that it is sure of and wrong about, is _FLOOR / (1 + _FLOOR).
_FLOOR = 0.5


def statistics(model_state: Mapping[str, Any]) -> dict[str, Any]:
  """Return the batch statistics in the state of a model, without constants.

  Args:
    model_state: The state that goes along with the parameters.

  Returns:
    What the module is applied with.

  >>> statistics({"batch_stats": 1, "constants": 2})
  {'batch_stats': 1}
  """
  return {k: v for k, v in model_state.items() if k != "constants"}


def make_loss(
  module: Any, prepare: Callable[[Any], jax.Array], kind: str = "plain"
) -> Callable:
  """Make a loss for `training.make_step`.

  Args:
    module: A linen module that returns logits [B, A], or [B, 1] for models of
      one label, whose column is `constants["column"]`.
    prepare: From the inputs of a batch to what the module takes.
    kind: A name of `LOSSES`.

  Returns:
    The loss.

  Raises:
    ValueError: If there is no loss of that name.
  """
  if kind not in LOSSES:
    near = ", ".join(tree.nearest(kind, list(LOSSES)))
    raise ValueError(f"there is no loss {kind!r}; choose {near}")
  each = LOSSES[kind]

  def loss(params, model_state, batch, key, train):
    del key
    x = prepare(batch["images"])
    kept = statistics(model_state)
    variables = {"params": params, **kept}
    if kept and train:
      logits, kept = module.apply(variables, x, train=True, mutable=list(kept))
    else:
      logits = module.apply(variables, x, train=train)
    labels, constants = batch["labels"], model_state.get("constants")
    if constants is not None:
      if "column" in constants:
        column = constants["column"]
        labels = jax.lax.dynamic_slice_in_dim(labels, column, 1, axis=1)
      kept = {**kept, "constants": _counted(constants) if train else constants}
    context = dict(module=module, x=x, constants=constants)
    value = jnp.mean(each(logits, labels, **context))
    correct = jnp.mean((logits > 0) == labels, dtype=jnp.float32)
    return value, (kept, {"accuracy": correct})

  return loss


def _counted(constants: Any) -> Any:
  """Count the updates, for losses that change in the course of training."""
  if "step" not in constants:
    return constants
  return {**constants, "step": constants["step"] + 1}


def plain(logits: jax.Array, labels: jax.Array, **context: Any) -> jax.Array:
  """Compute the cross-entropy of every label.

  Args:
    logits: [B, A].
    labels: bool [B, A].
    **context: Not used.

  Returns:
    [B, A].
  """
  del context
  return optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype))


def distillation(
  logits: jax.Array,
  labels: jax.Array,
  *,
  module: Any,
  x: jax.Array,
  constants: Mapping[str, Any],
) -> jax.Array:
  """Mix the labels with what the dense model says.

  Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015,
  arXiv 1503.02531), for independent labels: half of the loss is the
  cross-entropy with the dense model's probabilities, both at temperature 2.

  Args:
    logits: [B, A].
    labels: bool [B, A].
    module: The module of the dense model.
    x: Images as the module takes them.
    constants: Its variables under "teacher".

  Returns:
    [B, A].
  """
  teacher = _teacher(module, x, constants)
  soft = jax.nn.sigmoid(teacher / _TEMPERATURE)
  copied = optax.sigmoid_binary_cross_entropy(logits / _TEMPERATURE, soft)
  copied = _TEMPERATURE**2 * copied
  return (1 - _SHARE) * plain(logits, labels) + _SHARE * copied


def performance_weighted(
  logits: jax.Array,
  labels: jax.Array,
  *,
  module: Any,
  x: jax.Array,
  constants: Mapping[str, Any],
) -> jax.Array:
  """Weigh a sample the more, the worse the dense model does on it.

  After Meyer and Wong, "A Fair Loss Function for Network Pruning" (2022, arXiv
  2211.10285); the weight floor + 1 - p, with p the dense model's probability of
  the true label and a mean of 1 over the batch, is ours.

  Args:
    logits: [B, A].
    labels: bool [B, A].
    module: The module of the dense model.
    x: Images as the module takes them.
    constants: Its variables under "teacher".

  Returns:
    [B, A].
  """
  teacher = _teacher(module, x, constants)
  right = jax.nn.sigmoid(jnp.where(labels, teacher, -teacher))
  weights = _FLOOR + 1 - right
  weights = weights / jnp.mean(weights, axis=0, keepdims=True)
  return weights * plain(logits, labels)


def label_balanced(
  logits: jax.Array,
  labels: jax.Array,
  *,
  constants: Mapping[str, Any],
  **context: Any,
) -> jax.Array:
  """Give both values of every label the same weight once pruning is over.

  Args:
    logits: [B, A].
    labels: bool [B, A].
    constants: "rates" [A], the training rates of the labels; "begin" and
      "step", the update from which on the weights count and the present one.
    **context: Not used.

  Returns:
    [B, A].
  """
  del context
  rates = constants["rates"][None, :]
  weights = jnp.where(labels, 0.5 / rates, 0.5 / (1 - rates))
  active = constants["step"] >= constants["begin"]
  return jnp.where(active, weights, 1.0) * plain(logits, labels)


def _teacher(
  module: Any, x: jax.Array, constants: Mapping[str, Any]
) -> jax.Array:
  teacher = module.apply(constants["teacher"], x, train=False)
  return jax.lax.stop_gradient(teacher)


# Losses by name, for configurations.
LOSSES: dict[str, Callable[..., jax.Array]] = {
  "plain": plain,
  "distillation": distillation,
  "performance_weighted": performance_weighted,
  "label_balanced": label_balanced,
}
