"""SparseGPT on single layers, against its published algorithm in PyTorch.

The peer forms the inverse of the Gram matrix by three factorisations, finds the
threshold of every block by a sort and updates what lies to the right of it, as
the paper describes (arXiv 2301.00774, algorithm 1).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax.pruning import obs
from launch.benchmarks import harness

SPARSITY = 0.5
DAMPING = 0.01


def cases(quick: bool) -> list[harness.Case]:
  """Return the comparisons.

  Args:
    quick: Use small layers.

  Returns:
    A case for each layer and size of block.
  """
  if quick:
    return [_case(32, 64, 16)]
  return [_case(1024, 1024, 128), _case(256, 2304, 128), _case(256, 2304, 9)]


def _case(rows: int, columns: int, block: int) -> harness.Case:
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2 * columns, columns)) * rng.uniform(0.2, 2.0, columns)
  w = rng.normal(size=(rows, columns)).astype(np.float32)
  gram = (x.T @ x / len(x)).astype(np.float32)
  on_device = jnp.asarray(w), jnp.asarray(gram)

  def ours() -> obs.Solution:
    return jax.block_until_ready(
      obs.sparsegpt(
        *on_device, SPARSITY, mask_block=block, convention="reference"
      )
    )

  torch = harness.torch_or_none()
  peers, note = {}, "torch is not installed"
  if torch:
    device = harness.torch_device(torch)
    on_torch, gram_on_torch = (
      torch.from_numpy(x).to(device) for x in (w, gram)
    )
    operands = on_torch, gram_on_torch
    found = published(torch, *operands, block, SPARSITY).cpu().numpy()
    differing = np.sum(np.asarray(ours().mask) != (found != 0))
    note = f"masks differ in {differing} of {w.size} entries"

    def theirs() -> Any:
      torch.set_num_threads(harness.cores())
      pruned = published(torch, *operands, block, SPARSITY)
      harness.finish(torch)
      return pruned

    peers = {"torch, as published": theirs}
  flops = columns**3 / 3 + 2 * rows * columns**2
  return harness.Case(
    name=f"sparsegpt, {rows}x{columns}, blocks of {block} columns, 50%",
    ours=ours,
    peers=peers,
    note=note,
    limit=f"{flops / 1e9:.3g} GFLOP: one factorisation and the sweep",
    flops=flops,
  )


def published(
  torch: Any, w: Any, gram: Any, block: int, sparsity: float
) -> Any:
  """Prune a layer as the paper describes.

  Args:
    torch: The module.
    w: Weights [O, I].
    gram: Gram matrix of their inputs [I, I].
    block: Columns whose entries are chosen together.
    sparsity: The share to prune.

  Returns:
    The weights.
  """
  w, gram = w.clone(), gram.clone()
  columns = w.shape[1]
  dead = torch.diagonal(gram) == 0
  gram[dead, dead] = 1
  w[:, dead] = 0
  every = torch.arange(columns, device=w.device)
  gram[every, every] += DAMPING * torch.mean(torch.diagonal(gram))
  inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
  upper = torch.linalg.cholesky(inverse, upper=True)
  for start in range(0, columns, block):
    stop = min(start + block, columns)
    part, corner = w[:, start:stop].clone(), upper[start:stop, start:stop]
    scores = torch.square(part / torch.diagonal(corner))
    ordered = torch.sort(scores.flatten())[0]
    pruned = scores <= ordered[int(ordered.numel() * sparsity)]
    errors = torch.zeros_like(part)
    for j in range(stop - start):
      left = torch.where(pruned[:, j], 0.0, part[:, j])
      errors[:, j] = (part[:, j] - left) / corner[j, j]
      part[:, j:] -= errors[:, j : j + 1] @ corner[j : j + 1, j:]
      w[:, start + j] = left
    w[:, stop:] -= errors @ upper[start:stop, stop:]
  return w
