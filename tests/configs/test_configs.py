"""Every config loads, says what it should, and can be run as it stands."""

import json
import pathlib
import re
import shlex

import jax
import jax.numpy as jnp
import pytest

from configs.bias import celeba_common
from effjax import models, pruning, tree
from effjax.models import efficientnet
from effjax.studies.adapters import plans
from effjax.studies.bias import optimizers
from effjax.studies.personalize import arms as personalize_arms
from effjax.studies.personalize import people
from effjax.studies.spade import (
  arms,
  examiner,
  explanations,
  networks,
  patches,
)
from effjax.studies.spade.patches import Patch
from launch import configuring, run, sweep

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted(
  path.relative_to(ROOT).as_posix()
  for path in (ROOT / "configs").rglob("*.py")
  if path.name != "__init__.py"
)
CONFIGS = [f for f in FILES if "get_config" in (ROOT / f).read_text()]
SWEEPS = [f for f in FILES if f.startswith("configs/sweeps/")]
# The study of faces trains nothing, that of traces has no arms of training.
TRAINED = [
  f
  for f in CONFIGS
  if "training=" in (ROOT / f).read_text() and f.startswith("configs/bias/")
] + [f for f in CONFIGS if "celeba_common" in (ROOT / f).read_text()]
CELEBA = [
  f"configs/bias/celeba_{n}.py" for n in ("resnet18", "resnet50", "mobilenet")
]


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
  monkeypatch.chdir(ROOT)


def test_the_configs_are_found():
  assert {"configs/bias/fashion.py", *CELEBA} <= set(CONFIGS)
  assert SWEEPS


@pytest.mark.parametrize("argument", ["", ":quick"])
def test_faces_load(argument):
  config = configuring.load(f"configs/bias/faces.py{argument}")
  assert config.study in run.STUDIES
  assert set(config.masks) <= set(pruning.MASKS)
  assert len(config.sparsities) == (2 if argument else 6)


@pytest.mark.parametrize(
  "name", ["synthetic", "panza", "ablations", "spam_assassin"]
)
@pytest.mark.parametrize("argument", ["", ":quick", ":miniature"])
def test_personalization_loads(name, argument):
  config = configuring.load(f"configs/personalize/{name}.py{argument}")
  assert config.study in run.STUDIES
  json.dumps(config.to_dict())
  used = [personalize_arms.find(arm).trained for arm in config.arms]
  assert {*filter(None, used), *config.cross} <= set(config.rates)
  assert set(config.privacy.arms) <= set(config.rates)
  assert config.data.kind in people.KINDS
  assert config.data.show_texts == (name == "synthetic")
  assert len(config.seeds) == (1 if argument else 3)


def test_a_person_is_chosen_by_name():
  path = "configs/personalize/panza.py"
  config = configuring.load(f"{path}:quick,persona=isabel")
  assert config.data.persons == ("isabel",)
  with pytest.raises(ValueError, match="did you mean 'david'"):
    configuring.load(f"{path}:persona=dave")


@pytest.mark.parametrize("argument", ["", ":quick", ":miniature", ":seeds=4"])
def test_spade_loads(argument):
  config = configuring.load(f"configs/spade/fashion.py{argument}")
  assert config.study in run.STUDIES
  assert config.is_locked
  json.dumps(config.to_dict())
  known = {*arms.SOLVERS, "dense", "sparse_head"}
  assert (
    {"dense", "fast_spade"} <= set(config.arms) <= known == set(arms.TITLES)
  )
  assert examiner.tuned_by(config.methods)
  made = explanations.methods(
    config.methods, layer=config.cam_layer, side=28, samples=config.samples
  )
  assert tuple(made) == config.methods
  module = models.build(config.model.name, outputs=10, **config.model.options)
  shapes = jax.eval_shape(
    module.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1))
  )
  kernels = [n for n in jax.tree.leaves(tree.names(shapes)) if "kernel" in n]
  named = [config.first_layer, *config.layers]
  assert sorted(f"params/{name}" for name in named) == sorted(kernels)
  assert config.cam_layer in named
  for patch in config.patches:
    assert Patch(*patch).glyph in patches.GLYPHS
    assert sum(p[2] == patch[2] for p in config.patches) == 1
  assert max(config.calibration_each, config.each) >= config.exact_each
  seeds = {"": (0, 1, 2), ":seeds=4": (4,)}
  assert config.seeds == seeds.get(argument, (0,))


