"""Many fine-tunings in one compiled program.

Compiling a fine-tuning of a toy model takes ten times as long as running it. So
everything in which runs differ is an argument: which leaves are trained is a
tree of booleans, the rank of LoRA a mask over factors of rank `arms.RANK` that
all share, the learning rate a number that multiplies Adam's updates, and the
rows of each step are numbers drawn before. All runs of full fine-tuning are one
program, all of LoRA another, whatever their targets, ranks and rates; runs are
mapped side by side in chunks that fit the memory.
"""

import functools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import editing, tree
from effjax.studies.edit import arms, examiner, pretraining

Tree = Any
_MEMORY = 192 * 2**20  # bytes of the parameters and moments of a chunk

Numbers = jax.Array | np.ndarray


class Run(NamedTuple):
  """One fine-tuning, or many with a leading axis.

  Attributes:
    train: which leaves are trained: bool, one for each leaf or for each weight.
    rank: bool [R], which columns of the factors there are.
    scale: of the product of factors, float32 [].
    rate: learning rate [].
    decay: weight decay [].
    clamp: how far a parameter may go [].
    edit: number of the edit, int32 [].
    mix: number of the mix, int32 [].
    theta: what is trained, in the beginning; None for parameters themselves.
    fixed: what belongs to it and is not trained.
  """

  train: Tree
  rank: Numbers
  scale: Numbers
  rate: Numbers
  decay: Numbers
  clamp: Numbers
  edit: Numbers
  mix: Numbers
  theta: Tree = None
  fixed: Tree = None


class Data(NamedTuple):
  """What E edits are trained on and measured with.

  Attributes:
    tokens: rows, int32 [E, N, L].
    places: places whose loss counts, int32 [E, N, K].
    targets: tokens that come there [E, N, K].
    counted: bool [E, N, K].
    drawn: rows of each step, int32 [mixes, E, steps, batch].
    asked: the evaluation sets, see `examiner`.
  """

  tokens: jax.Array
  places: jax.Array
  targets: jax.Array
  counted: jax.Array
  drawn: jax.Array | None
  asked: examiner.Asked


class Outcome(NamedTuple):
  """What came of runs.

  Attributes:
    history: by measure, float32 [runs, evaluations, sets].
    failed: bool [runs], a loss was not finite: the run stands still since.
    theta: what was trained, with leading axis runs.
  """

  history: dict[str, np.ndarray]
  failed: np.ndarray
  theta: Tree


def factors(key: jax.Array, params: Tree, rank: int = arms.RANK) -> Tree:
  """Draw the factors that LoRA begins with.

  Column j of A depends on its kernel and on j alone, so that factors of less
  rank are the first columns of those of more.

  Args:
    key: A typed random key.
    params: Parameters.
    rank: Columns R.

  Returns:
    By path of the kernel a pair: A [I, R], uniform in +-sqrt(1 / I), and B
    [R, O] of zeros.
  """
  found = {}
  for path, kernel in arms.kernels(params).items():
    own = tree.keys(key, {path: 0})[path]
    columns = jnp.arange(rank)
    draw = lambda j, own=own, size=kernel.shape[0]: jax.random.uniform(
      jax.random.fold_in(own, j), (size,), minval=-1.0
    )
    a = jax.vmap(draw, out_axes=1)(columns) * kernel.shape[0] ** -0.5
    found[path] = (a, jnp.zeros((rank, kernel.shape[1]), a.dtype))
  return found


def merged(base: Tree, theta: Tree, run: Run) -> Tree:
  """Add the products of factors to kernels, W + s A diag(m) B.

  Args:
    base: Parameters.
    theta: Factors, see `factors`.
    run: The run, whose `train` says for each kernel whether it changes.

  Returns:
    Parameters.
  """

  def change(path, leaf):
    if path not in theta:
      return leaf
    a, b = theta[path]
    kept = jnp.where(run.rank[None, :], a, 0.0)
    moved = leaf + run.scale * (kept @ b)
    return jnp.where(run.train[path][0], moved, leaf)

  return jax.tree.map(change, tree.names(base), base)


