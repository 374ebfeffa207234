"""Fine-tuning of language models: what is trained, the loss, and the step.

An *arm* says what is trained of a model: some of its weights, or an adapter.
What stays as it is travels beside the state, as the `frozen` of `training.fit`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from effjax import adapters, tree
from effjax.training.state import TrainState
from effjax.training.step import Batch, Measures, make_step

Tree = Any


class Arm(NamedTuple):
  """What is trained of a model.

  Attributes:
    init: `(key, params) -> (trained, frozen)`.
    model: `(trained, frozen, key) -> (params, parts)`: what the model is given;
      the key is None where nothing is dropped at random.
    merge: `(trained, frozen) -> params`, the model afterwards.
  """

  init: Callable[[jax.Array, Tree], tuple[Tree, Tree]]
  model: Callable[[Tree, Tree, Any], tuple[Tree, Any]]
  merge: Callable[[Tree, Tree], Tree]


def full(where: tree.Where = ".*") -> Arm:
  """Train weights of the model themselves.

  Args:
    where: Which, see `tree.select`; by default all.

  Returns:
    The arm.
  """

  def init(key, params):
    del key
    return tree.partition(params, where)

  def model(trained, frozen, key):
    del key
    return tree.combine(trained, frozen), None

  def merge(trained, frozen):
    return tree.combine(trained, frozen)

  return Arm(init, model, merge)


def adapted(adapter: adapters.Adapter, *, dropout: float = 0.0) -> Arm:
  """Train an adapter, in its factored form.

  Args:
    adapter: The adapter; the model must take `adapters.dense` as its
      `apply_part`.
    dropout: Share of the inputs that a low-rank path drops.

  Returns:
    The arm.
  """

  def init(key, params):
    theta, fixed = adapter.init(key, params)
    return theta, (params, fixed)

  def model(trained, frozen, key):
    params, fixed = frozen
    share = 0.0 if key is None else dropout
    parts = adapters.parts(
      adapter, params, trained, fixed, key=key, dropout=share
    )
    return jax.lax.stop_gradient(params), parts

  def merge(trained, frozen):
    params, fixed = frozen
    return adapter.merge(params, trained, fixed)

  return Arm(init, model, merge)


def mean_loss(
  module: Any,
  params: Tree,
  batch: Batch,
  *,
  parts: Any = None,
  chunk_size: int = 256,
  train_head: bool = True,
) -> jax.Array:
  """Average the loss over the tokens of a batch that count.

  Args:
    module: A `models.Llama`.
    params: Its parameters.
    batch: Arrays as `data.packing` describes them.
    parts: What adapters do to its kernels.
    chunk_size: Tokens whose logits are formed together.
    train_head: Whether the last layer, or the embedding that it is tied to,
      gets gradients from here.

  Returns:
    The mean of minus the logarithms of the probabilities, float32 [].

  Raises:
    ValueError: If an adapter changes the last layer, whose logits are never
      formed as a whole.
  """
  if parts and "head/kernel" in parts:
    raise ValueError(
      "an adapter changes 'head/kernel', which the loss takes as it is: select"
      " the kernels of the layers, where=r'layer.*kernel'"
    )
  hidden = module.apply(
    {"params": params},
    batch["tokens"],
    batch["positions"],
    batch["segments"],
    parts=parts,
    method="hidden",
  )
  chosen = jnp.take_along_axis(hidden, batch["places"][..., None], axis=1)
  table = (
    params["embed"]["embedding"]
    if module.config.tied
    else params["head"]["kernel"].T
  )
  rows = batch["tokens"].shape[0]
  total = cross_entropy(
    chosen.reshape(-1, chosen.shape[-1]),
    table,
    batch["targets"].reshape(-1),
    batch["weights"].reshape(-1),
    chunk_size=chunk_size,
    train_table=train_head,
  )
  return total / jnp.float32(rows)


def finetune_step(
  module: Any,
  arm: Arm,
  optimizer: optax.GradientTransformation,
  *,
  accumulate: int = 1,
  chunk_size: int = 256,
) -> Callable[[TrainState, Batch, Tree], tuple[TrainState, Measures]]:
  """Make the step that fine-tunes an arm.

  Args:
    module: A `models.Llama`; for adapters with `apply_part=adapters.dense`.
    arm: What is trained.
    optimizer: Any optax transformation.
    accumulate: Into how many micro-batches the rows of a batch are split.
    chunk_size: Tokens whose logits are formed together.

  Returns:
    `step(state, batch, frozen) -> (state, measures)` for `training.fit`.
  """

  def step(state, batch, frozen):
    def loss(trained, model_state, batch, key, train):
      params, parts = arm.model(trained, frozen, key if train else None)
      value = mean_loss(
        module,
        params,
        batch,
        parts=parts,
        chunk_size=chunk_size,
        train_head=parts is None,
      )
      return value, (model_state, {})

    return make_step(loss, optimizer, accumulate=accumulate)(state, batch)

  return step


def micro_batches(rows: int) -> int:
  """Return into how many micro-batches it is best to split a batch here.

  On a CPU a row at a time: what must be kept for the way back is a fraction,
  fits the caches better, and is not claimed anew from the system in each step.
  Accelerators want all rows at once.

  Args:
    rows: Rows of a batch.

  Returns:
    The `accumulate` of `finetune_step`.
  """
  return max(rows, 1) if jax.default_backend() == "cpu" else 1


def held_out_loss(
  module: Any, arm: Arm, batches: Any, *, chunk_size: int = 256
) -> Callable[[Tree, Tree], float]:
  """Make a function that averages the loss over all batches of an epoch.

  Args:
    module: The model.
    arm: What is trained.
    batches: Batches that are never trained on.
    chunk_size: Tokens whose logits are formed together.

  Returns:
    `(trained, frozen) -> loss`, over tokens, whatever batch they are in.
  """

  @jax.jit
  def one(trained, frozen, batch):
    params, parts = arm.model(trained, frozen, None)
    return mean_loss(module, params, batch, parts=parts, chunk_size=chunk_size)

  def evaluate(trained, frozen) -> float:
    total, count = 0.0, 0
    for position in range(batches.per_epoch):
      batch = batches[position]
      tokens = int((batch["weights"] > 0).sum())
      total += tokens * float(one(trained, frozen, batch))
      count += tokens
    return total / max(count, 1)

  return evaluate


@functools.partial(jax.jit, static_argnames=("chunk_size", "train_table"))
def cross_entropy(
  hidden: jax.Array,
  table: jax.Array,
  targets: jax.Array,
  weights: jax.Array,
  *,
  chunk_size: int = 256,
  train_table: bool = True,
) -> jax.Array:
  """Sum weighted losses without forming all logits.

  Logits of a few tokens are formed at a time, and gradients at once with them,
  so that neither has to be kept or formed again.

  Args:
    hidden: What the last layer is given [K, W].
    table: Its weights, one row for each token of the vocabulary [V, W].
    targets: The tokens that come, int32 [K].
    weights: Their weights [K].
    chunk_size: Tokens whose logits are formed together.
    train_table: Whether the table gets gradients.

  Returns:
    The sum, float32 [].

  >>> hidden, table = jnp.zeros((1, 2)), jnp.ones((4, 2))
  >>> targets, weights = jnp.array([1]), jnp.ones(1)
  >>> round(float(cross_entropy(hidden, table, targets, weights)), 4)
  1.3863
  """
  return _cross_entropy(
    chunk_size, train_table, hidden, table, targets, weights
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _cross_entropy(chunk_size, train_table, hidden, table, targets, weights):
  del train_table
  return _by_chunks(chunk_size, None, hidden, table, targets, weights)[0]


def _forward(chunk_size, train_table, hidden, table, targets, weights):
  value, *slopes = _by_chunks(
    chunk_size, train_table, hidden, table, targets, weights
  )
  return value, (slopes, targets, weights)


def _backward(chunk_size, train_table, residuals, slope):
  del chunk_size, train_table
  (to_hidden, to_table), _, _ = residuals
  scaled = lambda x: None if x is None else (x * slope).astype(x.dtype)
  return scaled(to_hidden), scaled(to_table), None, None


_cross_entropy.defvjp(_forward, _backward)


def _by_chunks(chunk_size, train_table, hidden, table, targets, weights):
  """Sum losses; unless `train_table` is None, also find their gradients."""
  count = hidden.shape[0]
  chunks = max(-(-count // chunk_size), 1)
  size = max(-(-count // chunks), 1)  # even chunks: the least padding
  pad = -count % size
  split = lambda x: jnp.pad(x, ((0, pad), *[(0, 0)] * (x.ndim - 1))).reshape(
    -1, size, *x.shape[1:]
  )
  table_as = table.astype(hidden.dtype)
  product = functools.partial(
    jax.lax.dot_general, preferred_element_type=jnp.float32
  )

  def step(carry, part):
    total, to_table = carry
    given, target, weight = part
    logits = product(given, table_as, (((1,), (1,)), ((), ())))
    normaliser = jax.nn.logsumexp(logits, axis=1)
    at_target = jnp.take_along_axis(logits, target[:, None], axis=1)[:, 0]
    weight = weight.astype(jnp.float32)
    total += jnp.sum(jnp.where(weight > 0, normaliser - at_target, 0) * weight)
    if train_table is None:
      return (total, to_table), None
    chances = jnp.exp(logits - normaliser[:, None])
    slopes = chances.at[jnp.arange(size), target].add(-1.0) * weight[:, None]
    slopes = slopes.astype(hidden.dtype)
    to_hidden = product(slopes, table_as, (((1,), (0,)), ((), ())))
    if train_table:
      to_table += product(slopes, given, (((0,), (0,)), ((), ())))
    return (total, to_table), to_hidden.astype(hidden.dtype)

  start = jnp.zeros((), jnp.float32)
  sums = jnp.zeros(table.shape, jnp.float32) if train_table else None
  (total, sums), to_hidden = jax.lax.scan(
    step, (start, sums), (split(hidden), split(targets), split(weights))
  )
  if to_hidden is None:
    return total, None, None
  to_hidden = jnp.reshape(to_hidden, (-1, hidden.shape[1]))[:count]
  return total, to_hidden, None if sums is None else sums.astype(table.dtype)
