"""Training theta: labels for optimizers, LoRA+, and a table of counts."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from effjax import arguments
from effjax import tree as trees
from effjax.adapters.base import Tree, path_and_role, shapes_of


def labels(theta: Mapping[str, Any]) -> dict[str, str]:
  """Name the role of every array of theta, for `optax.multi_transform`.

  Args:
    theta: What is trained.

  Returns:
    "lora_a", "lora_b", "magnitude", "sparse" or "gains" for each key, without
    the number that `chain` puts before it.

  >>> labels({"dense/kernel/lora_a": jnp.ones((2, 1)), "x/0.sparse": 1})
  {'dense/kernel/lora_a': 'lora_a', 'x/0.sparse': 'sparse'}
  """
  role = lambda key: path_and_role(key)[1].rpartition(".")[2]
  return {key: role(key) for key in theta}


def lora_plus(ratio: float) -> optax.GradientTransformation:
  """Train B with a larger learning rate than A.

  LoRA+ (Hayou et al. 2024, arXiv 2402.12354) finds a ratio of about 16 good.
  The link stands last in a chain, behind the learning rate, so that weight
  decay and momentum are as in a group with a learning rate of its own:
  `optax.chain(optax.adamw(1e-4), lora_plus(16))`.

  Args:
    ratio: Learning rate of B over that of A, at least 1. Magnitudes of DoRA go
      with B.

  Returns:
    The transformation of updates of theta.

  Raises:
    ValueError: If the ratio is less than 1 or not finite.

  >>> theta = {"w/lora_a": jnp.ones(1), "w/lora_b": jnp.ones(1)}
  >>> link = lora_plus(16)
  >>> updates, _ = link.update(theta, link.init(theta))
  >>> {key: x.tolist() for key, x in updates.items()}
  {'w/lora_a': [1.0], 'w/lora_b': [16.0]}
  """
  arguments.finite("ratio", ratio, 1)

  def update_fn(updates: Any, params: Any = None) -> Any:
    del params
    return {
      key: u * jnp.asarray(ratio, u.dtype) if role in _FASTER else u
      for (key, u), role in zip(
        updates.items(), labels(updates).values(), strict=True
      )
    }

  return optax.stateless(update_fn)


_FASTER = ("lora_b", "magnitude")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """One rule of a summary.

  Attributes:
    name: The rule, or the path of a leaf.
    leaves: Leaves that it covers.
    weights: Their weights.
    trained: Numbers of theta that belong to them.
  """

  name: str
  leaves: int
  weights: int
  trained: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
  """Counts of trained numbers; print it for a table.

  Attributes:
    rows: One for every rule, or for every leaf.
  """

  rows: tuple[Row, ...]

  @property
  def trained(self) -> int:
    """Numbers in theta."""
    return sum(row.trained for row in self.rows)

  @property
  def weights(self) -> int:
    """Weights of the base."""
    return sum(row.weights for row in self.rows)

  def __str__(self) -> str:
    table = [("name", "leaves", "weights", "trained", "share")]
    table += [
      (
        row.name,
        f"{row.leaves:,}",
        f"{row.weights:,}",
        f"{row.trained:,}",
        f"{row.trained / row.weights:.2%}" if row.weights else "",
      )
      for row in self.rows
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    line = lambda cells: "  ".join(
      cell.rjust(w) if i else cell.ljust(w)
      for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
    ).rstrip()
    share = self.trained / self.weights if self.weights else math.nan
    total = (
      f"{self.trained:,} numbers are trained, {share:.4%} of the"
      f" {self.weights:,} parameters"
    )
    return "\n".join([*map(line, table), total])


def summary(
  params: Tree,
  theta: Mapping[str, Any],
  *,
  rules: Sequence[str] | None = None,
) -> Summary:
  """Tabulate how many numbers are trained.

  Args:
    params: The base; shapes will do.
    theta: What is trained.
    rules: Regular expressions in order: each leaf is counted in the row of the
      first that matches its whole path. By default a row for each leaf.

  Returns:
    A summary that prints as a table.

  Raises:
    ValueError: If a leaf is covered by no rule, or theta belongs to a leaf that
      there is not.

  >>> params = {"a": {"kernel": jnp.ones((8, 4)), "bias": jnp.ones(4)}}
  >>> theta = {"a/kernel/lora_a": jnp.ones((8, 1))}
  >>> print(summary(params, theta, rules=[".*kernel", ".*"]))
  name      leaves  weights  trained   share
  .*kernel       1       32        8  25.00%
  .*             1        4        0   0.00%
  8 numbers are trained, 22.2222% of the 36 parameters
  """
  shapes = shapes_of(params)
  names = jax.tree.leaves(trees.names(shapes))
  leaves = {
    name: leaf
    for name, leaf in zip(names, jax.tree.leaves(shapes), strict=True)
    if trees.is_array(leaf)
  }
  trained = dict.fromkeys(leaves, 0)
  for key, value in theta.items():
    path, _ = path_and_role(key)
    if path not in trained:
      near = ", ".join(trees.nearest(path, list(trained), 3))
      raise ValueError(
        f"theta holds {key!r}, and there is no leaf {path!r}; the nearest are"
        f" {near}"
      )
    trained[path] += value.size
  groups: dict[str, list[str]] = {name: [] for name in rules or leaves}
  rule = trees.assign(leaves, [(r, r) for r in rules]) if rules else {}
  for name in leaves:
    groups[rule.get(name, name)].append(name)
  return Summary(
    rows=tuple(
      Row(
        name=name,
        leaves=len(members),
        weights=sum(math.prod(leaves[m].shape) for m in members),
        trained=sum(trained[m] for m in members),
      )
      for name, members in groups.items()
    )
  )
