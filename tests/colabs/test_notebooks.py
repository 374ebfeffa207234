"""Every notebook runs, and none is committed with outputs."""

import pathlib
import sys

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "colabs").glob("*.ipynb"))
# What the last cell of each prints, after it has checked a number.
CHECKED = {
  "adapters": "after a round trip through a file",
  "bias": "points, as the metric says",
  "bring_your_own_model": "LoRA adapts all three",
  "editing": "taken back to the bit",
  "personalize": "nats a token nearer to Kim than to Sunny",
  "quickstart": "weights kept",
  "spade": "pairs are in order, as the metric says",
}


class ThisInterpreter(KernelSpecManager):
  """Gives every kernel name the interpreter that runs the tests."""

  def get_kernel_spec(self, kernel_name):
    command = [sys.executable, "-m", "ipykernel_launcher"]
    return KernelSpec(
      argv=[*command, "-f", "{connection_file}"],
      display_name=kernel_name,
      language="python",
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_committed(path):
  for cell in nbformat.read(path, as_version=4).cells:
    if cell.cell_type == "code":
      assert not cell.outputs
      assert cell.execution_count is None


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
  "path",
  [
    # What they do, the notebooks of the studies and other tests do too.
    pytest.param(path, marks=pytest.mark.slow)
    if path.stem not in ("bias", "spade")
    else path
    for path in NOTEBOOKS
  ],
  ids=lambda path: path.stem,
)
@pytest.mark.filterwarnings(
  "ignore::DeprecationWarning", "ignore::ResourceWarning"
)
def test_notebook_runs(path, monkeypatch):
  monkeypatch.setenv("EFFJAX_SMOKE", "1")
  monkeypatch.setenv("PYTHONPATH", str(ROOT))
  monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
  notebook = nbformat.read(path, as_version=4)
  client = NotebookClient(notebook, timeout=500, kernel_name="python3")
  client.create_kernel_manager()
  client.km.kernel_spec_manager = ThisInterpreter()
  client.execute()
  last = notebook.cells[-1].outputs
  printed = "".join(output.get("text", "") for output in last)
  assert CHECKED[path.stem] in printed


def test_there_are_notebooks():
  assert [path.stem for path in NOTEBOOKS] == sorted(CHECKED)
