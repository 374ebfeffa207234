"""What an adapter is: three functions of pytrees, made from one recipe.

An adapter rewrites some leaves of a tree, its kernels, as functions of a small
theta, which is trained, and of fixed arrays, which are not. Both are flat dicts
whose keys are the path of the kernel and a role: "dense/kernel/lora_a".
Arithmetic is in float32 or wider; a kernel returns to its type once, at the
end, however many adapters are chained.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from effjax import tree as trees
from effjax.adapters.quantized import dense_value, is_quantized

Tree = Any
Flat = dict[str, jax.Array]


class Adapter(NamedTuple):
  """A small set of trained numbers that changes the kernels of any model.

  Attributes:
    init: `(key, params) -> (theta, fixed)`. Theta is what is trained: a flat
      dict by path and role of floating arrays, float32 or wider. Fixed is the
      same of what is not trained (indices, initial factors), {} without any.
    apply: `(params, theta, fixed) -> params`, for training: only theta has
      gradients. Quantised leaves come back as arrays.
    merge: `(params, theta, fixed) -> params`, for use afterwards: the same
      numbers; outside of jit, kernels that are not finite are an error.
  """

  init: Callable[[jax.Array, Tree], tuple[Flat, Flat]]
  apply: Callable[[Tree, Flat, Flat], Tree]
  merge: Callable[[Tree, Flat, Flat], Tree]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """What one kind of adapter does to the kernels of one tree.

  Attributes:
    kernels: The shapes of the kernels by path.
    start: `(key, {path: leaf}) -> (theta, fixed)`; leaves may be quantised.
    rewrite: `({path: kernel}, theta, fixed) -> {path: kernel}`; kernels are
      float32 or wider.
    parts: `(theta, fixed) -> {path: Part}`, see `effjax.adapters.factored`.
  """

  kernels: dict[str, Any]
  start: Callable[[jax.Array, dict[str, Any]], tuple[Flat, Flat]]
  rewrite: Callable[[Flat, Flat, Flat], Flat]
  parts: Callable[[Flat, Flat], dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """What distinguishes one kind of adapter from another.

  Attributes:
    roles: What theta may hold for a kernel.
    fixed_roles: What fixed may hold for a kernel.
    plan: From a tree of arrays or shapes to a plan.
  """

  roles: frozenset[str]
  fixed_roles: frozenset[str]
  plan: Callable[[Tree], Plan]


def key_of(path: str, role: str) -> str:
  """Name what theta or fixed holds for a kernel.

  Args:
    path: Path of the kernel.
    role: What it is for, such as "lora_a".

  Returns:
    The key.

  >>> key_of("dense/kernel", "lora_a")
  'dense/kernel/lora_a'
  """
  return f"{path}/{role}"


def path_and_role(key: str) -> tuple[str, str]:
  """Take a key of theta or fixed apart.

  Args:
    key: The key.

  Returns:
    Path of the kernel, and the role.

  >>> path_and_role("dense/kernel/lora_a")
  ('dense/kernel', 'lora_a')
  """
  path, _, role = key.rpartition("/")
  return path, role


def by_path(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """Group theta or fixed by kernels.

  Args:
    flat: A flat dict by path and role.

  Returns:
    For each path the dict by role.

  >>> by_path({"a/lora_a": 1, "a/lora_b": 2})
  {'a': {'lora_a': 1, 'lora_b': 2}}
  """
  groups: dict[str, dict[str, Any]] = {}
  for key, value in flat.items():
    path, role = path_and_role(key)
    groups.setdefault(path, {})[role] = value
  return groups


def widen(x: jax.Array) -> jax.Array:
  """Return an array as float32, or as float64 where it is that.

  Args:
    x: A floating array.

  Returns:
    The same numbers.

  >>> widen(jnp.ones(1, jnp.bfloat16)).dtype.name
  'float32'
  """
  return jnp.asarray(x).astype(wide_type(x))


def wide_type(leaf: Any) -> Any:
  """Return the type in which an adapter computes with a leaf.

  Args:
    leaf: An array or a shape.

  Returns:
    float32 or wider.
  """
  return leaf.dtype if jnp.finfo(leaf.dtype).bits > 32 else jnp.float32


def shapes_of(params: Tree) -> Tree:
  """Replace quantised leaves by the shapes that they stand for.

  Args:
    params: Any pytree.

  Returns:
    The tree, in which every quantised leaf is a `jax.ShapeDtypeStruct`.
  """
  shape = lambda x: (
    jax.ShapeDtypeStruct(x.shape, x.dtype) if is_quantized(x) else x
  )
  return jax.tree.map(shape, params, is_leaf=is_quantized)


def selected(params: Tree, where: trees.Where = None) -> dict[str, Any]:
  """List the leaves that a selector chooses.

  Args:
    params: Any pytree of arrays or shapes.
    where: A selector, see `tree.select`.

  Returns:
    The leaves by path, in the order of the tree.

  Raises:
    ValueError: If nothing is selected, or what is selected is not floating.
  """
  chosen = jax.tree.leaves(trees.select(params, where))
  names = jax.tree.leaves(trees.names(params))
  found = {}
  for name, leaf, c in zip(names, jax.tree.leaves(params), chosen, strict=True):
    if c and not trees.is_floating(leaf):
      raise ValueError(
        f"{name!r} is of type {leaf.dtype}; adapters change floating leaves"
      )
    if c:
      found[name] = leaf
  return found


def make(recipe: Recipe) -> Adapter:
  """Make an adapter.

  Args:
    recipe: What distinguishes it from others.

  Returns:
    The adapter; `recipe_of` finds the recipe again.
  """

  def init(key: jax.Array, params: Tree) -> tuple[Flat, Flat]:
    plan = recipe.plan(shapes_of(params))
    leaves = dict(_named(params))
    return plan.start(key, {name: leaves[name] for name in plan.kernels})

  def merge(params: Tree, theta: Flat, fixed: Flat) -> Tree:
    merged = _rewritten(recipe, params, theta, fixed, constant=False)
    _check_finite(merged, recipe.plan(shapes_of(params)).kernels)
    return merged

  return Adapter(init, Application(recipe), merge)


@dataclasses.dataclass(frozen=True)
class Application:
  """The function that adapts parameters for training.

  Attributes:
    recipe: What distinguishes the adapter from others.
  """

  recipe: Recipe

  def __call__(self, params: Tree, theta: Flat, fixed: Flat) -> Tree:
    """Adapt parameters.

    Args:
      params: The base, which gets no gradients.
      theta: What is trained.
      fixed: What is not.

    Returns:
      Parameters of the same structure and types.

    Raises:
      ValueError: If theta or fixed do not fit the parameters.
    """
    return _rewritten(self.recipe, params, theta, fixed, constant=True)


def recipe_of(adapter: Adapter) -> Recipe:
  """Find the recipe that an adapter was made from.

  Args:
    adapter: An adapter of this package.

  Returns:
    The recipe.

  Raises:
    ValueError: If it was made otherwise.
  """
  if not isinstance(adapter.apply, Application):
    raise ValueError(
      f"{adapter!r} was not made by this package, whose adapters alone can be"
      " chained, masked, factored and saved; use its apply"
    )
  return adapter.apply.recipe


def _named(params: Tree) -> list[tuple[str, Any]]:
  names = jax.tree.leaves(trees.names(shapes_of(params)))
  leaves = jax.tree.leaves(params, is_leaf=is_quantized)
  return list(zip(names, leaves, strict=True))


def _rewritten(
  recipe: Recipe, params: Tree, theta: Flat, fixed: Flat, *, constant: bool
) -> Tree:
  plan = recipe.plan(shapes_of(params))
  kernels = plan.kernels
  check(theta, kernels, recipe.roles, "theta")
  check(fixed, kernels, recipe.fixed_roles, "fixed")
  treedef = jax.tree.structure(params, is_leaf=is_quantized)
  values = [(name, dense_value(leaf)) for name, leaf in _named(params)]
  if constant:
    hold = lambda w: jax.lax.stop_gradient(w) if trees.is_floating(w) else w
    values = [(name, hold(w)) for name, w in values]
  found = plan.rewrite(
    {name: widen(w) for name, w in values if name in kernels}, theta, fixed
  )
  return treedef.unflatten(
    [found[name].astype(w.dtype) if name in found else w for name, w in values]
  )


def check(
  flat: Mapping[str, Any],
  kernels: Iterable[str],
  roles: Iterable[str],
  what: str,
) -> None:
  """Check that theta or fixed belongs to an adapter and its kernels.

  Args:
    flat: The flat dict.
    kernels: Paths of the kernels.
    roles: What it may hold for them.
    what: What it is called in the error.

  Raises:
    ValueError: Naming the first entry that the adapter does not have.
  """
  known = {key_of(path, role) for path in kernels for role in roles}
  for key in flat:
    if key not in known:
      near = ", ".join(trees.nearest(key, sorted(known), 3)) or "none"
      raise ValueError(
        f"{what} holds {key!r}, which this adapter does not have for these"
        f" parameters; the nearest are {near}"
      )


def taken(
  flat: Mapping[str, Any], path: str, roles: Iterable[str], what: str
) -> list[Any]:
  """Take what theta or fixed holds for a kernel.

  Args:
    flat: The flat dict.
    path: Path of the kernel.
    roles: What to take, in this order.
    what: What the dict is called in the error.

  Returns:
    The arrays.

  Raises:
    ValueError: If one is missing.
  """
  found = []
  for role in roles:
    key = key_of(path, role)
    if key not in flat:
      raise ValueError(
        f"{what} lacks {key!r}; the adapter's init makes it, and a kernel that"
        " shall stay as it is must not be selected"
      )
    found.append(flat[key])
  return found


def _check_finite(params: Tree, kernels: Mapping[str, Any]) -> None:
  for name, leaf in _named(params):
    if name in kernels and not isinstance(leaf, jax.core.Tracer):
      finite = jnp.all(jnp.isfinite(leaf))
      if not isinstance(finite, jax.core.Tracer) and not finite:
        raise ValueError(
          f"{name!r} is not finite after merging: the base or the adapter holds"
          " NaN or infinity, or the sum is too large for"
          f" {leaf.dtype}"
        )
