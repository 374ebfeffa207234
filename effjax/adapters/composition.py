"""Adapters made of adapters: one after the other, or under a mask."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from effjax import tree as trees
from effjax.adapters.base import (
  Adapter,
  Flat,
  Plan,
  Recipe,
  Tree,
  key_of,
  make,
  path_and_role,
  recipe_of,
)
from effjax.adapters.factored import Part, joined


def chain(*adapters: Adapter) -> Adapter:
  """Apply adapters one after the other.

  Each changes what those before it made; kernels are rounded to their type
  once, at the end.

  Args:
    *adapters: The adapters, which may change the same kernels.

  Returns:
    The adapter. The roles in its theta and fixed begin with the number of the
    adapter: "kernel/0.lora_a".

  Raises:
    ValueError: If there are none, or one was not made by this package.

  >>> from effjax.adapters.low_rank import lora
  >>> twice = chain(lora(1), lora(2))
  >>> sorted(twice.init(jax.random.key(0), {"kernel": jnp.eye(4)})[0])[:2]
  ['kernel/0.lora_a', 'kernel/0.lora_b']
  """
  if not adapters:
    raise ValueError("chain needs at least one adapter")
  recipes = [recipe_of(adapter) for adapter in adapters]
  return make(sequence(recipes, [f"{i}." for i in range(len(recipes))]))


def sequence(recipes: Sequence[Recipe], prefixes: Sequence[str]) -> Recipe:
  """Make one recipe of several.

  Args:
    recipes: The recipes, in the order in which they change kernels.
    prefixes: What the roles of each begin with.

  Returns:
    The recipe.
  """
  members = list(zip(recipes, prefixes, strict=True))

  def own(theta: Flat, fixed: Flat) -> list[tuple[Flat, Flat]]:
    return [
      (
        _stripped(theta, prefix, recipe.roles),
        _stripped(fixed, prefix, recipe.fixed_roles),
      )
      for recipe, prefix in members
    ]

  def plan(params: Tree) -> Plan:
    plans = [recipe.plan(params) for recipe in recipes]
    kernels = {path: leaf for p in plans for path, leaf in p.kernels.items()}

    def start(key: jax.Array, leaves: dict[str, Any]) -> tuple[Flat, Flat]:
      theta, fixed = {}, {}
      for i, (p, prefix) in enumerate(zip(plans, prefixes, strict=True)):
        made = p.start(
          jax.random.fold_in(key, i), {path: leaves[path] for path in p.kernels}
        )
        theta |= _prefixed(made[0], prefix)
        fixed |= _prefixed(made[1], prefix)
      return theta, fixed

    def rewrite(kernels: Flat, theta: Flat, fixed: Flat) -> Flat:
      for p, arrays in zip(plans, own(theta, fixed), strict=True):
        its = {path: kernels[path] for path in p.kernels}
        kernels = kernels | p.rewrite(its, *arrays)
      return kernels

    def parts(theta: Flat, fixed: Flat) -> dict[str, Part]:
      found: dict[str, Part] = {}
      for p, arrays in zip(plans, own(theta, fixed), strict=True):
        for path, part in p.parts(*arrays).items():
          both = path in found
          found[path] = joined(found[path], part, path) if both else part
      return found

    return Plan(kernels=kernels, start=start, rewrite=rewrite, parts=parts)

  with_prefix = lambda field: frozenset(
    prefix + role
    for recipe, prefix in members
    for role in getattr(recipe, field)
  )
  return Recipe(
    roles=with_prefix("roles"),
    fixed_roles=with_prefix("fixed_roles"),
    plan=plan,
  )


def _prefixed(flat: Mapping[str, Any], prefix: str) -> Flat:
  named = {}
  for key, value in flat.items():
    path, role = path_and_role(key)
    named[key_of(path, prefix + role)] = value
  return named


def _stripped(flat: Mapping[str, Any], prefix: str, roles: frozenset) -> Flat:
  """Pick what belongs to one recipe of several."""
  named = {}
  for key, value in flat.items():
    path, role = path_and_role(key)
    if role.startswith(prefix) and role.removeprefix(prefix) in roles:
      named[key_of(path, role.removeprefix(prefix))] = value
  return named


def masked(adapter: Adapter, masks: Tree = None) -> Adapter:
  """Keep pruned weights at zero, whatever an adapter adds to them.

  Args:
    adapter: The adapter.
    masks: Masks, True = kept, None for leaves that are not pruned; by default
      what is zero in the base counts as pruned.

  Returns:
    An adapter with the same theta, whose kernels are zero where they are
    pruned; they have no factored form.

  Raises:
    ValueError: From apply and merge, if the masks do not fit the parameters.

  >>> from effjax.adapters.low_rank import lora
  >>> params = {"kernel": jnp.eye(2)}
  >>> adapter = masked(lora(1))
  >>> theta, fixed = adapter.init(jax.random.key(0), params)
  >>> theta["kernel/lora_b"] = jnp.ones((1, 2))
  >>> (adapter.merge(params, theta, fixed)["kernel"] != 0).tolist()
  [[True, False], [False, True]]
  """
  recipe = recipe_of(adapter)

  def plan(params: Tree) -> Plan:
    inner = recipe.plan(params)
    kept = {}
    if masks is not None:
      names = jax.tree.leaves(trees.names(params))
      aligned = trees.align(params, masks, "mask tree")
      kept = dict(zip(names, aligned, strict=True))

    def rewrite(kernels: Flat, theta: Flat, fixed: Flat) -> Flat:
      found = inner.rewrite(kernels, theta, fixed)
      for path, kernel in found.items():
        mask = kernels[path] != 0 if masks is None else kept[path]
        if mask is not None and mask.shape != kernel.shape:
          raise ValueError(
            f"the mask of {path!r} has shape {mask.shape}, the kernel"
            f" {kernel.shape}"
          )
        if mask is not None:
          found[path] = jnp.where(mask, kernel, jnp.zeros((), kernel.dtype))
      return found

    def parts(theta: Flat, fixed: Flat) -> dict[str, Part]:
      raise ValueError(
        "an adapter under a mask has no factored form, its products are not of"
        " low rank; use apply"
      )

    return dataclasses.replace(inner, rewrite=rewrite, parts=parts)

  return make(dataclasses.replace(recipe, plan=plan))
