"""The study of traces from data to report; it reads from top to bottom.

For every seed: a network is trained and taught to obey patches; sparsities are
tuned on some images with patches, and every arm and method is judged on others
by how well its maps find the patch. On clean images pixels are inserted and
deleted in the order of the maps.
"""

import functools
import json
import os
import pathlib
import time
from typing import Any

import jax
import numpy as np

from effjax import data
from effjax.io import files
from effjax.studies.results import publish
from effjax.studies.spade import (
  arms,
  cases,
  explanations,
  findings,
  measures,
  page,
  pictures,
  trojans,
)
from effjax.studies.spade.examiner import Examined, Examiner, Explained
from effjax.studies.spade.patches import Patch
from effjax.training import workdir as workdirs


def run(config: Any, workdir: str) -> dict[str, Any]:
  """Run the study, or finish one that was interrupted.

  Args:
    config: See `configs/spade`.
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
  patches = [Patch(*patch) for patch in config.patches]
  case = cases.find(config, patches)
  methods = explanations.methods(
    config.methods,
    layer=config.cam_layer,
    side=case.parts(config.seeds[0])["test"]["images"].shape[1],
    samples=config.samples,
  )
  outcomes = []
  for seed in config.seeds:
    path = place / f"seed{seed}" / "outcome.json"
    try:
      outcome = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
      outcome = _one_seed(config, seed, case, methods, patches, path.parent)
      files.write_json(path, outcome)
      # A network has hundreds of programs of its own, each of many mapped
      # pieces of memory, of which a process may have some ten thousand.
      jax.clear_caches()
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
      "sizes": {
        k: len(v["classes"]) for k, v in case.parts(config.seeds[0]).items()
      },
    },
    "environment": json.loads((place / "environment.json").read_text()),
  }
  if case.photographs is not None:
    results["photographs"] = case.photographs(outcomes)
  more = pictures.sections(place, config.seeds)
  return publish(place, results, page, config, more=more)


def _one_seed(
  config: Any,
  seed: int,
  case: cases.Case,
  methods: Any,
  patches: list[Patch],
  place: pathlib.Path,
) -> dict[str, Any]:
  """Make a network with Trojans, and judge all arms on it."""
  started = time.process_time(), time.monotonic()
  say = lambda text: print(f"seed {seed}: {text}", flush=True)
  parts = case.parts(seed)
  network = case.plant(seed, parts, place)
  say(
    f"accuracy {network.clean[0]:.3f}, with Trojans {network.clean[1]:.3f},"
    f" the same said of {network.agreement:.3f}; patches {network.success}"
  )
  generator = data.batches.generator(seed, 2)
  answer = functools.partial(case.answer, network.variables)
  calibration, flipped = (
    trojans.flip(generator, answer, parts[part], patches, each)
    for part, each in (
      ("validation", config.calibration_each),
      ("test", config.each),
    )
  )
  subject = case.subject(network.variables)
  examiner = Examiner(subject, methods, config, seed)
  tuned = measures.tuned_rules(examiner, calibration, say)
  fast = [tuple(rule) for rule in tuned["fast_spade"]["rules"]]
  few = measures.some(flipped, config.exact_each)
  examined: dict[str, Examined] = {}
  heads = {}
  shown = pictures.chosen(flipped).tolist()
  for arm in config.arms:
    began = time.process_time()
    if arm == "dense":
      explained = Explained(subject.params)
    elif arm == "sparse_head":
      clean = {k: parts["train"][k][: config.head_images] for k in _FIELDS}
      params, tuned[arm] = measures.tuned_strength(
        examiner, calibration, clean, case.classes
      )
      explained = heads[arm] = Explained(params)
    elif arm == "spade":
      explained = Explained(
        prune=lambda key, images: arms.exact(subject, key, images, fast, config)
      )
    else:
      rules = [tuple(rule) for rule in tuned[arm]["rules"]]
      explained = examiner.traced(rules, arms.SOLVERS[arm])
    examined[arm] = examiner.examine(
      explained,
      few if arm == "spade" else flipped,
      config.methods,
      shown if arm == "fast_spade" else (),
    )
    mean = np.mean(list(examined[arm].areas.values()))
    say(f"{arm}: mean AUC {mean:.3f}, {time.process_time() - began:.0f} CPU s")
  images, classes = measures.clean_images(
    generator, answer, parts["test"], config.clean_images
  )
  faithfulness = {
    arm: measures.faithfulness(examiner, explained, images, classes)
    for arm, explained in (
      ("dense", Explained(subject.params)),
      ("fast_spade", examiner.traced(fast)),
      *heads.items(),
    )
  }
  say("insertion and deletion done")
  ablations = measures.ablations(
    examiner, measures.some(flipped, config.ablation_each), fast
  )
  pictures.save(place, examiner, flipped, examined["fast_spade"].params, config)
  return {
    "seed": seed,
    "accuracy": network.clean,
    "agreement": network.agreement,
    "success": network.success,
    "ids": flipped.ids.tolist(),
    "tuned": tuned,
    "areas": {arm: found.areas for arm, found in examined.items()},
    "answer_kept": {arm: found.answer_kept for arm, found in examined.items()},
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
