"""Language models that studies and people use, by name or from their files."""

import hashlib
import json
import os
import pathlib
import shutil
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import data, tree
from effjax.io import files, gguf, peft, safetensors
from effjax.models import bert, llama, llama_weights, tokenizers
from effjax.studies.text import meant

# What the kept weights are laid out like; another layout gets another number.
_LAYOUT = "llama-1"


class Language(NamedTuple):
  """A language model with all that it needs.

  Attributes:
    name: What it was asked for by.
    module: The module.
    params: Its parameters.
    tokenizer: Its tokenizer.
    digest: SHA-256 of the file of its weights.
  """

  name: str
  module: llama.Llama
  params: Any
  tokenizer: tokenizers.Tokenizer
  digest: str

  @property
  def eos(self) -> tuple[int, ...]:
    """The tokens that end a text."""
    return () if self.tokenizer.end is None else (self.tokenizer.end,)


class Encoder(NamedTuple):
  """An encoder of sentences.

  Attributes:
    module: The module.
    params: Its parameters.
    tokenizer: Its tokenizer.
  """

  module: bert.SentenceEncoder
  params: Any
  tokenizer: tokenizers.Tokenizer


def load(
  name: str = "smollm2",
  *,
  directory: str | os.PathLike | None = None,
  dtype: Any = jnp.float32,
  keep: bool = True,
) -> Language:
  """Load a language model of the Llama family.

  Args:
    name: A key of `MODELS`, the path of a GGUF file, or that of a directory
      with config.json, tokenizer.json and model.safetensors.
    directory: Where the weights of a key of `MODELS` lie; by default where
      data sources are.
    dtype: Dtype of parameters and computation.
    keep: Whether the weights of a GGUF file, which are quantised, are kept as
      float32 in the user's cache: loading them again takes half the time.

  Returns:
    The model.

  Raises:
    ValueError: If there is no such model, or its files are damaged or of
      another kind.
    FileNotFoundError: If the files are not on this machine.
  """
  path = pathlib.Path(name)
  if name in MODELS:
    content = MODELS[name](directory)
    return _from_gguf(name, content, name, dtype, keep)
  if path.suffix == ".gguf":
    if not path.is_file():
      raise FileNotFoundError(f"there is no file {path}")
    return _from_gguf(name, path.read_bytes(), str(path), dtype, keep)
  if path.is_dir():
    return _from_directory(path, dtype)
  raise ValueError(
    f"there is no language model {name!r}{meant(name, MODELS)}; known are"
    f" {', '.join(MODELS)}, .gguf files, and directories with config.json"
  )


def with_adapter(base: Language, path: str | os.PathLike) -> Language:
  """Merge an adapter into the weights of a model.

  Args:
    base: The model that the adapter was made for.
    path: Directory with `adapter_config.json`, written by us or by PEFT.

  Returns:
    The model with merged weights.

  Raises:
    FileNotFoundError: If a file is missing.
    ValueError: If the adapter is damaged, does not fit, is for another base, or
      makes weights that are not finite.
  """
  found = peft.load_peft(path, base.params, names=llama_weights.stored_name)
  # Not compiled: only so does it refuse weights that are not finite.
  params = found.adapter.merge(base.params, found.theta, found.fixed)
  return base._replace(name=f"{base.name} with {path}", params=params)


def save(
  path: str | os.PathLike, model: Language, *, overwrite: bool = False
) -> pathlib.Path:
  """Write a model as Hugging Face's libraries and `load` read it.

  Args:
    path: The directory to make.
    model: The model, its layers not stacked.
    overwrite: Whether a model that is there already is replaced.

  Returns:
    The directory.

  Raises:
    FileExistsError: If there is something already.
    OSError: If the disk refuses.
  """
  path = pathlib.Path(path)
  there = path.exists()
  if there and not (overwrite and (path / "config.json").is_file()):
    raise FileExistsError(f"there is something at {path} already")
  tokenizer = model.tokenizer
  name = lambda token: (
    None if token is None else tokenizer.backend.id_to_token(token)
  )
  fields = llama_weights.hugging_face_fields(model.module.config)
  fields["bos_token_id"], fields["eos_token_id"] = (
    tokenizer.begin,
    tokenizer.end,
  )
  fields["dtype"] = str(model.params["norm"]["scale"].dtype)
  options = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": name(tokenizer.begin),
    "eos_token": name(tokenizer.end),
    "chat_template": tokenizer.template,
  }
  scratch = path.with_name(f".{path.name}.tmp")
  with files.explained("save the model", path):
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    files.write_json(scratch / "config.json", fields)
    files.write_json(
      scratch / "tokenizer_config.json",
      {k: v for k, v in options.items() if v is not None},
    )
    files.write_text(scratch / "tokenizer.json", tokenizer.backend.to_str())
    safetensors.save_weights(
      scratch / "model.safetensors",
      model.params,
      names=llama_weights.stored_name,
    )
    if there:
      shutil.rmtree(path)
    os.replace(scratch, path)
  return path


