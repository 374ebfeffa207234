"""Facts, prompts, and edits of a tiny Llama against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import adapters, editing, tree
from effjax.studies import language
from effjax.studies.edit import (
  facts,
  language_edits,
  language_keys,
  language_prompts,
  language_tuning,
)
from tests.models import language_models as tiny

MODEL = language.Language(
  "tiny",
  language.llama.Llama(tiny.CONFIG),
  jax.tree.map(jnp.asarray, tiny.random_params()),
  tiny.tokenizer(),
  "0",
)
FACT = facts.Fact("he Tell", "Tell", "h", "to")


def test_the_table_of_facts():
  table = facts.table()
  assert len({fact.prompt for fact in table}) == len(table) >= 36
  for fact in table:
    assert fact.new != fact.true
    assert all(fact.subject in p for p in (fact.prompt, *fact.paraphrases))
    assert not any(fact.subject in p for p in fact.neighbours)
  assert facts.find("The capital of Nowhere is") is None
  with pytest.raises(ValueError, match="there are from 1 to"):
    facts.spread(1000)


def test_questions_share_beginnings_and_find_subjects():
  pairs = [("hello", "h"), ("hello", "to"), ("he", "hh")]
  asked = language_prompts.ask(MODEL.tokenizer, pairs, questions=4)
  encode = lambda text: MODEL.tokenizer.encode(text)
  t = encode(" to")
  whole = [encode("\nhello")]
  assert asked.tokens.shape == (4, 8)
  assert asked.objects[1].tolist()[: len(t)] == t
  for row, (prompt, object_) in enumerate(pairs):
    own = encode(f" {object_}")
    n = len(encode(f"\n{prompt}"))
    read = asked.tokens[asked.rows[row]][: n + len(own) - 1].tolist()
    assert read == encode(f"\n{prompt}") + own[:-1]
    assert asked.starts[row] == n - 1
  assert whole[0] == asked.tokens[asked.rows[0]][: len(whole[0])].tolist()
  place = language_prompts.locate(MODEL.tokenizer, "he hello to", "hello")
  assert place == len(encode("\nhe hello")) - 1
  with pytest.raises(ValueError, match="is not in the prompt"):
    language_prompts.locate(MODEL.tokenizer, "he", "x")


def test_scores_are_those_of_the_logits():
  pairs = [("hello", "to"), ("he", "h")]
  found = language_prompts.score(
    MODEL.module, MODEL.params, language_prompts.ask(MODEL.tokenizer, pairs)
  )
  for i, (prompt, object_) in enumerate(pairs):
    start = language_prompts.encode(MODEL.tokenizer, prompt)
    own = language_prompts.encode_object(MODEL.tokenizer, object_)
    tokens = jnp.asarray([start + own])
    logits = MODEL.module.apply({"params": MODEL.params}, tokens)[0]
    logs = np.asarray(jax.nn.log_softmax(logits), np.float64)
    losses = [-logs[len(start) - 1 + j, t] for j, t in enumerate(own)]
    np.testing.assert_allclose(found.nll[i], np.mean(losses), rtol=1e-4)
    np.testing.assert_allclose(
      found.probability[i], np.exp(-np.sum(losses)), rtol=1e-4
    )
    first = logs[len(start) - 1]
    assert found.rank[i] == 1 + np.sum(first > first[own[0]])


def test_closed_forms_give_the_target():
  rng = np.random.default_rng(0)
  texts = rng.integers(3, len(tiny.TOKENS), (16, 12)).astype(np.int32)
  how = language_edits.Settings(layer=1, damping=0.0, lam=0.0)
  target = language_edits.find_target(MODEL, FACT, ("h",), how)
  c = language_keys.second_moment(MODEL.module, MODEL.params, 1, texts)
  assert c.shape == (12, 12)
  deltas = {
    name: language_edits.close(MODEL, name, [target], {1: c}, how)
    for name in ("rome", "memit", "emmet")
  }
  path = "layer_1/mlp/down/kernel"
  keys = []
  for text, place in zip(target.contexts, target.places, strict=True):
    tokens = language_prompts.encode(MODEL.tokenizer, text)
    entered = language_keys.keys(
      MODEL.module, 1, MODEL.params, np.array([tokens]), np.array([place])
    )[0]
    keys.append(np.asarray(entered, np.float64)[0])
  k = np.mean(keys, axis=0)
  u = np.linalg.solve(np.asarray(c, np.float64), k)
  expected = np.outer(u / (k @ u), np.asarray(target.change))
  for delta in deltas.values():
    assert list(delta) == [path]
    np.testing.assert_allclose(delta[path], expected, rtol=0.02, atol=0.02)
  pairs = [(FACT.prompt, FACT.new)]
  asked = language_prompts.ask(MODEL.tokenizer, pairs)
  score = lambda p: language_prompts.score(MODEL.module, p, asked).nll[0]
  edited = editing.add(MODEL.params, deltas["rome"])
  assert score(edited) < score(MODEL.params)
  with pytest.raises(ValueError, match="no closed form 'x'"):
    language_edits.close(MODEL, "x", [target], {1: c}, how)


@pytest.mark.parametrize("method", language_tuning.METHODS)
def test_training_moves_what_it_says(method):
  how = language_tuning.Settings(layer=1, learning_rate=0.01, epsilon=0.02)
  delta = language_tuning.tune(MODEL, method, [FACT], how)
  kernels = {
    "ft": [f"layer_{i}/mlp/down/kernel" for i in (0, 1)],
    "ft-l": ["layer_1/mlp/down/kernel"],
    "lora": [
      n for n in jax.tree.leaves(tree.names(MODEL.params)) if "/mlp/" in n
    ],
  }
  assert sorted(delta) == sorted(kernels[method])
  if method == "lora":
    ranks = {int(s.rank) for s in editing.spectra(delta).values()}
    assert ranks == {1}
  if method == "ft-l":
    assert float(jnp.abs(delta[kernels[method][0]]).max()) <= 0.0201
  asked = language_prompts.ask(MODEL.tokenizer, [(FACT.prompt, FACT.new)])
  score = lambda p: language_prompts.score(MODEL.module, p, asked).nll[0]
  assert score(editing.add(MODEL.params, delta)) < score(MODEL.params)


@pytest.mark.slow
def test_lora_on_a_quantised_base():
  names = jax.tree.leaves(tree.names(MODEL.params))
  where = [name for name in names if name.endswith("kernel")]
  coded = adapters.quantize(MODEL.params, "int8", where=where)
  how = language_tuning.Settings(learning_rate=0.01)
  base = MODEL._replace(params=coded)
  delta = language_tuning.tune(base, "lora", [FACT], how)
  dense = adapters.dequantize(coded)
  asked = language_prompts.ask(MODEL.tokenizer, [(FACT.prompt, FACT.new)])
  score = lambda p: language_prompts.score(MODEL.module, p, asked).nll[0]
  assert score(editing.add(dense, delta)) < score(dense)
