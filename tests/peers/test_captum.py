"""Attribution against captum, on networks with the same weights.

The network of the golden values, with norms and a max-pool, and a small linen
model. Run with -s, the largest differences are printed as a table, relative to
the largest entry.
"""

import copy
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import attribution, models
from effjax.attribution import noise, rules
from tests.attribution import golden
from tests.peers import networks

pytestmark = pytest.mark.peers
COPIES = 5
SIGMA = 0.2
EPSILON = 1e-9


@pytest.fixture(scope="module")
def attr(torch):
  return pytest.importorskip("captum.attr", reason="captum is not installed")


def golden_case(torch):
  """Returns the network of the golden file."""
  nn = torch.nn

  class Network(nn.Module):
    def __init__(self):
      super().__init__()
      self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
      self.pool = nn.MaxPool2d(2)
      self.conv2 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
      self.bn2 = nn.BatchNorm2d(12)
      self.conv3 = nn.Conv2d(12, 16, 1)
      self.mean = nn.AdaptiveAvgPool2d(1)
      self.fc1, self.fc2 = nn.Linear(16, 10), nn.Linear(10, 5)
      for i in range(1, 5):
        setattr(self, f"relu{i}", nn.ReLU())

    def forward(self, x):
      x = self.pool(self.relu1(self.bn1(self.conv1(x))))
      x = self.relu2(self.bn2(self.conv2(x)))
      x = self.mean(self.relu3(self.conv3(x)))
      return self.fc2(self.relu4(self.fc1(torch.flatten(x, 1))))

  values, network = golden.load(), Network()
  state = {k: torch.from_numpy(v) for k, v in golden.params().items()}
  network.load_state_dict(state, strict=False)
  return types.SimpleNamespace(
    f=golden.network,
    params=golden.params(),
    x=values["x"],
    baseline=values["baseline"],
    target=values["target"],
    network=network.eval(),
    layer="conv2.weight",
    axes=(0, 1, 2, 3),
    spatial=(2, 3),
  )


def linen_case(torch):
  """Returns a model of the library."""
  nn = torch.nn

  class Network(nn.Module):
    def __init__(self):
      super().__init__()
      self.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=1)
      self.conv2 = nn.Conv2d(4, 6, 3, stride=2, padding=1)
      self.dense, self.head = nn.Linear(54, 8), nn.Linear(8, 3)
      for i in range(1, 4):
        setattr(self, f"relu{i}", nn.ReLU())

    def forward(self, x):
      x = self.relu2(self.conv2(self.relu1(self.conv1(x))))
      return self.head(self.relu3(self.dense(torch.flatten(x, 1))))

  module = models.CNN(outputs=3, features=(4, 6), hidden=8)
  rng = np.random.default_rng(0)
  x, baseline = rng.normal(size=(2, 4, 12, 12, 3)).astype(np.float32)
  params = golden.variables(module, x)["params"]
  network, moved = Network(), jax.tree.map(np.array, params)
  # Torch flattens channels first.
  kernel = params["dense"]["kernel"].reshape(3, 3, 6, 8)
  moved["dense"]["kernel"] = kernel.transpose(2, 0, 1, 3).reshape(54, 8)
  networks.copy({"params": moved}, network)
  return types.SimpleNamespace(
    f=lambda params, x: module.apply({"params": params}, x),
    params=params,
    x=x,
    baseline=baseline,
    target=np.array([2, 0, 1, 1]),
    network=network.eval(),
    layer="conv2/kernel",
    axes=(0, 3, 1, 2),
    spatial=(1, 2),
  )


CASES = {"golden": golden_case, "linen": linen_case}


@pytest.fixture(scope="module", params=CASES)
def case(request, torch):
  made = CASES[request.param](torch)
  turn = lambda array: torch.from_numpy(np.array(array.transpose(made.axes)))
  made.args = made.f, made.params, made.x, made.target
  made.inputs, made.base = turn(made.x), turn(made.baseline)
  made.classes = torch.from_numpy(made.target)
  made.name = request.param
  return made


class Draws:
  """The random numbers of both sides."""

  rng = np.random.default_rng(1)
  noise = rng.normal(size=(COPIES, 4, 16, 16, 16)).astype(np.float32)
  points = rng.uniform(size=(COPIES, 4)).astype(np.float32)

  @classmethod
  def of(cls, x):
    return SIGMA * cls.noise[:, :, : x.shape[1], : x.shape[2], : x.shape[3]]


