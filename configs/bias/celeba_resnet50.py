"""Bias of pruned ResNet-50 on the 40 attributes of CelebA, as published.

  python -m launch.run --config=configs/bias/celeba_resnet50.py \
    --config.data.directory=DIR --workdir=runs/celeba_resnet50

See celeba_resnet18.py. Pruning after training was published for the other two
architectures only; here it is done in the same way.
"""

from configs.bias import celeba_common


def get_config(arg: str = ""):
  """Return the configuration; see `celeba_common.make_config` for `arg`."""
  return celeba_common.make_config(
    arg,
    title="Bias in pruned models: ResNet-50 on CelebA",
    name="resnet50",
    options=dict(width=64, stage_sizes=(3, 4, 6, 3), stem="imagenet"),
    quick_width=8,
  )
