"""Editing a tiny model from the command line, and what is refused."""

import jax
import numpy as np
import pytest

from effjax.studies import language
from effjax.studies.edit import language_keys, language_records
from launch import edit
from tests.models import language_models as tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  place = tmp_path_factory.mktemp("edit")
  (place / "tiny.gguf").write_bytes(tiny.gguf_file(tiny.random_params()))
  patch = pytest.MonkeyPatch()
  patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
  yield place
  patch.undo()


@pytest.fixture
def drawn(monkeypatch):
  """Texts that no model writes, since that takes long to compile."""

  def texts(key, model, count, length):
    del key, model
    generator = np.random.default_rng(count)
    return generator.integers(3, 250, (count, length)).astype(np.int32)

  monkeypatch.setattr(language_keys, "own_texts", texts)


def test_an_edit_is_shown_saved_made_again_and_undone(place, drawn, capsys):
  weights, change = str(place / "tiny.gguf"), str(place / "he.safetensors")
  words = ["--model", weights, "--tokens", "2"]
  fact = ["--set", "he Tell|t", "--neighbour", "hello|e"]
  output = str(place / "edited")
  saved = ["--save", change, "--output", output]
  assert edit.main([*words, *fact, *saved]) == 0
  said = capsys.readouterr().out
  assert "layer_0/mlp/down/kernel, rank 1" in said
  assert said.count("\nfact ") == said.count("\nneighbour  ") == 1
  asked = [language_records.Question("fact", "he Tell", "t", "e")]
  models = [language.load(name) for name in (weights, output)]
  before, after = (language_records.answers(m, asked).nll[0, 0] for m in models)
  assert after < before
  base, edited = (model.params for model in models)
  found = language_records.read(change)
  assert found.edits == ("he Tell|t",)
  assert found.notes["base"] == language.load(weights).digest
  same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
  same(language_records.redo(base, found.record), edited)
  back = str(place / "back")
  undo = ["--model", output, "--undo", change, "--output", back]
  assert edit.main(undo) == 0
  assert "taken back: he Tell|t" in capsys.readouterr().out
  same(language.load(back).params, base)

  # Neither is it there to be undone, nor is it made twice.
  assert edit.main(["--model", back, "--undo", change]) == 2
  assert "has changed since the edit" in capsys.readouterr().err
  assert edit.main(["--model", output, "--apply", change]) == 2
  assert "made for another base" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("method", language_records.METHODS)
def test_every_method_makes_two_edits(place, capsys, method):
  facts = ["--set", "he Tell|t", "--set", "to Hello|ll"]
  words = ["--model", str(place / "tiny.gguf"), *facts, "--method", method]
  output = str(place / method)
  more = ["--spread", "2"] if method == "memit" else []
  assert edit.main([*words, *more, "--output", output]) == 0
  assert capsys.readouterr().out.count("\nfact ") == 2
  question = language_records.Question
  asked = [
    question("", "he Tell", "t", "e"),
    question("", "to Hello", "ll", ""),
  ]
  models = [language.load(name) for name in (str(place / "tiny.gguf"), output)]
  before, after = (language_records.answers(m, asked).nll[0] for m in models)
  assert after.sum() < before.sum()


KNOWN = "The capital of France is"


@pytest.mark.parametrize(
  ("words", "message"),
  [
    ([], "--set is missing"),
    (["--set", KNOWN], "has no '|'"),
    (["--set", f"{KNOWN}|"], "has no object"),
    (["--set", "|Rome"], "has no prompt"),
    (["--set", f"{KNOWN}|Paris"], "which it is already"),
    (["--set", f"{KNOWN}|Rome", "--subject", "Peru"], "is not in the prompt"),
    (["--set", "he is|x"], "has no name; say with --subject"),
    (["--set", "Ann and Bob are|x"], "the names Ann, Bob"),
    (["--set", f"{KNOWN}|Rome"] * 2, "is set twice"),
    (["--set", "he T|t", "--method", "rom"], "did you mean 'rome'?"),
    (["--set", "he T|t", "--rank", "0"], "--rank must be at least 1"),
    (["--set", "he T|t", "--layer", "7"], "which has those from 0 to 1"),
    (["--set", "he T|t", "--neighbour", "x"], "--neighbour 'x' has no '|'"),
    (["--set", "he T|t", "--old", "a", "--old", "b"], "given 2 times for 1"),
    (["--save", "x", "--undo", "y"], "--save needs an edit"),
    (["--undo", "absent"], "there is no file absent"),
    (["--st", "x"], "did you mean '--set'"),
  ],
)
def test_users_errors(place, capsys, words, message):
  assert edit.main(["--model", str(place / "tiny.gguf"), *words]) == 2
  said = capsys.readouterr().err
  assert message in said
  assert said.count("\n") == 1


def test_another_file_is_no_edit(place, capsys):
  from effjax.io import safetensors

  path = place / "other.safetensors"
  safetensors.write(path, {"x": np.zeros(2)})
  words = ["--model", str(place / "tiny.gguf"), "--apply", str(path)]
  assert edit.main(words) == 2
  assert "holds no edit of launch.edit" in capsys.readouterr().err
