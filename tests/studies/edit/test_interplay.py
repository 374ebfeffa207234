"""Edits and compression: levels, orders, and what is told of them."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import adapters
from effjax.studies.edit import interplay, interplay_page

SETS = ("edited", "old", "with_same_rel", "reg_data")


def options(**changes):
  found = {
    "sparsities": (0.5, 0.9),
    "kinds": ("int8",),
    "arms": ("full",),
    "relearned": (),
  }
  return types.SimpleNamespace(**(found | changes))


@pytest.fixture
def params():
  draw = lambda i, shape: jax.random.normal(jax.random.key(i), shape)
  return {
    "embed": {"embedding": draw(0, (6, 4))},
    "layer_0": {
      "mlp": {"up": {"kernel": draw(1, (4, 10)), "bias": jnp.ones(10)}}
    },
  }


def test_pruned_are_the_smallest_weights_of_kernels_of_blocks(params):
  small = interplay.compress(params, interplay.Level(sparsity=0.7))
  old = np.asarray(params["layer_0"]["mlp"]["up"]["kernel"])
  new = np.asarray(small["layer_0"]["mlp"]["up"]["kernel"])
  least = np.sort(np.abs(old).ravel())[28]
  np.testing.assert_array_equal(new, np.where(np.abs(old) >= least, old, 0))
  np.testing.assert_array_equal(
    small["embed"]["embedding"], params["embed"]["embedding"]
  )
  assert interplay.compress(params, interplay.Level()) is params


def test_an_adapter_on_a_quantised_base_is_one_on_its_numbers(params):
  adapter = adapters.masked(adapters.lora(2, where=interplay.KERNELS))
  theta, fixed = adapter.init(jax.random.key(3), params)
  theta = jax.tree.map(lambda x: x + 0.5, theta)
  for kind in ("int8", "nf4"):
    coded = adapters.quantize(params, kind, where=interplay.KERNELS)
    numbers = interplay.compress(params, interplay.Level(kind=kind))
    jax.tree.map(
      np.testing.assert_array_equal,
      adapter.apply(coded, theta, fixed),
      adapter.apply(numbers, theta, fixed),
    )


@pytest.mark.parametrize(
  ("changes", "match"),
  [
    ({"sparsities": (1.0,)}, "between 0 and 1"),
    ({"relearned": (0.0,)}, "between 0 and 1"),
    ({"kinds": ("int4",)}, "int8 or nf4"),
    ({"arms": ("ia3",)}, "full or LoRA"),
    ({"arms": ("lora5",)}, "nearest"),
  ],
)
def test_impossible_options_are_named(changes, match):
  with pytest.raises(ValueError, match=match):
    interplay.levels(options(**changes))


def test_levels_begin_dense():
  found = interplay.levels(options(relearned=(0.9,)))
  assert [level.title for level in found] == [
    "dense",
    "50 % pruned",
    "90 % pruned",
    "int8",
    "90 % pruned and relearned",
  ]


@pytest.fixture
def results():
  """What three models of two edits might have given, at four levels."""
  rng = np.random.default_rng(0)
  unedited = rng.uniform(0.4, 0.6, (3, 4, 2, len(SETS)))
  first, last = (rng.uniform(size=(3, 4, 1, 2, 1, len(SETS))) for _ in "ab")
  # Pruning half of the weights takes .6 of plain facts, and of edited ones, of
  # which there were fewer, .1.
  unedited[:, 0, :, 1], unedited[:, 1, :, 1] = 1.0, 0.4
  last[:, 0, ..., 0], last[:, 1, ..., 0] = 0.5, 0.45
  # An edit that never held has nothing to lose.
  last[0, :2, :, 0, :, 0] = 0.0
  first[:, 3] = np.nan
  config = types.SimpleNamespace(mixes=("behemoth",), interplay=options())
  found = {
    "unedited": unedited,
    "edited_first": last,
    "compressed_first": first,
    "recall": rng.uniform(size=(3, 4, 1)),
    "failed": np.zeros((3, 4, 1, 2, 1), bool),
  }
  table = interplay_page.table(config, SETS, ("S-O",), found)
  about = {"seeds": [0, 1, 2], "mixes": ["behemoth"]}
  return found, about | {"interplay": table, "reported": 2, "facts_edited": 5}


def test_loss_by_editing_is_told_from_loss_by_compression(results):
  found, made = results
  row = made["interplay"]["rows"][1]
  assert row["level"] == "50 % pruned"
  assert row["survival"]["estimate"] == pytest.approx(0.5)
  first = found["compressed_first"][:, :, 0, :, 0].mean(axis=2)
  kept = found["unedited"][:, 1, :, 2:].mean(axis=(1, 2))
  damage = kept - first[:, 1, 2:].mean(axis=1)
  got = row["compressed_first"]["damage"]
  assert got["estimate"] == pytest.approx(damage.mean(), abs=1e-6)
  half = 4.302652729911275 * damage.std(ddof=1) / 3**0.5
  assert got["high"] - got["estimate"] == pytest.approx(half, abs=1e-5)
  lost = first[:, 0, 0] - first[:, 1, 0]
  assert row["harder"]["estimate"] == pytest.approx(lost.mean())
  dense = (
    found["unedited"][:, 0, :, 2:]
    - found["compressed_first"][:, 0, 0, :, 0, 2:]
  )
  assert row["costlier"]["estimate"] == pytest.approx(
    damage.mean() - dense.mean(), abs=1e-6
  )


def test_what_is_decided_is_told(results):
  _, made = results
  text = interplay_page.summary(made, {"behemoth": "mixed"})
  assert "(full, all blocks, mixed: 50 % pruned" in text.split("- **")[1]
  # Full fine-tuning leaves no base quantised: no number, no setting.
  assert text.count("of 3 settings") >= 1
  assert np.isnan(made["interplay"]["rows"][3]["harder"]["estimate"])
  section = interplay_page.section(made, {})
  assert section.title == "Pruning and quantising"
