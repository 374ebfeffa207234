"""Bias of pruned ResNet-18 on the 40 attributes of CelebA, as published.

  python -m launch.run --config=configs/bias/celeba_resnet18.py \
    --config.data.directory=DIR --workdir=runs/celeba_resnet18

DIR holds the pictures and lists that the authors of CelebA give out. In full
that is 40 models of 80 or 100 epochs, made for accelerators; the argument
`quick` trains four narrow ones on small pictures within minutes, to see that
all is in place. `seeds=1,sparsity=0.95` is in between.
"""

from configs.bias import celeba_common


def get_config(arg: str = ""):
  """Return the configuration; see `celeba_common.make_config` for `arg`."""
  return celeba_common.make_config(
    arg,
    title="Bias in pruned models: ResNet-18 on CelebA",
    name="resnet18",
    options=dict(width=64, stage_sizes=(2, 2, 2, 2), stem="imagenet"),
    quick_width=8,
    # As published: of the dense models this one alone has no weight decay.
    dense_weight_decay=0.0,
  )
