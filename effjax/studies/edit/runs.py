"""All runs of a study on one model, by method."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import adapters, tree
from effjax.studies.edit import (
  arms,
  examiner,
  pretraining,
  sweep,
  tasks,
  updates,
)

Tree = Any


class Wanted(NamedTuple):
  """A run to be made.

  Attributes:
    arm: name of the arm.
    rate: learning rate.
    edit: number of the edit.
    mix: number of the mix.
  """

  arm: str
  rate: float
  edit: int
  mix: int


class Runner:
  """Makes runs of arms, and sweeps over them."""

  def __init__(self, about: pretraining.Subject, config: Any):
    """Take a model and what is to be run.

    Args:
      about: The world and the model.
      config: The configuration.
    """
    self.about, self.config = about, config
    found = [arms.find(name) for name in config.arms]
    self._adapters = {
      arm.method: _adapter(arm)
      for arm in found
      if arm.method in ("dora", "ia3")
    }
    self.sweep = sweep.Sweep(
      about.module, every=config.every, adapters=self._adapters
    )

  def all(
    self,
    base: Tree,
    own: tasks.Tasks,
    seed: int,
    rates: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
  ) -> dict[str, np.ndarray]:
    """Run every arm on every edit in every mix, at every rate.

    Args:
      base: Parameters of the model.
      own: Its edits.
      seed: Of initial factors.
      rates: Learning rates; by default those of the configuration.
      names: Arms; by default all of them.

    Returns:
      By measure of `examiner.MEASURES` [arms, rates, edits, mixes, evaluations,
      sets], and `failed` [arms, rates, edits, mixes].
    """
    config = self.config
    rates = config.rates if rates is None else rates
    names = config.arms if names is None else names
    edits, mixes = len(own.made), len(config.mixes)
    shape = len(names), len(rates), edits, mixes
    times = config.steps // config.every, len(own.names)
    found = {
      k: np.full(shape + times, np.nan, np.float32) for k in examiner.MEASURES
    }
    found["failed"] = np.zeros(shape, bool)
    for method in arms.METHODS:
      places = [
        place
        for place in itertools.product(*map(range, shape))
        if arms.find(names[place[0]]).method == method
      ]
      if not places:
        continue
      wanted = [
        Wanted(names[a], rates[r], edit, mix) for a, r, edit, mix in places
      ]
      outcome = self.run(method, base, own, self.made(wanted, base, own, seed))
      at = tuple(np.array(places).T)
      for name, history in outcome.history.items():
        found[name][at] = history
      found["failed"][at] = outcome.failed
    return found

  def made(
    self, wanted: Sequence[Wanted], base: Tree, own: tasks.Tasks, seed: int
  ) -> list[updates.Run]:
    """Write runs as the arguments of a program.

    Args:
      wanted: The runs, of arms of one method.
      base: Parameters of the model.
      own: Its edits.
      seed: Of initial factors.

    Returns:
      The runs.
    """
    starts: dict[Any, dict[str, Any]] = {}
    made = []
    for name, rate, edit, mix in wanted:
      arm = arms.find(name)
      where = (arm, edit) if arm.method in ("sparse", "rosa") else edit
      if where not in starts:
        starts[where] = self._start(arm, base, own, edit, seed)
      made.append(
        updates.make_run(
          arm, base, rate=rate, edit=edit, mix=mix, **starts[where]
        )
      )
    return made

  def run(
    self,
    method: str,
    base: Tree,
    own: tasks.Tasks,
    made: Sequence[updates.Run],
    *,
    keep: bool = False,
  ) -> sweep.Outcome:
    """Run some arms of one method.

    Args:
      method: One of `arms.METHODS`.
      base: Parameters of the model.
      own: Its edits.
      made: The runs, see `made`.
      keep: Whether what was trained is returned.

    Returns:
      What came of them.
    """
    return self.sweep(
      method, base, own.data, made, chunk=self.config.chunk, keep=keep
    )

  def _start(self, arm, base, own, edit, seed) -> dict[str, Any]:
    """Return what an arm begins with."""
    key = jax.random.fold_in(jax.random.key(seed), edit)
    if arm.method in ("full", "truncated"):
      return {}
    if arm.method == "lora":
      return {"theta": updates.factors(key, base)}
    if arm.method == "sparse":
      return {"train": self._places(arm, base, own, edit)}
    if arm.method == "rosa":
      factors = updates.factors(key, base)
      every = {path: (np.asarray(True),) * 2 for path in factors}
      return {
        "theta": {"weights": base, "factors": factors},
        "train": {
          "weights": self._places(arm, base, own, edit),
          "factors": every,
        },
      }
    theta, fixed = self._adapters[arm.method].init(key, base)
    return {"theta": theta, "fixed": fixed}

  def _places(self, arm, base, own, edit) -> Tree:
    """Choose the weights with the largest gradients of the edited facts."""
    # Edited facts stand first among the rows.
    count = len(own.made[edit].edit.old)
    rows = jax.tree.map(lambda x: x[edit, :count], own.data[:4])
    slopes = _slopes(self.about.module, base, rows)
    kernels = arms.kernels(base)
    names = tree.names(base)
    squares = jax.tree.map(
      lambda name, g: g**2 if name in kernels else None, names, slopes
    )
    masks = adapters.sparse_masks(squares, arm.density)
    by_name = dict(
      zip(
        [n for n in jax.tree.leaves(names) if n in kernels],
        jax.tree.leaves(masks),
        strict=True,
      )
    )
    return jax.tree.map(
      lambda name, p: (
        np.asarray(by_name[name])
        if name in by_name
        else np.zeros(p.shape, bool)
      ),
      names,
      base,
    )


def _adapter(arm: arms.Arm) -> adapters.Adapter:
  where = arms.selector(arm.targets) + "/kernel"
  if arm.method == "dora":
    return adapters.dora(arm.rank, alpha=arm.scale * arm.rank, where=where)
  gained = r"layer_\d+/(attention/(key|value)|mlp/down)/kernel"
  return adapters.ia3(
    [(r".*down/kernel", "inputs"), (".*", "outputs")], where=gained
  )


@functools.partial(jax.jit, static_argnames="module")
def _slopes(module: Any, base: Tree, rows: tuple) -> Tree:
  """Differentiate the loss of the edited facts."""

  def loss(params):
    tokens, places, targets, counted = rows
    found = pretraining.at_places(module, params, tokens, places)
    each = optax.softmax_cross_entropy_with_integer_labels(found, targets)
    return jnp.sum(jnp.where(counted, each, 0.0))

  return jax.grad(loss)(base)
