"""Models that know a world: pretraining, and what they recall afterwards.

A model that does not know its facts cannot be edited: unless it recalls 99.9 %
of them, the study ends here. Recipe: next-token loss on all tokens, AdamW with
betas .9 and .95 and weight decay .1, warm-up, cosine to 5 %, clipped to norm 1.
"""

import dataclasses
import functools
import json
import pathlib
import shutil
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import metrics, training, tree
from effjax.data import corpora, sentences, vocabulary, worlds
from effjax.io import files, safetensors
from effjax.models import neox

Tree = Any
SIZES = {"toy": neox.toy, "pythia_31m": neox.pythia_31m}
PART = 8192  # sentences that are read at once, of a world that may be large


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
  """What is learned, and by what kind of model.

  Attributes:
    world: the facts.
    words: their vocabulary.
    module: the model, a `models.NeoX`.
  """

  world: worlds.World
  words: vocabulary.Vocabulary
  module: neox.NeoX

  @property
  def density(self) -> float:
    """Bits of the table for each parameter of the blocks."""
    bits = worlds.table_bits(self.world)
    return bits / self.module.config.block_parameters


class Pretrained(NamedTuple):
  """A model that knows its world.

  Attributes:
    params: its parameters.
    report: what was measured of it, plain values: `seed`, `recall` and
      `probability` by family or form, `seconds`.
  """

  params: Tree
  report: dict[str, Any]


def subject(config: Any) -> Subject:
  """Make a world, its vocabulary and a model for it.

  Args:
    config: The configuration: `world`, options of `worlds.make_world` and a
      `seed`, and `model`: `size`, "toy" or "pythia_31m", by default the first;
      `dtype` of the computation; and options of `neox.toy` or
      `neox.pythia_31m`.

  Returns:
    The three.

  Raises:
    ValueError: If the options are impossible, or objects have words of several
      tokens, which the sweep does not ask for.
  """
  options = dict(config.world)
  world = worlds.make_world(jax.random.key(options.pop("seed")), **options)
  words = vocabulary.make_vocabulary(world, grammar_words=11)
  if any(
    words.widths[k] > 1
    for k in ("object", "nested_object")
    if k in words.widths
  ):
    raise ValueError(
      "objects of this world have words of two tokens; the study asks for one:"
      " take fewer than 1000 objects in all"
    )
  options = dict(config.model)
  size, dtype = options.pop("size", "toy"), options.pop("dtype", "float32")
  if size not in SIZES:
    raise ValueError(
      f"there is no model of size {size!r}; choose from {', '.join(SIZES)}"
    )
  sizes = SIZES[size](words.size, **({"context": 16} | options))
  module = neox.NeoX(sizes, dtype=jnp.dtype(dtype))
  return Subject(world=world, words=words, module=module)


def pretrain(
  about: Subject, config: Any, seed: int, place: pathlib.Path
) -> Pretrained:
  """Train a model until it knows its world, or read it if that is done.

  Args:
    about: The world and the model.
    config: The configuration: `pretraining` with `steps`, `rows`, `rate`,
      `warm_up`, `inverted`, `nested_copies` and the `recall` that is wanted.
    seed: Of initial values and of the order of facts.
    place: Where everything is written.

  Returns:
    The model.

  Raises:
    ValueError: If it recalls less than is wanted, naming the value.
  """
  path = place / f"seed{seed}.safetensors"
  shapes = jax.eval_shape(functools.partial(_initial, about), jax.random.key(0))
  if path.is_file():
    report = json.loads(path.with_suffix(".json").read_text("utf-8"))
    params = _unflatten(shapes, safetensors.read(path))
  else:
    place.mkdir(parents=True, exist_ok=True)
    params, report = _train(about, config.pretraining, seed, place)
    files.write_json(path.with_suffix(".json"), report)
    safetensors.write(path, _flatten(params))
  least = min(
    value for name, value in report["recall"].items() if name in worlds.FAMILIES
  )
  wanted = config.pretraining.recall
  if least < wanted:
    raise ValueError(
      f"the model of seed {seed} recalls {100 * least:.2f} % of its facts, and"
      f" {100 * wanted:g} % are wanted before any edit: pretrain it for more"
      f" than {config.pretraining.steps} steps"
    )
  return Pretrained(params, report)


def families(world: worlds.World) -> tuple[str, ...]:
  """Name the families of facts that a world has."""
  return worlds.FAMILIES if world.nest is not None else worlds.FAMILIES[:1]


