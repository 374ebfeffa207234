"""Files of adapters: what goes out comes back, and what is wrong is named."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import adapters, io
from effjax.io import bases, peft_config, safetensors
from tests.adapters import draws


def base(seed=0):
  make = lambda i, *shape: draws.draw(*shape, seed=10 * seed + i)
  return {
    "layer_0": {"query": {"kernel": make(0, 6, 4)}, "bias": make(1, 4)},
    "layer_1": {"query": {"kernel": make(2, 6, 4)}},
    "conv": {"kernel": make(3, 3, 2, 2, 4)},
    "embed": {"embedding": make(4, 9, 4)},
    "stack": {"kernel": make(5, 3, 6, 4)},
  }


LAYOUT = [("stack.*", "bio")]
NAMES = {
  "layer_0/query/kernel": "model.layers.0.q_proj",
  "layer_1/query/kernel": "model.layers.1.q_proj.weight",
  "conv/kernel": "conv",
  "embed/embedding": "embed",
  "stack/kernel": "blocks.{}.up",
}
names = NAMES.__getitem__


# Six of 24 weights of each kernel.
_RANKS = np.argsort(draws.draw(5, 24), axis=1).argsort(axis=1).reshape(5, 6, 4)
MASKS = {
  "layer_0": {"query": {"kernel": _RANKS[0] < 6}, "bias": None},
  "layer_1": {"query": {"kernel": _RANKS[1] < 6}},
  "conv": {"kernel": None},
  "embed": {"embedding": None},
  "stack": {"kernel": _RANKS[2:] < 6},
}


ADAPTERS = {
  "lora": lambda: adapters.lora(
    [("layer_1.*", 3), (".*", 2)],
    alpha=[("conv.*", 0.3), (".*", 5)],
    layout=LAYOUT,
  ),
  "dora": lambda: adapters.dora(
    2, alpha=3, where=".*query.*|stack.*", layout=LAYOUT
  ),
  "rosa": lambda: adapters.rosa(2, MASKS, alpha=3, layout=LAYOUT),
  "sparse": lambda: adapters.rosa(0, MASKS, layout=LAYOUT),
}


@functools.cache
def started(name):
  adapter = ADAPTERS[name]()
  return adapter, *draws.start(adapter, base())


def save(path, name, **options):
  adapter, theta, fixed = started(name)
  options = {"names": names, "layout": LAYOUT, **options}
  io.save_peft(path, adapter, base(), theta, fixed, **options)


def load(path, params=None, **options):
  options = {"names": names, "layout": LAYOUT, **options}
  return io.load_peft(path, base() if params is None else params, **options)


@pytest.mark.parametrize("name", ADAPTERS)
def test_round_trip(name, tmp_path):
  adapter, theta, fixed = started(name)
  save(tmp_path / "one", name, config={"task_type": "CAUSAL_LM", "mine": [1]})
  loaded = load(tmp_path / "one")
  draws.equal(loaded.theta, theta)
  draws.equal(loaded.fixed, fixed)
  parts = adapters.parts(adapter, base(), theta, fixed)
  again = adapters.parts(loaded.adapter, base(), loaded.theta, loaded.fixed)
  assert {k: p.scale for k, p in parts.items()} == {
    k: p.scale for k, p in again.items()
  }
  jax.tree.map(np.testing.assert_array_equal, parts, again)
  assert loaded.config["task_type"] == "CAUSAL_LM"
  assert loaded.config["mine"] == [1]
  # Writing what was read gives the same.
  io.save_peft(
    tmp_path / "two",
    *(loaded.adapter, base(), loaded.theta, loaded.fixed),
    names=names,
    layout=LAYOUT,
    config=loaded.config,
  )
  one, two = (tmp_path / run / "adapter_config.json" for run in ("one", "two"))
  assert one.read_bytes() == two.read_bytes()
  one, two = (
    tmp_path / run / "adapter_model.safetensors" for run in ("one", "two")
  )
  draws.equal(safetensors.read(one), safetensors.read(two))
  assert safetensors.read_metadata(one) == safetensors.read_metadata(two)


def test_tensors_are_those_of_peft(tmp_path):
  adapter, theta, _ = started("lora")
  save(tmp_path / "a", "lora")
  arrays = safetensors.read(tmp_path / "a" / "adapter_model.safetensors")
  prefix = "base_model.model."
  q = f"{prefix}model.layers.1.q_proj"
  np.testing.assert_array_equal(
    arrays[f"{q}.lora_A.weight"], theta["layer_1/query/kernel/lora_a"].T
  )
  assert arrays[f"{q}.lora_B.weight"].shape == (4, 3)
  assert arrays[f"{prefix}conv.lora_A.weight"].shape == (2, 2, 3, 2)
  assert arrays[f"{prefix}conv.lora_B.weight"].shape == (4, 2, 1, 1)
  assert arrays[f"{prefix}embed.lora_embedding_A"].shape == (2, 9)
  assert arrays[f"{prefix}blocks.2.up.lora_A.weight"].shape == (2, 6)
  # The convolution of A, then of B, is that of the sum.
  merged = draws.merged(adapter, base(), theta, {})["conv"]["kernel"]
  a, b = (arrays[f"{prefix}conv.lora_{x}.weight"] for x in "AB")
  delta = 0.3 / 2 * np.einsum("rihw,or->hwio", a, b[:, :, 0, 0])
  np.testing.assert_allclose(
    merged - base()["conv"]["kernel"], delta, rtol=1e-4, atol=1e-5
  )
  config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
  assert (config["r"], config["lora_alpha"]) == (2, 5)
  assert config["rank_pattern"] == {"^model.layers.1.q_proj": 3}
  assert config["alpha_pattern"] == {"^conv": 0.3}
  about = safetensors.read_metadata(tmp_path / "a/adapter_model.safetensors")
  assert about["format"] == "pt"


def test_rows_of_rosa(tmp_path):
  _, theta, fixed = started("rosa")
  save(tmp_path / "a", "rosa")
  arrays = safetensors.read(tmp_path / "a" / "adapter_model.safetensors")
  module = "base_model.model.blocks.1.up"
  assert f"{module}.rosa_A.weight" in arrays
  dense = np.zeros(24, np.float32)
  dense[fixed["stack/kernel/indices"][1]] = theta["stack/kernel/sparse"][1]
  offsets = arrays[f"{module}.rosa_spa.row_offs"]
  columns = arrays[f"{module}.rosa_spa.col_idx"]
  assert offsets.dtype == columns.dtype == np.int32
  found = np.zeros((4, 6), np.float32)
  for row in range(4):
    own = slice(offsets[row], offsets[row + 1])
    assert np.all(np.diff(columns[own]) > 0)
    found[row, columns[own]] = arrays[f"{module}.rosa_spa.values"][own]
  np.testing.assert_array_equal(found.T, dense.reshape(6, 4))
  config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
  assert (config["peft_type"], config["d"]) == ("ROSA", 0.25)
  # Files of the fork have short columns and hints for its kernels.
  for key in [key for key in arrays if key.endswith("col_idx")]:
    arrays[key] = arrays[key].astype(np.int16)
    arrays[key.replace("col_idx", "row_idx")] = np.arange(4, dtype=np.int16)
  safetensors.write(tmp_path / "a" / "adapter_model.safetensors", arrays)
  draws.equal(load(tmp_path / "a").fixed, fixed)
  arrays[f"{module}.rosa_spa.col_idx"][0] = -1
  safetensors.write(tmp_path / "a" / "adapter_model.safetensors", arrays)
  with pytest.raises(ValueError, match=r"blocks\.1\.up.*int16"):
    load(tmp_path / "a")


def test_types_are_kept(tmp_path):
  adapter, theta, _ = started("dora")
  theta = {key: x.astype(jnp.bfloat16) for key, x in theta.items()}
  io.save_peft(
    tmp_path / "a", adapter, base(), theta, names=names, layout=LAYOUT
  )
  draws.equal(load(tmp_path / "a").theta, theta)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  path = tmp_path_factory.mktemp("written") / "lora"
  save(path, "lora")
  return path


@pytest.fixture
def copy(written, tmp_path):
  shutil.copytree(written, tmp_path / "copy")
  return tmp_path / "copy"


def test_another_base(copy):
  other = base(3)
  with pytest.raises(ValueError, match="belongs to another base"):
    load(copy, other)
  load(copy, other, check_base=False)
  shapes = jax.eval_shape(base)
  load(copy, shapes, check_base=False)
  # The same numbers in fewer bits are the same base.
  few = jax.tree.map(lambda x: x.astype(jnp.bfloat16), base())
  wide = jax.tree.map(lambda x: x.astype(np.float32), few)
  assert bases.digest(few) == bases.digest(wide) != bases.digest(base())


def changed(copy, change):
  file = copy / "adapter_model.safetensors"
  arrays = safetensors.read(file)
  change(arrays)
  safetensors.write(file, arrays)


Q = "base_model.model.model.layers.0.q_proj"


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (lambda x: x.pop(f"{Q}.lora_B.weight"), r"lacks a tensor .*lora_B"),
    (
      lambda x: [x.pop(f"{Q}.lora_{k}.weight") for k in "AB"],
      r"lacks tensors of 'model\.layers\.0\.q_proj'",
    ),
    (
      lambda x: x.update({f"{Q[:-1]}.lora_A.weight": np.ones((2, 6))}),
      r"no module .*nearest are model\.layers\.0\.q_proj",
    ),
    (lambda x: x.update({f"{Q}.lora_C": np.ones(2)}), "not supported"),
    (
      lambda x: x.update({f"{Q}.lora_magnitude_vector": np.ones(4)}),
      "has a tensor",
    ),
    (
      lambda x: x.update({f"{Q}.lora_A.weight": np.ones((2, 7))}),
      r"lora_a of shape \(7, 2\)",
    ),
    (
      lambda x: [
        x.pop(f"base_model.model.blocks.1.up.lora_{k}.weight") for k in "AB"
      ],
      r"lacks tensors of 'blocks\.1\.up'",
    ),
    (lambda x: x.clear(), "lacks tensors"),
    (
      lambda x: x.update({"base_model.model.embed.weight": np.ones((9, 4))}),
      "weights of its own for 'embed'",
    ),
  ],
)
def test_wrong_tensors(change, words, copy):
  changed(copy, change)
  with pytest.raises(ValueError, match=words):
    load(copy)


def test_copies_of_the_base_are_passed_over(copy):
  own = {"base_model.model.embed.weight": base()["embed"]["embedding"]}
  changed(copy, lambda arrays: arrays.update(own))
  draws.equal(load(copy).theta, started("lora")[1])


@pytest.mark.parametrize(
  ("field", "value", "words"),
  [
    ("bias", "all", "biases"),
    ("modules_to_save", ["head"], "modules_to_save"),
    ("init_lora_weights", "pissa", "not the original"),
    ("peft_type", "LOHA", "LORA and ROSA are supported"),
    ("use_dora", True, "lora_magnitude_vector"),
    ("r", 3, "its rank 3"),
    ("rank_pattern", {"(": 3}, "no regular expression"),
    ("lora_alpha", None, "lora_alpha None"),
  ],
)
def test_wrong_configurations(field, value, words, copy):
  file = copy / "adapter_config.json"
  config = json.loads(file.read_text())
  file.write_text(json.dumps({**config, field: value}))
  with pytest.raises(ValueError, match=words):
    load(copy)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_quantised_base(kind, tmp_path):
  adapter, theta, fixed = started("lora")
  few = adapters.quantize(base(), kind, layout=LAYOUT)
  path = tmp_path / "adapter"
  options = {"names": names, "layout": LAYOUT}
  io.save_peft(path, adapter, few, theta, fixed, **options)
  loaded = io.load_peft(path, few, **options)
  found = loaded.adapter.merge(few, loaded.theta, loaded.fixed)
  wanted = adapter.merge(few, theta, fixed)
  jax.tree.map(np.testing.assert_array_equal, found, wanted)
  with pytest.raises(ValueError, match="another base"):
    io.load_peft(path, base(), **options)


@pytest.mark.parametrize("initial", ["pissa", "olora"])
def test_twice_the_rank_may_exceed_the_matrix(initial, tmp_path):
  params = {"l": {"kernel": draws.draw(6, 8, seed=1)}}
  adapter = adapters.lora(4, initial=initial)
  theta, fixed = adapter.init(jax.random.key(0), params)
  theta = {name: 1.1 * x for name, x in theta.items()}
  io.save_peft(tmp_path / "a", adapter, params, theta, fixed)
  loaded = io.load_peft(tmp_path / "a", params)
  np.testing.assert_allclose(
    loaded.adapter.merge(params, loaded.theta, loaded.fixed)["l"]["kernel"],
    adapter.merge(params, theta, fixed)["l"]["kernel"],
    atol=1e-5,
  )


def test_damage_is_noticed(copy):
  file = copy / "adapter_model.safetensors"
  content = bytearray(file.read_bytes())
  content[-3] ^= 1
  file.write_bytes(content)
  with pytest.raises(ValueError, match="checksum"):
    load(copy)
  file.write_bytes(content[:-3])
  with pytest.raises(ValueError, match="truncated"):
    load(copy)
  file.unlink()
  with pytest.raises(FileNotFoundError, match="no file"):
    load(copy)
  (copy / "adapter_config.json").write_text("{")
  with pytest.raises(ValueError, match="not JSON"):
    load(copy)
  with pytest.raises(FileNotFoundError, match="no adapter"):
    load(copy.parent)


def test_what_is_there_is_not_replaced_unasked(copy):
  with pytest.raises(FileExistsError, match="overwrite=True"):
    save(copy, "dora")
  save(copy, "dora", overwrite=True)
  draws.equal(load(copy).theta, started("dora")[1])


def test_what_the_format_lacks(tmp_path):
  adapter = adapters.ia3(where=".*query/kernel")
  theta, _ = draws.start(adapter, base())
  with pytest.raises(ValueError, match=r"\(IA\)\^3"):
    io.save_peft(tmp_path / "a", adapter, base(), theta, names=names)
  adapter = adapters.dora(1, where="conv/kernel")
  theta, _ = draws.start(adapter, base())
  with pytest.raises(ValueError, match="dense layers only"):
    io.save_peft(tmp_path / "a", adapter, base(), theta, names=names)
  with pytest.raises(ValueError, match="both called 'all'"):
    save(tmp_path / "a", "lora", names=lambda _: "all")
  assert not (tmp_path / "a").exists()


def test_patterns():
  config = {"r": 8, "rank_pattern": {"q_proj": 4, "^a.k": 2, "b.*": 1}}
  rank = lambda m: peft_config.lookup(config, "rank_pattern", "r", m)
  modules = ("x.q_proj", "q_proj", "xq_proj", "a.k", "c.a.k", "b.z", "o")
  assert [rank(m) for m in modules] == [4, 4, 8, 2, 8, 1, 8]


def test_checkpoints_know_their_base(tmp_path):
  adapter, theta, fixed = started("rosa")
  io.save_adapter(tmp_path / "a", base(), theta, fixed, metadata={"step": 3})
  found = io.load_adapter(tmp_path / "a", base(), adapter)
  draws.equal(found[0], theta)
  draws.equal(found[1], fixed)
  with pytest.raises(ValueError, match="another base"):
    io.load_adapter(tmp_path / "a", base(3), adapter)
  io.load_adapter(tmp_path / "a", base(3), adapter, check_base=False)
  with pytest.raises(ValueError, match="fit what is loaded"):
    io.load_adapter(tmp_path / "a", base(), started("lora")[0])


def test_merged_weights(tmp_path):
  params = {k: v for k, v in base().items() if k != "stack"}
  adapter = adapters.lora(2, where="layer_0/query/kernel|conv/kernel")
  theta, fixed = draws.start(adapter, params)
  merged = draws.merged(adapter, params, theta, fixed)
  safetensors.save_weights(
    tmp_path / "w.safetensors", merged, names=lambda path: path
  )
  found = safetensors.read(tmp_path / "w.safetensors")
  np.testing.assert_array_equal(
    found["conv/kernel"], np.transpose(merged["conv"]["kernel"], (3, 2, 0, 1))
  )
  np.testing.assert_array_equal(
    found["layer_0/query/kernel"], merged["layer_0"]["query"]["kernel"].T
  )
  np.testing.assert_array_equal(
    found["embed/embedding"], params["embed"]["embedding"]
  )
  with pytest.raises(ValueError, match="two parameters"):
    safetensors.save_weights(
      tmp_path / "w.safetensors", merged, names=lambda _: "a"
    )
