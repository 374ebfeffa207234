"""Real data: found, verified, turned into arrays and deterministic batches."""

from effjax.data.batches import Batches, from_arrays, stack
from effjax.data.registry import SOURCES, Source
from effjax.data.sources import cache_directory, locate, source

__all__ = [
  "SOURCES",
  "Batches",
  "Source",
  "cache_directory",
  "from_arrays",
  "locate",
  "source",
  "stack",
]
