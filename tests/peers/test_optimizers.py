"""The optimizers of the bias study against those of torch, over epochs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import pruning, training
from effjax.studies.bias import optimizers

pytestmark = pytest.mark.peers
PER_EPOCH, EPOCHS, RATE = 4, 5, 0.05
SHAPES = {"kernel": (6, 5), "bias": (5,)}


@pytest.fixture(scope="module")
def problem():
  rng = np.random.default_rng(0)
  draw = lambda *lead: {
    name: rng.normal(size=(*lead, *shape)) for name, shape in SHAPES.items()
  }
  return draw(), draw(PER_EPOCH * EPOCHS)


def ours(options, params, grads, last=None):
  """The parameters after every update, [S, ...]."""
  links = optimizers.links(options, EPOCHS, PER_EPOCH)
  optimizer = optax.chain(
    *links, optax.scale(-RATE), *([] if last is None else [last])
  )

  @jax.jit
  def run(params, grads):
    def step(carry, grad):
      params, state = carry
      updates, state = optimizer.update(grad, state, params)
      params = optax.apply_updates(params, updates)
      return (params, state), params

    return jax.lax.scan(step, (params, optimizer.init(params)), grads)[1]

  # Float64, so that only the rates are rounded to float32.
  with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
    return jax.device_get(run(params, grads))


def theirs(torch, make, params, grads, *, reset=False, masks=None):
  """The same in torch; weight decay on the kernel alone."""
  tensors = {
    name: torch.nn.Parameter(torch.from_numpy(p.copy()))
    for name, p in params.items()
  }
  optimizer, decay = make(tensors["kernel"], tensors["bias"])
  seen = {name: [] for name in tensors}
  for i in range(PER_EPOCH * EPOCHS):
    for name, tensor in tensors.items():
      tensor.grad = torch.from_numpy(grads[name][i].copy())
    optimizer.step()
    if masks is not None:
      with torch.no_grad():
        tensors["kernel"] *= torch.from_numpy(masks[i])
    if (i + 1) % PER_EPOCH == 0:
      if decay is not None:
        decay.step()
      if reset:
        for state in optimizer.state.values():
          state["momentum_buffer"].zero_()
    for name, tensor in tensors.items():
      seen[name].append(tensor.detach().numpy().copy())
  return {name: np.stack(values) for name, values in seen.items()}


def close(found, expected):
  for name in SHAPES:
    np.testing.assert_allclose(
      found[name], expected[name], rtol=1e-6, atol=1e-7, err_msg=name
    )


def groups(kernel, bias, decay):
  return [
    {"params": [kernel], "weight_decay": decay},
    {"params": [bias], "weight_decay": 0.0},
  ]


def sgd(torch, momentum, decay):
  """SGD whose rate warms up for two epochs, then falls along a cosine."""
  schedules = torch.optim.lr_scheduler

  def make(kernel, bias):
    optimizer = torch.optim.SGD(
      groups(kernel, bias, decay), lr=RATE, momentum=momentum
    )
    warm = schedules.LinearLR(optimizer, 1 / 2, 1.0, total_iters=1)
    fall = schedules.CosineAnnealingLR(optimizer, T_max=EPOCHS - 2)
    rate = schedules.SequentialLR(optimizer, [warm, fall], milestones=[2])
    return optimizer, rate

  return make


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize("reset", [False, True])
def test_sgd_with_momentum_decay_and_schedule(torch, problem, reset):
  params, grads = problem
  options = optimizers.Options(
    optimizer="sgd",
    momentum=0.875,
    weight_decay=0.1,
    warmup_epochs=2,
    reset_momentum=reset,
  )
  expected = theirs(torch, sgd(torch, 0.875, 0.1), params, grads, reset=reset)
  close(ours(options, params, grads), expected)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_at_a_constant_rate(torch, problem, name):
  params, grads = problem
  options = optimizers.Options(
    optimizer=name, weight_decay=0.1, schedule="constant"
  )
  kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
  make = lambda kernel, bias: (kind(groups(kernel, bias, 0.1), lr=RATE), None)
  close(ours(options, params, grads), theirs(torch, make, params, grads))


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
def test_masked_after_every_step(torch, problem):
  """What torch code does by hand is what `prune` does, to the bit at zero."""
  params, grads = problem
  options = optimizers.Options(
    optimizer="sgd", momentum=0.9, weight_decay=0.1, warmup_epochs=2
  )
  schedule = pruning.cubic(0.2, 0.8, 3, 15, 4)
  found = ours(options, params, grads, pruning.prune(schedule))
  masks = np.asarray(found["kernel"]) != 0
  kept = masks.sum((1, 2))
  assert kept[0] == 30
  assert kept[-1] == 6
  expected = theirs(torch, sgd(torch, 0.9, 0.1), params, grads, masks=masks)
  close(found, expected)
  assert not expected["kernel"][~masks].any()


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
def test_warm_up_and_cosine(torch):
  parameter = torch.nn.Parameter(torch.zeros(1))
  schedules = torch.optim.lr_scheduler
  optimizer = torch.optim.SGD([parameter], lr=0.256)
  warm = schedules.LinearLR(optimizer, 1 / 5, 1.0, total_iters=4)
  fall = schedules.CosineAnnealingLR(optimizer, T_max=95)
  rate = schedules.SequentialLR(optimizer, [warm, fall], milestones=[5])
  expected = []
  for _ in range(100):
    expected.append(optimizer.param_groups[0]["lr"])
    optimizer.step()
    rate.step()
  found = training.warmup_cosine(0.256, 5, 100, 7)
  found = jax.vmap(found)(jnp.arange(0, 700, 7))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
