"""Texts as a language model sees them at their end, for MAUVE."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax.studies import language

_MOST = 1024  # tokens, as in MAUVE's program
_STEP = 64


def last_token(
  model: language.Language, texts: Sequence[str], *, batch: int = 8
) -> np.ndarray:
  """Return what the last layer makes of the last token of each text.

  Args:
    model: The model, as it was before anybody tuned it.
    texts: Texts that are not empty.
    batch: How many are read together.

  Returns:
    Features, float32 [N, W].

  Raises:
    ValueError: If a text is empty.
  """
  config = model.module.config
  most = min(_MOST, config.context)
  tokens = [model.tokenizer.encode(t, special=False)[:most] for t in texts]
  if any(not len(own) for own in tokens):
    raise ValueError("an empty text has no last token")
  found = np.zeros((len(texts), config.width), np.float32)
  order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
  for start in range(0, len(order), batch):
    rows = order[start : start + batch]
    # Few shapes, so that few programs are compiled.
    size = -(-len(tokens[rows[-1]]) // _STEP) * _STEP
    padded = np.zeros((batch, min(size, config.context)), np.int32)
    lengths = np.ones(batch, np.int32)
    for place, row in enumerate(rows):
      padded[place, : len(tokens[row])] = tokens[row]
      lengths[place] = len(tokens[row])
    values = _at_end(model.module, model.params, padded, lengths)
    found[rows] = np.asarray(values)[: len(rows)]
  return found


@functools.partial(jax.jit, static_argnums=0)
def _at_end(module: Any, params: Any, tokens: Any, lengths: Any) -> jax.Array:
  # What is behind the last token is not seen by it.
  hidden = module.apply({"params": params}, tokens, method="hidden")
  last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)
  return last[:, 0].astype(jnp.float32)
