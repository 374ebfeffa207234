import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import arguments


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), jnp.int32(3)])
def test_whole_numbers_of_any_kind(value):
  number = arguments.whole("step", value)
  assert number == 3
  assert type(number) is int


@pytest.mark.parametrize(
  "value", [2.0, 2.5, 0, -1, "3", None, (3,), np.ones(2)]
)
def test_what_is_no_whole_number(value):
  with pytest.raises(
    ValueError, match="step must be a whole number of at leas"
  ):
    arguments.whole("step", value)


def test_a_traced_number_is_no_count():
  with pytest.raises(ValueError, match=r"of at least 0, got .*int32"):
    jax.jit(lambda n: arguments.whole("step", n, 0))(3)


@pytest.mark.parametrize(
  ("value", "above"),
  [(0, False), (1e-9, True), (np.float32(2), True), (jnp.ones(3), True)],
)
def test_finite_numbers_pass_as_they_are(value, above):
  assert arguments.finite("width", value, 0, above=above) is value


@pytest.mark.parametrize(
  "value",
  [-1, 0.0, np.nan, np.inf, 10**400, "a", "1", None, np.array([1.0, -1.0])],
)
def test_numbers_that_do_not_fit(value):
  with pytest.raises(ValueError, match="width must be a finite number above 0"):
    arguments.finite("width", value, 0, above=True)


def test_traced_numbers_pass():
  check = lambda x: arguments.finite("width", x, 0)
  assert jax.jit(check)(-1.0) == -1
  assert jax.vmap(check)(jnp.array([-1.0, 1.0])).tolist() == [-1, 1]


@pytest.mark.parametrize("value", [0.0, 0.6, np.nan, "0.1", None])
def test_shares_that_do_not_fit(value):
  arguments.share("cut", 0.5, 0.5)
  with pytest.raises(ValueError, match=r"cut must lie in \(0, 0.5\], got"):
    arguments.share("cut", value, 0.5)
  with pytest.raises(ValueError, match=r"level must lie in \(0, 1\), got"):
    arguments.share("level", 1.0, below=True)


X = np.ones((2, 5, 4, 3), np.float32)


def test_axes():
  assert arguments.axes(np.array([1, 3]), X) == (1, 3)
  assert arguments.axes((3, 1), X, ascend=False) == (1, 3)


@pytest.mark.parametrize("ascend", [True, False])
@pytest.mark.parametrize(
  "given", [(-3, -2), (0, 1), (1, 7), (2, 2), (1.0, 2.0), (), 1, None]
)
def test_axes_that_do_not_fit(given, ascend):
  word = "ascend" if ascend else "differ"
  with pytest.raises(ValueError, match=rf"axes must {word} .* 3 for x \[2, 5"):
    arguments.axes(given, X, ascend=ascend)


@pytest.mark.parametrize("value", [np.ones(2, np.uint8), [True], [1j], 1.0])
def test_what_is_no_floating_array(value):
  with pytest.raises(ValueError, match="maps must be a batch of floating"):
    arguments.floating("maps", value, "a batch")
