"""What an edit as a whole did: its success, its side effects, its history.

An evaluation set is a `Probe`. The sets that an edit should leave alone are
`PRESERVED`; a set without rows gives NaN, is left out of averages over sets,
and is named by what says so.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from effjax import arguments
from effjax.metrics import answers
from effjax.metrics.answers import harmonic_mean, mean, present, stack, wide
from effjax.metrics.recall import agreement, asked, edit_success

Array = jax.Array

PRESERVED = (
  "with_same_value",
  "with_same_rel",
  "same_edges_diff_rel",
  "reg_data",
)


class Probe(NamedTuple):
  """An evaluation set: prompts, and what a model says to them.

  Attributes:
    logits: [M, V], or [M, W, V] for words of several tokens, after the edit.
    targets: [M] or [M, W] integers, the objects asked for.
    reference_logits: Like `logits`, before the edit, where locality is wanted.
    where: [M] bool, the rows that count; None = all.
  """

  logits: Any
  targets: Any
  reference_logits: Any = None
  where: Any = None


class Preservation(NamedTuple):
  """How much of what should stay has stayed.

  Attributes:
    mean: [...], the unweighted mean over sets with rows.
    minimum: [...], the least of them.
    counted: Name -> bool [...], whether a set had rows.
  """

  mean: Array
  minimum: Array
  counted: dict[str, Array]


class EditLevel(NamedTuple):
  """Measures of one edit, each [] and NaN where it is undefined.

  Attributes:
    efficacy: E, accuracy of the new objects of edited facts.
    forgetting: F, 1 - accuracy of their old objects.
    generalization: G, accuracy of the new objects in other words.
    preservation: P, mean accuracy over the sets that should stay.
    preservation_min: The least of them.
    locality: L, share of answers, over the union of those sets, that are what
      they were.
    harmonic_egl: 3 / (1/E + 1/G + 1/L), 0 if one of them is.
    harmonic_el: The same of E and L, for where there are no other words.
    counted: Name -> bool [], which sets are in P.
  """

  efficacy: Array
  forgetting: Array
  generalization: Array
  preservation: Array
  preservation_min: Array
  locality: Array
  harmonic_egl: Array
  harmonic_el: Array
  counted: dict[str, Array]


class Moments(NamedTuple):
  """A history of evaluations at its end, and where the edit first held.

  Attributes:
    end: Name -> [...], the last evaluation.
    first: Name -> [...], the first evaluation with efficacy 1; NaN if there is
      none.
    index: int32 [...], which one that is, -1 if there is none.
    failures: int32 [], how many runs never succeed.
  """

  end: dict[str, Array]
  first: dict[str, Array]
  index: Array
  failures: Array


class Propagation(NamedTuple):
  """What became of facts that depend on an edited one, each [].

  Attributes:
    stay: Share of answers that are the old dependent value.
    follow: Share that are the new one.
    other: The rest.
    count: int32, the facts whose two values differ: only these are asked.
  """

  stay: Array
  follow: Array
  other: Array
  count: Array


class ImplicitForgetting(NamedTuple):
  """What was lost beside the censored facts, each [...].

  Attributes:
    drop: Accuracy before minus after on the facts of the same relation.
    control_drop: The same on unrelated facts.
    relative: `drop` - `control_drop`.
  """

  drop: Array
  control_drop: Array
  relative: Array


class Relearning(NamedTuple):
  """How soon an edited model learns the old facts again, each [...].

  Attributes:
    steps: Steps until they are recalled, NaN if they never are.
    fresh_steps: The same for facts that the unedited model has never seen.
    ratio: `steps` / `fresh_steps`; near 0 the old facts were only masked.
  """

  steps: Array
  fresh_steps: Array
  ratio: Array


def preservation(
  accuracies: Mapping[str, Any], *, counted: Mapping[str, Any] | None = None
) -> Preservation:
  """Returns the mean and the least accuracy of the sets that should stay.

  Args:
    accuracies: Name of a set -> accuracy [...]; see `edit_success`.
    counted: Name -> bool [...], whether the set has rows; None = where the
      accuracy is not NaN.

  Returns:
    `Preservation`, NaN where no set has rows, or one with rows has NaN, as of a
    model that diverged.

  Raises:
    ValueError: If there are no sets, or `counted` lacks one.
  """
  if not accuracies:
    raise ValueError("preservation needs the accuracy of one set at least.")
  values = stack(*accuracies.values())
  there = ~jnp.isnan(values)
  if counted is not None:
    if missing := accuracies.keys() - counted.keys():
      raise ValueError(f"counted lacks the sets {sorted(missing)}.")
    there = jnp.stack([jnp.asarray(counted[name]) for name in accuracies])
  least = jnp.min(jnp.where(there, values, jnp.inf), axis=0)
  return Preservation(
    mean(values, there, axis=0),
    jnp.where(jnp.any(there, axis=0), least, jnp.nan),
    dict(zip(accuracies, there, strict=True)),
  )


def edit_level(
  probes: Mapping[str, Probe], *, preserved: Sequence[str] = PRESERVED
) -> EditLevel:
  """Returns all measures of an edit from its evaluation sets.

  Args:
    probes: Name -> `Probe` (or a tuple of its fields): "edited" with the new
      objects; "old", the same prompts with the old ones, and "paraphrase",
      edited facts in other words, where there are any; and those that should
      stay. Others are not read.
    preserved: Names of the sets that should stay.

  Returns:
    `EditLevel`.

  Raises:
    ValueError: If "edited" is missing or shapes do not fit.
  """
  probes = {name: Probe(*probe) for name, probe in probes.items()}
  if "edited" not in probes:
    raise ValueError(
      f"edit_level needs the set 'edited', got {', '.join(probes) or 'none'}."
    )

  def accuracy(name):
    if name not in probes:
      return jnp.full((), jnp.nan, efficacy.dtype)
    return _accuracy(probes[name])

  efficacy = _accuracy(probes["edited"])
  stays = preservation(
    {name: accuracy(name) for name in preserved},
    counted={
      name: jnp.any(asked(probes[name].targets, probes[name].where))
      if name in probes
      else jnp.array(False)
      for name in preserved
    },
  )
  generalization = accuracy("paraphrase")
  local = locality([probes[name] for name in preserved if name in probes])
  terms = stack(efficacy, generalization, local)
  return EditLevel(
    efficacy=efficacy,
    forgetting=1 - accuracy("old"),
    generalization=generalization,
    preservation=stays.mean,
    preservation_min=stays.minimum,
    locality=local,
    harmonic_egl=harmonic_mean(terms),
    harmonic_el=harmonic_mean(terms[::2]),
    counted=stays.counted,
  )


def locality(probes: Sequence[Probe]) -> Array:
  """Returns the share of answers, over the union of sets, that did not change.

  Args:
    probes: The sets; those without `reference_logits` are left out.

  Returns:
    The share [], NaN without rows.
  """
  same, rows = [], []
  for probe in probes:
    if probe.reference_logits is not None:
      same.append(
        agreement(probe.logits, probe.reference_logits, probe.targets)
      )
      rows.append(asked(probe.targets, probe.where))
  if not same:
    return jnp.full((), jnp.nan)
  return mean(jnp.concatenate(same), jnp.concatenate(rows))


def at_end_and_first_success(
  history: Mapping[str, Any], *, efficacy: str = "efficacy"
) -> Moments:
  """Returns the measures of runs at their end and where the edit first held.

  Args:
    history: Name -> [..., T], T evaluations of each run; all of one shape.
    efficacy: Name of the measure that must reach 1.

  Returns:
    `Moments`. A run that never succeeds has NaN at its first success.

  Raises:
    ValueError: If there is no such measure, no evaluation, or shapes differ.
  """
  if efficacy not in history:
    raise ValueError(
      f"the history has no {efficacy!r}, only {', '.join(history) or 'nothing'}"
    )
  values = {name: wide(x) for name, x in history.items()}
  shapes = {name: list(x.shape) for name, x in values.items()}
  if not shapes[efficacy] or not shapes[efficacy][-1]:
    raise ValueError("the history must hold one evaluation [..., T] at least.")
  if any(shape != shapes[efficacy] for shape in shapes.values()):
    raise ValueError(f"the history must be [..., T] throughout, got {shapes}.")
  held = values[efficacy] >= 1
  index = jnp.argmax(held, axis=-1)
  succeeded = jnp.any(held, axis=-1)

  def first(x):
    chosen = jnp.take_along_axis(x, index[..., None], axis=-1)[..., 0]
    return jnp.where(succeeded, chosen, jnp.nan)

  return Moments(
    {name: x[..., -1] for name, x in values.items()},
    {name: first(x) for name, x in values.items()},
    jnp.where(succeeded, index, -1).astype(jnp.int32),
    jnp.sum(~succeeded, dtype=jnp.int32),
  )


def propagation(
  logits: Any,
  old: Any,
  new: Any,
  *,
  old_logits: Any = None,
  where: Any = None,
) -> Propagation:
  """Returns whether facts that depend on an edited one follow it.

  Args:
    logits: [M, V], or [M, W, V] for words of several tokens, answers to the
      dependent facts after the edit.
    old: [M] or [M, W] integers, their values before the edit.
    new: Likewise, their values if they follow.
    old_logits: The logits that go with `old` where words have several tokens
      (those of the second token depend on the first); `logits` by default.
    where: [M] bool, the rows that count.

  Returns:
    `Propagation`, NaN if no two values differ.

  Raises:
    ValueError: If the shapes do not fit.
  """
  old, new = answers.token_ids("old", old), answers.token_ids("new", new)
  if old.shape != new.shape:
    raise ValueError(
      f"old {list(old.shape)} and new {list(new.shape)} must have one shape."
    )
  differs = old != new
  if differs.ndim == 2:
    differs = jnp.any(differs, axis=-1)
  rows = present(where, differs.shape) & differs
  old_logits = logits if old_logits is None else old_logits
  stay = edit_success(old_logits, old, where=rows)
  follow = edit_success(logits, new, where=rows)
  other = jnp.maximum(1 - stay - follow, 0.0)
  return Propagation(stay, follow, other, jnp.sum(rows, dtype=jnp.int32))


def implicit_forgetting(
  before: Any, after: Any, *, control_before: Any, control_after: Any
) -> ImplicitForgetting:
  """Returns what censoring some facts of a relation took from the others.

  Args:
    before: [...], accuracy on held-out facts of the relation before the edit.
    after: [...], the same after it.
    control_before: [...], accuracy on unrelated facts before.
    control_after: [...], the same after.

  Returns:
    `ImplicitForgetting`.
  """
  drop = wide(before) - wide(after)
  control = wide(control_before) - wide(control_after)
  return ImplicitForgetting(drop, control, drop - control)


def relearning(
  steps: Any,
  recall: Any,
  fresh_recall: Any,
  *,
  threshold: float = 0.99,
) -> Relearning:
  """Returns how soon old facts come back, against facts never seen.

  Args:
    steps: [T], optimiser steps at which recall was measured, ascending.
    recall: [..., T], of the old facts, by the edited model.
    fresh_recall: [..., T], of new facts, by the unedited model under the same
      recipe.
    threshold: The recall that counts as known.

  Returns:
    `Relearning`.

  Raises:
    ValueError: If the shapes do not fit or the threshold is no number.
  """
  arguments.finite("threshold", threshold, 0)
  steps = wide(steps)
  if steps.ndim != 1 or not steps.size:
    raise ValueError(f"steps must be a vector, got {list(steps.shape)}.")

  def reached(values):
    values = wide(values)
    if values.shape[-1:] != steps.shape:
      raise ValueError(
        f"recall {list(values.shape)} does not go with {steps.size} steps."
      )
    known = values >= threshold
    first = steps[jnp.argmax(known, axis=-1)]
    return jnp.where(jnp.any(known, axis=-1), first, jnp.nan)

  old, fresh = reached(recall), reached(fresh_recall)
  return Relearning(old, fresh, old / fresh)


def _accuracy(probe: Probe) -> Array:
  return edit_success(probe.logits, probe.targets, where=probe.where)
