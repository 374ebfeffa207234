import types

import ml_collections
import numpy as np
import pytest

from effjax.studies.bias import stages, tuning, variants

LABELS = np.array([[True], [False]] * 20)
# The rate that is best, by arm or variant and sparsity.
BEST = {
  ("dense", 0.0): 0.1,
  ("base", 0.0): 0.4,
  ("ri", 0.9): 0.2,
  ("ri", 0.99): 0.1,
  ("pt", 0.9): 0.4,
  ("pt", 0.99): 0.2,
  ("scored", 0.95): 0.1,
}


@pytest.fixture
def tune(monkeypatch, tmp_path):
  """Tune with models whose logits say how far their rate is from the best."""
  rng = np.random.default_rng(0)
  started = {}

  def run(name, members, trainer, place, *, starts=None, keep=False, **_):
    started[name] = starts
    noise = rng.normal(size=(len(LABELS), 1))
    logits = [
      LABELS + abs(np.log(m.learning_rate / BEST[m.arm, m.sparsity])) * noise
      for m in members
    ]
    return stages.Stage(
      members=list(members),
      validation=np.float32(logits),
      test=np.float32(logits),
      achieved=[m.sparsity for m in members],
      states=[m.learning_rate for m in members] if keep else [],
    )

  def variant_stage(name, variant, members, trainer, place, starts):
    return run(name, members, trainer, place, starts=starts)

  monkeypatch.setattr(stages, "run", run)
  monkeypatch.setattr(variants, "stage", variant_stage)
  config = ml_collections.ConfigDict(
    dict(
      sparsities=(0.5, 0.9, 0.99),
      seeds=(0, 1),
      training=dict(
        epochs=4,
        epochs_pt=2,
        learning_rates=dict(dense=1.0, base=1.0, ri=1.0, pt=1.0),
      ),
      tuning=dict(
        learning_rates=(0.1, 0.2, 0.4), sparsities=(0.9, 0.99), seed=7
      ),
    )
  )
  problem = types.SimpleNamespace(labels={"validation": LABELS})
  trainer = types.SimpleNamespace(config=config, problem=problem)
  other = variants.Variant(name="scored", sparsities=(0.8, 0.95))

  def run_it(**changes):
    config.tuning.update(changes)
    return tuning.learning_rates(trainer, tmp_path, [other])

  return run_it, started


def test_every_arm_gets_the_best_rate_of_each_sparsity(tune):
  run, started = tune
  assert run() == {
    "dense": 0.1,
    "base": 0.4,
    "ri": {"0.9": 0.2, "0.99": 0.1},
    "pt": {"0.9": 0.4, "0.99": 0.2},
    "scored": 0.1,
  }
  # Pruning starts from the best base model.
  assert set(started["tune-pt"]) == {0.4}
  assert set(started["tune-scored"]) == {0.4}


def test_without_a_grid_rates_are_those_of_the_config(tune):
  run, started = tune
  rates = run(learning_rates=())
  assert rates["ri"] == rates["scored"] == 1.0
  assert not started


def test_tuning_keeps_away_from_the_seeds_of_the_arms(tune):
  run, _ = tune
  with pytest.raises(ValueError, match=r"tuning\.seed 1 is one of the seeds"):
    run(seed=1)
  with pytest.raises(ValueError, match=r"tuning\.sparsities is empty"):
    run(seed=7, sparsities=())


def test_the_nearest_tuned_sparsity_counts_in_kept_weights():
  rates = {"ri": {"0.9": 1.0, "0.99": 2.0}, "dense": 3.0}
  levels = (0.0, 0.5, 0.96, 0.97, 0.98, 1.0)
  found = [tuning.rate_at(rates, "ri", level) for level in levels]
  assert found == [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
  assert tuning.rate_at(rates, "dense", 0.0) == 3.0
