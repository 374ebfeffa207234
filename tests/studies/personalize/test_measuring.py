"""Letters, drafts, scores, intervals and canaries by themselves."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from effjax.data import packing, personas
from effjax.data.dialogues import Example
from effjax.models import llama
from effjax.studies import language
from effjax.studies.personalize import (
  arms,
  costs,
  drafts,
  findings,
  letters,
  privacy,
  prompts,
  scoring,
  tuning,
)
from tests.models import language_models as tiny

CONFIG = dataclasses.replace(tiny.CONFIG, layers=1, context=600)
PARAMS = tiny.random_params(CONFIG)
MODEL = language.Language(
  "tiny", llama.Llama(CONFIG), PARAMS, tiny.tokenizer(), "0"
)


@pytest.fixture(scope="module")
def kim():
  written = personas.write(jax.random.key(0), personas.PERSONAS["kim"], 12)
  mails = [each.mail for each in written]
  said = {each.mail.id: each.instruction for each in written}
  return letters.make(
    "kim",
    mails[:9],
    mails[9:],
    said,
    preamble=prompts.Preamble("Write."),
    kind="bm25",
  )


def test_examples_end_with_the_whole_mail(kim):
  raft = letters.Raft(share=1.0)
  made = letters.examples(kim, MODEL.tokenizer, raft=raft, length=400)
  assert made.too_long == 0
  assert made.retrieved > 0
  for mail, example in zip(kim.train, made.examples, strict=True):
    response = example.tokens[example.prompt :]
    own = MODEL.tokenizer.encode(mail.text, special=False)
    assert response.tolist() == [*own, MODEL.tokenizer.end]
    # The mail itself is never retrieved for its own prompt.
    prompt = MODEL.tokenizer.decode(example.tokens[: example.prompt])
    assert mail.text not in prompt
  short = letters.examples(kim, MODEL.tokenizer, length=200)
  assert short.too_long > 0


def test_each_epoch_may_draw_anew_which_prompts_have_earlier_mails(kim):
  draw = functools.partial(
    letters.examples, kim, MODEL.tokenizer, length=400, seed=1
  )
  raft = letters.Raft(share=0.5)
  fixed, anew = (
    draw(raft=raft),
    draw(raft=raft._replace(resample_each_epoch=True)),
  )
  texts = lambda examples: [each.tokens.tolist() for each in examples]
  assert texts(anew.variants(0)) == texts(fixed.examples)
  assert (anew.retrieved, anew.tokens) == (fixed.retrieved, fixed.tokens)
  plain, full = draw(), draw(raft=letters.Raft(share=1.0))
  assert texts(anew.examples) == texts(full.examples)
  sides = list(zip(texts(plain.examples), texts(full.examples), strict=True))
  assert sum(a != b for a, b in sides) > 5
  for epoch in (1, 2):
    for mail, own, pair in zip(
      kim.train, texts(anew.variants(epoch)), sides, strict=True
    ):
      assert (
        own
        == pair[
          prompts.included(
            mail.id, seed=1, epoch=epoch, share=0.5, resample_each_epoch=True
          )
        ]
      )
  assert texts(anew.variants(1)) != texts(anew.variants(2))
  # Training sees them, in rows that are filled by the longest.
  head = anew.examples[0].tokens[: anew.beginning].tolist()
  assert len(head) > 5
  made = packing.packed(
    anew.examples,
    2,
    400,
    seed=0,
    variants=anew.variants,
    beginning=len(head),
  )
  for epoch in (0, 2):
    seen = []
    for number in range(made.per_epoch):
      batch = made[epoch * made.per_epoch + number]
      for tokens, parts in zip(batch["tokens"], batch["segments"], strict=True):
        assert tokens[parts < 0].tolist() == head
        seen += [
          head + tokens[parts == n].tolist() for n in range(1, parts.max() + 1)
        ]
    known = texts(anew.variants(epoch))
    assert seen
    assert all(text in known for text in seen)
  assert plain.variants is None


def test_letters_that_make_no_sense(kim):
  said = dict(kim.instructions)
  del said[kim.train[0].id]
  with pytest.raises(ValueError, match="1 of 9 mails of kim have no instr"):
    letters.make("kim", kim.train, (), said)
  with pytest.raises(ValueError, match="1 mails of kim are to be learned"):
    letters.make("kim", kim.train, kim.train[:1], kim.instructions)
  with pytest.raises(ValueError, match="there is no index"):
    letters.found(kim._replace(index=None), ["x"], 1)


def test_budgets_are_epochs(kim):
  made = letters.examples(kim, MODEL.tokenizer, length=600)
  rows = packing.packed(made.examples, 1, 600, seed=0).per_epoch
  plan, count = tuning.plan(
    tuning.Recipe(epochs=3, rows=2, length=600, arm="full"), made
  )
  assert (plan.steps, count) == (-(-3 * rows // 2), 2)
  _, fewer = tuning.plan(tuning.Recipe(rows=99, length=600), made)
  assert fewer == rows
  with pytest.raises(ValueError, match="epochs must be above 0"):
    tuning.plan(tuning.Recipe(epochs=0), made)


def test_every_mail_weighs_the_same():
  texts = [Example(np.arange(size, dtype=np.int32), 2) for size in (4, 10)]
  batch = packing.packed(
    texts, 1, 14, seed=0, shuffle=False, reduction="per_example"
  )[0]
  counts = np.sort(batch["weights"][batch["weights"] > 0])
  np.testing.assert_allclose(counts, [1 / 16] * 8 + [1 / 4] * 2, rtol=1e-6)
  with pytest.raises(ValueError, match="reduction must be one of"):
    packing.packed(texts, 1, 14, seed=0, reduction="mean")


@pytest.mark.parametrize(
  ("text", "exact", "reference"),
  [
    ("Here is the email:\nHi", "Hi", "Hi"),
    ("SUBJECT: a\nHi", "Hi", "Hi"),
    ("the Subject: a\nHi", "the Subject: a\nHi", "the Hi"),
    ("Hi\nSubject: last", "Hi", "Hi\nSubject: last"),
    ("E-MAIL CONTENT:\nHi", "Hi", "Hi"),
  ],
)
def test_drafts_are_cleaned_in_both_ways(text, exact, reference):
  assert drafts.cleaned(text) == exact
  assert drafts.cleaned(text, convention="reference") == reference


def test_all_arms_are_told_apart():
  assert len({arm.title for arm in arms.ARMS.values()}) == len(arms.ARMS) == 18
  assert arms.find("pretrained_rag") == ("pretrained_rag", None, False, True)


def test_scores_of_perfect_and_empty_drafts():
  mails = ["Hi Ada,\n\nsee you at two.\n\nBest,\nBo", "No, thank you so much."]
  found = scoring.compare([mails[0], ""], mails, ["a", "b"], ["see you at six"])
  assert found["scores"]["bleu"] == [1.0, 0.0]
  assert found["bleu_least"] == 0.0
  assert found["empty"] == 1
  assert found["copied"] == pytest.approx(3 / 8)
  undefined = scoring.mauve(np.ones((4, 3)), np.ones((4, 3)), feature="x")
  assert np.isnan(undefined["mean"])
  assert "distinct" in undefined["undefined"]


def test_intervals_hold_the_mean_and_shrink():
  generator = np.random.default_rng(0)
  scores = generator.normal(0.3, 0.1, (2, 200))
  strata = np.repeat([0, 1], 100)
  found = findings.resampled(scores, strata)
  assert found["low"] < found["estimate"] < found["high"]
  assert found["estimate"] == pytest.approx(scores.mean())
  one = findings.resampled(scores[:1], strata)
  half = 1.96 * scores[0].std() / 200**0.5
  assert one["high"] - one["low"] == pytest.approx(2 * half, rel=0.15)
  nothing = findings.resampled(np.full((1, 3), np.nan), np.zeros(3))
  assert np.isnan(nothing["estimate"])


def test_the_diagonal_is_compared():
  measure = lambda x: {"bleu": x, "rouge_l": 0.0, "mauve_f": {"mean": x}}
  found = findings.cross(
    {
      "a": {"a": measure(0.3), "b": measure(0.1)},
      "b": {"a": measure(0.2), "b": measure(0.15)},
    },
    "f",
  )
  assert found["dominant"]["mauve"] == {"rows": 1, "columns": 2}
  assert found["dominant"]["rouge_l"] == {"rows": 0, "columns": 0}


def test_secrets_are_planted_and_found(kim):
  planted, canaries = privacy.plant(
    jax.random.key(1), kim, repeats=(1, 3), candidates=5
  )
  for secret, times in zip(canaries.secrets, canaries.repeats, strict=True):
    assert sum(secret in mail.text for mail in planted.train) == times
  assert len({*canaries.secrets, *canaries.candidates}) == 7
  assert all(mail.id in planted.instructions for mail in planted.train)
  assert not any("P.S." in said for said in planted.instructions.values())
  with pytest.raises(ValueError, match="10 mails would have a secret"):
    privacy.plant(jax.random.key(1), kim, repeats=(10,), candidates=5)


def test_log_perplexities_are_those_of_the_whole():
  context = MODEL.tokenizer.encode("hello to")
  texts = ["abc", "he1 2"]
  found = privacy.log_perplexity(MODEL, PARAMS, context, texts)
  apply = jax.jit(MODEL.module.apply)
  for text, value in zip(texts, found, strict=True):
    own = [*context, *MODEL.tokenizer.encode(text)]
    tokens = np.zeros((1, 12), np.int32)
    tokens[0, : len(own)] = own
    chances = np.asarray(jax.nn.log_softmax(apply({"params": PARAMS}, tokens)))
    places = np.arange(len(context), len(own))
    wanted = -chances[0, places - 1, tokens[0, places]].sum()
    assert value == pytest.approx(wanted, rel=1e-4)


def test_costs_are_measured():
  with costs.measured() as cost:
    sum(range(10**5))
  assert cost["cpu"] > 0 < cost["wall"]
  assert cost["memory"] is None or cost["memory"] > 2**20