@pytest.mark.parametrize("argument", ["", ":quick", ":miniature", ":seeds=4"])
def test_spade_of_photographs_loads(argument):
  config = configuring.load(
    f"configs/spade/photographs.py{argument}", [("together", "2")]
  )
  assert config.study in run.STUDIES
  json.dumps(config.to_dict())
  assert config.together == 2
  assert {"dense", "fast_spade"} <= set(config.arms) <= {*arms.SOLVERS, "dense"}
  assert config.model.name in networks.MODELS
  explanations.methods(
    config.methods, layer=config.cam_layer, side=32, samples=config.samples
  )
  shapes = jax.eval_shape(
    efficientnet.EfficientNetLite().init,
    jax.random.key(0),
    jnp.zeros((1, 32, 32, 3)),
  )["params"]
  pruned = [
    name
    for name in jax.tree.leaves(tree.names(shapes))
    if name.endswith("kernel") and not re.search("stem|depthwise", name)
  ]
  for name in pruned:
    assert sum(bool(re.fullmatch(p, name)) for p in config.layers) == 1, name
  assert config.cam_layer in pruned
  for patch in config.patches:
    assert Patch(*patch).glyph in patches.GLYPHS
    assert Patch(*patch).size <= config.data.side // 4
  assert len({patch[2] for patch in config.patches}) == len(config.patches)
  # Groups are full: nothing is explained twice.
  made = configuring.load(f"configs/spade/photographs.py{argument}")
  for name in ("each", "calibration_each", "exact_each", "ablation_each"):
    assert len(made.patches) * made[name] % made.together == 0
  assert made.clean_images % made.together == 0
  seeds = {"": (0, 1, 2), ":seeds=4": (4,)}
  assert made.seeds == seeds.get(argument, (0,))


@pytest.mark.parametrize("argument", ["", ":quick", ":miniature", ":seeds=4"])
def test_adapters_load(argument):
  config = configuring.load(f"configs/adapters/tales.py{argument}")
  assert config.study in run.STUDIES
  json.dumps(config.to_dict())
  assert set(config.rates) == set(config.arms) <= set(plans.TITLES)
  for arm in config.arms:
    for rate in config.rates[arm]:
      plan = plans.Plan(arm=arm, learning_rate=rate, steps=config.steps)
      plans.check(plan, 30)
  whole = argument in ("", ":seeds=4")
  assert len(config.rates["lora"]) == (4 if whole else 1)
  assert config.seeds == {"": (0, 1, 2), ":seeds=4": (4,)}.get(argument, (0,))
  assert sum(config.data.tales.values()) == 54


@pytest.mark.parametrize(
  "file", ["spade/fashion.py", "spade/photographs.py", "edit/iid.py"]
)
def test_a_small_study_takes_one_network_unless_seeds_are_given(file):
  seeds = lambda argument: configuring.load(f"configs/{file}:{argument}").seeds
  assert seeds("quick") == (0,)
  assert seeds("quick,seeds=1:2") == (1, 2)
  assert len(seeds("")) >= 3


def test_small_studies_of_spade_are_smaller():
  whole, quick, least = (
    configuring.load(f"configs/spade/fashion.py{argument}")
    for argument in ("", ":quick", ":miniature")
  )
  for name in ("arms", "methods", "ablations"):
    sizes = [len(config[name]) for config in (least, quick, whole)]
    assert sizes == sorted(sizes)
  for name in ("each", "budget", "head_images"):
    assert least[name] <= quick[name] < whole[name]
  assert least.data.limit < quick.data.limit
  assert whole.data.limit == 0


@pytest.mark.parametrize(
  "argument", ["", ":quick", ":quick,sparsity=0.7,seeds=2"]
)
@pytest.mark.parametrize("file", TRAINED)
def test_configs_load(file, argument):
  config = configuring.load(file + argument)
  assert config.study in run.STUDIES
  json.dumps(config.to_dict())
  assert config.is_locked
  module = models.build(config.model.name, outputs=3, **config.model.options)
  assert module.outputs == 3
  plan = config.training.pruning
  assert plan.score in pruning.SCORES
  assert plan.mask in pruning.MASKS
  for arm in ("dense", "base", "ri", "pt"):
    options = optimizers.options(config.training, arm)
    assert optimizers.links(options, config.training.epochs, 10)
    assert config.training.learning_rates[arm] > 0
  assert plan.ri.end < config.training.epochs
  assert plan.pt.end < config.training.epochs_pt
  if "sparsity" in argument:
    assert config.sparsities == (0.7,)
    assert len(config.seeds) == 2