def truncated(base: Tree, theta: Tree, run: Run) -> Tree:
  """Keep of the change of each kernel its leading singular directions.

  Args:
    base: Parameters before.
    theta: Parameters after.
    run: The run, whose `rank` says how many.

  Returns:
    Parameters; what is no kernel of a block is that of `theta`.
  """
  delta = editing.task_vector(base, theta)
  kernels = {path: delta.pop(path) for path in arms.kernels(base)}
  count = jnp.sum(run.rank, dtype=jnp.int32)
  return editing.add(base, delta | editing.project(kernels, count))


def both(base: Tree, theta: Tree, run: Run) -> Tree:
  """Add the products of factors to kernels some of whose weights are trained.

  Args:
    base: Parameters, which are not read.
    theta: "weights", parameters, and "factors", see `factors`.
    run: The run, whose `train` has masks of both.

  Returns:
    Parameters.
  """
  del base
  own = run._replace(train=run.train["factors"])
  return merged(theta["weights"], theta["factors"], own)


class Sweep:
  """The programs of a study; each is compiled once for equal shapes."""

  def __init__(self, module: Any, *, every: int, adapters: Any = None):
    """Take a model.

    Args:
      module: A `models.NeoX`.
      every: Steps between evaluations.
      adapters: By method an `adapters.Adapter`, for those beside full and LoRA.
    """
    self.module, self.every = module, every
    self.compiled: list[str] = []  # by name, whenever one is traced
    whole = lambda base, theta, run: theta
    self._programs = {
      "full": self._program("full", whole),
      "truncated": self._program("truncated", whole, truncated),
      "lora": self._program("lora", merged),
      # Its masks are as large as the parameters.
      "sparse": self._program("sparse", whole),
      "rosa": self._program("rosa", both),
    }
    for name, adapter in (adapters or {}).items():
      self._programs[name] = self._program(
        name,
        lambda base, theta, run, apply=adapter.apply: apply(
          base, theta, run.fixed
        ),
      )

  def __call__(
    self,
    method: str,
    base: Tree,
    data: Data,
    runs: Sequence[Run],
    *,
    chunk: int | None = None,
    keep: bool = False,
  ) -> Outcome:
    """Fine-tune.

    Args:
      method: "full", "lora" or the name of an adapter.
      base: Parameters before.
      data: What the edits are trained on and measured with.
      runs: The runs.
      chunk: How many are mapped side by side; by default as many as fit into
        some memory. The last chunk is filled up.
      keep: Whether what was trained is returned.

    Returns:
      What came of the runs, in their order.

    Raises:
      ValueError: If there is no run or no such method.
    """
    if not runs or method not in self._programs:
      raise ValueError(
        f"a sweep takes runs of one of {', '.join(self._programs)}, got"
        f" {len(runs)} of {method!r}"
      )
    if chunk is None:
      chunk = chunk_size(base, runs[0])
    found = []
    for first in range(0, len(runs), chunk):
      own = list(runs[first : first + chunk])
      filled = own + [own[-1]] * (chunk - len(own))
      stacked = jax.tree.map(lambda *x: np.stack(x), *filled)
      history, failed, theta = self._programs[method](base, data, stacked)
      part = history, failed, theta if keep else None
      cut = lambda x, n=len(own): np.asarray(x)[:n]  # noqa: B008
      found.append(jax.tree.map(cut, part))
    return Outcome(*jax.tree.map(lambda *x: np.concatenate(x), *found))

  def _program(self, name, merge, shown=None):
    def one(base, data, run):
      merges = merge, shown or merge
      return _train(self.module, self.every, merges, base, data, run)

    def many(base, data, runs):
      self.compiled.append(name)
      return jax.vmap(one, in_axes=(None, None, 0))(base, data, runs)

    return jax.jit(many)


