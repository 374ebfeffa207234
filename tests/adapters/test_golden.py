"""Values of the public implementations; see tests/golden/personalization."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import adapters
from tests.adapters import draws

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "personalization"
ROSA = np.load(FOLDER / "rosa.npz", allow_pickle=False)
PEFT = np.load(FOLDER / "peft_adapters.npz", allow_pickle=False)
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["mask0", "mask1"])
def test_masks(case):
  grads, density = ROSA[f"{case}.grads"], ROSA[f"{case}.density"]
  loss = lambda w, gradient: jnp.sum(w * gradient[0])
  mode = str(ROSA[f"{case}.mode"])
  collect = jax.jit(lambda g: adapters.collect(loss, g[0], g, mode=mode).mean)
  mean = collect(grads)
  for convention in ("exact", "reference"):
    mask = adapters.sparse_masks(mean, density, convention=convention)
    np.testing.assert_array_equal(mask, ROSA[f"{case}.mask"])
    assert int(np.sum(mask)) == ROSA[f"{case}.nnz"]


@pytest.mark.parametrize(
  ("key", "agenda"),
  [
    ("wl16", adapters.agenda("wl16", density=0.01)),
    (
      "default_loaded",
      adapters.agenda("default", density=0.01, masks_loaded=True),
    ),
    (
      "spa_only",
      adapters.agenda("spa_only", density=0.01, gradient_batches=2),
    ),
  ],
)
def test_agendas(key, agenda):
  expected = ROSA[f"sched.{key}"]
  assert [agenda.text(t) for t in range(len(expected))] == list(expected)


# The MLP of peft as [I, O] kernels.
BASE = {fc: {"kernel": PEFT[f"base.{fc}.w"].T} for fc in ("fc1", "fc2")}


def mlp(params, parts):
  path = lambda name: parts.get(f"{name}/kernel")
  x = adapters.dense(PEFT["x"], params["fc1"]["kernel"], path("fc1"))
  x = jax.nn.silu(x + PEFT["base.fc1.b"][None])
  return adapters.dense(x, params["fc2"]["kernel"], path("fc2"))


def theta_of(case, prefix=""):
  roles = {"lora_A": "lora_a", "lora_B": "lora_b"}
  if case == "dora":
    roles["lora_magnitude_vector"] = "magnitude"
  return {
    f"{fc}/kernel/{ours}": PEFT[f"{case}.{prefix}{fc}.{role}"].T
    for fc in BASE
    for role, ours in roles.items()
  }


@pytest.mark.parametrize("case", ["lora", "dora"])
def test_peft(case):
  adapter = getattr(adapters, case)(4, alpha=6)
  optimizer = optax.adamw(1e-2, weight_decay=0.0)
  general = lambda theta: mlp(adapter.apply(BASE, theta, {}), {})
  factored = lambda theta: mlp(BASE, adapters.parts(adapter, BASE, theta, {}))

  def step_of(forward):
    def loss(theta):
      out = forward(theta)
      return jnp.mean((out - PEFT["y"]) ** 2), out

    return jax.value_and_grad(loss, has_aux=True)

  @jax.jit
  def work(theta):
    begin, fixed = adapter.init(jax.random.key(0), BASE)
    assert not fixed
    assert jax.tree.map(jnp.shape, begin) == jax.tree.map(jnp.shape, theta)
    found = [step_of(form)(theta) for form in (general, factored)]
    state, losses = optimizer.init(theta), []
    for _ in range(3):
      (loss, _), grads = step_of(factored)(theta)
      losses.append(loss)
      with jax.numpy_dtype_promotion("standard"):
        updates, state = optimizer.update(grads, state, theta)
      theta = optax.apply_updates(theta, updates)
    merged = adapter.merge(BASE, theta, {})
    outs = general(begin), factored(theta), mlp(merged, {})
    return found, losses, merged, outs

  found, losses, merged, outs = work(theta_of(case))
  for (loss, out), grads in found:
    close(out, PEFT[f"{case}.out"])
    close(loss, PEFT[f"{case}.loss"])
    for key, expected in theta_of(case, "grad.").items():
      close(grads[key], expected)
  close(losses, PEFT[f"{case}.adamw3_losses"])
  for fc in BASE:
    close(merged[fc]["kernel"], PEFT[f"{case}.merged.{fc}"].T)
  for out, key in zip(
    outs, ("out_init", "adamw3_out", "merged_out"), strict=True
  ):
    close(out, PEFT[f"{case}.{key}"])


@pytest.mark.parametrize("case", ["layer_spmm", "layer_sp_add"])
def test_rosa_layer(case):
  given = lambda key: ROSA[f"{case}.{key}"]
  x, y, bias = given("x"), given("y"), given("b")[None, None]
  params = {"kernel": given("W").T}
  adapter = adapters.rosa(4, {"kernel": given("mask").T}, alpha=6)
  _, fixed = draws.start(adapter, params)
  places = np.asarray(fixed["kernel/indices"])
  theta = {
    "kernel/lora_a": given("A").T,
    "kernel/lora_b": given("B").T,
    # Values in the order of rows, which are the columns here.
    "kernel/sparse": given("S_dense").T.reshape(-1)[places],
  }

  def general(theta):
    return x @ adapter.apply(params, theta, fixed)["kernel"]

  def factored(theta, gradient):
    part = adapters.parts(adapter, params, theta, fixed)["kernel"]
    return adapters.dense(x, params["kernel"], part, gradient=gradient)

  forms = [
    general,
    functools.partial(factored, gradient="dense"),
    functools.partial(factored, gradient="gathered"),
  ]

  @jax.jit
  def work(theta):
    def step(form):
      def loss(theta):
        out = form(theta) + bias
        return jnp.mean((out - y) ** 2), out

      return jax.value_and_grad(loss, has_aux=True)(theta)

    return [step(form) for form in forms], adapter.merge(params, theta, fixed)

  found, merged = work(theta)
  rows, columns = np.nonzero(given("mask"))
  np.testing.assert_array_equal(columns, given("col_idx"))
  for (loss, out), grads in found:
    close(out, given("out"))
    close(loss, given("loss"))
    close(grads["kernel/lora_a"].T, given("grad_A"))
    close(grads["kernel/lora_b"].T, given("grad_B"))
    slopes = np.zeros(params["kernel"].shape, np.float32)
    slopes.reshape(-1)[places] = grads["kernel/sparse"]
    close(slopes.T[rows, columns], given("grad_S_values"))
  merged = np.asarray(merged["kernel"])
  close((merged - params["kernel"]).T, given("delta"))
  close(merged.T, given("merged_W"))
  close(x @ merged + bias, given("merged_out"))


def test_squared_gradients_of_a_rosa_layer():
  given = lambda key: ROSA[f"layer_spmm.{key}"]
  adapter = adapters.lora(4, alpha=6)
  theta = {"kernel/lora_a": given("A").T, "kernel/lora_b": given("B").T}
  batch = {"x": given("x"), "y": given("y")}

  @jax.jit
  def work(theta):
    params = adapter.merge({"kernel": given("W").T}, theta, {})
    output = lambda p, x: x @ p["kernel"] + given("b")[None, None]
    loss = lambda p, batch: jnp.mean((output(p, batch["x"]) - batch["y"]) ** 2)
    mean = adapters.collect(loss, params, batch, micro_batch=3).mean
    return output(params, batch["x"]), mean["kernel"].T

  out, mean = work(theta)
  close(out, given("out_lora_only"))
  close(mean, given("collected_sq_grad"))
  mask = adapters.sparse_masks(mean, 0.05)
  np.testing.assert_array_equal(mask, given("mask"))
