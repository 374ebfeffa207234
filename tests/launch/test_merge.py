"""What launch.merge refuses; what it makes is tested with launch.finetune."""

import pytest

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
