"""Outputs of two models of which one hurts a known group."""

import numpy as np

ROWS = 600
ATTRIBUTES = ("smile", "hat", "tie")


def arrays(rows=ROWS, seed=0):
  """Returns named arrays: in "tie" decisions of old people are overturned."""
  rng = np.random.default_rng(seed)
  sex = rng.choice(["f", "m"], rows)
  old = rng.random(rows) < 0.3
  labels = rng.random((rows, 3)) < 0.4
  dense = np.where(labels, 2.0, -2.0) + rng.normal(size=(rows, 3)) * 1.5
  pruned = dense + rng.normal(size=(rows, 3)) * 0.3
  pruned[old & labels[:, 2], 2] -= 2.5
  return {
    "outputs": pruned.astype(np.float32),
    "reference": dense.astype(np.float32),
    "labels": labels,
    "sex": sex,
    "old": old,
    "ids": np.array([f"p{i}" for i in range(rows)]),
  }


def write(place, found):
  """Writes arrays as the npz files of an audit; returns the options."""
  ids = {"ids": found["ids"]}
  names = {"attributes": np.array(ATTRIBUTES)}
  np.savez(place / "a.npz", logits=found["outputs"], **ids, **names)
  np.savez(place / "b.npz", logits=found["reference"], **ids, **names)
  np.savez(place / "l.npz", labels=found["labels"], **ids)
  np.savez(place / "g.npz", sex=found["sex"], old=found["old"], **ids)
  return [
    f"--predictions={place}/a.npz",
    f"--reference={place}/b.npz",
    f"--groups={place}/g.npz",
    f"--labels={place}/l.npz",
  ]