def agree(case, method, ours, theirs, tolerance):
  expected = theirs.detach().numpy()
  back = np.argsort(case.axes)
  expected = np.broadcast_to(expected.transpose(back), np.shape(ours))
  scale = np.abs(expected).max()
  difference = np.abs(np.asarray(ours) - expected).max() / scale
  print(f"\n{case.name:8} {method:32} {difference:.1e}", end="")
  assert difference < tolerance


PLAIN = {
  "saliency": (attribution.saliency, "Saliency", {}, {}),
  "saliency with signs": (
    attribution.saliency,
    "Saliency",
    {"abs": False},
    {"abs": False},
  ),
  "input x gradient": (
    attribution.input_x_gradient,
    "InputXGradient",
    {},
    {},
  ),
  "guided backpropagation": (
    attribution.guided_backprop,
    "GuidedBackprop",
    {},
    {},
  ),
  "deconvolution": (attribution.deconvolution, "Deconvolution", {}, {}),
}


@pytest.mark.parametrize("name", PLAIN)
# The hooks of captum say that they are set.
@pytest.mark.filterwarnings("ignore:Setting")
@pytest.mark.filterwarnings("ignore:Input Tensor")
def test_gradients(name, case, attr):
  method, peer, our_options, options = PLAIN[name]
  theirs = getattr(attr, peer)(case.network)
  maps = theirs.attribute(case.inputs, target=case.classes, **options)
  agree(case, name, method(*case.args, **our_options), maps, 1e-5)


@pytest.mark.parametrize(
  "rule", ["gauss_legendre", "trapezoid", "middle", "left", "right"]
)
def test_integrated_gradients(rule, case, attr):
  peer = attr.IntegratedGradients(case.network)
  name = rule if rule == "gauss_legendre" else f"riemann_{rule}"
  maps = peer.attribute(
    case.inputs,
    baselines=case.base,
    target=case.classes,
    n_steps=20,
    method=name.replace("_", "", name.startswith("gauss")),
  )
  ours = attribution.integrated_gradients(
    *case.args, baseline=case.baseline, steps=20, rule=rule
  )
  agree(case, f"integrated gradients, {rule}", ours, maps, 1e-5)


@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise(kind, case, attr, torch, monkeypatch):
  draws = Draws.of(case.x)
  turned = draws.transpose(1, 0, *(1 + a for a in case.axes[1:]))
  flat = torch.from_numpy(np.array(turned.reshape(-1, *turned.shape[2:])))
  monkeypatch.setattr(torch, "normal", lambda mean, deviation: flat)
  maps = attr.NoiseTunnel(attr.Saliency(case.network)).attribute(
    case.inputs,
    target=case.classes,
    nt_type=kind,
    nt_samples=COPIES,
    stdevs=SIGMA,
    abs=False,
  )
  method = noise.variance_over_noise
  if kind != "vargrad":
    method = functools.partial(
      noise.mean_over_noise, squared=kind == "smoothgrad_sq"
    )

  @jax.jit
  def compute(params, x, draws):
    slope = lambda z: attribution.saliency(
      case.f, params, z, case.target, abs=False
    )
    return method(slope, x, lambda i: draws[i], COPIES)

  agree(case, kind, compute(case.params, case.x, draws), maps, 1e-4)


def test_gradient_shap(case, attr, monkeypatch):
  points = Draws.points.T.ravel()
  monkeypatch.setattr(np.random, "uniform", lambda low, high, n: points)
  maps = attr.GradientShap(case.network).attribute(
    case.inputs,
    baselines=0 * case.base[:1],
    target=case.classes,
    n_samples=COPIES,
    stdevs=0.0,
  )

  @jax.jit
  def compute(params, x, points):
    zero = jnp.zeros_like(x)
    slope = lambda z: attribution.saliency(
      case.f, params, z, case.target, abs=False
    )
    draw = lambda i: (zero, zero, points[i])
    return noise.mean_over_paths(slope, x, draw, COPIES)

  ours = compute(case.params, case.x, Draws.points)
  agree(case, "gradient SHAP", ours, maps, 1e-5)


