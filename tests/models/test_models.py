"""Names, sizes and behaviour of the models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import models


def _variables(model, image=(32, 32, 3)):
  x = jnp.zeros((1, *image))
  return jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))


def _names(tree):
  return [
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, _ in jax.tree.leaves_with_path(tree)
  ]


def _count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


# Rules of masks and checkpoints are written against these names: a change
# breaks what users have stored.
_NORM = ("bias", "scale")
_PROJECTION = (
  "projection_conv/kernel",
  "projection_norm/bias",
  "projection_norm/scale",
)
FROZEN = {
  "cnn": [
    *(
      f"{name}/{leaf}"
      for name in ("conv1", "conv2", "dense", "head")
      for leaf in ("bias", "kernel")
    ),
  ],
  "efficientnet_lite0": [
    "head/bias",
    "head/kernel",
    *(
      f"{layer}_{name}"
      for layer in (
        "stem",
        "top",
        *(f"block{i}/depthwise" for i in range(1, 17)),
        *(f"block{i}/expand" for i in range(2, 17)),
        *(f"block{i}/project" for i in range(1, 17)),
      )
      for name in ("conv/kernel", "norm/bias", "norm/scale")
    ),
  ],
  "resnet18": [
    "head/bias",
    "head/kernel",
    *(
      f"stage{stage}_block{block}/{name}"
      for stage in (1, 2, 3, 4)
      for block in (1, 2)
      for name in (
        "conv1/kernel",
        "conv2/kernel",
        *(f"norm{i}/{leaf}" for i in (1, 2) for leaf in _NORM),
        *(_PROJECTION if stage > 1 and block == 1 else ()),
      )
    ),
    "stem_conv/kernel",
    *(f"stem_norm/{leaf}" for leaf in _NORM),
  ],
  "mobilenet_v1": sorted(
    [
      "head/bias",
      "head/kernel",
      "stem_conv/kernel",
      *(f"stem_norm/{leaf}" for leaf in _NORM),
      *(
        f"block{i}/{half}_{name}"
        for i in range(1, 14)
        for half in ("depthwise", "pointwise")
        for name in ("conv/kernel", "norm/bias", "norm/scale")
      ),
    ]
  ),
}


@pytest.mark.parametrize("name", FROZEN)
def test_parameter_names_are_frozen(name):
  params = _variables(models.build(name))["params"]
  assert sorted(_names(params)) == sorted(FROZEN[name])


def test_bottleneck_names_are_frozen():
  params = _variables(models.build("resnet50"))["params"]
  assert _names(params["stage1_block1"]) == [
    "conv1/kernel",
    "conv2/kernel",
    "conv3/kernel",
    "norm1/bias",
    "norm1/scale",
    "norm2/bias",
    "norm2/scale",
    "norm3/bias",
    "norm3/scale",
    "projection_conv/kernel",
    "projection_norm/bias",
    "projection_norm/scale",
  ]


def test_batch_statistics_are_named_after_their_norm():
  stats = _variables(models.build("resnet18"))["batch_stats"]
  assert "stem_norm/mean" in _names(stats)
  assert "stage4_block1/projection_norm/var" in _names(stats)


# The counts of torchvision's networks of the same name.
@pytest.mark.parametrize(
  ("name", "options", "image", "count"),
  [
    ("cnn", {}, (28, 28, 1), 206_922),
    ("resnet18", {}, (32, 32, 3), 11_689_512),
    ("resnet34", {}, (32, 32, 3), 21_797_672),
    ("resnet50", {}, (32, 32, 3), 25_557_032),
    ("mobilenet_v1", {}, (32, 32, 3), 4_231_976),
    # The count of the published weights.
    ("efficientnet_lite0", {}, (32, 32, 3), 4_652_008),
  ],
)
def test_parameter_counts(name, options, image, count):
  params = _variables(models.build(name, **options), image)["params"]
  assert _count(params) == count


TINY = [
  ("cnn", {"features": (2, 3), "hidden": 4}),
  ("resnet18", {"width": 4}),
  ("resnet50", {"width": 2, "stem": "cifar"}),
  ("mobilenet_v1", {"width": 0.0625}),
  ("efficientnet_lite0", {"stages": ((2, 3, 2, 6, 4),), "stem": 4, "top": 8}),
]


@pytest.mark.parametrize(("name", "options"), TINY)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_logits_and_parameters_are_float32(name, options, dtype):
  model = models.build(name, outputs=7, dtype=dtype, **options)

  def run():
    x = jnp.ones((2, 32, 32, 3))
    variables = model.init(jax.random.key(0), x, train=False)
    return variables, model.apply(
      variables, x, train=True, mutable=["batch_stats"]
    )

  variables, (logits, state) = jax.eval_shape(run)
  assert logits.shape == (2, 7)
  leaves = jax.tree.leaves((variables, logits, state))
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


def test_training_updates_statistics_and_evaluation_does_not():
  model = models.ResNet(stage_sizes=(1, 1), outputs=3, width=2, stem="cifar")
  x = jax.random.normal(jax.random.key(1), (4, 6, 6, 3))
  variables = jax.jit(model.init)(jax.random.key(0), x)

  @jax.jit
  def train(params):
    def loss(params):
      logits, state = model.apply(
        {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
      )
      return jnp.mean(logits**2), state["batch_stats"]

    return jax.grad(loss, has_aux=True)(params)

  @jax.jit
  def evaluate(x):
    return model.apply(variables, x, mutable=["batch_stats"])

  gradients, trained = train(variables["params"])
  logits, evaluated = evaluate(x)
  same = lambda state: jax.tree.map(
    jnp.array_equal, state, variables["batch_stats"]
  )
  assert jax.tree.all(same(evaluated["batch_stats"]))
  assert not any(jax.tree.leaves(same(trained)))
  assert jax.tree.all(jax.tree.map(lambda g: bool(jnp.any(g != 0)), gradients))
  # Evaluation treats every image by itself.
  np.testing.assert_allclose(evaluate(x[:1])[0], logits[:1], atol=1e-5)


def test_stems_differ_in_resolution():
  x = jnp.zeros((1, 64, 64, 3))

  def stage1_input(stem):
    model = models.build("resnet18", width=2, stem=stem)
    _, state = jax.eval_shape(
      lambda: model.init_with_output(
        jax.random.key(0),
        x,
        capture_intermediates=lambda module, _: module.name == "stage1_block1",
        mutable=True,
      )
    )
    return state["intermediates"]["stage1_block1"]["__call__"][0].shape

  assert stage1_input("imagenet") == (1, 16, 16, 2)
  assert stage1_input("cifar") == (1, 64, 64, 2)


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    ("resnet81", {}, "nearest names are resnet18"),
    ("cnn", {"output": 3}, "nearest names are outputs"),
    ("resnet18", {"stem": "mnist"}, "'imagenet' or 'cifar'"),
    ("resnet18", {"width": 0}, "at least 1, got 0 and"),
    ("resnet50", {"stage_sizes": (1, 0)}, r"got 64 and \(1, 0\)"),
    ("mobilenet_v1", {"width": -0.5}, "width must be above 0"),
    ("cnn", {"features": (4, 0)}, "features and hidden"),
    ("efficientnet_lite0", {"top": 0}, "of at least 1 each, like stem"),
    ("efficientnet_lite0", {"stages": ((1, 3, 1, 6),)}, "must be five whole"),
  ],
)
def test_mistakes_are_named(name, options, message):
  with pytest.raises(ValueError, match=message):
    _variables(models.build(name, **options))
