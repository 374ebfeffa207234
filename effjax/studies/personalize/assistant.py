"""Drafts in the style of a person, by the model of their mailbox.

assistant = Assistant(folders.find("me"))
asked = assistant.ask("Tell the team that I will be late.")
print("".join(asked.pieces))
"""

import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax

from effjax.io import peft_config
from effjax.models import bert, generation, llama_weights, sampling
from effjax.studies import language
from effjax.studies.personalize import drafts, folders, prompts, retrieval
from effjax.studies.text import meant

# Who writes: the model with what it has learned, or as it was before.
METHODS: Mapping[str, str] = {
  "adapter": "with what was learned of your mails",
  "pretrained": "as it was before",
}
# The most earlier mails in a prompt, and characters of an instruction.
MOST_RETRIEVED, MOST_CHARACTERS = 10, 4000


class Found(NamedTuple):
  """An earlier mail that fits an instruction.

  Attributes:
    text: The mail.
    subject: Its subject; "" if none.
    relevance: How well it fits.
    shown: Whether the prompt has room for it.
  """

  text: str
  subject: str
  relevance: float
  shown: bool


class Asked(NamedTuple):
  """A draft in the making.

  Attributes:
    prompt: What the model reads.
    found: Earlier mails that were found, the best first.
    pieces: What the draft grows by, as it comes.
  """

  prompt: prompts.Prompt
  found: tuple[Found, ...]
  pieces: Iterator[str]


class Assistant:
  """Writes drafts; weights are read when they are first needed.

  Attributes:
    settings: How the model is asked, see `settings`.
    missing: What is not beside the adapter, see `missing`.
    index: Earlier mails; None if there are none beside the adapter.
  """

  def __init__(
    self,
    folder: folders.Folder,
    *,
    model: str | None = None,
    directory: str | None = None,
  ):
    """Find out what was learned, and read the base.

    Args:
      folder: What `launch.personalize` has made, see `folders.find`; what is
        private may be missing.
      model: The base, see `language.load`; by default the one that was adapted.
      directory: Where its weights lie.

    Raises:
      FileNotFoundError: If files are missing.
      ValueError: If they are damaged.
    """
    self.adapter = place(folder)
    self.settings = settings(folder, self.adapter)
    self.missing = missing(folder, self.adapter)
    self.index = None
    if folder.index.is_file():
      self.index = retrieval.load(folder.index, encoder(directory))
    name = self.settings["model"] if model is None else model
    self.base = language.load(name, directory=directory)
    self._ready: dict[str, tuple[Any, Any]] = {}

  def ask(
    self,
    instruction: str,
    *,
    method: str = "adapter",
    retrieve: int | None = None,
    sampled: sampling.Sampling = drafts.SAMPLING,
    max_tokens: int | None = None,
    seed: int = 0,
  ) -> Asked:
    """Have a draft made; what is wrong is told before the first piece.

    Args:
      instruction: What the mail should say.
      method: A key of `METHODS`.
      retrieve: The most earlier mails in the prompt; by default as many as the
        model has learned with.
      sampled: How tokens are chosen.
      max_tokens: The most tokens of the draft.
      seed: Of the random draws.

    Returns:
      The draft in the making.

    Raises:
      ValueError: If a value makes no sense, earlier mails are wanted and there
        are none, or the instruction is too long.
    """
    count, most = self.check(instruction, method, retrieve, max_tokens)
    # Halves of characters, which a terminal or a page may send, have no tokens.
    instruction = instruction.encode("utf-8", "replace").decode("utf-8")
    hits, mails = [], []
    if count and self.index is not None:
      (hits,) = retrieval.search(self.index, [instruction], count)
      mails = [self.index.mails[hit.place] for hit in hits]
    context = self.base.module.config.context
    prompt = prompts.fit(
      instruction,
      self.base.tokenizer,
      # Prompts of drafts are as long as those that were learned from.
      room=min(self.settings["length"], context - most),
      preamble=prompts.Preamble(**self.settings["preamble"]),
      retrieved=[mail.text for mail in mails],
    )
    found = tuple(
      Found(mail.text, mail.subject, hit.relevance, place < prompt.retrieved)
      for place, (mail, hit) in enumerate(zip(mails, hits, strict=True))
    )
    module, params = self._weights(method)
    made = generation.stream(
      jax.random.key(seed),
      module,
      params,
      [prompt.tokens],
      max_tokens=most,
      sampling=sampled,
      eos=self.base.eos,
      stop=[prompts.HEADING],
      tokenizer=self.base.tokenizer,
    )
    return Asked(prompt, found, (piece.text for piece in made))

  def check(
    self,
    instruction: str,
    method: str,
    retrieve: int | None,
    max_tokens: int | None,
  ) -> tuple[int, int]:
    """Check what is asked for, as far as that is quickly done.

    Args:
      instruction: As in `ask`, like the other arguments.
      method: A key of `METHODS`.
      retrieve: The most earlier mails, or None.
      max_tokens: The most tokens, or None.

    Returns:
      The most earlier mails and tokens, those of the settings for None.

    Raises:
      ValueError: If a value makes no sense.
    """
    count = self.settings["retrieve"] if retrieve is None else retrieve
    most = self.settings["max_tokens"] if max_tokens is None else max_tokens
    if not instruction.strip():
      raise ValueError("the instruction is empty; say what the mail should say")
    if len(instruction) > MOST_CHARACTERS:
      raise ValueError(
        f"the instruction has {len(instruction):,} characters;"
        f" {MOST_CHARACTERS:,} are the limit"
      )
    if method not in METHODS:
      raise ValueError(
        f"there is no method {method!r}{meant(method, METHODS)}; known are"
        f" {', '.join(METHODS)}"
      )
    if not 0 <= count <= MOST_RETRIEVED:
      raise ValueError(
        f"retrieve must be from 0 to {MOST_RETRIEVED}, got {count}"
      )
    if most < 1:
      raise ValueError(f"max_tokens must be at least 1, got {most}")
    if count and self.index is None:
      raise ValueError(
        "earlier mails are wanted, but there are none beside the adapter; take"
        " retrieve=0"
      )
    return count, most

  def _weights(self, method: str) -> tuple[Any, Any]:
    """Return module and parameters of a method, made once."""
    if method not in self._ready:
      module, params = self.base.module, self.base.params
      if method == "adapter" and (self.adapter / peft_config.NAME).is_file():
        params = language.with_adapter(self.base, self.adapter).params
      elif method == "adapter":
        params = language.load(str(self.adapter)).params
      if jax.default_backend() == "cpu":
        module, params = llama_weights.fuse(module, params)
      self._ready[method] = module, params
    return self._ready[method]


