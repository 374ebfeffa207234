"""Gram matrices against patches that are cut out one by one."""

import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effjax import pruning
from effjax.pruning import gram

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "spade"


def brute(x, window, strides, pads, dilation, groups):
  """Cut out every patch, [G, P, I kh kw]."""
  x = np.pad(x, ((0, 0), *pads, (0, 0)))
  spread = [(w - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
  rows = range(0, x.shape[1] - spread[0] + 1, strides[0])
  columns = range(0, x.shape[2] - spread[1] + 1, strides[1])
  patches = [
    image[
      r : r + spread[0] : dilation[0], c : c + spread[1] : dilation[1]
    ].transpose(2, 0, 1)
    for image in x
    for r, c in itertools.product(rows, columns)
  ]
  patches = np.stack(patches)
  return patches.reshape(len(patches), groups, -1).swapaxes(0, 1)


@pytest.mark.parametrize(
  ("window", "strides", "pads", "dilation", "groups"),
  [
    ((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    ((3, 2), (2, 1), ((0, 1), (2, 0)), (1, 2), 1),
    ((1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
    ((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), 2),
    ((2, 2), (1, 1), ((0, 0), (0, 0)), (2, 2), 4),
    # Rows of taps: a kernel as large as the rows, steps of columns, dilated
    # rows, padding on one side; with groups patches again.
    ((4, 3), (1, 2), ((0, 0), (1, 0)), (1, 2), 1),
    ((3, 4), (1, 1), ((2, 0), (2, 1)), (2, 1), 2),
    ((2, 2), (1, 1), ((1, 3), (0, 0)), (3, 1), 1),
    # Fewer rows than the kernel has: patches again.
    ((5, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
  ],
)
def test_convolutions_by_cutting(window, strides, pads, dilation, groups):
  x = np.random.default_rng(0).normal(size=(2, 7, 6, 4)).astype(np.float32)
  x = np.tile(x, (3, 1, 1, 1)) * np.arange(1, 7)[:, None, None, None]
  x = x.astype(np.float32)
  found = pruning.conv_input_gram(
    jnp.asarray(x),
    window,
    strides=strides,
    padding=pads,
    dilation=dilation,
    groups=groups,
  )
  patches = brute(x, window, strides, pads, dilation, groups)
  expected = np.einsum("gpi,gpj->gij", patches, patches)
  expected = expected[0] if groups == 1 else expected
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=5e-4)


@settings(max_examples=6, deadline=None)
@given(
  seed=st.integers(0, 2**31),
  window=st.tuples(st.integers(2, 5), st.integers(1, 3)),
  pad=st.integers(0, 2),
  dilation=st.integers(1, 2),
  groups=st.sampled_from([1, 2]),
)
def test_rows_of_taps_sum_like_patches(seed, window, pad, dilation, groups):
  rng = np.random.default_rng(seed)
  pads, dilations = ((pad, pad),) * 2, (dilation, 1)
  least = (window[0] - 1) * dilation + 1 - 2 * pad
  x = rng.normal(size=(12, max(1, least) + rng.integers(6), 4, 8))
  with jax.enable_x64():
    found = pruning.conv_input_gram(
      jnp.asarray(x), window, padding=pad, dilation=dilations, groups=groups
    )
  patches = brute(x, window, (1, 1), pads, dilations, groups)
  expected = np.einsum("gpi,gpj->gij", patches, patches)
  expected = expected[0] if groups == 1 else expected
  np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-11)
  # What only padding meets stays exactly zero.
  np.testing.assert_array_equal(np.asarray(found) == 0, expected == 0)


@pytest.mark.parametrize("positions", [1, 60, 150])
def test_rows_are_multiplied_some_at_a_time(positions, monkeypatch):
  """One by one, three at a time with a rest, and more than there are."""
  monkeypatch.setattr(gram, "_POSITIONS", positions)
  x = np.random.default_rng(0).normal(size=(2, 12, 10, 4)).astype(np.float32)
  options = dict(padding=((1, 0), (1, 2)), dilation=(2, 1))
  found = jax.jit(lambda x: gram.conv_input_gram(x, 3, **options))(x)
  patches = brute(x, (3, 3), (1, 1), options["padding"], (2, 1), 1)[0]
  np.testing.assert_allclose(found, patches.T @ patches, atol=5e-4)


@pytest.mark.parametrize("name", ["conv_3x3s1", "conv_1x1s1"])
def test_published_gram_matrices_add_up(name):
  data = np.load(GOLDEN / f"{name}.npz")
  window, _, padding, _ = map(int, data["conv"])
  x = jnp.asarray(data["X"].transpose(0, 2, 3, 1))
  halves = [
    pruning.conv_input_gram(half, window, padding=padding)
    for half in (x[:4], x[4:])
  ]
  found = 2 / len(x) * (halves[0] + halves[1])
  np.testing.assert_allclose(
    found, data["H"], atol=1e-5 * np.abs(data["H"]).max()
  )


def test_the_matrix_of_a_kernel_belongs_to_its_gram_matrix():
  rng = np.random.default_rng(1)
  x = jnp.asarray(rng.normal(size=(1, 5, 5, 3)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 4)), jnp.float32)
  matrix = pruning.kernel_to_matrix(kernel)
  patches = brute(np.asarray(x), (3, 3), (1, 1), ((0, 0),) * 2, (1, 1), 1)[0]
  outputs = patches @ np.asarray(matrix).T
  gram = pruning.conv_input_gram(x, 3, padding="VALID")
  np.testing.assert_allclose(
    np.sum(outputs**2), np.trace(matrix @ gram @ matrix.T), rtol=1e-5
  )
  again = pruning.matrix_to_kernel(matrix, kernel.shape)
  np.testing.assert_array_equal(again, kernel)
  dense = jnp.ones((3, 2)).at[0, 1].set(5.0)
  flat = pruning.kernel_to_matrix(dense)
  assert flat.shape == (2, 3)
  np.testing.assert_array_equal(pruning.matrix_to_kernel(flat, (3, 2)), dense)


def test_mistakes():
  with pytest.raises(ValueError, match="divisible by groups=2"):
    pruning.conv_input_gram(jnp.ones((1, 4, 4, 3)), 3, groups=2)
  with pytest.raises(ValueError, match=r"window of \(5, 5\)"):
    pruning.conv_input_gram(jnp.ones((1, 4, 4, 3)), 5, padding="VALID")
  with pytest.raises(ValueError, match="a single number"):
    pruning.input_gram(jnp.float32(1.0))
  with pytest.raises(ValueError, match="a kernel is"):
    pruning.kernel_to_matrix(jnp.ones(3))
  for kernel, groups in (((3, 3, 7, 5), 1), ((3, 3, 4, 5), 2)):
    with pytest.raises(ValueError, match="does not meet images of 4 channels"):
      pruning.conv_input_gram(
        jnp.ones((1, 5, 5, 4)), jnp.ones(kernel), groups=groups
      )
  with pytest.raises(ValueError, match="one or more images"):
    pruning.conv_input_gram(jnp.ones((0, 5, 5, 4)), 3)


def test_lists_are_arrays():
  assert pruning.input_gram([[1.0, 2.0]]).tolist() == [[1.0, 2.0], [2.0, 4.0]]
  assert pruning.conv_input_gram([[[[2.0]]]], 1).tolist() == [[4.0]]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"padding": "CIRCULAR"}, "'SAME' or 'VALID'"),
    ({"padding": -1}, "a number from 0 on"),
    ({"padding": ((1, 1), (1,), (0,))}, "padding|inhomogeneous"),
    ({"groups": 0}, "groups must be a whole number"),
    ({"groups": -1}, "groups must be a whole number"),
    ({"kernel_size": 0}, "not a positive number"),
  ],
)
def test_geometry_that_is_none(options, message):
  options = {"kernel_size": 3} | options
  with pytest.raises(ValueError, match=message):
    pruning.conv_input_gram(jnp.ones((1, 5, 5, 2)), **options)


def test_spellings_of_a_geometry():
  x = jax.random.normal(jax.random.key(0), (2, 6, 5, 2))
  gram = lambda size, padding: pruning.conv_input_gram(x, size, padding=padding)
  wanted = gram((3, 3), ((1, 1), (2, 2)))
  np.testing.assert_array_equal(gram(np.int64(3), (1, 2)), wanted)
  np.testing.assert_array_equal(gram(3, 1), gram(3, ((1, 1), (1, 1))))


def test_no_columns_make_an_empty_gram_matrix():
  assert pruning.input_gram(jnp.ones((2, 0))).shape == (0, 0)
