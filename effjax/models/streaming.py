"""Follow a text in the making: its end, stop strings, half characters."""

from collections.abc import Sequence

from effjax.models.tokenizers import Tokenizer


class Writer:
  """One text in the making.

  Attributes:
    tokens: its tokens so far.
    text: its text so far, without what is held back; None without a tokenizer.
    reason: why it has ended; None while it goes on.
  """

  def __init__(
    self,
    *,
    limit: int,
    full: str,
    eos: tuple[int, ...],
    stop: tuple[str, ...],
    tokenizer: Tokenizer | None,
  ):
    """Begin a text.

    Args:
      limit: The most tokens that it may have.
      full: The reason that is given when it has them.
      eos: Tokens that end it.
      stop: Strings that end it, and are left out; none of them is empty.
      tokenizer: Makes the text of the tokens.

    Raises:
      ValueError: If a stop string is empty.
    """
    if "" in stop:
      raise ValueError("A stop string must have a character, got ''.")
    self.tokens: list[int] = []
    self.text: str | None = None if tokenizer is None else ""
    self.reason: str | None = None
    self._limit, self._full, self._eos, self._stop = limit, full, eos, stop
    self._tokenizer = tokenizer
    self._step = None if tokenizer is None else tokenizer.stream()
    self._held = ""

  def add(self, tokens: Sequence[int]) -> str:
    """Add tokens up to the end of the text; return what they add to it."""
    new = ""
    for token in tokens:
      self.tokens.append(token)
      if token in self._eos:
        self.reason = "eos"
      elif len(self.tokens) >= self._limit:
        self.reason = self._full
      new += self._add_text(token)
      if self.reason is not None:
        break
    return new

  def _add_text(self, token: int) -> str:
    if self._tokenizer is None or self._step is None or self.text is None:
      return ""
    self._held += self._step([token])
    if self.reason is not None:
      # What was waiting for the rest of a character comes without it.
      whole = self._tokenizer.decode(self.tokens)
      self._held = whole[len(self.text) :]
    places = [p for s in self._stop if (p := self._held.find(s)) >= 0]
    if places:
      self._held = self._held[: min(places)]
      self.reason = "stop"
    kept = 0 if self.reason is not None else held_back(self._held, self._stop)
    new = self._held[: len(self._held) - kept]
    self._held = self._held[len(new) :]
    self.text += new
    return new


def held_back(text: str, stop: Sequence[str]) -> int:
  r"""Return how many characters at the end of a text may begin a stop string.

  Args:
    text: The text, in which there is no whole stop string.
    stop: The stop strings.

  Returns:
    The length of the longest end of the text that one of them begins with.

  >>> held_back("Yes.\n\n#", ["\n\n###", "User:"])
  3
  """
  longest = 0
  for string in stop:
    for size in range(min(len(string) - 1, len(text)), longest, -1):
      if text.endswith(string[:size]):
        longest = size
        break
  return longest
