import numpy as np
import pytest

from effjax.data import attributes, images

VIEWS = [attributes.FASHION, attributes.MNIST, attributes.DIGITS]


def brute(grey):
  """Measure one picture by loops, in the words of `Measures`."""
  height, width = grey.shape
  cells = [
    (r, c, int(grey[r, c]))
    for r in range(height)
    for c in range(width)
    if grey[r, c] >= attributes.FIGURE
  ]
  inside = {(r, c): v for r, c, v in cells}
  pairs = [
    abs(v - inside[other])
    for (r, c), v in inside.items()
    for other in ((r + 1, c), (r, c + 1))
    if other in inside
  ]
  span = lambda xs: max(xs) - min(xs) + 1 if xs else 0
  whole = grey.astype(int)
  top = [v for r, c, v in cells if r < height // 2]
  bottom = [v for r, c, v in cells if r >= height // 2]
  return {
    "area": len(cells),
    "light": sum(v for *_, v in cells),
    "square": sum(v * v for *_, v in cells),
    "width": span([c for _, c, _ in cells]),
    "height": span([r for r, _, _ in cells]),
    "total": whole.sum(),
    "mirror": sum(
      abs(whole[r, c] - whole[r, width - 1 - c])
      for r in range(height)
      for c in range(width)
    ),
    "steps": sum(pairs),
    "pairs": len(pairs),
    "top": len(top),
    "bottom": len(bottom),
    "top_light": sum(top),
    "bottom_light": sum(bottom),
  }


def test_measures_against_loops():
  generator = np.random.default_rng(0)
  grey = generator.integers(0, 256, (600, 7, 6, 1)).astype(np.uint8)
  grey *= generator.random(grey.shape) < 0.5
  grey[0] = 0
  measures = attributes.measure(grey)
  assert measures.pixels == 42
  # Both sides of the border between two chunks.
  for row in (0, 1, 2, 511, 512, 599):
    for name, value in brute(grey[row, ..., 0]).items():
      assert getattr(measures, name)[row] == value, name


def picture(**cells):
  """Return an 8 x 8 picture with rectangles (top, bottom, left, right, v)."""
  grey = np.zeros((1, 8, 8, 1), np.uint8)
  for top, bottom, left, right, value in cells.values():
    grey[0, top:bottom, left:right] = value
  return attributes.measure(grey)


def test_rules_at_their_thresholds():
  block = picture(a=(0, 4, 0, 8, 100))  # half of the picture
  assert attributes.large(block, 50)
  assert not attributes.large(block, 51)
  assert attributes.bright(block, 100)
  assert not attributes.bright(block, 101)
  assert attributes.dark(block, 101)
  assert not attributes.dark(block, 100)
  assert attributes.wide(block, 200)
  assert not attributes.wide(block, 201)
  assert attributes.narrow(picture(a=(0, 8, 2, 6, 100)), 200)
  assert not attributes.narrow(block, 200)
  assert attributes.symmetric(block, 0)
  # A quarter of the light lies on the left alone and moves.
  skew = picture(a=(0, 3, 0, 8, 100), b=(3, 5, 0, 4, 100))
  assert attributes.symmetric(skew, 25)
  assert not attributes.symmetric(skew, 24)
  # One step of 100 at each of 8 columns, among 8 * 3 + 7 * 4 pairs.
  stripes = picture(a=(0, 2, 0, 8, 200), b=(2, 4, 0, 8, 100))
  assert attributes.patterned(stripes, 15)
  assert not attributes.patterned(stripes, 16)
  assert attributes.contrasting(stripes, 50)
  assert not attributes.contrasting(stripes, 51)
  halves = picture(a=(0, 4, 0, 8, 200), b=(4, 8, 0, 8, 100))
  assert attributes.two_tone(halves, 100)
  assert not attributes.two_tone(halves, 101)
  corner = picture(a=(0, 1, 0, 8, 90), b=(1, 8, 0, 1, 90))
  assert attributes.openwork(corner, 24)
  assert not attributes.openwork(corner, 23)


def test_an_empty_picture_has_no_attribute():
  measures = picture()
  for view in VIEWS:
    for rule in view.of_pixels.values():
      assert not rule(measures).any()


def test_rules_see_the_picture_only():
  """Attributes of pixels do not depend on the class, nor the reverse."""
  generator = np.random.default_rng(0)
  grey = generator.integers(0, 256, (50, 28, 28, 1)).astype(np.uint8)
  view = attributes.FASHION
  zero = attributes.attributes(view, grey, np.zeros(50, np.int32))
  nine = attributes.attributes(view, grey, np.full(50, 9, np.int32))
  dark = attributes.attributes(view, grey // 4, np.full(50, 9, np.int32))
  count = len(view.of_class)
  np.testing.assert_array_equal(zero[:, count:], nine[:, count:])
  np.testing.assert_array_equal(nine[:, :count], dark[:, :count])


@pytest.mark.parametrize("view", VIEWS)
def test_views_hold_what_they_promise(view):
  assert len(view.of_class) >= 10
  assert len(view.of_pixels) >= 6
  assert len(set(view.names)) == len(view.names)
  assert set(view.identity) < set(view.names)
  sets = [frozenset(members) for members in view.of_class.values()]
  complements = [frozenset(range(10)) - members for members in sets]
  assert len({*sets, *complements}) == 2 * len(sets)


@pytest.mark.data
@pytest.mark.parametrize("name", ["fashion_mnist", "mnist_5k", "digits"])
def test_real_rates(name):
  try:
    train = images.load(name, "train")
  except FileNotFoundError:
    pytest.skip(f"{name} is absent: python -m launch.fetch {name}")
  rates = train["labels"].mean(0)
  assert rates.min() >= 0.05
  assert rates.max() <= 0.6
  # No two say the same or the contrary, and no identity group settles all
  # others.
  correlation = np.corrcoef(train["labels"].T.astype(float))
  np.fill_diagonal(correlation, 0)
  assert np.abs(correlation).max() < 0.9
  if name == "fashion_mnist":
    assert (rates <= 0.15).sum() >= 6
