"""Adapters in the files of PEFT, and RoSA in files like them.

A directory with `adapter_config.json` and `adapter_model.safetensors`. The
tensors are named after the modules of the base in its torch form, and have
torch's layout: `base_model.model.{module}.lora_A.weight` (r, in) and
`.lora_B.weight` (out, r), for DoRA `.lora_magnitude_vector` (out,); for
embeddings `.lora_embedding_A` (r, V) and `.lora_embedding_B` (D, r); for
convolutions (r, in, kh, kw) and (out, r, 1, 1).

RoSA, which PEFT does not have, is stored as its fork does: `.rosa_A.weight`,
`.rosa_B.weight`, and the sparse part by rows of (out, in), `.rosa_spa.values`
(nnz,), `.rosa_spa.row_offs` int32 (out + 1,) and `.rosa_spa.col_idx` int32
(nnz,), ascending within a row; int16 columns are read too. `peft_type` is
"ROSA", and `d` the density.

Metadata of the tensors hold a digest of the base, against which they are
checked, and one of themselves.
"""

import os
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import adapters
from effjax import tree as trees
from effjax.adapters import layouts
from effjax.io import bases, files, peft_config, peft_tensors, safetensors

Names = Callable[[str], str]
MODEL = "adapter_model.safetensors"


class Loaded(NamedTuple):
  """An adapter that was read.

  Attributes:
    adapter: The adapter, for the kernels that the file has.
    theta: What is trained, in the types of the file.
    fixed: What is not.
    config: All fields of its configuration, for `save_peft` to write back.
  """

  adapter: adapters.Adapter
  theta: dict[str, jax.Array]
  fixed: dict[str, jax.Array]
  config: dict[str, Any]


def save_peft(
  path: str | os.PathLike,
  adapter: adapters.Adapter,
  params: Any,
  theta: Mapping[str, Any],
  fixed: Mapping[str, Any] | None = None,
  *,
  names: Names | None = None,
  layout: layouts.Layout = None,
  config: Mapping[str, Any] | None = None,
  metadata: Mapping[str, str] | None = None,
  overwrite: bool = False,
) -> None:
  """Write an adapter as PEFT does.

  LoRA and rsLoRA with any rules of rank and alpha, DoRA, and RoSA; PiSSA and
  OLoRA as a LoRA of the original base with twice the rank.

  Args:
    path: The directory to make.
    adapter: The adapter.
    params: The base, quantised or not. If these are shapes, no digest is
      stored.
    theta: What is trained.
    fixed: What is not.
    names: From the path of a kernel to the module of the base in its torch
      form, or to its weight, such as `models.llama_weights.stored_name`; of
      stacked kernels with "{}" in the place of the layer's number. By default
      the path without its last part, with dots.
    layout: The layout that the adapter was made with, if any.
    config: More fields, such as {"base_model_name_or_path": "..."}, or those of
      an adapter that was read; {"use_rslora": True} writes alpha so.
    metadata: Texts that go with the tensors, such as where they come from.
    overwrite: Whether an adapter that is there already is replaced.

  Raises:
    FileExistsError: If there is something already.
    ValueError: If the adapter is of a kind that the format does not have.
    OSError: If the disk refuses.
  """
  path = pathlib.Path(path)
  if path.exists() and not overwrite:
    raise FileExistsError(
      f"there is something at {path} already; overwrite=True replaces it"
    )
  shapes = _leaves(adapters.dequantize(params))
  parts = adapters.parts(adapter, params, dict(theta), dict(fixed or {}))
  tensors, modules = {}, {}
  for leaf_path, part in parts.items():
    word = layouts.resolve(layout, leaf_path, shapes[leaf_path].shape)
    places = peft_tensors.Place(leaf_path, word, shapes[leaf_path].shape)
    for module, single in places.split(_module(names, leaf_path), part):
      if module in modules:
        raise ValueError(
          f"{leaf_path!r} and another kernel are both called {module!r};"
          " stacked kernels need '{}' for the number of the layer in their name"
        )
      own = peft_tensors.encode(places, single)
      modules[module] = own
      tensors |= {f"{module}.{k}": x for k, x in own.arrays.items()}
  rosa = any(own.places is not None for own in modules.values())
  named = {
    peft_tensors.key_in_file(key, rosa): np.asarray(x)
    for key, x in tensors.items()
  }
  metadata = {**(metadata or {}), "tensors_digest": bases.digest(named)}
  if not any(isinstance(x, jax.ShapeDtypeStruct) for x in shapes.values()):
    metadata["base_digest"] = bases.digest(params)
  fields = peft_config.make(modules, config or {}, rosa)
  scratch = path.with_name(f".{path.name}.tmp")
  with files.explained("save the adapter", path):
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    safetensors.write(scratch / MODEL, named, metadata)
    files.write_json(scratch / peft_config.NAME, fields)
    if path.exists():
      shutil.rmtree(path)
    os.replace(scratch, path)


