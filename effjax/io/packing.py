"""Trees as a few arrays: small leaves end to end, large ones by themselves.

A description of each leaf (name, shape, dtype, place) goes with the arrays, so
that the tree can be rebuilt from them and compared with another one.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

_PACKED_BYTES = 2**20  # larger leaves are stored by themselves


def pack(tree: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """Turn a tree into a few arrays.

  Args:
    tree: Arrays of any dtype, typed keys, plain numbers; None and empty
      containers have no leaves and are left to the structure.

  Returns:
    A dict of arrays, of which "packed", uint8 [n], holds the small leaves, and
    a list that describes the leaves.

  Raises:
    ValueError: If two leaves have the same path.
  """
  named, _ = _flatten(tree)
  arrays, leaves, small = {}, [], {}
  for name, leaf in named.items():
    shape, dtype = _describe(leaf)
    entry = {"name": name, "shape": shape, "dtype": dtype}
    if _is_key(leaf):
      entry["key"] = str(jax.random.key_impl(leaf))
      leaf = jax.random.key_data(leaf)
    if _is_small(leaf):
      small[name] = leaf
    else:
      entry["array"] = f"leaf_{len(arrays)}"
      arrays[entry["array"]] = leaf
    leaves.append(entry)
  small = jax.device_get(small)  # one wait for all of them
  blobs, offset = [], 0
  for entry in leaves:
    if entry["name"] in small:
      blobs.append(np.asarray(small[entry["name"]]).tobytes())
      entry |= {"offset": offset, "size": len(blobs[-1])}
      offset += len(blobs[-1])
  blobs.append(b"\0")  # storage may refuse an array without elements
  arrays["packed"] = np.frombuffer(b"".join(blobs), np.uint8)
  return arrays, leaves


def targets(leaves: Sequence[Mapping[str, Any]], abstract: Any) -> Any:
  """Describe the arrays that `pack` made, as those who read them must know.

  Args:
    leaves: Descriptions made by `pack`.
    abstract: The tree that is wanted, see `unpack`.

  Returns:
    A dict like the first result of `pack`, of NumPy arrays and
    `jax.ShapeDtypeStruct` with a sharding.

  Raises:
    ValueError: Naming the first leaf that differs in name, shape or dtype.
  """
  wanted, _ = _flatten(abstract)
  _check_same({entry["name"]: entry for entry in leaves}, wanted)
  size = sum(entry.get("size", 0) for entry in leaves) + 1
  arrays: dict[str, Any] = {"packed": np.zeros((size,), np.uint8)}
  for entry in leaves:
    if "array" in entry:
      leaf = wanted[entry["name"]]
      if not isinstance(leaf, np.ndarray):
        leaf = jax.ShapeDtypeStruct(
          leaf.shape, leaf.dtype, sharding=_sharding(leaf)
        )
      arrays[entry["array"]] = leaf
  return arrays


def unpack(
  arrays: Mapping[str, Any], leaves: Sequence[Mapping[str, Any]], abstract: Any
) -> Any:
  """Rebuild a tree.

  Args:
    arrays: The arrays that `pack` made.
    leaves: The descriptions that go with them.
    abstract: A tree of the same names, shapes and dtypes: arrays,
      `jax.ShapeDtypeStruct` or plain numbers. A leaf with a sharding is placed
      by it; NumPy arrays and plain numbers come back as such.

  Returns:
    The values in the structure of `abstract`.
  """
  wanted, treedef = _flatten(abstract)
  saved = {entry["name"]: entry for entry in leaves}
  values = [_value(saved[n], arrays, like) for n, like in wanted.items()]
  return jax.tree.unflatten(treedef, values)


def _flatten(tree: Any) -> tuple[dict[str, Any], Any]:
  leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
  named = {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf
    for path, leaf in leaves
  }
  if len(named) < len(leaves):
    raise ValueError("two leaves of the tree have the same path")
  return named, treedef


def _check_same(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
  for name in wanted:
    if name not in saved:
      raise ValueError(f"there is no leaf {name!r} in it")
  for name, entry in saved.items():
    if name not in wanted:
      raise ValueError(f"it has a leaf {name!r} that is not asked for")
    shape, dtype = _describe(wanted[name])
    if shape != entry["shape"] or dtype != entry["dtype"]:
      raise ValueError(
        f"the leaf {name!r} is {entry['dtype']}{entry['shape']} in it, expected"
        f" {dtype}{shape}"
      )


def _describe(leaf: Any) -> tuple[list[int], str]:
  if not hasattr(leaf, "dtype"):
    leaf = np.asarray(leaf)
  return list(leaf.shape), str(leaf.dtype)


def _is_key(leaf: Any) -> bool:
  dtype = getattr(leaf, "dtype", np.dtype("O"))
  return jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def _is_small(leaf: Any) -> bool:
  if not isinstance(leaf, jax.Array):
    return np.asarray(leaf).nbytes <= _PACKED_BYTES
  whole = leaf.is_fully_addressable or leaf.is_fully_replicated
  return whole and leaf.nbytes <= _PACKED_BYTES


def _sharding(leaf: Any) -> jax.sharding.Sharding:
  sharding = getattr(leaf, "sharding", None)
  if sharding is None:
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return sharding


def _value(
  entry: Mapping[str, Any], arrays: Mapping[str, Any], like: Any
) -> Any:
  """Rebuild one leaf as the kind of thing that `like` is."""
  if "array" in entry:
    return arrays[entry["array"]]
  start, shape = entry["offset"], tuple(entry["shape"])
  blob = arrays["packed"][start : start + entry["size"]]
  if "key" in entry:
    words = blob.view(np.uint32)
    count = math.prod(shape)
    words = words.reshape(*shape, words.size // count if count else 0)
    return jax.random.wrap_key_data(_place(words, like), impl=entry["key"])
  value = blob.view(jax.numpy.dtype(entry["dtype"])).reshape(shape)
  if isinstance(like, np.ndarray):
    return value.copy()
  if not hasattr(like, "dtype"):
    return type(like)(value.item())
  return _place(value, like)


def _place(value: np.ndarray, like: Any) -> jax.Array:
  # A view of the packed bytes may be shared with the device, and a donated
  # neighbour would write into it; hence the copy.
  value, sharding = value.copy(), _sharding(like)
  if sharding.is_fully_addressable:
    return jax.device_put(value, sharding)
  return jax.make_array_from_callback(
    value.shape, sharding, lambda index: value[index]
  )
