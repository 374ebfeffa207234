"""The study of adapters from tales to report; it reads from top to bottom.

A language model learns to go on with tales, by every arm in as many steps. The
learning rate of an arm is the one with the lowest loss on validation tales, by
the first seed; losses on test tales are of all seeds.
"""

import json
import os
import pathlib
import shutil
import time
from typing import Any

from effjax.io import files
from effjax.models import generation
from effjax.studies import language
from effjax.studies.adapters import findings, finetuning, page, plans, texts
from effjax.studies.results import publish
from effjax.training import workdir as workdirs


def run(config: Any, workdir: str) -> dict[str, Any]:
  """Run the study, or finish one that was interrupted.

  Args:
    config: See `configs/adapters`.
    workdir: Where everything is written.

  Returns:
    The content of `results.json`.

  Raises:
    ValueError: If the configuration asks for something that does not exist.
    FileNotFoundError: If the tales or the weights are not on this machine.
  """
  place = pathlib.Path(workdir)
  workdirs.start(place, config)
  model = language.load(config.model, directory=config.directory or None)
  found = texts.prepare(config, model.tokenizer)
  runner = Runner(config, model, found, place)
  base = runner.base()
  outcomes = []
  for arm in config.arms:
    tried = [
      runner.outcome(arm, rate, config.seeds[0]) for rate in config.rates[arm]
    ]
    best = min(tried, key=lambda outcome: outcome["validation"])
    outcomes += tried
    outcomes += [
      runner.outcome(arm, best["rate"], seed) for seed in config.seeds[1:]
    ]
  results = {
    "study": "adapters",
    "title": config.title,
    "model": config.model,
    "seeds": list(config.seeds),
    "steps": config.steps,
    "rows": config.rows,
    "length": config.length,
    "base": base,
    **findings.gather(config, base, outcomes),
    "shown": {"prompt": found.shown.prompt, "response": found.shown.response},
    "cores": os.cpu_count(),
    "data": {
      "name": "tales",
      "dialogues": {part: len(own) for part, own in found.examples.items()},
      "tales": found.titles,
      "too_long": found.too_long,
    },
    "environment": json.loads((place / "environment.json").read_text()),
  }
  return publish(place, results, page, config)


class Runner:
  """Fine-tunes and measures; what was measured before is read."""

  def __init__(
    self,
    config: Any,
    model: language.Language,
    found: texts.Texts,
    place: pathlib.Path,
  ):
    """Take a model and its texts.

    Args:
      config: The configuration.
      model: The model.
      found: The texts.
      place: Where everything is written.
    """
    self.config, self.model, self.place = config, model, place
    self.shown = found.shown
    self.tuner = finetuning.Tuner(
      model.module, model.params, found.examples["train"]
    )
    self.losses = {
      part: finetuning.held_out(
        self.tuner.module,
        found.examples[part],
        length=config.length,
      )
      for part in ("validation", "test")
    }

  def base(self) -> dict[str, Any]:
    """Measure the model as it is."""
    path = self.place / "base.json"
    if (kept := _read(path)) is None:
      kept = self._measure(self.model.params, self.config.seeds[0])
      files.write_json(path, kept)
    print(f"held-out loss before: {kept['test']:.4f}", flush=True)
    return kept

  def outcome(self, arm: str, rate: float, seed: int) -> dict[str, Any]:
    """Fine-tune by an arm, and measure what came of it.

    Args:
      arm: A key of `plans.TITLES`.
      rate: Its learning rate.
      seed: Of its random draws.

    Returns:
      What was found, plain values.
    """
    config = self.config
    place = self.place / arm / f"rate{rate:g}_seed{seed}"
    if (kept := _read(place / "outcome.json")) is not None:
      return kept
    plan = plans.Plan(
      arm=arm,
      rank=config.rank,
      density=config.density,
      steps=config.steps,
      learning_rate=rate,
      warm_up=config.warm_up,
      collected=config.collected,
      seed=seed,
    )
    started = time.process_time(), time.monotonic()
    tuned = self.tuner.tune(
      plan,
      place / "run",
      rows=config.rows,
      length=config.length,
      checkpoint_every=config.steps,
    )
    seconds = {
      "cpu": time.process_time() - started[0],
      "wall": time.monotonic() - started[1],
    }
    adapter = tuned.chosen.adapter
    counts = plans.summary(self.model.params, tuned.trained, adapter)
    measured = {
      "arm": arm,
      "rate": rate,
      "seed": seed,
      "trained": counts.trained,
      "weights": counts.weights,
      "seconds": seconds,
      **self._measure(tuned.merged, seed),
    }
    files.write_json(place / "outcome.json", measured)
    # What is left of a run is large, and nothing will ask for it again.
    shutil.rmtree(place / "run")
    print(
      f"{arm}, rate {rate:g}, seed {seed}: held-out loss"
      f" {measured['test']:.4f}, {seconds['cpu']:.0f} CPU s",
      flush=True,
    )
    return measured

  def _measure(self, params: Any, seed: int) -> dict[str, Any]:
    """Measure losses; of the first seed, show what the model writes too."""
    measured: dict[str, Any] = {
      part: loss(params) for part, loss in self.losses.items()
    }
    if seed == self.config.seeds[0]:
      measured["text"] = _continued(
        self.model, params, self.shown.prompt, self.config.shown_tokens
      )
    return measured


def _continued(
  model: language.Language, params: Any, prompt: str, count: int
) -> str:
  """Have a model answer a prompt, by the most likely tokens."""
  tokenizer = model.tokenizer
  if tokenizer.template is not None:
    prompt = tokenizer.chat([{"role": "user", "content": prompt}])
  (found,) = generation.generate(
    None,
    model.module,
    params,
    [tokenizer.encode(prompt)],
    max_tokens=count,
    eos=model.eos,
    tokenizer=tokenizer,
  )
  return (found.text or "").strip()


def _read(path: pathlib.Path) -> dict[str, Any] | None:
  """Read what was measured before, if that is complete."""
  try:
    return json.loads(path.read_text("utf-8"))
  except (FileNotFoundError, ValueError):
    return None
