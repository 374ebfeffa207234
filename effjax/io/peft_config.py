"""`adapter_config.json` of PEFT: what a file of an adapter means.

Only fields that change the mathematics matter here; those that are not
supported are refused unless they have the value that changes nothing, and those
that are not known are kept and written back.
"""

import collections
import json
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

NAME = "adapter_config.json"
KINDS = ("LORA", "ROSA")

# Fields whose values mean no change where they are empty or false.
_UNSUPPORTED = (
  "alora_invocation_tokens",
  "arrow_config",
  "kasa_config",
  "layer_replication",
  "lora_bias",
  "modules_to_save",
  "monteclora_config",
  "target_parameters",
  "trainable_token_indices",
  "use_bdlora",
  "use_qalora",
  "velora_config",
)
# Ways to begin that leave the base as it is.
_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


def read(directory: str | os.PathLike) -> dict[str, Any]:
  """Read the configuration of an adapter.

  Args:
    directory: Directory of the adapter.

  Returns:
    All fields.

  Raises:
    FileNotFoundError: If there is none.
    ValueError: If it is not JSON, of another kind of adapter, or has a field
      that changes what is not supported here.
  """
  path = pathlib.Path(directory) / NAME
  if not path.is_file():
    raise FileNotFoundError(
      f"there is no adapter in {directory}: {NAME} is missing"
    )
  try:
    config = json.loads(path.read_text("utf-8"))
  except ValueError as error:
    raise ValueError(f"{path} is not JSON: {error}") from None
  if not isinstance(config, dict) or config.get("peft_type") not in KINDS:
    kind = config.get("peft_type") if isinstance(config, dict) else None
    raise ValueError(
      f"{path} has peft_type {kind!r}; {' and '.join(KINDS)} are supported"
    )
  for field in ("rank_pattern", "alpha_pattern", "density_pattern"):
    if not isinstance(config.get(field) or {}, dict):
      raise ValueError(
        f"{path} has {field}={config[field]!r}; an object of patterns is wanted"
      )
  for field in _UNSUPPORTED:
    if config.get(field):
      raise ValueError(
        f"{path} has {field}={config[field]!r}, which is not supported"
      )
  if config.get("bias", "none") != "none":
    raise ValueError(f"{path} trains biases, which is not supported")
  start = config.get("init_lora_weights", True)
  if start not in _STARTS:
    raise ValueError(
      f"{path} has init_lora_weights={start!r}: its base is not the original"
      " one; let PEFT convert it (path_initial_model_for_weight_conversion)"
    )
  return config


def lookup(
  config: Mapping[str, Any], field: str, default: str, module: str
) -> Any:
  """Find the value of a module: the first pattern that matches, or the default.

  Args:
    config: The configuration.
    field: The field of the patterns, such as "rank_pattern".
    default: The field of the default, such as "r".
    module: Name of the module.

  Returns:
    The value.

  Raises:
    ValueError: If a pattern is none.

  >>> config = {"r": 8, "rank_pattern": {"q_proj": 4}}
  >>> lookup(config, "rank_pattern", "r", "layers.0.q_proj")
  4
  """
  for pattern, value in (config.get(field) or {}).items():
    try:
      matches = re.match(rf"(.*\.)?({pattern})$", module)
    except re.error as error:
      raise ValueError(
        f"{field} holds {pattern!r}, which is no regular expression: {error}"
      ) from None
    if matches:
      return value
  return config.get(default, 8)


def with_patterns(values: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
  """Write values of modules as a default and patterns for those that differ.

  Args:
    values: Value of each module.

  Returns:
    The most common value, and the others by a pattern that matches one module.

  >>> with_patterns({"a.q": 8, "a.k": 8, "b.q": 4})
  (8, {'^b.q': 4})
  """
  ((default, _),) = collections.Counter(values.values()).most_common(1)
  return default, {
    f"^{module}": value for module, value in values.items() if value != default
  }


def targeted(config: Mapping[str, Any], modules: Sequence[str]) -> list[str]:
  """List the modules that a configuration names as adapted.

  Args:
    config: The configuration.
    modules: Modules that there are.

  Returns:
    Those of them that its list of targets covers; none if it has a pattern, or
    picks single layers, and the file must tell.
  """
  targets = config.get("target_modules")
  others = ("exclude_modules", "layers_to_transform")
  if not isinstance(targets, list) or any(config.get(f) for f in others):
    return []
  return [
    module
    for module in modules
    if any(module == t or module.endswith(f".{t}") for t in targets)
  ]


def make(
  modules: Mapping[str, Any], config: Mapping[str, Any], rosa: bool
) -> dict[str, Any]:
  """Make the configuration of what is written.

  Args:
    modules: The modules, see `peft_tensors.Encoded`.
    config: Fields to keep where they say nothing of the modules.
    rosa: Whether there is a sparse part.

  Returns:
    All fields.
  """
  low = {name: m for name, m in modules.items() if m.rank} or modules
  stabilized = bool(config.get("use_rslora"))
  root = math.sqrt if stabilized else float
  alphas = {n: _whole(m.scale * root(m.rank)) for n, m in low.items()}
  rank, ranks = with_patterns({n: m.rank for n, m in low.items()})
  alpha, alpha_pattern = with_patterns(alphas)
  made = {
    "peft_type": "ROSA" if rosa else "LORA",
    "r": rank,
    "lora_alpha": alpha,
    "rank_pattern": ranks,
    "alpha_pattern": alpha_pattern,
    "use_rslora": stabilized,
    "target_modules": sorted(modules),
  }
  usual = {
    "task_type": None,
    "base_model_name_or_path": None,
    "inference_mode": True,
    "lora_dropout": 0.0,
  }
  if rosa:
    share = {
      name: (m.places or 0) / m.size for name, m in modules.items() if m.size
    }
    made["d"], made["density_pattern"] = with_patterns(share)
    usual |= {
      "schedule": "default" if rank else "spa_only",
      "spa_num_grads": 1,
      "grad_acc_mode": "mean_squared",
      "rosa_dtype": "fp32",
    }
  else:
    made["use_dora"] = any(m.decomposed for m in modules.values())
    usual |= {
      "bias": "none",
      "fan_in_fan_out": False,
      "init_lora_weights": True,
    }
  # What selected layers in another way is said by the full names now.
  replaced = ("exclude_modules", "layers_to_transform", "layers_pattern")
  return {
    **usual,
    **config,
    **made,
    **{k: None for k in replaced if k in config},
  }


def _whole(number: float) -> float:
  """Return a number that is whole but for rounding as an integer."""
  return round(number) if abs(number - round(number)) < 1e-9 else number
