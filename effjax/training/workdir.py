"""The directory of a run: its config, and the environment it ran in."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import jax

from effjax.io import files

_PACKAGES = ("effjax", "jax", "jaxlib", "flax", "optax", "numpy")
_SHOWN = 8  # differing keys that an error lists
# Keys of a config that change nothing in a run's results.
_INERT = ("profile",)
_OWN = ("config.json", "environment.json")


def start(workdir: str | os.PathLike, config: Any) -> None:
  """Make or re-enter the directory of a run.

  A directory in which nothing was made yet, because a first attempt failed at
  once, takes another config.

  Writes `config.json` and `environment.json` (versions, git commit, command,
  devices, time) the first time; later only adds a record of the restart.

  Args:
    workdir: The directory.
    config: A mapping, or an object with `to_dict()`, of values that JSON holds.

  Raises:
    ValueError: If the directory was made by another config, with the keys that
      differ.
    OSError: If the directory cannot be written, in one sentence.
  """
  workdir = pathlib.Path(workdir)
  check_config(workdir, config)
  if jax.process_index() != 0:
    return
  with files.explained("make the work directory", workdir):
    workdir.mkdir(parents=True, exist_ok=True)
    # A first attempt in writing, before anything costly begins.
    files.write_json(workdir / "config.json", _plain(config))
  path = workdir / "environment.json"
  record = environment()
  try:
    first = json.loads(path.read_text("utf-8"))
  except (FileNotFoundError, ValueError):
    first = None
  if isinstance(first, dict):
    record = {**first, "restarts": [*first.get("restarts", []), record]}
  files.write_json(path, record)


def check_config(workdir: str | os.PathLike, config: Any) -> None:
  """Compare a config with the one that made a directory.

  Args:
    workdir: The directory, which need not exist.
    config: See `start`.

  Raises:
    ValueError: If they differ, listing `key: old -> new` with dotted keys.
  """
  path = pathlib.Path(workdir) / "config.json"
  if not path.exists() or _is_fresh(path.parent):
    return
  try:
    saved = json.loads(path.read_text("utf-8"))
  except ValueError:
    raise ValueError(f"{path} is not valid JSON; was it edited?") from None
  old, new = _flat(saved), _flat(_plain(config))
  changed = [
    f"{key}: {_show(old, key)} -> {_show(new, key)}"
    for key in sorted({*old, *new})
    # As text, since NaN does not equal itself.
    if _show(old, key) != _show(new, key)
  ]
  if changed:
    more = len(changed) - _SHOWN
    tail = f", and {more} more" if more > 0 else ""
    raise ValueError(
      f"the work directory {workdir} was made by another config"
      f" ({', '.join(changed[:_SHOWN])}{tail}). Choose another directory or the"
      " old values"
    )


def _is_fresh(workdir: pathlib.Path) -> bool:
  """Say whether a run has made nothing but the files of its start."""
  return all(
    entry.name in _OWN or entry.name.startswith(".")
    for entry in workdir.iterdir()
  )


def environment() -> dict[str, Any]:
  """Describe the program, its versions and its devices.

  Returns:
    A dict that JSON can hold.
  """
  packages: dict[str, str | None] = {}
  for name in _PACKAGES:
    try:
      packages[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      packages[name] = None
  now = datetime.datetime.now(datetime.UTC)
  return {
    "started": now.isoformat(timespec="seconds"),
    "command": shlex.join(sys.orig_argv),
    "commit": _commit(),
    "python": platform.python_version(),
    "platform": platform.platform(),
    "packages": packages,
    "backend": jax.default_backend(),
    "devices": [device.device_kind for device in jax.devices()],
    "processes": jax.process_count(),
  }


def _commit() -> str | None:
  """The git commit of the source tree, with a mark if files were changed."""
  root = pathlib.Path(__file__).resolve().parents[2]
  if not (root / ".git").exists():
    return None
  git = ("git", "-C", str(root))
  try:
    commit = subprocess.run(
      [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
    )
    changes = subprocess.run(
      [*git, "status", "--porcelain", "--untracked-files=no"],
      capture_output=True,
      text=True,
      timeout=10,
    )
  except (OSError, subprocess.TimeoutExpired):
    return None
  if commit.returncode:
    return None
  return commit.stdout.strip() + (" with changes" if changes.stdout else "")


def _plain(config: Any) -> dict[str, Any]:
  """The config as JSON would give it back."""
  content = config.to_dict() if hasattr(config, "to_dict") else dict(config)
  content = {k: v for k, v in content.items() if k not in _INERT}
  try:
    return json.loads(json.dumps(content))
  except TypeError as error:
    raise ValueError(
      f"the config holds a value that JSON cannot: {error}"
    ) from None


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
  if not isinstance(content, Mapping) or not content:
    return {prefix: content}
  flat = {}
  for key, value in content.items():
    flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
  return flat


def _show(flat: Mapping[str, Any], key: str) -> str:
  return json.dumps(flat[key]) if key in flat else "absent"
