"""Scores and labels of one attribute, [N], or of several, [N, A]."""

from typing import Any

import jax
import numpy as np


def check(name: str, scores: Any, labels: Any) -> None:
  """Raises a ValueError unless both are [N] or both [N, A]."""
  if scores.shape != labels.shape or scores.ndim not in (1, 2):
    raise ValueError(
      f"{name} and labels must both have shape [N] or [N, A], got"
      f" {list(scores.shape)} and {list(labels.shape)}."
    )


def check_groups(groups: Any, rows: int) -> None:
  """Raises a ValueError unless the groups are [N, G] for that many rows."""
  if groups.ndim != 2 or groups.shape[0] != rows:
    raise ValueError(
      f"groups must have shape [{rows}, G] to go with {rows} rows, got"
      f" {list(groups.shape)}."
    )


def on_host(x: Any) -> Any:
  """Returns a NumPy array where the values are at hand, else the jax array.

  Its type is the one that jax would give it.
  """
  if isinstance(x, jax.core.Tracer):
    return x
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    return x
  x = np.asarray(x)
  return x.astype(jax.dtypes.canonicalize_dtype(x.dtype), copy=False)
