"""Values of the public implementations; see tests/golden/personalization."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import adapters

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "personalization"
ROSA = np.load(FOLDER / "rosa.npz", allow_pickle=False)
PEFT = np.load(FOLDER / "peft_adapters.npz", allow_pickle=False)
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("convention", ["exact", "reference"])
@pytest.mark.parametrize("case", ["mask0", "mask1"])
def test_masks(case, convention):
  grads = jnp.asarray(ROSA[f"{case}.grads"])
  loss = lambda w, gradient: jnp.sum(w * gradient[0])
  mode = str(ROSA[f"{case}.mode"])
  params = jnp.ones(grads.shape[1:])
  mean = adapters.collect(loss, params, grads, mode=mode).mean
  density = ROSA[f"{case}.density"]
  mask = adapters.sparse_masks(mean, density, convention=convention)
  np.testing.assert_array_equal(mask, ROSA[f"{case}.mask"])
  assert int(mask.sum()) == ROSA[f"{case}.nnz"]


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


def kernels():
  """The MLP of peft as [I, O] kernels."""
  kernel = lambda name: jnp.asarray(PEFT[f"base.{name}.w"].T)
  return {"fc1": {"kernel": kernel("fc1")}, "fc2": {"kernel": kernel("fc2")}}


def mlp(params, x, parts):
  path = lambda name: parts.get(f"{name}/kernel")
  x = adapters.dense(x, params["fc1"]["kernel"], path("fc1"))
  x = jax.nn.silu(x + jnp.asarray(PEFT["base.fc1.b"])[None])
  return adapters.dense(x, params["fc2"]["kernel"], path("fc2"))


def theta_of(case, prefix=""):
  roles = {"lora_A": "lora_a", "lora_B": "lora_b"}
  if case == "dora":
    roles["lora_magnitude_vector"] = "magnitude"
  return {
    f"{fc}/kernel/{ours}": jnp.asarray(PEFT[f"{case}.{prefix}{fc}.{role}"].T)
    for fc in ("fc1", "fc2")
    for role, ours in roles.items()
  }


@functools.cache
def peft_case(case, form):
  """Adapter, and the loss with gradients and outputs, in either form."""
  adapter = getattr(adapters, case)(4, alpha=6)
  base = kernels()

  def forward(theta):
    if form == "factored":
      parts = adapters.parts(adapter, base, theta, {})
      return mlp(base, jnp.asarray(PEFT["x"]), parts)
    return mlp(adapter.apply(base, theta, {}), jnp.asarray(PEFT["x"]), {})

  def loss(theta):
    out = forward(theta)
    return jnp.mean((out - jnp.asarray(PEFT["y"])) ** 2), out

  return adapter, jax.jit(jax.value_and_grad(loss, has_aux=True))


forms = pytest.mark.parametrize("form", ["general", "factored"])
cases = pytest.mark.parametrize("case", ["lora", "dora"])


@cases
def test_peft_begins_as_the_base(case):
  adapter = getattr(adapters, case)(4, alpha=6)
  theta, fixed = adapter.init(jax.random.key(0), kernels())
  out = mlp(adapter.merge(kernels(), theta, fixed), jnp.asarray(PEFT["x"]), {})
  close(out, PEFT[f"{case}.out_init"])
  assert not fixed
  assert {k: x.shape for k, x in theta.items()} == {
    k: x.shape for k, x in theta_of(case).items()
  }


@forms
@cases
def test_peft(case, form):
  adapter, step = peft_case(case, form)
  theta = theta_of(case)
  (loss, out), grads = step(theta)
  close(out, PEFT[f"{case}.out"])
  close(loss, PEFT[f"{case}.loss"])
  for key, expected in theta_of(case, "grad.").items():
    close(grads[key], expected)
  optimizer = optax.adamw(1e-2, weight_decay=0.0)
  state = optimizer.init(theta)
  losses = []
  for _ in range(3):
    (loss, _), grads = step(theta)
    losses.append(float(loss))
    with jax.numpy_dtype_promotion("standard"):
      updates, state = optimizer.update(grads, state, theta)
    theta = optax.apply_updates(theta, updates)
  close(losses, PEFT[f"{case}.adamw3_losses"])
  close(step(theta)[0][1], PEFT[f"{case}.adamw3_out"])
  merged = adapter.merge(kernels(), theta, {})
  for fc in ("fc1", "fc2"):
    close(merged[fc]["kernel"], PEFT[f"{case}.merged.{fc}"].T)
  out = mlp(merged, jnp.asarray(PEFT["x"]), {})
  close(out, PEFT[f"{case}.merged_out"])


@pytest.mark.parametrize("gradient", ["general", "dense", "gathered"])
@pytest.mark.parametrize("case", ["layer_spmm", "layer_sp_add"])
def test_rosa_layer(case, gradient):
  given = lambda key: jnp.asarray(ROSA[f"{case}.{key}"])
  x, y, bias = given("x"), given("y"), given("b")[None, None]
  params = {"kernel": given("W").T}
  masks = {"kernel": given("mask").T}
  adapter = adapters.rosa(4, masks, alpha=6)
  _, fixed = adapter.init(jax.random.key(0), params)
  theta = {
    "kernel/lora_a": given("A").T,
    "kernel/lora_b": given("B").T,
    # Values in the order of rows, which are the columns here.
    "kernel/sparse": given("S_dense").T.reshape(-1)[fixed["kernel/indices"]],
  }

  def forward(theta):
    if gradient == "general":
      return x @ adapter.apply(params, theta, fixed)["kernel"] + bias
    part = adapters.parts(adapter, params, theta, fixed)["kernel"]
    return adapters.dense(x, params["kernel"], part, gradient=gradient) + bias

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def step(theta):
    out = forward(theta)
    return jnp.mean((out - y) ** 2), out

  (loss, out), grads = step(theta)
  close(out, ROSA[f"{case}.out"])
  close(loss, ROSA[f"{case}.loss"])
  close(grads["kernel/lora_a"].T, ROSA[f"{case}.grad_A"])
  close(grads["kernel/lora_b"].T, ROSA[f"{case}.grad_B"])
  slopes = np.zeros(params["kernel"].shape, np.float32)
  slopes.reshape(-1)[fixed["kernel/indices"]] = grads["kernel/sparse"]
  rows, columns = np.nonzero(ROSA[f"{case}.mask"])
  np.testing.assert_array_equal(columns, ROSA[f"{case}.col_idx"])
  close(slopes.T[rows, columns], ROSA[f"{case}.grad_S_values"])
  merged = adapter.merge(params, theta, fixed)["kernel"]
  close((merged - params["kernel"]).T, ROSA[f"{case}.delta"])
  close(merged.T, ROSA[f"{case}.merged_W"])
  close(x @ merged + bias, ROSA[f"{case}.merged_out"])


def test_squared_gradients_of_a_rosa_layer():
  given = lambda key: jnp.asarray(ROSA[f"layer_spmm.{key}"])
  adapter = adapters.lora(4, alpha=6)
  theta = {"kernel/lora_a": given("A").T, "kernel/lora_b": given("B").T}
  params = adapter.merge({"kernel": given("W").T}, theta, {})
  output = lambda p, x: x @ p["kernel"] + given("b")[None, None]
  close(output(params, given("x")), ROSA["layer_spmm.out_lora_only"])
  loss = lambda p, batch: jnp.mean((output(p, batch["x"]) - batch["y"]) ** 2)
  batch = {"x": given("x"), "y": given("y")}
  found = adapters.collect(loss, params, batch, micro_batch=3)
  close(found.mean["kernel"].T, ROSA["layer_spmm.collected_sq_grad"])
  masks = adapters.sparse_masks(found.mean, 0.05)
  np.testing.assert_array_equal(masks["kernel"].T, ROSA["layer_spmm.mask"])
