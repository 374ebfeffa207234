"""What is examined beside the sweep: closed forms, truncation, pruning."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from effjax.studies.edit import pretraining, runs, tasks


def examine(
  about: pretraining.Subject,
  config: Any,
  models: Sequence[pretraining.Pretrained],
  edited: Sequence[tasks.Tasks],
  runner: "runs.Runner",
  measures: dict[str, np.ndarray],
  place: pathlib.Path,
) -> dict[str, Any]:
  """Examine what is not a fine-tuning of the whole model."""
  del about, config, models, edited, runner, measures, place
  return {}
