"""What the local page that writes drafts asks for, see `pages`.

POST /draft takes JSON with an instruction, a method, the number of earlier
mails, a temperature and a seed, and returns lines of JSON: the earlier mails
that were found, the pieces of the draft as they come, and how long it took.
"""

import dataclasses
import json
import math
import pathlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from effjax.studies.personalize import assistant, drafts, folders
from launch import pages

_MOST_BYTES = 50_000  # of a question
MOST_TEMPERATURE = 2.0
_MOST_SEED = 2**32 - 1
_PATIENCE = 30  # seconds that a question waits for the one before it


class _Question(NamedTuple):
  """What is asked for, or proposed by the page."""

  instruction: str
  method: str
  retrieve: int | None  # None for as many as it has learned with
  temperature: float
  seed: int


class Service:
  """What the page asks for; one draft at a time.

  Attributes:
    stage: What is being done, for those who wait.
    token: What questions must come with: mails are shown.
  """

  def __init__(
    self,
    folder: folders.Folder,
    load: Callable[[], assistant.Assistant],
    *,
    instruction: str = "",
    method: str = "adapter",
    retrieve: int | None = None,
    temperature: float = drafts.SAMPLING.temperature,
    max_tokens: int | None = None,
    seed: int = 0,
  ):
    """Prepare the page; `load` is left to be called.

    Args:
      folder: What was learned, see `folders.find`.
      load: Makes the assistant.
      instruction: What the page proposes, like the others.
      method: A key of `assistant.METHODS`.
      retrieve: The most earlier mails; by default as it has learned.
      temperature: How varied drafts are.
      max_tokens: The most tokens of drafts.
      seed: Of the first draft.
    """
    self.folder = folder
    self.stage = "loading the model"
    self.token = secrets.token_urlsafe(24)
    self._make = load
    self._writer: assistant.Assistant | None = None
    self._lock = threading.Lock()
    self._proposed = _Question(instruction, method, retrieve, temperature, seed)
    self._max_tokens = max_tokens

  def load(self) -> None:
    """Load the model, while the page says so.

    Raises:
      ValueError: As `assistant.Assistant` does.
      FileNotFoundError: As that does.
    """
    writer, proposed = self._make(), self._proposed
    writer.check(
      "any", proposed.method, proposed.retrieve or 0, self._max_tokens
    )
    self._writer = writer
    self.stage = ""

  def page(self, nonce: str) -> str:
    """Return the page; scripts and styles carry the nonce."""
    adapter = assistant.place(self.folder)
    usual = assistant.settings(self.folder, adapter)
    searched = self.folder.index.is_file()
    proposed = self._proposed
    if proposed.retrieve is None:
      retrieve = usual["retrieve"] if searched else 0
      proposed = proposed._replace(retrieve=retrieve)
    return pages.render(
      "write.html.j2",
      nonce=nonce,
      title=self.folder.root.absolute().name,
      origin=_origin(adapter),
      missing=assistant.missing(self.folder, adapter),
      methods=assistant.METHODS,
      searched=searched,
      most_retrieved=assistant.MOST_RETRIEVED,
      most_characters=assistant.MOST_CHARACTERS,
      most_temperature=MOST_TEMPERATURE,
      most_seed=_MOST_SEED,
      data={"token": self.token, "header": pages.TOKEN},
      **proposed._asdict(),
    )

  def progress(self) -> dict[str, Any]:
    """Say what is being done, and whether drafts can be asked for."""
    return {"stage": self.stage, "ready": self._writer is not None}

  @property
  def questions(self) -> dict[str, pages.Question]:
    """What the page may ask, by path."""
    return {
      "/draft": pages.Question("application/json", _MOST_BYTES, self.draft)
    }

  def draft(self, content: bytes) -> Iterator[dict[str, Any]]:
    """Have a draft made.

    Args:
      content: What the page has sent.

    Returns:
      What it is answered by.

    Raises:
      ValueError: If the question makes no sense, or the model is not loaded.
    """
    if self._writer is None:
      raise ValueError("the model is being loaded; wait a moment")
    asked = _read(json.loads(content))
    self._writer.check(
      asked.instruction, asked.method, asked.retrieve, self._max_tokens
    )
    return self._answer(self._writer, asked)

  def _answer(
    self, writer: assistant.Assistant, asked: _Question
  ) -> Iterator[dict[str, Any]]:
    if not self._lock.acquire(timeout=_PATIENCE):
      yield {"error": "another draft is being written; wait, or stop it there"}
      return
    try:
      started = time.perf_counter()
      self.stage = "reading"
      made = writer.ask(
        asked.instruction,
        method=asked.method,
        retrieve=asked.retrieve,
        sampled=dataclasses.replace(
          drafts.SAMPLING, temperature=asked.temperature
        ),
        max_tokens=self._max_tokens,
        seed=asked.seed,
      )
      yield {"found": [found._asdict() for found in made.found]}
      for piece in made.pieces:
        self.stage = "writing"
        if piece:
          yield {"piece": piece}
      yield {"seconds": time.perf_counter() - started}
    except ValueError as error:
      yield {"error": str(error)}
    finally:
      self.stage = ""
      self._lock.release()


def _origin(adapter: pathlib.Path) -> str:
  """Say where an adapter comes from, as far as it says so itself."""
  found: Any = folders.read(adapter / "provenance.json")
  try:
    return (
      f"{found['base']['name']} with {found['arm']}, learned from"
      f" {found['mails']} mails on {found['made']}."
    )
  except (KeyError, TypeError):
    return ""


def _read(asked: Any) -> _Question:
  """Check the types of what is asked for; the rest is the assistant's."""
  if not isinstance(asked, dict):
    raise ValueError("a question is a JSON object")
  for name, kinds, expected in (
    ("instruction", str, "a text"),
    ("method", str, "a text"),
    ("retrieve", int, "a whole number"),
    ("temperature", int | float, "a number"),
    ("seed", int, "a whole number"),
  ):
    value = asked.get(name)
    if not isinstance(value, kinds) or isinstance(value, bool):
      raise ValueError(f"a question has {name}, which is {expected}")
  question = _Question(**{name: asked[name] for name in _Question._fields})
  check(question.temperature, question.seed)
  return question


def check(temperature: float, seed: int) -> None:
  """Raise a ValueError for what no draft can be drawn with."""
  if not (0 <= temperature <= MOST_TEMPERATURE and math.isfinite(temperature)):
    raise ValueError(
      f"temperature must be from 0 to {MOST_TEMPERATURE:g}, got {temperature}"
    )
  if not 0 <= seed <= _MOST_SEED:
    raise ValueError(f"seed must be from 0 to {_MOST_SEED}, got {seed}")
