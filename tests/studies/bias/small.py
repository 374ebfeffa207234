"""A problem and a model so small that a study of them takes seconds."""

import ml_collections
import numpy as np
from flax import linen as nn

from effjax.data import batches
from effjax.studies.bias.problems import Problem

SIZES = {"train": 64, "validation": 20, "test": 26}
PER_EPOCH = 4


class Model(nn.Module):
  """A dense layer over pixels, batch norm, and a head."""

  outputs: int = 3

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Dense(8, name="dense")(x.reshape(x.shape[0], -1))
    x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
    return nn.Dense(self.outputs, name="head")(nn.relu(x))


def problem():
  rng = np.random.default_rng(0)
  pictures = {
    split: rng.integers(0, 256, (size, 4, 4, 1)).astype(np.uint8)
    for split, size in SIZES.items()
  }
  # An attribute is the brightness of a row.
  labels = {
    split: images[..., 0].mean(2)[:, :3] > 128
    for split, images in pictures.items()
  }
  train = {"images": pictures["train"], "labels": labels["train"]}

  def show(split, batch_size):
    whole = pictures[split]
    for start in range(0, len(whole), batch_size):
      yield whole[start : start + batch_size]

  return Problem(
    attributes=("first", "second", "third"),
    groups=("third",),
    marked={},
    labels=labels,
    memberships={split: x[:, 2:] for split, x in labels.items()},
    shape=(4, 4, 1),
    train=lambda seed, size: batches.from_arrays(train, size, seed=seed),
    pictures=show,
    provenance={},
  )


def config(**training):
  pruning = dict(
    score="magnitude",
    mask="global",
    ri=dict(initial=0.05, begin=0.5, every=0.5, end=2.0),
    pt=dict(initial=0.05, begin=0.0, every=0.25, end=1.0),
  )
  return ml_collections.ConfigDict(
    dict(
      data=dict(normalise=(0.5, 0.5)),
      training=dict(
        epochs=3,
        batch_size=16,
        eval_batch_size=8,
        optimizer="adamw",
        weight_decay=1e-4,
        warmup_epochs=1,
        checkpoint_epochs=1,
        tensorboard=False,
        pruning=pruning,
      )
      | training,
      mesh="",
      mesh_rules="data",
    )
  )
