"""Closed forms: golden values, brute force in float64 and laws."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import editing

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "editing"
DATA = np.load(GOLDEN / "closed_form.npz", allow_pickle=False)
W, C, K, Z = (DATA[name] for name in "WCKZ")
FREE = float(np.linalg.eigvalsh(C)[8]) * 1.01


@pytest.fixture
def double():
  with jax.enable_x64(True):
    yield


def values(lam=15.0):
  return {
    "rome": editing.rome(W, C, K[:, 0], Z[:, 0]),
    "memit": editing.memit(W, C, K, Z, lam),
    "spread": editing.memit(W, C, K, Z, lam, layers=3),
  }


def check(found, rtol):
  for name, golden in (
    ("rome", "W_rome"),
    ("memit", "W_memit"),
    ("spread", "W_memit_first_of_L"),
  ):
    np.testing.assert_allclose(
      W + np.asarray(found[name], np.float64), DATA[golden], rtol, rtol / 10
    )


def test_golden_in_float64(double):
  found = values()
  assert all(delta.dtype == np.float64 for delta in found.values())
  check(found, 1e-10)
  k, v = K[:, 0], Z[:, 0]
  rome, emmet = np.asarray(found["rome"]), np.asarray(editing.emmet(W, C, K, Z))
  assert np.abs((W + rome) @ k - v).max() < 1e-10
  assert np.abs((W + emmet) @ K - Z).max() < 1e-10
  assert np.linalg.matrix_rank(rome) == 1
  one = editing.emmet(W, C, k, v)
  np.testing.assert_allclose(one, rome, rtol=1e-9, atol=1e-12)


@pytest.mark.slow  # compiles all of them again
def test_golden_in_float32():
  found = values()
  assert all(delta.dtype == np.float32 for delta in found.values())
  check(found, 1e-4)


def test_memit_by_brute_force(double):
  residual = Z - W @ K
  emmet = np.asarray(editing.emmet(W, C, K, Z))
  for lam in (0.0, 1e-9, 1e-3, 1e4):
    found = np.asarray(editing.memit(W, C, K, Z, lam))
    if lam > 1e-6:
      whole = lam * C + K @ K.T
      expected = residual @ K.T @ np.linalg.inv(whole)
      np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)
    if lam < 1e-6:
      np.testing.assert_allclose(found, emmet, rtol=0, atol=1e-8)


def test_more_keys_than_inputs(double):
  rng = np.random.default_rng(0)
  keys, wanted = rng.normal(size=(3, 24)), rng.normal(size=(10, 24))
  w = rng.normal(size=(10, 3))
  # Only the sum needs to be regular.
  found = np.asarray(editing.memit(w, np.zeros((3, 3)), keys, wanted, 1.0))
  expected = (wanted - w @ keys) @ np.linalg.pinv(keys)
  np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_singular_covariance_that_the_keys_complete(double):
  live = np.arange(24) > 2
  c = np.where(live[:, None] & live, C, 0.0)
  found = np.asarray(editing.memit(W, c, K, Z, 0.5))
  whole = np.linalg.inv(0.5 * c + K @ K.T)
  expected = (Z - W @ K) @ K.T @ whole
  np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
  with pytest.raises(ValueError, match="damping"):
    editing.emmet(W, c, K, Z)
  # Keys of five facts cannot complete more directions than five.
  with pytest.raises(ValueError, match="larger lam"):
    editing.memit(
      W, np.where(live[:, None] & (np.arange(24) > 9), C, 0), K, Z, 1
    )


def test_rome_with_other_keys(double):
  k, bare, v = K[:, 0], K[:, 0] + 0.3 * K[:, 1], Z[:, 0]
  u = np.linalg.solve(C, k)
  found = {
    kind: np.asarray(editing.rome(W, C, k, v, key=kind, prompt_key=bare))
    for kind in ("consistent", "prompt", "original")
  }
  np.testing.assert_allclose(
    found["original"], np.outer(v - W @ bare, u) / (bare @ u), rtol=1e-8
  )
  np.testing.assert_allclose((W + found["prompt"]) @ bare, v, atol=1e-10)
  np.testing.assert_allclose((W + found["original"]) @ bare, v, atol=1e-10)
  np.testing.assert_allclose((W + found["consistent"]) @ k, v, atol=1e-10)
  published = editing.rome(W, C, k, v, prompt_key=bare, convention="reference")
  np.testing.assert_array_equal(published, found["original"])


def test_alphaedit(double):
  previous = K[:, 3:] * 2
  keys, wanted = K[:, :3], Z[:, :3]
  left, sizes, _ = np.linalg.svd(C)
  free = left[:, sizes < FREE]
  p = free @ free.T
  np.testing.assert_allclose(editing.null_space(C, FREE), p, atol=1e-10)
  a = keys @ keys.T + previous @ previous.T
  expected = np.linalg.solve(
    p @ a + 0.3 * np.eye(24), p @ keys @ (wanted - W @ keys).T / 2
  ).T
  options = {"previous": previous, "ridge": 0.3, "layers": 2}
  found = editing.alphaedit(W, C, keys, wanted, threshold=FREE, **options)
  np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-11)
  np.testing.assert_allclose(found @ p, found, atol=1e-11)
  again = editing.alphaedit(W, None, keys, wanted, projection=p, **options)
  np.testing.assert_allclose(again, found, rtol=1e-7, atol=1e-11)
  with pytest.raises(ValueError, match="threshold"):
    editing.null_space(C, 1e-9)


def test_damping(double):
  damped = C + 0.1 * np.diagonal(C).mean() * np.eye(24)
  for edit in (editing.emmet, lambda *a, **o: editing.memit(*a, 3.0, **o)):
    found, expected = edit(W, C, K, Z, damping=0.1), edit(W, damped, K, Z)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_singular_covariances(double):
  few = K @ K.T
  k, v = K[:, 0], Z[:, 0]
  for c in (few, few.astype(np.float32), np.zeros((24, 24)), -C):
    w = W.astype(c.dtype)
    with pytest.raises(ValueError, match="damping"):
      editing.rome(w, c, k, v)
  assert np.isfinite(editing.rome(W, few, k, v, damping=1e-4)).all()
  assert np.isnan(jax.jit(editing.rome)(W, few, k, v)).all()
  # A small covariance is not a singular one, nor are inputs of unlike size.
  scale = np.logspace(-3, 3, 24)
  small = C * scale[:, None] * scale * 1e-12
  found = np.asarray(editing.rome(W, small, k * scale, v))
  np.testing.assert_allclose((W + found) @ (k * scale), v, atol=1e-10)


def test_sequential_edits_build_on_each_other(double):
  edit = lambda w, k, v: editing.rome(w, C, k, v)
  pairs = [(K[:, 0], Z[:, 0]), (K[:, 1], Z[:, 1])]
  first, second = editing.sequential(jnp.asarray(W), pairs, edit)
  np.testing.assert_array_equal(first, edit(W, *pairs[0]))
  np.testing.assert_allclose((W + first + second) @ K[:, 1], Z[:, 1])


def test_vmap_is_a_loop():
  w = np.stack([W, W + 1]).astype(np.float32)
  found = W + np.asarray(editing.rome(w[0], C, K[:, 0], Z[:, 0]))
  np.testing.assert_allclose(found, DATA["W_rome"], rtol=1e-4, atol=1e-5)
  found = jax.vmap(lambda w: editing.rome(w, C, K[:, 0], Z[:, 0]))(w)
  for i in range(2):
    one = editing.rome(w[i], C, K[:, 0], Z[:, 0])
    np.testing.assert_allclose(found[i], one, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
  ("edit", "words"),
  [
    (lambda: editing.rome(W, C, K, Z[:, 0]), "memit"),
    (lambda: editing.rome(W, C, K[:, 0], Z[:, 0], key="mean"), "consistent"),
    (lambda: editing.rome(W, C, K[:, 0], Z[:, 0], key="prompt"), "prompt_key"),
    (lambda: editing.rome(W, C, 0 * K[:, 0], Z[:, 0]), "key is zero"),
    (
      lambda: editing.rome(W, C, K[:, 0], Z[:, 0], convention="ours"),
      "'reference'",
    ),
    (lambda: editing.memit(W.T, C, K, Z, 1.0), "shapes"),
    (lambda: editing.memit(W, C, K, Z, -1.0), "lam"),
    (lambda: editing.memit(W, C, K, Z, 1.0, layers=0), "layers"),
    (lambda: editing.memit(W, C, K * np.nan, Z, 1.0), "keys of an edit"),
    (lambda: editing.emmet(W, C, K[:, [0, 1, 2, 3, 3]], Z), "dependent"),
    (lambda: editing.alphaedit(W, C, K, Z, ridge=0.0), "ridge"),
    (lambda: editing.alphaedit(W, None, K, Z), "projection"),
    (lambda: editing.alphaedit(W, C, K, Z, previous=Z), "previous"),
  ],
)
def test_errors(edit, words, double):
  with pytest.raises(ValueError, match=words):
    edit()


@pytest.mark.parametrize("way", [jax.grad, jax.jacfwd, "vmap"])
def test_a_delta_has_derivatives(way):
  draw = np.random.default_rng(0).normal
  w, keys = jnp.asarray(draw(size=(3, 4))), jnp.asarray(draw(size=(4, 9)))
  c, k = keys @ keys.T / 9, keys[:, 0]
  size = lambda v: jnp.sum(editing.rome(w, c, k, v) ** 2)
  v = jnp.asarray(draw(size=3))
  # D = (v - W k) u^T / (k.u), whose square is that of the residual, scaled.
  u = jnp.linalg.solve(c, k)
  wanted = 2 * (v - w @ k) * (u @ u) / (k @ u) ** 2
  if way == "vmap":
    found = jax.vmap(jax.grad(size))(jnp.stack([v, v]))[1]
  else:
    found = way(size)(v)
  np.testing.assert_allclose(found, wanted, rtol=2e-3)


def test_numbers_that_cannot_be():
  w, c, key, value = np.ones((2, 3)), np.eye(3), np.eye(3)[0], np.ones(2)
  for wrong in (-0.5, None, "little", np.inf):
    for edit in (editing.rome, editing.emmet):
      with pytest.raises(ValueError, match="damping must be a finite number"):
        edit(w, c, key, value, damping=wrong)
    with pytest.raises(ValueError, match="lam must be a finite number"):
      editing.memit(w, c, key, value, wrong)
    with pytest.raises(ValueError, match="ridge must be a finite number"):
      editing.alphaedit(w, 0 * c, key, value, ridge=wrong)
  with pytest.raises(ValueError, match="layers must be a whole number"):
    editing.memit(w, c, key, value, 1.0, layers=1.5)
  three = editing.memit(w, c, key, value, 1.0, layers=3)
  for layers in (np.int64(3), jnp.int32(3)):
    found = editing.memit(w, c, key, value, 1.0, layers=layers)
    np.testing.assert_array_equal(found, three)
  small = editing.null_space(jnp.eye(3, dtype=jnp.bfloat16) * 1e-3)
  np.testing.assert_allclose(small, np.eye(3), atol=1e-6)


def test_keys_that_meet_by_rounding_alone_are_orthogonal():
  draw = np.random.default_rng(0).normal
  w, v = jnp.ones((2, 8), jnp.float32), jnp.ones(2, jnp.float32)
  for _ in range(20):
    k, other = draw(size=(2, 8))
    other -= k * (other @ k) / (k @ k)
    k, other = (jnp.asarray(x, jnp.float32) for x in (k, other))
    with pytest.raises(ValueError, match="orthogonal"):
      editing.rome(w, jnp.eye(8), k, v, key="original", prompt_key=other)
  near = other + 1e-5 * k
  assert np.isfinite(
    editing.rome(w, jnp.eye(8), k, v, key="original", prompt_key=near)
  ).all()
  with pytest.raises(ValueError, match="keys of an edit must be finite"):
    editing.rome(w, jnp.eye(8), k * np.nan, v, key="original", prompt_key=k)
