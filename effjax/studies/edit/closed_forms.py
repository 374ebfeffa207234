"""Facts of a world changed by closed forms, beside those that are fine-tuned.

A closed form changes one down projection so that a key gives a value. The key
is what enters it at a token of the prompt, the last one of the subject or the
last one of all; the value is what the output there must be for the model to say
the new object, found by gradient descent. No other fact is trained on: what
keeps them is the second moment of the keys of the whole corpus.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import editing, models, tree
from effjax.data import sentences, worlds
from effjax.studies.edit import examiner, pretraining, tasks

Tree = Any
METHODS = ("rome", "memit", "emmet", "alphaedit")
LOOKUPS = ("subject", "last")


class Form(NamedTuple):
  """A way to edit by a closed form.

  Attributes:
    method: one of `METHODS`; "rome" stores facts one after another.
    layer: whose down projection changes.
    lookup: at which token of the prompt keys are read, one of `LOOKUPS`.
  """

  method: str
  layer: int
  lookup: str

  @property
  def name(self) -> str:
    """What the form is called in results."""
    return f"{self.method}_{self.lookup}{self.layer}"

  @property
  def title(self) -> str:
    """What the form is called in reports."""
    title = {"alphaedit": "AlphaEdit"}.get(self.method, self.method.upper())
    where = {"subject": "subject", "last": "last token"}[self.lookup]
    return f"{title}, block {self.layer} at the {where}"


def forms(config: Any, layers: int) -> list[Form]:
  """List the closed forms of a study.

  Args:
    config: `closed_forms` of the configuration: `methods`, and `places`, words
      such as "subject0", a lookup and a layer.
    layers: How many layers a model has.

  Returns:
    The forms.

  Raises:
    ValueError: If there is no such method or place.
  """
  for method in config.methods:
    if method not in METHODS:
      near = ", ".join(tree.nearest(method, list(METHODS), 3))
      raise ValueError(
        f"there is no closed form {method!r}; the nearest are {near}"
      )
  known = {
    f"{lookup}{i}": (i, lookup) for lookup in LOOKUPS for i in range(layers)
  }
  # What a last block gives at the subject is read by nobody.
  known.pop(f"subject{layers - 1}", None)
  for place in config.places:
    if place not in known:
      raise ValueError(
        f"facts cannot be edited at {place!r}; choose from {', '.join(known)}"
      )
  return [Form(m, *known[p]) for m in config.methods for p in config.places]


class Settings(NamedTuple):
  """How values are searched for and stored; numbers may be traced.

  Attributes:
    learning_rate: of the search.
    weight_decay: what the length of a change weighs.
    kl: what the divergence behind the subject alone weighs.
    clamp: longest change, in lengths of the output before.
    damping: added to the diagonal of C, as a share of its mean.
    lam: what other keys weigh in MEMIT.
    ridge: of AlphaEdit, as a share of the mean of the diagonal of C.
    threshold: of AlphaEdit, likewise: what counts as free of other keys.
  """

  learning_rate: Any
  weight_decay: float
  kl: float
  clamp: float
  damping: float
  lam: float
  ridge: float
  threshold: float


class Asked(NamedTuple):
  """The n facts of an edit, as sentences with the new objects.

  Attributes:
    tokens: int32 [n, L].
    ends: place of the last token of each prompt [n].
    lookups: place at which the key is read [n].
    targets: the new objects, one token each [n].
  """

  tokens: jax.Array
  ends: jax.Array
  lookups: jax.Array
  targets: jax.Array


def run(
  about: pretraining.Subject,
  config: Any,
  base: Tree,
  own: tasks.Tasks,
) -> dict[str, np.ndarray]:
  """Edit a model by every closed form, at every learning rate of values.

  Args:
    about: The world and the model.
    config: The configuration, of which `closed_forms` is read.
    base: Parameters of the model.
    own: Its edits.

  Returns:
    By measure of `examiner.MEASURES` [forms, rates, edits, sets], and `failed`
    [forms, rates, edits]: the change was not finite, and is none.
  """
  options = config.closed_forms
  rates = np.asarray(options.rates, np.float32)
  edits = np.arange(len(own.made), dtype=np.int32)
  module: Any = about.module
  found = []
  for form in forms(options, module.config.layers):
    moment = second_moment(about, base, form.layer)
    settings = Settings(0.0, *(options[k] for k in Settings._fields[1:]))
    values, failed = _program(module, form, settings)(
      base, moment, own.data.asked, asked(about, own, form.lookup), rates, edits
    )
    found.append({**values, "failed": failed})
  return jax.tree.map(lambda *x: np.stack([np.asarray(y) for y in x]), *found)


def asked(about: pretraining.Subject, own: tasks.Tasks, lookup: str) -> Asked:
  """Gather what the edits of a model are to say, and where keys are read.

  Args:
    about: The world and the model.
    own: Its edits, all of as many facts of subjects.
    lookup: One of `LOOKUPS`.

  Returns:
    The facts, with a leading axis of edits.
  """
  count = len(own.made[0].edit.old)
  # Edited facts stand first among the rows, each as end of text, SS, subject.
  ends = own.data.places[:, :count, 0]
  subject = 1 + about.words.widths["subject"]
  return Asked(
    tokens=own.data.tokens[:, :count],
    ends=ends,
    lookups=ends if lookup == "last" else jnp.full_like(ends, subject),
    targets=own.data.targets[:, :count, 0],
  )


def second_moment(
  about: pretraining.Subject, params: Tree, layer: int
) -> jax.Array:
  """Return the second moment of keys over all sentences of a world.

  Args:
    about: The world and the model.
    params: Its parameters.
    layer: The layer.

  Returns:
    C [I, I], over all tokens but the first of a sentence.
  """
  gram, count = jnp.zeros(()), 0
  for family in pretraining.families(about.world):
    facts = worlds.facts(about.world, family)
    rows = sentences.prompts(about.words, facts, leading_end=True)
    for start in range(0, len(rows.lengths), pretraining.PART):
      part = slice(start, start + pretraining.PART)
      own, number = _gram(
        about.module, layer, params, rows.tokens[part], rows.lengths[part]
      )
      gram, count = gram + own, count + int(number)
  return editing.second_moment(gram, count)


def _path(layer: int) -> str:
  return f"layer_{layer}/mlp/down/kernel"


def _entered(module, layer, params, tokens) -> jax.Array:
  """Return what enters the down projection of a layer [B, S, I]."""
  capture = models.capture(module, {}, method="hidden")
  return capture(params, tokens)[1][_path(layer)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gram(module, layer, params, tokens, lengths):
  found = _entered(module, layer, params, tokens)
  columns = jnp.arange(tokens.shape[1], dtype=jnp.int32)
  there = (columns[None] > 0) & (columns[None] < lengths[:, None])
  found = jnp.where(there[..., None], found, 0.0).reshape(-1, found.shape[-1])
  gram = jnp.matmul(found.T, found, precision=jax.lax.Precision.HIGHEST)
  return gram, jnp.sum(there, dtype=jnp.int32)


@functools.lru_cache(maxsize=32)
def _program(module, form: Form, settings: Settings):
  """Compile a form for edits and learning rates side by side."""

  def one(base, moment, sets, facts, rate):
    own = settings._replace(learning_rate=rate)
    edited = apply(module, form, own, base, moment, facts)
    good = functools.reduce(
      jnp.logical_and, [jnp.isfinite(x).all() for x in jax.tree.leaves(edited)]
    )
    edited = jax.tree.map(
      lambda new, old: jnp.where(good, new, old), edited, base
    )
    now = examiner.logits(module, edited, sets)
    before = examiner.logits(module, base, sets)
    return examiner.measure(now, before, sets), ~good

  def rates_of(base, moment, sets, facts, rates, edit):
    sets, facts = jax.tree.map(lambda x: x[edit], (sets, facts))
    each = lambda rate: one(base, moment, sets, facts, rate)
    return jax.vmap(each)(rates)

  return jax.jit(
    jax.vmap(rates_of, in_axes=(None, None, None, None, None, 0), out_axes=1)
  )


def apply(
  module: Any,
  form: Form,
  settings: Settings,
  params: Tree,
  moment: jax.Array,
  facts: Asked,
) -> Tree:
  """Edit facts by a closed form.

  Args:
    module: The model.
    form: The form.
    settings: How.
    params: Parameters before.
    moment: Second moment of the keys of the layer [I, I].
    facts: What is to be said.

  Returns:
    Parameters after.
  """
  kernel = lambda params: (
    params[f"layer_{form.layer}"]["mlp"]["down"]["kernel"].T
  )
  change = lambda params, delta: editing.add(
    params, editing.to_delta(_path(form.layer), delta)
  )
  search = lambda params, fact: wanted(module, form, settings, params, fact)
  if form.method == "rome":

    def store(params, fact):
      key, value = search(params, fact)
      delta = editing.rome(
        kernel(params), moment, key, value, damping=settings.damping
      )
      return change(params, delta), None

    return jax.lax.scan(store, params, facts)[0]
  keys, values = jax.vmap(functools.partial(search, params))(facts)
  w, given = kernel(params), (moment, keys.T, values.T)
  if form.method == "memit":
    delta = editing.memit(w, *given, settings.lam, damping=settings.damping)
  elif form.method == "emmet":
    delta = editing.emmet(w, *given, damping=settings.damping)
  else:
    unit = jnp.mean(jnp.diagonal(moment))
    delta = editing.alphaedit(
      w,
      *given,
      ridge=settings.ridge * unit,
      threshold=settings.threshold * unit,
    )
  return change(params, delta)


def wanted(
  module: Any, form: Form, settings: Settings, params: Tree, fact: Asked
) -> tuple[jax.Array, jax.Array]:
  """Search for what a down projection must give for a fact to be said.

  Args:
    module: The model.
    form: The form, of which layer and lookup matter.
    settings: How.
    params: Its parameters.
    fact: One fact, without a leading axis.

  Returns:
    The key [I], and the wanted product of key and kernel [O].
  """
  tokens = fact.tokens[None]
  columns = jnp.arange(tokens.shape[1], dtype=jnp.int32)
  at = (columns == fact.lookups)[None, :, None]
  down = params[f"layer_{form.layer}"]["mlp"]["down"]
  key = _entered(module, form.layer, params, tokens)[0, fact.lookups]
  product = jnp.matmul(key, down["kernel"], precision=jax.lax.Precision.HIGHEST)

  def logs(change, places):
    shifts = {f"layer_{form.layer}/mlp": jnp.where(at, change, 0.0)}
    hidden = module.apply(
      {"params": params}, tokens, shifts=shifts, method="hidden"
    )
    logits = module.apply(
      {"params": params}, hidden[0, places], method="logits"
    )
    return jax.nn.log_softmax(logits)

  loss = lambda change: -logs(change, fact.ends)[fact.targets]
  divergence = None
  if form.lookup == "subject":
    # What follows "SS s W0", which no relation is named in yet.
    alone = fact.lookups + 1
    unchanged = logs(jnp.zeros_like(product), alone)

    def divergence(change):
      now = logs(change, alone)
      return jnp.sum(jnp.exp(now) * (now - unchanged))

  found = editing.optimize_value(
    loss,
    product + down["bias"],
    divergence=divergence,
    learning_rate=settings.learning_rate,
    weight_decay=settings.weight_decay,
    kl=settings.kl,
    clamp=settings.clamp,
  )
  return key, product + found.delta
