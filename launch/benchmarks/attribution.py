"""Integrated gradients and SmoothGrad of ResNets, against captum.

Captum explains the same network in PyTorch, with the same weights. It takes all
copies of the images as one batch unless it is told to cut it; both are timed,
on one thread and on all.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import attribution
from effjax import models as networks
from launch.benchmarks import harness, models

COPIES = 50
OUTPUTS = models.OUTPUTS


def cases(quick: bool) -> list[harness.Case]:
  """Return the comparisons.

  Args:
    quick: Use a small network and few copies.

  Returns:
    Two cases for each network.
  """
  if quick:
    return _cases("ResNet of 2 blocks", (1, 1), "cifar", 4, 8, 2, 3, 2)
  return [
    *_cases("ResNet-8", (1, 1, 1), "cifar", 16, 32, 16, COPIES, 2),
    *_cases("ResNet-18", (2, 2, 2, 2), "imagenet", 64, 64, 4, COPIES, 5),
  ]


def _cases(
  name: str,
  stages: tuple[int, ...],
  stem: str,
  width: int,
  size: int,
  batch: int,
  copies: int,
  chunk: int,
) -> list[harness.Case]:
  module = networks.ResNet(
    stage_sizes=stages, outputs=OUTPUTS, width=width, stem=stem
  )
  rng = np.random.default_rng(0)
  images = rng.normal(size=(batch, size, size, 3)).astype(np.float32)
  target = rng.integers(0, OUTPUTS, batch)
  variables = jax.jit(module.init)(jax.random.key(0), images[:1])

  def f(variables: Any, x: jax.Array) -> Any:
    return module.apply(variables, x, train=False)

  if harness.on_accelerator():
    chunk = copies  # memory is no matter, and starting programs is
  args = (f, variables, jnp.asarray(images), jnp.asarray(target))
  key = jax.random.key(1)
  ours = {
    "integrated gradients": lambda: attribution.integrated_gradients(
      *args, steps=copies, chunk_size=chunk
    ),
    "SmoothGrad": lambda: attribution.smoothgrad(
      key, *args, copies=copies, chunk_size=chunk
    ),
  }
  theirs, difference = {}, ""
  torch = harness.torch_or_none()
  if torch:
    theirs = _captum(torch, stages, stem, width, variables, images, target)
    maps = theirs["integrated gradients"](copies, copies * batch, 1)()
    maps = maps.cpu().numpy()
    error = np.abs(maps.transpose(0, 2, 3, 1) - ours["integrated gradients"]())
    difference = f"; maps differ by {error.max() / np.abs(maps).max():.1e}"
  return [
    harness.Case(
      name=f"{method}, {copies} copies, {name}, {batch} of {size}x{size}x3",
      ours=lambda run=run: jax.block_until_ready(run()),
      peers={
        f"captum, {part * batch} images at once{_threads(threads)}": theirs[
          method
        ](copies, part * batch, threads)
        for part in (copies, max(1, copies // 5))
        for threads in (harness.torch_threads(torch) if theirs else ())
      },
      note=f"ours: {chunk * batch} images at once"
      + (difference if method == "integrated gradients" else "")
      + ("" if theirs else "; torch or captum is not installed"),
    )
    for method, run in ours.items()
  ]


def _threads(number: int) -> str:
  """Say how many threads work, where they do."""
  return "" if harness.on_accelerator() else f", {number} threads"


def _captum(
  torch: Any,
  stages: tuple[int, ...],
  stem: str,
  width: int,
  variables: Any,
  images: np.ndarray,
  target: np.ndarray,
) -> dict[str, Callable[[int, int, int], Callable[[], Any]]]:
  """Return captum's methods: from copies, images at once, threads to a run."""
  try:
    from captum import attr
  except ModuleNotFoundError:
    return {}
  network = models.torch_resnet(torch, stem, width, stages)
  _copy(torch, variables, network, stages)
  device = harness.torch_device(torch)
  network.eval().to(device)
  x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
  x, classes = x.to(device), torch.from_numpy(target).to(device)

  def integrated(copies, together, threads):
    def run():
      torch.set_num_threads(threads)
      maps = attr.IntegratedGradients(network).attribute(
        x, target=classes, n_steps=copies, internal_batch_size=together
      )
      harness.finish(torch)
      return maps

    return run

  def smooth(copies, together, threads):
    tunnel = attr.NoiseTunnel(attr.Saliency(network))

    def run():
      torch.set_num_threads(threads)
      maps = tunnel.attribute(
        x,
        target=classes,
        nt_type="smoothgrad",
        nt_samples=copies,
        nt_samples_batch_size=together // len(x),
        stdevs=0.15,
        abs=False,
      )
      harness.finish(torch)
      return maps

    return run

  return {"integrated gradients": integrated, "SmoothGrad": smooth}


def _copy(torch: Any, variables: Any, network: Any, stages: tuple) -> None:
  """Give a network in PyTorch the weights of ours, layer by layer."""
  parts = [("stem_conv", "stem_norm")]
  for stage, blocks in enumerate(stages, start=1):
    for block in range(1, blocks + 1):
      name = f"stage{stage}_block{block}"
      names = ("conv1", "norm1"), ("conv2", "norm2")
      projection = ("projection_conv", "projection_norm")
      if projection[0] in variables["params"][name]:
        names = (*names, projection)
      parts += [tuple(f"{name}/{part}" for part in pair) for pair in names]
  layers = [m for m in network.modules() if hasattr(m, "weight")]
  flat = [part for pair in parts for part in pair] + ["head"]

  def find(collection, path):
    for key in path.split("/"):
      collection = collection[key]
    return collection

  for layer, path in zip(layers, flat, strict=True):
    params = find(variables["params"], path)
    with torch.no_grad():
      if "kernel" in params:
        kernel = np.asarray(params["kernel"])
        order = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
        layer.weight.copy_(torch.from_numpy(kernel.transpose(order).copy()))
      else:
        layer.weight.copy_(torch.from_numpy(np.array(params["scale"])))
      if "bias" in params:
        layer.bias.copy_(torch.from_numpy(np.array(params["bias"])))
