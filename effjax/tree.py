"""Names, selections and per-leaf keys for pytrees of arrays.

A leaf has a name, its path written with slashes: "block_1/conv/kernel". A
selection is a static choice of leaves by name; it is made before tracing and is
never an array. Functions here accept any pytree: dicts, linen variables, nnx
states, equinox modules. Leaves that are not arrays (the functions inside an
equinox module, say) are never selected and pass through untouched.
"""

import difflib
import re
import textwrap
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any
Where = str | re.Pattern | Sequence | Callable[[str, Any], bool] | Tree | None


def is_array(leaf: Any) -> bool:
  """Say whether a leaf is an array, a tracer or an abstract array.

  Args:
    leaf: Any object.

  Returns:
    True if it has a shape and a dtype.

  >>> is_array(jnp.ones(2)), is_array(3.0), is_array(None)
  (True, False, False)
  """
  return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def is_floating(leaf: Any) -> bool:
  """Say whether a leaf is an array of floating point numbers.

  Args:
    leaf: Any object.

  Returns:
    True for float16, bfloat16, float32, float64 arrays.

  >>> is_floating(jnp.ones(2)), is_floating(jnp.ones(2, int))
  (True, False)
  """
  return is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _name(path: tuple) -> str:
  name = jax.tree_util.keystr(path, simple=True, separator="/")
  # An nnx state ends every path in its variable's field.
  return name.removesuffix("/value")


def names(tree: Tree) -> Tree:
  """Name every leaf by its path.

  Args:
    tree: Any pytree.

  Returns:
    A tree of the same structure whose leaves are strings; a final "value" of
    an nnx state is dropped.

  >>> names({"dense": {"kernel": 1.0, "bias": 2.0}})
  {'dense': {'bias': 'dense/bias', 'kernel': 'dense/kernel'}}
  """
  return jax.tree_util.tree_map_with_path(lambda path, _: _name(path), tree)


def nearest(name: str, known: Sequence[str], count: int = 5) -> list[str]:
  """Find the names that a misspelt one most likely meant.

  Args:
    name: What was asked for; a regular expression works too.
    known: The names that exist.
    count: How many to return at most.

  Returns:
    At most `count` of the known names, the most similar first.

  >>> nearest("dense/kernl", ["dense/kernel", "dense/bias"], 1)
  ['dense/kernel']
  """
  known = list(dict.fromkeys(known))
  ratio = lambda other: difflib.SequenceMatcher(None, name, other).ratio()
  return sorted(known, key=ratio, reverse=True)[:count]


def default_where(name: str, leaf: Any) -> bool:
  """Select floating leaves of rank two or more: kernels and embeddings.

  Args:
    name: Name of the leaf, unused.
    leaf: The leaf.

  Returns:
    True for a floating array of rank 2 or more.

  >>> default_where("dense/bias", jnp.ones(3))
  False
  """
  del name
  return is_floating(leaf) and len(leaf.shape) >= 2


def _patterns(where: Where) -> list | None:
  """Return the patterns of a selector, or None if it is not one of names."""
  if isinstance(where, str | re.Pattern):
    return [where]
  if isinstance(where, list | tuple) and all(
    isinstance(w, str | re.Pattern) for w in where
  ):
    return list(where)
  return None


def _compile(pattern: str | re.Pattern) -> re.Pattern:
  try:
    return re.compile(pattern)
  except re.error as error:
    raise ValueError(
      f"{pattern!r} is not a regular expression: {error}; '.*' stands for any"
      " text"
    ) from None


def _by_patterns(patterns: list, leaves: list[tuple[str, Any]]) -> list[bool]:
  chosen = [False] * len(leaves)
  for pattern in patterns:
    expression = _compile(pattern)
    hits = [
      is_array(leaf) and expression.fullmatch(name) is not None
      for name, leaf in leaves
    ]
    if not any(hits):
      known = [name for name, leaf in leaves if is_array(leaf)]
      raise ValueError(
        f"the selector {expression.pattern!r} matches no leaf (a pattern must"
        f" match the whole name); the nearest names are"
        f" {', '.join(nearest(expression.pattern, known)) or 'none'}"
      )
    chosen = [a or b for a, b in zip(chosen, hits, strict=True)]
  return chosen


