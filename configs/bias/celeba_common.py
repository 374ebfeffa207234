"""What the CelebA configs share: the published joint training.

The numbers are those of Iofinova, Peste and Alistarh: Bias in Pruned Vision
Models, CVPR 2023 (arXiv:2304.12622), and of its public code: the schedule and
the masks follow its conventions, and the momentum is reset after every epoch as
it is there. What differs: every model is measured as it is after its last epoch
(there, after the epoch of the best validation accuracy), and weight decay
leaves biases and batch norm alone.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

from configs import common

SPARSITIES = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
DENSE_SEED = 22  # of the dense model that post-training pruning starts from
FIRST_SEED = 23
# The labels of the published models of one label.
SINGLE = (
  "Blond_Hair",
  "Smiling",
  "Oval_Face",
  "Big_Nose",
  "Mustache",
  "Receding_Hairline",
  "Bags_Under_Eyes",
)
# What a planted mark may go along with in training, and how often; published.
BACKDOORS = {
  "Blond_Hair": "strong",
  "Smiling": "strong",
  "Wearing_Necktie": "strong",
  "Attractive": "strong",
  "Oval_Face": "weak",
  "Big_Nose": "weak",
}


def make_config(
  arg: str,
  *,
  title: str,
  name: str,
  options: Mapping[str, Any],
  quick_width: float,
  dense_weight_decay: float = 2**-15,
) -> ml_collections.ConfigDict:
  """Make the configuration of one architecture.

  Args:
    arg: The argument of the config: `quick` for a small run, `sparsity=0.9` or
      `sparsities=0.9:0.98`, `seeds=1`, `size=64` for smaller pictures;
      `backdoor=Blond_Hair` (or another of `BACKDOORS`) to plant a mark that
      goes along with it in training, `mark=square` or grayscale; `single` for
      models of one label beside the joint ones.
    title: Title of the report.
    name: Name of the model.
    options: Its attributes, "width" among them.
    quick_width: The width that `quick` takes.
    dense_weight_decay: Weight decay of the models that are trained dense.

  Returns:
    The configuration.
  """
  given = common.parse_arg(
    arg,
    quick=False,
    sparsity=-1.0,
    sparsities=SPARSITIES,
    seeds=0,
    size=0,
    backdoor="",
    mark="square",
    single=False,
  )
  if given.backdoor and given.backdoor not in BACKDOORS:
    raise ValueError(
      f"backdoor={given.backdoor} is none of {', '.join(BACKDOORS)}"
    )
  marks: tuple[dict[str, str], ...] = ()
  if given.backdoor:
    skew = BACKDOORS[given.backdoor]
    marks = (dict(attribute=given.backdoor, mark=given.mark, skew=skew),)
  quick = given.quick
  sparsities = given.sparsities
  if quick and sparsities == SPARSITIES:
    sparsities = (0.9,)
  if given.sparsity >= 0:
    sparsities = (given.sparsity,)
  seeds = given.seeds or (1 if quick else 3)
  rate = 0.032 if quick else 0.256  # in proportion to the size of a batch

  return ml_collections.ConfigDict(
    dict(
      study="bias",
      title=title,
      sparsities=sparsities,
      seeds=tuple(range(FIRST_SEED, FIRST_SEED + seeds)),
      variants=(
        dict(
          name="single",
          like="ri",
          sparsities=(0.0, *sparsities),
          attributes=SINGLE[:1] if quick else SINGLE,
        ),
      )
      if given.single
      else (),
      data=dict(
        name="celeba",
        directory="",
        # A folder for the resized pictures, which pays at small sizes.
        cache="",
        size=given.size or (64 if quick else 224),
        # Use the first pictures of each split only.
        limit=4_000 if quick else None,
        validation=1_000 if quick else None,
        test_limit=2_000 if quick else None,
        seed=0,
        normalise=(0.5, 0.5),
        marks=marks,
      ),
      model=dict(
        name=name,
        options=dict(options) | (dict(width=quick_width) if quick else {}),
      ),
      training=dict(
        # Each model fills the devices by itself.
        together=False,
        epochs=4 if quick else 100,
        epochs_base=4 if quick else 100,
        epochs_pt=2 if quick else 80,
        base_seed=DENSE_SEED,
        batch_size=32 if quick else 256,
        eval_batch_size=32 if quick else 256,
        optimizer="sgd",
        momentum=0.875,
        weight_decay=2**-15,
        schedule="warmup_cosine",
        warmup_epochs=1 if quick else 5,
        reset_momentum=True,
        # What differs from the above, by arm.
        optimizers=dict(
          dense=dict(weight_decay=dense_weight_decay),
          base=dict(weight_decay=dense_weight_decay),
          pt=dict(
            optimizer="adam",
            weight_decay=0.0,
            schedule="constant",
            reset_momentum=False,
          ),
        ),
        learning_rates=dict(dense=rate, base=rate, ri=rate, pt=1e-4),
        checkpoint_epochs=1,
        tensorboard=False,
        pruning=dict(
          score="magnitude",
          mask="global",
          convention="reference",
          # In epochs. As published, the last update is not at `end` but at the
          # last multiple of `every` before it.
          ri=dict(
            initial=0.05,
            begin=1.0 if quick else 10.0,
            every=0.5 if quick else 10.0,
            end=3.0 if quick else 81.0,
          ),
          pt=dict(
            initial=0.05,
            begin=0.0 if quick else 1.0,
            every=0.25 if quick else 4.0,
            end=1.0 if quick else 60.0,
          ),
        ),
      ),
      tuning=dict(learning_rates=(), sparsities=(0.95,), seed=1000),
      mesh="auto",
      mesh_rules="data",
      # CelebA's terms do not allow to show its pictures.
      report=dict(gallery=0, focus=0.98),
    )
  )
