"""Texts made together, in pieces and after prefixes, against one by one."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import data
from effjax.io import gguf
from effjax.models import (
  decoding,
  generation,
  llama,
  llama_weights,
  streaming,
  tokenizers,
)
from effjax.models.sampling import Sampling
from tests.models import language_models as tiny

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "personalization"
# What several layers do to a cache is seen in test_llama.py.
CONFIG = dataclasses.replace(tiny.CONFIG, layers=1)
MODEL = llama.Llama(CONFIG)
PARAMS = tiny.random_params(CONFIG)
MADE = tiny.tokenizer()
PROMPTS = [MADE.encode(text) for text in ("he", "the hello 17", "a")]
NEW = 10
WARM = Sampling(temperature=1.5, top_k=40, top_p=0.95, repetition_penalty=1.2)


@jax.jit
def logits_of(tokens):
  return MODEL.apply({"params": PARAMS}, tokens)


def continue_alone(prompt, count):
  """Return the likeliest tokens by reading everything anew for each."""
  tokens = list(prompt)
  for _ in range(count):
    # One length for all: what comes after a token does not matter to it.
    padded = np.zeros((1, CONFIG.context), np.int32)
    padded[0, : len(tokens)] = tokens
    logits = logits_of(padded)[0, len(tokens) - 1]
    tokens.append(int(np.argmax(logits)))
  return tuple(tokens[len(prompt) :])


@functools.cache
def expected():
  return [continue_alone(prompt, NEW) for prompt in PROMPTS]


def generate(prompts=PROMPTS, **options):
  options = {"max_tokens": NEW, "tokenizer": MADE, **options}
  key = options.pop("key", None)
  return generation.generate(key, MODEL, PARAMS, prompts, **options)


def test_prompts_of_several_lengths_together():
  found = generate()
  assert [made.tokens for made in found] == expected()
  assert [made.text for made in found] == [MADE.decode(t) for t in expected()]
  assert {made.reason for made in found} == {"length"}
  assert len(set(expected())) == 3


def test_pieces_make_the_whole():
  pieces = list(
    generation.stream(
      None, MODEL, PARAMS, PROMPTS, max_tokens=NEW, tokenizer=MADE, every=3
    )
  )
  for row, made in enumerate(generate()):
    own = [piece for piece in pieces if piece.row == row]
    assert "".join(piece.text for piece in own) == made.text
    assert sum((piece.tokens for piece in own), ()) == made.tokens
    assert [len(piece.tokens) for piece in own] == [3, 3, 3, 1]
    assert [piece.end for piece in own] == [None, None, None, made]


def test_a_token_ends_a_text():
  stop = expected()[1][4]
  found = generate(eos=(stop, 1))
  for made, tokens in zip(found, expected(), strict=True):
    if stop in tokens:
      tokens = tokens[: tokens.index(stop) + 1]
    assert made.tokens == tokens
    assert made.reason == ("eos" if stop in tokens else "length")
  assert found[1].reason == "eos"


@pytest.mark.parametrize(
  "scan_layers", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_texts_that_have_ended_are_left_out(monkeypatch, scan_layers):
  """The others go on as if those were still there."""
  module, params = MODEL, PARAMS
  if scan_layers:
    module = MODEL.clone(scan_layers=True)
    params = llama_weights.stack(PARAMS)
  prompts = [MADE.encode(text) for text in ("he", "the", "a", "17", "hello")]
  prompts = [[*prompt, token] for prompt in prompts for token in (5, 9)]
  run = functools.partial(
    generation.generate,
    jax.random.key(0),
    module,
    params,
    prompts,
    max_tokens=16,
    sampling=WARM,
    tokenizer=MADE,
  )
  often = run()
  count = [made.tokens for made in often]
  eos = tuple({tokens[i] for i, tokens in enumerate(count[:7], 1)})
  whole = run(eos=eos)
  assert len({len(made.tokens) for made in whole}) > 3

  sizes, take = [], decoding.take
  monkeypatch.setattr(generation, "_BETWEEN_CUTS", 1)
  monkeypatch.setattr(generation, "_FEW", 2)
  monkeypatch.setattr(
    decoding, "take", lambda *args: sizes.append(len(args[3])) or take(*args)
  )
  assert run(eos=eos) == whole
  assert sizes
  assert sizes == sorted(sizes, reverse=True)


def test_what_was_read_before():
  """A prefix, read in two pieces, is as the beginning of every prompt."""
  past = PROMPTS[1][:3]
  after = [PROMPTS[1][3:], PROMPTS[1][3:5], PROMPTS[0]]
  first = generation.read_prefix(MODEL, PARAMS, past[:1], room=32)
  prefix = generation.read_prefix(MODEL, PARAMS, past[1:], prefix=first)
  assert prefix.tokens == tuple(past)
  assert (first.used, prefix.used) == (16, 32)
  # What is one sequence goes on in the same cache.
  assert prefix.cache.positions.shape == first.cache.positions.shape
  whole = [continue_alone([*past, *more], NEW) for more in after]
  assert [made.tokens for made in generate(after, prefix=prefix)] == whole


def test_draws_depend_on_key_and_row_alone():
  key = jax.random.key(3)
  found = generate(key=key, sampling=WARM)
  assert found == generate(key=key, sampling=WARM)
  other = [PROMPTS[0], PROMPTS[0], PROMPTS[2]]
  company = generate(other, key=key, sampling=WARM)
  assert [company[0], company[2]] == [found[0], found[2]]
  assert company[1] not in found
  assert company[1] != company[0]
  assert found != generate(key=jax.random.key(4), sampling=WARM)


def test_penalty_of_what_was_there():
  """So strong that no token comes twice, nor one of the prompt."""
  sampling = Sampling(repetition_penalty=1e6)
  for prompt, made in zip(PROMPTS, generate(sampling=sampling), strict=True):
    assert len({*prompt, *made.tokens}) == len(set(prompt)) + NEW


@pytest.mark.slow
def test_scanned_layers():
  module = MODEL.clone(scan_layers=True)
  params = llama_weights.stack(PARAMS)
  prefix = generation.read_prefix(module, params, PROMPTS[1][:2])
  (found,) = generation.generate(
    None, module, params, [PROMPTS[1][2:]], max_tokens=NEW, prefix=prefix
  )
  assert found == generation.Generated(expected()[1], None, "length")


def test_the_end_of_the_context():
  size = CONFIG.context
  prompt = (PROMPTS[1] * size)[: size - 2]
  (made,) = generate([prompt])
  assert made.reason == "context"
  assert made.tokens == continue_alone(prompt, 3 - 1) + made.tokens[2:]
  assert len(made.tokens) == 3
  with pytest.raises(
    ValueError, match=r"Prompt 1 has 41 tokens, but the context .* holds 40"
  ):
    generate([prompt, [5] * 41])
  prefix = generation.read_prefix(MODEL, PARAMS, PROMPTS[0])
  with pytest.raises(
    ValueError, match="has 40 tokens after 1 tokens of a prefix"
  ):
    generate([[5] * 40], prefix=prefix)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"prompts": [[1], []]}, "Prompt 1 is empty"),
    ({"prompts": [[-1]]}, "has the token -1, expected whole numbers from 0"),
    ({"prompts": [[10**6]]}, "has the token 1000000"),
    ({"sampling": WARM}, "temperature of 1.5 needs a random key, got None"),
    ({"stop": ["x"], "tokenizer": None}, "Stop strings need a tokenizer"),
    ({"stop": [""]}, "must have a character, got ''"),
    ({"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
  ],
)
def test_what_makes_no_sense(options, message):
  with pytest.raises(ValueError, match=message):
    generate(**options)
  with pytest.raises(ValueError, match="every must be at least 1"):
    generation.stream(None, MODEL, PARAMS, PROMPTS, every=0)


def test_no_prompts():
  assert generate([]) == []


def write(text, stop, together=1, limit=10**6, eos=()):
  """Return what a writer gives of a text, and the writer."""
  tokens = MADE.encode(text)
  writer = streaming.Writer(
    limit=limit, full="length", eos=eos, stop=tuple(stop), tokenizer=MADE
  )
  found = []
  for start in range(0, len(tokens), together):
    if writer.reason is None:
      found.append(writer.add(tokens[start : start + together]))
  return found, writer


@pytest.mark.parametrize("together", [1, 4, 100])
def test_stop_strings_end_a_text(together):
  found, writer = write("abc###d", ["##", "x"], together)
  assert "".join(found) == writer.text == "abc"
  assert writer.reason == "stop"
  assert MADE.decode(writer.tokens) == "abc##"
  # The one that comes first ends it, whatever their order.
  _, writer = write("abcdef", ["ef", "cd"], together)
  assert writer.text == "ab"


def test_what_may_begin_a_stop_string_waits():
  found, writer = write("a#b##", ["###"])
  assert found == ["a", "", "#b", "", ""]
  assert writer.reason is None
  # It comes when nothing more does.
  found, writer = write("a#b##", ["###"], limit=5)
  assert found[-1] == "##"
  assert writer.text == "a#b##"
  assert writer.reason == "length"


def test_half_a_character_at_the_end():
  tokens = MADE.encode("é日")
  found, writer = write("é日", [], limit=len(tokens) - 1)
  assert writer.text == "é\N{REPLACEMENT CHARACTER}"
  assert "".join(found) == writer.text


def test_stop_strings_while_generating():
  text = MADE.decode(expected()[1])
  stop = text[4:6]
  cut = text[: text.index(stop)]
  made = generate(stop=[stop])[1]
  assert (made.text, made.reason) == (cut, "stop")
  assert expected()[1][: len(made.tokens)] == made.tokens


def test_lengths_are_few():
  lengths = {decoding.bucket(n) for n in range(1, 1000)}
  assert len(lengths) == 13
  assert all(n <= decoding.bucket(n) < max(17, 1.5 * n) for n in range(1, 999))


@pytest.fixture(scope="module")
def smollm2():
  """The real model, its parameters and its tokenizer."""
  try:
    content = data.source("smollm2", "all").arrays["contents"][0]
  except FileNotFoundError:
    pytest.skip("The weights are absent: python -m launch.fetch smollm2")
  file = gguf.parse(content)
  config = llama_weights.gguf_config(file.metadata, file.tensors)
  params = llama_weights.load(config, file.tensors, "gguf")
  params = jax.tree.map(jnp.asarray, params)
  return llama.Llama(config), params, tokenizers.from_gguf(file.metadata)


@pytest.mark.data
def test_golden_logits_of_smollm2(smollm2, optimised):
  module, params, _ = smollm2
  golden = np.load(GOLDEN / "smollm_logits.npz")
  ids = golden["ids"].astype(np.int32)
  logits = np.asarray(
    jax.jit(lambda params: module.apply({"params": params}, ids[None])[0])(
      params
    )
  )
  np.testing.assert_allclose(logits[-1], golden["last_logits"], atol=1e-3)
  np.testing.assert_allclose(logits[:, :256], golden["logits_slice"], atol=1e-3)
  total = np.log(np.sum(np.exp(logits, dtype=np.float64), 1))
  np.testing.assert_allclose(total, golden["logsumexp"], atol=1e-3)
  nll = total[:-1] - logits[np.arange(53), ids[1:]]
  np.testing.assert_allclose(nll, golden["nll"], atol=1e-3)
  best = golden["top10_ids"]
  np.testing.assert_array_equal(np.argmax(logits, 1), best[:, 0])


@pytest.mark.data
@pytest.mark.slow
def test_golden_tokens_of_smollm2(smollm2, optimised):
  module, params, made = smollm2
  golden = np.load(GOLDEN / "smollm_logits.npz")
  prompt, expected = golden["ids"].tolist(), tuple(golden["greedy24"].tolist())
  options = {"max_tokens": 24, "tokenizer": made}
  fused, ready = llama_weights.fuse(module, params)
  (found,) = generation.generate(None, fused, ready, [prompt], **options)
  assert found.tokens == expected
  assert found.text == made.decode(expected)
  # In company, and after a prefix.
  prefix = generation.read_prefix(module, params, prompt[:30])
  two = [prompt[30:], prompt[30:50]]
  together = generation.generate(
    None, module, params, two, prefix=prefix, **options
  )
  assert together[0].tokens == expected


def test_the_context_limits_the_work(monkeypatch):
  asked = []
  read = generation._read

  def noted(module, params, padded, lengths, prefix, most, parts):
    asked.append(most)
    return read(module, params, padded, lengths, prefix, most, parts)

  monkeypatch.setattr(generation, "_read", noted)
  prompts = [[1, 2, 3], [1]]
  (first, second) = generation.generate(
    None, MODEL, PARAMS, prompts, max_tokens=10**9
  )
  assert asked == [CONFIG.context]
  assert (first.reason, second.reason) == ("context", "context")
  assert len(first.tokens) == CONFIG.context - 2
