"""A network and results so small that tests of the study take seconds."""

import ml_collections
from flax import linen as nn

ENDS = ("estimate", "low", "high")


class Net(nn.Module):
  """One convolution and two dense layers."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.Conv(2, (3, 3), strides=2, name="conv")(x))
    x = nn.relu(nn.Dense(4, name="dense")(x.reshape(x.shape[0], -1)))
    return nn.Dense(3, name="head")(x)


def config(**changes):
  """What arms and findings read of a configuration."""
  options = dict(
    copies=3,
    damping=0.01,
    least_area=0.5,
    exact_inputs=20,
    arms=("dense", "fast_spade", "spade"),
    methods=("saliency", "lrp"),
  )
  return ml_collections.ConfigDict(options | changes)


def cell(estimate, half=0.01):
  """An estimate with its interval."""
  ends = (estimate, estimate - half, estimate + half)
  return dict(zip(ENDS, ends, strict=True))


def results(seeds=(0, 1)):
  """Results as `study.run` writes them, made by hand."""
  methods, arms = ["saliency", "lrp"], ["dense", "fast_spade", "random"]
  names = [*methods, "mean"]
  row = lambda level: {name: cell(level) for name in names}
  return {
    "study": "spade",
    "title": "A small study",
    "model": "cnn",
    "seeds": list(seeds),
    "patches": ["cross"],
    "arms": arms,
    "methods": methods,
    "copies": 32,
    "accuracy": [[0.9, 0.89] for _ in seeds],
    "success": {"cross": [0.75 for _ in seeds]},
    "images": 6,
    "exact_images": 2,
    "tuned": [
      {
        "fast_spade": {"rules": [["conv", None]]},
        "sparse_head": {"strength": 1},
      }
      for _ in seeds
    ],
    "auc": {"dense": row(0.8), "fast_spade": row(0.85), "random": row(0.6)},
    "auc_against_dense": {
      "fast_spade": {
        "saliency": cell(0.1),
        "lrp": cell(-0.02),
        "mean": cell(0.05),
      },
      "random": row(-0.2),
    },
    "answer_kept": {
      "dense": cell(1.0, 0.0),
      "fast_spade": cell(0.625),
      "random": cell(0.5),
    },
    "faithfulness": {
      "insertion": {"dense": row(0.7), "fast_spade": row(0.72)},
      "deletion": {"dense": row(0.3), "fast_spade": row(0.29)},
      "insertion_against_dense": {"fast_spade": cell(0.02)},
      "deletion_against_dense": {"fast_spade": cell(-0.01)},
    },
    "ablations": {
      "copies": [
        {"value": 1, "area": cell(0.6)},
        {"value": 32, "area": cell(0.85)},
      ],
      "sparsity": [
        {"value": 0.5, "area": cell(0.85)},
        {"value": 0.9, "area": cell(0.7)},
      ],
    },
    "seconds": {"wall": 61.0, "cpu": 90.0},
    "verdict": {"outcome": "reproduced", "text": "More."},
    "cores": 2,
    "data": {"name": "fashion_mnist", "sizes": {"train": 10}},
    "environment": {
      "started": "2026-01-01T00:00:00+00:00",
      "command": "python -m launch.run --config=c --workdir=w",
      "backend": "cpu",
      "packages": {"jax": "0.10"},
    },
  }


def without_numbers(found):
  """Put None, as JSON spells NaN, in the place of every estimate."""
  if isinstance(found, dict):
    return {
      k: None if k in ENDS else without_numbers(v) for k, v in found.items()
    }
  if isinstance(found, list):
    return [without_numbers(v) for v in found]
  return found
