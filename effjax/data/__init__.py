"""Real data: found, verified, turned into arrays and deterministic batches."""

from effjax.data import emails
from effjax.data.batches import Batches, from_arrays, from_source, stack
from effjax.data.fetching import fetch
from effjax.data.registry import SOURCES, Source
from effjax.data.sources import cache_directory, locate, source

__all__ = [
  "SOURCES",
  "Batches",
  "Source",
  "cache_directory",
  "emails",
  "fetch",
  "from_arrays",
  "from_source",
  "locate",
  "source",
  "stack",
]
