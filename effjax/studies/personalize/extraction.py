"""An instruction made of a mail by rules, where no model makes a usable one.

It names whom the mail is for, what it does, what it is about, and its dates and
numbers, in the words of the mail but not in its sentences.
"""

import re
from collections import Counter

_GREETING = re.compile(
  r"\s*(?:hi|hey|hello|hiya|dear|hallo|good (?:morning|day|afternoon|evening))"
  r"\b[ ,]*((?:(?:mr|mrs|ms|dr|prof)\b\.? ?)*[^\W\d_][\w'’-]*)?[^\n]{0,30}$",
  re.I,
)
_NOBODY = ("all", "everyone", "everybody", "there", "team", "both", "guys")
# The first that fits says what a mail does.
_ACTS = (
  (
    r"\b(sorry|apologi[sz]e|apologies|excuse me|please excuse)\b",
    "Apologise to",
  ),
  (r"\bcongrat", "Congratulate"),
  (r"\b(invite|invited|invitation|like to come|join us)\b", "Invite"),
  (r"^\W*(many )?(thank|thx)", "Thank"),
  (r"\b(attached|attachment|enclosed|please find|here (is|are))\b", "Write to"),
  (r"\?|\b(could|can|would|will) you\b|\bplease\b", "Ask"),
  (r"\bthank", "Thank"),
)
_PREPOSITIONS = {
  "Apologise to": "for",
  "Thank": "for",
  "Invite": "to",
  "Congratulate": "on",
  "Write to": "with",
}
_COMMON_WORDS = """
  a able about above after afternoon again all almost already also always am
  an and any anyone anything apologies apologise apologize are as ask at away
  be because been before being best between both but by call can changed
  cheers come could day days dear did do does doing done down each else even
  evening ever every everyone everything few find first for from get give go
  going good got great had happy has have he hear hello help her here hey hi
  him his hiya hour hours how however hugs i idea if in interesting into is it
  its just keep kind know last later let like likes little long longer look
  looking lot lots love made make many may maybe me mean might minutes missed
  month more morning most moved moving much must my need never new next nice
  night no not nothing now of off ok okay on once one only or other others our
  out over own part people please possible put question really regards rest
  said same say see seeing send sent she should since sincerely so some
  somebody someone something soon sorry still such sure take tell than thank
  thanks that the their them then there these they thing things think this
  those though time to today told tomorrow too took unfortunately up us use
  very via want was way we week well were what when where whether which while
  who why will wish with without wondering would write xoxo year yes yesterday
  yet you your yours
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_DAYS = "mon|tues|wednes|thurs|fri|satur|sun"
_MONTHS = (
  "january|february|march|april|may|june|july|august|september|october|november"
  "|december"
)
_FACTS = re.compile(
  rf"\b(?:{_DAYS})day\b|\b(?:{_MONTHS}) \d{{1,2}}(?:st|nd|rd|th)?\b"
  rf"|\b\d{{1,2}}(?:st|nd|rd|th)?(?: of|\.)? (?:{_MONTHS})\b"
  r"|\b(?:today|tomorrow)\b|\b\d{1,2}[:.]\d\d(?: ?[ap]m)?\b|\b\d+ ?[ap]m\b"
  r"|(?:[$€£] ?)?\b\d[\d.,]*\b ?[€%]?",
  re.I,
)
_MOST_PHRASES, _MOST_FACTS, _MOST_WORDS = 3, 4, 3


def extract(text: str) -> str:
  r"""Make an instruction of a mail.

  Args:
    text: The mail.

  Returns:
    One or two sentences; the same for the same text.

  >>> extract("Hi Ada,\n\ncould you send me the draft by Friday?\n\nBo")
  'Ask Ada about the draft. Mention Friday.'
  """
  who, body = _parts(text)
  verb = act(body)
  facts = _facts(body)
  phrases = _phrases(body, facts)
  said = f"{verb} {who}"
  if phrases:
    said += f" {_PREPOSITIONS.get(verb, 'about')} the {', '.join(phrases)}"
  said += "."
  if facts:
    said += f" Mention {', '.join(facts)}."
  return said


def acts(text: str) -> list[str]:
  """Return all that a text does, the most telling first; at least "Tell"."""
  found = [verb for cue, verb in _ACTS if re.search(cue, text, re.I | re.M)]
  return [*dict.fromkeys(found), "Tell"]


def act(text: str) -> str:
  """Return what a text does: "Thank", "Invite" ...; "Tell" if nothing else."""
  return acts(text)[0]


def common(word: str) -> bool:
  """Say whether a word, in small letters, tells nothing about a mail."""
  return word in _COMMON or word.endswith("ly") or len(word) < 3


def recipient(text: str) -> str | None:
  """Return whom the first line greets; None if nobody by name."""
  match = _GREETING.match(text.lstrip().split("\n")[0])
  name = match[1] if match else None
  if name is None or name.lower() in _NOBODY or name.lower() in _COMMON:
    return None
  return name


def _parts(text: str) -> tuple[str, str]:
  """Return for whom a mail is, and what is neither greeting nor close."""
  lines = [line.strip() for line in text.strip().split("\n")]
  who = recipient(text) or "the recipient"
  if len(lines) > 1 and _GREETING.match(lines[0]):
    lines = lines[1:]
  # Short last lines without an end are a close and a name.
  while len(lines) > 1 and (
    not lines[-1]
    or (len(lines[-1].split()) <= 4 and lines[-1][-1] not in ".!?)")
  ):
    lines.pop()
  return who, "\n".join(lines).strip()


def _facts(body: str) -> list[str]:
  """Return dates, times and numbers in their order."""
  found = [match[0].strip(" .,") for match in _FACTS.finditer(body)]
  return list(dict.fromkeys(fact for fact in found if fact))[:_MOST_FACTS]


def _phrases(body: str, facts: list[str]) -> list[str]:
  """Return runs of words that are not common, the weightiest in their order.

  A word weighs as much as it is long and often; the idea is that of rapid
  automatic keyword extraction (Rose et al. 2010).
  """
  for fact in facts:
    body = body.replace(fact, ".")
  runs: list[list[str]] = []
  for clause in re.split(r"[^\w\s'’-]+|\n\n", body):
    run: list[str] = []
    for word in re.findall(r"\w+(?:['’-]\w+)*", clause):
      plain = re.split(r"n?['’]", word.lower())[0]
      if common(plain) or plain.isdigit():
        runs.append(run)
        run = []
      else:
        run.append(word)
    runs.append(run)
  counts = Counter(word.lower() for run in runs for word in run)
  weights: dict[str, float] = {}
  for run in runs:
    if run:
      phrase = " ".join(run[:_MOST_WORDS])
      weight = sum(
        counts[word.lower()] * len(word) for word in run[:_MOST_WORDS]
      )
      weights[phrase] = max(weights.get(phrase, 0), weight)
  ranked = sorted(weights, key=lambda phrase: -weights[phrase])[:_MOST_PHRASES]
  return [phrase for phrase in weights if phrase in ranked]
