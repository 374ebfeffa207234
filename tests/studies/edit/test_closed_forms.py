"""Closed forms in models of synthetic worlds, and what the report says."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from effjax.data import sentences, worlds
from effjax.studies.edit import (
  closed_forms,
  closed_forms_page,
  examiner,
  pretraining,
  tasks,
)
from launch import configuring

SETTINGS = closed_forms.Settings(
  learning_rate=0.5,
  weight_decay=0.0,
  kl=0.0,
  clamp=1e3,
  damping=1e-2,
  lam=1e-3,
  ridge=1e-3,
  threshold=1e9,  # every direction is free
)


@pytest.fixture(scope="module")
def config():
  found = configuring.load("configs/edit/iid.py:miniature")
  found = found.copy_and_resolve_references()
  with found.unlocked():
    found.world.update(subjects=24)
  return found


@pytest.fixture(scope="module")
def subject(config):
  """A model that has learned nothing, and two edits."""
  about = pretraining.subject(config)
  tokens = jnp.zeros((1, 2), jnp.int32)
  params = about.module.init(jax.random.key(0), tokens)["params"]
  own = tasks.aligned([tasks.make(jax.random.key(7), about, config, 2)])[0]
  return about, params, own


def first(facts, count):
  """Take some facts of the first edit."""
  return jax.tree.map(lambda x: x[0, :count], facts)


def behind(about, params, facts):
  """Return log-probabilities behind the prompts of facts [n, V]."""
  logits = pretraining.at_places(
    about.module, params, facts.tokens, facts.ends[:, None]
  )
  return jax.nn.log_softmax(logits[:, 0])


def test_keys_are_read_at_the_subject_or_at_the_last_token(subject):
  about, _, own = subject
  edit = own.made[0].edit
  facts = first(closed_forms.asked(about, own, "subject"), len(edit.old))
  rows = np.arange(len(edit.old))
  words = about.words.words("subject")[edit.old[:, 1], -1]
  np.testing.assert_array_equal(facts.tokens[rows, facts.lookups], words)
  prompts = sentences.prompts(about.words, edit.new, leading_end=True)
  last = first(closed_forms.asked(about, own, "last"), len(edit.old))
  np.testing.assert_array_equal(last.lookups, prompts.lengths - 1)
  np.testing.assert_array_equal(last.targets, prompts.targets[:, 0])


def test_the_second_moment_is_that_of_every_token_but_the_first(subject):
  about, params, _ = subject
  rows = sentences.prompts(
    about.words, worlds.facts(about.world, "S-O"), leading_end=True
  )
  layer = params["layer_0"]
  # The MLP of the first block reads embeddings, which NumPy can do too.
  embedded = (
    np.asarray(params["embed"]["embedding"], np.float64)[rows.tokens]
    + np.asarray(params["positions"]["embedding"], np.float64)[
      : rows.tokens.shape[1]
    ]
  )
  centred = embedded - embedded.mean(-1, keepdims=True)
  normal = centred / np.sqrt(embedded.var(-1, keepdims=True) + 1e-5)
  norm, up = layer["mlp_norm"], layer["mlp"]["up"]
  x = normal * np.asarray(norm["scale"]) + np.asarray(norm["bias"])
  x = x @ np.asarray(up["kernel"]) + np.asarray(up["bias"])
  keys = np.asarray(jax.nn.gelu(jnp.asarray(x, jnp.float32), approximate=False))
  there = np.arange(rows.tokens.shape[1])[None] < rows.lengths[:, None]
  keys = keys[:, 1:][there[:, 1:]].astype(np.float64)
  found = closed_forms.second_moment(about, params, 0)
  np.testing.assert_allclose(
    found, keys.T @ keys / len(keys), rtol=2e-3, atol=1e-5
  )


@pytest.mark.parametrize(
  "form",
  [
    *(closed_forms.Form(method, 1, "last") for method in closed_forms.METHODS),
    closed_forms.Form("emmet", 0, "subject"),
  ],
  ids=lambda form: form.name,
)
def test_an_edited_model_says_what_the_search_found(subject, form):
  about, params, own = subject
  facts = first(closed_forms.asked(about, own, form.lookup), 1)
  moment = closed_forms.second_moment(about, params, form.layer)
  fact = jax.tree.map(lambda x: x[0], facts)
  options = about.module, form, SETTINGS

  @jax.jit
  def change(params):
    edited = closed_forms.apply(*options, params, moment, facts)
    key, value = closed_forms.wanted(*options, params, fact)
    path = f"layer_{form.layer}"
    columns = jnp.arange(facts.tokens.shape[1], dtype=jnp.int32)
    at = (columns == fact.lookups)[None, :, None]
    moved = value - key @ params[path]["mlp"]["down"]["kernel"]
    shifted = about.module.apply(
      {"params": params},
      facts.tokens,
      shifts={f"{path}/mlp": jnp.where(at, moved, 0.0)},
    )
    given = key @ edited[path]["mlp"]["down"]["kernel"]
    return edited, given, value, jax.nn.log_softmax(shifted[0, fact.ends])

  edited, given, value, promised = change(params)
  np.testing.assert_allclose(given, value, atol=0.01)
  before, after = (behind(about, p, facts)[0] for p in (params, edited))
  if form.lookup == "last":  # elsewhere other tokens see the change too
    np.testing.assert_allclose(after, promised, atol=0.05)
    assert int(jnp.argmax(after)) == fact.targets != int(jnp.argmax(before))
  # Nothing but one down projection is another.
  same = jax.tree.map(lambda a, b: bool((a == b).all()), params, edited)
  same[f"layer_{form.layer}"]["mlp"]["down"].pop("kernel")
  assert all(jax.tree.leaves(same))


@pytest.mark.slow
def test_rome_stores_facts_one_after_another(subject):
  about, params, own = subject
  form = closed_forms.Form("rome", 1, "last")
  facts = first(closed_forms.asked(about, own, form.lookup), 3)
  moment = closed_forms.second_moment(about, params, form.layer)
  change = jax.jit(
    lambda params, facts: closed_forms.apply(
      about.module, form, SETTINGS, params, moment, facts
    )
  )
  at_once = change(params, facts)
  for i in range(3):
    params = change(params, jax.tree.map(lambda x, i=i: x[i : i + 1], facts))
  kernel = lambda p: p["layer_1"]["mlp"]["down"]["kernel"]
  np.testing.assert_allclose(kernel(at_once), kernel(params), atol=1e-4)
  assert int(jnp.argmax(behind(about, params, facts)[2])) == facts.targets[2]


@pytest.mark.slow
def test_all_forms_are_measured_at_all_rates(subject, config):
  about, params, own = subject
  found = closed_forms.run(about, config, params, own)
  assert found["accuracy"].shape == (1, 2, 2, len(own.names))
  np.testing.assert_array_equal(found["failed"], np.zeros((1, 2, 2), bool))
  form = closed_forms.Form("memit", 1, "last")
  options = config.closed_forms
  settings = closed_forms.Settings(
    options.rates[1], *(options[k] for k in closed_forms.Settings._fields[1:])
  )
  facts = jax.tree.map(
    lambda x: x[1], closed_forms.asked(about, own, form.lookup)
  )
  moment = closed_forms.second_moment(about, params, 1)
  edited = closed_forms.apply(
    about.module, form, settings, params, moment, facts
  )
  asked = jax.tree.map(lambda x: x[1], own.data.asked)
  beside = examiner.examine(about.module, params, edited, asked)
  np.testing.assert_allclose(
    found["accuracy"][0, 1, 1], beside["accuracy"], atol=1e-6
  )


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"methods": ("remit",), "places": ("last1",)}, "nearest are memit"),
    ({"methods": ("rome",), "places": ("subject1",)}, "choose from subject0"),
    ({"methods": ("rome",), "places": ("last2",)}, "last0, last1"),
  ],
)
def test_what_does_not_exist_is_refused(given, message):
  with pytest.raises(ValueError, match=message):
    closed_forms.forms(ml_collections.ConfigDict(given), 2)


def test_rates_are_chosen_on_other_edits_and_arms_too():
  forms = [closed_forms.Form("rome", 1, "last")]
  config = ml_collections.ConfigDict(
    {
      "tuning": 1,
      "mixes": ("behemoth", "edit_only"),
      "arms": ("full", "lora1"),
      "closed_forms": {"rates": (0.1, 0.5)},
    }
  )
  ones = lambda *shape: np.ones(shape)
  values = {k: ones(2, 1, 2, 3) for k in ("efficacy", "preservation")}
  values["score"] = ones(2, 1, 2, 3) * 0.25
  # The second rate is best on the edit for tuning; on the others it is not.
  values["score"][:, :, 1, 0], values["score"][:, :, 1, 1:] = 0.9, 0.5
  shape = 2, 2, 1, 3, 2, 1
  beside = {k: ones(*shape) for k in ("efficacy", "preservation")}
  beside["score"] = ones(*shape) * 0.2
  beside["score"][:, 1, :, 0, 1], beside["score"][0, 1, :, 1:, 1] = 0.8, 0.4
  found = closed_forms_page.table(config, forms, values, beside)
  assert found["best"] == {"arm": "lora1", "rate": 0}
  (row,) = found["rows"]
  assert (row["rate"], row["score"]["estimate"]) == (1, 0.5)
  assert row["more"]["estimate"] == pytest.approx(np.mean([0.1, 0.3]))


def test_a_large_world_is_read_in_parts(subject, monkeypatch):
  about, params, _ = subject
  whole = closed_forms.second_moment(about, params, 1)
  asked = pretraining.recall(about, params)
  monkeypatch.setattr(pretraining, "PART", 50)
  assert len(worlds.facts(about.world, "S-O")) % 50
  np.testing.assert_allclose(
    closed_forms.second_moment(about, params, 1), whole, rtol=1e-4, atol=1e-6
  )
  again = pretraining.recall(about, params)
  for name in ("recall", "probability"):
    assert again[name]["S-O"] == pytest.approx(asked[name]["S-O"], rel=1e-5)


def test_the_size_of_pythia_is_that_of_the_paper():
  config = configuring.load("configs/edit/pythia_31m.py")
  about = pretraining.subject(config)
  assert about.module.config.block_parameters == 4_738_560
  assert 1.0 < about.density < 1.2
  assert about.module.dtype == jnp.bfloat16
