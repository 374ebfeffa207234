"""Old facts taught again: the hidden come back sooner than the lost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.studies import edit
from effjax.studies.edit import (
  pretraining,
  relearning,
  relearning_page,
  runs,
  tasks,
)
from launch import configuring

MIXES = {"edit_only": "on the new facts alone"}


@pytest.fixture(scope="module")
def config():
  found = configuring.load("configs/edit/iid.py:miniature")
  found = found.copy_and_resolve_references()
  with found.unlocked():
    found.pretraining.update(steps=150, recall=0.0)
    found.arms = ("full", "lora1", "full_cut1")
    found.relearning.update(arms=("full", "full_cut1"), steps=12, rate=3e-3)
    found.tuning, found.reported, found.steps = 1, 1, 16
  return found


@pytest.fixture(scope="module")
def subject(config, tmp_path_factory):
  about = pretraining.subject(config)
  place = tmp_path_factory.mktemp("subject")
  model = pretraining.pretrain(about, config, 0, place)
  own = tasks.aligned([tasks.make(jax.random.key(1000), about, config, 2)])[0]
  return about, model, own


def test_lessons_are_the_facts_before_and_after(config, subject):
  about, _, own = subject
  data = relearning.lessons(about, own, 3)
  assert data.drawn.shape == (2, 2, 3, config.edit.count)
  for place, made in enumerate(own.made):
    for lesson, facts in enumerate((made.edit.old, made.edit.new)):
      rows = np.asarray(data.drawn[lesson, place, 0])
      taught = np.asarray(data.targets[place][rows])[:, 0]
      # As they are asked for.
      name = relearning.LESSONS[lesson]
      number = own.names.index(name)
      asked = np.asarray(data.asked.sets[place]) == number
      answers = np.asarray(data.asked.targets[place])[asked]
      assert sorted(taught) == sorted(answers), name
      assert len(taught) == len(facts)
  # Nothing else is asked for.
  assert set(np.unique(data.asked.sets)) == {
    own.names.index(name) for name in relearning.LESSONS
  }


@pytest.mark.slow
def test_a_model_without_an_edit_needs_no_lesson(config, subject):
  about, model, own = subject
  runner = runs.Runner(about, config)
  stage = relearning.Relearning(runner)
  # At such a rate an edit changes nothing, so that lessons are those of a model
  # that nobody edited.
  found = stage(model.params, own, 0, np.full((2, 2), 1e-9))
  assert found["old"].shape == (2, 2, 1, 12)
  assert found["fresh"].shape == (1, 12)
  data = relearning.lessons(about, own, 12)
  start = jax.tree.map(np.asarray, model.params)
  plain = stage._teach(model.params, [start], data, [1], 0)
  expected = plain[0, :, own.names.index("old")]
  np.testing.assert_allclose(
    found["old"], np.broadcast_to(expected, found["old"].shape), atol=0.21
  )
  assert found["old"][..., -1].min() > found["fresh"][0, 0]
  # New facts are learned step by step.
  assert found["fresh"][0, 0] < 1.0
  assert found["fresh"][0, -1] > found["fresh"][0, 0]


@pytest.mark.slow
def test_edited_models_are_those_that_were_measured(config, subject):
  about, model, own = subject
  runner = runs.Runner(about, config)
  wanted = [runs.Wanted("full_cut1", 1e-2, 1, 0)]
  made = runner.made(wanted, model.params, own, 0)
  found = runner.run("truncated", model.params, own, made, keep=True)
  models = runner.sweep.models("truncated", model.params, made, found.theta)
  asked = jax.tree.map(lambda x: x[1], own.data.asked)
  one = jax.tree.map(lambda x: x[0], models)
  logits = pretraining.at_places(
    about.module, one, asked.tokens, asked.lengths[:, None] - 1
  )[:, 0]
  right = np.asarray(jnp.argmax(logits, axis=1) == asked.targets)
  for number, name in enumerate(own.names):
    there = np.asarray(asked.sets) == number
    if there.any():
      assert right[there].mean() == pytest.approx(
        found.history["accuracy"][0, -1, number], abs=1e-6
      ), name


def results(config):
  """Hidden by one arm, erased by the other, and one edit that did not hold."""
  models, steps = 3, config.relearning.steps
  recall = lambda first: (np.arange(steps) >= np.array(first)[:, None]) * 1.0
  old = np.zeros((models, 2, 1, 2, steps))
  fresh = np.zeros((models, 2, steps))
  for model in range(models):
    old[model, 0, 0] = recall([1, 1])
    old[model, 1, 0] = recall([9, 10])
    fresh[model] = recall([9, 9])
  edited = np.ones((models, 2, 1, 2))
  edited[0, 0, 0, 0] = 0.5
  old[2, 1, 0, 1] = 0.0  # never back
  return relearning.table(
    config, {"old": old, "fresh": fresh, "edited": edited}
  )


def test_the_table_counts_edits_that_held(config):
  with_mix = config.copy_and_resolve_references()
  with with_mix.unlocked():
    with_mix.mixes = ("edit_only",)
  hidden, erased = results(with_mix)
  assert hidden["ratio"]["estimate"] == pytest.approx(0.2)
  assert (hidden["edits"], hidden["never"]) == (5, 0)
  assert erased["ratio"]["estimate"] > 1
  assert (erased["edits"], erased["never"]) == (6, 1)
  found = {
    "relearning": [hidden, erased],
    "mixes": ["edit_only"],
    "seeds": [0, 1, 2],
    "reported": 2,
    "arms": [
      {"name": "full", "title": "full"},
      {"name": "full_cut1", "title": "cut"},
    ],
  }
  text = relearning_page.summary(found, MIXES)
  assert "in 0.20 to 1.03 of the steps" in text
  assert "in less than half of them after 1 (full)" in text
  assert len(relearning_page.section(found, MIXES).elements) == 3


def test_an_arm_without_a_rate_is_refused_at_once(config, tmp_path):
  wrong = config.copy_and_resolve_references()
  with wrong.unlocked():
    wrong.interplay.arms, wrong.relearning.arms = ("full",), ("ia3",)
  with pytest.raises(ValueError, match=r"relearning\.arms holds 'ia3'"):
    edit.run(wrong, str(tmp_path))
