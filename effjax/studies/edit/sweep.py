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
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax.studies.edit import examiner, pretraining, updates

Tree = Any
_MEMORY = 192 * 2**20  # bytes of the parameters and moments of a chunk


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
    # What is trained, as parameters, and what is shown of it.
    self._merges = {
      "full": (whole, whole),
      "truncated": (whole, updates.truncated),
      "lora": (updates.merged,) * 2,
      # Its masks are as large as the parameters.
      "sparse": (whole, whole),
      "rosa": (updates.both,) * 2,
    }
    for name, adapter in (adapters or {}).items():
      apply = lambda base, theta, run, own=adapter.apply: own(
        base, theta, run.fixed
      )
      self._merges[name] = (apply, apply)
    self._programs = {name: self._program(name) for name in self._merges}

  def __call__(
    self,
    method: str,
    base: Tree,
    data: Data,
    runs: Sequence[updates.Run],
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

  def models(
    self, method: str, base: Tree, runs: Sequence[updates.Run], theta: Tree
  ) -> Tree:
    """Return the parameters of edited models.

    Args:
      method: See `__call__`.
      base: Parameters before.
      runs: The runs.
      theta: What was trained, of an `Outcome`.

    Returns:
      Parameters, with leading axis runs.
    """
    shown = self._merges[method][1]
    stacked = jax.tree.map(lambda *x: np.stack(x), *runs)
    many = jax.jit(jax.vmap(shown, in_axes=(None, 0, 0)))
    return many(base, theta, stacked)

  def _program(self, name):
    def one(base, data, run):
      return _train(
        self.module, self.every, self._merges[name], base, data, run
      )

    def many(base, data, runs):
      self.compiled.append(name)
      return jax.vmap(one, in_axes=(None, None, 0))(base, data, runs)

    return jax.jit(many)


def chunk_size(base: Tree, run: updates.Run) -> int:
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
