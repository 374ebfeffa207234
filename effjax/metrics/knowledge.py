"""Measures of edited language models as published: CounterFact and zsRE.

CounterFact compares the losses of the new and of the true object after three
kinds of prompts (Meng et al., arXiv 2202.05262, section 3.4); zsRE asks whether
each token of an answer is the likeliest one when those before it are given.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from effjax.metrics import answers

Array = jax.Array


class CounterFact(NamedTuple):
  """Measures of CounterFact, each [] and NaN without cases.

  Attributes:
    rewrite_success: ES, share of prompts on which the new object is likelier
      than the true one.
    rewrite_diff: EM, by how much, in probability per token.
    paraphrase_success: PS, the same on the fact in other words.
    paraphrase_diff: PM.
    neighborhood_success: NS, share of prompts of other subjects on which the
      true object is likelier than the new one.
    neighborhood_diff: NM.
    score: Harmonic mean of ES, PS and NS; 0 if one of them is.
  """

  rewrite_success: Array
  rewrite_diff: Array
  paraphrase_success: Array
  paraphrase_diff: Array
  neighborhood_success: Array
  neighborhood_diff: Array
  score: Array


class Losses(NamedTuple):
  """Losses of two objects after the prompts of one kind.

  Attributes:
    new: [M] or [M, Q], negative log-likelihood per token of the new object; M
      cases with up to Q prompts. `answer_nll` computes it.
    true: Likewise, of the true object.
    where: Likewise bool, the prompts that there are; None = all.
  """

  new: Any
  true: Any
  where: Any = None


class Zsre(NamedTuple):
  """Measures of zsRE, each []; NaN where a set was not given or is empty.

  Attributes:
    reliability: On the edited facts.
    generalization: On the same in other words.
    portability: On facts that depend on them.
    locality: Share of tokens of unrelated facts that stay as they were.
  """

  reliability: Array
  generalization: Array
  portability: Array
  locality: Array


def counterfact(
  rewrite: Losses | tuple, paraphrase: Losses | tuple, neighborhood: Any
) -> CounterFact:
  """Returns the measures of CounterFact.

  A case is averaged over its prompts, then cases are averaged; one without
  prompts of a kind is left out there.

  Args:
    rewrite: `Losses` (or a tuple of its fields) on the prompts of the edits.
    paraphrase: The same in other words.
    neighborhood: The same on other subjects whose object is the true one.

  Returns:
    `CounterFact`; a loss that is NaN makes the measures of its kind NaN.

  Raises:
    ValueError: If shapes do not fit.
  """
  edited, phrased = _compared(rewrite), _compared(paraphrase)
  near = Losses(*neighborhood)
  around = _compared(Losses(near.true, near.new, near.where))
  score = answers.harmonic_mean(answers.stack(edited[0], phrased[0], around[0]))
  return CounterFact(*edited, *phrased, *around, score)


def zsre(
  rewrite: tuple[Any, Any],
  *,
  paraphrase: tuple[Any, Any] | None = None,
  portability: tuple[Any, Any] | None = None,
  locality: tuple[Any, Any, Any] | None = None,
  convention: str = "exact",
) -> Zsre:
  """Returns the measures of zsRE.

  Args:
    rewrite: (logits [B, T, V], labels [B, T]) of the edited facts; labels of
      -100 are ignored, the logits at t predict the label at t + 1.
    paraphrase: The same in other words.
    portability: The same of facts that depend on the edited ones.
    locality: (logits, reference_logits, labels) of unrelated facts, after and
      before the edit.
    convention: "exact" compares all labelled tokens of unrelated facts,
      "reference" the first one only, as the program of 2022 does.

  Returns:
    `Zsre`.

  Raises:
    ValueError: If the convention is unknown or shapes do not fit.
  """
  if convention not in ("exact", "reference"):
    raise ValueError(
      f"convention {convention!r} is unknown; choose 'exact' or 'reference'."
    )
  nothing = jnp.full((), jnp.nan)
  known = lambda pair: nothing if pair is None else token_accuracy(*pair)
  return Zsre(
    token_accuracy(*rewrite),
    known(paraphrase),
    known(portability),
    nothing
    if locality is None
    else token_agreement(*locality, first=convention == "reference"),
  )


def token_accuracy(logits: Any, labels: Any) -> Array:
  """Returns the share of labelled tokens that are the likeliest ones.

  Args:
    logits: [B, T, V].
    labels: [B, T], -100 = ignored; the logits at t predict the label at t + 1.

  Returns:
    The mean over texts of the share of a text [], NaN without labels.

  Raises:
    ValueError: If shapes do not fit.
  """
  found = answers.tokens(logits, labels)
  each = answers.mean(found.correct, found.counted, axis=-1)
  return answers.mean(each, jnp.any(found.counted, axis=-1))


def token_agreement(
  logits: Any, reference_logits: Any, labels: Any, *, first: bool = False
) -> Array:
  """Returns the share of labelled tokens whose likeliest token has not changed.

  Args:
    logits: [B, T, V], after the edit.
    reference_logits: [B, T, V], before.
    labels: [B, T], which say where to look: at what precedes a label.
    first: Only look at the first labelled token of a text.

  Returns:
    The mean over texts of the share of a text [], NaN without labels.

  Raises:
    ValueError: If shapes do not fit.
  """
  logits, before = jnp.asarray(logits), jnp.asarray(reference_logits)
  if logits.shape != before.shape:
    raise ValueError(
      "logits and reference_logits must have one shape, got"
      f" {list(logits.shape)} and {list(before.shape)}."
    )
  counted = answers.labelled(logits, labels)
  if first:
    counted &= jnp.cumsum(counted, axis=-1, dtype=jnp.int32) == 1
  same = jnp.argmax(logits, axis=-1) == jnp.argmax(before, axis=-1)
  unknown = jnp.any(jnp.isnan(logits) | jnp.isnan(before), axis=-1)
  same = jnp.where(unknown, jnp.nan, answers.wide(same))
  each = answers.mean(same[:, :-1], counted, axis=-1)
  return answers.mean(each, jnp.any(counted, axis=-1))


def _compared(losses: Losses | tuple) -> tuple[Array, Array]:
  """Returns how often, and by how much, the first object is likelier."""
  first, second, where = Losses(*losses)
  first, second = answers.wide(first), answers.wide(second)
  if first.shape != second.shape or first.ndim not in (1, 2):
    raise ValueError(
      "losses of both objects must be [M] or [M, Q], got"
      f" {list(first.shape)} and {list(second.shape)}."
    )
  where = answers.present(where, first.shape)
  gap = jnp.exp(-first) - jnp.exp(-second)
  unknown = jnp.isnan(first) | jnp.isnan(second)
  success = jnp.where(unknown, jnp.nan, answers.wide(first < second))
  if first.ndim == 1:
    return answers.mean(success, where), answers.mean(gap, where)
  there = jnp.any(where, axis=-1)
  success, gap = (answers.mean(x, where, axis=-1) for x in (success, gap))
  return answers.mean(success, there), answers.mean(gap, there)
