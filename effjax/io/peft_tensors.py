"""The tensors of PEFT: one kernel of ours is one module there, transposed.

A = lora_a' and B = lora_b', so that B A = (lora_a lora_b)'.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from effjax import tree as trees
from effjax.adapters import Part, layouts
from effjax.io import peft_config, sparse_rows

_PREFIX = "base_model.model."
_SPARSE = ("rosa_spa.values", "rosa_spa.row_offs", "rosa_spa.col_idx")
# What the fork adds to speed up its kernels.
_IGNORED = ("rosa_spa.row_idx", "rosa_spa.tr_")
_FACTORS = ("lora_A.weight", "lora_B.weight")
_OF_EMBEDDINGS = ("lora_embedding_A", "lora_embedding_B")
_MAGNITUDE = "lora_magnitude_vector"


class Encoded(NamedTuple):
  """One module in torch's layout.

  Attributes:
    arrays: Tensors by the end of their name.
    rank: The rank, 0 without a low-rank part.
    scale: Factor of B A.
    places: Number of sparse weights, None without a sparse part.
    size: Number of weights of the module.
    decomposed: Whether there is a magnitude, of DoRA.
  """

  arrays: dict[str, np.ndarray]
  rank: int
  scale: float
  places: int | None
  size: int
  decomposed: bool


class Kernel(NamedTuple):
  """One kernel as it was read.

  Attributes:
    theta: Arrays by role.
    indices: Places of sparse weights, int32 [..., K], or None.
    rank: The rank, 0 without a low-rank part.
    alpha: What the product is scaled with, see `adapters.lora`.
    shape: Shape of the kernel.
  """

  theta: dict[str, np.ndarray]
  indices: np.ndarray | None
  rank: int
  alpha: float
  shape: tuple[int, ...]

  def mask(self) -> np.ndarray:
    """Return the mask of the sparse weights."""
    assert self.indices is not None
    batch = self.indices.shape[:-1]
    mask = np.zeros((*batch, math.prod(self.shape) // math.prod(batch)), bool)
    np.put_along_axis(mask, self.indices, True, axis=-1)
    return mask.reshape(self.shape)


@dataclasses.dataclass(frozen=True)
class Place:
  """A kernel and how its axes form a matrix.

  Attributes:
    path: Its path.
    word: Its layout.
    shape: Its shape.
  """

  path: str
  word: str
  shape: tuple[int, ...]

  @property
  def stacked(self) -> int | None:
    """Number of stacked kernels, None if there is one."""
    batch, _, _ = layouts.sizes(self.word, self.shape)
    return math.prod(batch) if batch else None

  @property
  def kind(self) -> str:
    """Name what the module is."""
    if self.path.rpartition("/")[2] == "embedding":
      return "embedding"
    return "conv" if self.word in ("iiio", "oiii") else "linear"

  def window(self) -> tuple[int, ...]:
    """Return the sizes of the axes of inputs of a convolution, in order."""
    letters = zip(self.word, self.shape, strict=True)
    return tuple(n for letter, n in letters if letter == "i")

  def modules(self, name: str) -> list[tuple[int | None, str]]:
    """List the modules of the kernel, with the number of each."""
    if self.stacked is None:
      return [(None, name)]
    return [(i, name.replace("{}", str(i))) for i in range(self.stacked)]

  def split(self, name: str, part: Part) -> Iterator[tuple[str, Part]]:
    """Yield the modules with the part of each, on the host."""
    batch, _, _ = layouts.sizes(self.word, self.shape)
    host = jax.tree.map(np.asarray, part)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(batch) :]), host)
    for number, module in self.modules(name):
      yield (
        module,
        host
        if number is None
        else jax.tree.map(lambda x, i=number: x[i], flat),
      )


def encode(place: Place, part: Part) -> Encoded:
  """Write what an adapter does to a kernel in torch's layout.

  Args:
    place: The kernel.
    part: What is done to it.

  Returns:
    The tensors of the module.

  Raises:
    ValueError: If the format does not have this.
  """
  if part.inputs is not None or part.outputs is not None:
    raise ValueError(
      f"the adapter of {place.path!r} is (IA)^3; only LoRA, DoRA and RoSA are"
      " written as files of PEFT"
    )
  arrays: dict[str, np.ndarray] = {}
  _, inputs, outputs = layouts.sizes(place.word, place.shape)
  rank = 0
  if part.a is not None:
    a, b = np.asarray(part.a), np.asarray(part.b)
    if part.initial_a is not None:
      a = np.concatenate([a, np.asarray(part.initial_a)], axis=1)
      b = np.concatenate([b, -np.asarray(part.initial_b)], axis=0)
    rank = a.shape[1]
    names = _OF_EMBEDDINGS if place.kind == "embedding" else _FACTORS
    arrays |= dict(zip(names, _factors(place, a, b), strict=True))
  if part.magnitude is not None:
    if place.kind != "linear":
      raise ValueError(
        f"{place.path!r} is of kind {place.kind}; DoRA is written for dense"
        " layers only"
      )
    arrays[_MAGNITUDE] = np.asarray(part.magnitude)
  places = None
  if part.values is not None:
    rows = sparse_rows.to_rows(
      np.asarray(part.values), np.asarray(part.indices), outputs
    )
    places = rows[0].size
    arrays |= dict(zip(_SPARSE, rows, strict=True))
  return Encoded(
    arrays=arrays,
    rank=rank,
    scale=part.scale,
    places=places,
    size=inputs * outputs,
    decomposed=part.magnitude is not None,
  )


def _factors(
  place: Place, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  if place.kind != "conv":
    return a.T, b.T
  rank = a.shape[1]
  window = a.T.reshape(rank, *place.window())
  if place.word == "iiio":
    window = np.moveaxis(window, -1, 1)
  return window, b.T[:, :, None, None]


def _unfactored(
  place: Place, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Undo `_factors`."""
  if place.kind == "conv" and a.ndim == 4:
    a = np.moveaxis(a, 1, -1) if place.word == "iiio" else a
    return a.reshape(a.shape[0], -1).T, b.reshape(b.shape[:2]).T
  return a.T, b.T


