"""The study of traces from data to report; it reads from top to bottom.

For every seed: a network is trained and taught to obey patches; sparsities are
tuned on some images with patches, and every arm and method is judged on others
by how well its maps find the patch. On clean images pixels are inserted and
deleted in the order of the maps.
"""

import json
import os
import pathlib
import time
from typing import Any

import numpy as np

from effjax import data
from effjax.io import files
from effjax.studies import report
from effjax.studies.spade import (
  arms,
  explanations,
  findings,
  measures,
  page,
  pictures,
  trojans,
)
from effjax.studies.spade.patches import Patch
from effjax.training import workdir as workdirs

_CLASSES = 10


def run(config: Any, workdir: str) -> dict[str, Any]:
  """Run the study, or finish one that was interrupted.

  Args:
    config: See `configs/spade/fashion.py`.
    workdir: Where everything is written.

  Returns:
    The content of `results.json`.

  Raises:
    ValueError: If the configuration asks for something that does not exist, or
      a Trojan does not take.
    FileNotFoundError: If the data is not on this machine.
  """
  place = pathlib.Path(workdir)
  workdirs.start(place, config)
  parts = {
    split: data.images.load(
      config.data.name,
      split,
      directory=config.data.directory or None,
      limit=config.data.limit or None,
    )
    for split in ("train", "validation", "test")
  }
  patches = [Patch(*patch) for patch in config.patches]
  outcomes = []
  for seed in config.seeds:
    path = place / f"seed{seed}" / "outcome.json"
    try:
      outcome = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
      outcome = _one_seed(config, seed, parts, patches, path.parent)
      files.write_json(path, outcome)
    outcomes.append(outcome)
  results = {
    "study": "spade",
    "title": config.title,
    "model": config.model.name,
    "seeds": list(config.seeds),
    "patches": [trojans.name_of(patch) for patch in patches],
    "arms": list(config.arms),
    "methods": list(config.methods),
    "copies": config.copies,
    **findings.gather(config, outcomes),
    "cores": os.cpu_count(),
    "data": {
      "name": config.data.name,
      "sizes": {k: len(v["classes"]) for k, v in parts.items()},
    },
    "environment": json.loads((place / "environment.json").read_text()),
  }
  results = files.without_nan(results)
  files.write_json(place / "results.json", results)
  path = report.build(
    place / "report.html",
    title=config.title,
    summary=page.summary(results),
    sections=[
      *page.from_results(results),
      *pictures.sections(place, config.seeds),
    ],
    provenance=page.provenance(results, config),
  )
  print(f"report: {path}", flush=True)
  return results


def _one_seed(
  config: Any,
  seed: int,
  parts: dict[str, Any],
  patches: list[Patch],
  place: pathlib.Path,
) -> dict[str, Any]:
  """Train a network and judge all arms on it."""
  started = time.process_time(), time.monotonic()
  say = lambda text: print(f"seed {seed}: {text}", flush=True)
  module = trojans.build(config.model, _CLASSES)
  network = trojans.plant(
    module, seed, config.training, parts["train"], parts["test"], patches, place
  )
  say(f"accuracy {network.clean[1]:.3f}, Trojans {network.success}")
  generator = data.batches.generator(seed, 2)
  calibration = trojans.flip(
    generator,
    module,
    network,
    parts["validation"],
    patches,
    config.calibration_each,
  )
  flipped = trojans.flip(
    generator, module, network, parts["test"], patches, config.each
  )
  methods = explanations.methods(
    config.methods,
    layer=config.cam_layer,
    side=flipped.images.shape[1],
    samples=config.samples,
  )
  subject = arms.subject(module, network.variables)
  examiner = measures.Examiner(subject, methods, config, seed)
  tuned = measures.tuned_rules(examiner, calibration, say)
  fast = [tuple(rule) for rule in tuned["fast_spade"]["rules"]]
  areas: dict[str, Any] = {}
  kept: dict[str, Any] = {"dense": subject.params}
  for arm in config.arms:
    began = time.process_time()
    if arm == "dense":
      areas[arm] = examiner.areas(
        subject.params, flipped, False, config.methods
      )
    elif arm == "sparse_head":
      clean = {k: parts["train"][k][: config.head_images] for k in _FIELDS}
      kept[arm], tuned[arm] = measures.tuned_strength(
        examiner, calibration, clean, _CLASSES
      )
      areas[arm] = examiner.areas(kept[arm], flipped, False, config.methods)
    elif arm == "spade":
      few = measures.some(flipped, config.exact_each)
      images = trojans.pixels(few.images)
      params = arms.exact(subject, examiner.key(2), images, fast, config)
      areas[arm] = examiner.areas(params, few, True, config.methods)
    else:
      rules = [tuple(rule) for rule in tuned[arm]["rules"]]
      params = examiner.trace(flipped, rules, arms.SOLVERS[arm])
      areas[arm] = examiner.areas(params, flipped, True, config.methods)
      kept[arm] = params
    mean = np.mean(list(areas[arm].values()))
    say(f"{arm}: mean AUC {mean:.3f}, {time.process_time() - began:.0f} CPU s")
  images, classes = measures.clean_images(
    generator, module, network.variables, parts["test"], config.clean_images
  )
  x = trojans.pixels(images)
  pruned = arms.trace(subject, examiner.key(3), x, fast, config)
  faithfulness = {
    "dense": measures.faithfulness(
      examiner, subject.params, images, classes, False
    ),
    "fast_spade": measures.faithfulness(
      examiner, pruned, images, classes, True
    ),
  }
  if "sparse_head" in kept:
    faithfulness["sparse_head"] = measures.faithfulness(
      examiner, kept["sparse_head"], images, classes, False
    )
  say("insertion and deletion done")
  few = measures.some(flipped, config.ablation_each)
  ablations = measures.ablations(examiner, few, fast)
  pictures.save(place, examiner, flipped, kept, config)
  return {
    "seed": seed,
    "accuracy": network.clean,
    "success": network.success,
    "tuned": tuned,
    "areas": areas,
    "exact_images": measures.some(_numbered(flipped), config.exact_each)
    .images.reshape(-1)
    .tolist(),
    "faithfulness": faithfulness,
    "ablations": ablations,
    "seconds": {
      "cpu": time.process_time() - started[0],
      "wall": time.monotonic() - started[1],
    },
  }


_FIELDS = ("images", "classes")


def _numbered(flipped: trojans.Flipped) -> trojans.Flipped:
  """Put the numbers of the images in their places."""
  return flipped._replace(images=np.arange(len(flipped.images)))