def select(tree: Tree, where: Where = None) -> Tree:
  """Select leaves by name.

  Args:
    tree: Any pytree.
    where: A regular expression that must match the whole name, a list of them
      (a leaf is selected if one matches, each must match some leaf), a function
      `(name, leaf) -> bool`, or a tree of bools of the same structure. None
      selects every floating leaf of rank 2 or more, and a bare floating array
      whatever its rank.

  Returns:
    A tree of Python bools of the same structure.

  Raises:
    ValueError: If nothing is selected, a pattern matches no leaf or is none,
      or a tree of bools has another structure.

  >>> params = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
  >>> select(params, ".*kernel")
  {'dense': {'bias': False, 'kernel': True}}
  """
  flat, treedef = jax.tree_util.tree_flatten_with_path(tree)
  leaves = [(_name(path), leaf) for path, leaf in flat]
  if not any(is_array(leaf) for _, leaf in leaves):
    raise ValueError("nothing can be selected: the tree holds no arrays")
  if where is None:
    # A bare array has no name to select by; its rank does not matter.
    bare = len(leaves) == 1 and not flat[0][0]
    where = (lambda _, leaf: is_floating(leaf)) if bare else default_where
  patterns = _patterns(where)
  if patterns is not None:
    chosen = _by_patterns(patterns, leaves)
  elif callable(where) and not is_array(where) and not _is_bool_tree(where):
    chosen = [
      is_array(leaf) and bool(where(name, leaf)) for name, leaf in leaves
    ]
  else:
    chosen = _from_bools(where, tree)
  if not any(chosen) and len(leaves) == 1 and not leaves[0][0]:
    raise ValueError(
      f"the selector does not choose the array, of {flat[0][1].dtype}; by"
      " default it is chosen if it is floating"
    )
  if not any(chosen):
    known = [name for name, leaf in leaves if is_array(leaf)]
    raise ValueError(
      "the selector chooses none of the leaves; the first names are"
      f" {', '.join(known[:5])}"
    )
  return treedef.unflatten(chosen)


def _is_bool_tree(where: Any) -> bool:
  # An equinox module is callable and may still be a tree of bools.
  leaves = jax.tree.leaves(where)
  return bool(leaves) and all(isinstance(leaf, bool) for leaf in leaves)


def _from_bools(where: Tree, tree: Tree) -> list[bool]:
  # A tree of scores has None where the parameters have a leaf without scores,
  # a tree of bools may have None for False: both are positions here.
  is_none = lambda x: x is None
  flat, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_none)
  try:
    entries = treedef.flatten_up_to(where)
  except ValueError as error:
    raise ValueError(
      "the selector does not have the structure of the tree to select from"
      f" ({_reason(error)}); give a pattern, a list of them, a function or a"
      " tree of bools of the same structure"
    ) from None
  chosen = []
  for (path, leaf), entry in zip(flat, entries, strict=True):
    if not isinstance(entry, bool | np.bool_ | None):
      raise ValueError(
        f"the selector has {type(entry).__name__} at {_name(path)!r}; a tree of"
        " bools is wanted there"
      )
    if leaf is not None:
      chosen.append(bool(entry) and is_array(leaf))
    elif entry:
      raise ValueError(f"the selector chooses {_name(path)!r}, which is None")
  return chosen


