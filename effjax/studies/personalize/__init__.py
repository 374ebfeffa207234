"""From a mailbox to a model that writes like its owner, measured."""

from effjax.studies.personalize.study import run

__all__ = ["run"]
