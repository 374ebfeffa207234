"""Numbers about drafts beside what their person wrote; no text is in them."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from effjax import metrics


def compare(
  drafts: Sequence[str],
  mails: Sequence[str],
  instructions: Sequence[str],
  learned: Sequence[str],
) -> dict[str, Any]:
  """Compare drafts with the mails that they stand for.

  A mail's references are all mails with the same instruction.

  Args:
    drafts: A draft for each of N mails.
    mails: What the person wrote.
    instructions: What asks for each.
    learned: The mails that were learned from.

  Returns:
    Means over the mails: `bleu` (Panza-BLEU) and `bleu_least`, its minimum,
    `rouge_l`, `length_ratio` and its `length_ratio_median`, `copied` (the
    longest run of words that stands in one mail of `learned`, over the length
    of the draft; empty drafts aside), `greeting` and `closing` (shares that
    agree), `self_bleu` (NaN for one draft), `empty` (how many); and `scores`,
    by name a list with a number for each mail.

  Raises:
    ValueError: If there is no draft, or not as many of the others.
  """
  sets = metrics.reference_sets(instructions, mails)
  references = [sets[instruction] for instruction in instructions]
  bleu = metrics.panza_bleu(drafts, references)
  scores = {
    "bleu": bleu.scores,
    "rouge_l": metrics.rouge_l(drafts, references).f_measure,
    "length_ratio": metrics.length_ratio(drafts, references),
    "copied": metrics.copied_runs(drafts, learned).rate,
  }
  agreed = metrics.salutation_agreement(drafts, references)
  scores["greeting"] = agreed.greetings.astype(float)
  scores["closing"] = agreed.closings.astype(float)
  return {
    **{name: _mean(values) for name, values in scores.items()},
    "bleu_least": bleu.minimum,
    "length_ratio_median": float(np.nanmedian(scores["length_ratio"])),
    "self_bleu": metrics.self_bleu(drafts),
    "empty": sum(not draft.strip() for draft in drafts),
    "scores": {name: values.tolist() for name, values in scores.items()},
  }


def mauve(
  p: Any,
  q: Any,
  *,
  feature: str,
  buckets: int | None = None,
  seeds: int = 5,
) -> dict[str, Any]:
  """Measure how far drafts are from a person's mails as a whole.

  Args:
    p: Features of the person's mails [N, D].
    q: Features of drafts that are not empty [M, D].
    feature: What they are features of, for the name of the metric.
    buckets: K; by default that of `metrics.mauve`.
    seeds: How often to quantise.

  Returns:
    `name`, `mean`, `sd`, `values`, `star`, `star_sd`, `frontier_integral`,
    `buckets` (K) and `sizes`; where it is undefined, NaN and `undefined`, why.
  """
  try:
    found = metrics.mauve(
      jax.random.key(0), p, q, buckets=buckets, seeds=seeds, feature=feature
    )
  except ValueError as error:
    nan = float("nan")
    return {
      "name": f"mauve_{feature}",
      **{name: nan for name in ("mean", "sd", "star", "star_sd")},
      "frontier_integral": nan,
      "values": [],
      "buckets": buckets,
      "sizes": [len(p), len(q)],
      "undefined": str(error),
    }
  return {
    "name": found.name,
    "mean": found.mean,
    "sd": found.sd,
    "star": float(found.star.mean()),
    "star_sd": float(found.star.std(ddof=1)) if seeds > 1 else float("nan"),
    "frontier_integral": float(found.frontier_integral.mean()),
    "values": found.values.tolist(),
    "buckets": found.buckets,
    "sizes": list(found.sizes),
  }


class Recognizer:
  """Tells persons by how they write, with and without what names them."""

  KINDS = ("without_names", "with_names")

  def __init__(self, mails: Mapping[str, Sequence[str]], names: Sequence[str]):
    """Learn who writes how.

    Args:
      mails: Of each person the mails to learn from; at least two persons.
      names: The names of all persons, which are left out of their mails, see
        `metrics.remove_identity`.
    """
    self.names = tuple(names)
    texts = [text for own in mails.values() for text in own]
    authors = [who for who, own in mails.items() for _ in own]
    self._classifiers = {
      "without_names": metrics.fit_authorship(self._bare(texts), authors),
      "with_names": metrics.fit_authorship(texts, authors),
    }

  def recognize(
    self, texts: Sequence[str], author: str
  ) -> dict[str, dict[str, Any]]:
    """Say whom texts are given to.

    Args:
      texts: Drafts, or mails.
      author: Whom they are to be given to.

    Returns:
      For each of `KINDS` the `share` that is, and `found`, how many are given
      to each person.
    """
    results = {}
    for kind, classifier in self._classifiers.items():
      given = self._bare(texts) if kind == "without_names" else list(texts)
      report = metrics.authorship_report(
        classifier, given, [author] * len(given)
      )
      counts = np.bincount(report.found, minlength=len(report.authors))
      results[kind] = {
        "share": report.accuracy,
        "found": dict(zip(report.authors, counts.tolist(), strict=True)),
      }
    return results

  def _bare(self, texts: Sequence[str]) -> list[str]:
    return [metrics.remove_identity(text, self.names) for text in texts]


def _mean(values: np.ndarray) -> float:
  """Average what is defined; NaN if nothing is."""
  known = values[~np.isnan(values)]
  return float(known.mean()) if len(known) else float("nan")
