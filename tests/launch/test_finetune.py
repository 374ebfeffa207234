"""Fine-tuning a tiny model from the command line, and merging what it made."""

import json

import jax
import numpy as np
import pytest

from effjax import tree
from effjax.io import peft_config, safetensors
from effjax.studies import language
from launch import chat, finetune, merge
from tests.models import language_models as tiny

SMALL = ["--steps", "6", "--rows", "2", "--length", "30", "--rank", "2"]


@pytest.fixture
def weights(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  path = tmp_path / "tiny.gguf"
  path.write_bytes(tiny.gguf_file(tiny.random_params()))
  return str(path)


@pytest.fixture
def dialogues(tmp_path):
  path = tmp_path / "my.jsonl"
  lines = [{"prompt": f"he{n}", "response": "hello to"} for n in range(9)]
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return path


def command(weights, dialogues, place, *more):
  options = ["--model", weights, "--data", str(dialogues)]
  return [*options, "--workdir", str(place), *SMALL, *more]


def losses(place):
  found = json.loads((place / "results.json").read_text())
  return found["before"], found["after"]


def test_an_adapter_is_made_talked_to_and_merged(
  weights, dialogues, tmp_path, capsys
):
  place = tmp_path / "mine"
  words = command(weights, dialogues, place, "--learning_rate", "0.05")
  assert finetune.main(words) == 0
  said = capsys.readouterr().out
  assert "8 dialogues to train on, 1 held out" in said
  assert "numbers are trained" in said
  assert f"--adapter {place / 'adapter'}" in said
  before, after = losses(place)
  assert after < before
  config = peft_config.read(place / "adapter")
  assert config["r"] == 2
  assert config["base_model_name_or_path"] == weights

  # The same command again finds it complete, with the same numbers.
  assert finetune.main(words) == 0
  assert losses(place) == (before, after)
  # Other data, or other options, are another run.
  assert finetune.main([*words, "--seed", "1"]) == 2
  assert "seed" in capsys.readouterr().err

  adapter = ["--adapter", str(place / "adapter")]
  talk = ["--prompt", "he", "--max_tokens", "2", "--temperature", "0"]
  assert chat.main(["--model", weights, *adapter, *talk]) == 0
  answer = capsys.readouterr().out

  output = tmp_path / "merged"
  merged = ["--model", weights, *adapter, "--output", str(output)]
  assert merge.main(merged) == 0
  assert f"--model {output}" in capsys.readouterr().out
  found = language.load(str(output))
  expected = language.with_adapter(language.load(weights), place / "adapter")
  jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
  assert found.module.config == expected.module.config
  assert found.tokenizer.chat([]) == "<|assistant|>"
  assert found.tokenizer.encode("hello %") == tiny.tokenizer().encode("hello %")
  assert chat.main(["--model", str(output), *talk]) == 0
  assert capsys.readouterr().out == answer

  assert merge.main(merged) == 2
  assert "something at --output" in capsys.readouterr().err
  other = tmp_path / "other.gguf"
  other.write_bytes(tiny.gguf_file(tiny.random_params(seed=1)))
  for words in (
    [*merged[2:], "--model", str(other), "--output", str(tmp_path / "no")],
  ):
    assert merge.main(words) == 2
    assert "another base" in capsys.readouterr().err
  assert not (tmp_path / "no").exists()
  assert chat.main(["--model", str(other), *adapter, *talk]) == 2
  assert "another base" in capsys.readouterr().err


@pytest.mark.slow
def test_some_layers_are_trained_themselves(
  weights, dialogues, tmp_path, capsys
):
  place = tmp_path / "blocks"
  more = ("--arm", "blocks", "--layers", "1:1", "--learning_rate", "0.02")
  words = command(weights, dialogues, place, *more)
  assert finetune.main(words) == 0
  assert f"--model {place / 'model'}" in capsys.readouterr().out
  before, after = losses(place)
  assert after < before
  found = language.load(str(place / "model")).params
  names = jax.tree.leaves(tree.names(found))
  same = jax.tree.map(np.array_equal, found, tiny.random_params())
  moved = {
    n for n, s in zip(names, jax.tree.leaves(same), strict=True) if not s
  }
  assert moved == {n for n in names if n.startswith("layer_1/")}
  # A run that is complete writes the same model once more.
  assert finetune.main(words) == 0


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["full", "dora", "rosa"])
def test_other_arms(weights, dialogues, tmp_path, arm):
  place = tmp_path / arm
  more = ("--arm", arm, "--density", "0.05", "--learning_rate", "0.02")
  words = command(weights, dialogues, place, *more)
  assert finetune.main(words) == 0
  before, after = losses(place)
  assert after < before
  if arm == "rosa":
    assert peft_config.read(place / "adapter")["peft_type"] == "ROSA"
    masks = place / "masks.safetensors"
    sizes = {k: v.size for k, v in safetensors.read(masks).items()}
    assert sizes["layer_0/mlp/up/kernel"] == int(0.05 * 8 * 12)
    assert finetune.main(words) == 0
    assert losses(place) == (before, after)


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (("--arm", "lara"), "no arm 'lara', did you mean 'lora'"),
    (("--rank", "0"), "rank must be at least 1"),
    (("--held_out", "0.99"), "none be left"),
    (("--layers", "0:9", "--arm", "blocks"), "no range of the 2 of the model"),
    (("--layers", "x"), "must be the first and the last layer"),
    (("--layers", "0:0"), "layers are chosen for the arm 'blocks'"),
    (("--arm", "full", "--dropout", "0.1"), "--dropout is of low-rank paths"),
    (("--length", "5"), "more than length=5"),
    (("--length", "99"), "more than the 40 tokens"),
    (("--model", "smollm"), "did you mean 'smollm2'"),
    (("--stepps", "1"), "did you mean '--steps'"),
  ],
)
def test_users_errors(weights, dialogues, tmp_path, capsys, more, message):
  words = command(weights, dialogues, tmp_path / "x", *more)
  assert finetune.main(words) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / "x").exists()


def test_a_density_without_a_place_is_told_before_training(
  weights, dialogues, tmp_path, capsys
):
  more = ("--arm", "rosa", "--density", "1e-6")
  assert finetune.main(command(weights, dialogues, tmp_path / "x", *more)) == 2
  assert "density 1e-06 leaves none of" in capsys.readouterr().err
  assert not (tmp_path / "x" / "warm_up").exists()


def test_errors_of_the_data_name_the_line(weights, tmp_path, capsys):
  path = tmp_path / "bad.jsonl"
  path.write_text('{"prompt": "a", "response": "b"}\n{"prompt": "a"}\n')
  assert finetune.main(command(weights, path, tmp_path / "x")) == 2
  assert "bad.jsonl, line 2 has no 'response'" in capsys.readouterr().err
  assert finetune.main(command(weights, tmp_path / "no", tmp_path / "x")) == 2
  assert "there is no file" in capsys.readouterr().err
  assert finetune.main(["--data", "x"]) == 2
  assert "--workdir is missing" in capsys.readouterr().err


def test_missing_weights_and_help(dialogues, tmp_path, monkeypatch, capsys):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.delenv("EFFJAX_DATA", raising=False)
  words = command("smollm2", dialogues, tmp_path / "x")
  assert finetune.main(words) == 2
  assert "python -m launch.fetch smollm2" in capsys.readouterr().err
  assert finetune.main(["--help"]) == 0
  assert "--learning_rate" in capsys.readouterr().out
