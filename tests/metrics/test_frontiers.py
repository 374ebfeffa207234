import itertools
import json
import math
import pathlib

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies

from effjax import metrics
from effjax.metrics import clusters, frontiers

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "personalization"
FLOOR = 0.004072
counts = strategies.lists(strategies.integers(0, 9), min_size=6, max_size=6)
some_counts = counts.filter(any)


@pytest.fixture(scope="module")
def golden():
  values = json.loads((GOLDEN / "mauve.json").read_text())
  return values, np.load(GOLDEN / "mauve.npz")


@pytest.fixture(scope="module")
def features():
  rng = np.random.default_rng(0)
  return rng.normal(size=(2, 40, 8)).astype(np.float32)


def brute_divergence(h, r):
  return sum(a * math.log(a / b) for a, b in zip(h, r, strict=True) if a and b)


def brute_area(points):
  """Returns the area under a list of (x, y) of ascending x."""
  return sum(
    (right[0] - left[0]) * (left[1] + right[1]) / 2
    for left, right in itertools.pairwise(points)
  )


def brute_mauve(p, q):
  p, q = (np.array(x) / np.sum(x) for x in (p, q))
  points = [(1.0, 0.0), (0.0, 1.0)]
  for share in np.linspace(1e-6, 1 - 1e-6, 25):
    r = share * p + (1 - share) * q
    points.append(tuple(math.exp(-5 * brute_divergence(h, r)) for h in (q, p)))
  by_x = sorted(points, key=lambda point: (point[0], -point[1]))
  turned = [(y, x) for x, y in points]
  by_y = sorted(turned, key=lambda point: (point[0], -point[1]))
  return (brute_area(by_x) + brute_area(by_y)) / 2


@pytest.mark.parametrize("case", ["hist0", "hist3", "shift_small", "unequal"])
def test_golden_histograms(golden, case):
  values, arrays = golden
  sampled = isinstance(values[case], list)
  p, q = (arrays[f"{case}_{x}{'h' if sampled else ''}"] for x in "pq")
  np.testing.assert_allclose(
    metrics.divergence_curve(p, q), arrays[f"{case}_curve"], rtol=0, atol=1e-12
  )
  if not sampled:
    expected = values[case]
    found = {
      "mauve": metrics.mauve_from_histograms(p, q),
      "frontier_integral": metrics.frontier_integral(p, q),
    }
  else:
    expected = dict(values[case][0])
    assert expected.pop("seed") == 25
    sizes = [len(arrays[f"{case}_{x}"]) for x in "pq"]
    star = [
      metrics.krichevsky_trofimov(np.round(h * n))
      for h, n in zip((p, q), sizes, strict=True)
    ]
    found = {
      "mauve": metrics.mauve_from_histograms(p, q),
      "mauve_star": metrics.mauve_from_histograms(*star),
      "fi": metrics.frontier_integral(p, q),
      "fi_star": metrics.frontier_integral(*star),
      "buckets": metrics.mauve_buckets(*sizes),
    }
  assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("case", ["shift_small", "unequal"])
def test_golden_samples(golden, case):
  values, arrays = golden
  result = metrics.mauve(
    jax.random.key(25), arrays[f"{case}_p"], arrays[f"{case}_q"]
  )
  assert result.buckets == values[case][0]["buckets"]
  for name, found in (
    ("mauve", result.mean),
    ("mauve_star", result.star.mean()),
    ("fi", result.frontier_integral.mean()),
    ("fi_star", result.frontier_integral_star.mean()),
  ):
    seeds = [row[name] for row in values[case]]
    assert min(seeds) - 0.1 <= found <= max(seeds) + 0.1, name


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(some_counts, some_counts)
def test_histograms_equal_brute_force(p, q):
  found = metrics.mauve_from_histograms(p, q)
  np.testing.assert_allclose(found, brute_mauve(p, q), atol=1e-9)
  assert found == pytest.approx(metrics.mauve_from_histograms(q, p))
  assert FLOOR - 1e-6 <= found <= 1.0
  integral = metrics.frontier_integral(p, q)
  assert -1e-12 <= integral <= 1.0
  # As the integral over l of the divergences from mixtures.
  share = (np.arange(4000) + 0.5) / 4000
  p, q = (np.array(x) / np.sum(x) for x in (p, q))
  r = share[:, None] * p + (1 - share)[:, None] * q

  def divergences(h):
    return (h * np.log(np.where(h, h, 1) / np.where(r, r, 1))).sum(axis=1)

  numeric = 2 * np.mean(share * divergences(p) + (1 - share) * divergences(q))
  np.testing.assert_allclose(integral, numeric, atol=1e-5)


