"""Exact global masks on a tree of the size of ResNet-50's kernels."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import pruning
from effjax.pruning import search
from effjax.pruning.integers import wide
from launch.benchmarks import harness

SPARSITY = 0.9


def resnet50_shapes() -> list[tuple[int, ...]]:
  """Return the shapes of the 54 kernels of ResNet-50, 25.5 million weights."""
  shapes, inputs = [(7, 7, 3, 64)], 64
  for width, blocks in zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True):
    for block in range(blocks):
      shapes += [
        (1, 1, inputs, width),
        (3, 3, width, width),
        (1, 1, width, 4 * width),
      ]
      if block == 0:
        shapes.append((1, 1, inputs, 4 * width))
      inputs = 4 * width
  return [*shapes, (2048, 1000)]


def _weights(quick: bool) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  shapes = resnet50_shapes()[:: 6 if quick else 1]
  return {
    f"layer_{i:02d}": rng.normal(0, (2 / np.prod(s[:-1])) ** 0.5, s).astype(
      np.float32
    )
    for i, s in enumerate(shapes)
  }


def cases(quick: bool) -> list[harness.Case]:
  """Return the comparison of global masks.

  Args:
    quick: Use a sixth of the kernels.

  Returns:
    One case.
  """
  weights = _weights(quick)
  scores = {k: jnp.abs(w) for k, w in weights.items()}
  size = sum(w.size for w in weights.values())
  keep = size - int(np.floor(SPARSITY * size + 0.5))

  def ours() -> Any:
    masks = pruning.global_topk(scores, SPARSITY)
    return jax.block_until_ready(masks)

  program, seconds = _compiled(scores)
  memory = program.memory_analysis().temp_size_in_bytes
  groups = [list(scores.values())]
  passes = jax.jit(search.find)(groups, wide([keep])).passes
  kept = sum(int(np.count_nonzero(m)) for m in ours().values())
  peers = {
    "jax, jitted full sort": _full_sort(scores, keep),
    "numpy partition": _partition(weights, keep),
    **_torch(weights, keep),
  }
  return [
    harness.Case(
      name=f"global_topk, {size / 1e6:.1f} M weights in {len(weights)} leaves,"
      f" {SPARSITY:.0%}",
      ours=ours,
      peers=peers,
      limit=f"reading the scores {int(passes) + 1} times,"
      f" {4 * size * (int(passes) + 1) / 1e9:.2f} GB",
      note=f"{int(passes)} passes of counting and one that writes the masks;"
      f" kept {kept} of {keep} wanted; temporary memory"
      f" {memory / (4 * size):.3f} of the parameters; {seconds:.1f} CPU s to"
      " compile"
      + ("" if harness.torch_or_none() else "; torch is not installed"),
    )
  ]


def _compiled(scores: Any) -> tuple[Any, float]:
  """Compile the mask as one program; return it and the CPU seconds it took."""
  function = jax.jit(lambda s: pruning.global_topk(s, SPARSITY))
  start = time.process_time()
  program = function.lower(scores).compile()
  return program, time.process_time() - start


def _full_sort(scores: Any, keep: int):
  @jax.jit
  def masks(scores):
    flat = jnp.concatenate([s.reshape(-1) for s in scores.values()])
    threshold = jnp.sort(flat)[flat.size - keep]
    return {k: s >= threshold for k, s in scores.items()}

  return lambda: jax.block_until_ready(masks(scores))


def _partition(weights: dict[str, np.ndarray], keep: int):
  def masks():
    flat = np.concatenate([np.abs(w).reshape(-1) for w in weights.values()])
    threshold = np.partition(flat, flat.size - keep)[flat.size - keep]
    return {k: np.abs(w) >= threshold for k, w in weights.items()}

  return masks


def _torch(weights: dict[str, np.ndarray], keep: int) -> dict[str, Any]:
  torch = harness.torch_or_none()
  if torch is None:
    return {}
  from torch.nn.utils import prune

  tensors = [torch.from_numpy(w) for w in weights.values()]
  size = sum(t.numel() for t in tensors)

  def global_unstructured():
    modules = []
    for tensor in tensors:
      module = torch.nn.Module()
      module.register_parameter("weight", torch.nn.Parameter(tensor))
      modules.append((module, "weight"))
    prune.global_unstructured(
      modules, pruning_method=prune.L1Unstructured, amount=size - keep
    )

  def kthvalue():
    flat = torch.cat([t.abs().reshape(-1) for t in tensors])
    threshold = torch.kthvalue(flat, size - keep + 1).values
    return [t.abs() >= threshold for t in tensors]

  return {
    "torch global_unstructured": global_unstructured,
    "torch kthvalue": kthvalue,
  }
