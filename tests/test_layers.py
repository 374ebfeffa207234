"""The floors of the house: imports only go down, heavy ones happen late."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = {
  **dict.fromkeys(("arguments", "tree"), 1),
  **dict.fromkeys(
    ("pruning", "adapters", "editing", "attribution", "metrics"), 2
  ),
  **dict.fromkeys(("models", "data", "io"), 3),
  **dict.fromkeys(("spade", "training"), 4),
  "studies": 5,
}
# What a package on its own floor may be used for all the same.
ALLOWED = {
  ("effjax.adapters.sparse", "effjax.pruning.masks"),
  ("effjax.editing.deltas", "effjax.adapters.layouts"),
  ("effjax.editing.subspaces", "effjax.adapters.layouts"),
}
# Third-party packages of the first two floors, at any depth of a function.
GROUND = {"jax", "numpy", "optax"}
HEAVY = (
  "flax.nnx",
  "IPython",
  "PIL",
  "array_record",
  "grain",
  "jinja2",
  "matplotlib",
  "orbax",
  "pandas",
  "rich",
  "sklearn",
  "tensorboardX",
  "tensorflow",
  "tensorflow_datasets",
  "tokenizers",
  "torch",
  "transformers",
)
# A builder has to inherit from TFDS; nothing of ours imports the module.
LATE = {("effjax.data.tfds_fashion", "tensorflow_datasets")}


def imports(source):
  """List (module, whether at module scope) of all imports in a source."""
  found = []

  def visit(node, late):
    if isinstance(node, ast.Import):
      found.extend((alias.name, late) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, "relative import"
      # What is imported may be a module or a name inside one.
      found.extend((f"{node.module}.{a.name}", late) for a in node.names)
    late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for child in ast.iter_child_nodes(node):
      visit(child, late)

  visit(ast.parse(source), False)
  return found


def is_in(module, packages):
  return any(module == p or module.startswith(f"{p}.") for p in packages)


def faults(module, source):
  """List what a module of effjax imports against the rules."""
  package = module.split(".")[1] if "." in module else ""
  floor = FLOORS.get(package, 6)
  bad = []
  for name, late in imports(source):
    top, *rest = name.split(".")
    if top in ("launch", "configs", "colabs", "tests"):
      bad.append(f"{name} stands above {module}")
    elif top == "effjax" and package and rest and rest[0] != package:
      inside = any(module == m and is_in(name, [p]) for m, p in ALLOWED)
      if rest[0] not in FLOORS:
        bad.append(f"{name} is on no floor")
      elif FLOORS[rest[0]] >= floor and not inside:
        bad.append(f"{name} is not below {module}")
    elif top not in {"effjax", *sys.stdlib_module_names}:
      if floor <= 2 and top not in GROUND:
        bad.append(f"{name} on floor {floor}")
      exempt = any(module == m and is_in(name, [p]) for m, p in LATE)
      if not late and is_in(name, HEAVY) and not exempt:
        bad.append(f"{name} at module scope")
  return bad


def modules(folder):
  paths = sorted((ROOT / folder).rglob("*.py"))
  assert paths
  named = {}
  for path in paths:
    parts = path.relative_to(ROOT).with_suffix("").parts
    named[".".join(p for p in parts if p != "__init__")] = path
  return named


def test_every_package_stands_on_a_floor():
  folders = [p for p in (ROOT / "effjax").iterdir() if p.is_dir()]
  packages = {p.name for p in folders if any(p.glob("*.py"))}
  files = {p.stem for p in (ROOT / "effjax").glob("*.py")} - {"__init__"}
  assert packages | files <= FLOORS.keys()


def test_imports_go_down_and_heavy_ones_wait():
  bad = {
    module: found
    for module, path in modules("effjax").items()
    if (found := faults(module, path.read_text()))
  }
  assert not bad


@pytest.mark.parametrize(
  ("module", "line", "words"),
  [
    ("effjax.tree", "from effjax import pruning", "not below"),
    ("effjax.pruning.masks", "from effjax.metrics import base", "not below"),
    ("effjax.pruning.masks", "import effjax.models.layers", "not below"),
    ("effjax.adapters.dense", "from effjax.pruning import masks", "not below"),
    ("effjax.adapters.sparse", "from effjax.pruning import prune", "not below"),
    ("effjax.io.files", "def f():\n  from effjax import training", "not below"),
    ("effjax.training.loop", "from effjax import spade", "not below"),
    ("effjax.training.loop", "from effjax import extras", "no floor"),
    ("effjax.metrics.bias", "from flax import linen", "on floor 2"),
    ("effjax.tree", "def f():\n  import flax", "on floor 1"),
    ("effjax.models.cnn", "from flax import nnx", "flax.nnx"),
    ("effjax.io.checkpoint", "from orbax.checkpoint import v1", "orbax"),
    ("effjax.data.batches", "try:\n  import grain\nfinally: pass", "grain"),
    ("effjax.data.images", "class A:\n  import PIL.Image", "PIL.Image"),
    ("effjax.studies.report", "from launch import run", "stands above"),
  ],
)
def test_the_rules_find_what_breaks_them(module, line, words):
  (fault,) = faults(module, line)
  assert words in fault


@pytest.mark.parametrize(
  ("module", "line"),
  [
    ("effjax", "from effjax import metrics, pruning, tree"),
    ("effjax.pruning.masks", "from effjax.pruning import search"),
    ("effjax.adapters.sparse", "from effjax.pruning.masks import topk"),
    ("effjax.studies.bias.study", "from effjax import training, models"),
    ("effjax.models.cnn", "from flax import linen as nn"),
    ("effjax.io.checkpoint", "def f():\n  from orbax import checkpoint"),
  ],
)
def test_the_rules_allow_what_is_right(module, line):
  assert faults(module, line) == []


def test_configs_import_next_to_nothing():
  for module, path in modules("configs").items():
    for name, _ in imports(path.read_text()):
      own = is_in(name, ["ml_collections", "configs"])
      assert own or name.split(".")[0] in sys.stdlib_module_names, module


def test_files_have_one_subject_and_at_most_400_lines():
  long = {
    module: lines
    for folder in ("effjax", "launch", "configs")
    for module, path in modules(folder).items()
    if (lines := len(path.read_text().splitlines())) > 400
  }
  assert not long


def test_no_module_bears_the_name_of_an_exported_function():
  import importlib

  for path in (ROOT / "effjax").glob("*/__init__.py"):
    package = importlib.import_module(f"effjax.{path.parent.name}")
    for name in getattr(package, "__all__", ()):
      if (path.parent / f"{name}.py").exists():
        kind = type(getattr(package, name)).__name__
        assert kind == "module", f"{package.__name__}.{name} is a {kind}"


def test_importing_effjax_is_light():
  absent = (
    "chex",
    "flax",
    "grain",
    "matplotlib",
    "ml_collections",
    "orbax",
    "tensorflow",
    "tensorflow_datasets",
    "torch",
  )
  program = (
    "import sys, effjax;"
    f"print(*[name for name in {absent!r} if name in sys.modules])"
  )
  done = subprocess.run(
    (sys.executable, "-c", program),
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.split() == []
