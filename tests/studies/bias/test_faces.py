import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from flax import linen as nn

from configs.bias import faces as config
from effjax import data
from effjax.studies.bias import faces


class Net(nn.Module):
  """Two logits of the mean colour."""

  @nn.compact
  def __call__(self, x):
    return nn.Dense(2, name="head")(nn.Dense(6, name="dense")(x.mean((1, 2))))


IMAGES = jax.random.normal(jax.random.key(0), (40, 4, 4, 3))
PARAMS = Net().init(jax.random.key(1), IMAGES)["params"]


def compared(**options):
  how = dict(sparsities=(0.0, 0.5, 0.9), masks=("global", "layer")) | options
  return faces.compare(Net(), PARAMS, IMAGES, faces._of_gender, **how)


def test_nothing_pruned_changes_nothing():
  for row in compared(sparsities=(0.0,)):
    assert row["flips_everyone"]["estimate"] == 0.0
    assert row["flips_everyone"]["count"] == 40
    assert row["divergence"] == pytest.approx(0.0, abs=1e-6)


def test_flips_by_brute_force():
  (row,) = compared(sparsities=(0.5,), masks=("layer",))
  pruned = {}
  for name in ("dense", "head"):
    kernel = np.asarray(PARAMS[name]["kernel"], np.float64)
    order = np.argsort(-np.abs(kernel).ravel(), kind="stable")
    kept = np.zeros(kernel.size, bool)
    kept[order[: kernel.size - int(np.floor(kernel.size / 2 + 0.5))]] = True
    pruned[name] = np.where(kept.reshape(kernel.shape), kernel, 0)
  x = np.asarray(IMAGES, np.float64).mean((1, 2))
  female = []
  for kernels in (
    {k: np.asarray(PARAMS[k]["kernel"], np.float64) for k in pruned},
    pruned,
  ):
    z = x @ kernels["dense"] + np.asarray(PARAMS["dense"]["bias"])
    z = z @ kernels["head"] + np.asarray(PARAMS["head"]["bias"])
    female.append(z[:, 0] > z[:, 1])
  flips = female[0] != female[1]
  assert flips.any()
  assert row["flips_everyone"]["estimate"] == pytest.approx(flips.mean())
  assert row["flips_female"]["count"] == female[0].sum()
  assert row["flips_male"]["estimate"] == pytest.approx(
    flips[~female[0]].mean()
  )
  assert row["share_male"] == pytest.approx(1 - female[1].mean())


def test_an_unknown_mask_is_named():
  with pytest.raises(ValueError, match="no mask 'globl' here; choose global"):
    compared(masks=("globl",))


def test_enlarged_faces_keep_their_range():
  grey = np.random.default_rng(0).random((2, 25, 25, 1))
  large = np.asarray(faces.enlarged(grey, 32))
  assert large.shape == (2, 32, 32, 3)
  back = large * 256 + np.array([122.781998, 117.000999, 104.297997])
  assert back.min() >= 0
  assert back.max() <= 255
  np.testing.assert_allclose(back.mean() / 255, grey.mean(), atol=0.01)


def test_years():
  dense = np.zeros((3, 81), np.float32)
  sparse = dense.copy()
  sparse[:, 80] = 50.0  # sure of 80 years
  found = faces._of_age(dense, sparse)
  assert found["shift"]["estimate"] == pytest.approx(40.0, abs=0.1)
  assert found["distance"]["estimate"] == found["shift"]["estimate"]


@pytest.mark.data
@pytest.mark.slow
def test_run_on_real_faces(tmp_path):
  for name in ("age_gender", "lfw_subset"):
    try:
      data.locate(name)
    except FileNotFoundError:
      pytest.skip(f"{name} is absent: python -m launch.fetch {name}")
  whole = config.get_config("quick")
  assert isinstance(whole, ml_collections.ConfigDict)
  with whole.unlocked():
    whole.masks = ("layer",)
  results = faces.run(whole, tmp_path)
  assert results["faces"] == 100
  row = results["gender"][-1]
  # What the pictures say: the pruned network calls nearly everybody male.
  assert row["share_male"] > 0.9
  assert row["flips_female"]["estimate"] > row["flips_male"]["estimate"]
  text = (tmp_path / "report.html").read_text()
  assert "Whose decision changes" in text
  assert jnp.isfinite(row["divergence"])
