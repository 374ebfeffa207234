"""Training steps and convolution gradients, against PyTorch and plain XLA.

PyTorch runs the same network (same layers, padding, loss, optimiser) on its
best of one thread or as many as there are cores, in the default and the
channels-last layout.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import models
from effjax.models import layers, mobilenet
from launch.benchmarks import harness

OUTPUTS = 20


def _fastest(candidates, note):
  """Return the candidate with the least wall time, and what all took."""
  best = {}
  for name, run in candidates.items():
    seconds = []
    for _ in range(3):
      start = time.perf_counter()
      run()
      seconds.append(time.perf_counter() - start)
    best[name] = min(seconds)
  name = min(best, key=best.__getitem__)
  times = ", ".join(f"{k} {1e3 * v:.3g} ms" for k, v in best.items())
  return {f"torch, {name}": candidates[name]}, f"{note}of {times}"


def _flops(analysis: Any) -> float:
  return float(analysis["flops"]) if analysis else float("nan")


def _torch_options():
  for threads in sorted({1, harness.cores()}):
    for channels_last in (False, True):
      layout = "channels last" if channels_last else "default layout"
      yield f"{threads} threads, {layout}", threads, channels_last


def _our_step(model, optimizer, images, labels):
  x, y = jnp.asarray(images), jnp.asarray(labels)
  variables = jax.jit(model.init)(jax.random.key(0), x[:1])
  params = variables.pop("params")

  def loss(params, model_state, x, y):
    logits, model_state = model.apply(
      {"params": params, **model_state}, x, train=True, mutable=["batch_stats"]
    )
    error = optax.sigmoid_binary_cross_entropy(logits, y)
    return jnp.mean(error), model_state

  def step(state, x, y):
    params, model_state, opt_state = state
    (value, model_state), gradients = jax.value_and_grad(loss, has_aux=True)(
      params, model_state, x, y
    )
    updates, opt_state = optimizer.update(gradients, opt_state, params)
    params = optax.apply_updates(params, updates)
    return (params, model_state, opt_state), value

  step = jax.jit(step, donate_argnums=0)
  state = [(params, variables, jax.jit(optimizer.init)(params))]

  def run():
    state[0], value = step(state[0], x, y)
    return float(value)

  return run


def _torch_step(network, optimizer, images, labels, threads, channels_last):
  torch = harness.torch_or_none()
  x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
  y = torch.from_numpy(labels)
  if channels_last:
    x = x.to(memory_format=torch.channels_last)
    network = network.to(memory_format=torch.channels_last)
  optimizer = optimizer(network.parameters())
  loss = torch.nn.functional.binary_cross_entropy_with_logits

  def run():
    torch.set_num_threads(threads)
    optimizer.zero_grad()
    value = loss(network(x), y)
    value.backward()
    optimizer.step()
    return value.item()

  return run


def _torch_cnn(torch):
  nn = torch.nn
  return nn.Sequential(
    nn.Conv2d(1, 16, 3, 2, 1),
    nn.ReLU(inplace=True),
    nn.Conv2d(16, 32, 3, 2, 1),
    nn.ReLU(inplace=True),
    nn.Flatten(),
    nn.Linear(7 * 7 * 32, 128),
    nn.ReLU(inplace=True),
    nn.Linear(128, OUTPUTS),
  )


def _torch_unit(torch, inputs, outputs, size, strides, groups=1, relu=True):
  nn = torch.nn
  parts = [
    nn.Conv2d(
      inputs, outputs, size, strides, size // 2, groups=groups, bias=False
    ),
    nn.BatchNorm2d(outputs),
  ]
  return nn.Sequential(*parts, *([nn.ReLU(inplace=True)] if relu else []))


def torch_resnet(torch, stem, width, stages=(2, 2, 2, 2)):
  """Return `models.ResNet` in PyTorch; ResNet-18 by default."""
  nn = torch.nn

  class Block(nn.Module):
    def __init__(self, inputs, outputs, strides):
      super().__init__()
      self.first = _torch_unit(torch, inputs, outputs, 3, strides)
      self.second = _torch_unit(torch, outputs, outputs, 3, 1, relu=False)
      self.projection = None
      if strides != 1 or inputs != outputs:
        self.projection = _torch_unit(
          torch, inputs, outputs, 1, strides, relu=False
        )

    def forward(self, x):
      y = self.second(self.first(x))
      return torch.relu_(y + (self.projection(x) if self.projection else x))

  parts = [_torch_unit(torch, 3, width, 3, 1)]
  if stem == "imagenet":
    parts = [_torch_unit(torch, 3, width, 7, 2), nn.MaxPool2d(3, 2, 1)]
  inputs = width
  for stage, blocks in enumerate(stages):
    for block in range(blocks):
      strides = 2 if stage and not block else 1
      parts.append(Block(inputs, width * 2**stage, strides))
      inputs = width * 2**stage
  head = nn.Linear(inputs, OUTPUTS)
  return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def _torch_mobilenet(torch, blocks):
  nn = torch.nn
  parts, inputs = [_torch_unit(torch, 3, 32, 3, 2)], 32
  for outputs, strides in blocks:
    parts.append(_torch_unit(torch, inputs, inputs, 3, strides, inputs))
    parts.append(_torch_unit(torch, inputs, outputs, 1, 1))
    inputs = outputs
  head = nn.Linear(inputs, OUTPUTS)
  return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def _step_case(name, model, shape, optimizers, network):
  rng = np.random.default_rng(0)
  images = rng.normal(size=shape).astype(np.float32)
  labels = rng.random((shape[0], OUTPUTS)) > 0.5
  labels = labels.astype(np.float32)
  ours, theirs = optimizers
  forward = jax.jit(
    lambda x: model.init_with_output(jax.random.key(0), x, train=True)[0]
  )
  flops = 3 * _flops(forward.lower(images).cost_analysis())
  limit = f"{flops / 1e9:.3g} GFLOP, three times the forward pass"
  torch = harness.torch_or_none()
  peers, note = {}, "torch is not installed"
  if torch:
    candidates = {
      label: _torch_step(network(torch), theirs, images, labels, *options)
      for label, *options in _torch_options()
    }
    peers, note = _fastest(candidates, "torch's best ")
  return harness.Case(
    name=name,
    ours=_our_step(model, ours, images, labels),
    peers=peers,
    note=note,
    limit=limit,
    flops=flops,
  )


def _torch_gradient(x, kernel, dy, strides, padding, groups, threads, last):
  torch = harness.torch_or_none()
  layout = torch.channels_last if last else torch.contiguous_format
  x, dy = (
    torch.from_numpy(np.ascontiguousarray(a.transpose(0, 3, 1, 2))).to(
      memory_format=layout
    )
    for a in (x, dy)
  )
  kernel = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
  kernel = kernel.to(memory_format=layout)
  x.requires_grad_()
  kernel.requires_grad_()

  def run():
    torch.set_num_threads(threads)
    y = torch.nn.functional.conv2d(
      x, kernel, None, strides, padding, groups=groups
    )
    return torch.autograd.grad(y, (x, kernel), dy)

  return run


def _layer_case(batch, size, window, inputs, outputs, strides=1, groups=1):
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  x = draw(batch, size, size, inputs)
  kernel = draw(window, window, inputs // groups, outputs)
  padding = window // 2
  dy = draw(batch, -(-size // strides), -(-size // strides), outputs)

  def gradient(implementation):
    @jax.jit
    def run(x, kernel, dy):
      y, pullback = jax.vjp(
        lambda x, kernel: layers.convolution(
          x,
          kernel,
          strides=strides,
          padding=padding,
          groups=groups,
          implementation=implementation,
        ),
        x,
        kernel,
      )
      return y, pullback(dy)

    operands = jnp.asarray(x), jnp.asarray(kernel), jnp.asarray(dy)
    return lambda: jax.block_until_ready(run(*operands))

  peers, note = {"lax.conv": gradient("xla")}, "torch is not installed"
  if harness.torch_or_none():
    best, note = _fastest(
      {
        label: _torch_gradient(
          x, kernel, dy, strides, padding, groups, *options
        )
        for label, *options in _torch_options()
      },
      "torch's best ",
    )
    peers.update(best)
  flops = 6 * dy.size * kernel[..., 0].size
  kind = "depthwise" if groups > 1 else f"{inputs} to {outputs}"
  return harness.Case(
    name=f"conv {window}x{window}/{strides} {kind}, [{batch}, {size}, {size},"
    f" {inputs}], forward and both gradients",
    ours=gradient("auto"),
    peers=peers,
    note=note,
    limit=f"{flops / 1e9:.3g} GFLOP",
    flops=flops,
  )


def cases(quick: bool) -> list[harness.Case]:
  """Return the comparisons, on small sizes if quick."""
  torch = harness.torch_or_none()
  adamw = (
    optax.adamw(2e-3, weight_decay=1e-2),
    lambda params: torch.optim.AdamW(params, 2e-3, weight_decay=1e-2),
  )
  sgd = (
    optax.sgd(0.1, momentum=0.9),
    lambda params: torch.optim.SGD(params, 0.1, momentum=0.9),
  )
  batch, size, width = (4, 32, 8) if quick else (32, 64, 64)
  found = [
    _step_case(
      "training step, small CNN, batch 128 of 28x28x1, AdamW",
      models.build("cnn", outputs=OUTPUTS),
      (128, 28, 28, 1),
      adamw,
      _torch_cnn,
    )
  ]
  for stem in ("imagenet", "cifar"):
    found.append(
      _step_case(
        f"training step, ResNet-18 ({stem} stem, width {width}), batch {batch}"
        f" of {size}x{size}x3, SGD",
        models.build("resnet18", outputs=OUTPUTS, stem=stem, width=width),
        (batch, size, size, 3),
        sgd,
        lambda torch, stem=stem: torch_resnet(torch, stem, width),
      )
    )
  if quick:
    return [*found, _layer_case(4, 8, 3, 8, 8)]
  found.append(
    _step_case(
      f"training step, MobileNetV1, batch {batch} of {size}x{size}x3, SGD",
      models.build("mobilenet_v1", outputs=OUTPUTS),
      (batch, size, size, 3),
      sgd,
      lambda torch: _torch_mobilenet(torch, mobilenet.BLOCKS),
    )
  )
  return [
    *found,
    _layer_case(32, 64, 7, 3, 64, strides=2),
    _layer_case(32, 16, 3, 64, 64),
    _layer_case(32, 16, 3, 64, 128, strides=2),
    _layer_case(32, 2, 3, 512, 512),
    _layer_case(32, 16, 3, 128, 128, groups=128),
  ]