def load_encoder(*, directory: str | os.PathLike | None = None) -> Encoder:
  """Load all-MiniLM-L6-v2, the encoder of sentences.

  Args:
    directory: Where its files lie; by default where data sources are.

  Returns:
    The encoder; `bert.encode(*encoder, texts)` gives the vectors of texts.

  Raises:
    FileNotFoundError: If they are not on this machine.
    ValueError: If they are damaged.
  """
  from safetensors import numpy as stored

  found = data.source("minilm", "all", directory=directory).arrays
  contents = dict(zip(found["files"], found["contents"], strict=True))
  module, params = bert.load(
    json.loads(contents["config.json"]),
    stored.load(contents["model.safetensors"]),
  )
  tokenizer = tokenizers.from_json(
    contents["tokenizer.json"], length=bert.LENGTH
  )
  return Encoder(module, params, tokenizer)


def _smollm2(directory: str | os.PathLike | None) -> bytes:
  try:
    found = data.source("smollm2", "all", directory=directory)
  except FileNotFoundError as error:
    where = "" if directory is None else f" --directory {directory}"
    raise FileNotFoundError(
      "the weights of smollm2 are not on this machine; fetch them with: python"
      f" -m launch.fetch smollm2{where}"
    ) from error
  return found.arrays["contents"][0]


# A name -> what reads its GGUF file, from the directory that it is in.
MODELS: Mapping[str, Callable[[str | os.PathLike | None], bytes]] = {
  "smollm2": _smollm2
}


def _from_gguf(
  name: str, content: bytes, place: str, dtype: Any, keep: bool
) -> Language:
  digest = hashlib.sha256(content).hexdigest()
  file = gguf.parse(content, place)
  config = llama_weights.gguf_config(file.metadata, file.tensors)
  tokenizer = tokenizers.from_gguf(file.metadata)
  make = lambda: llama_weights.load(config, file.tensors, "gguf")
  params = _kept(config, digest, make) if keep else make()
  module, params = _cast(config, params, dtype)
  return Language(name, module, params, tokenizer, digest)


def _from_directory(path: pathlib.Path, dtype: Any) -> Language:
  def text(name: str) -> str:
    if not (path / name).is_file():
      raise FileNotFoundError(f"there is no file {path / name}")
    return (path / name).read_text(encoding="utf-8")

  def content(name: str) -> dict[str, Any]:
    try:
      found = json.loads(text(name))
    except (ValueError, RecursionError) as error:
      raise ValueError(f"{path / name} is no JSON text ({error})") from None
    if not isinstance(found, dict):
      raise ValueError(f"{path / name} holds no JSON object")
    return found

  config = llama_weights.hugging_face_config(content("config.json"))
  options = {}
  if (path / "tokenizer_config.json").is_file():
    options = content("tokenizer_config.json")

  def special(key: str) -> str | None:
    value = options.get(key)
    return value.get("content") if isinstance(value, dict) else value

  template = options.get("chat_template")
  if isinstance(template, list):
    # Several, each with a name.
    named = {x.get("name"): x for x in template if isinstance(x, dict)}
    template = named.get("default", {}).get("template")
  if template is None and (path / "chat_template.jinja").is_file():
    template = text("chat_template.jinja")
  tokenizer = tokenizers.from_json(
    text("tokenizer.json"),
    begin=special("bos_token"),
    end=special("eos_token"),
    template=template,
  )
  weights = path / "model.safetensors"
  params = llama_weights.load(config, safetensors.read(weights))
  module, params = _cast(config, params, dtype)
  digest = files.sha256(weights)
  return Language(str(path), module, params, tokenizer, digest)


def _cast(
  config: llama.Config, params: Any, dtype: Any
) -> tuple[llama.Llama, Any]:
  module = llama.Llama(config, dtype=dtype, param_dtype=dtype)
  return module, jax.tree.map(lambda x: jnp.asarray(x, dtype), params)


def _kept(
  config: llama.Config, digest: str, make: Callable[[], Any]
) -> dict[str, Any]:
  """Return float32 parameters from the user's cache, which is filled first."""
  folder = data.cache_directory() / "weights"
  path = folder / f"{digest}.{_LAYOUT}.safetensors"
  if path.is_file():
    try:
      return _nested(config, safetensors.read(path))
    except ValueError as error:
      raise ValueError(
        f"the weights kept in {path} are damaged ({error}); delete that file"
      ) from error
  params = make()
  paths, leaves = jax.tree.leaves(tree.names(params)), jax.tree.leaves(params)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.write(path, dict(zip(paths, leaves, strict=True)))
  except OSError as error:
    warnings.warn(
      f"the weights are not kept for the next time: {error}", stacklevel=3
    )
  return params


def _nested(
  config: llama.Config, arrays: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """Put arrays by path into the model's parameters."""
  tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  init = llama.Llama(config).init
  made = jax.eval_shape(init, jax.random.key(0), tokens)["params"]

  def take(path, leaf):
    if path not in arrays or arrays[path].shape != leaf.shape:
      raise ValueError(f"{path} of shape {list(leaf.shape)} is missing")
    return arrays[path]

  return jax.tree.map(take, tree.names(made), made)
