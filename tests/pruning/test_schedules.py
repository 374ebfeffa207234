import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import pruning


def brute_polynomial(initial, final, begin, end, degree, step):
  done = min(max((step - begin) / (end - begin), 0.0), 1.0)
  return final - (final - initial) * (1 - done) ** degree


@pytest.mark.parametrize("degree", [1.0, 3.0])
@pytest.mark.parametrize(("begin", "end", "every"), [(3, 20, 5), (0, 10, 10)])
def test_polynomial(degree, begin, end, every):
  schedule = pruning.polynomial(0.1, 0.9, begin, end, every, degree=degree)
  assert schedule.steps == tuple(
    s for s in range(begin, end + 1) if (s - begin) % every == 0 or s == end
  )
  expected = [
    brute_polynomial(0.1, 0.9, begin, end, degree, s) for s in schedule.steps
  ]
  np.testing.assert_allclose(schedule.levels, expected, rtol=1e-15)
  assert schedule.levels[-1] == 0.9
  steps = np.arange(end + 5)
  found = jax.vmap(schedule.sparsity)(jnp.asarray(steps))
  assert found.dtype == jnp.float32
  brute = [brute_polynomial(0.1, 0.9, begin, end, degree, s) for s in steps]
  np.testing.assert_allclose(
    found, np.where(steps < begin, 0.0, brute), atol=2e-7
  )


def test_cubic_is_the_polynomial_of_degree_three():
  cubic = pruning.cubic(0.05, 0.95, 10, 81, 10)
  polynomial = pruning.polynomial(0.05, 0.95, 10, 81, 10, degree=3.0)
  assert cubic[2:] == polynomial[2:]
  reference = pruning.cubic(0.05, 0.95, 10, 81, 10, convention="reference")
  assert reference.steps == tuple(range(10, 81, 10))
  assert reference.levels[-1] == pytest.approx(0.949997, abs=1e-6)
  path = [0.05, 0.379, 0.616, 0.777, 0.875, 0.927, 0.947, 0.950]
  np.testing.assert_allclose(reference.levels, path, atol=5e-4)


def test_a_polynomial_of_one_step_jumps_to_the_end():
  schedule = pruning.polynomial(0.1, 0.9, 5, 5, 1)
  assert (schedule.steps, schedule.levels) == ((5,), (0.9,))
  assert [float(schedule.sparsity(s)) for s in (4, 5, 6)] == [
    0.0,
    pytest.approx(0.9),
    pytest.approx(0.9),
  ]


def test_one_shot_and_constant():
  schedule = pruning.one_shot(0.9, 5)
  assert (schedule.steps, schedule.levels) == ((5,), (0.9,))
  schedule = pruning.constant(0.5, 2, 9, 3)
  assert schedule.steps == (2, 5, 8, 9)
  assert schedule.levels == (0.5,) * 4
  assert not schedule.alternates


@pytest.mark.parametrize("end", [0, 7, 10, 13, 15, 20, 29])
def test_alternating_ends_sparse(end):
  schedule = pruning.alternating(0.9, 2, 2 + end, sparse=10, dense=5)
  assert schedule.alternates
  assert schedule.levels[0] == schedule.levels[-1] == 0.9
  assert schedule.steps[0] == 2
  assert schedule.steps[-1] == 2 + end
  for step in range(2, 2 + end):
    sparse = (step - 2) % 15 < 10
    assert float(schedule.sparsity(step)) == pytest.approx(0.9 * sparse)


def test_traced_steps_agree_with_concrete_ones():
  table = {1: 0.2, 4: 0.5, 6: 0.4}
  schedules = [
    pruning.from_table(list(table), list(table.values())),
    pruning.cubic(0.0, 0.8, 1, 6, 2),
    pruning.alternating(0.5, 0, 6, sparse=2, dense=1),
  ]
  for schedule in schedules:
    fires, sparsity = jax.jit(schedule.fires), jax.jit(schedule.sparsity)
    for step in range(9):
      assert bool(fires(step)) == bool(schedule.fires(step))
      assert bool(fires(step)) == (step in schedule.steps)
      assert float(sparsity(step)) == pytest.approx(
        float(schedule.sparsity(step)), abs=1e-7
      )
    for step, level in zip(schedule.steps, schedule.levels, strict=True):
      assert float(schedule.sparsity(step)) == pytest.approx(level, abs=1e-6)


