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

from effjax import tree as trees
from effjax.models.capturing import Layer
from effjax.pruning.gram import kernel_to_matrix, matrix_to_kernel
from effjax.pruning.scores import check_convention
from effjax.spade import measuring
from effjax.spade.augmentation import augment as default_augment
from effjax.spade.measuring import LayerGrams
from effjax.spade.planning import Plan, find_shares, list_kernels, make_plan
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
  memory: int | None = None,
  convention: str = "exact",
  progress: Callable[[int, int], None] | None = None,
  has_aux: bool = False,
) -> Any:
  """Prune a network for each example by itself.

  Compiled programs are kept by `capture`, `augment` and `preprocess`: give the
  same objects again, not new ones. On the CPU, where a solver takes one matrix
  after the other, the examples go one by one. Inside `jit` nothing that depends
  on values is checked.

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
    mask_block: Columns whose entries are chosen together, of `sparsegpt`
      alone; see `solvers.sparsegpt`.
    damping: What is added to the diagonal of a Gram matrix, as a share of its
      mean; more where a factorisation fails.
    chunk_size: Copies that go through the network together; by default what
      `memory` allows. It does not change the result but by rounding.
    memory: Bytes that inputs of layers and Gram matrices may take; by default
      2 GiB, on an accelerator a quarter of its memory. There as many examples
      as fit are traced together.
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
  _check_solver(solver, mask_block, convention)
  x = jnp.asarray(x)
  if not x.ndim or not x.shape[0]:
    raise ValueError(f"x must be examples [B, ...], got shape {x.shape}")
  run = measuring.Run(capture, augment, preprocess)
  plan = make_plan(
    capture,
    params,
    measuring.network_inputs(run, x[0]),
    sparsities,
    layers,
    copies=copies,
    chunk_size=chunk_size,
    memory=memory,
  )
  options = _Options(solver, mask_block, damping, convention)
  traced = any(
    isinstance(leaf, jax.core.Tracer)
    for leaf in jax.tree.leaves((params, x, key))
  )
  measuring.check_kernels(params, plan.tasks)
  keys = _keys(key, x.shape[0])
  together = min(plan.together, x.shape[0])
  one = functools.partial(_trace_one, run, plan, options, params)
  if traced:
    kernels, report = jax.lax.map(
      lambda pair: one(*pair),
      (keys, x),
      batch_size=together if together > 1 else None,
    )
  elif together == 1:
    results = []
    for i in range(x.shape[0]):
      results.append(one(keys[i], x[i]))
      if progress is not None:
        progress(i + 1, x.shape[0])
    kernels, report = jax.tree.map(lambda *parts: jnp.stack(parts), *results)
  else:
    several = functools.partial(_trace_some, run, plan, options, params)
    kernels, report = _in_groups(several, together, keys, x, progress)
  pruned = _put_back(
    params,
    kernels,
    lambda leaf: jnp.broadcast_to(leaf, (x.shape[0], *jnp.shape(leaf))),
  )
  return (pruned, report) if has_aux else pruned


def prune_layers(
  params: Tree,
  found: LayerGrams,
  sparsities: Rules,
  *,
  solver: str = "sparsegpt",
  mask_block: int | None = None,
  damping: float = 0.01,
  convention: str = "exact",
  progress: Callable[[int, int], None] | None = None,
  has_aux: bool = False,
) -> Any:
  """Prune a network for one example, by what its layers met.

  The second half of `trace`, of which `spade.layer_grams` is the first.

  Args:
    params: The parameters of the dense network.
    found: What its layers met.
    sparsities: As for `trace`; no share may be asked for a layer that `found`
      does not hold.
    solver: As for `trace`, like those that follow.
    mask_block: Columns whose entries are chosen together.
    damping: What is added to the diagonal of a Gram matrix.
    convention: As in `pruning.obs.sparsegpt`.
    progress: Called with the number of layers done and of all.
    has_aux: Whether to return a report too.

  Returns:
    The parameters; with `has_aux` also {path: LayerReport}.

  Raises:
    ValueError: As for `trace`.

  >>> capture = lambda w, x: (x @ w["a"], {"a": x})
  >>> params, x = {"a": jnp.array([[1.0], [0.1]])}, jnp.ones(2)
  >>> found = measuring.layer_grams(
  ...   jax.random.key(0), capture, params, x, 0.5, augment=None
  ... )
  >>> prune_layers(params, found, 0.5)["a"].tolist()
  [[1.0], [0.0]]
  """
  _check_solver(solver, mask_block, convention)
  known = {**found.grams, **found.inputs}
  shares = find_shares(list_kernels(params), known, sparsities)
  for path, share in shares.items():
    if share is not None and path not in known:
      raise ValueError(
        f"the layer {path!r} cannot be pruned: its inputs were not summed up;"
        f" give ({path!r}, None), or a share to layer_grams too"
      )
  tasks = tuple(
    task._replace(sparsity=share)
    for task in found.tasks
    if (share := shares[task.path]) is not None
  )
  measuring.check_kernels(params, tasks)
  options = _Options(solver, mask_block, damping, convention)
  kernels, report = _prune(
    found._replace(tasks=tasks), options, params, progress
  )
  pruned = _put_back(params, kernels, lambda leaf: leaf)
  return (pruned, report) if has_aux else pruned


class _Options(NamedTuple):
  """What solvers are told of all layers."""

  solver: str
  mask_block: int | None
  damping: float
  convention: str


@functools.partial(jax.jit, static_argnums=1)
def _keys(key: jax.Array, count: int) -> jax.Array:
  """Make the keys of examples, which depend on their place."""
  numbers = jnp.arange(count)
  return jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)


def _in_groups(
  trace_some: Callable,
  together: int,
  keys: jax.Array,
  x: jax.Array,
  progress: Callable[[int, int], None] | None,
) -> Any:
  """Trace groups of examples, all as large so that one program serves."""
  count = x.shape[0]
  groups = -(-count // together)
  size = -(-count // groups)
  results = []
  for group in range(groups):
    # The last group begins with examples of the one before.
    start = min(group * size, count - size)
    found = trace_some(keys[start : start + size], x[start : start + size])
    new = group * size - start
    results.append(jax.tree.map(lambda part, new=new: part[new:], found))
    if progress is not None:
      progress(start + size, count)
  return jax.tree.map(lambda *parts: jnp.concatenate(parts), *results)


def _trace_one(
  run: measuring.Run,
  plan: Plan,
  options: _Options,
  params: Tree,
  key: jax.Array,
  x: jax.Array,
) -> tuple[dict[str, jax.Array], dict[str, LayerReport]]:
  """Prune the layers of the plan for one example."""
  found = measuring.measure(run, plan, key, params, x)
  return _prune(found, options, params, None)


def _trace_some(
  run: measuring.Run,
  plan: Plan,
  options: _Options,
  params: Tree,
  keys: jax.Array,
  x: jax.Array,
) -> tuple[dict[str, jax.Array], dict[str, LayerReport]]:
  """Prune the layers of the plan for each of several examples."""
  found = measuring.measure(run, plan, keys, params, x, several=True)

  def one(arrays):
    return _prune(LayerGrams(found.tasks, *arrays), options, params, None)

  return jax.vmap(one)((found.grams, found.inputs, found.key))


def _prune(
  found: LayerGrams,
  options: _Options,
  params: Tree,
  progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, jax.Array], dict[str, LayerReport]]:
  """Prune layers by what they met."""
  leaves = dict(_named(params))
  met = {**found.grams, **found.inputs}
  solver_keys = trees.keys(found.key, met)
  kernels, report = {}, {}
  for done, task in enumerate(found.tasks, 1):
    leaf = leaves[task.path]
    solution = SOLVERS[options.solver](
      Problem(
        solver_keys[task.path],
        _matrix(task.layer.axes, leaf),
        met[task.path],
        task.path in found.inputs,
        task.sparsity,
        task.taps,
        options.mask_block,
        options.damping,
        options.convention,
      )
    )
    kernels[task.path], zero = _kernel(
      task.layer.axes, leaf.shape, leaf.dtype, solution.weights
    )
    report[task.path] = LayerReport(zero, solution.loss, solution.damping)
    if progress is not None:
      progress(done, len(found.tasks))
  return kernels, report


# Compiled as a whole: one small program for each shape.
@functools.partial(jax.jit, static_argnums=0)
def _matrix(axes: tuple[int, ...], leaf: jax.Array) -> jax.Array:
  """Write a kernel with its axes in any order as a matrix [I, O]."""
  return kernel_to_matrix(jnp.transpose(leaf, axes)).T


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _kernel(
  axes: tuple[int, ...], shape: tuple[int, ...], dtype: Any, matrix: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Write a matrix [I, O] as its kernel; also return its share of zeros."""
  house = matrix_to_kernel(matrix.T, [shape[axis] for axis in axes])
  kernel = jnp.transpose(house, np.argsort(axes).tolist()).astype(dtype)
  return kernel, jnp.mean(matrix == 0.0, dtype=jnp.float32)


def _named(params: Tree) -> list[tuple[str, Any]]:
  """List the leaves with their names."""
  names = jax.tree.leaves(trees.names(params))
  return list(zip(names, jax.tree.leaves(params), strict=True))


def _put_back(params: Tree, kernels: dict[str, jax.Array], other: Callable):
  """Make the tree of the pruned kernels, and of what becomes of the others."""
  leaves = [
    kernels[name] if name in kernels else other(leaf)
    for name, leaf in _named(params)
  ]
  return jax.tree.structure(params).unflatten(leaves)


def _check_solver(solver: str, mask_block: int | None, convention: str) -> None:
  check_convention(convention)
  if solver not in SOLVERS:
    raise ValueError(
      f"solver must be one of {', '.join(SOLVERS)}, got {solver!r}"
    )
  if mask_block is not None and solver != "sparsegpt":
    raise ValueError(
      f"mask_block={mask_block} is for the solver 'sparsegpt'; {solver!r} does"
      " not choose by blocks"
    )