def recall(
  about: Subject, params: Tree, forms: tuple[str, ...] = ("sro",)
) -> dict[str, dict[str, float]]:
  """Ask a model for every fact.

  Args:
    about: The world and the model.
    params: Its parameters.
    forms: Forms of sentences, see `sentences.FORMS`; facts of all families are
      asked for in the first, those of subjects and objects in the others.

  Returns:
    `recall` and `probability`: by family, and by form but for the first, the
    share of right answers and the mean probability of them.
  """
  asked = [(name, name, forms[0]) for name in families(about.world)]
  asked += [(form, worlds.FAMILIES[0], form) for form in forms[1:]]
  found: dict[str, dict[str, float]] = {"recall": {}, "probability": {}}
  for name, family, form in asked:
    prompts = sentences.prompts(
      about.words, worlds.facts(about.world, family), form, leading_end=True
    )
    right = said = 0.0
    for start in range(0, len(prompts.lengths), PART):
      tokens, lengths, targets = (
        x[start : start + PART]
        for x in (prompts.tokens, prompts.lengths, prompts.targets[:, 0])
      )
      logits = answers(about.module, params, tokens, lengths)
      slot = metrics.slot_metrics(logits, targets)
      right += float(slot.accuracy) * len(lengths)
      said += float(slot.prob_target) * len(lengths)
    found["recall"][name] = right / len(prompts.lengths)
    found["probability"][name] = said / len(prompts.lengths)
  return found


@functools.partial(jax.jit, static_argnames="module")
def answers(
  module: neox.NeoX, params: Tree, tokens: jax.Array, lengths: jax.Array
) -> jax.Array:
  """Return the logits behind prompts.

  Args:
    module: The model.
    params: Its parameters.
    tokens: Prompts, padded behind, [M, P].
    lengths: Tokens of each, [M].

  Returns:
    Logits [M, V].
  """
  return at_places(module, params, tokens, lengths[:, None] - 1)[:, 0]


def at_places(
  module: neox.NeoX, params: Tree, tokens: jax.Array, places: jax.Array
) -> jax.Array:
  """Return logits at some places only, for the others cost time.

  Args:
    module: The model.
    params: Its parameters.
    tokens: Texts [M, P].
    places: Places in each [M, K].

  Returns:
    Logits [M, K, V] of the tokens behind.
  """
  variables = {"params": params}
  hidden: Any = module.apply(variables, tokens, method="hidden")
  chosen = jnp.take_along_axis(hidden, places[..., None], axis=1)
  logits: Any = module.apply(variables, chosen, method="logits")
  return logits


def _initial(about: Subject, key: jax.Array) -> Tree:
  return about.module.init(key, jnp.zeros((1, 2), jnp.int32))["params"]


def learn(
  about: Subject,
  options: Any,
  seed: int,
  place: pathlib.Path,
  *,
  start: Tree = None,
  last: optax.GradientTransformation | None = None,
) -> Tree:
  """Train a model on the corpus of its world.

  Args:
    about: The world and the model.
    options: The recipe, see `pretrain`.
    seed: Of initial values and of the order of facts.
    place: Where checkpoints are while it lasts.
    start: Parameters to begin with, by default initial ones.
    last: A transformation behind the recipe's, such as `pruning.prune`.

  Returns:
    Parameters.
  """
  key = jax.random.key(seed)
  corpus = corpora.make_corpus(
    jax.random.fold_in(key, 0),
    about.world,
    about.words,
    rows=options.rows,
    inverted=options.inverted,
    nested_copies=options.nested_copies,
  )
  rate = optax.warmup_cosine_decay_schedule(
    0.0, options.rate, options.warm_up, options.steps, 0.05 * options.rate
  )
  update = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(rate, b1=0.9, b2=0.95, weight_decay=0.1),
    *([last] if last is not None else []),
  )
  if start is None:
    start = _initial(about, jax.random.fold_in(key, 1))
  state = training.fit(
    training.create(jax.random.fold_in(key, 2), start, update),
    training.make_step(functools.partial(_loss, about.module), update),
    corpora.as_batches(corpus),
    steps=options.steps,
    workdir=place,
    name=f"{'pretraining' if last is None else 'relearning'} {seed}",
    checkpoint_every=options.steps,
    keep=1,
  )
  shutil.rmtree(place)
  return state.params


def _train(about, options, seed, place) -> tuple[Tree, dict[str, Any]]:
  started = time.process_time()
  params = learn(about, options, seed, place / f"seed{seed}")
  forms = ("sro", "rso") if options.inverted else ("sro",)
  report = {
    "seed": seed,
    **recall(about, params, forms),
    "seconds": time.process_time() - started,
  }
  return params, report


def _loss(module, params, model_state, batch, key, train):
  """Average the loss over all tokens of rows of one sentence."""
  del key, train
  tokens = batch["tokens"]
  logits = module.apply({"params": params}, tokens[:, :-1])
  known = tokens[:, 1:] != vocabulary.PADDING
  each = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
  total = jnp.sum(jnp.where(known, each, 0.0))
  count = jnp.sum(known, dtype=jnp.int32).astype(total.dtype)
  return total / count, (model_state, {})


def _flatten(params: Tree) -> dict[str, np.ndarray]:
  names = jax.tree.leaves(tree.names(params))
  leaves = map(np.asarray, jax.tree.leaves(params))
  return dict(zip(names, leaves, strict=True))


def _unflatten(shapes: Tree, arrays: dict[str, np.ndarray]) -> Tree:
  return jax.tree.map(
    lambda name: jnp.asarray(arrays[name]), tree.names(shapes)
  )