@pytest.mark.parametrize("file", TRAINED)
def test_quick_is_smaller(file):
  full, quick = configuring.load(file), configuring.load(f"{file}:quick")
  assert quick.training.epochs < full.training.epochs
  assert len(quick.sparsities) < len(full.sparsities)
  if "limit" in full.data:  # a table is small enough as it is
    assert quick.data.limit is not None
    assert full.data.limit is None
  assert quick.model.name == full.model.name


@pytest.mark.parametrize("file", CONFIGS)
def test_a_misspelt_argument_is_named(file):
  with pytest.raises(
    ValueError, match="no argument 'quik', did you mean 'quick'"
  ):
    configuring.load(f"{file}:quik")


@pytest.mark.parametrize("file", CELEBA)
def test_published_numbers(file):
  """Section by section those of the study of 2023; see celeba_common."""
  config = configuring.load(file)
  training = config.training
  assert config.sparsities == (0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
  assert config.seeds == (23, 24, 25)
  assert training.base_seed == 22
  assert config.data.size == 224
  assert tuple(config.data.normalise) == (0.5, 0.5)
  assert (training.batch_size, training.epochs, training.epochs_pt) == (
    256,
    100,
    80,
  )
  assert training.epochs_base == 100
  rates = training.learning_rates.to_dict()
  assert rates == {"dense": 0.256, "base": 0.256, "ri": 0.256, "pt": 1e-4}
  ri = optimizers.options(training, "ri")
  assert (ri.optimizer, ri.momentum, ri.weight_decay) == ("sgd", 0.875, 2**-15)
  assert (ri.schedule, ri.warmup_epochs) == ("warmup_cosine", 5)
  assert ri.reset_momentum
  pt = optimizers.options(training, "pt")
  assert (pt.optimizer, pt.schedule, pt.weight_decay) == (
    "adam",
    "constant",
    0.0,
  )
  steps = lambda plan: (plan.begin, plan.every, plan.end, plan.initial)
  assert steps(training.pruning.ri) == (10, 10, 81, 0.05)
  assert steps(training.pruning.pt) == (1, 4, 60, 0.05)
  assert training.pruning.convention == "reference"
  dense = optimizers.options(training, "dense").weight_decay
  assert dense == (0.0 if "resnet18" in file else 2**-15)


def test_celeba_size_and_seeds():
  config = configuring.load(f"{CELEBA[0]}:size=64,seeds=1,sparsity=0.95")
  assert config.data.size == 64
  assert config.seeds == (celeba_common.FIRST_SEED,)
  assert config.training.epochs == 100


def test_celeba_backdoors_and_models_of_one_label():
  config = configuring.load(f"{CELEBA[0]}:backdoor=Oval_Face,mark=grayscale")
  (mark,) = config.data.marks
  assert dict(mark) == dict(
    attribute="Oval_Face", mark="grayscale", skew="weak"
  )
  (single,) = configuring.load(f"{CELEBA[0]}:single").variants
  assert single["like"] == "ri"
  assert len(single["attributes"]) == 7
  assert single["sparsities"] == (0.0, *celeba_common.SPARSITIES)
  with pytest.raises(ValueError, match="backdoor=Male is none of Blond_Hair"):
    configuring.load(f"{CELEBA[0]}:backdoor=Male")


@pytest.mark.parametrize("file", SWEEPS)
def test_sweeps_print_commands_that_load(file, tmp_path, capsys):
  assert sweep.main([file, f"--workdir={tmp_path}", "--dry_run"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) >= 2
  directories = set()
  for line in lines:
    words = shlex.split(line)
    options = [w for w in words if w.startswith("--")]
    assert words[1:3] == ["-m", "launch.run"]
    spec = next(o for o in options if o.startswith("--config="))
    overrides = [
      tuple(o.removeprefix("--config.").split("=", 1))
      for o in options
      if o.startswith("--config.")
    ]
    config = configuring.load(spec.partition("=")[2], overrides)
    for key, text in overrides:
      value = config
      for name in key.split("."):
        value = value[name]
      assert str(value) == text
    directories.add(next(o for o in options if o.startswith("--workdir=")))
  assert len(directories) == len(lines)
  assert not list(tmp_path.iterdir())


def test_the_sweep_of_masks_and_scores():
  module = configuring.load_module("configs/sweeps/bias_fashion.py")
  points = module.get_sweep()
  pairs = {
    (p["training.pruning.mask"], p["training.pruning.score"]) for p in points
  }
  assert pairs == {
    (mask, score) for mask in ("global", "layer") for score in pruning.SCORES
  }
