"""Adapters on a language model: what is trained, and what it brings."""

from effjax.studies.adapters.study import run

__all__ = ["run"]
