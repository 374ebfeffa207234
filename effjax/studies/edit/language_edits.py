"""Edits of a Llama by closed forms: keys, second moments, values, deltas.

The down projection of an MLP is the memory (Meng et al., arXiv 2202.05262). Its
key is what enters it at the last token of the subject, averaged over the prompt
and the prompt behind sentences that the model itself has begun.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import editing
from effjax.studies import language
from effjax.studies.edit import facts, language_keys, language_prompts

METHODS = ("rome", "memit", "emmet", "alphaedit")
Delta = dict[str, jax.Array]


class Settings(NamedTuple):
  """How values are searched for and deltas made.

  Attributes:
    layer: Whose down projection is edited; of MEMIT the last one.
    spread: How many layers MEMIT edits, up to `layer`.
    evaluations: Of the loss, at most.
    learning_rate: Of Adam.
    weight_decay: What the length of the change weighs.
    kl: What the divergence on "SUBJECT is a" weighs.
    clamp: Longest change, in lengths of the output before.
    damping: Added to the diagonal of C, as a share of its mean.
    lam: What other keys weigh in MEMIT.
    ridge: Of AlphaEdit, as a share of the mean of the diagonal of C.
    threshold: Of AlphaEdit, likewise: what counts as free of other keys.
  """

  layer: int = 9
  spread: int = 1
  evaluations: int = 20
  learning_rate: float = 0.5
  weight_decay: float = 0.1
  kl: float = 0.0625
  clamp: float = 4.0
  damping: float = 1e-2
  lam: float = 100.0
  ridge: float = 1e-2
  threshold: float = 5e-2


class Target(NamedTuple):
  """What an edit wants of a layer.

  Attributes:
    contexts: The prompt, and the prompt behind other texts.
    places: Token of the subject in each.
    change: [W], what is to be added to the output there.
    reached: Whether the object became likely enough in the search.
  """

  contexts: tuple[str, ...]
  places: tuple[int, ...]
  change: jax.Array
  reached: bool


def find_target(
  model: language.Language,
  fact: facts.Fact,
  before: Sequence[str],
  settings: Settings,
) -> Target:
  """Search for what the output of a layer must be for the new object.

  Args:
    model: The model.
    fact: The fact.
    before: Texts to stand before the prompt, besides none.
    settings: How.

  Returns:
    The target.
  """
  contexts = (fact.prompt, *(f"{text}. {fact.prompt}" for text in before))
  alone = f"{fact.subject} is a"
  tokenizer = model.tokenizer
  asked = language_prompts.ask(
    tokenizer, [(text, fact.new) for text in (*contexts, alone)]
  )
  locate = functools.partial(language_prompts.locate, tokenizer)
  places = tuple(locate(text, fact.subject) for text in contexts)
  length = max(asked.tokens.shape[1], 32)
  tokens = np.pad(asked.tokens, ((0, 0), (0, length - asked.tokens.shape[1])))
  found = _search(
    model.module,
    settings.layer,
    settings.evaluations,
    model.params,
    asked._replace(tokens=tokens),
    np.array([*places, locate(alone, fact.subject)], np.int32),
    settings._replace(layer=0, evaluations=0),
  )
  return Target(contexts, places, found.delta, bool(found.reached))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _search(module, layer, evaluations, params, asked, places, settings):
  """Optimise the change; the last question is that of the subject alone."""
  outputs = language_keys.keys(module, layer, params, asked.tokens, places)[1]
  columns = jnp.arange(asked.tokens.shape[1], dtype=jnp.int32)
  where = columns[None] == jnp.asarray(places)[:, None]
  adding = module.clone(apply_part=_add)
  there = jnp.asarray(asked.objects[:-1]) >= 0
  number = jnp.sum(there, axis=1, dtype=jnp.int32)

  def logs(change):
    parts = {language_keys.kernel_path(layer): (where, change)}
    return language_prompts.object_logs(adding, params, asked, parts)

  unchanged = logs(jnp.zeros_like(outputs[0]))[1][-1]

  def loss(change):
    own, first = logs(change)
    losses = -jnp.sum(own[:-1], axis=1) / number.astype(own.dtype)
    now = first[-1]
    return jnp.mean(losses) + settings.kl * jnp.sum(
      jnp.exp(now) * (now - unchanged)
    )

  return editing.optimize_value(
    loss,
    outputs[0],
    evaluations=evaluations,
    learning_rate=settings.learning_rate,
    weight_decay=settings.weight_decay,
    clamp=settings.clamp,
  )


def _add(x, kernel, part):
  where, change = part
  change = change.astype(x.dtype)[None, None, :]
  return x @ kernel + jnp.where(where[..., None], change, 0.0)


def close(
  model: language.Language,
  method: str,
  targets: Sequence[Target],
  moments: Mapping[int, jax.Array],
  settings: Settings,
) -> Delta:
  """Change down projections so that they give the targets.

  Args:
    model: The model.
    method: One of `METHODS`. ROME makes one edit after the other, the others
      all at once.
    targets: What is wanted of `settings.layer`.
    moments: Second moments of the layers to edit.
    settings: How.

  Returns:
    The delta.

  Raises:
    ValueError: If the method is unknown, or its equations have no solution.
  """
  if method not in METHODS:
    raise ValueError(
      f"there is no closed form {method!r}; known are {', '.join(METHODS)}"
    )
  if method == "memit":
    return _memit(model, targets, moments, settings)
  layer = settings.layer
  path, w = (
    language_keys.kernel_path(layer),
    language_keys.kernel(model.params, layer),
  )
  c, damping = moments[layer], settings.damping
  if method == "rome":
    total: Delta = {}
    params = model.params
    for target in targets:
      k = _key(model, layer, params, target)
      w = language_keys.kernel(params, layer)
      v = _product(w, k) + target.change
      step = editing.to_delta(path, editing.rome(w, c, k, v, damping=damping))
      params, total = editing.add(params, step), editing.total(total, step)
    return total
  columns = _keys(model, layer, model.params, targets)
  values = _product(w, columns) + jnp.stack([t.change for t in targets], 1)
  if method == "emmet":
    delta = editing.emmet(w, c, columns, values, damping=damping)
  else:
    unit = float(jnp.mean(jnp.diagonal(c)))
    delta = editing.alphaedit(
      w,
      c,
      columns,
      values,
      ridge=settings.ridge * unit,
      threshold=settings.threshold * unit,
    )
  return editing.to_delta(path, delta)


def _memit(model, targets, moments, settings) -> Delta:
  """Spread the changes over layers, each on top of those below."""
  last = settings.layer
  layers = range(last - settings.spread + 1, last + 1)
  wanted = jnp.stack([t.change for t in targets], 1)
  prompts = [
    language_prompts.encode(model.tokenizer, t.contexts[0]) for t in targets
  ]
  tokens = language_prompts.padded(prompts)
  places = np.array([t.places[0] for t in targets], np.int32)
  leaves = lambda params: _leaves(model.module, last, params, tokens, places).T
  params, total = model.params, {}
  before = leaves(params) if len(layers) > 1 else None
  for layer in layers:
    residual = wanted
    if before is not None:
      residual = wanted - (leaves(params) - before)
    w = language_keys.kernel(params, layer)
    columns = _keys(model, layer, params, targets)
    delta = editing.memit(
      w,
      moments[layer],
      columns,
      _product(w, columns) + residual,
      settings.lam,
      layers=last - layer + 1,
      damping=settings.damping,
    )
    step = editing.to_delta(language_keys.kernel_path(layer), delta)
    params, total = editing.add(params, step), editing.total(total, step)
  return total


@functools.partial(jax.jit, static_argnums=(0, 1))
def _leaves(module, layer, params, tokens, places):
  """Return what leaves a block at a token of each row [B, W]."""
  name = f"layer_{layer}"
  _, state = module.apply(
    {"params": params},
    tokens,
    method="hidden",
    capture_intermediates=lambda own, _: own.name == name,
    mutable=["intermediates"],
  )
  found = state["intermediates"][name]["__call__"][0][0]
  return found[jnp.arange(len(places), dtype=jnp.int32), places]


def _keys(model, layer, params, targets) -> jax.Array:
  """Return the keys of targets as columns [I, n]."""
  return jnp.stack([_key(model, layer, params, t) for t in targets], 1)


def _key(model, layer, params, target: Target) -> jax.Array:
  """Return the key of a target [I], averaged over its contexts."""
  texts = [language_prompts.encode(model.tokenizer, t) for t in target.contexts]
  tokens = language_prompts.padded(texts, length=32)
  places = np.array(target.places, np.int32)
  return editing.average_keys(
    language_keys.keys(model.module, layer, params, tokens, places)[0]
  )


def _product(a, b):
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
