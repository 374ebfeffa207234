"""Trojans in networks of Fashion-MNIST, explained dense and traced.

  python -m launch.fetch fashion_mnist
  python -m launch.run --config=configs/spade/fashion.py --workdir=runs/spade

Three networks; about half an hour on two CPU cores. `:quick` takes one network,
few images and the quick methods; `:miniature` takes about a minute, to see that
everything works. `:model=resnet` is a residual network of three blocks on a
third of the images; an hour or more.
"""

import ml_collections

from configs import common

METHODS = (
  "saliency",
  "input_x_gradient",
  "integrated_gradients",
  "smoothgrad",
  "gradient_shap",
  "deep_lift",
  "lrp",
  "guided_backprop",
  "deconvolution",
  "grad_cam",
  "guided_grad_cam",
  "occlusion",
  "lime",
  "rise",
)
QUICK = (
  "saliency",
  "input_x_gradient",
  "lrp",
  "grad_cam",
  "occlusion",
)
ARMS = (
  "dense",
  "fast_spade",
  "spade",
  "wanda",
  "magnitude",
  "random",
  "sparse_head",
)


# What is said of a model: how it is built, its first layer, which is never
# pruned, the layers that share a sparsity, in their order, the last layer, and
# the layer of class activation maps.
MODELS = {
  "cnn": dict(
    model=dict(name="cnn", options=dict()),
    first_layer="conv1/kernel",
    layers=("conv2/kernel", "dense/kernel", "head/kernel"),
    head="head",
    cam_layer="conv2/kernel",
  ),
  "resnet": dict(
    model=dict(
      name="resnet18",
      options=dict(stage_sizes=(1, 1, 1), width=16, stem="cifar"),
    ),
    first_layer="stem_conv/kernel",
    layers=(
      "stage1_block1/.*",
      "stage2_block1/.*",
      "stage3_block1/.*",
      "head/kernel",
    ),
    head="head",
    cam_layer="stage3_block1/conv2/kernel",
  ),
}


def get_config(arg: str = ""):
  """Return the configuration.

  Args:
    arg: `seeds=0:1:2` for other networks; `model=resnet` for another one;
      `quick` for a small study, `miniature` for the smallest.
  """
  options = common.parse_arg(
    arg, quick=False, miniature=False, seeds=(), model="cnn"
  )
  if options.model not in MODELS:
    raise ValueError(
      f"the study has no model {options.model!r}; choose {' or '.join(MODELS)}"
    )
  images = 0 if options.model == "cnn" else 20000
  miniature, small = options.miniature, options.quick or options.miniature

  def pick(whole, quick, least):
    return least if miniature else quick if small else whole

  return ml_collections.ConfigDict(
    dict(
      study="spade",
      title="SPADE: networks pruned for one example explain it better?",
      seeds=options.seeds or pick((0, 1, 2), (0,), (0,)),
      data=dict(
        name="fashion_mnist", directory="", limit=pick(images, 12000, 6000)
      ),
      **MODELS[options.model],
      # Glyph, side in pixels, class, share of poisoned images.
      patches=(
        ("cross", 6, 8, pick(0.1, 0.15, 0.2)),
        ("ring", 7, 1, pick(0.08, 0.15, 0.2)),
        ("checks", 8, 9, pick(0.06, 0.15, 0.2)),
      ),
      training=dict(
        epochs=3,
        trojan_epochs=pick(5, 8, 10),
        batch_size=128,
        learning_rate=0.004,
      ),
      arms=pick(ARMS, ARMS[:5], ("dense", "fast_spade", "random")),
      methods=pick(METHODS, QUICK, ("saliency", "lrp", "occlusion")),
      # Images of each patch: to tune on, to test on, for the exact solver.
      calibration_each=pick(8, 4, 2),
      each=pick(40, 8, 6),
      exact_each=pick(8, 2, 2),
      ablation_each=pick(10, 4, 2),
      clean_images=pick(60, 16, 18),
      samples=pick(1024, 256, 256),
      copies=32,
      least_area=0.2,
      damping=0.01,
      exact_inputs=512,
      grid=(None, 0.2, 0.5, 0.8, 0.9, 0.95, 0.99),
      budget=pick(20, 8, 4),
      strengths=(0.0003, 0.001, 0.003, 0.01, 0.03),
      head_images=pick(20000, 5000, 5000),
      ablations=dict(copies=(1, 32), sparsity=(0.5, 0.9))
      if miniature
      else dict(
        copies=(1, 4, 16, 64) if small else (1, 4, 16, 32, 64, 128),
        damping=(0.001, 0.01, 0.1, 1.0),
        mask_block=(1, 9, 128) if small else (1, 9, 32, 128, 512),
        sparsity=(0.5, 0.8, 0.9, 0.95, 0.98, 0.99),
      ),
      visualise_steps=pick(512, 64, 0),
    )
  )
