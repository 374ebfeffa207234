"""Bias in pruned vision models: who is hurt when a network gets sparse?"""

from effjax.studies.bias.study import run

__all__ = ["run"]
