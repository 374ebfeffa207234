"""The report of results made by hand."""

import copy
import re

import pytest

from effjax.studies import report
from effjax.studies.spade import page
from tests.studies.spade import small


def build(results, path):
  report.build(
    path,
    title=results["title"],
    summary=page.summary(results),
    sections=page.from_results(results),
    provenance=page.provenance(results),
  )
  return path.read_text("utf-8")


def test_the_report_says_what_was_found(tmp_path):
  results = small.results()
  before = copy.deepcopy(results)
  text = build(results, tmp_path / "report.html")
  assert results == before
  assert "2 networks were taught" in text
  assert "mean pixel AUC of 0.800 over 2 methods" in text
  assert "+0.050 (+0.040 to +0.060)" in text
  assert "random -0.200 (-0.210 to -0.190)" in text
  assert "FastSPADE helps 1 of 2 methods and harms 1" in text
  assert "highest at 32" in text
  assert "highest at 0.5" in text
  assert "Mean of saliency, lrp;" in text
  assert "insertion curve (higher is better) by +0.020 (+0.010" in text
  assert "75.0" in text  # the patch is obeyed
  assert "answer kept" in text
  assert "0.625" in text


def test_results_of_an_earlier_version_say_nothing_of_answers(tmp_path):
  results = small.results()
  del results["answer_kept"]
  assert "nswer kept" not in build(results, tmp_path / "report.html")


def test_one_network_and_one_arm():
  results = small.results(seeds=(3,))
  del results["auc_against_dense"]["random"]
  text = page.summary(results)
  assert text.startswith("One network was taught")
  assert "Other ways" not in text


def test_what_is_undefined_is_said_to_be(tmp_path):
  results = small.without_numbers(small.results())
  text = build(results, tmp_path / "report.html")
  assert "mean pixel AUC of undefined" in text
  assert "changes this by undefined" in text
  assert "highest at" not in text
  assert page.helped(results) == (0, 0)
  found, _, _ = text.partition('<section id="provenance"')
  assert not re.search(r"\b(nan|None)\b", found)


@pytest.mark.parametrize("name", ["copies", "sparsity"])
def test_a_single_undefined_choice_is_passed_over(name):
  results = small.results()
  rows = results["ablations"][name]
  rows[0]["area"] = small.without_numbers(rows[0]["area"])
  plot = page.ablation_plot(results, name)
  assert f"highest at {rows[1]['value']:g}" in plot.alt


def test_few_photographs_are_named(tmp_path):
  results = small.results()
  results["agreement"] = [0.625, 0.5]
  parts = [
    {"train": [0], "validation": [1], "test": [2, 3]},
    {"train": [3], "validation": [2], "test": [0, 1]},
  ]
  results["photographs"] = {
    "names": ["dog", "jeep", "yurt", "goose"],
    "targets": {"985": "daisy"},
    "side": 224,
    "crops": 64,
    "parts": parts,
    "judged": [[0, 0, 4, 2], [6, 0, 0, 0]],
  }
  text = build(results, tmp_path / "report.html")
  assert "3 of 4, 2 by seed 0, 1 by seed 1; of them 6 random crops" in text
  assert "They show dog, yurt, goose." in text
  assert "985 is daisy" in text
  assert "62.5" in text  # called the same
  for cell in ("test, 4 crops", "test, 0 crops", "taught", "tuned"):
    assert cell in text
