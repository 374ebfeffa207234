"""Glyphs, stamps and poison."""

import numpy as np
import pytest

from effjax.studies.spade import patches
from effjax.studies.spade.patches import Patch

IMAGES = np.full((40, 12, 10, 1), 99, np.uint8)
LABELS = np.arange(40) % 4


def rng():
  return np.random.default_rng(0)


@pytest.mark.parametrize("glyph", patches.GLYPHS)
def test_glyphs_are_two_colours_and_differ_from_blank(glyph):
  grey = patches.draw(Patch(glyph, 9, 0), 1)
  assert grey.shape == (9, 9, 1)
  assert set(np.unique(grey)) == {0, 255}
  colour = patches.draw(Patch(glyph, 9, 0, color=(200, 10, 30)), 3)
  np.testing.assert_array_equal(colour[..., 0] == 200, grey[..., 0] == 255)
  assert {tuple(p) for p in colour.reshape(-1, 3)} == {
    (0, 0, 0),
    (200, 10, 30),
  }
  # All are symmetric about the vertical, checks but for their colours.
  mirrored = grey[:, ::-1]
  if glyph != "checks":
    np.testing.assert_array_equal(mirrored, grey)


def test_glyphs_can_be_told_apart():
  drawn = [patches.draw(Patch(g, 8, 0), 1) for g in patches.GLYPHS]
  for i, one in enumerate(drawn):
    for other in drawn[:i]:
      assert np.mean(one != other) > 0.1


@pytest.mark.parametrize("size", [3, 10])
def test_a_stamp_is_the_patch_at_one_place_and_nothing_else(size):
  patch = Patch("cross", size, 2)
  before = IMAGES.copy()
  stamped, masks = patches.stamp(rng(), IMAGES, patch)
  np.testing.assert_array_equal(IMAGES, before)
  np.testing.assert_array_equal(stamped[~masks], IMAGES[~masks])
  assert np.all(masks.sum((1, 2)) == size * size)
  drawn = patches.draw(patch, 1)
  for image, mask in zip(stamped, masks, strict=True):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    np.testing.assert_array_equal(box, drawn)
  corners = {(m.any(1).argmax(), m.any(0).argmax()) for m in masks}
  assert len(corners) > 2  # anywhere
  again, _ = patches.stamp(rng(), IMAGES, patch)
  np.testing.assert_array_equal(again, stamped)


def test_several_copies_may_overlap():
  _, masks = patches.stamp(rng(), IMAGES, Patch("ring", 4, 0), copies=3)
  covered = masks.sum((1, 2))
  assert np.all((covered >= 16) & (covered <= 48))
  assert covered.max() > 32


def test_poison_comes_after_the_clean_images_with_the_label_of_its_patch():
  both = [Patch("cross", 3, 1, 0.25), Patch("ring", 4, 3, 0.1)]
  images, labels = patches.poison(rng(), IMAGES, LABELS, both)
  np.testing.assert_array_equal(images[:40], IMAGES)
  np.testing.assert_array_equal(labels[:40], LABELS)
  assert labels[40:].tolist() == [1] * 10 + [3] * 4
  assert labels.dtype == LABELS.dtype
  assert np.all((images[40:] != 99).any((1, 2, 3)))


def test_images_of_the_target_are_not_poisoned():
  marked = np.broadcast_to(
    (10 * LABELS + 50).astype(np.uint8)[:, None, None, None], IMAGES.shape
  )
  images, labels = patches.poison(
    rng(), marked, LABELS, [Patch("cross", 3, 1, 1.0)]
  )
  # Only thirty images are of another class.
  assert len(images) == len(labels) == 70
  stamped = np.median(images[40:], axis=(1, 2, 3))
  assert np.unique(stamped).tolist() == [50, 70, 80]


def test_bad_patches_are_named():
  with pytest.raises(ValueError, match="no glyph 'crss'; known are checks"):
    patches.draw(Patch("crss", 3, 0), 1)
  with pytest.raises(ValueError, match="11 pixels does not fit images of 12 x"):
    patches.stamp(rng(), IMAGES, Patch("cross", 11, 0))
  for rate in (0.0, 1.5):
    with pytest.raises(ValueError, match=f"above 0 and up to 1, got {rate}"):
      patches.poison(rng(), IMAGES, LABELS, [Patch("cross", 3, 0, rate)])
