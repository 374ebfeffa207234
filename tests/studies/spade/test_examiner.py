"""Images in groups are explained as all at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.studies.spade import arms, explanations, measures, trojans
from effjax.studies.spade.examiner import Examiner, Explained
from tests.studies.spade import small

KEY = jax.random.key(0)
IMAGES = (
  np.random.default_rng(0).integers(0, 256, (5, 7, 7, 2)).astype(np.uint8)
)
FLIPPED = trojans.Flipped(
  IMAGES,
  np.arange(49).reshape(1, 7, 7).repeat(5, 0) < 9,
  np.array([0, 1, 2, 0, 1]),
  IMAGES,
  np.zeros(5, int),
  np.zeros(5, int),
  np.arange(5),
)


@pytest.fixture(scope="module")
def examiners():
  module = small.Net()
  variables = jax.jit(module.init)(KEY, jnp.zeros((1, 7, 7, 2)))
  subject = arms.subject(module, dict(variables))
  methods = explanations.methods(
    ("saliency",), layer="conv/kernel", side=7, samples=16
  )
  return [
    Examiner(subject, methods, small.config(**options), 0)
    for options in ({}, {"together": 2, "curve_points": 3})
  ]


def test_groups_are_of_one_size_and_hold_every_image_once(examiners):
  whole, grouped = examiners
  explained = Explained(whole.network.params)
  (group,) = whole.groups(IMAGES, FLIPPED.targets, explained)
  assert (group.real, group.per_example) == (5, False)
  groups = list(grouped.groups(IMAGES, FLIPPED.targets, explained))
  assert [g.real for g in groups] == [2, 2, 1]
  rows = np.concatenate([g.rows[: g.real] for g in groups])
  assert rows.tolist() == list(range(5))
  for group in groups:
    assert group.per_example
    assert len(group.x) == 2
    leaf = jax.tree.leaves(group.params)[0]
    assert leaf.shape[0] == 2
  keys = {str(jax.random.key_data(g.key)) for g in groups}
  assert len(keys) == 3


def test_groups_change_no_score_of_a_network(examiners):
  explained = Explained(examiners[0].network.params)
  whole, grouped = (
    examiner.areas(explained, FLIPPED, ("saliency",)) for examiner in examiners
  )
  np.testing.assert_allclose(whole["saliency"], grouped["saliency"], atol=1e-6)
  whole, grouped = (
    measures.faithfulness(examiner, explained, IMAGES, FLIPPED.targets)
    for examiner in examiners
  )
  for score in ("insertion", "deletion"):
    np.testing.assert_allclose(
      whole["saliency"][score], grouped["saliency"][score], atol=1e-5
    )


def test_parameters_of_chosen_images_are_kept(examiners):
  _, grouped = examiners
  asked = []

  def prune(key, x):
    asked.append(jax.random.key_data(key).tolist())
    scale = jnp.sum(x, axis=(1, 2, 3))
    return jax.tree.map(
      lambda leaf: leaf[None] * scale.reshape(-1, *[1] * leaf.ndim),
      grouped.network.params,
    )

  found = grouped.examine(
    Explained(prune=prune), FLIPPED, ("saliency",), [1, 4]
  )
  assert len({tuple(key) for key in asked}) == 3
  assert set(found.params) == {1, 4}
  for row, params in found.params.items():
    np.testing.assert_allclose(
      params["head"]["kernel"],
      grouped.network.params["head"]["kernel"]
      * (float(IMAGES[row].sum()) / 255.0),
      rtol=1e-5,
    )


def test_answers_are_those_of_the_network_that_is_explained(examiners):
  params = examiners[0].network.params
  # One network says 2 to images with an even first value, the others 0.
  says = lambda number: (
    jax.tree.map(jnp.zeros_like, params)
    | {"head": {"kernel": jnp.zeros((4, 3)), "bias": jnp.eye(3)[number]}}
  )
  even = IMAGES[:, 0, 0, 0] % 2 == 0
  many = jax.tree.map(
    lambda *leaves: jnp.stack(leaves), *(says(2 if e else 0) for e in even)
  )
  expected = np.where(even, 2, 0) == FLIPPED.targets
  assert 0 < expected.sum() < 5
  for examiner in examiners:
    found = examiner.examine(
      Explained(many, per_example=True), FLIPPED, ("saliency",)
    )
    assert found.answer_kept == expected.tolist()
    found = examiner.examine(Explained(says(1)), FLIPPED, ())
    assert found.answer_kept == (FLIPPED.targets == 1).tolist()
