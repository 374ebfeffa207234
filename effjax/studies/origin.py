"""What a reader needs to repeat a study."""

from collections.abc import Mapping
from typing import Any

_KEPT = ("command", "started", "commit", "python", "packages", "devices")


def facts(
  results: Mapping[str, Any], config: Any, **more: Any
) -> dict[str, Any]:
  """Gather what a reader needs to repeat a study.

  Args:
    results: The content of `results.json`, with `environment` and `data`.
    config: The configuration, or None.
    **more: What this study has besides, shown before its data.

  Returns:
    Names to values, for a report.

  >>> facts({"environment": {"python": "3.11"}, "data": "x"}, None, seeds="0")
  {'python': '3.11', 'seeds': '0', 'data': 'x'}
  """
  environment = results["environment"]
  found = {name: environment[name] for name in _KEPT if name in environment}
  found |= {**more, "data": results["data"]}
  if config is not None:
    found["config"] = config.to_dict()
  return found
