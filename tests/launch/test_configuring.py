import pytest

from launch import configuring


def test_load(config):
  loaded = configuring.load(f"{config}:a=5")
  assert (loaded.study, loaded.a, loaded.inner.b) == ("sums", 5, 2)
  assert loaded.is_locked
  overrides = (
    ("a", "7"),
    ("rate", "1"),
    ("levels", "(0.1, 1)"),
    ("fail", "true"),
    ("limit", "9"),
    ("inner.name", "y"),
  )
  loaded = configuring.load(str(config), overrides)
  assert (loaded.a, loaded.rate, loaded.levels) == (7, 1.0, (0.1, 1.0))
  assert isinstance(loaded.rate, float)
  assert (loaded.fail, loaded.limit, loaded.inner.name) == (True, 9, "y")
  assert sorted(configuring.keys(loaded))[-3:] == ["rate", "steps", "study"]


@pytest.mark.parametrize(
  ("key", "text", "words"),
  [
    ("inner.nme", "y", "no key 'inner.nme', did you mean 'inner.name'"),
    ("rat", "1", "did you mean 'rate'"),
    ("a.b", "1", "no key 'a.b'"),
    ("inner", "1", "group of keys; set one of inner.b, inner.name"),
    ("a", "much", r"--config\.a: 'much' is not a whole number"),
  ],
)
def test_overrides_that_make_no_sense(config, key, text, words):
  with pytest.raises(ValueError, match=words):
    configuring.load(str(config), ((key, text),))


def test_files_that_are_no_configs(config, tmp_path):
  with pytest.raises(FileNotFoundError, match=r"did you mean .*config\.py"):
    configuring.load(str(tmp_path / "confg.py"))
  (tmp_path / "empty.py").write_text("")
  with pytest.raises(ValueError, match="it has no get_config"):
    configuring.load(str(tmp_path / "empty.py"))
  (tmp_path / "torn.py").write_text("def get_config(:\n")
  with pytest.raises(ValueError, match=r"torn\.py, line 1"):
    configuring.load(str(tmp_path / "torn.py"))
  (tmp_path / "plain.py").write_text("def get_config():\n  return {'a': 1}\n")
  assert configuring.load(str(tmp_path / "plain.py")).a == 1
  with pytest.raises(ValueError, match="takes no argument, got 'quick'"):
    configuring.load(f"{tmp_path / 'plain.py'}:quick")


@pytest.mark.parametrize(
  ("error", "status", "told"),
  [
    (None, 0, ""),
    (ValueError("no such arm"), 2, "teach: no such arm\n"),
    (FileNotFoundError("no file x"), 2, "teach: no file x\n"),
    (ModuleNotFoundError("no jinja2"), 2, "teach: no jinja2; install it\n"),
    (FloatingPointError("the loss is nan"), 1, "teach: the loss is nan\n"),
    (SystemExit(143), 143, ""),
    (KeyboardInterrupt(), 130, "teach: stopped\n"),
  ],
)
def test_errors_of_a_command_are_told(error, status, told, capsys):
  def work():
    if error is not None:
      raise error

  options = dict(debug=False, hint="; install it")
  assert configuring.attempt("teach", work, **options) == status
  assert capsys.readouterr().err == told
  if status in (1, 2):
    with pytest.raises(type(error)):
      configuring.attempt("teach", work, debug=True)
