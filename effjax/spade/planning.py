"""What is pruned how, settled before anything is computed."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from effjax import arguments, pruning
from effjax import tree as trees
from effjax.models import products
from effjax.models.capturing import Layer

Tree = Any
_BYTES = 4  # of a float32
_CPU_MEMORY = 1 << 31
_SHARE = 4  # of an accelerator's memory a quarter is used: solvers need some
# A Gram matrix costs more than the inputs themselves with fewer than 1 / 3 of
# its columns.
_FEW = 3


class Task(NamedTuple):
  """A layer to prune.

  Attributes:
    path: The path of its kernel.
    layer: How its kernel meets its inputs.
    sparsity: The share to prune.
    window: Rows and columns of its kernel, (1, 1) for a dense layer.
    columns: Inputs I of its weight matrix [O, I].
    rows: Inputs that it meets for one copy, one for each position.
    keeps_inputs: Whether all copies have so few inputs that they are kept as
      they are; otherwise their Gram matrix is summed up.
  """

  path: str
  layer: Layer
  sparsity: float
  window: tuple[int, int]
  columns: int
  rows: int
  keeps_inputs: bool

  @property
  def taps(self) -> int:
    """Entries of a row that belong to one input channel."""
    return self.window[0] * self.window[1]


class Plan(NamedTuple):
  """What is pruned, and how many copies go together.

  Attributes:
    tasks: The layers to prune, in the order of the parameters.
    copies: Copies of an example.
    chunk_size: Copies of an example that go through the network together.
    together: Examples that are traced together, at most.
  """

  tasks: tuple[Task, ...]
  copies: int
  chunk_size: int
  together: int


def make_plan(
  capture: Callable,
  params: Tree,
  inputs: Any,
  sparsities: float | Sequence[tuple[str, float | None]],
  layers: Mapping[str, Layer] | None,
  *,
  copies: int,
  chunk_size: int | None,
  memory: int | None,
) -> Plan:
  """Settle which layers are pruned and how many copies go together.

  Args:
    capture: `(params, x) -> (logits, {path: layer inputs})`.
    params: The parameters.
    inputs: Shape of one copy [1, ...].
    sparsities: A share, or rules.
    layers: How the kernels meet their inputs, None to ask `capture`.
    copies: Copies of an example.
    chunk_size: Copies that go together, None to choose.
    memory: Bytes that may be used, None to choose.

  Returns:
    The plan.

  Raises:
    ValueError: If a layer has no rule or cannot be pruned, nothing is to be
      pruned, or the chunk does not fit.
  """
  copies = arguments.whole("copies", copies)
  leaves, structure = jax.tree.flatten((params, inputs))
  _check_leaves(params)
  shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves)
  captured, told = _look(capture, structure, shapes)
  layers = told if layers is None else layers
  flat = list_kernels(params)
  unknown = sorted(set(captured) - set(flat))
  if unknown:
    raise ValueError(
      f"capture gives inputs of {unknown[0]!r}, which is no kernel; the nearest"
      f" are {', '.join(trees.nearest(unknown[0], list(flat), 3)) or 'none'}"
    )
  shares = find_shares(flat, captured, sparsities)
  tasks = tuple(
    _task(name, flat[name], share, layers.get(name), captured.get(name), copies)
    for name, share in shares.items()
    if share is not None
  )
  if not tasks:
    raise ValueError("the rules leave every layer as it is: nothing to prune")
  return Plan(
    tasks, copies, *_chunk(tasks, captured, copies, chunk_size, memory)
  )


# Looking takes about as long as a trace on an accelerator.
@functools.lru_cache(maxsize=64)
def _look(capture: Callable, structure: Any, shapes: tuple) -> tuple:
  """Find the shapes of what layers meet, and what `capture` tells of them."""
  given = structure.unflatten(shapes)
  _, captured = jax.eval_shape(capture, *given)
  ask = getattr(capture, "layers", None)
  return captured, ask(*given) if ask else {}


def list_kernels(params: Tree) -> dict[str, Any]:
  """List the leaves that might be pruned.

  Args:
    params: The parameters.

  Returns:
    Floating leaves of rank 2 or more, by path.
  """
  leaves = zip(
    jax.tree.leaves(trees.names(params)), jax.tree.leaves(params), strict=True
  )
  return {
    name: leaf for name, leaf in leaves if trees.default_where(name, leaf)
  }


def find_shares(
  flat: Mapping[str, Any], captured: Mapping[str, Any], sparsities: Any
) -> dict[str, float | None]:
  """Find the share to prune of every kernel.

  Args:
    flat: The kernels by path.
    captured: What is known of the inputs of those that can be pruned, by path.
    sparsities: A share, or rules.

  Returns:
    The shares by path, None for a layer that stays as it is.

  Raises:
    ValueError: If a kernel has no rule, a rule no kernel, or a share is none.
  """
  if _is_number(sparsities):
    # One number is meant for what can be pruned.
    shares = {name: sparsities if name in captured else None for name in flat}
  elif isinstance(sparsities, Mapping):
    raise ValueError(
      "sparsities must be a share, or rules (pattern, share) in their order; of"
      " a tree of shares make rules: a pattern is the path of a kernel"
    )
  else:
    _check_rules(sparsities)
    shares = trees.assign(flat, list(sparsities))
    # Every rule has to matter, or it is misspelt.
    for pattern, _ in sparsities:
      trees.select(flat, pattern)
  return {
    name: None if share is None else _share(name, share)
    for name, share in shares.items()
  }


def _check_rules(rules: Any) -> None:
  """Reject what is no list of pairs."""
  is_list = lambda value: isinstance(value, list | tuple)
  if not (is_list(rules) and all(is_list(r) and len(r) == 2 for r in rules)):
    raise ValueError(
      "sparsities must be a share from 0 to 1, or rules (pattern, share) in"
      f" their order; got {rules!r}"
    )


def _is_number(value: Any) -> bool:
  if isinstance(value, bool | np.bool_):
    return False
  return isinstance(value, int | float) or getattr(value, "ndim", 1) == 0


def _share(name: str, share: Any) -> float:
  if isinstance(share, jax.core.Tracer):
    raise ValueError(
      f"the sparsity of {name!r} is traced; programs are compiled for one, so"
      " it must be a number"
    )
  if not _is_number(share) or not 0.0 <= share <= 1.0:
    raise ValueError(
      f"the sparsity of {name!r} must be from 0 to 1, or None to leave the"
      f" layer as it is; got {share!r}"
    )
  return float(share)


def _check_leaves(params: Tree) -> None:
  for name, leaf in zip(
    jax.tree.leaves(trees.names(params)), jax.tree.leaves(params), strict=True
  ):
    if not hasattr(leaf, "shape"):
      raise ValueError(
        f"the leaf {name!r} is no array but {type(leaf).__name__}: keep what is"
        " not pruned or trained out of params, as equinox.partition does"
      )


def _task(
  name: str,
  leaf: Any,
  share: float,
  layer: Layer | None,
  captured: Any,
  copies: int,
) -> Task:
  """Describe how a kernel is pruned."""
  if captured is None:
    raise ValueError(
      f"the layer {name!r} cannot be pruned: capture gives no inputs of it"
      " (dense layers and ordinary convolutions have some). Leave it as it is"
      f" by the rule ({name!r}, None)"
    )
  if layer is None and len(leaf.shape) == 2:
    layer = Layer((0, 1))
  if layer is None or len(layer.axes) != len(leaf.shape):
    raise ValueError(
      f"nothing tells how the kernel {name!r} of shape {leaf.shape} meets its"
      " inputs: give layers={path: models.Layer(...)}"
    )
  if layer.groups != 1:
    raise ValueError(
      f"the layer {name!r} has {layer.groups} groups of channels; grouped and"
      f" depthwise convolutions are not pruned: give ({name!r}, None)"
    )
  shape = tuple(leaf.shape[axis] for axis in layer.axes)
  window = (shape[0], shape[1]) if layer.is_convolution else (1, 1)
  columns = math.prod(shape[:-1])
  if captured.shape[-1] != shape[-2]:
    raise ValueError(
      f"the inputs of {name!r} have {captured.shape[-1]} channels, its kernel"
      f" has {shape[-2]}"
    )
  task = Task(name, layer, float(share), window, columns, 0, False)
  rows = _rows(task._replace(sparsity=0.0), captured.shape, captured.dtype)
  few = _FEW * copies * rows <= columns
  return task._replace(rows=rows, keeps_inputs=few)


@functools.lru_cache(maxsize=256)
def _rows(task: Task, shape: tuple[int, ...], dtype: Any) -> int:
  """Count what a weight matrix meets of one copy."""
  captured = jax.ShapeDtypeStruct(shape, dtype)
  return jax.eval_shape(functools.partial(met, task), captured).shape[0]


def met(task: Task, inputs: jax.Array) -> jax.Array:
  """List the inputs that a weight matrix meets.

  Args:
    task: The layer.
    inputs: What was captured [..., I], or images.

  Returns:
    The inputs [M, I], patches for a convolution, float32 or wider.
  """
  inputs = inputs.astype(products.wide(inputs.dtype))
  if not task.layer.is_convolution:
    return inputs.reshape(-1, inputs.shape[-1])
  return pruning.conv_patches(
    as_images(inputs),
    task.window,
    strides=task.layer.strides,
    padding=task.layer.padding,
    dilation=task.layer.dilation,
  )


def as_images(inputs: jax.Array) -> jax.Array:
  """List what a convolution met, whatever numbers the images.

  Args:
    inputs: What was captured [..., H, W, C], of frames of videos for example.

  Returns:
    Images [N, H, W, C].
  """
  return inputs.reshape(-1, *inputs.shape[-3:])


def _chunk(
  tasks: Sequence[Task],
  captured: Mapping[str, Any],
  copies: int,
  chunk_size: int | None,
  memory: int | None,
) -> tuple[int, int]:
  """Choose how many copies go together, and how many examples."""
  memory = _memory() if memory is None else memory
  numbers = {path: math.prod(x.shape) for path, x in captured.items()}
  # The patches of one layer at a time, beside the inputs of all.
  patches = max(numbers[task.path] * task.taps for task in tasks)
  each = _BYTES * (2 * sum(numbers.values()) + patches)
  fixed = (
    _BYTES
    * 2
    * sum(
      task.columns * (copies * task.rows if task.keeps_inputs else task.columns)
      for task in tasks
    )
  )
  fitting = (memory - fixed) // each
  if fitting < 1:
    raise ValueError(
      f"memory={memory:,} bytes is too little: Gram matrices take {fixed:,} and"
      f" one copy {each:,}; give at least {fixed + each:,}, or prune fewer"
      " layers"
    )
  if chunk_size is None:
    chunks = -(-copies // min(copies, fitting))
    chunk_size = -(-copies // chunks)
  chunk_size = arguments.whole("chunk_size", chunk_size)
  if chunk_size > fitting:
    raise ValueError(
      f"{chunk_size} copies at once do not fit into memory={memory:,} bytes:"
      f" choose chunk_size={fitting} at most"
    )
  chunk_size = min(chunk_size, copies)
  # A solver takes one matrix after the other on the CPU, so nothing is gained.
  alone = jax.default_backend() == "cpu"
  return chunk_size, 1 if alone else memory // (fixed + each * chunk_size)


def _memory() -> int:
  """Choose how many bytes may be used."""
  if jax.default_backend() == "cpu":
    return _CPU_MEMORY
  stats = jax.local_devices()[0].memory_stats() or {}
  return max(int(stats.get("bytes_limit", 0)) // _SHARE, _CPU_MEMORY)
