"""Canaries: made-up secrets that are planted in mails, and looked for.

How much more likely a model finds a planted secret than others of its form says
what it has learned by heart (Carlini et al. 2019, arXiv:1802.08232).
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import metrics
from effjax.data import batches
from effjax.data.mails import mail
from effjax.models import generation
from effjax.studies import language
from effjax.studies.personalize import letters as lettering
from effjax.studies.personalize import prompts

FORM = "P.S. The code of the gate is {secret}."
DIGITS = 6
_TOGETHER = 16  # candidates that are read together


class Canaries(NamedTuple):
  """Secrets that were planted, each at the end of some mails.

  Attributes:
    secrets: C texts.
    repeats: In how many mails each is [C].
    hosts: For each the id of a mail that has it [C].
    candidates: Texts of the same form that were not planted.
  """

  secrets: tuple[str, ...]
  repeats: tuple[int, ...]
  hosts: tuple[str, ...]
  candidates: tuple[str, ...]


def plant(
  key: jax.Array,
  letters: lettering.Letters,
  *,
  repeats: Sequence[int],
  candidates: int,
) -> tuple[lettering.Letters, Canaries]:
  """Plant secrets in mails to learn from.

  Args:
    key: Typed random key.
    letters: The letters.
    repeats: In how many mails each secret is.
    candidates: How many others are drawn, to compare with.

  Returns:
    The letters, and what was planted. No mail has two secrets.

  Raises:
    ValueError: If there are too few mails, or a number is below 1.
  """
  count = sum(repeats)
  if not repeats or min(repeats) < 1 or candidates < 1:
    raise ValueError(
      f"repeats {tuple(repeats)} and candidates={candidates} must be at least 1"
    )
  if count > len(letters.train):
    raise ValueError(
      f"{count} mails would have a secret, and {letters.name} has"
      f" {len(letters.train)} to learn from"
    )
  generator = batches.generator_of(key)
  total = len(repeats) + candidates
  numbers = generator.choice(10**DIGITS, total, replace=False)
  texts = [
    FORM.format(secret=" ".join(f"{number:0{DIGITS}d}")) for number in numbers
  ]
  places = generator.permutation(len(letters.train))[:count]
  owners = np.repeat(np.arange(len(repeats)), repeats)
  train, instructions = list(letters.train), dict(letters.instructions)
  hosts: dict[int, str] = {}
  for place, owner in zip(places.tolist(), owners.tolist(), strict=True):
    old = train[place]
    new = mail(f"{old.text}\n\n{texts[owner]}", subject=old.subject)
    train[place] = new._replace(date=old.date, thread=old.thread)
    # What asks for the mail says nothing of the secret.
    instructions[new.id] = instructions[old.id]
    hosts.setdefault(owner, new.id)
  planted = letters._replace(train=tuple(train), instructions=instructions)
  if letters.index is not None:
    planted = lettering.make(
      letters.name,
      planted.train,
      planted.test,
      instructions,
      preamble=letters.preamble,
      kind=letters.index.kind,
      encode=letters.index.encode,
    )
  return planted, Canaries(
    tuple(texts[: len(repeats)]),
    tuple(repeats),
    tuple(hosts[owner] for owner in range(len(repeats))),
    tuple(texts[len(repeats) :]),
  )


def examine(
  model: language.Language,
  params: Any,
  letters: lettering.Letters,
  canaries: Canaries,
) -> dict[str, Any]:
  """Measure the exposure of secrets, each behind its mail and its prompt.

  Args:
    model: The model.
    params: Its parameters, adapters merged.
    letters: The letters with the secrets.
    canaries: What was planted.

  Returns:
    `exposure` [C], in bits, `repeats` [C], `most` (the largest that can be),
    and `log_perplexity` [C], in nats, of the secrets.
  """
  tokenizer = model.tokenizer
  by_id = {each.id: each for each in letters.train}
  own, others = [], []
  for secret, host in zip(canaries.secrets, canaries.hosts, strict=True):
    before = by_id[host].text.removesuffix(secret)
    prompt = prompts.fit(
      letters.instructions[host],
      tokenizer,
      room=model.module.config.context // 2,
      preamble=letters.preamble,
    )
    context = [*prompt.tokens, *tokenizer.encode(before, special=False)]
    texts = (secret, *canaries.candidates)
    found = log_perplexity(model, params, context, texts)
    own.append(found[0])
    others.append(found[1:])
  return {
    "exposure": metrics.exposure(own, others).tolist(),
    "repeats": list(canaries.repeats),
    "most": float(np.log2(len(canaries.candidates) + 1)),
    "log_perplexity": [float(x) for x in own],
    "candidates": len(canaries.candidates),
  }


def log_perplexity(
  model: language.Language,
  params: Any,
  context: Sequence[int],
  texts: Sequence[str],
) -> np.ndarray:
  """Return minus the log-probabilities of texts behind a context.

  Args:
    model: The model.
    params: Its parameters.
    context: Tokens before each text.
    texts: R texts.

  Returns:
    Nats, float64 [R].

  Raises:
    ValueError: If context and texts are longer than the model can read.
  """
  rows = [model.tokenizer.encode(text, special=False) for text in texts]
  longest = max(map(len, rows))
  if len(context) + longest > model.module.config.context:
    raise ValueError(
      f"a secret ends after {len(context) + longest} tokens, more than the"
      f" {model.module.config.context} that the model reads"
    )
  # The last token of the context foretells the first of a text.
  prefix = generation.read_prefix(
    model.module, params, list(context)[:-1], room=longest
  )
  tokens = np.zeros((len(rows), longest + 1), np.int32)
  lengths = np.array([len(row) for row in rows], np.int32)
  for place, row in enumerate(rows):
    tokens[place, : len(row) + 1] = [context[-1], *row]
  found = _scored(
    model.module,
    params,
    prefix.cache,
    tokens,
    lengths,
    np.int32(len(context) - 1),
  )
  return np.asarray(found, np.float64)


@functools.partial(jax.jit, static_argnums=0)
def _scored(
  module: Any, params: Any, cache: Any, tokens: Any, lengths: Any, past: Any
) -> jax.Array:
  """Sum the losses of the rows of tokens behind one cache."""
  columns = jnp.arange(tokens.shape[1], dtype=jnp.int32)

  def one(row):
    own, length = row
    positions = jnp.where(columns <= length, past + columns, -1)
    hidden, _ = module.apply(
      {"params": params}, own[None], positions[None], cache, method="extend"
    )
    logits = module.apply({"params": params}, hidden[0, :-1], method="logits")
    chances = jax.nn.log_softmax(logits.astype(jnp.float32))
    loss = -jnp.take_along_axis(chances, own[1:, None], axis=1)[:, 0]
    return jnp.sum(jnp.where(columns[:-1] < length, loss, 0.0))

  return jax.lax.map(one, (tokens, lengths), batch_size=_TOGETHER)
