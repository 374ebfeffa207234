"""A model small enough to be trained, killed and resumed in a second."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import pruning, training

STEPS = 60


class Batches:
  """Regression data; a batch is a pure function of its position."""

  def __init__(self, seed=0, size=16):
    self.seed, self.size = seed, size
    self.seen = []

  def __getitem__(self, position):
    self.seen.append(position)
    rng = np.random.default_rng((self.seed, position))
    x = rng.normal(size=(self.size, 8)).astype(np.float32)
    return {"x": x, "y": np.sin(x).sum(1)}


class Stacked:
  """The batches of several members along a leading axis."""

  def __init__(self, members):
    self.members = members

  def __getitem__(self, position):
    batches = [member[position] for member in self.members]
    return {k: np.stack([b[k] for b in batches]) for k in batches[0]}


def loss(params, model_state, batch, key, train):
  """Squared error of a two-layer network with dropout and a running mean."""
  bias = params["a"]["bias"].reshape(1, -1)
  hidden = jnp.tanh(batch["x"] @ params["a"]["kernel"] + bias)
  mean = 0.9 * model_state["mean"] + 0.1 * hidden.mean(0)
  if train:
    kept = jax.random.bernoulli(key, 0.9, hidden.shape)
    hidden = jnp.where(kept, hidden, 0.0)
  error = (hidden @ params["b"]["kernel"])[:, 0] - batch["y"]
  measures = {"absolute": jnp.mean(jnp.abs(error))}
  return jnp.mean(error**2), ({"mean": mean}, measures)


def params(seed=0):
  rng = np.random.default_rng(seed)  # which needs no compiling
  normal = lambda *shape: (0.3 * rng.normal(size=shape)).astype(np.float32)
  return {
    "a": {"kernel": normal(8, 16), "bias": np.zeros((16,), np.float32)},
    "b": {"kernel": normal(16, 1)},
  }


# One object for each optimizer and step, so that a step is compiled only once.


@functools.cache
def adam(rate=0.01):
  return optax.adam(rate)


@functools.cache
def step(optimizer):
  return training.make_step(loss, optimizer)


@functools.cache
def pruned(steps=STEPS):
  """An optimizer whose state holds masks that change during the run."""
  every = max(steps // 12, 1)
  schedule = pruning.cubic(0.0, 0.8, steps // 6, steps // 2, every)
  return optax.chain(optax.adam(0.01), pruning.prune(schedule))


class Masked(NamedTuple):
  count: jax.Array
  mask: Any


@functools.cache
def masked():
  """As `pruned`, but quick to compile: small weights go every tenth step."""

  def init(params):
    ones = lambda x: jnp.ones(x.shape, bool) if x.ndim == 2 else None
    return Masked(jnp.zeros((), jnp.int32), jax.tree.map(ones, params))

  def update(updates, state, params=None):
    large = lambda p: jnp.abs(p) > 0.5 * jnp.mean(jnp.abs(p))
    fires = state.count % 10 == 9
    mask = jax.tree.map(
      lambda p, m: None if m is None else m & (large(p) | ~fires),
      params,
      state.mask,
    )
    updates = jax.tree.map(
      lambda p, u, m: u if m is None else jnp.where(m, u, -p),
      params,
      updates,
      mask,
    )
    return updates, Masked(state.count + 1, mask)

  return optax.chain(adam(), optax.GradientTransformation(init, update))


@functools.cache
def start(optimizer, seed=0):
  model_state = {"mean": np.zeros((16,), np.float32)}
  key = jax.random.key(seed + 100)
  weights = jax.tree.map(jnp.asarray, params(seed))
  return training.create(key, weights, optimizer, model_state)


def plain(tree):
  """NumPy leaves, keys included."""
  to_data = lambda x: (
    jax.random.key_data(x)
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    else x
  )
  return jax.tree.map(lambda x: np.asarray(to_data(x)), tree)


def assert_same(a, b):
  """Equal bit for bit, structure and dtypes included."""
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, plain(a), plain(b))
  dtypes = lambda tree: [x.dtype for x in jax.tree.leaves(tree)]
  assert dtypes(a) == dtypes(b)


def lines(workdir):
  """The metrics of a run without the times."""
  found = training.read_metrics(workdir)
  return [{k: v for k, v in line.items() if k != "time"} for line in found]