def place(folder: folders.Folder) -> pathlib.Path:
  """Return the directory of what was learned."""
  return folder.adapter if folder.adapter.is_dir() else folder.root


def settings(folder: folders.Folder, adapter: pathlib.Path) -> dict[str, Any]:
  """Say how a model is asked for drafts.

  Args:
    folder: Its folder, of which the settings are private.
    adapter: What was learned.

  Returns:
    `model` (the base), `preamble`, `length` (the most tokens of a prompt),
    `retrieve` (earlier mails) and `max_tokens`.
  """
  usual: dict[str, Any] = {
    "model": "smollm2",
    "preamble": prompts.DEFAULT._asdict(),
    "length": prompts.LENGTH,
    "retrieve": 0,
    "max_tokens": 256,
  }
  if (adapter / peft_config.NAME).is_file():
    base = peft_config.read(adapter).get("base_model_name_or_path")
    usual["model"] = base or usual["model"]
  return {**usual, **(folders.read(folder.settings) or {})}


def missing(folder: folders.Folder, adapter: pathlib.Path) -> str:
  """Say what is not beside an adapter, and what is done instead.

  Args:
    folder: Its folder.
    adapter: What was learned.

  Returns:
    A sentence; "" if all is there.
  """
  if folders.read(folder.settings) is not None:
    return ""
  usual = settings(folder, adapter)
  return (
    f"{folder.settings} is missing or damaged, which says how the model was"
    f" asked: it is asked in the usual way, as {usual['model']}, without what"
    " it knew of its owner and without earlier mails."
  )


def encoder(directory: str | None = None) -> retrieval.Encode:
  """Return what makes vectors of texts, which is loaded when it is needed."""

  @functools.cache
  def load() -> language.Encoder:
    return language.load_encoder(directory=directory)

  return lambda texts: bert.encode(*load(), texts)
