"""What the layers of a network meet on random copies of one example."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import pruning
from effjax.models.capturing import Layer
from effjax.spade.augmentation import augment as default_augment
from effjax.spade.planning import (
  Plan,
  Task,
  as_images,
  list_kernels,
  make_plan,
  met,
)

Tree = Any
Rules = float | Sequence[tuple[str, float | None]]


class LayerGrams(NamedTuple):
  """What the layers meet on the copies of one example.

  Attributes:
    tasks: The layers, with the sparsities that were asked for.
    grams: By the path of a kernel the Gram matrix of its inputs [I, I].
    inputs: The inputs themselves [M, I] of layers where M is below a third of
      I; a layer is in one of both.
    key: A random key for solvers that draw.
  """

  tasks: tuple[Task, ...]
  grams: dict[str, jax.Array]
  inputs: dict[str, jax.Array]
  key: jax.Array


def layer_grams(
  key: jax.Array,
  capture: Callable,
  params: Tree,
  x: jax.Array,
  sparsities: Rules,
  *,
  copies: int = 32,
  augment: Callable | None = default_augment,
  preprocess: Callable | None = None,
  layers: Mapping[str, Layer] | None = None,
  chunk_size: int | None = None,
  memory: int | None = None,
) -> LayerGrams:
  """Sum up what the layers meet on random copies of one example.

  The first half of `spade.trace`; `spade.prune_layers` is the second, which may
  be repeated with other sparsities. No new program is compiled for those.

  Args:
    key: A random key.
    capture: `(params, x) -> (logits, {path of a kernel: layer inputs})`.
    params: The parameters of the dense network.
    x: One example [...], as `augment` takes it.
    sparsities: As for `trace`; layers whose rule is None are not looked at.
    copies: Random copies N.
    augment: `(key, example) -> copy`; None repeats the example.
    preprocess: `copies [N, ...] -> inputs of the network`.
    layers: How the kernels meet their inputs, as for `trace`.
    chunk_size: Copies that go through the network together.
    memory: Bytes that inputs of layers and Gram matrices may take; by default
      2 GiB, on an accelerator a quarter of its memory.

  Returns:
    The Gram matrices, or the inputs where they are few.

  Raises:
    ValueError: As for `trace`.

  >>> capture = lambda w, x: (x @ w["a"], {"a": x})
  >>> found = layer_grams(
  ...   jax.random.key(0),
  ...   capture,
  ...   {"a": jnp.ones((2, 1))},
  ...   jnp.array([1.0, 2.0]),
  ...   0.5,
  ...   copies=3,
  ...   augment=None,
  ... )
  >>> found.grams["a"].tolist()
  [[3.0, 6.0], [6.0, 12.0]]
  """
  x = jnp.asarray(x)
  run = Run(capture, augment, preprocess)
  plan = make_plan(
    capture,
    params,
    network_inputs(run, x),
    sparsities,
    layers,
    copies=copies,
    chunk_size=chunk_size,
    memory=memory,
  )
  return measure(run, plan, key, params, x)


class Run(NamedTuple):
  """The functions of the user."""

  capture: Callable
  augment: Callable | None
  preprocess: Callable | None


def network_inputs(run: Run, x: jax.Array) -> Any:
  """Find the shape of what the network gets for one copy.

  Args:
    run: The functions of the user.
    x: One example, or its shape.

  Returns:
    The shape of one copy [1, ...].
  """
  return jax.eval_shape(
    functools.partial(_copies, run),
    jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1)),
    jax.ShapeDtypeStruct(x.shape, x.dtype),
  )


def _copies(run: Run, keys: jax.Array, x: jax.Array) -> jax.Array:
  """Make the copies of an example, one for each key."""
  if run.augment is None:
    copies = jnp.broadcast_to(x, (keys.shape[0], *x.shape))
  else:
    copies = jax.vmap(run.augment, in_axes=(0, None))(keys, x)
  return copies if run.preprocess is None else run.preprocess(copies)


def measure(
  run: Run,
  plan: Plan,
  key: jax.Array,
  params: Tree,
  x: jax.Array,
  *,
  several: bool = False,
) -> LayerGrams:
  """Do what `layer_grams` does by a plan that is made.

  Args:
    run: The functions of the user.
    plan: What is pruned, and how many copies go together.
    key: A random key, or one for each of several examples [B].
    params: The parameters.
    x: One example [...], or several [B, ...].
    several: Whether there are several.

  Returns:
    The Gram matrices, of which those with values are checked; those of several
    examples with a leading axis.

  Raises:
    ValueError: If the inputs of a layer say nothing.
  """
  # A program depends neither on the sparsities nor on the number of examples.
  tasks = tuple(task._replace(sparsity=0.0) for task in plan.tasks)
  program = _passes(run, plan._replace(tasks=tasks, together=0), several)
  found, at_solvers = program(key, params, x)
  if not any(isinstance(leaf, jax.core.Tracer) for leaf in found.values()):
    _check(found, several)
  split = lambda kept: {
    task.path: found[task.path] for task in tasks if task.keeps_inputs == kept
  }
  return LayerGrams(plan.tasks, split(False), split(True), at_solvers)


@functools.lru_cache(maxsize=64)
def _passes(run: Run, plan: Plan, several: bool) -> Callable:
  """Compile the passes over the copies that gather what layers meet."""
  many, rest = divmod(plan.copies, plan.chunk_size)
  kept = {task.path for task in plan.tasks if task.keeps_inputs}

  def step(key, params, x, start, count):
    numbers = start + jnp.arange(count)
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)
    _, inputs = run.capture(params, _copies(run, keys, x))
    return {
      task.path: (met if task.keeps_inputs else _gram)(task, inputs[task.path])
      for task in plan.tasks
    }

  def full_chunks(key, params, x):
    first = step(key, params, x, 0, plan.chunk_size)
    if many == 1:
      return first
    room = {
      path: jnp.pad(part, ((0, (many - 1) * len(part)), (0, 0)))
      if path in kept
      else part
      for path, part in first.items()
    }

    def more(i, room):
      found = step(key, params, x, i * plan.chunk_size, plan.chunk_size)
      return {
        path: jax.lax.dynamic_update_slice_in_dim(
          room[path], part, i * len(part), axis=0
        )
        if path in kept
        else room[path] + part
        for path, part in found.items()
      }

    return jax.lax.fori_loop(1, many, more, room)

  def passes(key, params, x):
    found = full_chunks(key, params, x)
    if not rest:
      return found
    # Its own pass: nothing says which inputs of a layer belong to which copy.
    last = step(key, params, x, many * plan.chunk_size, rest)
    return {
      path: jnp.concatenate([part, last[path]])
      if path in kept
      else part + last[path]
      for path, part in found.items()
    }

  def one(key, params, x):
    at_copies, at_solvers = jax.random.split(key)
    return passes(at_copies, params, x), at_solvers

  return jax.jit(jax.vmap(one, (0, None, 0)) if several else one)


def _gram(task: Task, inputs: jax.Array) -> jax.Array:
  if not task.layer.is_convolution:
    return pruning.input_gram(inputs)
  return pruning.conv_input_gram(
    as_images(inputs),
    task.window,
    strides=task.layer.strides,
    padding=task.layer.padding,
    dilation=task.layer.dilation,
  )


def check_kernels(params: Tree, tasks: Sequence[Task]) -> None:
  """Reject kernels that are not finite, unless they are traced.

  Args:
    params: The parameters.
    tasks: The layers that are to be pruned.

  Raises:
    ValueError: If a kernel holds NaN or infinities.
  """
  kernels = list_kernels(params)
  known = {
    task.path: kernels[task.path]
    for task in tasks
    if not isinstance(kernels[task.path], jax.core.Tracer)
  }
  sums = {path: _size(False, kernel) for path, kernel in known.items()}
  for path, size in jax.device_get(sums).items():
    if not np.isfinite(size):
      raise ValueError(f"the kernel {path!r} holds NaN or infinities")


def _check(found: dict[str, jax.Array], several: bool) -> None:
  """Reject layers whose inputs say nothing."""
  # One number tells of each: of a Gram matrix the trace does.
  sums = {path: _size(several, part) for path, part in found.items()}
  for path, sizes in jax.device_get(sums).items():
    if not np.all(np.isfinite(sizes)):
      raise ValueError(
        f"the inputs of the layer {path!r} hold NaN or infinities: look at"
        " the parameters and at what preprocess= makes"
      )
    if not np.all(sizes):
      raise ValueError(
        f"all inputs of the layer {path!r} are zero for this example, so"
        f" that nothing tells its weights apart: give ({path!r}, None) to"
        " leave it as it is"
      )


@functools.partial(jax.jit, static_argnums=0)
def _size(several: bool, found: jax.Array) -> jax.Array:
  axes = tuple(range(int(several), found.ndim))
  return jnp.sum(jnp.abs(found.astype(jnp.float32)), axis=axes)
