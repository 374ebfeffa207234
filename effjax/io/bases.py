"""Which base an adapter belongs to: a digest of the parameters."""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from effjax import tree as trees
from effjax.adapters import Adapter
from effjax.io import checkpoint


def digest(params: Any) -> str:
  """Hash names, shapes and values of a tree of arrays.

  Floating numbers are hashed as float32, so that the same numbers in bfloat16
  have the same digest; float64 as itself.

  Args:
    params: Any pytree; what is no array does not count.

  Returns:
    A SHA-256 in hexadecimal.

  >>> digest({"a": np.ones(2)})[:8]
  '25b303c2'
  """
  names = jax.tree.leaves(trees.names(params))
  leaves = dict(zip(names, jax.tree.leaves(params), strict=True))
  hashed = hashlib.sha256()
  for name in sorted(leaves):
    if not trees.is_array(leaves[name]):
      continue
    value = np.asarray(leaves[name])
    if trees.is_floating(value) and value.dtype != np.float64:
      value = value.astype(np.float32)
    head = f"{name} {value.dtype} {list(value.shape)}\n"
    hashed.update(head.encode())
    hashed.update(np.ascontiguousarray(value).data)
  return hashed.hexdigest()


def check(params: Any, expected: str | None, what: str) -> None:
  """Check that an adapter was made for these parameters.

  Args:
    params: The base.
    expected: The digest that was stored; None is not checked.
    what: The adapter, for the error.

  Raises:
    ValueError: If it was made for another base.
  """
  if expected is None:
    return
  found = digest(params)
  if found != expected:
    raise ValueError(
      f"{what} belongs to another base: it was made for parameters of digest"
      f" {expected[:12]}, these have {found[:12]}; check_base=False loads it"
      " all the same"
    )


def save_adapter(
  path: str | os.PathLike,
  params: Any,
  theta: Mapping[str, Any],
  fixed: Mapping[str, Any],
  *,
  metadata: Mapping[str, Any] | None = None,
) -> None:
  """Save theta and fixed as a checkpoint, apart from their base.

  Args:
    path: The directory to make.
    params: The base, of which the digest is saved.
    theta: What is trained.
    fixed: What is not.
    metadata: Values that JSON can hold.

  Raises:
    FileExistsError: If an intact checkpoint is there already.
    OSError: If the disk refuses.
  """
  about = {**(metadata or {}), "base": digest(params)}
  arrays = {"theta": dict(theta), "fixed": dict(fixed)}
  checkpoint.save(path, arrays, metadata=about)


def load_adapter(
  path: str | os.PathLike,
  params: Any,
  adapter: Adapter,
  *,
  check_base: bool = True,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
  """Load theta and fixed that `save_adapter` saved.

  Args:
    path: The directory.
    params: The base.
    adapter: The adapter, made as it was when they were saved.
    check_base: Whether the base must be the one they were saved with.

  Returns:
    Theta and fixed.

  Raises:
    FileNotFoundError: If there is no such checkpoint.
    ValueError: If it is damaged, for another adapter, or for another base.
  """
  if check_base:
    expected = checkpoint.read_metadata(path).get("base")
    check(params, expected, f"the adapter {path}")
  start = jax.eval_shape(lambda: adapter.init(jax.random.key(0), params))
  found = checkpoint.load(path, {"theta": start[0], "fixed": start[1]})
  return found["theta"], found["fixed"]
