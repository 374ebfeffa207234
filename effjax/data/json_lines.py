"""Files with one JSON object a line."""

import json
from collections.abc import Iterator
from typing import Any


def objects(
  content: bytes, name: str, *, holding: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
  r"""Yield the objects of a file, and where they stand.

  Args:
    content: The file's content, UTF-8; empty lines are passed over.
    name: The file's name, for messages.
    holding: What an object must hold, for messages.

  Yields:
    Places, such as "my.jsonl, line 3", and objects.

  Raises:
    ValueError: If a line is no object, naming its place.

  >>> list(objects(b'{"a": 1}\n\n{}', "my.jsonl"))
  [('my.jsonl, line 1', {'a': 1}), ('my.jsonl, line 3', {})]
  """
  content = content.removeprefix(b"\xef\xbb\xbf")
  for number, line in enumerate(content.split(b"\n"), 1):
    if not line.strip():
      continue
    place = f"{name}, line {number}"
    try:
      entry = json.loads(line)
    except (ValueError, RecursionError) as error:
      raise ValueError(f"{place} is not JSON: {error}") from None
    if not isinstance(entry, dict):
      raise ValueError(
        f"{place} must be an object{holding}, not {type(entry).__name__}"
      )
    yield place, entry
