"""The study of edits of a language model, with a tiny one."""

import json
import math

import numpy as np
import pytest

from configs.edit import smollm2
from effjax.studies.edit import (
  facts,
  language_findings,
  language_keys,
  language_page,
  language_records,
  language_study,
)
from launch import overview, run


def case(method, prompt, success, neighbours=1.0, **changes):
  found = dict.fromkeys(language_findings.MEASURES, 1.0)
  found |= {"efficacy": success, "paraphrases": success}
  found |= {"neighbours": neighbours, "method": method, "prompt": prompt}
  return found | changes


def test_scores_are_harmonic_means_and_failures_change_nothing():
  cases = [case("ft", "a", 1.0, 0.5), {"method": "ft", "failed": "x"}]
  # Means over both: 1/2, 1/2 and 3/4.
  expected = 3 / (2 + 2 + 4 / 3)
  np.testing.assert_allclose(language_findings.score(cases), expected)
  assert language_findings.score(cases[1:]) == 0.0
  rates = (1e-3, 1e-2, 1e-1)
  tried = [cases[1:], cases[:1], cases[:1]]
  assert language_findings.choose(rates, tried) == 1e-2


def test_methods_are_compared_by_fact():
  spread = np.linspace(0.2, 1.0, 8)
  cases = [case("rome", str(i), s) for i, s in enumerate(spread)]
  cases += [case("ft", str(i), 0.9 * s) for i, s in enumerate(spread)]
  cases[3]["neighbours_kept"] = None
  found = language_findings.gather(("rome", "ft"), cases)
  rome, ft = found["table"]
  np.testing.assert_allclose(rome["efficacy"]["estimate"], spread.mean())
  assert rome["neighbours_kept"]["estimate"] == 1.0
  assert rome["score"]["low"] < rome["score"]["estimate"]
  # Paired, the difference is clear although the intervals overlap.
  assert ft["score"]["high"] > rome["score"]["low"]
  (difference,) = found["differences"]
  assert difference["score"]["low"] > 0
  assert found["failed"] == 0


def test_facts_that_choose_rates_are_not_reported():
  table = facts.table()
  reported, tuned = language_study.split(table[:10], 24, 3)
  assert (len(reported), len(tuned)) == (7, 3)
  assert not set(reported) & set(tuned)
  with pytest.raises(ValueError, match="knows 3 of the facts"):
    language_study.split(table[:3], 24, 3)


def test_the_configuration():
  whole, quick = smollm2.get_config(), smollm2.get_config("quick")
  assert whole.methods == language_records.METHODS
  assert (whole.facts, whole.tuning) == (24, 6)
  assert (quick.facts, len(quick.methods)) == (4, 3)
  assert whole.study in run.STUDIES
  assert whole.study in overview.PAGES


def test_a_cut_line_is_made_again(tmp_path):
  class Editor:
    made = 0

    def case(self, fact, method, rate):
      self.made += 1
      named = {"prompt": fact.prompt, "method": method, "rate": rate}
      return named | {"failed": "diverged"}

  path, editor = tmp_path / "cases.jsonl", Editor()
  fact, other = facts.table()[:2]
  ask = lambda own: language_study.Journal(path, editor).case(
    "reported", own, "ft", 1e-3
  )
  ask(fact)
  ask(other)
  path.write_text(path.read_text()[:-9])
  assert ask(fact)["failed"] == ask(other)["failed"] == "diverged"
  assert editor.made == 3
  assert len(path.read_text().splitlines()) == 2


@pytest.mark.slow
def test_a_tiny_study_from_end_to_end(tmp_path, monkeypatch, capsys):
  from tests.models import language_models as tiny

  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  weights = tmp_path / "tiny.gguf"
  weights.write_bytes(tiny.gguf_file(tiny.random_params()))
  texts = lambda key, model, count, length: (
    np.random.default_rng(count).integers(3, 250, (count, length))
  ).astype(np.int32)
  monkeypatch.setattr(language_keys, "own_texts", texts)
  # Whatever the tiny model says is what it knows.
  monkeypatch.setattr(
    "effjax.studies.edit.language_cases.known",
    lambda model, found: (list(found[:3]), list(found[3:])),
  )
  config = smollm2.get_config("miniature")
  config.model = str(weights)
  others = (("h to",), ("h ll",))
  config.wanted = tuple(
    (f"he {name}", name, "h", "to", *others)
    for name in ("Tell", "hello", "Hell", "toto")
  )
  config.methods = language_records.METHODS
  place = tmp_path / "run"
  found = language_study.run(config, str(place))
  assert [row["method"] for row in found["table"]] == list(config.methods)
  assert len(found["not_known"]) == 1
  for row in found["table"]:
    assert row["failed"] == 0
    assert math.isfinite(row["norm"]["estimate"])
    assert row["norm"]["estimate"] > 0
  page = (place / "report.html").read_text()
  assert language_page.summary(found).split("**")[1] in page
  # A second time nothing is made anew.
  capsys.readouterr()
  before = (place / "cases.jsonl").read_text()
  again = language_study.run(config, str(place))
  assert (place / "cases.jsonl").read_text() == before
  assert "reported:" not in capsys.readouterr().out
  assert again["table"] == json.loads(json.dumps(found["table"]))
