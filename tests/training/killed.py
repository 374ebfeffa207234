"""A run to be killed: python -m tests.training.killed WORKDIR DIGESTS NAME.

It has all that a resumed run must get right: masks that change, moments, batch
statistics, dropout, evaluation. NAME is an optimizer of tests.training.tiny. At
the end it writes digests of its state.
"""

import hashlib
import json
import pathlib
import sys

import jax
import optax

from effjax import training
from tests.training import tiny


def main(workdir, digests, name):
  optimizer = getattr(tiny, name)()
  state = training.fit(
    tiny.start(optimizer),
    tiny.step(optimizer),
    tiny.Batches(),
    steps=tiny.STEPS,
    workdir=workdir,
    config={"optimizer": name, "steps": tiny.STEPS},
    log_every=3,
    checkpoint_every=5,
    keep=2,
    evaluate=lambda state: {"norm": optax.tree.norm(state.params)},
    evaluate_every=10,
  )
  leaves = jax.tree_util.tree_flatten_with_path(tiny.plain(state))[0]
  found = {
    jax.tree_util.keystr(path): hashlib.sha256(leaf.tobytes()).hexdigest()
    for path, leaf in leaves
  }
  pathlib.Path(digests).write_text(json.dumps(found))


if __name__ == "__main__":
  main(*sys.argv[1:])
