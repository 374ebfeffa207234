"""Where the arrays of a run live: a mesh of devices and rules by path.

The compiler does the rest: a step that was written for one device is
partitioned by the shardings of the state and the batch that go into it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from effjax import tree
from effjax.training.state import TrainState

Rules = str | Sequence[tuple[str, PartitionSpec]]

# Policy -> what it does with parameters and batch.
POLICIES = {
  "replicated": "every device holds all parameters and sees the whole batch",
  "data": "every device holds all parameters and a part of the batch",
  "fsdp": "every device holds a part of each parameter and of the batch",
  "members": "every device holds a part of the members of a population",
}
_SMALL = 1024  # leaves with fewer elements are not worth splitting


def from_config(
  axes: Mapping[str, int] | str | None = "auto",
  *,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """Make a mesh of named axes.

  The axes are always of type Auto: a model written without shardings in mind
  works on it as it stands.

  Args:
    axes: Sizes by name, e.g. {"data": 2, "model": 4}; one of them may be -1,
      all devices that are left. "auto" or None puts all devices on "data".
    devices: The devices to use; None means all, of all processes.

  Returns:
    The mesh.

  Raises:
    ValueError: If the sizes do not multiply to the number of devices.

  >>> one = jax.devices()[:1]
  >>> dict(from_config({"data": -1, "model": 1}, devices=one).shape)
  {'data': 1, 'model': 1}
  """
  devices = jax.devices() if devices is None else list(devices)
  if isinstance(axes, str) and axes != "auto":
    raise ValueError(
      f'the mesh must be "auto" or sizes by axis such as {{"data": 2}}, got'
      f" {axes!r}"
    )
  sizes = {"data": -1} if axes is None or axes == "auto" else dict(axes)
  if not sizes or list(sizes.values()).count(-1) > 1:
    raise ValueError(f"at most one axis of the mesh may be -1, got {sizes}")
  rest = math.prod(size for size in sizes.values() if size != -1)
  sizes = {
    name: len(devices) // max(rest, 1) if size == -1 else size
    for name, size in sizes.items()
  }
  if math.prod(sizes.values()) != len(devices) or min(sizes.values()) < 1:
    raise ValueError(
      f"the mesh {sizes} needs {math.prod(sizes.values())} devices, there are"
      f" {len(devices)}"
    )
  return jax.make_mesh(
    tuple(sizes.values()),
    tuple(sizes),
    axis_types=(AxisType.Auto,) * len(sizes),
    devices=devices,
  )


def describe(mesh: Mesh | None = None) -> str:
  """Say in one line which devices a run uses.

  Args:
    mesh: Its mesh, None for a run on one device.

  Returns:
    For example "8 cpu devices in 2 processes, mesh data=4 model=2".
  """
  devices = jax.devices() if mesh is None else mesh.devices.flatten()
  kinds = sorted({device.device_kind for device in devices})
  text = f"{len(devices)} {' + '.join(kinds)} device{'s'[: len(devices) > 1]}"
  if jax.process_count() > 1:
    text += f" in {jax.process_count()} processes"
  if mesh is not None:
    axes = " ".join(f"{name}={size}" for name, size in mesh.shape.items())
    text += f", mesh {axes}"
  return text


def shardings(state: TrainState, mesh: Mesh, rules: Rules = "data") -> Any:
  """Find the sharding of every leaf of a state.

  Args:
    state: The state, or its abstract value.
    mesh: The mesh.
    rules: One of `POLICIES`, or ordered pairs (regular expression,
      PartitionSpec); the first expression that matches the whole name of a
      parameter, e.g. "block_1/conv/kernel", decides.

  Returns:
    A state whose leaves are shardings. What the optimizer keeps for a
    parameter, found by the end of its path and its shape, lies where the
    parameter lies; the rest is replicated.

  Raises:
    ValueError: If a policy is unknown, a parameter is covered by no rule, or
      an axis of the mesh does not divide a dimension.
  """
  if isinstance(rules, str):
    if rules not in POLICIES:
      near = tree.nearest(rules, list(POLICIES), 1)[0]
      raise ValueError(
        f"unknown sharding policy {rules!r}, did you mean {near!r}? There are"
        f" {', '.join(POLICIES)}"
      )
    specs = jax.tree.map(lambda x: _policy(rules, x, mesh), state.params)
  else:
    specs = tree.assign(state.params, rules)
  names = jax.tree.leaves(tree.names(state.params))
  params = jax.tree.leaves(state.params)
  flat = jax.tree.leaves(specs, is_leaf=_is_spec)
  for name, x, spec in zip(names, params, flat, strict=True):
    _check(name, x, spec, mesh)
  known = {
    name: (x.shape, spec)
    for name, x, spec in zip(names, params, flat, strict=True)
  }
  by_member = rules == "members"

  def place(name: str, x: Any) -> NamedSharding:
    if by_member:
      return NamedSharding(mesh, _policy("members", x, mesh))
    return NamedSharding(mesh, _spec_of(name, x, known))

  return jax.tree.map(place, tree.names(state), state)


def shard(state: TrainState, mesh: Mesh, rules: Rules = "data") -> TrainState:
  """Place a state on a mesh.

  Args:
    state: A state that every process holds in full.
    mesh: The mesh.
    rules: See `shardings`.

  Returns:
    The same values, placed.

  Raises:
    ValueError: See `shardings`.
  """
  return jax.tree.map(_put, state, shardings(state, mesh, rules))


def batch_sharding(mesh: Mesh, rules: Rules = "data") -> NamedSharding:
  """Find the sharding of a batch: its leading axis split over "data".

  Args:
    mesh: The mesh; without an axis "data" its first axis is used.
    rules: See `shardings`; "replicated" gives every device the whole batch.

  Returns:
    The sharding of every array of a batch.
  """
  if rules == "replicated":
    return NamedSharding(mesh, PartitionSpec())
  return NamedSharding(mesh, PartitionSpec(_data_axis(mesh)))


def place_batch(
  batch: Mapping[str, np.ndarray], sharding: NamedSharding
) -> dict[str, jax.Array]:
  """Make global arrays of the part of a batch that this process has read.

  Args:
    batch: Arrays [B, ...]; B is this process's share of the global batch.
    sharding: See `batch_sharding`.

  Returns:
    Global arrays [processes * B, ...] (or [B, ...] if replicated).

  Raises:
    ValueError: If the devices do not divide the batch.
  """
  spec = sharding.spec
  ways = sharding.mesh.shape[spec[0]] if len(spec) else 1
  local = max(ways // jax.process_count(), 1)
  placed = {}
  for name, x in batch.items():
    x = np.asarray(x)
    if x.shape[0] % local:
      raise ValueError(
        f"a batch of {x.shape[0]} in {name!r} cannot be split over {local}"
        " devices"
      )
    placed[name] = jax.make_array_from_process_local_data(sharding, x)
  return placed


def _data_axis(mesh: Mesh) -> str:
  return "data" if "data" in mesh.shape else mesh.axis_names[0]


def _is_spec(x: Any) -> bool:
  return isinstance(x, PartitionSpec)


def _policy(name: str, x: Any, mesh: Mesh) -> PartitionSpec:
  """The specification that a policy gives to an array."""
  axis = _data_axis(mesh)
  ways = mesh.shape[axis]
  if name == "members":
    divides = x.ndim > 0 and x.shape[0] % ways == 0
    return PartitionSpec(axis) if divides else PartitionSpec()
  if name == "fsdp" and x.size >= _SMALL:
    fitting = [d for d in range(x.ndim) if x.shape[d] % ways == 0]
    if fitting:
      largest = max(fitting, key=lambda d: x.shape[d])
      return PartitionSpec(*[None] * largest, axis)
  return PartitionSpec()


def _check(name: str, x: Any, spec: PartitionSpec, mesh: Mesh) -> None:
  if not _is_spec(spec):
    raise ValueError(
      f"the rule for the leaf {name!r} gives {spec!r}, expected a PartitionSpec"
    )
  if len(spec) > x.ndim:
    raise ValueError(
      f"{spec} has more entries than the leaf {name!r} has axes, {x.shape}"
    )
  for size, entry in zip(x.shape, spec, strict=False):
    axes = entry if isinstance(entry, tuple) else (entry,)
    for axis in axes:
      if axis is not None and axis not in mesh.shape:
        near = tree.nearest(axis, list(mesh.shape), 1)[0]
        raise ValueError(
          f"{spec} of the leaf {name!r} names the axis {axis!r}, which the mesh"
          f" does not have; did you mean {near!r}?"
        )
    ways = math.prod(mesh.shape[axis] for axis in axes if axis is not None)
    if size % ways:
      raise ValueError(
        f"{spec} splits {size} rows of the leaf {name!r}, {x.shape}, over"
        f" {ways} devices"
      )


def _spec_of(
  name: str, x: Any, known: Mapping[str, tuple[tuple[int, ...], PartitionSpec]]
) -> PartitionSpec:
  """Find the parameter that a leaf belongs to by the longest common end."""
  parts = name.split("/")
  for start in range(len(parts) + 1):
    found = known.get("/".join(parts[start:]))
    if found is not None and found[0] == x.shape:
      return found[1]
  return PartitionSpec()


def _put(x: Any, sharding: NamedSharding) -> jax.Array:
  if sharding.is_fully_addressable:
    return jax.device_put(x, sharding)
  if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
    data = _put(jax.random.key_data(x), sharding)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    return jax.device_put(x, sharding)  # it is on a mesh already
  host = np.asarray(x)
  return jax.make_array_from_callback(
    host.shape, sharding, lambda index: host[index]
  )
