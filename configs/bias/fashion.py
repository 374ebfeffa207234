"""Bias of pruned networks on Fashion-MNIST as a problem of 22 attributes.

  python -m launch.run --config=configs/bias/fashion.py --workdir=runs/fashion
  python -m launch.run --config=configs/bias/fashion.py:quick --workdir=runs/q

In full: 55,000 training pictures, dense and seven sparsities, pruned while and
after training, three seeds, learning rates tuned for each arm on validation
data; about an hour on two CPU cores. Expected mean AUC of the dense model:
about 0.985. `quick` takes about a minute on two cores. `complete` has five
seeds and adds the variants: masks of other structure at equal sparsity, other
scores, losses that are to repair what pruning does, and models of one label;
about an hour and a half.
"""

import ml_collections

from configs import common

SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
# All but the first layer, whose single input channel no group of four fits, and
# but the outputs.
INNER = "(conv2|dense)/kernel"
VARIANTS = (
  # Structures of masks on the same layers, half or a quarter of them kept.
  dict(name="unstructured", sparsities=(0.5, 0.75), where=INNER),
  dict(name="2:4", sparsities=(0.5,), mask="2:4", where=INNER),
  dict(name="1:4", sparsities=(0.75,), mask="1:4", where=INNER),
  dict(name="channels", sparsities=(0.5, 0.75), mask="channels", where=INNER),
  # Scores beside the magnitude of the arm "pt".
  dict(name="random", sparsities=(0.8, 0.95), score="random"),
  dict(name="taylor", sparsities=(0.95, 0.98), score="taylor"),
  dict(name="fisher", sparsities=(0.95, 0.98), score="fisher"),
  # Losses beside the plain one of the arm "pt".
  dict(name="distilled", sparsities=(0.98,), loss="distillation"),
  dict(name="weighted", sparsities=(0.98,), loss="performance_weighted"),
  dict(name="balanced", sparsities=(0.98,), loss="label_balanced"),
  # A model for each of these attributes, beside the joint ones of "ri".
  dict(
    name="single",
    like="ri",
    sparsities=(0.0, 0.98),
    attributes=("upper_body", "long_sleeves", "covers_legs", "patterned"),
  ),
)


def get_config(arg: str = ""):
  """Return the configuration.

  Args:
    arg: `quick` for a small run; `complete` for five seeds and all variants;
      `sparsity=0.9` for one sparsity only; `sparsities=0.9:0.98`, `seeds=3`,
      `source=mnist_5k` (or digits).
  """
  options = common.parse_arg(
    arg,
    quick=False,
    complete=False,
    sparsity=-1.0,
    sparsities=SPARSITIES,
    seeds=0,
    source="fashion_mnist",
  )
  quick = options.quick
  sparsities = options.sparsities
  if quick and sparsities == SPARSITIES:
    sparsities = (0.9, 0.98)
  if options.sparsity >= 0:
    sparsities = (options.sparsity,)

  return ml_collections.ConfigDict(
    dict(
      study="bias",
      title="Bias in pruned models: Fashion-MNIST attributes",
      sparsities=sparsities,
      seeds=tuple(range(options.seeds or (5 if options.complete else 3))),
      variants=VARIANTS if options.complete else (),
      data=dict(
        name=options.source,
        directory="",
        limit=12_000 if quick else None,
        validation=1_000 if quick else 5_000,
        test_limit=4_000 if quick else None,
        seed=0,
        normalise=(0.5, 0.5),
        # Planted identities, each going along with one attribute in training.
        marks=(
          dict(attribute="covers_legs", mark="square", skew="strong"),
          dict(attribute="patterned", mark="haze", skew="weak"),
        )
        if options.source == "fashion_mnist"
        else (),
      ),
      model=dict(name="cnn", options=dict(features=(16, 32), hidden=128)),
      training=dict(
        epochs=4 if quick else 6,
        # The post-training arm: a dense model of the rest of the epochs first.
        epochs_pt=2 if quick else 3,
        batch_size=128,
        eval_batch_size=1000,
        optimizer="adamw",
        weight_decay=1e-4,
        warmup_epochs=1,
        learning_rates=dict(dense=2e-3, base=2e-3, ri=2e-3, pt=2e-3),
        checkpoint_epochs=1,
        tensorboard=False,
        pruning=dict(
          score="magnitude",
          mask="global",
          # In epochs. A quarter of the time is left to train the final mask.
          ri=dict(
            initial=0.05,
            begin=0.5 if quick else 1.0,
            every=0.25 if quick else 0.5,
            end=3.0 if quick else 4.5,
          ),
          pt=dict(
            initial=0.05,
            begin=0.0,
            every=0.25,
            end=1.5 if quick else 2.25,
          ),
        ),
      ),
      # Learning rates are chosen by validation AUC, with a seed that no arm
      # uses; up to 95 % sparsity by models of 95 %, beyond it at each level.
      tuning=dict(
        learning_rates=() if quick else (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
        sparsities=(0.95, 0.98, 0.99, 0.995),
        seed=1000,
      ),
      mesh="",
      mesh_rules="data",
      report=dict(gallery=12, focus=0.98),
    )
  )