def assign(tree: Tree, rules: Sequence[tuple[str, Any]]) -> Tree:
  """Give every array leaf the value of the first rule that matches its name.

  Args:
    tree: Any pytree.
    rules: Ordered pairs (regular expression, value); an expression must match
      the whole name.

  Returns:
    A tree of the same structure that holds the values; leaves that are not
    arrays get None.

  Raises:
    ValueError: If a leaf is covered by no rule.

  >>> params = {"conv": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
  >>> assign(params, [(".*kernel", 0.9), (".*", None)])
  {'conv': {'bias': None, 'kernel': 0.9}}
  """
  compiled = [(_compile(pattern), value) for pattern, value in rules]
  flat, treedef = jax.tree_util.tree_flatten_with_path(tree)
  values = []
  for path, leaf in flat:
    name = _name(path)
    hits = (v for expression, v in compiled if expression.fullmatch(name))
    value = next(hits, _UNCOVERED) if is_array(leaf) else None
    if value is _UNCOVERED:
      patterns = [expression.pattern for expression, _ in compiled]
      raise ValueError(
        f"no rule covers the leaf {name!r}; the nearest patterns are"
        f" {', '.join(nearest(name, patterns, 3)) or 'none'}. End the rules"
        " with ('.*', value) to cover the rest"
      )
    values.append(value)
  return treedef.unflatten(values)


_UNCOVERED = object()


def partition(tree: Tree, where: Where = None) -> tuple[Tree, Tree]:
  """Split a tree into the selected leaves and the rest.

  Args:
    tree: Any pytree.
    where: A selector, see `select`.

  Returns:
    Two trees of the same structure, None where a leaf is in the other one.

  >>> partition({"a": jnp.ones((1, 1)), "b": 2})[1]
  {'a': None, 'b': 2}
  """
  chosen = select(tree, where)
  pick = lambda keep: jax.tree.map(
    lambda leaf, c: leaf if c == keep else None, tree, chosen
  )
  return pick(True), pick(False)


def combine(a: Tree, b: Tree) -> Tree:
  """Rejoin two trees that `partition` made.

  Args:
    a: A tree with None for absent leaves.
    b: Its complement.

  Returns:
    The tree that holds the leaf of `a`, or that of `b` where `a` has None.

  >>> combine({"a": 1, "b": None}, {"a": None, "b": 2})
  {'a': 1, 'b': 2}
  """
  return jax.tree.map(
    lambda x, y: y if x is None else x, a, b, is_leaf=lambda x: x is None
  )


def align(tree: Tree, other: Tree, what: str = "tree") -> list[Any]:
  """List the leaves of another tree in the order of this one's.

  Args:
    tree: The tree that sets the order.
    other: A tree of the same structure in which None, or another empty node
      such as optax's MaskedNode, may stand for any leaf.
    what: What the other tree is called in the error.

  Returns:
    One entry for each leaf of `tree`: the leaf of `other`, or None.

  Raises:
    ValueError: If the structures do not match.

  >>> align({"a": 1, "b": 2}, {"a": None, "b": 5})
  [None, 5]
  """
  treedef = jax.tree.structure(tree)
  try:
    entries = treedef.flatten_up_to(other)
  except ValueError as error:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    raise ValueError(
      f"the {what} does not have the structure of the parameters, whose first"
      f" leaf is {_name(flat[0][0]) if flat else 'absent'!r}: {_reason(error)}"
    ) from None
  return [x if jax.tree.leaves(x) else None for x in entries]


def _reason(error: Exception) -> str:
  """Shorten what jax says of two structures, which may show whole arrays."""
  first = str(error).splitlines()[0].rstrip(".")
  return textwrap.shorten(first, 120, placeholder=" ...")


def keys(key: jax.Array, tree: Tree) -> Tree:
  """Derive one random key for each leaf from the leaf's name.

  A leaf keeps its key when others are added, removed or reordered.

  Args:
    key: A typed random key.
    tree: Any pytree.

  Returns:
    A tree of the same structure that holds typed keys.

  >>> a = keys(jax.random.key(0), {"a": 1, "b": 2})
  >>> b = keys(jax.random.key(0), {"b": 2})
  >>> bool(jnp.all(jax.random.key_data(a["b"]) == jax.random.key_data(b["b"])))
  True
  """
  derive = lambda name: jax.random.fold_in(key, zlib.crc32(name.encode()))
  return jax.tree.map(derive, names(tree))
