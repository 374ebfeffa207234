"""Edits of what a network knows: closed forms, deltas, unlearning losses.

Closed forms take weights [O, I], the second moment of keys [I, I], and keys and
values as columns, and return a change [O, I]:

    rome(w, c, k, v)  memit(w, c, keys, values, lam)  emmet(w, c, keys, values)
    alphaedit(w, c, keys, values)

`to_delta(path, matrix)` names it; deltas are added, scaled, undone, projected
and compared. Losses of unlearning take logits [B, T, V] and labels [B, T]:

    gradient_ascent(logits, labels)     npo(logits, reference_logits, labels)
    combine(forget, retain, gamma=, alpha=)
"""

from effjax.editing.clamping import ClampState, clamp_to
from effjax.editing.closed_form import (
  alphaedit,
  emmet,
  memit,
  null_space,
  rome,
  sequential,
)
from effjax.editing.codebook import (
  Codebook,
  Insertion,
  empty_codebook,
  insert,
  lookup,
)
from effjax.editing.deltas import (
  Record,
  add,
  apply,
  scaled,
  task_vector,
  to_delta,
  total,
  undo,
)
from effjax.editing.keys_values import (
  Value,
  average_keys,
  optimize_value,
  second_moment,
)
from effjax.editing.subspaces import (
  Comparison,
  Spectrum,
  compare,
  cosine,
  norm,
  project,
  spectra,
)
from effjax.editing.unlearning import (
  LOSSES,
  Answers,
  activation_distance,
  combine,
  dpo,
  grad_diff,
  gradient_ascent,
  kl,
  nll,
  npo,
  rmu,
  rmu_direction,
  satimp,
  simnpo,
  undial,
  wga,
)

__all__ = [
  "LOSSES",
  "Answers",
  "ClampState",
  "Codebook",
  "Comparison",
  "Insertion",
  "Record",
  "Spectrum",
  "Value",
  "activation_distance",
  "add",
  "alphaedit",
  "apply",
  "average_keys",
  "clamp_to",
  "combine",
  "compare",
  "cosine",
  "dpo",
  "emmet",
  "empty_codebook",
  "grad_diff",
  "gradient_ascent",
  "insert",
  "kl",
  "lookup",
  "memit",
  "nll",
  "norm",
  "npo",
  "null_space",
  "optimize_value",
  "project",
  "rmu",
  "rmu_direction",
  "rome",
  "satimp",
  "scaled",
  "second_moment",
  "sequential",
  "simnpo",
  "spectra",
  "task_vector",
  "to_delta",
  "total",
  "undial",
  "undo",
  "wga",
]
