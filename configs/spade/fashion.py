"""Trojans in networks of Fashion-MNIST, explained dense and traced.

  python -m launch.fetch fashion_mnist
  python -m launch.run --config=configs/spade/fashion.py --workdir=runs/spade

Three networks; about half an hour on two CPU cores. `:quick` takes one network,
few images and the quick methods.
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


def get_config(arg: str = ""):
  """Return the configuration.

  Args:
    arg: `seeds=0:1:2` for other networks; `quick` for a small study.
  """
  options = common.parse_arg(arg, quick=False, seeds=(0, 1, 2))
  quick = options.quick
  return ml_collections.ConfigDict(
    dict(
      study="spade",
      title="SPADE: networks pruned for one example explain it better?",
      seeds=options.seeds[:1] if quick else options.seeds,
      data=dict(
        name="fashion_mnist", directory="", limit=12000 if quick else 0
      ),
      model=dict(name="cnn", options=dict()),
      # Layers that are pruned, in their order; the first one never is.
      first_layer="conv1/kernel",
      layers=("conv2/kernel", "dense/kernel", "head/kernel"),
      head="head",
      cam_layer="conv2/kernel",
      # Glyph, side in pixels, class, share of poisoned images.
      patches=(
        ("cross", 6, 8, 0.15 if quick else 0.1),
        ("ring", 7, 1, 0.15 if quick else 0.08),
        ("checks", 8, 9, 0.15 if quick else 0.06),
      ),
      training=dict(
        epochs=3,
        trojan_epochs=8 if quick else 5,
        batch_size=128,
        learning_rate=0.004,
      ),
      arms=ARMS[:5] if quick else ARMS,
      methods=QUICK if quick else METHODS,
      # Images of each patch: to tune on, to test on, for the exact solver.
      calibration_each=4 if quick else 8,
      each=8 if quick else 40,
      exact_each=2 if quick else 8,
      ablation_each=4 if quick else 10,
      clean_images=16 if quick else 60,
      samples=256 if quick else 1024,
      copies=32,
      least_area=0.2,
      damping=0.01,
      exact_inputs=512,
      grid=(None, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99),
      budget=8 if quick else 20,
      strengths=(0.0003, 0.001, 0.003, 0.01, 0.03),
      head_images=5000 if quick else 20000,
      ablations=dict(
        copies=(1, 4, 16, 64) if quick else (1, 4, 16, 32, 64, 128),
        damping=(0.001, 0.01, 0.1, 1.0),
        mask_block=(1, 9, 128) if quick else (1, 9, 32, 128, 512),
        sparsity=(0.5, 0.8, 0.9, 0.95, 0.98, 0.99),
      ),
      visualise_steps=64 if quick else 512,
    )
  )
