"""The house keeps its floors: imports go down, files stay small."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FLOORS = {
  "effjax.tree": 1,
  "effjax.pruning": 2,
  "effjax.adapters": 2,
  "effjax.editing": 2,
  "effjax.attribution": 2,
  "effjax.metrics": 2,
  "effjax.models": 3,
  "effjax.data": 3,
  "effjax.io": 3,
  "effjax.spade": 4,
  "effjax.training": 4,
  "effjax.studies": 5,
  "configs": 6,
  "launch": 6,
}
# Packages that a package on the same floor may import from.
SIBLINGS = {("effjax.adapters.sparse", "effjax.pruning.masks")}
# What the ground floors may load besides the standard library.
LIGHT = {"jax", "numpy", "optax", "effjax"}
# Never at the top of a file: a user should not pay for what he does not use.
HEAVY = {
  "PIL",
  "array_record",
  "filelock",
  "grain",
  "jinja2",
  "matplotlib",
  "orbax",
  "rich",
  "tensorboardX",
  "tensorflow",
  "tensorflow_datasets",
  "tokenizers",
  "torch",
}
# A builder is a subclass, so this file cannot exist without its base.
EXCUSED = {"effjax.data.tfds_fashion": {"tensorflow_datasets"}}


def files() -> list[pathlib.Path]:
  return sorted(
    path
    for folder in ("effjax", "configs", "launch")
    for path in (ROOT / folder).rglob("*.py")
  )


def module_of(path: pathlib.Path) -> str:
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(module: str) -> str | None:
  """The entry of FLOORS that a module belongs to."""
  parts = module.split(".")
  for length in (2, 1):
    name = ".".join(parts[:length])
    if name in FLOORS:
      return name
  return None


def imported(tree: ast.AST) -> list[str]:
  """All modules that a file imports; `from a import b` counts as a.b too."""
  found = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      found += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, "relative import"
      found += [f"{node.module}.{alias.name}" for alias in node.names]
  return found


def at_top(tree: ast.Module) -> list[str]:
  """The modules that importing a file loads."""
  lazy = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
  found, pending = [], list(tree.body)
  while pending:
    node = pending.pop()
    if isinstance(node, lazy):
      continue
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
      continue
    if isinstance(node, ast.Import | ast.ImportFrom):
      found += imported(node)
    pending += list(ast.iter_child_nodes(node))
  return found


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_imports_go_down(path):
  module = module_of(path)
  package = package_of(module)
  if package is None:
    assert module == "effjax"
    return
  for name in imported(ast.parse(path.read_text("utf-8"))):
    other = package_of(name)
    if other is None or other == package:
      assert name.split(".")[0] != "effjax" or other, f"{module}: {name}"
      continue
    if any(module == a and name.startswith(b) for a, b in SIBLINGS):
      continue
    allowed = FLOORS[other] < FLOORS[package] or (
      FLOORS[package] == 6 and FLOORS[other] == 6
    )
    assert allowed, f"{module} imports {name}, which is not on a lower floor"


@pytest.mark.parametrize(
  "path",
  [p for p in files() if module_of(p).startswith("effjax")],
  ids=module_of,
)
def test_files_are_small_and_load_nothing_heavy(path):
  text = path.read_text("utf-8")
  assert text.count("\n") <= 400, f"{path} has {text.count(chr(10))} lines"
  top = {name.split(".")[0] for name in at_top(ast.parse(text))}
  heavy = top & HEAVY - EXCUSED.get(module_of(path), set())
  assert not heavy, f"{path} imports {heavy} at its top"
  full = set(at_top(ast.parse(text)))
  assert not any(name.startswith("flax.nnx") for name in full)
  package = package_of(module_of(path))
  if package and FLOORS[package] <= 2:
    outside = top - LIGHT - sys.stdlib_module_names
    assert not outside, f"{path} imports {outside} on a ground floor"


def test_configs_import_little():
  for path in files():
    if module_of(path).startswith("configs"):
      top = at_top(ast.parse(path.read_text("utf-8")))
      allowed = {"ml_collections", "configs"} | sys.stdlib_module_names
      assert {name.split(".")[0] for name in top} <= allowed, path


def test_a_checker_that_finds_nothing_would_be_no_checker():
  assert len(files()) > 40
  source = "from effjax import studies\nimport os.path\n"
  assert imported(ast.parse(source)) == ["effjax.studies", "os.path"]
  lazy = "def f():\n  import orbax\nif 1:\n  import grain\n"
  assert at_top(ast.parse(lazy)) == ["grain"]


def loaded_by(statement: str) -> set[str]:
  code = "print(*sorted({m.split('.')[0] for m in sys.modules}))"
  run = [sys.executable, "-c", f"import sys; {statement}; {code}"]
  output = subprocess.run(
    run, cwd=ROOT, check=True, capture_output=True, text=True
  ).stdout
  return set(output.split())


def test_importing_effjax_loads_jax_and_optax_only():
  more = loaded_by("import effjax") - loaded_by("import jax, optax")
  assert "effjax" in more
  unwanted = HEAVY | {"flax", "ml_collections", "chex", "sklearn", "pandas"}
  assert not unwanted & more
