"""Layer-wise relevance propagation through any model."""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from effjax import tree as trees
from effjax.attribution import copies as repeated
from effjax.attribution import guided, jaxprs, propagation, rules
from effjax.attribution.rules import Rule
from effjax.attribution.units import Layer, Unit, Units, group

Array = jax.Array
Model = repeated.Model


class Composite(NamedTuple):
  """Which rule a layer gets, and what the rest of the model does.

  Attributes:
    paths: Pairs (regular expression, rule); the first that matches the name of
      a layer's kernel is taken. Before those below.
    first: The rule of the first layer, None for that of its kind.
    first_convolution: The rule of the first convolution, likewise.
    convolution: The rule of convolutions; None if `paths` must cover all.
    linear: The rule of other layers, likewise.
    affine: "epsilon" if shifts, such as those of batch normalisation, absorb
      relevance like a bias; "pass" if they do not, as those by a value of
      `jax.lax.stop_gradient` never do.
    epsilon: The stabiliser of sums, means and shifts; 0 divides by 0 to 0.
    start: The relevance of the target's logit: "logit" itself or "one", which a
      negative logit shares out with the opposite signs.
    maxpool: "gradient", or "z" to drop relevance of a result of 0.
  """

  paths: tuple[tuple[str, Rule], ...] = ()
  first: Rule | None = None
  first_convolution: Rule | None = None
  convolution: Rule | None = None
  linear: Rule | None = None
  affine: str = "epsilon"
  epsilon: float = 1e-9
  start: str = "logit"
  maxpool: str = "gradient"


_ZENNIT = Composite(
  linear=rules.epsilon(), affine="pass", epsilon=rules.EPSILON, start="one"
)


# "epsilon" has the defaults of captum, the next five are those of zennit and
# the last is that of the program of relative attributing propagation, which
# the study of SPADE uses.
COMPOSITES: Mapping[str, Composite] = {
  "epsilon": Composite(
    convolution=rules.epsilon(1e-9), linear=rules.epsilon(1e-9)
  ),
  "epsilon_plus": _ZENNIT._replace(convolution=rules.zplus()),
  "epsilon_plus_flat": _ZENNIT._replace(
    convolution=rules.zplus(), first=rules.flat()
  ),
  "epsilon_alpha2_beta1": _ZENNIT._replace(convolution=rules.alpha_beta()),
  "epsilon_gamma_box": _ZENNIT._replace(
    convolution=rules.generalised_gamma(), first_convolution=rules.zbox()
  ),
  "excitation_backprop": _ZENNIT._replace(
    convolution=rules.zplus(), linear=rules.zplus()
  ),
  "spade": Composite(
    first_convolution=rules.zbox(epsilon=1e-9),
    convolution=rules.separate(),
    linear=rules.separate(),
    affine="pass",
    epsilon=0.0,
    maxpool="z",
  ),
}


def lrp(
  f: Model,
  params: Any,
  x: Any,
  target: Any,
  *,
  rules: str | Rule | Composite | Sequence[tuple[str, Rule]] = "epsilon_plus",
) -> Array:
  """Returns the relevance of the input, passed back layer by layer.

  Bach et al. 2015, doi:10.1371/journal.pone.0130140. A layer is linear in x and
  in a parameter: a convolution or a product, with its bias. Elementwise
  functions pass relevance on, maxima pass it to the first largest entry, sums
  share it in proportion to their terms, and a product of two values that depend
  on x gives half to each (Achtibat et al. 2024, arXiv:2402.05602).

  Args:
    f: `(params, x) -> logits [B, A]`, see `guided_backprop`.
    params: The parameters, any tree.
    x: [B, ...] floating.
    target: [B] integers, or one for all.
    rules: A key of `COMPOSITES`; one rule of `effjax.attribution.rules` for all
      layers; pairs (regular expression, rule) for the names of kernels, the
      first that matches the whole name, and relevance starting with the logit;
      or a `Composite`. The bounds of "epsilon_gamma_box" are those of each
      image unless `COMPOSITES[...]._replace(first_convolution=zbox(low, high))`
      says otherwise.

  Returns:
    Maps like x. They sum to the logit, or to 1, but for what biases, shifts and
    stabilisers absorb.

  Raises:
    ValueError: As for `guided_backprop`; if `rules` are none of these, there is
      no such composite, a layer has no rule, or x passes through a primitive
      that has none.

  >>> f = lambda w, x: x @ w
  >>> w = jnp.array([[1.0], [-2.0]])
  >>> maps = lrp(f, w, jnp.array([[3.0, 1.0]]), 0, rules="epsilon")
  >>> maps.round(4).tolist()
  [[3.0, -2.0]]
  """
  composite = _read(rules)
  f, params, x, target, names = guided.read(f, params, x, target)
  return _lrp(f, names, composite, params, x, target)


