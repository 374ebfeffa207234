"""Files of named arrays in the format of the safetensors library."""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from effjax import tree as trees
from effjax.io import files


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Read all arrays of a file.

  Args:
    path: The file.

  Returns:
    The arrays by name, of the types they were stored in, bfloat16 included.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is truncated or no safetensors file.
  """
  with _opened(path) as file:
    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
  """Read the texts that go with the arrays of a file; see `read`."""
  with _opened(path) as file:
    return dict(file.metadata() or {})


def write(
  path: str | os.PathLike,
  arrays: Mapping[str, Any],
  metadata: Mapping[str, str] | None = None,
) -> None:
  """Write arrays under a temporary name, then rename the file.

  Args:
    path: The file; its directory must exist.
    arrays: The arrays by name.
    metadata: Texts that go with them; {"format": "pt"} is what torch's readers
      want and is added.

  Raises:
    OSError: If the disk refuses, naming the path and the cause.
  """
  from safetensors import numpy as stored

  path = pathlib.Path(path)
  scratch = path.with_name(f".{path.name}.tmp")
  held = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
  with files.explained(f"write {path.name}", path):
    stored.save_file(held, str(scratch), {"format": "pt", **(metadata or {})})
    with open(scratch, "rb") as file:
      os.fsync(file.fileno())
    os.replace(scratch, path)


def save_weights(
  path: str | os.PathLike,
  params: Any,
  *,
  names: Callable[[str], str],
  metadata: Mapping[str, str] | None = None,
) -> None:
  """Write all parameters, such as merged ones, as torch's libraries do.

  Dense kernels [I, O] are written as (O, I) and convolutions [kh, kw, I, O] as
  (O, I, kh, kw); embeddings, and paths that end in "weight", as they are.

  Args:
    path: The file; its directory must exist.
    params: Parameters, whose layers are not stacked.
    names: From a path such as "layer_0/attention/query/kernel" to the name in
      the file.
    metadata: Texts that go with them.

  Raises:
    ValueError: If two parameters get the same name.
    OSError: If the disk refuses.
  """
  flat = zip(
    jax.tree.leaves(trees.names(params)), jax.tree.leaves(params), strict=True
  )
  arrays: dict[str, Any] = {}
  for leaf_path, leaf in flat:
    if not trees.is_array(leaf):
      continue
    name = names(leaf_path)
    if name in arrays:
      raise ValueError(f"two parameters would be called {name!r} in {path}")
    value = np.asarray(leaf)
    if leaf_path.rpartition("/")[2] == "kernel" and value.ndim in (2, 4):
      # [..., I, O] to (O, I, ...).
      value = np.transpose(value, (-1, -2, *range(value.ndim - 2)))
    arrays[name] = value
  write(path, arrays, metadata)


def _opened(path: str | os.PathLike) -> Any:
  import safetensors

  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"there is no file {path}")
  try:
    return safetensors.safe_open(str(path), framework="numpy")
  except safetensors.SafetensorError as error:
    raise ValueError(
      f"{path} is truncated or no safetensors file: {error}"
    ) from error
