"""Audit of two models' saved outputs: what did compression do, and to whom?

Nothing is trained. `read` (files) or `from_arrays` (arrays) make `Outputs`,
`audit` measures them, and the module `page` shows the results.
"""

from effjax.studies.audit.groups import Groups, from_columns
from effjax.studies.audit.measures import audit
from effjax.studies.audit.outputs import Outputs, from_arrays
from effjax.studies.audit.reading import read

__all__ = ["Groups", "Outputs", "audit", "from_arrays", "from_columns", "read"]
