"""The whole study on a tiny model: to the end, resumed, and shown."""

import json

import pytest

from effjax.studies import personalize
from effjax.studies.personalize import page, runner
from launch import blocks, configuring, overview, readme
from tests.models import language_models as tiny

CONTEXT = 900


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  place = tmp_path_factory.mktemp("personalize")
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(tiny.METADATA, "llama.context_length", CONTEXT)
    patch.setitem(tiny.METADATA, "llama.block_count", 1)
    params = tiny.random_params()
    del params["layer_1"]
    (place / "tiny.gguf").write_bytes(tiny.gguf_file(params))
  found = configuring.load("configs/personalize/synthetic.py:miniature")
  found = found.copy_and_resolve_references()
  with found.unlocked():
    found.model = str(place / "tiny.gguf")
    found.arms = ("pretrained", "lora")
    found.rates.lora = (0.02,)
    found.data.update(persons=("kim", "sunny"), mails=20, test=4)
    found.drafts.update(max_tokens=8, shown=1)
    found.update(length=640, rank=2, rows=1, cross=("lora",), mauve_seeds=2)
  patch = pytest.MonkeyPatch()
  patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
  yield found
  patch.undo()


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
  place = tmp_path_factory.mktemp("study") / "run"
  return place, personalize.run(config, str(place))


def test_every_arm_has_a_row(finished, config):
  _, results = finished
  assert [row["arm"] for row in results["table"]] == list(config.arms)
  assert len(results["runs"]) == 2 * 2
  before, lora = results["table"]
  assert lora["trained"] > 0 == before["trained"]
  scores = [run["bleu"] for run in results["runs"] if run["arm"] == lora["arm"]]
  assert lora["bleu"]["estimate"] == pytest.approx(sum(scores) / 2)


def test_the_matrix_has_what_the_table_has(finished):
  place, results = finished
  matrix = results["cross"]["lora"]
  own = {
    run["person"]: run["bleu"]
    for run in results["runs"]
    if run["arm"] == "lora"
  }
  diagonal = [matrix["bleu"][i][i] for i in range(2)]
  assert diagonal == pytest.approx([own["kim"], own["sunny"]])
  # Checkpoints are large: none is left.
  assert not list(place.rglob("checkpoints"))


@pytest.mark.slow
def test_rates_retrieval_panels_and_secrets(config, tmp_path):
  whole = config.copy_and_resolve_references()
  with whole.unlocked():
    whole.arms = ("pretrained_rag", "lora_raft_rag", "rosa")
    whole.rates.lora, whole.rates.rosa = (0.01, 0.02), (0.01,)
    whole.data.update(persons=("kim",), show_texts=False)
    whole.update(cross=(), density=0.05)
    whole.panels.update(sizes=(8,), bases=("int8",))
    whole.privacy.update(arms=("lora",), repeats=(1, 2), candidates=7)
  results = personalize.run(whole, str(tmp_path))
  tried = results["tried"]["lora"]
  best = min(tried, key=lambda one: one["loss"])
  assert results["table"][1]["rate"] == best["rate"]
  # A rate at the edge is left only after two more were tried.
  rates = [one["rate"] for one in tried]
  assert rates == sorted(rates)
  assert len(rates) == 4 or best["rate"] not in (rates[0], rates[-1])
  assert all(run["retrieve"] == 3 for run in results["runs"][:2])
  sizes = results["panels"]["sizes"]
  found = [(row["value"], row["mails"]) for row in sizes]
  assert found == [(0, 16), (8, 8), (16, 16)]
  # Half of the mails are learned from twice as often.
  few = {
    p.parent.name for p in tmp_path.rglob("facts.json") if "size8" in str(p)
  }
  assert len(few) == 1
  assert f"epochs{2 * whole.epochs:g}_" in few.pop()
  # What the arm stands on anyway comes first.
  bases = [row["value"] for row in results["panels"]["bases"]]
  assert bases == ["float32", "int8"]
  rows = results["privacy"]["rows"]
  assert [row["arm"] for row in rows] == ["pretrained", "lora"]
  assert all(0 <= bits <= 3 for row in rows for bits in row["exposure"])
  # Without the flag no text is in results or points.
  assert results["shown"] == []
  points = [p.read_text("utf-8") for p in (tmp_path / "points").rglob("*.json")]
  assert points
  assert not any('"texts"' in point for point in points)


