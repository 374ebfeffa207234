"""Functional JAX transforms for efficient networks that can be trusted.

Importing the package loads jax and optax only. Models, data, training and
studies are imported by name: `from effjax import models`.
"""

from effjax import metrics, pruning, tree

__version__ = "0.1.0"

__all__ = ["metrics", "pruning", "tree"]
