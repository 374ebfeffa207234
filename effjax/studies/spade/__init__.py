"""Does pruning a network for one example make it explain itself better?"""

from effjax.studies.spade.study import run

__all__ = ["run"]
