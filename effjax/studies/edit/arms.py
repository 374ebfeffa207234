"""The arms of the study as data: method x targets x rank x scale.

Every full and LoRA arm is a row of numbers that one compiled program takes;
see `sweep`. The other methods are adapters of `effjax.adapters`, which have a
program each.
"""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp

from effjax import tree

# Selectors by name, as full matches of a leaf's path. "blocks" are all of them.
TARGETS = {
  "everything": ".*",
  "blocks": r"layer_\d+/.*",
  "attention": r"layer_\d+/attention/.*",
  "mlp": r"layer_\d+/mlp/.*",
}
METHODS = ("full", "truncated", "lora", "dora", "ia3", "sparse", "rosa")
RANK = 64  # of the arrays that all LoRA arms share


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
  """A way to fine-tune.

  Attributes:
    method: one of `METHODS`.
    targets: a key of `TARGETS`, or "layerN" for one block.
    rank: of low-rank methods, at most `RANK`. "truncated" is fine-tuned in
      full, and keeps that many directions of the change of each kernel.
    alpha: of LoRA: "2r", "16" or "sqrt", 16 / sqrt(r) instead of alpha / r.
    clamp: how far a parameter may go, of FT-L.
    density: share of the weights that sparse methods train.
  """

  method: str = "full"
  targets: str = "blocks"
  rank: int = 0
  alpha: str = "2r"
  clamp: float = float("inf")
  density: float = 0.01

  @property
  def scale(self) -> float:
    """What the product of the factors is multiplied by."""
    if not self.rank:
      return 1.0
    known = {"2r": 2.0, "16": 16 / self.rank, "sqrt": 16 / self.rank**0.5}
    return known[self.alpha]

  @property
  def title(self) -> str:
    """What the arm is called."""
    where = {
      "everything": "all parameters",
      "blocks": "all blocks",
      "mlp": "MLP",
    }.get(self.targets, re.sub(r"layer(\d+)", r"block \1", self.targets))
    if self.method == "full":
      return f"FT-L, {where}" if self.clamp < float("inf") else f"full, {where}"
    names = {
      "lora": f"LoRA {self.rank}",
      "dora": f"DoRA {self.rank}",
      "ia3": "IA3",
      "sparse": f"{100 * self.density:g} % of the weights",
      "truncated": f"full, cut to rank {self.rank}",
      "rosa": f"RoSA {self.rank}, {100 * self.density:g} % of the weights",
    }
    return names[self.method] + ("" if where == "all blocks" else f", {where}")


ARMS = {
  "full": Arm(),
  "full_everything": Arm(targets="everything"),
  "full_attention": Arm(targets="attention"),
  "full_mlp": Arm(targets="mlp"),
  **{f"full_layer{i}": Arm(targets=f"layer{i}") for i in range(6)},
  "ft_l": Arm(clamp=5e-3),
  **{
    f"lora{rank}": Arm(method="lora", rank=rank)
    for rank in (1, 2, 4, 8, 16, 32, 64)
  },
  "lora4_attention": Arm(method="lora", rank=4, targets="attention"),
  "lora4_mlp": Arm(method="lora", rank=4, targets="mlp"),
  **{
    f"lora4_layer{i}": Arm(method="lora", rank=4, targets=f"layer{i}")
    for i in range(6)
  },
  "lora4_fixed": Arm(method="lora", rank=4, alpha="16"),
  "lora16_sqrt": Arm(method="lora", rank=16, alpha="sqrt"),
  "dora4": Arm(method="dora", rank=4),
  "ia3": Arm(method="ia3"),
  "sparse": Arm(method="sparse"),
  "rosa4": Arm(method="rosa", rank=4),
  **{
    f"full_cut{rank}": Arm(method="truncated", rank=rank)
    for rank in (1, 2, 4, 8, 16)
  },
}


def find(name: str) -> Arm:
  """Return an arm by its name.

  Args:
    name: A key of `ARMS`.

  Returns:
    The arm.

  Raises:
    ValueError: If there is none of that name.

  >>> find("lora4").scale, find("full_mlp").title
  (2.0, 'full, MLP')
  """
  if name not in ARMS:
    near = ", ".join(tree.nearest(name, list(ARMS), 3))
    raise ValueError(f"there is no arm {name!r}; the nearest are {near}")
  return ARMS[name]


def selector(targets: str) -> str:
  """Return the pattern of paths that a choice of targets stands for.

  Args:
    targets: See `Arm`.

  Returns:
    A regular expression.

  Raises:
    ValueError: If there is no such choice.

  >>> selector("layer1")
  'layer_1/.*'
  """
  if match := re.fullmatch(r"layer(\d+)", targets):
    return f"layer_{match[1]}/.*"
  if targets not in TARGETS:
    raise ValueError(
      f"there are no targets {targets!r}; choose layerN or one of"
      f" {', '.join(TARGETS)}"
    )
  return TARGETS[targets]


def trainable(arm: Arm, leaves: Any) -> Any:
  """Say which leaves an arm trains, as numbers that a program may be given.

  Args:
    arm: The arm.
    leaves: Parameters or their shapes.

  Returns:
    A tree of bool [].

  Raises:
    ValueError: If none is trained.
  """
  chosen = tree.select(leaves, selector(arm.targets))
  return jax.tree.map(lambda c: jnp.asarray(bool(c)), chosen)


def kernels(leaves: Any) -> dict[str, Any]:
  """List the kernels that low-rank arms change, those of all blocks.

  Args:
    leaves: Parameters or their shapes.

  Returns:
    Leaves [I, O] by path.
  """
  names = jax.tree.leaves(tree.names(leaves))
  return {
    name: leaf
    for name, leaf in zip(names, jax.tree.leaves(leaves), strict=True)
    if re.fullmatch(r"layer_\d+/.*/kernel", name)
  }
