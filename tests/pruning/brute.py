"""Masks the slow way: float64 NumPy, stable sorts, Python integers."""

import fractions
import math

import numpy as np

SPECIAL = (0.0, -0.0, 1e-45, 3e-45, -1e-45, 1.0, -1.0, np.inf, -np.inf, 6e-8)


def numbers(rng, shape, kind):
  """Draw scores: "plain", with heavy "ties", or "special" values."""
  if kind == "plain":
    return rng.normal(size=shape)
  if kind == "ties":
    return rng.integers(-2, 3, size=shape) / 2
  return rng.choice(SPECIAL, size=shape)


def kept(size, sparsity):
  """size - floor(sparsity * size + 1/2), exactly."""
  share = fractions.Fraction(float(sparsity))
  return size - math.floor(share * size + fractions.Fraction(1, 2))


def largest(leaves, keep):
  """Mark the `keep` largest over all leaves; the first of equals win."""
  flat = [np.asarray(leaf).astype(np.float64).ravel() for leaf in leaves]
  order = np.argsort(-np.concatenate(flat), kind="stable")
  mask = np.zeros(order.size, bool)
  mask[order[: int(keep)]] = True
  parts = np.split(mask, np.cumsum([part.size for part in flat])[:-1])
  return [m.reshape(np.shape(x)) for m, x in zip(parts, leaves, strict=True)]


def largest_along(leaf, keep, axis):
  """Mark the `keep` largest of every slice along an axis."""
  return np.apply_along_axis(lambda x: largest([x], keep)[0], axis, leaf)


def above(leaves, rank):
  """Mark what lies strictly above the rank-th largest of all leaves."""
  flat = [np.asarray(leaf).astype(np.float64) for leaf in leaves]
  ordered = np.sort(np.concatenate([x.ravel() for x in flat]))[::-1]
  threshold = ordered[rank - 1] if rank else np.inf
  return [x > threshold for x in flat]


def n_m(leaf, n, m, axis):
  """Mark the n largest of every m along an axis."""
  moved = np.moveaxis(np.asarray(leaf).astype(np.float64), axis, -1)
  groups = moved.reshape(-1, m)
  mask = np.stack([largest([g], n)[0] for g in groups])
  return np.moveaxis(mask.reshape(moved.shape), -1, axis)
