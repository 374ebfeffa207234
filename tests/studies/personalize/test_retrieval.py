"""Retrieval finds what is like a mail, and never the mail itself."""

import json
import pathlib
from collections import Counter

import numpy as np
import pytest

from effjax.data import mails
from effjax.studies.personalize import ranking, retrieval

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "personalization"
TEXTS = [
  "the meeting is moved to friday at ten",
  "the budget and the report are late again",
  "the meeting is moved to friday at noon",
  "please bring cake to the party on sunday",
  "Please bring cake\nto the party on sunday",
  "so: the meeting is moved to friday at ten, and that is all",
]
MAILS = [mails.mail(text) for text in TEXTS]
WORDS = sorted({word for text in TEXTS for word in ranking.words(text)})


def encode(texts):
  """Return counts of known words as vectors of length one."""
  counts = [Counter(ranking.words(text)) for text in texts]
  found = np.array([[c[word] for word in WORDS] for c in counts], np.float32)
  return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)


def build(kind="minilm", some=MAILS, **options):
  return retrieval.build(some, kind=kind, encode=encode, **options)


def places(hits):
  return [[hit.place for hit in some] for some in hits]


def test_golden_scores_of_words():
  golden = json.loads((GOLDEN / "text_metrics.json").read_text("utf-8"))["bm25"]
  for key, variant, k1 in [
    ("bm25s_lucene_k1_1.5_b_0.75", "lucene", 1.5),
    ("bm25s_robertson_k1_1.2_b_0.75", "robertson", 1.2),
    ("rank_bm25_okapi_k1_1.5_b_0.75_eps_0.25", "okapi", 1.5),
  ]:
    queries = [query.split() for query in golden["queries"]]
    found = ranking.bm25(golden["docs_tokens"], queries, variant=variant, k1=k1)
    np.testing.assert_allclose(found, golden[key], rtol=0, atol=1e-5)


def test_scores_of_words_by_their_formulas():
  documents = [["a", "b", "a"], ["b", "c"], ["b"], ["d", "b", "b", "b", "a"]]
  query, total = ["a", "c", "a", "z"], 4
  lengths = np.array([len(document) for document in documents])
  norm = 1.2 * (1 - 0.6 + 0.6 * lengths / lengths.mean())
  for variant, weight in {
    "lucene": lambda n: np.log(1 + (total - n + 0.5) / (n + 0.5)),
    "robertson": lambda n: np.log(max(1, (total - n + 0.5) / (n + 0.5))),
  }.items():
    expected = np.zeros(total)
    for word in query:
      times = np.array([document.count(word) for document in documents])
      expected += weight((times > 0).sum()) * times / (times + norm)
    found = ranking.bm25(documents, [query], variant=variant, k1=1.2, b=0.6)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
  # Words in most documents, of which Okapi's weights would be negative.
  held = {w: sum(w in d for d in documents) for w in "abcd"}
  weights = {w: np.log((total - n + 0.5) / (n + 0.5)) for w, n in held.items()}
  floor = 0.25 * np.mean(list(weights.values()))
  times = np.array([document.count("b") for document in documents])
  found = ranking.bm25(documents, [["b"]], variant="okapi", k1=1.2, b=0.6)
  expected = floor * times * 2.2 / (times + norm)
  np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_nothing_to_score():
  for variant in ranking.VARIANTS:
    score = lambda d, q, v=variant: ranking.bm25(d, q, variant=v).tolist()
    assert score([["a"], []], [[], ["z"]]) == [[0, 0], [0, 0]]
    assert score([[], []], [["a"]]) == [[0, 0]]
    assert score([["a"]], []) == []
    with pytest.raises(ValueError, match="at least one document"):
      ranking.bm25([], [["a"]], variant=variant)
  with pytest.raises(ValueError, match="variant must be one of lucene"):
    ranking.bm25([["a"]], [], variant="bm11")


def test_relevance_is_that_of_the_published_retriever():
  golden = np.load(GOLDEN / "minilm.npz")
  np.testing.assert_allclose(
    ranking.relevance(golden["cos"].astype(float)),
    golden["langchain_relevance"],
    atol=1e-6,
  )
  assert ranking.relevance(-1.0) == pytest.approx(1 - 2 * 2**0.5)
  assert ranking.relevance(1.0) == 1
  assert ranking.cosine(0.2) == pytest.approx(0.434315, abs=1e-6)