def test_what_was_measured_is_not_measured_again(finished, config, monkeypatch):
  place, results = finished

  def refuse(*args, **options):
    raise AssertionError("it is trained or examined again")

  monkeypatch.setattr(runner.tuning, "tune", refuse)
  monkeypatch.setattr(runner.Runner, "_examination", refuse)
  again = personalize.run(config, str(place))
  for name in results.keys() - {"environment"}:
    assert again[name] == results[name]


def test_the_report_shows_texts_of_made_up_persons(finished):
  place, results = finished
  text = (place / "report.html").read_text("utf-8")
  assert results["shown"][0]["instruction"] in text
  assert "can be used to pass for that person" in text
  assert "of 8B, David" in text
  assert overview.PAGES["personalize"]() is page
  kept = json.loads((place / "results.json").read_text())
  assert kept.keys() == results.keys()
  assert kept["table"] == results["table"]


def test_the_block_of_the_readme(finished, tmp_path, monkeypatch):
  place, results = finished
  monkeypatch.setattr(readme, "RESULTS", tmp_path)
  whole = json.loads((place / "results.json").read_text())
  whole["environment"]["command"] += " --config.data.directory=/home/me/mail"
  (tmp_path / "results.json").write_text(json.dumps(whole))
  readme.take("personalize", tmp_path)
  content = (tmp_path / "personalize.json").read_text()
  assert results["shown"][0]["mail"].splitlines()[0] not in content
  assert "/home/me" not in content
  kept = json.loads(content)
  lora = results["table"][1]
  kept["panels"] = {
    "arm": "LoRA",
    "person": "kim",
    "sizes": [{"value": n, "bleu": lora["bleu"]} for n in (0, 16)],
    "bases": [{"value": "nf4", "bleu": lora["bleu"]}],
  }
  row = {"title": "LoRA", "repeats": [1, 2], "exposure": [0.5, 3], "most": 3}
  kept["privacy"] = {"rows": [row]}
  text = blocks.BLOCKS["personalize"](kept)
  assert f"| LoRA | {lora['trained']:,} " in text
  assert f"| {lora['bleu']['estimate']:.3f} ± " in text
  assert "| *0.219* |" in text
  assert "another class of model" in text
  own = results["cross"]["lora"]["dominant"]["bleu"]
  assert f"LoRA: BLEU in {own['rows']} of 2 rows" in text
  assert "LoRA (kim, one seed) by the mails learned from: 0: " in text
  assert "how the weights are kept that are not trained: nf4: " in text
  assert (
    "planted in 1, 2 mails (at most 3.0, by chance 1.4): LoRA 0.5, 3.0" in text
  )
  assert 'src="launch/results/personalize_arms.svg"' in text
  assert (tmp_path / "personalize_arms.svg").is_file()


def test_texts_of_real_persons_stay_out(finished, config):
  """Of the files of a study without the flag none but the private has texts."""
  place, results = finished
  shown = results["shown"][0]
  quiet = {**results, "shown": []}
  words = max(shown["mail"].split("\n"), key=len)
  assert words in json.dumps(results["shown"])
  assert words not in json.dumps(quiet)
  for path in (place / "points").rglob("*.json"):
    assert words not in path.read_text("utf-8")
  assert (place / "private").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(arms=("lorra",)), "no arm 'lorra', did you mean 'lora'"),
    (dict(base="int9"), "base must be one of"),
  ],
)
def test_what_there_is_not(config, tmp_path, changes, message):
  other = config.copy_and_resolve_references()
  with other.unlocked():
    other.update(changes)
  with pytest.raises(ValueError, match=message):
    personalize.run(other, str(tmp_path / "x"))