@pytest.mark.parametrize("name", pruning.SCHEDULES)
def test_schedules_by_name(name):
  arguments = {
    "one_shot": (0.9, 5),
    "constant": (0.9, 0, 5, 1),
    "polynomial": (0.0, 0.9, 0, 5, 1),
    "cubic": (0.0, 0.9, 0, 5, 1),
  }
  if name == "alternating":
    schedule = pruning.SCHEDULES[name](0.9, 0, 5, sparse=2, dense=1)
  else:
    schedule = pruning.SCHEDULES[name](*arguments[name])
  assert isinstance(schedule, pruning.Schedule)
  assert schedule.levels[-1] == 0.9


@pytest.mark.parametrize(
  ("make", "words"),
  [
    (lambda: pruning.one_shot(1.1), "outside"),
    (lambda: pruning.one_shot(90), "did you mean 0.9"),
    (lambda: pruning.one_shot(0.5, -1), "whole number of steps, not -1"),
    (lambda: pruning.one_shot(0.5, 1.5), "whole number of steps, not 1.5"),
    (lambda: pruning.constant(0.5, 5, 4, 1), "begin <= end"),
    (lambda: pruning.constant(0.5, 0, 4, 0), "every >= 1"),
    (lambda: pruning.cubic(-0.1, 0.9, 0, 5, 1), "initial sparsity"),
    (lambda: pruning.cubic(0.1, 1.9, 0, 5, 1), "final sparsity"),
    (lambda: pruning.cubic(0.1, 0.9, 0, 5, 1, convention="x"), "'reference'"),
    (lambda: pruning.polynomial(0, 0.5, 0, 4, 1, degree=-1), "degree must be"),
    (lambda: pruning.polynomial(0, 0.5, 0, 4, 1, degree=0), "degree must be"),
    (lambda: pruning.from_table([1, 2], [0.5]), "2 steps do not fit 1"),
    (lambda: pruning.from_table([2, 2], [0.5, 0.6]), "must ascend"),
    (lambda: pruning.alternating(0.5, 5, 4, sparse=1, dense=1), "begin <= end"),
    (lambda: pruning.alternating(0.5, 0, 4, sparse=0, dense=1), "at least one"),
  ],
)
def test_mistakes(make, words):
  with pytest.raises(ValueError, match=words):
    make()


def test_arrays_of_steps():
  steps = jnp.arange(12).reshape(3, 4)
  for schedule in (
    pruning.from_table([2, 5], [0.5, 0.9]),
    pruning.cubic(0.0, 0.9, 2, 8, 3),
    pruning.from_table([], []),
  ):
    each = [schedule.sparsity(s) for s in range(12)]
    np.testing.assert_array_equal(schedule.sparsity(steps).ravel(), each)
    fires = [s in schedule.steps for s in range(12)]
    assert schedule.fires(steps).ravel().tolist() == fires


def test_whole_steps_of_any_type():
  schedule = pruning.cubic(0.0, 0.9, np.int64(0), 8.0, jnp.int32(4))
  assert schedule.steps == (0, 4, 8)
  assert pruning.constant(0.5, 0.0, 4.0, 2.0).steps == (0, 2, 4)


@pytest.mark.parametrize("step", ["3", np.nan, np.inf, 2**31, [1], None])
def test_steps_that_are_none(step):
  with pytest.raises(ValueError, match="must be a whole number of steps"):
    pruning.one_shot(0.5, step)
  with pytest.raises(ValueError, match="end must be a whole number of steps"):
    pruning.cubic(0.0, 0.9, 0, step, 1)
