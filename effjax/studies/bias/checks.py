"""Values of a configuration that make no sense, found before any work."""

import math
from collections.abc import Sequence
from typing import Any

# Numbers from 1 up; some may be None for "all" or "as long as the others".
_COUNTS = (
  "data.size",
  "data.limit",
  "data.validation",
  "data.test_limit",
  "training.epochs",
  "training.epochs_base",
  "training.epochs_pt",
  "training.batch_size",
  "training.eval_batch_size",
  "training.checkpoint_epochs",
)
_MARK = ("attribute", "mark", "skew")


def check(config: Any) -> None:
  """Reject a configuration whose numbers make no sense.

  What must be looked up (data, models, scores, attributes) is checked where it
  is.

  Args:
    config: The whole configuration; a key that is absent is passed over.

  Raises:
    ValueError: Naming the first key that is wrong, and what it may be.

  >>> check({"seeds": (0, 1), "training": {"epochs": 3}})
  """
  for key in _COUNTS:
    value = _find(config, key)
    if value is not None and (not _is_number(value) or value < 1):
      raise ValueError(f"{key} must be at least 1, not {value!r}")
  for key in ("seeds", "sparsities"):
    _check_distinct(key, _find(config, key) or ())
  if _find(config, "seeds") is not None and not len(_find(config, "seeds")):
    raise ValueError("seeds is empty; name one seed at least")
  rates = _find(config, "training.learning_rates") or {}
  for arm in rates:
    _check_rate(f"training.learning_rates.{arm}", rates[arm])
  for rate in _find(config, "tuning.learning_rates") or ():
    _check_rate("tuning.learning_rates", rate)
  for mark in _find(config, "data.marks") or ():
    if not hasattr(mark, "keys") or set(mark.keys()) != set(_MARK):
      raise ValueError(
        f"data.marks must hold mappings of {', '.join(_MARK)}, not {mark!r};"
        " they are set in the file of the configuration"
      )


def _find(config: Any, key: str) -> Any:
  for name in key.split("."):
    config = None if config is None else config.get(name)
  return config


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def _check_distinct(key: str, values: Sequence[Any]) -> None:
  twice = [v for i, v in enumerate(values) if v in values[:i]]
  if twice:
    raise ValueError(f"{key} names {twice[0]!r} twice; name each once")


def _check_rate(key: str, rate: Any) -> None:
  if not _is_number(rate) or not (math.isfinite(rate) and rate > 0):
    raise ValueError(f"{key} must be a number above 0, not {rate!r}")