@pytest.mark.filterwarnings("ignore:Setting")
@pytest.mark.filterwarnings("ignore:Input Tensor")
def test_deep_lift(case, attr):
  maps = attr.DeepLift(case.network).attribute(
    case.inputs, baselines=case.base, target=case.classes
  )
  ours = attribution.deep_lift(
    *case.args, baseline=case.baseline, maxpool="gradient"
  )
  agree(case, "DeepLIFT", ours, maps, 1e-4)


@pytest.mark.filterwarnings("ignore:Setting")
@pytest.mark.filterwarnings("ignore:Input Tensor")
def test_class_activation_maps(case, attr):
  peer = attr.LayerGradCam(case.network, case.network.conv2)
  maps = peer.attribute(case.inputs, target=case.classes)
  ours = attribution.grad_cam(*case.args, layer=case.layer)
  agree(case, "Grad-CAM", ours, maps, 1e-5)
  peer = attr.GuidedGradCam(case.network, case.network.conv2)
  maps = peer.attribute(case.inputs, target=case.classes)
  ours = attribution.guided_grad_cam(*case.args, layer=case.layer)
  agree(case, "guided Grad-CAM", ours, maps, 1e-5)


def test_perturbations(case, attr, torch):
  peer = attr.Occlusion(case.network)
  maps = peer.attribute(
    case.inputs,
    sliding_window_shapes=(3, 5, 4),
    strides=(3, 3, 4),
    baselines=case.base,
    target=case.classes,
  )
  ours = attribution.occlusion(
    *case.args,
    window=(5, 4),
    strides=(3, 4),
    baseline=case.baseline,
    axes=case.spatial,
  )
  agree(case, "occlusion", ours, maps, 1e-5)
  groups = attribution.grid(case.x.shape, 3, axes=case.spatial)
  mask = torch.from_numpy(np.array(groups.transpose(case.axes)))
  maps = attr.FeatureAblation(case.network).attribute(
    case.inputs,
    baselines=case.base,
    target=case.classes,
    feature_mask=mask.expand(1, *case.inputs.shape[1:]),
  )
  ours = attribution.feature_ablation(
    *case.args, groups=groups, baseline=case.baseline
  )
  agree(case, "feature ablation", ours, maps, 1e-5)


def test_lime(case, attr, torch):
  """Both draw: the coefficients agree as far as 500 samples tell."""
  groups = attribution.grid(case.x.shape, 2, axes=case.spatial)
  mask = torch.from_numpy(np.array(groups.transpose(case.axes))).long()
  torch.manual_seed(0)
  maps = attr.Lime(case.network).attribute(
    case.inputs[:1],
    target=case.classes[:1],
    feature_mask=mask.expand(1, *case.inputs.shape[1:]),
    n_samples=500,
    perturbations_per_eval=100,
  )
  f, params, x, target = case.args
  ours = attribution.lime(
    jax.random.key(0),
    f,
    params,
    x[:1],
    target[:1],
    segments=groups,
    samples=500,
  )
  agree(case, "LIME, 500 samples", ours, maps, 0.3)


LRP = {
  "epsilon": (rules.epsilon(EPSILON), "EpsilonRule", {}),
  "epsilon 0.1": (rules.epsilon(0.1), "EpsilonRule", {"epsilon": 0.1}),
  "gamma": (rules.gamma(0.25, EPSILON), "GammaRule", {"gamma": 0.25}),
  "alpha 1, beta 0": (
    rules.positive_weights(EPSILON, bias=False),
    "Alpha1_Beta0_Rule",
    {"set_bias_to_zero": True},
  ),
}


@pytest.mark.parametrize("name", LRP)
@pytest.mark.filterwarnings("ignore:Setting")
@pytest.mark.filterwarnings("ignore:Input Tensor")
def test_relevance(name, case, attr):
  from captum.attr._utils import lrp_rules

  rule, peer, options = LRP[name]
  # Captum leaves its rules in the modules.
  network = copy.deepcopy(case.network)
  for path, module in network.named_modules():
    if path.startswith("conv"):
      module.rule = getattr(lrp_rules, peer)(**options)
  maps = attr.LRP(network).attribute(case.inputs, target=case.classes)
  pairs = [("conv.*", rule), (".*", rules.epsilon(EPSILON))]
  ours = attribution.lrp(*case.args, rules=pairs)
  agree(case, f"LRP, {name}", ours, maps, 1e-4)
