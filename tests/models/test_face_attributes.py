"""The networks of faces against their graphs, run node by node in NumPy."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from effjax import data
from effjax.io import onnx
from effjax.models import face_attributes


def conv(x, kernel, bias, strides, pads):
  """Convolve x [N, I, H, W] with a kernel [O, I, h, w]."""
  x = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
  windows = np.lib.stride_tricks.sliding_window_view(
    x, kernel.shape[2:], (2, 3)
  )[:, :, :: strides[0], :: strides[1]]
  y = np.tensordot(windows, kernel, ([1, 4, 5], [1, 2, 3]))
  return y.transpose(0, 3, 1, 2) + bias[:, None, None]


def pool(x, size, strides, reduce):
  windows = np.lib.stride_tricks.sliding_window_view(x, size, (2, 3))
  return reduce(windows[:, :, :: strides[0], :: strides[1]], axis=(4, 5))


def run(graph, x):
  """Return what the node before the softmax computes, in float64."""
  values = {
    name: array.astype(np.float64) if array.dtype == np.float32 else array
    for name, array in graph.initialisers.items()
  }
  values["images"] = x.astype(np.float64).transpose(0, 3, 1, 2)
  y = None
  for node in graph.nodes:
    a = dict(node.attributes)
    v = [values[name] for name in node.inputs]
    if node.op == "Softmax":
      return y
    if node.op == "Conv":
      y = conv(*v, a["strides"], a["pads"])
    elif node.op == "Mul":
      y = v[0] * v[1]
    elif node.op == "Add":
      y = v[0] + v[1]
    elif node.op == "Relu":
      y = np.maximum(v[0], 0)
    elif node.op == "AveragePool":
      y = pool(v[0], a["kernel_shape"], a["strides"], np.mean)
    elif node.op == "MaxPool":
      y = pool(v[0], a["kernel_shape"], a["strides"], np.max)
    elif node.op == "GlobalAveragePool":
      y = v[0].mean((2, 3), keepdims=True)
    elif node.op == "Flatten":
      y = v[0].reshape(len(v[0]), -1)
    elif node.op == "Gemm":
      y = v[0] @ v[1] + v[2]
    else:
      assert node.op == "Pad"
      y = np.pad(v[0], list(zip(v[1][:4], v[1][4:], strict=True)))
    values[node.outputs[0]] = y
  raise AssertionError("no softmax")


class Writer:
  """Builds a graph of random weights, one node after the other."""

  def __init__(self):
    self.generator = np.random.default_rng(0)
    self.nodes, self.arrays = [], {}

  def array(self, *shape, scale=1.0):
    name = f"array{len(self.arrays)}"
    values = scale * self.generator.standard_normal(shape)
    self.arrays[name] = values.astype(np.float32)
    return name

  def node(self, op, *inputs, **attributes):
    output = f"value{len(self.nodes)}"
    self.nodes.append(
      onnx.Node(
        op=op,
        name="",
        inputs=inputs,
        outputs=(output,),
        attributes=attributes,
      )
    )
    return output

  def conv(self, x, before, after, size=3, stride=1, pad=1):
    scale = (2 / (before * size * size)) ** 0.5
    kernel = self.array(after, before, size, size, scale=scale)
    bias = self.array(after, scale=0.1)
    x = self.node(
      "Conv", x, kernel, bias, strides=(stride,) * 2, pads=[pad] * 4
    )
    x = self.node("Mul", x, self.array(1, after, 1, 1))
    return self.node("Add", x, self.array(1, after, 1, 1, scale=0.1))

  def dense(self, x, before, after):
    kernel = self.array(before, after, scale=before**-0.5)
    return self.node("Gemm", x, kernel, self.array(after, scale=0.1))

  def pool(self, op, x, size):
    return self.node(op, x, kernel_shape=(size,) * 2, strides=(2, 2))

  def graph(self, x):
    output = self.node("Softmax", x)
    return onnx.Graph(
      name="random",
      nodes=tuple(self.nodes),
      initialisers=self.arrays,
      inputs=("images",),
      outputs=(output,),
    )


def gender_graph():
  w, x, before = Writer(), "images", 3
  for i, after in enumerate((32, 32, 64, 64)):
    x = w.node("Relu", w.conv(x, before, after))
    x = w.pool("AveragePool", x, 2) if i % 2 else x
    before = after
  for before, after in ((4096, 16), (16, 2)):
    x = w.node("Flatten", w.node("Mul", x, w.array(1)), axis=1)
    x = w.dense(x, before, after)
    x = w.node("Relu", x) if after == 16 else x
  return w.graph(x)


def age_graph():
  w = Writer()
  x = w.node("Relu", w.conv("images", 3, 64, size=7, stride=2, pad=0))
  x = w.pool("MaxPool", x, 3)
  before, sizes = 64, iter([((14, 7, 6)), ((7, 3, 3))])
  for after, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
    y = w.conv(x, before, after, stride=stride, pad=2 - stride)
    y = w.conv(w.node("Relu", y), after, after)
    if stride == 2:
      _, short, long = next(sizes)
      x = w.pool("AveragePool", x, 2)
      for which, channels, more in (
        ("x", after - before, 0),
        ("y", 0, short - long),
      ):
        name = f"pads{len(w.arrays)}"
        w.arrays[name] = np.array([0, 0, 0, 0, 0, channels, more, more])
        if which == "x":
          x = w.node("Pad", x, name, mode="constant")
        else:
          y = w.node("Pad", y, name, mode="constant")
    x = w.node("Relu", w.node("Add", y, x))
    before = after
  x = w.node("Flatten", w.node("GlobalAveragePool", x), axis=1)
  return w.graph(w.dense(x, 256, 81))


@functools.partial(jax.jit, static_argnums=0)
def apply(module, params, x):
  return module.apply({"params": params}, x)


CASES = {
  "gender": (gender_graph, face_attributes.load_gender, 32, 131_538),
  "age": (age_graph, face_attributes.load_age, 64, 2_689_617),
}


@pytest.mark.parametrize("name", CASES)
def test_module_computes_what_the_graph_says(name):
  make, load, side, count = CASES[name]
  graph = make()
  module, params = load(graph)
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
  generator = np.random.default_rng(1)
  images = generator.integers(0, 256, (2, side, side, 3)).astype(np.uint8)
  x = face_attributes.preprocess(images)
  assert x.dtype == np.float32
  mean = np.array(face_attributes.MEAN, np.float32)
  np.testing.assert_array_equal(x, (images.astype(np.float32) - mean) / 256)
  logits = apply(module, params, x)
  expected = run(graph, np.asarray(x))
  np.testing.assert_allclose(
    logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
  )


def test_parameter_names_are_frozen():
  block = {
    f"{kind}{i}": {"bias", "kernel" if kind == "conv" else "scale"}
    for kind in ("conv", "affine")
    for i in (1, 2)
  }
  dense = {"bias", "kernel"}
  named = lambda tree: (
    set(tree)
    if all(hasattr(leaf, "shape") for leaf in tree.values())
    else {name: named(sub) for name, sub in tree.items()}
  )
  params = lambda module, side: jax.eval_shape(
    module.init, jax.random.key(0), np.zeros((1, side, side, 3), np.float32)
  )["params"]
  assert named(params(face_attributes.Gender(), 32)) == {
    **{f"conv{i}": dense for i in range(1, 5)},
    **{f"affine{i}": {"bias", "scale"} for i in range(1, 5)},
    "dense": dense,
    "head": dense,
  }
  assert named(params(face_attributes.Age(), 64)) == {
    "stem_conv": dense,
    "stem_affine": {"bias", "scale"},
    **{f"block{i}": block for i in range(1, 6)},
    "head": dense,
  }


def test_other_networks_are_refused():
  gender = gender_graph()
  with pytest.raises(
    ValueError, match="Age has 11 conv layers, this graph has"
  ):
    face_attributes.load_age(gender)
  with pytest.raises(ValueError, match="2 scalar factors, this graph has 0"):
    face_attributes.load_gender(
      dataclasses.replace(gender, nodes=gender.nodes[:3])
    )
  name = gender.nodes[0].inputs[1]
  arrays = {**gender.initialisers, name: np.zeros((32, 1, 3, 3), np.float32)}
  with pytest.raises(ValueError, match="shapes of Gender"):
    face_attributes.load_gender(
      dataclasses.replace(gender, initialisers=arrays)
    )


@pytest.fixture(scope="module")
def stored():
  """The real networks, and the face of a portrait at both sizes."""
  image = pytest.importorskip("PIL.Image")
  try:
    location = data.locate("age_gender")
    portrait = data.source("astronaut", "all").arrays["images"][0]
  except FileNotFoundError:
    pytest.skip(
      "The weights are absent: python -m launch.fetch age_gender astronaut"
    )
  face = image.fromarray(portrait).crop((165, 60, 285, 180))
  found = {}
  for name, (_, load, side, _) in CASES.items():
    graph = onnx.parse(location.read(f"{name}-v1.onnx"))
    chip = np.asarray(face.resize((side, side), image.Resampling.BILINEAR))
    # Twice, so that the programs of the other tests serve here too.
    x = face_attributes.preprocess(np.stack([chip, chip]))
    found[name] = graph, *load(graph), x
  return found


@pytest.mark.data
@pytest.mark.parametrize("name", CASES)
def test_real_networks_compute_what_their_graphs_say(stored, name):
  graph, module, params, x = stored[name]
  logits = apply(module, params, x)
  np.testing.assert_allclose(logits, run(graph, np.asarray(x)), atol=2e-4)


@pytest.mark.data
def test_what_the_real_networks_say_of_a_portrait(stored):
  """Probabilities that ONNX Runtime 1.32 gives for the same pixels."""
  _, module, params, x = stored["gender"]
  female, male = jax.nn.softmax(apply(module, params, x))[0]
  assert float(female) == pytest.approx(0.99928683, abs=1e-6)
  assert float(male) == pytest.approx(7.1319600e-04, abs=1e-6)
  _, module, params, x = stored["age"]
  logits = apply(module, params, x)
  assert float(face_attributes.expected_age(logits)[0]) == pytest.approx(
    32.458202, abs=1e-3
  )
  probabilities = np.asarray(jax.nn.softmax(logits))[0]
  np.testing.assert_allclose(
    probabilities[[26, 28, 32, 33]],
    [6.90578073e-02, 6.88844845e-02, 5.94851553e-01, 4.17512767e-02],
    atol=1e-5,
  )


@pytest.mark.data
def test_most_faces_of_the_lfw_subset_come_out_male(stored):
  image = pytest.importorskip("PIL.Image")
  try:
    faces = data.source("lfw_subset", "all")
  except FileNotFoundError:
    pytest.skip("The faces are absent: python -m launch.fetch lfw_subset")
  assert faces.arrays["classes"].sum() == 100
  grey = faces.arrays["images"][faces.arrays["classes"] == 1, ..., 0]
  grey = np.rint(grey * 255).astype(np.uint8)
  resized = [
    np.asarray(
      image.fromarray(face).resize((32, 32), image.Resampling.BILINEAR)
    )
    for face in grey
  ]
  images = np.repeat(np.stack(resized)[..., None], 3, axis=-1)
  _, module, params, _ = stored["gender"]
  x = face_attributes.preprocess(images)
  male = apply(module, params, x).argmax(1) == 1
  assert float(male.mean()) == pytest.approx(0.77, abs=0.02)