def load_peft(
  path: str | os.PathLike,
  params: Any,
  *,
  names: Names | None = None,
  layout: layouts.Layout = None,
  check_base: bool = True,
) -> Loaded:
  """Read an adapter that PEFT or `save_peft` wrote.

  Args:
    path: The directory.
    params: The base, quantised or not; shapes will do if `check_base` is
      False.
    names: From the path of a leaf to its module in the torch form, see
      `save_peft`; it is asked for every floating leaf of rank 2 or more.
    layout: Which axes of kernels are inputs and outputs, see
      `adapters.layouts`.
    check_base: Whether a base that was recorded must be this one.

  Returns:
    The adapter with its theta, fixed and configuration.

  Raises:
    FileNotFoundError: If a file is missing.
    ValueError: If a file is damaged, tensors are missing, do not fit or belong
      to no kernel, the adapter is for another base, or changes what is not
      supported.
  """
  path = pathlib.Path(path)
  config = peft_config.read(path)
  arrays = safetensors.read(path / MODEL)
  about = safetensors.read_metadata(path / MODEL)
  if about.get("tensors_digest", bases.digest(arrays)) != bases.digest(arrays):
    raise ValueError(f"{path / MODEL} is corrupt: its checksum does not match")
  if check_base:
    bases.check(params, about.get("base_digest"), f"the adapter {path}")
  known: dict[str, tuple[peft_tensors.Place, int | None]] = {}
  plain = adapters.dequantize(params)
  leaves = _leaves(plain)
  for leaf_path, leaf in leaves.items():
    if not trees.default_where(leaf_path, leaf):
      continue
    word = layouts.resolve(layout, leaf_path, leaf.shape)
    place = peft_tensors.Place(leaf_path, word, leaf.shape)
    for number, module in place.modules(_module(names, leaf_path)):
      known[module] = place, number
  arrays = peft_tensors.check_copies(arrays, known, leaves, str(path))
  found = peft_tensors.by_module(arrays, known, str(path))
  absent = [
    m for m in peft_config.targeted(config, list(known)) if m not in found
  ]
  if absent:
    raise ValueError(
      f"the adapter {path} lacks tensors of {absent[0]!r}, which its"
      " configuration names as adapted"
    )
  kernels = peft_tensors.decode(found, known, config, str(path))
  return Loaded(*_adapter(kernels, config, plain, layout), config)


def _adapter(
  kernels: Mapping[str, peft_tensors.Kernel],
  config: Mapping[str, Any],
  params: Any,
  layout: layouts.Layout,
) -> tuple[adapters.Adapter, dict, dict]:
  """Make the adapter that has what was read for each kernel."""
  theta, fixed = {}, {}
  for path, kernel in kernels.items():
    theta |= {
      f"{path}/{role}": jnp.asarray(x) for role, x in kernel.theta.items()
    }
    if kernel.indices is not None:
      fixed[f"{path}/indices"] = jnp.asarray(kernel.indices)
  low = {path: k for path, k in kernels.items() if k.rank}
  options = {
    "alpha": [(re.escape(path), k.alpha) for path, k in low.items()],
    "where": [re.escape(path) for path in low],
    "layout": layout,
    "rank_stabilized": bool(config.get("use_rslora")),
  }
  ranks = [(re.escape(path), k.rank) for path, k in low.items()]
  if not fixed:
    make = adapters.dora if config.get("use_dora") else adapters.lora
    return make(ranks, **options), theta, fixed
  masks = {p: k.mask() for p, k in kernels.items() if k.indices is not None}
  named = jax.tree.map(
    lambda _, name: masks.get(name), params, trees.names(params)
  )
  return adapters.rosa(ranks if low else 0, named, **options), theta, fixed


def _leaves(params: Any) -> dict[str, Any]:
  names = jax.tree.leaves(trees.names(params))
  leaves = zip(names, jax.tree.leaves(params), strict=True)
  return {name: leaf for name, leaf in leaves if trees.is_array(leaf)}


def _module(names: Names | None, path: str) -> str:
  if names is None:
    return path.rpartition("/")[0].replace("/", ".")
  return names(path).removesuffix(".weight")
