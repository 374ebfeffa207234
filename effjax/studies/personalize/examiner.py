"""Examines a model: has it write what a person wrote, and measures that.

examiner = Examiner(model)
found = examiner.examine(trained.tuned.merged, letters, retrieve=3)
found.measures["bleu"]
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from effjax.data import packing
from effjax.data.dialogues import Example
from effjax.models import sampling
from effjax.studies import language
from effjax.studies.personalize import (
  costs,
  drafts,
  features,
  prompts,
  retrieval,
  scoring,
)
from effjax.studies.personalize import letters as lettering
from effjax.training import language as losses


class Examined(NamedTuple):
  """What an examination found.

  Attributes:
    measures: Plain values without any text, see `Examiner.examine`.
    drafts: What was written.
    texts: The drafts as they are scored, see `drafts.cleaned`.
  """

  measures: dict[str, Any]
  drafts: list[drafts.Draft]
  texts: list[str]


class Examiner:
  """Examines parameters of one model; what it compiled serves all of them."""

  def __init__(
    self,
    model: language.Language,
    *,
    encode: retrieval.Encode | None = None,
    recognizer: scoring.Recognizer | None = None,
    max_tokens: int = 256,
    batch: int = 8,
    length: int = prompts.LENGTH,
    sampled: sampling.Sampling = drafts.SAMPLING,
    mauve_seeds: int = 5,
  ):
    """Take a model and how it is asked.

    Args:
      model: The model as it was before anybody tuned it; its features are those
        of MAUVE.
      encode: Makes other features; None for none.
      recognizer: Tells who writes so; None to leave that out.
      max_tokens: The most tokens of a draft.
      batch: Drafts that are made together.
      length: The most tokens of a prompt, and of one with its mail.
      sampled: How tokens are chosen.
      mauve_seeds: How often MAUVE quantises; 0 to leave it out.
    """
    self.model, self.encode, self.recognizer = model, encode, recognizer
    self.max_tokens, self.batch, self.length = max_tokens, batch, length
    self.sampled, self.mauve_seeds = sampled, mauve_seeds
    known = model.name in language.MODELS
    self.feature = model.name if known else "model"
    self._gold: dict[Any, np.ndarray] = {}

  def examine(
    self,
    params: Any,
    letters: lettering.Letters,
    *,
    seed: int = 0,
    retrieve: int = 0,
    learned: Sequence[str] | None = None,
    author: str | None = None,
    buckets: int | None = None,
    progress: Callable[[int, int], None] | None = None,
  ) -> Examined:
    """Examine parameters on the mails of a person that are to be judged by.

    Args:
      params: Parameters of the model, adapters merged.
      letters: The letters.
      seed: Of the drafts.
      retrieve: The most earlier mails in a prompt.
      learned: Texts that were learned from, for what is copied; by default
        those of these letters.
      author: Whom drafts are to be recognised as; by default this person.
      buckets: K of MAUVE; by default a tenth of the mails.
      progress: As in `drafts.write`.

    Returns:
      What was found. The measures are those of `scoring.compare`, `reference`
      (the same scores of texts as Panza's program cleans them), `mauve_...` of
      the mails to be judged by and `..._with_train` of all mails, `loss` (mean
      over the tokens of mails, given their prompts) and `perplexity`,
      `unfinished` (drafts cut off), `recognized`, `seeds` of the drafts, `cost`
      of writing, and how it was done.

    Raises:
      ValueError: If there is no mail to be judged by; see also `drafts.write`.
    """
    if not letters.test:
      raise ValueError(f"{letters.name} has no mail to be judged by")
    with costs.measured() as cost:
      written = drafts.write(
        self.model,
        params,
        letters,
        seed=seed,
        retrieve=retrieve,
        max_tokens=self.max_tokens,
        batch=self.batch,
        length=self.length,
        sampled=self.sampled,
        progress=progress,
      )
    texts = [drafts.cleaned(draft.text) for draft in written]
    mails = [mail.text for mail in letters.test]
    said = [letters.instructions[mail.id] for mail in letters.test]
    own = [mail.text for mail in letters.train]
    learned = own if learned is None else learned
    as_there = [drafts.cleaned(d.text, convention="reference") for d in written]
    reference = scoring.compare(as_there, mails, said, learned)
    measures = {
      **scoring.compare(texts, mails, said, learned),
      "reference": {name: reference[name] for name in ("bleu", "rouge_l")},
      **self._mauve(letters, texts, buckets),
      **self._perplexity(params, letters, retrieve),
      "unfinished": sum(draft.reason != "eos" for draft in written),
      "mails": len(mails),
      "retrieve": retrieve,
      "retrieved": sum(draft.retrieved > 0 for draft in written),
      "max_tokens": self.max_tokens,
      "temperature": self.sampled.temperature,
      "postprocessing": "exact",
      "seeds": [list(draft.seed) for draft in written],
      "cost": cost,
    }
    if self.recognizer is not None:
      who = letters.name if author is None else author
      measures["recognized"] = self.recognizer.recognize(texts, who)
    return Examined(measures, written, texts)

  def loss(self, params: Any, examples: Sequence[Example]) -> float:
    """Average the loss over the tokens of mails.

    Args:
      params: Parameters of the model.
      examples: The mails with their prompts, each of which counts once.

    Returns:
      Nats a token.
    """
    found = packing.packed(
      examples,
      1,
      self.length,
      seed=0,
      shuffle=False,
      beginning=packing.common_beginning(examples),
    )
    total, count = 0.0, 0
    for number in range(found.per_epoch):
      batch = found[number]
      tokens = int((batch["weights"] > 0).sum())
      # As many places as tokens: one program for all mailboxes.
      short = self.length - batch["places"].shape[1]
      for name in ("places", "targets", "weights"):
        batch[name] = np.pad(batch[name], ((0, 0), (0, short)))
      total += tokens * float(_loss(self.model.module, params, batch))
      count += tokens
    return total / count

  def _perplexity(
    self, params: Any, letters: lettering.Letters, retrieve: int
  ) -> dict[str, Any]:
    held = lettering.held_out(
      letters, self.model.tokenizer, retrieve=retrieve, length=self.length
    )
    loss = self.loss(params, held.examples)
    return {
      "loss": loss,
      "perplexity": math.exp(min(loss, 700.0)),
      "loss_reduction": "token",
      "loss_mails": len(held.examples),
      "loss_too_long": held.too_long,
    }

  def _mauve(
    self, letters: lettering.Letters, texts: Sequence[str], buckets: int | None
  ) -> dict[str, Any]:
    """Measure MAUVE by all features, beside the test part and beside all."""
    if not self.mauve_seeds:
      return {}
    kept = [text for text in texts if text.strip()]
    kinds = {self.feature: functools.partial(features.last_token, self.model)}
    if self.encode is not None:
      kinds["minilm"] = self.encode
    found = {}
    for feature, make in kinds.items():
      width = self.model.module.config.width
      q = np.asarray(make(kept)) if kept else np.zeros((0, width), np.float32)
      for part in ("", "_with_train"):
        p = self._features(letters, feature, make, bool(part))
        found[f"mauve_{feature}{part}"] = scoring.mauve(
          p, q, feature=feature, buckets=buckets, seeds=self.mauve_seeds
        )
    return found

  def _features(
    self, letters: lettering.Letters, feature: str, make: Any, whole: bool
  ) -> np.ndarray:
    """Return features of what the person wrote, made once."""
    mails = (*letters.test, *letters.train) if whole else letters.test
    name = feature, tuple(mail.id for mail in mails)
    if name not in self._gold:
      self._gold[name] = np.asarray(make([mail.text for mail in mails]))
    return self._gold[name]


@functools.partial(jax.jit, static_argnums=0)
def _loss(module: Any, params: Any, batch: Any) -> jax.Array:
  return losses.mean_loss(module, params, batch)
