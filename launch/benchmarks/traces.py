"""SPADE traces of whole networks, against the published algorithm in PyTorch.

The peer gathers the Gram matrix of every layer from unfolded patches in one
forward pass and prunes each layer as `benchmarks.solvers` describes, with masks
chosen for one input channel at a time, as the published code does. Both sides
get the same copies; making them costs little and is left out of both.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import attribution, spade
from effjax import models as networks
from effjax.spade import planning
from launch.benchmarks import harness, models, solvers

SPARSITY = 0.95


def cases(quick: bool) -> list[harness.Case]:
  """Return the comparisons.

  Args:
    quick: Use a small network and few copies.

  Returns:
    A case for a network with a peer, and one for pictures.
  """
  if quick:
    case = _case("ResNet of 2 blocks", (1, 1), 8, 16, 2)
    return [case, _pictures(1, 32, 2)]
  many = 32 if harness.on_accelerator() else 1
  return [
    _case("ResNet-18", (2, 2, 2, 2), 64, 64, 32),
    _pictures(many, 224, 8),
  ]


def _pictures(count: int, side: int, copies: int) -> harness.Case:
  """Go from pictures to the saliency of the networks pruned for them."""
  module = networks.EfficientNetLite()
  x = jax.random.uniform(jax.random.key(0), (count, side, side, 3))
  variables = jax.jit(module.init)(jax.random.key(1), x[:1])
  capture = networks.capture(module, variables, train=False)
  rules = [("stem_conv/kernel|.*depthwise_conv/kernel", None), (".*", SPARSITY)]
  f = lambda params, x: capture(params, x)[0]

  @jax.jit
  def explain(params: Any, x: jax.Array) -> jax.Array:
    def one(given: Any) -> jax.Array:
      params, x = given
      target = jnp.argmax(f(params, x[None]), axis=1)
      return attribution.saliency(f, params, x[None], target)[0]

    return jax.lax.map(one, (params, x))

  def ours() -> Any:
    pruned = spade.trace(
      jax.random.key(2),
      capture,
      variables["params"],
      x,
      rules,
      copies=copies,
      preprocess=_normalise,
    )
    return jax.block_until_ready(explain(pruned, _normalise(x)))

  return harness.Case(
    name=f"from {count} picture{'s' * (count > 1)} to saliency by SPADE,"
    f" EfficientNet-Lite0, {side}x{side}x3, {copies} copies of each",
    ours=ours,
    note="random weights; crops, trace, saliency; no peer",
  )


def _normalise(x: jax.Array) -> jax.Array:
  return (255.0 * x - 127.0) / 128.0


def _case(
  name: str, stages: tuple[int, ...], width: int, size: int, copies: int
) -> harness.Case:
  module = networks.ResNet(
    stage_sizes=stages, outputs=models.OUTPUTS, width=width
  )
  rng = np.random.default_rng(0)
  images = rng.normal(size=(copies, size, size, 3)).astype(np.float32)
  variables = jax.jit(module.init)(jax.random.key(0), images[:1])
  on_device = jnp.asarray(images)
  capture = networks.capture(module, variables, train=False)
  rules = [("stem_conv/.*", None), (".*", SPARSITY)]

  def given(copies: jax.Array) -> jax.Array:
    # What is drawn does not matter: the peer has to get the same images.
    return on_device[: copies.shape[0]]

  def ours() -> Any:
    pruned = spade.trace(
      jax.random.key(1),
      capture,
      variables["params"],
      on_device[:1],
      rules,
      copies=copies,
      augment=None,
      preprocess=given,
      convention="reference",
    )
    return jax.block_until_ready(pruned)

  torch = harness.torch_or_none()
  peers, note = {}, "torch is not installed"
  if torch:
    torch.manual_seed(0)
    device = harness.torch_device(torch)
    network = models.torch_resnet(torch, "imagenet", width, stages).eval()
    network = network.to(device)
    batch = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device)
    peers = {
      f"torch, as published{_threads(threads)}": (
        functools.partial(_published, torch, network, batch, threads)
      )
      for threads in harness.torch_threads(torch)
    }
    note = "other random weights in PyTorch"
  flops = _flops(capture, variables["params"], on_device, rules)
  return harness.Case(
    name=f"trace, {name}, {size}x{size}x3, {copies} copies, all layers but the"
    f" first at {100 * SPARSITY:g}%",
    ours=ours,
    peers=peers,
    note=note,
    limit=f"{flops / 1e9:.3g} GFLOP with Gram or dual form, whichever is less",
    flops=flops,
  )


def _threads(number: int) -> str:
  """Say how many threads work, where they do."""
  many = "s" * (number > 1)
  return "" if harness.on_accelerator() else f", {number} thread{many}"


def _flops(capture: Any, params: Any, images: jax.Array, rules: Any) -> float:
  """Count what a trace needs: forward pass, Gram matrices, factors, sweeps."""
  made = planning.make_plan(
    capture,
    params,
    images[:1],
    rules,
    None,
    copies=len(images),
    chunk_size=None,
    memory=1 << 40,
  )
  kernels = planning.list_kernels(params)
  total = 0.0
  for task in made.tasks:
    outputs, columns = kernels[task.path].shape[-1], task.columns
    met = made.copies * task.rows
    primal = columns**2 * met + columns**3 / 3 + outputs * columns**2
    dual = 2 * columns * met**2 + 4 * outputs * columns * met
    total += 2 * outputs * columns * met + min(primal, dual)
  return total


def _published(torch: Any, network: Any, batch: Any, threads: int) -> None:
  """Trace a network as the published code does."""
  torch.set_num_threads(threads)
  kinds = (torch.nn.Conv2d, torch.nn.Linear)
  found = [layer for layer in network.modules() if isinstance(layer, kinds)]
  grams: dict[int, Any] = {}

  def gather(layer: Any, arguments: tuple, output: Any) -> None:
    del output
    (x,) = arguments
    if isinstance(layer, torch.nn.Conv2d):
      x = torch.nn.functional.unfold(
        x,
        layer.kernel_size,
        dilation=layer.dilation,
        padding=layer.padding,
        stride=layer.stride,
      )
      x = x.permute(1, 0, 2).flatten(1)
    else:
      x = x.T
    x = (2 / len(batch)) ** 0.5 * x
    grams[id(layer)] = x @ x.T

  # The first layer is not pruned.
  hooks = [layer.register_forward_hook(gather) for layer in found[1:]]
  with torch.no_grad():
    network(batch)
    for hook in hooks:
      hook.remove()
    for layer in found[1:]:
      weight = layer.weight
      taps = weight[0, 0].numel() if weight.ndim == 4 else 1
      solvers.published(
        torch, weight.flatten(1), grams.pop(id(layer)), taps, SPARSITY
      )