@pytest.mark.parametrize("size", [2, 3, 20])
def test_degenerate_histograms(size):
  p = np.arange(1, size + 1)
  # Points (1, 1) sorted behind (1, 0) would leave 3/4.
  assert metrics.mauve_from_histograms(p, p) == 1.0
  assert metrics.mauve_from_histograms(p, 7 * p) == 1.0
  assert metrics.frontier_integral(p, p) == 0.0
  apart = np.append(p, 0 * p), np.append(0 * p, p[::-1])
  assert round(metrics.mauve_from_histograms(*apart), 6) == FLOOR
  assert metrics.frontier_integral(*apart) == pytest.approx(1.0)


def test_nearly_equal_histograms():
  rng = np.random.default_rng(0)
  for _ in range(100):
    p = rng.random(rng.integers(2, 9))
    q = p * (1 + rng.integers(-2, 3, p.shape) * 2.0**-52)
    assert metrics.mauve_from_histograms(p, q) == pytest.approx(1.0, abs=1e-12)
    # KL is never below 0, though its sum may be rounded to that.
    assert metrics.divergence_curve(p, q).max() <= 1.0


def test_star_floors_of_the_specification():
  for n, expected in ((40, 0.0096), (34, 0.0107), (30, 0.0117), (120, 0.0058)):
    # Nearly disjoint: each side spreads over what the other leaves.
    p = metrics.krichevsky_trofimov([n, 0, 0])
    q = metrics.krichevsky_trofimov([0, n // 2, n - n // 2])
    found = metrics.mauve_from_histograms(p, q)
    assert found == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(
  ("p", "q", "message"),
  [
    ([1, 2], [1, 2, 3], "same buckets"),
    ([[1, 2]], [[1, 2]], "same buckets"),
    ([0, 0], [1, 2], "p must hold"),
    ([1, 2], [-1, 2], "q must hold"),
    ([1, 2], [math.nan, 2], "q must hold"),
  ],
)
def test_wrong_histograms(p, q, message):
  for measure in (
    metrics.divergence_curve,
    metrics.mauve_from_histograms,
    metrics.frontier_integral,
  ):
    with pytest.raises(ValueError, match=message):
      measure(p, q)


def test_buckets_round_half_to_even():
  sizes = (0, 14, 15, 16, 25, 26, 34, 35, 42, 45, 46, 55)
  assert [metrics.mauve_buckets(n, 100) for n in sizes] == (
    [2, 2, 2, 2, 2, 3, 3, 4, 4, 4, 5, 6]
  )
  assert metrics.mauve_buckets(500, 45) == 4


def test_samples(features):
  p, q = features
  result = metrics.mauve(jax.random.key(0), p, q, feature="smollm2")
  again = metrics.mauve(jax.random.key(0), p, 3 * q, feature="smollm2")
  np.testing.assert_allclose(again.values, result.values)
  assert result.name == "mauve_smollm2"
  assert (result.buckets, result.sizes) == (4, (40, 40))
  assert result.mean == result.values.mean()
  assert result.sd == pytest.approx(np.std(result.values, ddof=1))
  assert len(set(result.values.tolist())) > 1
  for s in range(5):
    histograms = result.p_histograms[s], result.q_histograms[s]
    assert result.values[s] == metrics.mauve_from_histograms(*histograms)
    star = [metrics.krichevsky_trofimov(40 * h) for h in histograms]
    assert result.star[s] == pytest.approx(
      metrics.mauve_from_histograms(*star), abs=1e-12
    )
    assert frontiers.curve_area(result.curves[s]) == result.values[s]
  one = metrics.mauve(jax.random.key(0), p, p, seeds=1)
  assert (one.mean, one.star[0], one.frontier_integral[0]) == (1.0, 1.0, 0.0)
  assert math.isnan(one.sd)


def test_separate_and_constant_samples(features):
  p, q = features
  shift = 40 * np.ones(8, np.float32)
  apart = metrics.mauve(jax.random.key(0), p + shift, q - shift, buckets=4)
  np.testing.assert_allclose(apart.values, FLOOR, atol=1e-6)
  assert (apart.star > 2 * apart.values).all()
  constant = np.repeat(q[:1], 40, axis=0)
  collapsed = metrics.mauve(jax.random.key(0), p, constant)
  assert np.isfinite(collapsed.values).all()
  assert (collapsed.values < 0.5).all()


def test_wrong_samples(features):
  p, q = features
  key = jax.random.key(0)
  broken, empty = p.copy(), p.copy()
  broken[3, 1], empty[5] = np.nan, 0.0
  repeated = (
    np.tile(p[:1], (40, 1)) * np.arange(1, 41, dtype=np.float32)[:, None]
  )
  for arguments, message in (
    ((p, broken), "row 3 of q is not finite"),
    ((empty, q), "row 5 of p is zero"),
    ((p[:1], q), "p must be features .* at least two"),
    ((p, q[:0]), "q must be features"),
    ((p[0], q), "p must be features"),
    ((p, q[:, :3]), "same width"),
    ((repeated, repeated), "1 distinct features, too few for 4 buckets"),
    ((p[:3], q[:2], 6), "5 distinct features, too few for 6"),
    ((p, q, 1), "buckets must be a whole number of at least 2"),
  ):
    *samples, buckets = arguments if len(arguments) == 3 else (*arguments, None)
    with pytest.raises(ValueError, match=message):
      metrics.mauve(key, *samples, buckets=buckets)
  for name in ("seeds", "buckets", "restarts"):
    with pytest.raises(ValueError, match=f"{name} must be a whole number"):
      metrics.mauve(key, p, q, **{name: 2.5})
  with pytest.raises(ValueError, match="variance must lie in"):
    metrics.mauve(key, p, q, variance=None)


def test_principal_components_equal_an_svd():
  rng = np.random.default_rng(1)
  for shape in ((9, 5), (5, 9)):
    x = rng.normal(size=shape) * np.arange(1, shape[1] + 1) + 3
    centred = x - x.mean(axis=0)
    left, scales, _ = np.linalg.svd(centred, full_matrices=False)
    share = np.cumsum(scales**2) / (scales**2).sum()
    for variance in (0.3, 0.9, 1.0):
      found = clusters.principal_components(x, variance)
      kept = found.shape[1]
      assert share[kept - 1] >= variance - 1e-9
      assert kept == 1 or share[kept - 2] < variance
      np.testing.assert_allclose(
        np.abs(found), np.abs(left * scales)[:, :kept], atol=1e-6
      )
  with pytest.raises(ValueError, match="variance"):
    clusters.principal_components(x, 0.0)


def test_k_means_is_a_fixed_point(features):
  points = np.pad(features.reshape(80, 8), ((0, 0), (0, 8)))
  labels, centers, objective = map(
    np.asarray, clusters.k_means(jax.random.key(0), points, 4, restarts=5)
  )
  distance = ((points[:, None] - centers) ** 2).sum(axis=2)
  np.testing.assert_array_equal(labels, distance.argmin(axis=1))
  np.testing.assert_allclose(objective, distance.min(axis=1).sum(), rtol=1e-5)
  for k in range(4):
    np.testing.assert_allclose(
      centers[k], points[labels == k].mean(axis=0), atol=1e-5
    )


def test_k_means_refills_empty_clusters():
  # A random choice of starts takes the repeated point several times.
  points = np.zeros((80, 16), np.float32)
  points[[3, 17, 30], 0] = 1.0, 2.0, 4.0
  for seed in range(5):
    found = clusters.k_means(jax.random.key(seed), points, 4, restarts=5)
    assert len(set(found.labels.tolist())) == 4
    assert float(found.objective) == 0.0
  with pytest.raises(ValueError, match="3 points"):
    clusters.k_means(jax.random.key(0), points[:3], 4)
  with pytest.raises(ValueError, match="restarts"):
    clusters.k_means(jax.random.key(0), points, 4, restarts=0)


@pytest.mark.parametrize(
  "options",
  [
    {"scaling": -1.0},
    {"scaling": math.nan},
    {"scaling": None},
    {"points": 0},
    {"points": 2.5},
    {"points": None},
  ],
)
def test_wrong_numbers(options):
  with pytest.raises(ValueError, match=f"{next(iter(options))} must be a"):
    metrics.divergence_curve([1, 1], [1, 2], **options)
