"""Numbers and prose as they are shown in reports and messages."""

import difflib
import math
import re
from collections.abc import Iterable
from typing import Any

MISSING = "\u2013"
_MINUS = "\u2212"


def format_number(value: Any, digits: int | None = None) -> str:
  """Returns a number as shown in tables.

  Args:
    value: A number or None.
    digits: Decimals; None shows whole numbers whole, others with 4 digits.

  Returns:
    The text; a dash for None and NaN.

  >>> format_number(-0.0456, 2), format_number(60000), format_number(None)
  ('−0.05', '60,000', '–')
  """
  if value is None or (isinstance(value, float) and math.isnan(value)):
    return MISSING
  value = float(value)
  if math.isinf(value):
    return "∞" if value > 0 else f"{_MINUS}∞"
  if digits is None:
    text = f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"
  else:
    text = f"{value:,.{digits}f}"
  if not text.strip("-0.,"):
    text = text.lstrip("-")
  return text.replace("-", _MINUS)


def format_interval(low: float, high: float, digits: int | None = None) -> str:
  """Returns an interval as "[low, high]", or "" where an end is undefined."""
  if math.isnan(low) or math.isnan(high):
    return ""
  return f"[{format_number(low, digits)}, {format_number(high, digits)}]"


def meant(name: str, known: Iterable[str]) -> str:
  """Says which known name a misspelt one most likely meant.

  Args:
    name: What the user wrote.
    known: The names that exist.

  Returns:
    ", did you mean ...?", or nothing if none is near.

  >>> meant("salience", ["lrp", "saliency"])
  ", did you mean 'saliency'?"
  """
  near = difflib.get_close_matches(name, list(known), 1, 0.5)
  return f", did you mean {near[0]!r}?" if near else ""


def markup(text: str):
  """Returns the light markup of `Prose` as safe HTML."""
  import markupsafe

  blocks = []
  for block in re.split(r"\n\s*\n", text.strip()):
    lines = [line.strip() for line in block.split("\n") if line.strip()]
    if lines and all(line.startswith("- ") for line in lines):
      items = "".join(f"<li>{_inline(line[2:])}</li>" for line in lines)
      blocks.append(f"<ul>{items}</ul>")
    elif lines:
      blocks.append(f"<p>{_inline(' '.join(lines))}</p>")
  return markupsafe.Markup("\n".join(blocks))


def _inline(text: str) -> str:
  import markupsafe

  parts = re.split(r"`([^`]+)`", text)
  shown = []
  for i, part in enumerate(parts):
    part = str(markupsafe.escape(part))
    if i % 2:
      shown.append(f"<code>{part}</code>")
      continue
    part = re.sub(r"\*\*(\S|\S.*?\S)\*\*", r"<strong>\1</strong>", part)
    shown.append(re.sub(r"\*(\S|\S.*?\S)\*", r"<em>\1</em>", part))
  return "".join(shown)
