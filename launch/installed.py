"""Say what an environment lacks: `python -m launch.installed EXTRA ...`.

Compares the requirements in pyproject.toml, and those of what is installed,
with what is installed; asks nobody. Prints what is missing, one requirement a
line. Exit status: 0 if nothing is, 1 if something is, 2 for a user's error.
"""

import importlib.metadata
import pathlib
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_PROJECT = pathlib.Path(__file__).resolve().parents[1] / "pyproject.toml"


def main(arguments: Sequence[str] | None = None) -> int:
  """Run the command; return its exit status."""
  extras = list(sys.argv[1:] if arguments is None else arguments)
  project = tomllib.loads(_PROJECT.read_text("utf-8"))["project"]
  try:
    lacking = missing(requirements(project, extras))
  except ModuleNotFoundError as error:  # packaging itself
    lacking = [str(error.name)]
  except ValueError as error:
    print(f"installed: {error}", file=sys.stderr)
    return 2
  for requirement in lacking:
    print(requirement)
  return int(bool(lacking))


def requirements(
  project: Mapping[str, Any], extras: Iterable[str] = ()
) -> list[str]:
  """List what a project requires.

  Args:
    project: The table `project` of a pyproject.toml.
    extras: Names of optional dependencies; one that names others of the same
      project, as `effjax[report]`, brings those.

  Returns:
    The requirements, the project itself first.

  Raises:
    ValueError: If the project has no such extra.

  >>> table = {"name": "a", "dependencies": ["b>=1"]}
  >>> table["optional-dependencies"] = {"x": ["c"], "y": ["a[x]", "d"]}
  >>> requirements(table, ["y"])
  ['a', 'b>=1', 'c', 'd']
  """
  from packaging.requirements import Requirement

  known = project.get("optional-dependencies", {})
  found = {project["name"]: None}
  found |= dict.fromkeys(project.get("dependencies", ()))

  def add(extra: str) -> None:
    if extra not in known:
      raise ValueError(
        f"there is no extra {extra!r}; known are {', '.join(known)}"
      )
    for text in known[extra]:
      requirement = Requirement(text)
      if requirement.name == project["name"]:
        for inner in sorted(requirement.extras):
          add(inner)
      else:
        found[text] = None

  for extra in extras:
    add(extra)
  return list(found)


def missing(requirements: Iterable[str]) -> list[str]:
  """Find requirements that the environment does not meet.

  Args:
    requirements: Such as "numpy>=2.0" or "x[extra]; python_version < '3.12'".

  Returns:
    Those that are not met, also of what is required in turn.

  >>> missing(["numpy>=1", "numpy>=99", "no-such-thing"])[1:]
  ['no-such-thing']
  """
  from packaging.requirements import Requirement

  pending = [Requirement(text) for text in requirements][::-1]
  seen, lacking = set(), []
  while pending:
    requirement = pending.pop()
    if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
      continue
    if str(requirement) in seen:
      continue
    seen.add(str(requirement))
    try:
      distribution = importlib.metadata.distribution(requirement.name)
    except importlib.metadata.PackageNotFoundError:
      lacking.append(str(requirement))
      continue
    version = distribution.version
    if not requirement.specifier.contains(version, prereleases=True):
      lacking.append(f"{requirement} (there is {version})")
    for text in distribution.requires or ():
      inner = Requirement(text)
      extras = ("", *requirement.extras)
      if inner.marker is None or any(
        inner.marker.evaluate({"extra": extra}) for extra in extras
      ):
        inner.marker = None  # it held, with an extra that is not passed on
        pending.append(inner)
  return lacking


if __name__ == "__main__":
  sys.exit(main())
