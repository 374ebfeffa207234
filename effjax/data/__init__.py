"""Data: real ones, found and verified, and worlds that are known completely.

Both are turned into deterministic batches.
"""

from effjax.data import (
  corpora,
  edit_rows,
  edit_sets,
  edits,
  emails,
  sentences,
  vocabulary,
  world_exports,
  worlds,
)
from effjax.data.batches import Batches, from_arrays, from_source, stack
from effjax.data.fetching import fetch
from effjax.data.registry import SOURCES, Source
from effjax.data.sources import cache_directory, locate, source

__all__ = [
  "SOURCES",
  "Batches",
  "Source",
  "cache_directory",
  "corpora",
  "edit_rows",
  "edit_sets",
  "edits",
  "emails",
  "fetch",
  "from_arrays",
  "from_source",
  "locate",
  "sentences",
  "source",
  "stack",
  "vocabulary",
  "world_exports",
  "worlds",
]