def key_in_file(key: str, rosa: bool) -> str:
  """Name a tensor as the file does; RoSA's low-rank part bears its name."""
  if rosa:
    key = key.replace(".lora_A.", ".rosa_A.").replace(".lora_B.", ".rosa_B.")
  return _PREFIX + key


def check_copies(
  arrays: Mapping[str, np.ndarray],
  known: Mapping[str, tuple[Place, int | None]],
  leaves: Mapping[str, Any],
  what: str,
) -> dict[str, np.ndarray]:
  """Leave out copies of the base, which PEFT stores of embeddings and heads.

  Args:
    arrays: The tensors by name.
    known: The kernel of each module, and the number of the module in it.
    leaves: The base by path.
    what: The adapter, for the error.

  Returns:
    The other tensors.

  Raises:
    ValueError: If a copy differs from the base.
  """
  rest = {}
  for name, value in arrays.items():
    module = re.sub(r"(\.base_layer)?\.weight$", "", name.removeprefix(_PREFIX))
    if module not in known or name.endswith(_FACTORS):
      rest[name] = value
      continue
    place, number = known[module]
    leaf = leaves[place.path]
    if number is not None or isinstance(leaf, jax.ShapeDtypeStruct):
      continue
    own = np.asarray(leaf).astype(np.float32)
    own = own if place.kind == "embedding" or place.word == "oi" else own.T
    theirs = value.astype(np.float32)
    # It may have been rounded to bfloat16 on its way.
    near = lambda a, b: np.allclose(a, b, rtol=1e-2, atol=1e-3)
    if own.shape != theirs.shape or not near(own, theirs):
      raise ValueError(
        f"{what} has weights of its own for {module!r}, which differ from the"
        " base; training whole modules is not supported"
      )
  return rest


def by_module(
  arrays: Mapping[str, np.ndarray], known: Mapping[str, Any], what: str
) -> dict[str, dict[str, np.ndarray]]:
  """Group the tensors of a file by module.

  Args:
    arrays: The tensors by name.
    known: The modules that the base has.
    what: The adapter, for the error.

  Returns:
    For each module the tensors by the end of their name; RoSA's low-rank part
    is called as LoRA's.

  Raises:
    ValueError: If a tensor is no adapter's, or its module is not known.
  """
  ends = (*_FACTORS, *_OF_EMBEDDINGS, _MAGNITUDE, *_SPARSE)
  found: dict[str, dict] = collections.defaultdict(dict)
  for name, value in arrays.items():
    if any(part in name for part in _IGNORED):
      continue
    plain = name.removeprefix(_PREFIX).replace(".rosa_A.", ".lora_A.")
    plain = plain.replace(".rosa_B.", ".lora_B.")
    end = next((end for end in ends if plain.endswith(f".{end}")), None)
    if end is None:
      raise ValueError(f"{what} has a tensor {name!r}, which is not supported")
    module = plain.removesuffix(f".{end}")
    if module not in known:
      near = ", ".join(trees.nearest(module, list(known), 3)) or "none"
      raise ValueError(
        f"{what} has a tensor {name!r}, and the base no module {module!r}; the"
        f" nearest are {near}"
      )
    found[module][end] = value
  return dict(found)


