import re

import numpy as np
import pytest

from effjax.io import files
from effjax.studies import audit, elements, report
from effjax.studies.audit import page
from tests.studies.audit import small

FOUND = small.arrays()


@pytest.fixture(scope="module")
def unlabelled():
  one = audit.from_arrays(
    FOUND["outputs"] > 0,
    FOUND["reference"] > 0,
    {"old": FOUND["old"]},
    kind="predictions",
    attributes=small.ATTRIBUTES,
    ids=FOUND["ids"],
  )
  return files.without_nan(audit.audit(one, resamples=20, title="<b>&"))


def build(results, place, **options):
  path = report.build(
    place / "report.html",
    title=results["title"],
    summary=page.summary(results),
    sections=page.from_results(results, **options),
    provenance=page.provenance(results),
  )
  return path.read_text("utf-8")


def test_a_page_without_labels_says_so(unlabelled, tmp_path):
  text = build(unlabelled, tmp_path)
  assert "There are no labels" in text
  assert "Where they disagree</h2>" in text
  assert "Who is hurt" not in text
  assert "Labels: without them no remedy can be judged" in text
  assert "&lt;b&gt;&amp;" in text
  assert not re.search(r"\bnan\b", text, flags=re.IGNORECASE)


def test_pictures_are_shown_where_given(unlabelled, tmp_path):
  first = unlabelled["exemplars"][0]["id"]
  pictures = {first: np.zeros((4, 4), np.uint8)}
  sections = page.from_results(unlabelled, pictures)
  shown = [
    e for s in sections for e in s.elements if isinstance(e, elements.Gallery)
  ]
  assert len(shown[0].pictures) >= 1
  assert "data:image/png" in build(unlabelled, tmp_path, pictures=pictures)
  assert "data:image/png" not in build(unlabelled, tmp_path)


def test_outputs_that_are_all_nan_make_a_page(tmp_path):
  nothing = np.full((20, 1), np.nan, np.float32)
  one = audit.from_arrays(
    nothing, nothing, {"sex": FOUND["sex"][:20]}, labels=nothing == 0
  )
  results = files.without_nan(audit.audit(one, resamples=5))
  text = build(results, tmp_path)
  assert "nothing can be said" in text
  assert "20 of 20" not in text
  assert "NaN outputs of the reference" in text
