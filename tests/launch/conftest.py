import textwrap

import pytest


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
