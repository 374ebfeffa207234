"""What launch.merge refuses; what it makes is tested with launch.finetune."""

import jax
import jax.numpy as jnp
import pytest

from effjax import adapters, io
from effjax.models import llama_weights
from effjax.studies import language
from launch import merge
from tests.models import language_models as tiny


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["--output", "x"], "--adapter is missing"),
    (["--adapter", "x"], "--output is missing"),
    (["--adaptor", "x"], "did you mean '--adapter'"),
    (["--model", "no.gguf", "--adapter", "x"], "no file no.gguf"),
    (["--adapter", "absent"], "no adapter in absent"),
  ],
)
def test_users_errors(words, message, tmp_path, monkeypatch, capsys):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  weights = tmp_path / "tiny.gguf"
  weights.write_bytes(tiny.gguf_file(tiny.random_params()))
  if "--model" not in words:
    words = ["--model", str(weights), *words]
  if "missing" not in message:
    words = [*words, "--output", str(tmp_path / "out")]
  assert merge.main(words) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / "out").exists()


def test_help(capsys):
  assert merge.main(["--help"]) == 0
  assert "made for another base is refused" in " ".join(
    capsys.readouterr().out.split()
  )


def test_weights_that_are_not_finite_are_not_written(tmp_path, capsys):
  weights, out = tmp_path / "tiny.gguf", tmp_path / "out"
  weights.write_bytes(tiny.gguf_file(tiny.random_params()))
  params = language.load(str(weights)).params
  adapter = adapters.lora(1, where="layer_0/mlp/up/kernel")
  theta, fixed = adapter.init(jax.random.key(0), params)
  theta = {name: x.at[0, 0].set(jnp.nan) for name, x in theta.items()}
  io.save_peft(
    tmp_path / "a",
    adapter,
    params,
    theta,
    fixed,
    names=llama_weights.stored_name,
  )
  words = ["--model", str(weights), "--adapter", str(tmp_path / "a")]
  assert merge.main([*words, "--output", str(out)]) == 2
  assert "is not finite after merging" in capsys.readouterr().err
  assert not out.exists()
