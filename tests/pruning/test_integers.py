import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from effjax.pruning import integers
from effjax.pruning.integers import Wide, wide

quick = hypothesis.settings(max_examples=50, deadline=None, derandomize=True)
counts = st.integers(0, 2**45) | st.integers(0, 2**17)
LIMIT = 32767 * 65536


def value(number):
  return int(number.high) * 65536 + int(number.low)


def one(number):
  return jax.tree.map(lambda x: x[0], wide([number]))


@quick
@hypothesis.given(a=counts, b=counts)
def test_wide_numbers_count_as_python_does(a, b):
  assert value(one(a)) == a
  high, low = max(a, b), min(a, b)
  left = integers.minus(one(high), one(low))
  assert value(left) == high - low
  assert 0 <= int(left.low) < 65536
  assert bool(integers.at_least(one(a), one(b))) == (a >= b)
  signed = int(integers.difference(one(a), one(b)))
  if abs(a - b) < LIMIT - 2 * 65536:
    assert signed == a - b
  else:
    assert (signed > 0) == (a > b)
    assert abs(signed) >= LIMIT - 2 * 65536
  assert float(integers.as_float(one(a))) == pytest.approx(a, rel=2**-23)


@quick
@hypothesis.given(a=counts, b=st.integers(0, 2**31 - 1))
def test_minus_takes_a_plain_integer(a, b):
  hypothesis.assume(a >= b)
  assert value(integers.minus(one(a), jnp.int32(b))) == a - b


def test_wide_of_traced_integers():
  found = jax.jit(wide)(jnp.array([0, 65535, 65536, 2**31 - 1], jnp.int32))
  assert found.high.tolist() == [0, 0, 1, 32767]
  assert found.low.tolist() == [0, 65535, 0, 65535]


def test_total_of_many_large_counts():
  rng = np.random.default_rng(0)
  parts = rng.integers(2**30, 2**31 - 1, size=(3, 8192))
  found = integers.total(jnp.asarray(parts, jnp.int32))
  expected = wide(parts.sum(axis=1))
  assert isinstance(found, Wide)
  assert (found.high == expected.high).all()
  assert (found.low == expected.low).all()


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_keys_order_all_numbers_of_16_bits(name):
  dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else np.float16)
  every = np.arange(2**16, dtype=np.uint16).view(dtype)
  with np.errstate(invalid="ignore"):  # some of them are signalling NaNs
    numbers = every[~np.isnan(every)]
  keys = np.asarray(jax.jit(integers.order_keys)(jnp.asarray(numbers)))
  exact = numbers.astype(np.float64)
  order = np.argsort(keys, kind="stable")
  assert (np.diff(exact[order]) >= 0).all()
  # Equal keys for equal numbers and for them alone, denormal ones included.
  assert np.unique(keys).size == np.unique(exact).size


def test_keys_of_zeros_infinities_and_nan():
  numbers = [-np.nan, -np.inf, -1e-45, -0.0, 0.0, 1e-45, np.inf, np.nan]
  keys = np.asarray(integers.order_keys(jnp.asarray(numbers, jnp.float32)))
  assert keys[3] == keys[4] == 0
  assert (np.diff(np.delete(keys, 3).astype(np.int64)) > 0).all()


def test_keys_of_float64_tell_close_numbers_apart():
  with jax.enable_x64(True):
    numbers = jnp.array([1.0, 1.0 + 2**-52, -(1.0 + 2**-52), -1.0, 5e-324])
    assert integers.key_dtype([numbers]) == jnp.int64
    keys = integers.order_keys(numbers, jnp.int64)
    assert np.argsort(np.asarray(keys)).tolist() == [2, 3, 4, 0, 1]
  mixed = [jnp.zeros(1, jnp.bfloat16), jnp.zeros(1, jnp.float16)]
  assert integers.key_dtype(mixed) == jnp.int32
