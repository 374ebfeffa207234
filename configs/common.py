"""What configs share: the argument of a config, and combinations for sweeps."""

import difflib
import itertools
from collections.abc import Iterable
from typing import Any

import ml_collections

Sweep = list[dict[str, Any]]


def parse_arg(arg: str, **defaults: Any) -> ml_collections.ConfigDict:
  """Read the argument of a config, `file.py:quick,sparsity=0.95`.

  Args:
    arg: Comma-separated `name=value`; a bare `name` turns a switch on. The
      parts of a tuple are separated by colons, `sparsities=0.5:0.9`.
    **defaults: Every name that may occur with its default, whose type the value
      must have. A default of None takes any text.

  Returns:
    The values, locked.

  Raises:
    ValueError: If a name is unknown, twice there, or its value has another
      type.

  >>> arg = parse_arg("quick,sparsity=0.95", quick=False, sparsity=0.9, seeds=3)
  >>> arg.quick, arg.sparsity, arg.seeds
  (True, 0.95, 3)
  """
  values = dict(defaults)
  given = set()
  for part in filter(None, (part.strip() for part in arg.split(","))):
    name, equals, text = part.partition("=")
    if name not in defaults:
      known = ", ".join(defaults) or "none"
      raise ValueError(
        f"the config has no argument {name!r}{meant(name, defaults)}; its"
        f" arguments are {known}"
      )
    if name in given:
      raise ValueError(f"the config's argument {name!r} is given twice")
    given.add(name)
    if not equals and not isinstance(defaults[name], bool):
      raise ValueError(f"the config's argument {name!r} needs a value")
    try:
      values[name] = convert(text if equals else "true", defaults[name], ":")
    except ValueError as error:
      raise ValueError(f"the config's argument {name!r}: {error}") from None
  return ml_collections.ConfigDict(values).lock()


def convert(text: str, like: Any, separator: str = ",") -> Any:
  """Turn text into a value of the type that another value has.

  Args:
    text: What the user wrote.
    like: A value of the wanted type: bool, int, float, str, a tuple or list of
      one of them, or None for whatever the text looks like.
    separator: What stands between the parts of a tuple or list; brackets
      around them may be left out.

  Returns:
    The value.

  Raises:
    ValueError: If the text does not read as that type.

  >>> convert("0.5,1", (0.9,)), convert("7", None), convert("off", True)
  ((0.5, 1.0), 7, False)
  """
  if isinstance(like, bool):
    if text.lower() in ("true", "1", "yes", "on"):
      return True
    if text.lower() in ("false", "0", "no", "off"):
      return False
    raise ValueError(f"{text!r} is neither true nor false")
  if isinstance(like, tuple | list):
    inner = text.strip().removeprefix("(").removesuffix(")")
    inner = inner.removeprefix("[").removesuffix("]")
    parts = [part.strip() for part in inner.split(separator) if part.strip()]
    first = like[0] if like else None
    return type(like)(convert(part.strip("'\""), first) for part in parts)
  if isinstance(like, int):
    return _number(int, text, "a whole number")
  if isinstance(like, float):
    return _number(float, text, "a number")
  if isinstance(like, str):
    return text
  if text.lower() == "none":
    return None
  for kind in (int, float):
    try:
      return kind(text)
    except ValueError:
      continue
  return {"true": True, "false": False}.get(text.lower(), text)


def _number(kind: type, text: str, name: str) -> Any:
  try:
    return kind(text)
  except ValueError:
    raise ValueError(f"{text!r} is not {name}") from None


def meant(name: str, known: Iterable[str]) -> str:
  """Say which known name a misspelt one most likely meant.

  Args:
    name: What the user wrote.
    known: The names that exist.

  Returns:
    ", did you mean ...?", or nothing if none is near.

  >>> meant("sparsty", ["seed", "sparsity"])
  ", did you mean 'sparsity'?"
  """
  near = difflib.get_close_matches(name, list(known), 1, 0.5)
  return f", did you mean {near[0]!r}?" if near else ""


def axis(name: str, values: Iterable[Any]) -> Sweep:
  """Vary one key of a config.

  Args:
    name: Dotted key, e.g. "pruning.sparsity"; "config" chooses the file.
    values: The values it takes.

  Returns:
    One point for each value.

  >>> axis("seed", (1, 2))
  [{'seed': 1}, {'seed': 2}]
  """
  return [{name: value} for value in values]


def product(*sweeps: Sweep) -> Sweep:
  """Combine every point of each sweep with every point of the others.

  Args:
    *sweeps: Lists of points, with different keys.

  Returns:
    The combinations; the last sweep varies fastest.

  Raises:
    ValueError: If two sweeps set the same key.

  >>> product(axis("a", (1, 2)), axis("b", (3, 4)))[:2]
  [{'a': 1, 'b': 3}, {'a': 1, 'b': 4}]
  """
  return [_merged(points) for points in itertools.product(*sweeps)]


def zip_(*sweeps: Sweep) -> Sweep:
  """Combine the first points of all sweeps, then the second ones, and so on.

  Args:
    *sweeps: Lists of points of the same length, with different keys.

  Returns:
    As many points.

  Raises:
    ValueError: If the lengths differ or two sweeps set the same key.

  >>> zip_(axis("a", (1, 2)), axis("b", (3, 4)))
  [{'a': 1, 'b': 3}, {'a': 2, 'b': 4}]
  """
  lengths = {len(sweep) for sweep in sweeps}
  if len(lengths) > 1:
    raise ValueError(
      f"zip_ needs sweeps of one length, got {[len(s) for s in sweeps]}"
    )
  return [_merged(points) for points in zip(*sweeps, strict=True)]


def chain(*sweeps: Sweep) -> Sweep:
  """Put the points of several sweeps one after another.

  Args:
    *sweeps: Lists of points.

  Returns:
    All points.

  >>> chain(axis("a", (1,)), axis("b", (2,)))
  [{'a': 1}, {'b': 2}]
  """
  return [dict(point) for sweep in sweeps for point in sweep]


def _merged(points: Iterable[dict[str, Any]]) -> dict[str, Any]:
  merged = {}
  for point in points:
    twice = merged.keys() & point.keys()
    if twice:
      raise ValueError(f"two sweeps set the key {min(twice)!r}")
    merged |= point
  return merged