def decode(
  found: Mapping[str, Mapping[str, np.ndarray]],
  known: Mapping[str, tuple[Place, int | None]],
  config: Mapping[str, Any],
  what: str,
) -> dict[str, Kernel]:
  """Read the tensors of modules as what theta holds for kernels.

  Args:
    found: The tensors by module.
    known: The kernel of each module, and the number of the module in it.
    config: The configuration.
    what: The adapter, for the error.

  Returns:
    The kernels by path.

  Raises:
    ValueError: If tensors are missing or have other shapes.
  """
  if not found:
    raise ValueError(f"{what} holds no tensors")
  members: dict[Place, list[tuple[int | None, Kernel]]] = {}
  for module, tensors in found.items():
    place, number = known[module]
    kernel = _decoded(module, tensors, place, config, what)
    members.setdefault(place, []).append((number, kernel))
  return {
    place.path: _stacked(place, some, what) for place, some in members.items()
  }


def _decoded(module, tensors, place, config, what) -> Kernel:
  """Read one module."""
  _, inputs, outputs = layouts.sizes(place.word, place.shape)
  embedding = place.kind == "embedding"
  pair = _OF_EMBEDDINGS if embedding else _FACTORS
  wanted = set(pair) if set(tensors) & set(pair) else set()
  wanted |= set(_SPARSE) if set(tensors) & set(_SPARSE) else set()
  if config.get("use_dora") and not embedding:
    wanted |= {_MAGNITUDE}
  for end in sorted(wanted ^ set(tensors)):
    verb = "lacks" if end in wanted else "has"
    raise ValueError(
      f"{what} {verb} a tensor {module}.{end}; expected"
      f" {', '.join(sorted(wanted)) or 'others'}"
    )
  theta, rank, alpha, indices = {}, 0, 1.0, None
  if pair[0] in tensors:
    a, b = _unfactored(place, tensors[pair[0]], tensors[pair[1]])
    rank = peft_config.lookup(config, "rank_pattern", "r", module)
    alpha = peft_config.lookup(config, "alpha_pattern", "lora_alpha", module)
    for name, number in (("rank", rank), ("lora_alpha", alpha)):
      if not isinstance(number, int | float):
        raise ValueError(f"{what} has {name} {number!r} of {module}: no number")
    alpha = float(alpha)
    theta |= {"lora_a": a, "lora_b": b}
    shapes: dict[str, tuple[int, ...]] = {}
    shapes |= {"lora_a": (inputs, rank), "lora_b": (rank, outputs)}
    if _MAGNITUDE in tensors:
      theta["magnitude"] = tensors[_MAGNITUDE].reshape(-1)
      shapes["magnitude"] = (outputs,)
    for role, shape in shapes.items():
      if theta[role].shape != shape:
        raise ValueError(
          f"{what} has a {role} of shape {theta[role].shape} for {module!r};"
          f" {shape} is wanted by the base and its rank {rank}"
        )
  if _SPARSE[0] in tensors:
    theta["sparse"], indices = sparse_rows.from_rows(
      *(tensors[end] for end in _SPARSE),
      word=place.word,
      shape=place.shape,
      what=f"{what}, {module!r}",
    )
  return Kernel(theta, indices, rank, alpha, place.shape)


def _stacked(place, some, what) -> Kernel:
  """Join the modules of stacked kernels."""
  if place.stacked is None:
    return some[0][1]
  numbers = sorted(number for number, _ in some)
  if numbers != list(range(place.stacked)):
    raise ValueError(
      f"{what} has tensors of {len(numbers)} of the {place.stacked} layers that"
      f" {place.path!r} stacks; all or none are wanted"
    )
  kernels = [kernel for _, kernel in sorted(some, key=lambda pair: pair[0])]
  first = kernels[0]
  shapes = lambda k: {role: x.shape for role, x in k.theta.items()}
  if any(shapes(k) != shapes(first) or k.alpha != first.alpha for k in kernels):
    raise ValueError(
      f"{what} differs in ranks, alphas or counts between the layers that"
      f" {place.path!r} stacks; load it into a model whose layers are not"
    )
  batch, _, _ = layouts.sizes(place.word, place.shape)
  stack = lambda arrays: np.stack(arrays).reshape(*batch, *arrays[0].shape)
  indices = None
  if first.indices is not None:
    indices = stack([k.indices for k in kernels])
  theta = {
    role: stack([k.theta[role] for k in kernels]) for role in first.theta
  }
  return first._replace(theta=theta, indices=indices)
