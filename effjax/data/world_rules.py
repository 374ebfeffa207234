"""Which parameters of synthetic worlds are impossible, each with its rule."""

from typing import Any

import numpy as np


def check_count(name: str, value: Any, least: int = 1) -> None:
  """Raise a ValueError unless a value is a whole number of at least `least`."""
  whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
  if not whole or value < least:
    raise ValueError(
      f"{name} must be a whole number of at least {least}, got {value!r}"
    )


def check_correlation(
  correlation: float | None,
  binarised: bool,
  relations: int,
  objects: int,
  minority: float,
) -> None:
  """Raise a ValueError unless two relations can be correlated like that."""
  if correlation is None:
    if binarised:
      raise ValueError(
        "binarised relations are a correlated pair; give correlation too"
      )
    return
  least = 0.5 if binarised else 1 / objects
  if relations < 2 or objects < 2:
    raise ValueError(
      "a correlated pair needs at least 2 relations and 2 objects, got"
      f" relations={relations} and objects={objects}"
    )
  if not least < correlation <= 1:
    kind = "of binarised relations " if binarised else ""
    raise ValueError(
      f"correlation {kind}must be above {least:g}, which is chance, and at most"
      f" 1, got {correlation!r}"
    )
  if minority > 0:
    raise ValueError(
      f"a correlated pair cannot have dissenting objects: minority={minority!r}"
      " must be 0, or correlation None"
    )


def check_minority(
  minority: float, share: float, objects: int, nested_objects: int
) -> None:
  """Raise a ValueError unless facts can have dissenting objects like that."""
  if not 0 <= minority <= 1:
    raise ValueError(
      f"minority is a share of the facts, from 0 to 1, got {minority!r}"
    )
  if not 0 <= share < 0.5:
    raise ValueError(
      f"minority_share must be from 0 to below 0.5, got {share!r}: the other"
      " object is the majority's"
    )
  if minority and objects < 2:
    raise ValueError(
      f"minority={minority!r} needs a second object, but objects={objects}"
    )
  if minority and nested_objects:
    raise ValueError(
      f"minority={minority!r} and nested_objects={nested_objects} cannot be"
      " combined: a nested object belongs to one object"
    )


def check_nesting(nested_objects: int, objects: int) -> None:
  """Raise a ValueError unless objects can belong to so many nested ones."""
  check_count("nested_objects", nested_objects, 0)
  if nested_objects and objects % nested_objects:
    divisors = [n for n in range(1, objects + 1) if objects % n == 0]
    nearest = min(divisors, key=lambda n: abs(n - nested_objects))
    raise ValueError(
      f"nested_objects={nested_objects} must divide objects={objects}; the"
      f" nearest that does is {nearest}"
    )


def check_edges(edges: Any) -> np.ndarray:
  """Check the edges of a graph, and add the columns that they lack."""
  edges = np.asarray(edges)
  shaped = edges.ndim == 2 and 3 <= edges.shape[1] <= 5 and len(edges)
  if not shaped or not np.issubdtype(edges.dtype, np.integer):
    raise ValueError(
      "a graph has rows [subject, relation, object, minority, nested] of whole"
      f" numbers, got {edges.dtype} of shape {list(edges.shape)}"
    )
  if edges[:, :3].min() < 0 or edges.min() < -1:
    raise ValueError(
      "the graph has negative numbers; -1 is allowed for no minority and no"
      " nested object only"
    )
  edges = edges.astype(np.int64)
  return np.pad(edges, ((0, 0), (0, 5 - edges.shape[1])), constant_values=-1)
