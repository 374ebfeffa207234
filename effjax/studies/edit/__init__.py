"""Edits of what language models know: which update changes it best?"""

from effjax.studies.edit.study import run

__all__ = ["run"]
