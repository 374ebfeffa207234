"""What is asked of an edited model."""

import jax
import numpy as np
import pytest

from effjax.data import edit_sets, edits, vocabulary, worlds
from effjax.studies.edit import examiner, pretraining


@pytest.mark.parametrize("form", ["rso", "question"])
def test_paraphrases_ask_for_the_object(form):
  key = jax.random.key(0)
  world = worlds.make_world(key, subjects=40, relations=2, objects=8)
  words = vocabulary.make_vocabulary(world)
  edit = edits.make_edit(key, world, count=2)
  sets = edit_sets.make_sets(key, world, edit, paraphrases=(form,))
  about = pretraining.Subject(world=world, words=words, module=None)
  names, asked = examiner.ask(about, [sets], 10)
  rows = lambda name: np.asarray(asked.sets[0] == names.index(name))
  ids = lambda name: np.asarray(asked.targets[0])[rows(name)].tolist()
  assert ids("paraphrase") == ids("edited")
  assert len(set(ids("paraphrase"))) == 2
  # The last token of each prompt is the mark of an object.
  last = np.asarray(asked.lengths[0]) - 1
  marks = np.asarray(asked.tokens[0])[np.arange(len(last)), last]
  assert len(set(marks[rows("paraphrase") | rows("edited")].tolist())) == 1


def test_several_forms_are_averaged():
  names = ["edited", "reg_data", "paraphrase_rso", "paraphrase_question"]
  accuracy = np.array([1.0, 0.5, 0.25, 0.75])[None, None, None, None]
  found = examiner.summary(
    names,
    {"accuracy": accuracy, "agreement": np.ones_like(accuracy)},
    np.array([[[2, 4, 2, 2]]]),
  )
  one = {name: value.item() for name, value in found.items()}
  assert one["generalization"] == 0.5
  np.testing.assert_allclose(one["harmonic_egl"], 3 / (1 + 2 + 1))
  assert one["harmonic_el"] == 1.0
