"""Keys of a Llama: what enters its down projections, and how it is spread."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import data, editing, models
from effjax.io import safetensors
from effjax.models import generation, llama, sampling
from effjax.studies import language
from effjax.studies.edit import language_prompts


def kernel_path(layer: int) -> str:
  """Name the down projection of a layer."""
  return f"layer_{layer}/mlp/down/kernel"


def kernel(params: Any, layer: int) -> jax.Array:
  """Return the down projection of a layer as a matrix [W, I]."""
  return params[f"layer_{layer}"]["mlp"]["down"]["kernel"].T


def own_texts(
  key: jax.Array, model: language.Language, count: int, length: int
) -> np.ndarray:
  """Have a model write at random, behind a line break.

  Args:
    key: Typed random key.
    model: The model.
    count: How many texts.
    length: Tokens of each.

  Returns:
    int32 [count, length], the line break first.
  """
  start = model.tokenizer.encode(language_prompts.START)
  made = generation.generate(
    key,
    model.module,
    model.params,
    [start] * count,
    max_tokens=length - len(start),
    sampling=sampling.Sampling(temperature=1.0),
  )
  return np.array([[*start, *one.tokens] for one in made], np.int32)


def beginnings(
  key: jax.Array, model: language.Language, count: int, length: int = 8
) -> tuple[str, ...]:
  """Make texts to stand before prompts; see `own_texts`."""
  texts = own_texts(key, model, count, length)
  found = [" ".join(model.tokenizer.decode(x[1:]).split()) for x in texts]
  return tuple(dict.fromkeys(found))


@functools.partial(jax.jit, static_argnums=(0, 1))
def keys(
  module: llama.Llama, layer: int, params: Any, tokens: Any, places: Any
) -> tuple[jax.Array, jax.Array]:
  """Read what enters and leaves a down projection.

  Args:
    module: The model.
    layer: The layer.
    params: Its parameters.
    tokens: int32 [B, T].
    places: int32 [B], the token of each row.

  Returns:
    Keys [B, I] and outputs [B, W].
  """
  entered = _entered(module, layer, params, tokens)
  rows = jnp.arange(len(places), dtype=jnp.int32)
  found = entered[rows, jnp.asarray(places)]
  return found, found @ kernel(params, layer).T


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gram(module, layer, params, tokens):
  # Behind the first token, which is like no other.
  found = _entered(module, layer, params, tokens)[:, 1:]
  found = found.reshape(-1, found.shape[-1])
  return jnp.matmul(found.T, found, precision=jax.lax.Precision.HIGHEST)


def _entered(module, layer, params, tokens):
  capture = models.capture(module, {}, method="hidden")
  return capture(params, jnp.asarray(tokens))[1][kernel_path(layer)]


def second_moment(
  module: llama.Llama, params: Any, layer: int, texts: np.ndarray
) -> jax.Array:
  """Estimate the second moment of the keys of a layer.

  Args:
    module: The model.
    params: Its parameters.
    layer: The layer.
    texts: int32 [N, T].

  Returns:
    C [I, I].
  """
  rows = 16
  inputs = kernel(params, layer).shape[1]
  gram = jnp.zeros((inputs, inputs))
  for i in range(0, len(texts), rows):
    gram += _gram(module, layer, params, texts[i : i + rows])
  return editing.second_moment(gram, texts[:, 1:].size)


def kept_moments(
  model: language.Language,
  layers: Sequence[int],
  *,
  texts: int = 128,
  length: int = 64,
  seed: int = 0,
) -> dict[int, jax.Array]:
  """Estimate second moments, or read them from the user's cache.

  Args:
    model: The model, which writes the texts itself.
    layers: The layers.
    texts: How many texts.
    length: Tokens of each.
    seed: Of the texts.

  Returns:
    C [I, I] by layer.
  """
  length = min(length, model.module.config.context)
  folder = data.cache_directory() / "moments"
  name = f"{model.digest}.{texts}x{length}.{seed}"
  path = lambda layer: folder / f"{name}.{layer}.safetensors"
  found, written = {}, None
  for layer in layers:
    if path(layer).is_file():
      found[layer] = jnp.asarray(safetensors.read(path(layer))["moment"])
      continue
    if written is None:
      key = jax.random.key(seed)
      written = own_texts(key, model, texts, length)
    found[layer] = second_moment(model.module, model.params, layer, written)
    try:
      folder.mkdir(parents=True, exist_ok=True)
      safetensors.write(path(layer), {"moment": found[layer]})
    except OSError:
      pass  # it is computed again the next time
  return found
