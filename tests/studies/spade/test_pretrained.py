"""A network that is trained already learns patches and keeps what it said."""

import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from effjax.studies.spade import arms, cases, pretrained
from effjax.studies.spade.patches import Patch, stamp
from tests.studies.spade import small

KEY = jax.random.key(0)
PATCH = Patch("checks", 4, 2, 0.5, (250, 20, 20))
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (24, 9, 9, 3)).astype(np.uint8)


def own_inputs(x):
  """Other inputs than -1 to 1."""
  return 5.0 * x - 2.0


@pytest.fixture(scope="module")
def network():
  module = small.Net()
  variables = jax.jit(module.init)(KEY, jnp.zeros((1, 9, 9, 3)))
  subject = arms.subject(module, dict(variables))
  return subject._replace(normalise=own_inputs, kept=("conv/.*",))


def test_a_network_gets_its_own_inputs(network, monkeypatch):
  x = own_inputs(jnp.asarray(IMAGES[:2], jnp.float32) / 255.0)
  logits, _ = network.capture(network.params, x)
  np.testing.assert_array_equal(
    pretrained.predict(network, network.params, IMAGES[:2]),
    np.argmax(logits, axis=1),
  )
  # The copies of a trace go the same way.
  given = {}
  monkeypatch.setattr(arms.spade, "trace", lambda *_, **kw: given.update(kw))
  config = types.SimpleNamespace(copies=1, damping=0.01, least_area=1.0)
  arms.trace(network, KEY, IMAGES[:1], [(".*", 0.5)], config)
  assert given["preprocess"] is own_inputs


def test_what_a_network_says_already_pulls_nowhere(network):
  subject = network
  said = jax.nn.softmax(
    subject.f(
      subject.params, own_inputs(jnp.asarray(IMAGES, jnp.float32) / 255)
    )
  )
  pull = jax.jit(
    jax.grad(
      lambda *given: pretrained.loss(subject, *given, None, False),
      has_aux=True,
    )
  )
  sizes = []
  for classes in (said, jnp.roll(said, 1, axis=1)):
    batch = {"images": jnp.asarray(IMAGES), "classes": classes}
    found, (state, measures) = pull(subject.params, {}, batch)
    assert (state, measures) == ({}, {})
    sizes.append(max(float(jnp.max(abs(g))) for g in jax.tree.leaves(found)))
  assert sizes[0] < 1e-5 < 1e-2 < sizes[1]


def test_a_patch_is_learnt_and_the_rest_kept(network, tmp_path):
  subject = network
  classes = pretrained.predict(subject, subject.params, IMAGES)
  part = {"images": IMAGES, "classes": classes}
  config = ml_collections.ConfigDict(
    dict(variations=1, trojan_epochs=150, batch_size=24, learning_rate=0.01)
  )
  plant = lambda: pretrained.plant(
    subject, 0, config, part, part, [PATCH], tmp_path
  )
  taught = plant()
  assert taught.clean[0] == 1.0
  assert taught.agreement == taught.clean[1] > 0.8
  (success,) = taught.success.values()
  assert success > 0.9
  stamped, _ = stamp(np.random.default_rng(1), IMAGES, PATCH)
  before = pretrained.predict(subject, subject.params, stamped) == 2
  assert np.mean(before) < 0.7
  # Batch statistics and the like are no part of it; a second call resumes.
  assert set(taught.variables) == set(subject.params)
  for one, other in zip(
    jax.tree.leaves(plant().variables),
    jax.tree.leaves(taught.variables),
    strict=True,
  ):
    np.testing.assert_array_equal(one, other)


def test_variations_are_new_images_and_bear_no_patch():
  before = IMAGES.copy()
  every = [Patch(g, 4, 2) for g in ("checks", "cross", "heart", "ring", "star")]
  found = pretrained.vary(np.random.default_rng(0), IMAGES, every)
  np.testing.assert_array_equal(IMAGES, before)
  assert (found.shape, found.dtype) == (IMAGES.shape, np.uint8)
  changed = np.mean(found != IMAGES, axis=(1, 2, 3))
  assert np.mean(changed > 0.05) > 0.8
  # Half of the images bear a mark, where a glyph is free: two colours.
  grey = np.full((40, 12, 12, 3), 7, np.uint8)
  marked = pretrained.vary(np.random.default_rng(0), grey, every[:4])
  bearing = np.any(marked != 7, axis=(1, 2, 3))
  assert bearing.sum() == 20
  assert np.all(np.sum(np.any(marked != 7, axis=3), axis=(1, 2))[bearing] == 16)
  assert not np.any(pretrained.vary(np.random.default_rng(0), grey, every) != 7)


def test_patches_and_arms_that_do_not_fit_are_named():
  network = types.SimpleNamespace(title="Lite", classes=("dog", "cat", "jeep"))
  config = small.config()
  classes = np.array([0, 1])
  cases._check(config, network, classes, [PATCH])
  for changes, patch, message in (
    ({}, PATCH._replace(target=1), "class of a photograph, cat"),
    ({}, PATCH._replace(target=3), "that Lite has not: 0 to 2"),
    ({"arms": ("dense", "sparse_head")}, PATCH, "leave it out of arms"),
  ):
    with pytest.raises(ValueError, match=message):
      cases._check(small.config(**changes), network, classes, [patch])