def chunk_size(base: Tree, run: Run) -> int:
  """Return how many runs are mapped at once: parameters, and two moments.

  Args:
    base: Parameters.
    run: A run.

  Returns:
    At least 1, at most 32.
  """
  trained = base if run.theta is None else run.theta
  size = lambda t: sum(int(x.size) for x in jax.tree.leaves(t))
  return max(1, min(32, _MEMORY // (4 * (4 * size(trained) + size(base)))))


def _optimizer() -> optax.GradientTransformation:
  return optax.chain(
    optax.clip_by_global_norm(1.0), optax.scale_by_adam(b1=0.9, b2=0.95)
  )


def _train(module, every, merges, base, data, run):
  """Fine-tune once, recording what is measured every so many steps.

  What is measured may be merged in another way than what is trained.
  """
  merge, shown = merges
  start = base if run.theta is None else run.theta
  update = _optimizer()
  drawn = data.drawn[run.mix, run.edit]
  rows = jax.tree.map(lambda x: x[run.edit], data[:4])
  asked = jax.tree.map(lambda x: x[run.edit], data.asked)
  before = examiner.logits(module, base, asked)

  def loss(theta, chosen):
    tokens, places, targets, counted = (x[chosen] for x in rows)
    found = pretraining.at_places(
      module, merge(base, theta, run), tokens, places
    )
    each = optax.softmax_cross_entropy_with_integer_labels(found, targets)
    count = jnp.sum(counted, dtype=jnp.int32).astype(each.dtype)
    return jnp.sum(jnp.where(counted, each, 0.0)) / count

  def step(state, chosen):
    theta, moments, failed = state
    value, slope = jax.value_and_grad(loss)(theta, chosen)
    slope = jax.tree.map(lambda m, g: jnp.where(m, g, 0.0), run.train, slope)
    with jax.numpy_dtype_promotion("standard"):
      moved, later = update.update(slope, moments)
    failed = failed | ~(jnp.isfinite(value) & _finite(slope))

    def apply(mask, p, u, first):
      new = p - run.rate * (u + run.decay * p)
      new = jnp.clip(new, first - run.clamp, first + run.clamp)
      return jnp.where(mask & ~failed, new, p)

    theta = jax.tree.map(apply, run.train, theta, moved, start)
    hold = lambda new, old: jnp.where(failed, old, new)
    return (theta, jax.tree.map(hold, later, moments), failed), None

  def part(state, chosen):
    state, _ = jax.lax.scan(step, state, chosen)
    now = examiner.logits(module, shown(base, state[0], run), asked)
    return state, examiner.measure(now, before, asked)

  state = (start, update.init(start), jnp.zeros((), bool))
  chosen = drawn.reshape(-1, every, drawn.shape[-1])
  (theta, _, failed), history = jax.lax.scan(part, state, chosen)
  return history, failed, theta


def _finite(values: Tree) -> jax.Array:
  checks = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(values)]
  return functools.reduce(jnp.logical_and, checks)


def make_run(
  arm: arms.Arm,
  base: Tree,
  *,
  rate: float,
  edit: int,
  mix: int,
  theta: Tree = None,
  fixed: Tree = None,
  train: Tree = None,
) -> Run:
  """Write an arm as the arguments of a program.

  Args:
    arm: The arm.
    base: Parameters.
    rate: Learning rate.
    edit: Number of the edit.
    mix: Number of the mix.
    theta: What is trained in the beginning, but of full fine-tuning.
    fixed: What goes with it.
    train: Masks instead of those of the arm, see `Run`.

  Returns:
    The run.
  """
  if train is None:
    train = _masks(arm, base, theta)
  number = lambda x: np.asarray(x, np.float32)
  return Run(
    train=train,
    rank=np.arange(arms.RANK) < arm.rank,
    scale=number(arm.scale),
    rate=number(rate),
    decay=number(0.0),
    clamp=number(arm.clamp),
    edit=np.asarray(edit, np.int32),
    mix=np.asarray(mix, np.int32),
    theta=theta,
    fixed=fixed,
  )


def _masks(arm, base, theta) -> Tree:
  """Mask leaves of parameters, or what belongs to a kernel by its path."""
  if theta is None:
    return arms.trainable(arm, base)
  pattern = re.compile(arms.selector(arm.targets))
  masks = {}
  for path, value in theta.items():
    chosen = np.asarray(pattern.fullmatch(path) is not None)
    masks[path] = jax.tree.map(lambda _, chosen=chosen: chosen, value)
  return masks
