"""Bias of pruned MobileNetV1 on the 40 attributes of CelebA, as published.

  python -m launch.run --config=configs/bias/celeba_mobilenet.py \
    --config.data.directory=DIR --workdir=runs/celeba_mobilenet

See celeba_resnet18.py.
"""

from configs.bias import celeba_common


def get_config(arg: str = ""):
  """Return the configuration; see `celeba_common.make_config` for `arg`."""
  return celeba_common.make_config(
    arg,
    title="Bias in pruned models: MobileNetV1 on CelebA",
    name="mobilenet_v1",
    options=dict(width=1.0),
    quick_width=0.25,
  )
