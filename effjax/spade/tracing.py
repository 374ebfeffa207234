"""SPADE: a copy of a network for each example, pruned by that example.

Random copies of the example go through the dense network once. Every layer is
then pruned so that its outputs on them change least, independently of the
other layers (arXiv 2310.04519). What is left is what the network uses here,
and explains it better; predictions are still those of the dense network.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import pruning
from effjax import tree as trees
from effjax.models.capturing import Layer
from effjax.pruning.gram import kernel_to_matrix, matrix_to_kernel
from effjax.spade.augmentation import augment as default_augment
from effjax.spade.planning import Plan, Task, make_plan
from effjax.spade.solvers import SOLVERS, Problem

Tree = Any
Rules = float | Sequence[tuple[str, float | None]]


class LayerReport(NamedTuple):
  """What became of a layer, for each example.

  Attributes:
    sparsity: Share of its weights that are zero [B].
    loss: Half the squared change of its outputs, damping included [B].
    damping: The damping that was needed; infinite where no factorisation
      succeeded and magnitudes decided [B].
  """

  sparsity: jax.Array
  loss: jax.Array
  damping: jax.Array


def trace(
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
  solver: str = "sparsegpt",
  mask_block: int | None = None,
  damping: float = 0.01,
  chunk_size: int | None = None,
  memory: int = 1 << 31,
  convention: str = "exact",
  progress: Callable[[int, int], None] | None = None,
  has_aux: bool = False,
) -> Any:
  """Prune a network for each example by itself.

  Compiled programs are kept by `capture`, `augment` and `preprocess`: give the
  same objects again, not new ones. Inside `jit` the examples go one by one and
  nothing that depends on values is checked.

  Args:
    key: A random key; the copies of an example depend on it and on the place of
      the example.
    capture: `(params, x) -> (logits, {path of a kernel: layer inputs})`, see
      `models.capture` and `spade.capture_function`.
    params: The parameters of the dense network.
    x: Examples [B, ...], as `augment` takes them.
    sparsities: One share to prune for all layers, or ordered rules (pattern,
      share) of which the first that matches counts; None leaves a layer as it
      is, as the papers do with the first one.
    copies: Random copies N of each example.
    augment: `(key, example) -> copy`; None repeats the example.
    preprocess: `copies [N, ...] -> inputs of the network`, normalisation for
      example.
    layers: How the kernels meet their inputs, by path; by default what
      `capture.layers(params, x)` says, and where that is missing kernels
      [I, O] of dense layers.
    solver: A key of `SOLVERS`.
    mask_block: Columns whose entries are chosen together; see
      `solvers.sparsegpt`.
    damping: What is added to the diagonal of a Gram matrix, as a share of its
      mean; more where a factorisation fails.
    chunk_size: Copies that go through the network together; by default what
      `memory` allows. It does not change the result but by rounding.
    memory: Bytes that inputs of layers and Gram matrices may take.
    convention: As in `pruning.obs.sparsegpt`.
    progress: Called with the number of examples done and of all, outside `jit`.
    has_aux: Whether to return a report too.

  Returns:
    The parameters with a leading axis B on every leaf; with `has_aux` also
    {path: LayerReport}.

  Raises:
    ValueError: If a layer has no rule or cannot be pruned, its inputs are not
      finite or all zero, a chunk does not fit into `memory`, or a number is out
      of range.

  >>> from flax import linen as nn
  >>> from effjax import models
  >>> module, x = nn.Dense(2), jnp.array([[1.0, 0.1, 2.0]])
  >>> variables = module.init(jax.random.key(0), x)
  >>> capture = models.capture(module, variables)
  >>> pruned = trace(
  ...   jax.random.key(1), capture, variables["params"], x, 0.5, augment=None
  ... )
  >>> pruned["kernel"].shape, int(jnp.sum(pruned["kernel"] == 0.0))
  ((1, 3, 2), 3)
  """
  if solver not in SOLVERS:
    raise ValueError(
      f"solver must be one of {', '.join(SOLVERS)}, got {solver!r}"
    )
  x = jnp.asarray(x)
  if not x.ndim or not x.shape[0]:
    raise ValueError(f"x must be examples [B, ...], got shape {x.shape}")
  run = _Run(capture, augment, preprocess)
  plan = make_plan(
    capture,
    params,
    _inputs(run, x),
    sparsities,
    layers,
    copies=copies,
    chunk_size=chunk_size,
    memory=memory,
  )
  options = _Options(solver, mask_block, damping, convention)
  traced = any(
    isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, x))
  ) or isinstance(key, jax.core.Tracer)
  numbers = jnp.arange(x.shape[0])
  keys = jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)
  one = functools.partial(_trace_one, run, plan, options, params, not traced)
  if traced:
    kernels, report = jax.lax.map(lambda pair: one(*pair), (keys, x))
  else:
    results = []
    for i in range(x.shape[0]):
      results.append(one(keys[i], x[i]))
      if progress is not None:
        progress(i + 1, x.shape[0])
    kernels, report = jax.tree.map(lambda *parts: jnp.stack(parts), *results)
  leaves, treedef = jax.tree.flatten(params)
  pruned = [
    kernels[name]
    if name in kernels
    else jnp.broadcast_to(leaf, (x.shape[0], *jnp.shape(leaf)))
    for name, leaf in zip(
      jax.tree.leaves(trees.names(params)), leaves, strict=True
    )
  ]
  pruned = treedef.unflatten(pruned)
  return (pruned, report) if has_aux else pruned


class _Run(NamedTuple):
  """The functions of the user."""

  capture: Callable
  augment: Callable | None
  preprocess: Callable | None


class _Options(NamedTuple):
  """What solvers are told of all layers."""

  solver: str
  mask_block: int | None
  damping: float
  convention: str


def _inputs(run: _Run, x: jax.Array) -> Any:
  """Find the shape of what the network gets for one copy."""
  return jax.eval_shape(
    functools.partial(_copies, run),
    jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1)),
    jax.ShapeDtypeStruct(x.shape[1:], x.dtype),
  )


def _copies(run: _Run, keys: jax.Array, x: jax.Array) -> jax.Array:
  """Make the copies of an example, one for each key."""
  if run.augment is None:
    copies = jnp.broadcast_to(x, (keys.shape[0], *x.shape))
  else:
    copies = jax.vmap(run.augment, in_axes=(0, None))(keys, x)
  return copies if run.preprocess is None else run.preprocess(copies)


def _trace_one(
  run: _Run,
  plan: Plan,
  options: _Options,
  params: Tree,
  check: bool,
  key: jax.Array,
  x: jax.Array,
) -> tuple[dict[str, jax.Array], dict[str, LayerReport]]:
  """Prune the layers of the plan for one example."""
  at_copies, at_solvers = jax.random.split(key)
  grams = _grams(run, plan)(at_copies, params, x)
  if check:
    _check(plan, grams)
  names = jax.tree.leaves(trees.names(params))
  leaves = dict(zip(names, jax.tree.leaves(params), strict=True))
  solver_keys = trees.keys(at_solvers, grams)
  kernels, report = {}, {}
  for task in plan.tasks:
    leaf = leaves[task.path]
    house = jnp.transpose(leaf, task.layer.axes)
    solution = SOLVERS[options.solver](
      Problem(
        solver_keys[task.path],
        kernel_to_matrix(house),
        grams[task.path],
        task.sparsity,
        task.taps,
        options.mask_block,
        options.damping,
        options.convention,
      )
    )
    kernel = matrix_to_kernel(solution.weights, house.shape)
    back = np.argsort(task.layer.axes)
    kernels[task.path] = jnp.transpose(kernel, back).astype(leaf.dtype)
    zero = jnp.mean(solution.weights == 0.0, dtype=jnp.float32)
    report[task.path] = LayerReport(zero, solution.loss, solution.damping)
  return kernels, report


@functools.lru_cache(maxsize=64)
def _grams(run: _Run, plan: Plan) -> Callable:
  """Compile the pass over the copies that sums up Gram matrices."""

  def gram(task: Task, inputs: jax.Array) -> jax.Array:
    if not task.layer.is_convolution:
      return pruning.input_gram(inputs)
    return pruning.conv_input_gram(
      inputs,
      task.window,
      strides=task.layer.strides,
      padding=task.layer.padding,
      dilation=task.layer.dilation,
    )

  def step(key, params, x, sums, start):
    numbers = start + jnp.arange(plan.chunk_size)
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)
    _, inputs = run.capture(params, _copies(run, keys, x))
    # What is beyond the last copy counts as zeros, which add nothing.
    real = numbers < plan.copies
    added = {}
    for task in plan.tasks:
      given = inputs[task.path]
      rows = given.reshape(plan.chunk_size, -1)
      rows = jnp.where(real[:, None], rows, jnp.zeros((), rows.dtype))
      added[task.path] = gram(task, rows.reshape(given.shape))
    if sums is None:
      return added
    return jax.tree.map(jnp.add, sums, added)

  @jax.jit
  def grams(key, params, x):
    sums = step(key, params, x, None, 0)
    many = -(-plan.copies // plan.chunk_size)
    return jax.lax.fori_loop(
      1,
      many,
      lambda i, sums: step(key, params, x, sums, i * plan.chunk_size),
      sums,
    )

  return grams


def _check(plan: Plan, grams: dict[str, jax.Array]) -> None:
  """Reject layers whose inputs say nothing."""
  diagonals = {path: jnp.diagonal(gram) for path, gram in grams.items()}
  for task in plan.tasks:
    diagonal = np.asarray(diagonals[task.path])
    if not np.all(np.isfinite(diagonal)):
      raise ValueError(
        f"the inputs of the layer {task.path!r} hold NaN or infinities: look at"
        " the parameters and at what preprocess= makes"
      )
    if not diagonal.any():
      raise ValueError(
        f"all inputs of the layer {task.path!r} are zero for this example, so"
        f" that nothing tells its weights apart: give ({task.path!r}, None) to"
        " leave it as it is"
      )
