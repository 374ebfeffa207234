import json
import types

import pytest

from effjax.studies import report
from launch import overview

SMALL = types.SimpleNamespace(
  summary=lambda results: f"{results['count']} models.",
  from_results=lambda results: [
    report.Section(
      "Numbers", [report.Table(["model", "AUC"], [["dense", results["auc"]]])]
    )
  ],
  provenance=lambda results: {"seeds": results["seeds"]},
)
PAGES = {"first": lambda: SMALL, "second": lambda: SMALL}


def write(place, study, **more):
  place.mkdir(parents=True)
  content = {
    "study": study,
    "title": f"The {study} study",
    "count": 7,
    "auc": 0.875,
    "seeds": [0, 1],
    "seconds": {"wall": 61.4},
  }
  (place / "results.json").write_text(json.dumps(content | more))


def page(place):
  return (place / "report.html").read_text("utf-8")


def test_every_study_is_shown_in_the_order_of_the_pages(tmp_path):
  write(tmp_path / "b", "first", auc=0.8125)
  write(tmp_path / "a", "second")
  (tmp_path / "b" / "report.html").write_text("its own")
  assert overview.main([str(tmp_path)], PAGES) == 0
  text = page(tmp_path)
  assert text.index("The first study") < text.index("The second study")
  assert text.index("b: Numbers</h2>") < text.index("a: Numbers</h2>")
  assert "0.8125" in text
  assert "0.875" in text
  assert "61 s of computing" in text
  assert "<code>b/report.html</code>" in text
  assert "a/report.html" not in text
  assert (tmp_path / "b" / "report.html").read_text() == "its own"


def test_runs_of_one_study_keep_the_order_of_their_beginning(tmp_path):
  for name, hour in (("adult", 14), ("bias", 13)):
    environment = {"started": f"2026-01-01T{hour}:00:00+00:00"}
    write(tmp_path / name, "first", environment=environment)
  studies, _ = overview.find(tmp_path, PAGES)
  assert [study.place.name for study in studies] == ["bias", "adult"]


def test_what_was_not_run_is_in_the_report(tmp_path, capsys):
  write(tmp_path / "a", "first")
  skipped = "second: the data <x> could not be fetched"
  assert overview.main([str(tmp_path), f"--skipped={skipped}"], PAGES) == 0
  text = page(tmp_path)
  assert "Not run:</strong> second: the data &lt;x&gt; could" in text
  assert "<h2>Numbers</h2>" in text
  assert capsys.readouterr().out == f"report: {tmp_path}/report.html\n"


def test_a_report_may_consist_of_what_was_not_run(tmp_path):
  place = tmp_path / "new"
  assert overview.main([str(place), "--skipped", "all of it"], PAGES) == 0
  assert "all of it" in page(place)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"study": "third"}'])
def test_results_that_cannot_be_shown_are_named(tmp_path, content):
  write(tmp_path / "a", "first")
  (tmp_path / "b").mkdir()
  (tmp_path / "b" / "results.json").write_text(content)
  assert overview.main([str(tmp_path)], PAGES) == 0
  assert f"Not run:</strong> {tmp_path}/b/results.json" in page(tmp_path)


def test_users_errors(tmp_path, capsys):
  assert overview.main([str(tmp_path / "nowhere")], PAGES) == 2
  assert "no directory below" in capsys.readouterr().err
  file = tmp_path / "file"
  file.write_text("")
  assert overview.main([str(file)], PAGES) == 2
  assert "is a file, not a directory" in capsys.readouterr().err
  assert overview.main([], PAGES) == 2
  assert "DIR is missing" in capsys.readouterr().err
  assert overview.main(["x", "--skiped=y"], PAGES) == 2
  assert "did you mean '--skipped'" in capsys.readouterr().err
  assert overview.main(["--help"], PAGES) == 0


def test_every_study_that_can_run_has_a_page():
  from launch import run

  assert set(overview.PAGES) == {*run.STUDIES, "audit"}  # one of its own
  for load in overview.PAGES.values():
    for name in ("summary", "from_results", "provenance"):
      assert callable(getattr(load(), name))
