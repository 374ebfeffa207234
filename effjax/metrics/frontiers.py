"""MAUVE and its kin: how far the distribution of texts is from their author's.

Two samples of features are quantised together; what follows from the two
histograms is computed on the host, in float64. Pillutla et al. 2021,
arXiv:2102.01454, and 2023, arXiv:2212.14578.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from effjax import arguments
from effjax.metrics import clusters

Array = jax.Array
# Between directions: rounding alone sets equal texts about that far apart.
_SAME = 1e-5
# Components come in such multiples, so that few programs are compiled.
_COLUMNS = 16


class Mauve(NamedTuple):
  """MAUVE over S seeds of the clusters; K buckets.

  Attributes:
    name: "mauve_" and the source of the features: values of different sources
      are not comparable.
    mean: The mean of the values.
    sd: Their standard deviation (n - 1), NaN for one seed.
    values: [S], in (0, 1], higher for more similar samples.
    star: [S], MAUVE*, of smoothed histograms.
    frontier_integral: [S], in [0, 1], lower for more similar samples.
    frontier_integral_star: [S], of smoothed histograms.
    curves: [S, L + 2, 2], see `divergence_curve`.
    p_histograms: [S, K], the share of p in each bucket.
    q_histograms: [S, K], the share of q.
    buckets: K; below a few tens, MAUVE is coarse, see `mauve`.
    sizes: The numbers of texts of p and q.
  """

  name: str
  mean: float
  sd: float
  values: np.ndarray
  star: np.ndarray
  frontier_integral: np.ndarray
  frontier_integral_star: np.ndarray
  curves: np.ndarray
  p_histograms: np.ndarray
  q_histograms: np.ndarray
  buckets: int
  sizes: tuple[int, int]


def mauve(
  key: Array,
  p: Any,
  q: Any,
  *,
  buckets: int | None = None,
  seeds: int = 5,
  feature: str = "features",
  variance: float = 0.9,
  restarts: int = 5,
  scaling: float = 5.0,
) -> Mauve:
  """Returns MAUVE of two samples of features, over several seeds.

  With a few tens of texts there are 2 to 4 buckets: two samples of one
  distribution then have anything from 0.9 to 1, and differences below 0.1 mean
  nothing. Samples without a bucket in common have 0.004072 for any K, MAUVE*
  more. Verbatim copies of the author's texts score high.

  Args:
    key: A random key.
    p: [N, D], features of the author's texts, concrete. Leave out empty texts.
    q: [M, D], features of generated texts.
    buckets: K, by default `mauve_buckets(N, M)`; force a common value where
      several samples are compared.
    seeds: The number of times to quantise.
    feature: What the features are, for the name of the result.
    variance: The share of the variance that the principal components keep.
    restarts: The runs of k-means, of which the best counts, for each seed.
    scaling: The factor of the divergences.

  Returns:
    A `Mauve`.

  Raises:
    ValueError: If a sample has fewer than two rows, their widths differ, a row
      is not finite or zero, fewer points are distinct than there are buckets,
      or a number is out of range.
  """
  seeds = arguments.whole("seeds", seeds)
  counts = [
    mauve_counts(
      one, p, q, buckets=buckets, variance=variance, restarts=restarts
    )
    for one in jax.random.split(key, seeds)
  ]
  plain = [tuple(x / x.sum() for x in pair) for pair in counts]
  smooth = [tuple(krichevsky_trofimov(x) for x in pair) for pair in counts]
  curves = np.stack([divergence_curve(*x, scaling=scaling) for x in plain])
  values = np.array([curve_area(curve) for curve in curves])
  p_histograms, q_histograms = (np.stack(x) for x in zip(*plain, strict=True))
  return Mauve(
    name=f"mauve_{feature}",
    mean=float(values.mean()),
    sd=float(values.std(ddof=1)) if seeds > 1 else float("nan"),
    values=values,
    star=np.array([mauve_from_histograms(*x, scaling=scaling) for x in smooth]),
    frontier_integral=np.array([frontier_integral(*x) for x in plain]),
    frontier_integral_star=np.array([frontier_integral(*x) for x in smooth]),
    curves=curves,
    p_histograms=p_histograms,
    q_histograms=q_histograms,
    buckets=p_histograms.shape[1],
    sizes=(len(p), len(q)),
  )


def mauve_buckets(n: int, m: int) -> int:
  """Returns the number of buckets: a tenth of the smaller sample, at least 2.

  Args:
    n: The size of a sample.
    m: The size of the other one.

  Returns:
    max(2, min(n, m) / 10), rounded, halves to the even neighbour.

  >>> [mauve_buckets(n, 200) for n in (9, 25, 35, 45, 500)]
  [2, 2, 4, 4, 20]
  """
  return max(2, round(min(n, m) / 10))


def mauve_counts(
  key: Array,
  p: Any,
  q: Any,
  *,
  buckets: int | None = None,
  variance: float = 0.9,
  restarts: int = 5,
) -> tuple[np.ndarray, np.ndarray]:
  """Quantises two samples of features together.

  Rows get length 1, then the principal components of all rows are clustered by
  k-means.

  Args:
    key: A random key.
    p: [N, D], concrete.
    q: [M, D].
    buckets: K, by default `mauve_buckets(N, M)`.
    variance: The share of the variance that the principal components keep.
    restarts: The runs of k-means.

  Returns:
    How many rows of p and of q each bucket has, [K] integers both.

  Raises:
    ValueError: As in `mauve`.
  """
  p, q = _directions(p, "p"), _directions(q, "q")
  if p.shape[1] != q.shape[1]:
    raise ValueError(
      f"p {list(p.shape)} and q {list(q.shape)} must have features of the same"
      " width."
    )
  buckets = mauve_buckets(len(p), len(q)) if buckets is None else buckets
  buckets = arguments.whole("buckets", buckets, 2)
  points = clusters.principal_components(np.concatenate([q, p]), variance)
  found = clusters.distinct(points, buckets, tolerance=_SAME)
  if found < buckets:
    raise ValueError(
      f"{len(p)} and {len(q)} texts have {found} distinct features, too few for"
      f" {buckets} buckets: are most of the texts equal?"
    )
  points = np.pad(points, ((0, 0), (0, -points.shape[1] % _COLUMNS)))
  labels = clusters.k_means(
    key, points.astype(np.float32), buckets, restarts=restarts
  ).labels
  of_q, of_p = np.split(np.asarray(labels), [len(q)])
  return (
    np.bincount(of_p, minlength=buckets),
    np.bincount(of_q, minlength=buckets),
  )


def divergence_curve(
  p: Any, q: Any, *, points: int = 25, scaling: float = 5.0
) -> np.ndarray:
  """Returns the frontier of the two divergences from mixtures r.

  r = l p + (1 - l) q for `points` values of l between 1e-6 and 1 - 1e-6; KL
  sums over the buckets where both are above 0.
  Pillutla et al. 2021, equation 1.

  Args:
    p: [K], shares or counts of each bucket.
    q: [K].
    points: The number of mixtures.
    scaling: c.

  Returns:
    [points + 2, 2] float64: (1, 0), then (exp(-c KL(q | r)), exp(-c KL(p | r)))
    with ascending l, then (0, 1).

  Raises:
    ValueError: If the histograms differ in shape, one is negative, not finite
      or empty, or a number is out of range.

  >>> divergence_curve([1, 1], [2, 2], points=2).tolist()
  [[1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [0.0, 1.0]]
  """
  points = arguments.whole("points", points)
  arguments.finite("scaling", scaling, 0, above=True)
  p, q = _histograms(p, q)
  weights = np.linspace(1e-6, 1 - 1e-6, points)[:, None]
  # In this form p = q gives exactly q.
  mixtures = q + weights * (p - q)
  x, y = (np.exp(-scaling * _divergence(h, mixtures)) for h in (q, p))
  inner = np.stack([x, y], axis=1)
  return np.concatenate([[[1.0, 0.0]], inner, [[0.0, 1.0]]])


def curve_area(curve: Any) -> float:
  """Returns the area under a divergence curve, which is MAUVE.

  The mean of the area of y over x and that of x over y, by trapezoids. Among
  points of equal x the one with the larger y comes first, and likewise the
  other way round: equal histograms have exactly 1.

  Args:
    curve: [L, 2].

  Returns:
    The area.

  >>> curve_area([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
  0.5
  """
  x, y = np.asarray(curve, np.float64).T
  areas = []
  for across, up in ((x, y), (y, x)):
    order = np.lexsort((-up, across))
    areas.append(np.trapezoid(up[order], across[order]))
  return float(np.mean(areas))


def mauve_from_histograms(p: Any, q: Any, *, scaling: float = 5.0) -> float:
  """Returns MAUVE of two histograms over the same buckets.

  Args:
    p: [K], shares or counts of each bucket.
    q: [K].
    scaling: The factor of the divergences.

  Returns:
    A number in (0, 1]: 1 for equal histograms, 0.004072 for those without a
    bucket in common.

  Raises:
    ValueError: As in `divergence_curve`.

  >>> round(mauve_from_histograms([1, 1, 0, 0], [0, 0, 1, 1]), 6)
  0.004072
  """
  return curve_area(divergence_curve(p, q, scaling=scaling))


def krichevsky_trofimov(counts: Any) -> np.ndarray:
  """Returns the smoothed shares of MAUVE*: one half more in every bucket.

  Args:
    counts: [K], how many texts each bucket has.

  Returns:
    [K] float64, (count + 1/2) / (n + K/2).

  >>> krichevsky_trofimov([3, 0]).tolist()
  [0.875, 0.125]
  """
  counts = np.asarray(counts, np.float64) + 0.5
  return counts / counts.sum()


def frontier_integral(p: Any, q: Any) -> float:
  """Returns the frontier integral of two histograms; lower is more similar.

  2 sum f(p_k, q_k), where f = (p + q)/4 - p q (ln p - ln q) / (2 (p - q)), or
  a quarter of the larger where the other is 0.
  Liu et al. 2021, arXiv:2106.07898, for the definition.

  Args:
    p: [K], shares or counts of each bucket.
    q: [K].

  Returns:
    A number in [0, 1], 1 for histograms without a bucket in common.

  Raises:
    ValueError: As in `divergence_curve`.

  >>> frontier_integral([1, 1], [1, 1]), frontier_integral([1, 0], [1, 0])
  (0.0, 0.0)
  """
  p, q = _histograms(p, q)
  differ = np.abs(p - q) > 1e-8
  both = (p > 0) & (q > 0)
  p_safe, q_safe = (np.where(both & differ, x, 1.0) for x in (p, q))
  gap = np.where(both & differ, p - q, 1.0)
  mean_log = p_safe * q_safe * (np.log(p_safe) - np.log(q_safe)) / gap
  terms = np.where(both, (p + q) / 4 - mean_log / 2, np.maximum(p, q) / 4)
  return float(2 * np.sum(np.where(differ, terms, 0.0)))


def _divergence(h: np.ndarray, mixtures: np.ndarray) -> np.ndarray:
  """Returns KL(h | r) in nats for each of the mixtures r [L, K]."""
  present = (h > 0) & (mixtures > 0)
  ratio = np.where(present, h, 1.0) / np.where(present, mixtures, 1.0)
  total = np.sum(np.where(present, h * np.log(ratio), 0.0), axis=1)
  # Rounding alone makes it negative: no point lies outside the unit square.
  return np.maximum(total, 0.0)


def _histograms(p: Any, q: Any) -> tuple[np.ndarray, np.ndarray]:
  """Returns two checked histograms, each with the sum 1."""
  p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
  if p.shape != q.shape or p.ndim != 1:
    raise ValueError(
      f"p {list(p.shape)} and q {list(q.shape)} must be histograms over the"
      " same buckets, [K] both."
    )
  for name, x in (("p", p), ("q", q)):
    if not np.isfinite(x).all() or (x < 0).any() or not x.sum() > 0:
      raise ValueError(
        f"{name} must hold shares or counts: finite, none negative, not all 0."
      )
  return p / p.sum(), q / q.sum()


def _directions(x: Any, name: str) -> np.ndarray:
  """Returns checked features [N, D], each divided by its length."""
  x = np.asarray(x).astype(np.float64)
  if x.ndim != 2 or len(x) < 2:
    raise ValueError(
      f"{name} must be features [N, D] of at least two texts, got"
      f" {list(x.shape)}."
    )
  broken = ~np.isfinite(x).all(axis=1)
  if broken.any():
    raise ValueError(
      f"row {broken.argmax()} of {name} is not finite; a text without tokens"
      " must be left out."
    )
  length = np.linalg.norm(x, axis=1, keepdims=True)
  if not length.all():
    raise ValueError(
      f"row {length.argmin()} of {name} is zero and has no direction; a text"
      " without tokens must be left out."
    )
  return x / length
