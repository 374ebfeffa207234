"""Instructions made of mails, so that mails can be learned as their answers.

Reverse instructions (Köksal et al. 2023, arXiv:2304.08460): a model is shown a
mail and says what order it would follow. What it says is kept if it is in the
form that was asked for and neither copies the mail nor invents; otherwise it is
asked again, and in the end the instruction is extracted by rules.
"""

import collections
import functools
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from effjax.data import json_lines
from effjax.data.mails import Mail, mail
from effjax.io import files
from effjax.models import generation, sampling
from effjax.studies import language
from effjax.studies.personalize import asking, extraction

SOURCES = ("file", "model", "extracted")
SAMPLING = sampling.Sampling(temperature=0.7, top_k=50, top_p=0.7)


class Instruction(NamedTuple):
  """What a mail follows.

  Attributes:
    text: The instruction.
    source: One of `SOURCES`.
    rejected: Why earlier answers of the model were not taken.
  """

  text: str
  source: str
  rejected: tuple[str, ...] = ()


def read(path: str | os.PathLike) -> dict[str, str]:
  """Read instructions from a file.

  Args:
    path: A file with an object a line: "instruction", and either "id" or the
      mail itself, "email" or "text".

  Returns:
    Instructions by the id of their mail.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If a line is no such object, naming it.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"there is no file {path}")
  found = {}
  for place, entry in json_lines.objects(path.read_bytes(), path.name):
    text = entry.get("email", entry.get("text"))
    name = mail(text).id if isinstance(text, str) else entry.get("id")
    said = entry.get("instruction")
    if not isinstance(name, str) or not isinstance(said, str):
      raise ValueError(
        f"{place} must have 'instruction', and 'id', 'email' or 'text', all"
        " texts"
      )
    if not said.strip():
      raise ValueError(f"{place}: 'instruction' is empty")
    found[name] = said.strip()
  return found


def instructions(
  key: jax.Array | None,
  model: language.Language | None,
  mails: Sequence[Mail],
  *,
  path: str | os.PathLike | None = None,
  given: Mapping[str, str] | None = None,
  tries: int = 2,
  batch: int = 8,
  max_tokens: int = 48,
  sampled: sampling.Sampling = SAMPLING,
  progress: Callable[[int, int], None] | None = None,
) -> dict[str, Instruction]:
  """Make an instruction of every mail.

  Args:
    key: Typed random key; None without a model.
    model: What is asked; None to extract all instructions by rules.
    mails: The mails.
    path: A file that keeps what was made, and from which it is read again: a
      run that was interrupted goes on after its last batch, and gives what it
      would have given. None to keep nothing.
    given: Instructions by the id of their mail, see `read`, which are taken as
      they are.
    tries: How often the model is asked about a mail at most.
    batch: Mails that it is asked about together.
    max_tokens: The most tokens of an answer.
    sampled: How tokens are chosen.
    progress: Called after each batch with the mails done and all of them.

  Returns:
    Instructions by the id of their mail.

  Raises:
    ValueError: If a number is below one, a key is missing, or the file at
      `path` is damaged.
    OSError: If the disk refuses.
  """
  for name, number in (("tries", tries), ("batch", batch)):
    if number < 1:
      raise ValueError(f"{name} must be at least 1, got {number}")
  if model is not None and key is None:
    raise ValueError("a model needs a random key, got None")
  done = {} if path is None else _cached(pathlib.Path(path))
  given = given or {}
  mails = list({each.id: each for each in mails}.values())
  for each in mails:
    if each.id in given:
      done[each.id] = Instruction(given[each.id], "file")
  parts = _batches(model, mails, batch, max_tokens)
  ask = _asker(model, parts, max_tokens, sampled)
  for number, part in enumerate(parts):
    missing = [(each, tokens) for each, tokens in part if each.id not in done]
    if not missing:
      continue
    done.update(_answered(_folded(key, number), ask, missing, tries))
    if path is not None:
      _keep(pathlib.Path(path), done)
    if progress is not None:
      progress(sum(each.id in done for each in mails), len(mails))
  return {each.id: done[each.id] for each in mails}


def counts(found: Mapping[str, Instruction]) -> dict[str, int]:
  """Count instructions by source, and rejected answers by what was wrong.

  >>> counts({"a": Instruction("Do.", "model", ("copied", "form"))})
  {'file': 0, 'model': 1, 'extracted': 0, 'rejected: copied': 1, \
'rejected: form': 1}
  """
  sources = collections.Counter(each.source for each in found.values())
  wrong = collections.Counter(
    fault for each in found.values() for fault in each.rejected
  )
  rejected = {f"rejected: {name}": wrong[name] for name in sorted(wrong)}
  return {**{name: sources[name] for name in SOURCES}, **rejected}


def _batches(
  model: language.Language | None,
  mails: Sequence[Mail],
  size: int,
  max_tokens: int,
) -> list[list[tuple[Mail, list[int]]]]:
  """Put mails of like length together, with the tokens that ask about them.

  A mail that is too long to ask about has none.
  """
  if model is None:
    return [[(each, []) for each in mails]]
  asked = []
  for each in mails:
    tokens = asking.tokens(model.tokenizer, each.text)
    fits = len(tokens) + max_tokens <= model.module.config.context
    asked.append((each, tokens if fits else []))
  asked.sort(key=lambda pair: len(pair[1]))
  return [asked[i : i + size] for i in range(0, len(asked), size)]


def _folded(key: jax.Array | None, number: int) -> jax.Array | None:
  return None if key is None else jax.random.fold_in(key, number)


def _answered(
  key: jax.Array | None,
  ask: Callable[[Any, list[list[int]]], list[str]] | None,
  asked: Sequence[tuple[Mail, list[int]]],
  tries: int,
) -> dict[str, Instruction]:
  """Ask about mails until each has an instruction."""
  found: dict[str, Instruction] = {}
  wrong: dict[str, tuple[str, ...]] = {each.id: () for each, _ in asked}
  open_ = [(each, tokens) for each, tokens in asked if tokens]
  for attempt in range(tries):
    if not open_ or ask is None:
      break
    answers = ask(_folded(key, attempt), [tokens for _, tokens in open_])
    for (each, _), answer in zip(open_, answers, strict=True):
      said = asking.parse(answer)
      bad = asking.fault(said, each.text)
      if bad is None:
        found[each.id] = Instruction(str(said), "model", wrong[each.id])
      else:
        wrong[each.id] += (bad,)
    open_ = [pair for pair in open_ if pair[0].id not in found]
  for each, _ in asked:
    if each.id not in found:
      said = extraction.extract(each.text)
      found[each.id] = Instruction(said, "extracted", wrong[each.id])
  return found


def _asker(
  model: language.Language | None,
  parts: Sequence[Sequence[tuple[Mail, list[int]]]],
  max_tokens: int,
  sampled: sampling.Sampling,
) -> Callable[[Any, list[list[int]]], list[str]] | None:
  """Return what gives the answers to prompts; "" for those that do not end.

  What all begin with is read once.
  """
  if model is None:
    return None
  every = [tokens for part in parts for _, tokens in part if tokens]
  shared = _shared(every)

  @functools.cache
  def prefix() -> generation.Prefix | None:
    if not shared:
      return None
    room = max(map(len, every)) - shared + max_tokens
    return generation.read_prefix(
      model.module, model.params, every[0][:shared], room=room
    )

  def ask(key: Any, prompts: list[list[int]]) -> list[str]:
    # Few numbers of rows, so that few programs are compiled.
    rows = 1 << (len(prompts) - 1).bit_length()
    padded = [*prompts, *[prompts[-1]] * (rows - len(prompts))]
    answers = generation.generate(
      key,
      model.module,
      model.params,
      [prompt[shared:] for prompt in padded],
      max_tokens=max_tokens,
      sampling=sampled,
      eos=model.eos,
      stop=["\n"],
      tokenizer=model.tokenizer,
      prefix=prefix(),
    )
    return [
      f"{asking.MARKER}{answer.text}"
      if answer.reason in ("eos", "stop")
      else ""
      for answer in answers[: len(prompts)]
    ]

  return ask


def _shared(prompts: Sequence[list[int]]) -> int:
  """Return how many tokens all begin with, at least one left to each."""
  if not prompts:
    return 0
  count = 0
  for one, other in zip(min(prompts), max(prompts), strict=False):
    if one != other:
      break
    count += 1
  return min(count, min(map(len, prompts)) - 1)


def _cached(path: pathlib.Path) -> dict[str, Instruction]:
  """Read what an earlier run has made."""
  if not path.exists():
    return {}
  found = {}
  for place, entry in json_lines.objects(path.read_bytes(), path.name):
    try:
      found[entry["id"]] = Instruction(
        entry["instruction"], entry["source"], tuple(entry["rejected"])
      )
    except (KeyError, TypeError) as error:
      raise ValueError(
        f"{place} is no instruction that was kept ({error}); delete the file"
        " to make them again"
      ) from None
  return found


def _keep(path: pathlib.Path, done: Mapping[str, Instruction]) -> None:
  """Write all instructions, so that the file is always whole."""
  lines = [
    json.dumps(
      {
        "id": name,
        "instruction": each.text,
        "source": each.source,
        "rejected": each.rejected,
      },
      ensure_ascii=False,
    )
    for name, each in done.items()
  ]
  files.write_text(path, "\n".join(lines) + "\n")
