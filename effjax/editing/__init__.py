"""Edits of what a network knows: closed forms, deltas, unlearning losses."""

from effjax.editing.closed_form import (
  alphaedit,
  emmet,
  memit,
  null_space,
  rome,
  sequential,
)

__all__ = [
  "alphaedit",
  "emmet",
  "memit",
  "null_space",
  "rome",
  "sequential",
]
