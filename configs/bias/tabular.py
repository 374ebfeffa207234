"""Pruned networks on tables of persons, audited by sex, race and age.

  python -m launch.run --config=configs/bias/tabular.py --workdir=runs/adult
  python -m launch.run --config=configs/bias/tabular.py:name=compas \
    --workdir=runs/compas

An MLP on Adult (income above 50,000 dollars), COMPAS (two-year recidivism) or
German credit; protected attributes are groups and not among the features. Ten
seeds, dense and five sparsities; about two minutes on two CPU cores. The data
concern real people: they serve to study what compression does, not to decide
about anybody.
"""

import ml_collections

from configs import common

# Small tables take more passes for as many updates.
EPOCHS = {"adult": 10, "compas": 40, "german_credit": 60}


def get_config(arg: str = ""):
  """Return the configuration.

  Args:
    arg: `name=adult`, compas or german_credit; `quick` for a small run;
      `seeds=10`; `sparsity=0.9` for one only; `sparsities=0.9:0.98`;
      `use_protected` to have sex and race
      among the features.
  """
  options = common.parse_arg(
    arg,
    name="adult",
    quick=False,
    seeds=0,
    sparsity=-1.0,
    sparsities=(0.8, 0.9, 0.95, 0.98, 0.99),
    use_protected=False,
  )
  quick = options.quick
  sparsities = (0.9, 0.98) if quick else options.sparsities
  if options.sparsity >= 0:
    sparsities = (options.sparsity,)
  epochs = EPOCHS.get(options.name, 10) // (2 if quick else 1)
  return ml_collections.ConfigDict(
    dict(
      study="bias",
      title=f"Bias in pruned models: {options.name}",
      sparsities=sparsities,
      seeds=tuple(range(options.seeds or (3 if quick else 10))),
      data=dict(
        name=options.name,
        directory="",
        validation=None,
        seed=0,
        use_protected=options.use_protected,
        marks=(),
      ),
      model=dict(name="mlp", options=dict(hidden=(64, 32))),
      training=dict(
        epochs=epochs,
        epochs_pt=epochs // 2,
        batch_size=128,
        eval_batch_size=1000,
        optimizer="adamw",
        weight_decay=1e-4,
        warmup_epochs=1,
        learning_rates=dict(dense=2e-3, base=2e-3, ri=2e-3, pt=2e-3),
        checkpoint_epochs=5,
        tensorboard=False,
        pruning=dict(
          score="magnitude",
          mask="global",
          # In epochs. A quarter of the time is left to train the final mask.
          ri=dict(
            initial=0.05,
            begin=0.1 * epochs,
            every=0.05 * epochs,
            end=0.75 * epochs,
          ),
          pt=dict(
            initial=0.05,
            begin=0.0,
            every=0.05 * epochs,
            end=0.375 * epochs,
          ),
        ),
      ),
      tuning=dict(
        learning_rates=() if quick else (5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
        sparsities=(0.95,) if quick else (0.95, 0.98, 0.99),
        seed=1000,
      ),
      mesh="",
      mesh_rules="data",
      report=dict(gallery=0, focus=0.98),
    )
  )
