"""What `import effjax` costs in a fresh process."""

import subprocess
import sys

from launch.benchmarks import harness


def cases(quick: bool) -> list[harness.Case]:
  """Return the import of effjax beside that of its two dependencies.

  Args:
    quick: Unused.

  Returns:
    One case. Only the wall time counts: the CPU time is that of the child.
  """
  del quick
  code = (
    "import effjax, sys; print([m for m in ('flax', 'orbax', 'tensorflow',"
    " 'tensorflow_datasets', 'matplotlib', 'grain') if m in sys.modules])"
  )
  run = lambda text: subprocess.run(
    [sys.executable, "-c", text], check=True, capture_output=True, text=True
  ).stdout.strip()
  return [
    harness.Case(
      name="import effjax, in a fresh process",
      ours=lambda: run("import effjax"),
      peers={"import jax, optax": lambda: run("import jax, optax")},
      note=f"heavy modules that it loads: {run(code)}; wall times count here",
    )
  ]
