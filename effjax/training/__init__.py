"""Training: state, step, the loop, what it writes and where it runs."""

from effjax.training.diagnostics import NotFiniteError as NotFiniteError
from effjax.training.interrupt import Interrupted as Interrupted
from effjax.training.loop import fit as fit
from effjax.training.schedules import warmup_cosine as warmup_cosine
from effjax.training.state import TrainState as TrainState
from effjax.training.state import create as create
from effjax.training.step import make_step as make_step
from effjax.training.step import population as population
from effjax.training.step import stack as stack
from effjax.training.step import unstack as unstack
from effjax.training.writer import read_metrics as read_metrics

__all__ = [
  "Interrupted",
  "NotFiniteError",
  "TrainState",
  "create",
  "fit",
  "make_step",
  "population",
  "read_metrics",
  "stack",
  "unstack",
  "warmup_cosine",
]