def test_the_nearest_are_taken_first_and_filtered_then():
  index = build()
  (found,) = retrieval.search(index, [TEXTS[0]], 3, threshold=-9)
  assert [hit.place for hit in found] == [0, 2, 5]
  assert found[0].relevance == pytest.approx(1)
  expected = ranking.relevance(encode(TEXTS[2:3]) @ encode(TEXTS[:1]).T)
  assert found[1].relevance == pytest.approx(expected.item())
  least = found[1].relevance
  assert places(retrieval.search(index, TEXTS[:1], 3, threshold=least)) == [
    [0, 2]
  ]
  # Equals in their order; nothing at all; no queries.
  assert places(retrieval.search(index, [TEXTS[3]], 2)) == [[3, 4]]
  assert places(retrieval.search(index, ["nothing known"], 3)) == [[]]
  assert retrieval.search(index, [], 3) == []
  assert places(retrieval.search(index, [TEXTS[0]], 0)) == [[]]
  assert len(retrieval.search(index, [TEXTS[0]], 99, threshold=-9)[0]) == 6


@pytest.mark.parametrize("kind", retrieval.KINDS)
def test_a_mail_never_finds_itself(kind):
  found = places(retrieval.neighbours(build(kind, threshold=-9), 6))
  # The last contains the first; the fourth and fifth are the same.
  for row, places_ in enumerate(found):
    barred = {0: {0, 5}, 5: {0, 5}, 3: {3, 4}, 4: {3, 4}}.get(row, {row})
    assert not barred & set(places_)
  assert found[2][0] == 0
  assert found[0][0] == 2


def test_words_alone():
  index = retrieval.build(MAILS, kind="bm25")
  assert places(retrieval.search(index, ["cake"], 3)) == [[3, 4]]
  assert places(retrieval.search(index, ["unheard of"], 3)) == [[]]


def test_both_together():
  scores = np.array([[3.0, 1.0, 2.0]])
  other = np.array([[1.0, 5.0, 1.0]])
  expected = 1 / (60 + np.array([1, 3, 2])) + 1 / (60 + np.array([2, 1, 3]))
  np.testing.assert_allclose(ranking.fused(scores, other), expected[None])


def test_a_threshold_keeps_false_hits_at_bay():
  index = build(some=MAILS[:4])
  queries = ["meeting friday ten", "budget late", "friday noon", "cake party"]
  for share in (0.0, 0.1, 0.3):
    tuned, report = retrieval.tune(index, queries, false_hits=share)
    relevance = ranking.relevance(encode(queries) @ index.vectors.T)
    own = np.eye(4, dtype=bool)
    assert report.false_hits == np.mean(relevance[~own] >= tuned.threshold)
    assert report.false_hits <= share
    assert report.recall == np.mean(relevance[own] >= tuned.threshold)
    # No lower one would do.
    lower = np.nextafter(np.float32(tuned.threshold), np.float32(-9))
    assert np.mean(relevance[~own] >= lower) > share
  assert tuned.threshold == report.threshold
  with pytest.raises(ValueError, match="for each of at least two mails, got 1"):
    retrieval.tune(index, queries[:1])
  with pytest.raises(ValueError, match="false_hits must be in"):
    retrieval.tune(index, queries, false_hits=1)


@pytest.mark.parametrize("kind", retrieval.KINDS)
def test_an_index_is_kept_with_its_threshold(kind, tmp_path):
  index = build(kind, threshold=0.125)
  retrieval.save(tmp_path / "index", index)
  found = retrieval.load(tmp_path / "index", encode)
  assert found.mails == index.mails
  assert (found.kind, found.threshold) == (kind, 0.125)
  assert retrieval.neighbours(found, 3) == retrieval.neighbours(index, 3)
  if kind != "bm25":
    with pytest.raises(ValueError, match="needs encode"):
      retrieval.load(tmp_path / "index")


def test_users_errors(tmp_path):
  with pytest.raises(ValueError, match="kind must be one of minilm"):
    build("faiss")
  with pytest.raises(ValueError, match="at least one mail"):
    build(some=[])
  with pytest.raises(ValueError, match="needs encode, got None"):
    retrieval.build(MAILS)
  with pytest.raises(ValueError, match="k must be at least 0"):
    retrieval.search(build(), ["a"], -1)
  with pytest.raises(ValueError, match=r"must have the shape \[1, 6\]"):
    retrieval.search(build(), ["a"], 1, without=np.zeros((2, 6), bool))
  path = tmp_path / "other"
  retrieval.safetensors.write(path, {"a": np.zeros(2)})
  with pytest.raises(ValueError, match="is no index of mails"):
    retrieval.load(path)
