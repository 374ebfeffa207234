import json
import re

import numpy as np
import pytest

from launch import audit, overview
from tests.studies.audit import small


@pytest.fixture(scope="module")
def done(tmp_path_factory):
  """The directory of an audit with training data."""
  place = tmp_path_factory.mktemp("audit")
  found = small.arrays()
  options = small.write(place, found)
  np.savez(
    place / "t.npz", labels=found["labels"], sex=found["sex"], old=found["old"]
  )
  options += [
    f"--train={place}/t.npz",
    f"--output={place}/out",
    "--resamples=50",
    "--title=A <test>",
  ]
  assert audit.main(options) == 0
  return place / "out"


def test_the_report_is_one_offline_file(done):
  text = (done / "report.html").read_text("utf-8")
  assert "A &lt;test&gt;" in text
  for title in ("Both models", "Who is hurt", "Decisions that differ", "Card"):
    assert f"<h2>{title}</h2>" in text
  assert "most for <strong>old</strong> in <strong>tie</strong>" in text
  assert not re.search(r"(src|href)=\"(?!#|data:)", text)
  assert "<script" not in text
  assert "@import" not in text
  assert "http" not in text.replace("http-equiv", "")


def test_the_results_describe_themselves(done):
  results = json.loads((done / "results.json").read_text())
  assert results["study"] == "audit"
  assert results["command"].startswith("python -m launch.audit --predictions=")
  assert set(results["files"]) == {
    "predictions", "reference", "groups", "labels", "train"
  }  # fmt: skip
  assert re.fullmatch("[0-9a-f]{64}", results["files"]["labels"]["sha256"])
  assert set(results["versions"]) >= {"python", "jax", "numpy", "effjax"}
  assert results["samples"] == small.ROWS
  assert {g["name"]: g["support"] for g in results["groups"]}["old"] == int(
    small.arrays()["old"].sum()
  )
  titles = [row["title"] for row in results["overall"]]
  assert "bias amplification" in titles
  assert "thresholds" in results["mitigation"]["needs"][0]


def test_a_users_errors(tmp_path, capsys):
  def fails(*arguments):
    assert audit.main(list(arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("audit: ")
    assert "Traceback" not in error
    return error

  found = small.arrays(20)
  options = small.write(tmp_path, found)
  assert "--predictions is missing" in fails()
  assert "did you mean '--labels'" in fails(*options, "--lables=x")
  assert "did you mean" in fails(*options[:2], f"--groups={tmp_path}/h.npz")
  assert "at least 1" in fails(*options, "--resamples=0")
  assert "invalid choice" in fails(*options, "--kind=logit")
  assert "no array 'probabilities'" in fails(*options, "--kind=probabilities")
  (tmp_path / "file").write_text("")
  assert "not a directory" in fails(*options, f"--output={tmp_path}/file")
  labels = found["labels"].astype(int)
  labels[3, 1] = 7
  np.savez(tmp_path / "l.npz", labels=labels)
  error = fails(*options)
  assert "l.npz, array 'labels', row 3" in error
  assert "7 is no label" in error


def test_help(capsys):
  assert audit.main(["--help"]) == 0
  text = capsys.readouterr().out
  assert "--validation_labels" in text
  assert "ids [N]" in text


def test_an_audit_is_shown_beside_the_studies(done):
  assert overview.main([str(done.parent)]) == 0
  text = (done.parent / "report.html").read_text("utf-8")
  assert "A &lt;test&gt;" in text
  assert "decisions otherwise than the dense one" in text
