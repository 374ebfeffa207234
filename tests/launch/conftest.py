import textwrap

import pytest

from tests.models import language_models as tiny


@pytest.fixture
def config(tmp_path):
  """A config of the trivial studies; its argument chooses the study."""
  path = tmp_path / "config.py"
  path.write_text(
    textwrap.dedent("""
      import ml_collections
      from configs import common


      def get_config(arg=""):
        arg = common.parse_arg(arg, study="sums", a=1)
        config = ml_collections.ConfigDict()
        config.study = arg.study
        config.a = arg.a
        config.steps = 20
        config.rate = 0.5
        config.levels = (0.5, 0.9)
        config.fail = False
        config.limit = None
        config.mesh = None
        config.inner = ml_collections.ConfigDict({"b": 2, "name": "x"})
        return config
    """)
  )
  return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
  """Path of a tiny language model with room for prompts of mails."""
  place = tmp_path_factory.mktemp("tiny")
  patch = pytest.MonkeyPatch()
  patch.setitem(tiny.METADATA, "llama.context_length", 900)
  patch.setitem(tiny.METADATA, "llama.block_count", 1)
  patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
  params = tiny.random_params()
  del params["layer_1"]
  (place / "tiny.gguf").write_bytes(tiny.gguf_file(params))
  yield str(place / "tiny.gguf")
  patch.undo()
