"""The codebook: its rules, one by one, and its look-up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import editing

add = jax.jit(editing.insert)
FIRST, OTHER = jnp.array([1.0, 1.0]), jnp.array([5.0, 5.0])


def at(*x):
  return jnp.array(x, jnp.float32)


def book():
  """Return a book of three places with one entry at (0, 0), radius 1."""
  empty = editing.empty_codebook(3, 2, 2)
  return add(empty, at(0, 0), FIRST, 7, radius=1.0).book


def test_far_keys_are_added():
  done = add(book(), at(2.5, 0), OTHER, 7, radius=1.0)
  assert (bool(done.added), int(done.index), int(done.book.count)) == (
    True,
    1,
    2,
  )
  np.testing.assert_array_equal(done.book.radii, [1, 1, 0])
  np.testing.assert_array_equal(done.book.values[:2], [FIRST, OTHER])
  assert done.book.labels[:2].tolist() == [7, 7]


def test_near_keys_with_the_same_label_widen_the_entry():
  done = add(book(), at(1.5, 0), OTHER, 7, radius=1.0)
  assert (bool(done.added), int(done.index), int(done.book.count)) == (
    False,
    0,
    1,
  )
  assert done.book.radii[0] == 1.5
  np.testing.assert_array_equal(done.book.values[0], FIRST)
  inside = add(book(), at(0.5, 0), OTHER, 7, radius=1.0)
  assert inside.book.radii[0] == 1.0  # never less


def test_near_keys_with_another_label_share_the_space():
  done = add(book(), at(1.5, 0), OTHER, 8, radius=1.0)
  assert bool(done.added)
  assert int(done.index) == 1
  np.testing.assert_allclose(done.book.radii[:2], [0.74999, 0.75], rtol=1e-6)


def test_the_very_key_with_another_label_is_written_over():
  done = add(book(), at(0, 0), OTHER, 8, radius=1.0)
  assert (bool(done.added), int(done.index), int(done.book.count)) == (
    True,
    0,
    1,
  )
  np.testing.assert_array_equal(done.book.values[0], OTHER)
  assert (int(done.book.labels[0]), float(done.book.radii[0])) == (8, 1.0)


def test_a_full_book():
  full = book()
  for place in (10.0, 20.0):
    full = add(full, at(place, 0), OTHER, 7, radius=1.0).book
  for key, label in ((at(30, 0), 7), (at(0.5, 0), 8)):
    done = add(full, key, OTHER, label, radius=1.0)
    assert int(done.index) == -1
    assert not done.added
    for ours, before in zip(done.book, full, strict=True):
      np.testing.assert_array_equal(ours, before)
  assert int(add(full, at(11.5, 0), OTHER, 7, radius=1.0).index) == 1
  with pytest.raises(ValueError, match="full with its 3"):
    editing.insert(full, at(30, 0), OTHER, 7, radius=1.0)


def test_lookup():
  two = add(book(), at(4, 0), OTHER, 8, radius=1.0).book
  queries = jnp.array([[[0.0, 1.0], [0.0, 1.1]], [[3.5, 0.0], [9.0, 9.0]]])
  outputs = jnp.full((2, 2, 2), -1.0)

  @jax.jit
  def work(values, outputs):
    looked = lambda values, outputs: editing.lookup(
      two._replace(values=values), queries, outputs
    )
    slopes = jax.grad(lambda *x: looked(*x).sum(), argnums=(0, 1))
    return looked(values, outputs), slopes(values, outputs)

  found, slopes = work(two.values, outputs)
  expected = [[FIRST, outputs[0, 1]], [OTHER, outputs[1, 1]]]
  np.testing.assert_array_equal(found, expected)
  np.testing.assert_array_equal(slopes[0], [[1, 1], [1, 1], [0, 0]])
  np.testing.assert_array_equal(slopes[1][..., 0], [[0, 1], [0, 1]])
  # Nothing is near an empty book, not even what its unused places hold.
  empty = editing.empty_codebook(3, 2, 2)
  same = editing.lookup(empty, jnp.zeros((2, 2)), outputs[0])
  np.testing.assert_array_equal(same, outputs[0])


@pytest.mark.parametrize(
  ("wrong", "words"),
  [
    (lambda: editing.empty_codebook(0, 2, 2), "capacity"),
    (lambda: editing.empty_codebook(2.5, 2, 2), "capacity must be a whole"),
    (lambda: editing.empty_codebook(2, 2.5, 2), "inputs must be a whole"),
    (lambda: editing.empty_codebook(2, 2, None), "outputs must be a whole"),
    (lambda: editing.lookup(book(), at(1), at(1, 1)), "fit"),
    (lambda: editing.insert(book(), at(1), FIRST, 0, radius=1.0), "fit"),
    *(
      (
        lambda radius=radius: editing.insert(
          book(), FIRST, FIRST, 0, radius=radius
        ),
        "radius must be a finite number",
      )
      for radius in (-1.0, np.inf, np.nan, None, "far")
    ),
    (
      lambda: editing.insert(book(), FIRST * np.nan, FIRST, 0, radius=1.0),
      "key of an entry must be finite",
    ),
    (
      lambda: editing.insert(book(), FIRST, FIRST / 0, 0, radius=1.0),
      "value of an entry must be finite",
    ),
  ],
)
def test_errors(wrong, words):
  with pytest.raises(ValueError, match=words):
    wrong()
