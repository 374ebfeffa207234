"""A trace: what is pruned, by whose inputs, and that nothing else changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from effjax import models, pruning, spade
from effjax.models import layers
from effjax.pruning import obs
from effjax.pruning.gram import kernel_to_matrix
from effjax.spade import planning

KEY = jax.random.key(0)


class Net(nn.Module):
  """Two convolutions of other strides, batch norm and two dense layers."""

  @nn.compact
  def __call__(self, x, train=False):
    x = layers.Conv(4, 3, strides=2, padding=1, name="stem")(x)
    x = layers.BatchNorm(name="norm")(x, train)
    x = nn.relu(x)
    x = nn.relu(nn.Conv(6, (2, 3), padding="VALID", name="conv")(x))
    x = nn.relu(nn.Dense(8, name="dense")(x.reshape(x.shape[0], -1)))
    return nn.Dense(3, name="head")(x)


RULES = [("stem/.*", None), ("(conv|dense)/kernel", 0.75), ("head/.*", 0.5)]
CONV_ONLY = [("conv/.*", 0.75), (".*", None)]


@pytest.fixture(scope="module")
def net():
  module = Net()
  x = jax.random.uniform(KEY, (2, 8, 8, 2))
  variables = module.init(jax.random.key(1), x)
  # Statistics and scales that matter.
  statistics = {"norm": {"mean": jnp.full(4, 0.1), "var": jnp.full(4, 0.3)}}
  variables = {**variables, "batch_stats": statistics}
  capture = models.capture(module, variables, train=False)
  return module, variables, capture, x


def augment(key, x):
  return x + 0.3 * jax.random.normal(key, x.shape, x.dtype)


def test_capture_gives_what_layers_meet(net):
  module, variables, capture, x = net
  logits, inputs = capture(variables["params"], x)
  np.testing.assert_array_equal(logits, module.apply(variables, x))
  assert {k: v.shape for k, v in inputs.items()} == {
    "stem/kernel": (2, 8, 8, 2),
    "conv/kernel": (2, 4, 4, 4),
    "dense/kernel": (2, 36),
    "head/kernel": (2, 8),
  }
  head = jax.tree.map(np.asarray, variables["params"]["head"])
  again = np.asarray(inputs["head/kernel"]) @ head["kernel"] + head["bias"]
  np.testing.assert_allclose(again, logits, rtol=1e-5)
  known = capture.layers(variables["params"], x)
  assert known["stem/kernel"].strides == (2, 2)
  assert known["conv/kernel"].padding == "VALID"
  assert not known["head/kernel"].is_convolution


@pytest.fixture(scope="module")
def traced(net):
  _, variables, capture, x = net
  return spade.trace(
    jax.random.key(2),
    capture,
    variables["params"],
    x,
    RULES,
    copies=5,
    augment=augment,
    has_aux=True,
  )


def test_trace_is_a_solver_on_the_inputs_of_the_dense_network(net, traced):
  _, variables, capture, x = net
  params = variables["params"]
  pruned, report = traced
  key = jax.random.fold_in(jax.random.key(2), 1)
  key, _ = jax.random.split(key)
  copies = jnp.stack(
    [augment(jax.random.fold_in(key, i), x[1]) for i in range(5)]
  )
  _, inputs = capture(params, copies)
  gram = pruning.conv_input_gram(inputs["conv/kernel"], (2, 3), padding="VALID")
  expected = obs.sparsegpt(
    kernel_to_matrix(params["conv"]["kernel"]), gram, 0.75, mask_block=6
  )
  np.testing.assert_allclose(
    kernel_to_matrix(pruned["conv"]["kernel"][1]), expected.weights, atol=1e-5
  )
  np.testing.assert_allclose(
    report["conv/kernel"].loss[1], expected.loss, rtol=1e-3
  )
  # Five copies are fewer than the 36 inputs of the dense layer.
  by_hand = pruning.input_gram(inputs["dense/kernel"])
  expected = obs.sparsegpt(params["dense"]["kernel"].T, by_hand, 0.75)
  np.testing.assert_allclose(
    pruned["dense"]["kernel"][1].T, expected.weights, atol=1e-4
  )


def test_trace_leaves_the_rest_alone(net, traced):
  params = net[1]["params"]
  pruned, report = traced
  for path, name in (
    ("stem", "kernel"),
    ("norm", "scale"),
    ("conv", "bias"),
    ("head", "bias"),
  ):
    leaf = params[path][name]
    np.testing.assert_array_equal(
      pruned[path][name], np.broadcast_to(leaf, (2, *leaf.shape))
    )
  assert set(report) == {"conv/kernel", "dense/kernel", "head/kernel"}
  # Dead inputs may add to what the sparsity asks for.
  assert np.all(report["conv/kernel"].sparsity >= 0.75)
  assert np.all(report["head/kernel"].sparsity >= 0.5)


def test_chunks_do_not_matter(net, traced):
  _, variables, capture, x = net
  chunked = spade.trace(
    jax.random.key(2),
    capture,
    variables["params"],
    x,
    RULES,
    copies=5,
    augment=augment,
    chunk_size=2,
  )
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=2e-5),
    chunked,
    traced[0],
  )


class Twice(nn.Module):
  """A layer that is called twice, and one that is computed anew."""

  @nn.compact
  def __call__(self, x):
    twice = nn.Dense(4, name="twice")
    x = nn.relu(twice(nn.relu(twice(x))))
    return nn.remat(nn.Dense)(3, name="anew")(x)


def test_uneven_chunks_of_layers_that_are_called_twice():
  module, x = Twice(), jax.random.normal(KEY, (4,))
  variables = module.init(KEY, x[None])
  function = spade.capture_function(_of_time)
  for capture, params in (
    (models.capture(module, variables), variables["params"]),
    (function, {"kernel": jax.random.normal(KEY, (4, 3))}),
  ):
    whole, uneven = (
      spade.layer_grams(
        KEY, capture, params, x, 0.5, copies=5, augment=augment, chunk_size=size
      )
      for size in (5, 2)
    )
    assert set(whole.grams) >= {"twice/kernel"} or capture is function
    for path, gram in (whole.grams | whole.inputs).items():
      found = (uneven.grams | uneven.inputs)[path]
      np.testing.assert_allclose(found, gram, rtol=1e-5)


def _of_time(params, x):
  """Sums over time, which is the first axis of what the layer meets."""
  times = jnp.arange(1.0, 4.0)[:, None, None] * x[None]
  return jnp.sum(jnp.tanh(times) @ params["kernel"], axis=0)


def test_a_layer_that_is_computed_anew_is_traced():
  module, x = Twice(), jax.random.normal(KEY, (1, 4))
  params = module.init(KEY, x)
  capture = models.capture(module, params)
  pruned = spade.trace(KEY, capture, params["params"], x, 0.5, augment=augment)
  assert int(jnp.sum(pruned["anew"]["kernel"] == 0)) == 6


def test_examples_that_go_together_do_not_matter(net, traced, monkeypatch):
  # As on an accelerator; the last group begins with an example of the first.
  _, variables, capture, x = net
  chunk = planning._chunk
  monkeypatch.setattr(planning, "_chunk", lambda *args: (chunk(*args)[0], 2))
  done = []
  pruned = spade.trace(
    jax.random.key(2),
    capture,
    variables["params"],
    jnp.concatenate([x, x[:1]]),
    RULES,
    copies=5,
    augment=augment,
    progress=lambda *numbers: done.append(numbers),
  )
  jax.tree.map(
    lambda found, alone: np.testing.assert_allclose(
      found[:2], alone, atol=2e-5
    ),
    pruned,
    traced[0],
  )
  assert done == [(2, 3), (3, 3)]


def test_jit_and_a_single_example_agree(net, traced):
  _, variables, capture, x = net

  @jax.jit
  def run(key, params, x):
    return spade.trace(
      key, capture, params, x, CONV_ONLY, copies=5, augment=augment
    )

  compiled = run(jax.random.key(2), variables["params"], x)
  for name in ("kernel", "bias"):
    np.testing.assert_allclose(
      compiled["conv"][name], traced[0]["conv"][name], atol=2e-5
    )
  np.testing.assert_array_equal(
    compiled["dense"]["kernel"][1], variables["params"]["dense"]["kernel"]
  )


def test_a_trace_keeps_outputs_of_layers_better_than_magnitude(net):
  _, variables, capture, x = net

  def loss(solver):
    _, report = spade.trace(
      KEY,
      capture,
      variables["params"],
      x,
      CONV_ONLY,
      copies=16,
      augment=augment,
      solver=solver,
      has_aux=True,
    )
    return np.asarray(report["conv/kernel"].loss)

  losses = {name: loss(name) for name in spade.SOLVERS}
  assert np.all(losses["exact_obs"] < losses["sparsegpt"])
  assert np.all(losses["sparsegpt"] < losses["magnitude"])
  assert np.all(losses["magnitude"] < losses["random"])
  assert np.all(losses["wanda"] < losses["random"])


def test_a_number_is_for_all_layers_that_can_be_pruned(net):
  _, variables, capture, x = net
  plan = functools.partial(
    planning.make_plan,
    capture,
    variables["params"],
    x[:1],
    0.5,
    None,
    copies=4,
    chunk_size=None,
  )
  whole = plan(memory=1 << 30)
  assert [task.path for task in whole.tasks] == [
    "conv/kernel",
    "dense/kernel",
    "head/kernel",
    "stem/kernel",
  ]
  assert [task.columns for task in whole.tasks] == [24, 36, 8, 18]
  assert whole.chunk_size == 4
  # What must fit does fit: with little memory the chunks are small.
  sizes = [plan(memory=m).chunk_size for m in (16_000, 22_000, 36_000)]
  assert sizes == [1, 2, 4]


class Odd(nn.Module):
  """A layer that no solver takes, and a dense one."""

  @nn.compact
  def __call__(self, x):
    x = layers.Conv(2, 3, feature_group_count=2, name="depthwise")(x)
    x = nn.relu(x - 1e6).reshape(x.shape[0], -1)
    return nn.Dense(2, name="head")(x)


def test_bad_input_is_named():
  module, x = Odd(), jnp.ones((1, 4, 4, 2))
  variables = module.init(KEY, x)
  capture, params = models.capture(module, variables), variables["params"]
  run = functools.partial(
    spade.trace, KEY, capture, params, x, copies=2, augment=None
  )
  with pytest.raises(ValueError, match="'depthwise/kernel' has 2 groups"):
    run(0.5)
  with pytest.raises(ValueError, match=r"no rule covers .*'head/kernel'"):
    run([("depthwise/.*", None)])
  with pytest.raises(ValueError, match=r"'heda/\.\*' matches no leaf"):
    run([("heda/.*", 0.5), (".*", None)])
  head = [("depthwise/.*", None), ("head/.*", 0.5)]
  with pytest.raises(ValueError, match="'head/kernel' are zero"):
    run(head)
  with pytest.raises(ValueError, match="nothing to prune"):
    run([(".*", None)])
  with pytest.raises(ValueError, match="'head/kernel' must be from 0 to 1"):
    run([("depthwise/.*", None), ("head/.*", 1.5)])
  with pytest.raises(ValueError, match="give at least"):
    run(head, memory=100)
  with pytest.raises(ValueError, match="choose chunk_size="):
    run(head, memory=20000, chunk_size=2000)
  with pytest.raises(ValueError, match="solver must be one of"):
    run(head, solver="sparsgpt")
  for copies in (0, 2.5):
    with pytest.raises(ValueError, match="copies must be a whole number"):
      run(head, copies=copies)
  with pytest.raises(ValueError, match="convention 'foo'"):
    run(head, convention="foo", solver="wanda")
  for rules in (True, None, "a", [("head/kernel",)], [*head, "head"]):
    with pytest.raises(ValueError, match="sparsities must be a share"):
      run(rules)
  with pytest.raises(ValueError, match="'head/kernel' must be from 0 to 1"):
    run([("depthwise/.*", None), ("head/.*", True)])
  bad = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)
  with pytest.raises(ValueError, match="'head/kernel' holds NaN"):
    spade.trace(KEY, capture, bad, x, head, copies=2, augment=None)
  bad = params | {"depthwise": bad["depthwise"]}
  with pytest.raises(ValueError, match="'head/kernel' hold NaN"):
    spade.trace(KEY, capture, bad, x, head, copies=2, augment=None)


def test_the_halves_of_a_trace_make_a_whole(net, traced):
  _, variables, capture, x = net
  params, rules = variables["params"], [("stem/.*", None), (".*", 0.5)]
  key = jax.random.fold_in(KEY, 0)
  whole = spade.trace(
    KEY, capture, params, x[:1], rules, copies=2, augment=augment
  )
  found = spade.layer_grams(
    key, capture, params, x[0], rules, copies=2, augment=augment
  )
  done = []
  halves = spade.prune_layers(
    params, found, rules, progress=lambda *n: done.append(n)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a[0], b), whole, halves
  )
  assert done == [(1, 3), (2, 3), (3, 3)]
  # Other sparsities, and fewer layers, by the same Gram matrices.
  other = [("head/.*", 0.75), (".*", None)]
  alone, report = spade.prune_layers(params, found, other, has_aux=True)
  assert set(report) == {"head/kernel"}
  assert float(report["head/kernel"].sparsity) == 0.75
  np.testing.assert_array_equal(
    alone["conv"]["kernel"], params["conv"]["kernel"]
  )
  with pytest.raises(ValueError, match="'stem/kernel' cannot be pruned"):
    spade.prune_layers(params, found, [(".*", 0.5)])
  with pytest.raises(ValueError, match="solver must be"):
    spade.prune_layers(params, found, 0.5, solver="best")


def test_frames_of_a_video_are_images():
  """A linen convolution takes any number of axes before the images."""

  class Video(nn.Module):
    frames: bool

    @nn.compact
    def __call__(self, x):
      if not self.frames:
        x = x.reshape(-1, *x.shape[-3:])
      x = nn.relu(nn.Conv(8, (3, 3), name="wide")(x))
      x = nn.Conv(4, (3, 3), strides=2, name="narrow")(x)
      return nn.Dense(3, name="head")(
        x.reshape(-1, 2, *x.shape[-3:]).mean((1, 2, 3))
      )

  x = jax.random.normal(KEY, (2, 2, 6, 6, 3))
  variables = Video(True).init(KEY, x)
  found = [
    spade.trace(
      KEY,
      models.capture(Video(frames), variables),
      variables["params"],
      x,
      [("wide/.*", 0.5), (".*", 0.8)],
      copies=2,
      augment=None,
    )
    for frames in (True, False)
  ]
  jax.tree.map(np.testing.assert_array_equal, *found)
