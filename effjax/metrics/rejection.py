"""The reject option: what to do with samples on which a model is undecided."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from effjax.metrics import base, classification, counting, mitigation

Array = jax.Array


def reject_option_classification(
  logits: Any,
  disadvantaged: Any,
  *,
  cut: float = 0.1,
  threshold: Any = 0.0,
  favourable: bool = True,
) -> Array:
  """Decides undecided samples in favour of the disadvantaged group.

  Where abs(sigmoid(z) - 1/2) < cut, members of the group get the favourable
  decision and all others the unfavourable one.
  Kamiran, Karim, Zhang, "Decision Theory for Discrimination-Aware
  Classification" (ICDM 2012), with cut = theta - 1/2.

  Args:
    logits: [N, A] or [N].
    disadvantaged: [N] bool, or like `logits` where it depends on the attribute.
    cut: Half the width of the undecided interval, in (0, 1/2].
    threshold: Scalar or [A], for the decisions outside the interval.
    favourable: Which decision is the favourable one.

  Returns:
    Bool like `logits`. A NaN is False, as in `decisions`.

  Raises:
    ValueError: If `cut` is outside (0, 1/2] or the shapes disagree.

  >>> import numpy as np
  >>> logits = np.array([0.1, -0.1, 3.0, -3.0], np.float32)
  >>> member = np.array([False, True, False, True])
  >>> reject_option_classification(logits, member).tolist()
  [False, True, True, False]
  """
  logits = jnp.asarray(logits)
  if logits.ndim not in (1, 2):
    raise ValueError(f"logits must be [N] or [N, A], got {list(logits.shape)}.")
  member = counting.positive(jnp.asarray(disadvantaged))
  if member.shape not in (logits.shape, logits.shape[:1]):
    raise ValueError(
      f"disadvantaged must have shape {list(logits.shape[:1])} or that of the"
      f" logits, {list(logits.shape)}, got {list(member.shape)}."
    )
  member = jnp.broadcast_to(
    member.reshape(member.shape + (1,) * (logits.ndim - member.ndim)),
    logits.shape,
  )
  return jnp.where(
    mitigation.susceptible(logits, cut=cut),
    member if favourable else ~member,
    counting.decisions(logits, threshold),
  )


class Answers(NamedTuple):
  """Counts of samples that are decided, the state of `selective_rates`.

  Attributes:
    right: [G, A], decided rightly.
    answered: [G, A], decided at all.
    members: [G], samples.
    invalid: [A] or [], the number of NaN logits.
  """

  right: Array
  answered: Array
  members: Array
  invalid: Array


class SelectiveRates(NamedTuple):
  """Rates of a model that may abstain, NaN for 0/0, and the counts behind them.

  Attributes:
    coverage: [G, A], the share of samples that are decided; the rest is the
      rate of abstention.
    accuracy: [G, A], the share of right decisions among these.
    right: [G, A], decided rightly.
    answered: [G, A], decided at all.
    members: [G], samples.
  """

  coverage: Array
  accuracy: Array
  right: Array
  answered: Array
  members: Array


def selective_rates(cut: float = 0.4, *, threshold: Any = 0.0) -> base.Metric:
  """Makes coverage and accuracy of a model that rejects undecided samples.

  A sample is rejected where abs(sigmoid(z) - 1/2) < cut. Rejecting can widen
  the gap between groups while it raises the accuracy of each.
  Jones et al., "Selective Classification Can Magnify Disparities Across Groups"
  (ICLR 2021).

  Args:
    cut: Half the width of the undecided interval, in (0, 1/2]; 1/2 rejects
      every finite logit.
    threshold: Scalar or [A]; not used where the batch holds predictions.

  Returns:
    A metric of (logits, labels, groups, and predictions if given) with value
    `SelectiveRates`. A column of groups that is true everywhere gives the rates
    of all samples.

  Raises:
    ValueError: If `cut` is outside (0, 1/2].
  """
  edge = classification.undecided_below(cut)

  def update(state: Answers, **batch) -> Answers:
    read = counting.read(
      batch, "logits", "predictions", "labels", "groups", threshold=threshold
    )
    answered = jnp.abs(read.logits) >= edge
    right = answered & (read.predictions == read.labels)
    right, answered = jnp.split(
      counting.cooccurrence(
        read.rows, read.groups, jnp.concatenate([right, answered], axis=1)
      ),
      2,
      axis=1,
    )
    members = counting.count(read.rows, read.groups)
    return base.add(state, Answers(right, answered, members, read.invalid))

  def compute(state: Answers) -> SelectiveRates:
    members = state.members[..., None] if state.members.ndim else state.members
    valid = jnp.broadcast_to(state.invalid == 0, state.right.shape)
    coverage, accuracy = (
      jnp.where(valid, counting.ratio(part, whole), jnp.nan)
      for part, whole in (
        (state.answered, members),
        (state.right, state.answered),
      )
    )
    return SelectiveRates(
      coverage, accuracy, state.right, state.answered, state.members
    )

  zero = jnp.zeros((), jnp.int32)
  return base.Metric(Answers(*[zero] * 4), update, base.add, compute)
