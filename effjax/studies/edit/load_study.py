"""The study of load: when does a way to edit win, by how full a model is.

Models of one size learn worlds of several sizes; each is edited as in `study`.
"""

import json
import os
import pathlib
import time
from typing import Any

from effjax.studies.edit import (
  findings,
  grid,
  load_page,
  pretraining,
  runs,
  study,
)
from effjax.studies.results import publish
from effjax.training import workdir as workdirs


def run(config: Any, workdir: str) -> dict[str, Any]:
  """Run the study, or finish one that was interrupted.

  Args:
    config: See `configs/edit/load.py`.
    workdir: Where everything is written.

  Returns:
    The content of `results.json`.

  Raises:
    ValueError: If the configuration asks for something that does not exist, or
      a model does not know its world.
  """
  place = pathlib.Path(workdir)
  workdirs.start(place, config)
  started, worked = time.monotonic(), time.process_time()
  given = study.outline(config)
  loads = [_loaded(config, count, place) for count in sorted(config.subjects)]
  results = {
    **given,
    "loads": loads,
    "failed": sum(load["failed"] for load in loads),
    "count": sum(load["count"] for load in loads),
    "seconds": {
      "wall": time.monotonic() - started,
      "cpu": time.process_time() - worked,
    },
    "cores": os.cpu_count(),
    "data": {
      "name": "synthetic worlds",
      "relations": config.world.relations,
      "objects": config.world.objects,
      "subjects": sorted(config.subjects),
    },
    "environment": json.loads((place / "environment.json").read_text()),
  }
  return publish(place, results, load_page, config)


def _loaded(config: Any, count: int, place: pathlib.Path) -> dict[str, Any]:
  """Edit models of one world, and sum up what came of it."""
  own = config.copy_and_resolve_references()
  with own.unlocked():
    own.world.subjects = count
  print(f"{count} subjects", flush=True)
  place = place / f"subjects{count}"
  about, models, edited = study.learned(own, place)
  runner = runs.Runner(about, own)
  rates, values = grid.swept(runner, models, edited, place)
  measures = grid.summed_up(values, edited)
  given = list(own.arms), own.mixes, measures, own.tuning
  return {
    "subjects": count,
    "density": about.density,
    "block_parameters": about.module.config.block_parameters,
    "families": list(pretraining.families(about.world)),
    "pretrained": [model.report for model in models],
    "table": findings.table(*given),
    "claims": findings.claims(*given),
    "rates": list(rates),
    "failed": int(values["failed"].sum()),
    "count": grid.count(values),
  }