def _read(given: Any) -> Composite:
  if isinstance(given, Composite):
    return given
  if isinstance(given, Rule):
    return Composite(convolution=given, linear=given)
  if isinstance(given, str):
    if given not in COMPOSITES:
      raise ValueError(
        f"there is no composite {given!r}; the nearest are"
        f" {', '.join(trees.nearest(given, list(COMPOSITES), 3))}"
      )
    return COMPOSITES[given]
  # What is no iterable stands for the pair that it is not.
  pairs = tuple(given) if isinstance(given, Iterable) else (given,)
  for pair in pairs:
    if not _is_pair(pair):
      raise ValueError(
        "rules must be pairs (regular expression, rule of"
        " effjax.attribution.rules) in a list, one such rule, a Composite or a"
        f" key of COMPOSITES, got {pair!r} for a pair"
      )
  return Composite(paths=tuple((name, rule) for name, rule in pairs))


def _is_pair(given: Any) -> bool:
  return (
    isinstance(given, tuple | list)
    and len(given) == 2
    and isinstance(given[0], str | re.Pattern)
    and isinstance(given[1], Rule)
  )


def choose(composite: Composite, units: Units) -> dict[int, Rule]:
  """Chooses a rule for every layer.

  Args:
    composite: What to choose by.
    units: A model.

  Returns:
    The rules by the indices of layers, in the order of their computation.

  Raises:
    ValueError: If a layer has no rule.
  """
  chosen, seen = {}, False
  for _, layer in units.layers():
    own = [
      rule
      for pattern, rule in composite.paths
      if any(re.fullmatch(pattern, name) for name in layer.names)
    ]
    kind = composite.convolution if layer.convolution else composite.linear
    rule = own[0] if own else kind
    if not own and layer.convolution and not seen:
      rule = composite.first_convolution or rule
    if not own and not layer.index:
      rule = composite.first or rule
    if rule is None:
      patterns = [pattern for pattern, _ in composite.paths]
      raise ValueError(
        f"no rule covers the layer with the kernel {layer.names[0]!r}; the"
        " nearest patterns are"
        f" {', '.join(trees.nearest(layer.names[0], patterns, 3)) or 'none'}."
        " End the rules with ('.*', rule) to cover the rest"
      )
    seen = seen or layer.convolution
    chosen[layer.index] = rule
  return chosen


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _lrp(f, names, composite, params, x, target):
  units = group(jaxprs.trace(f, names, params, x))
  chosen = choose(composite, units)
  values = jaxprs.run(units.graph, params, x)

  def rule(unit, got):
    if unit.layer is not None:
      linear = _linear(unit, unit.layer, values)
      return [rules.apply(chosen[unit.layer.index], linear, got[0])]
    return _pass_on(unit, values, got, composite)

  start = guided.one_hot(units, target)
  if composite.start == "logit":
    start = start * repeated.widen(values[units.graph.output])
  return propagation.map_of(units, propagation.walk(units, start, rule), x)


def _linear(unit: Unit, layer: Layer, values: Sequence[Array]) -> rules.Linear:
  (source,) = unit.inputs
  plain = unit._replace(nodes=unit.nodes[:1], outputs=unit.nodes[0].outputs)

  def product(x, kernel):
    known = {source: x, layer.kernel: kernel}
    return propagation.evaluate(plain, values, known)[0]

  kernel = values[layer.kernel]
  bias = 0 if layer.bias is None else values[layer.bias]
  bias = jnp.asarray(bias, kernel.dtype)
  return rules.Linear(values[source], kernel, bias, product)


def _pass_on(
  unit: Unit,
  values: Sequence[Array],
  got: Sequence[Array | None],
  composite: Composite,
) -> Sequence[Array | None]:
  """Passes relevance through a unit that is not a layer."""
  if unit.kind == "stop":
    return [None]
  if unit.kind == "elementwise":
    return got
  if unit.kind == "affine" and not (
    unit.shifts and composite.affine == "epsilon"
  ):
    return got
  if unit.kind in ("maximum", "minimum"):
    if composite.maxpool == "z":
      empty = values[unit.outputs[0]] == 0
      got = [None if g is None else jnp.where(empty, 0, g) for g in got]
    return propagation.pull_back(unit, values, got)
  # Where x chooses between values, the choice itself gets nothing.
  if unit.kind == "move" or unit.primitive == "select_n":
    return propagation.pull_back(unit, values, got)
  if unit.kind not in ("affine", "sum", "product"):
    raise ValueError(
      f"lrp has no rule for the primitive {unit.primitive!r} of values that"
      " depend on x; wrap a factor that should get no relevance, such as a"
      " norm, in jax.lax.stop_gradient, or use deep_lift or"
      " integrated_gradients"
    )
  shares = [
    None
    if share is None
    else rules.divide(share, repeated.widen(values[i]), composite.epsilon)
    for share, i in zip(got, unit.outputs, strict=True)
  ]
  pulled = propagation.pull_back(unit, values, shares)
  factor = 0.5 if unit.kind == "product" else 1.0
  return [
    None if p is None else factor * repeated.widen(values[i]) * p
    for p, i in zip(pulled, unit.inputs, strict=True)
  ]
