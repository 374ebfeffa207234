import jax
import numpy as np
import pytest

from effjax import pruning

LAYERS = {
  "conv": np.ones((3, 3, 8, 16), np.float32),
  "wide": np.ones((400, 300), np.float32),
  "head": np.ones((300, 10), np.float32),
  "bias": np.ones((10,), np.float32),
}
SIZES = {k: v.size for k, v in LAYERS.items() if v.ndim > 1}


def total_density(shares):
  kept = sum(SIZES[k] * (1 - s) for k, s in shares.items() if s is not None)
  return kept / sum(SIZES[k] for k, s in shares.items() if s is not None)


def test_uniform():
  shares = pruning.uniform(LAYERS, 0.75)
  assert shares == {"conv": 0.75, "wide": 0.75, "head": 0.75, "bias": None}
  assert pruning.uniform(LAYERS, 0.5, where="bias")["bias"] == 0.5


@pytest.mark.parametrize("sparsity", [0.0, 0.05, 0.3, 0.8, 0.95, 0.999, 1.0])
def test_erk(sparsity):
  shares = pruning.erk(LAYERS, sparsity)
  assert shares["bias"] is None
  density = {k: 1 - s for k, s in shares.items() if s is not None}
  assert all(0 <= d <= 1 for d in density.values())
  # The total is that of a uniform allocation.
  assert total_density(shares) == pytest.approx(1 - sparsity, abs=1e-12)
  raw = {k: sum(LAYERS[k].shape) / SIZES[k] for k in density}
  scales = [density[k] / raw[k] for k in density if density[k] < 1]
  if sparsity > 0:
    np.testing.assert_allclose(scales, scales[0])
    # Full layers are those that the rule would overfill.
    assert all(
      raw[k] * scales[0] >= 1 - 1e-9 for k in density if density[k] == 1
    )


def test_erk_of_equal_layers_is_uniform():
  layers = [np.ones((7, 9)), np.ones((9, 7)), np.ones((0, 3))]
  shares = pruning.erk(layers, 0.6)
  assert shares[:2] == pytest.approx([0.6, 0.6])


def test_masks_of_an_allocation():
  scores = jax.tree.map(
    lambda x: np.arange(x.size).reshape(x.shape) * x, LAYERS
  )
  shares = pruning.erk(scores, 0.9)
  masks = pruning.topk(scores, shares, axis=-1)
  assert masks["bias"] is None
  kept = {k: int(masks[k].sum()) / SIZES[k] for k in SIZES}
  for name, share in kept.items():
    assert share == pytest.approx(1 - shares[name], abs=0.06)


def test_mistakes():
  for rule in (pruning.uniform, pruning.erk):
    with pytest.raises(ValueError, match="outside"):
      rule(LAYERS, -0.1)
    with pytest.raises(ValueError, match="matches no leaf"):
      rule(LAYERS, 0.5, where="kernel")
