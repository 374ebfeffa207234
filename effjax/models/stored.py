"""Fill parameters with the arrays of a file that has other names for them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from effjax import tree


def fill(
  made: Any,
  name: Callable[[str], str],
  tensors: Mapping[str, Any],
  *,
  convert: Callable[[str, np.ndarray], np.ndarray],
  dtype: Any = np.float32,
  unused: Sequence[str] = (),
) -> Any:
  """Fill parameters with stored arrays, all of which must have a place.

  Args:
    made: The parameters, or their shapes.
    name: From the path of a parameter to its name in the file.
    tensors: The arrays by name; whatever NumPy makes arrays of.
    convert: From the path of a parameter and the stored array to that of the
      parameter.
    dtype: Dtype of the parameters.
    unused: Beginnings of names that have no place.

  Returns:
    The parameters, NumPy arrays.

  Raises:
    ValueError: If an array is missing, too many, or of another shape.
  """
  paths = tree.names(made)
  names = jax.tree.map(name, paths)
  known = set(jax.tree.leaves(names))
  known.update(n for n in tensors if n.startswith(tuple(unused)))
  rest = tensors.keys() - known
  if rest:
    raise ValueError(
      f"The weights have {min(rest)!r}, for which this model has no place; they"
      " are of another one."
    )

  def take(path: str, name: str, leaf: Any) -> np.ndarray:
    if name not in tensors:
      raise ValueError(
        f"The weights lack {name!r}; they are incomplete, or of another model."
      )
    stored = np.asarray(tensors[name])
    try:
      value = convert(path, stored)
    except ValueError:  # it does not even have the right rank
      value = stored
    if value.shape != leaf.shape:
      raise ValueError(
        f"{name!r} has the shape {list(stored.shape)}, which does not fit"
        f" {list(leaf.shape)} of {path!r}."
      )
    return np.ascontiguousarray(value.astype(dtype, copy=False))

  return jax.tree.map(take, paths, names, made)


def transposed(path: str, value: np.ndarray) -> np.ndarray:
  """Turn [O, I] into a kernel [I, O]; leave all else."""
  return value.T if path.endswith("kernel") else value
