"""Rules of layer-wise relevance propagation, for one linear layer each.

A layer computes z = W x + b; a rule shares the relevance R of its result among
its inputs. All are sums of terms x' (W'^T s) with s = R / z' and changed inputs
x', weights W' and sums z'. Denominators are moved away from 0 by epsilon, with
the sign of z (that of 0 is +). x+ and x- are positive and negative parts.

    rules.gamma(0.25)                    a rule
    rules.Rule(my_function, (1.0, 2.0))  another: `(linear, R, 1.0, 2.0) -> R`
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.attribution.copies import widen

Array = jax.Array

EPSILON = 1e-6


class Linear(NamedTuple):
  """A linear layer at an input.

  Attributes:
    input: [B, ...].
    kernel: Its weights.
    bias: What is added to the product, an array that broadcasts to it; 0
      without.
    product: From an input and a kernel to the result without bias.
  """

  input: Array
  kernel: Array
  bias: Array
  product: Callable[[Array, Array], Array]


class Rule(NamedTuple):
  """A function with its options; equal ones are compiled once.

  Attributes:
    function: `(linear, relevance, *options) -> relevance` of the input.
    options: Numbers, strings, tuples or None.
  """

  function: Callable[..., Array]
  options: tuple = ()


def epsilon(epsilon: float = EPSILON) -> Rule:
  """Returns the rule x (W^T R / (z + epsilon)).

  Bach et al. 2015, doi:10.1371/journal.pone.0130140, eq. 58.

  Args:
    epsilon: The stabiliser.

  Returns:
    A rule.

  >>> linear = Linear(jnp.ones((1, 2)), jnp.eye(2), jnp.zeros(()), jnp.matmul)
  >>> apply(epsilon(0.0), linear, jnp.array([[3.0, 5.0]])).tolist()
  [[3.0, 5.0]]
  """
  return Rule(_epsilon, (epsilon,))


def gamma(gamma: float = 0.25, epsilon: float = EPSILON) -> Rule:
  """Returns the epsilon rule with the weights W + gamma W+.

  For inputs that are not negative; the bias stays as it is, as in captum.
  Montavon et al. 2019, doi:10.1007/978-3-030-28954-6_10.

  Args:
    gamma: How much positive weights are preferred.
    epsilon: The stabiliser.

  Returns:
    A rule.
  """
  return Rule(_gamma, (gamma, epsilon))


def generalised_gamma(gamma: float = 0.25, epsilon: float = EPSILON) -> Rule:
  """Returns the gamma rule for inputs of both signs.

  Where z > 0 products that are positive are preferred, where z < 0 those that
  are negative; so in zennit. Anders et al. 2021, arXiv:2106.13200.

  Args:
    gamma: How much they are preferred.
    epsilon: The stabiliser.

  Returns:
    A rule.
  """
  return Rule(_generalised_gamma, (gamma, epsilon))


def zplus(epsilon: float = EPSILON) -> Rule:
  """Returns the rule of positive products: W+ x+ + W- x- (+ b+).

  Montavon et al. 2017, arXiv:1512.02479, also alpha 1, beta 0.

  Args:
    epsilon: The stabiliser.

  Returns:
    A rule.
  """
  return alpha_beta(1.0, 0.0, epsilon)


def alpha_beta(
  alpha: float = 2.0, beta: float = 1.0, epsilon: float = EPSILON
) -> Rule:
  """Returns alpha times the positive products less beta times the negative.

  Bach et al. 2015, eq. 60; positive products have one denominator, negative
  ones another, the parts of the bias included.

  Args:
    alpha: Weight of the positive ones.
    beta: Weight of the negative ones; relevance is kept if alpha - beta = 1.
    epsilon: The stabiliser.

  Returns:
    A rule.
  """
  return Rule(_alpha_beta, (alpha, beta, epsilon))


def positive_weights(epsilon: float = EPSILON, *, bias: bool = True) -> Rule:
  """Returns the epsilon rule with W+ on the input as it is.

  What captum calls alpha 1, beta 0; it is that for inputs that are not
  negative.

  Args:
    epsilon: The stabiliser.
    bias: Whether the bias is kept.

  Returns:
    A rule.
  """
  return Rule(_positive_weights, (epsilon, bias))


def separate(alpha: float = 1.0) -> Rule:
  """Returns the rule of W+ x+ and W- x- with a denominator each.

  Without bias, 0 where a denominator is 0; so in the code of relative
  attributing propagation, Nam et al. 2020, arXiv:1904.00605. An output to which
  both parts contribute passes its relevance on twice.

  Args:
    alpha: Weight; (alpha - 1) times the negative products are taken off.

  Returns:
    A rule.
  """
  return Rule(_separate, (alpha,))


def flat(epsilon: float = EPSILON) -> Rule:
  """Returns the rule that spreads relevance evenly over the inputs.

  Args:
    epsilon: The stabiliser.

  Returns:
    A rule.
  """
  return Rule(_flat, (epsilon,))


def wsquare(epsilon: float = EPSILON) -> Rule:
  """Returns the rule of squared weights, without input or bias.

  Montavon et al. 2017, arXiv:1512.02479.

  Args:
    epsilon: The stabiliser.

  Returns:
    A rule.
  """
  return Rule(_wsquare, (epsilon,))


def zbox(low: Any = None, high: Any = None, epsilon: float = EPSILON) -> Rule:
  """Returns the rule for inputs between bounds, such as pixels.

  Denominator W x - W+ l - W- h. Montavon et al. 2017, arXiv:1512.02479.

  Args:
    low: The lower bound of the layer's input, a number or nested lists that
      broadcast to it, [C] where channels are last; None for the smallest
      entry of each example.
    high: The upper bound likewise.
    epsilon: The stabiliser.

  Returns:
    A rule.
  """
  return Rule(_zbox, (_frozen(low), _frozen(high), epsilon))


def apply(rule: Rule, linear: Linear, relevance: Array) -> Array:
  """Applies a rule.

  Args:
    rule: A rule.
    linear: A layer.
    relevance: That of its result.

  Returns:
    That of its input, float32 at least.
  """
  return rule.function(linear, relevance, *rule.options)


def divide(relevance: Array, z: Array, epsilon: float) -> Array:
  """Divides relevance by a sum.

  Args:
    relevance: Any array.
    z: Of its shape.
    epsilon: Added with the sign of z. At 0, the quotient by 0 is 0.

  Returns:
    The quotient.
  """
  if epsilon:
    return relevance / (z + jnp.where(z < 0, -epsilon, epsilon))
  zero = z == 0
  return jnp.where(zero, 0, relevance / jnp.where(zero, 1, z))


def _frozen(bound: Any) -> Any:
  """Returns nested tuples, which compare by their numbers."""
  tuples = lambda b: tuple(map(tuples, b)) if isinstance(b, list) else b
  return None if bound is None else tuples(np.asarray(bound).tolist())


def _positive(x: Array) -> Array:
  return jnp.maximum(x, 0)


def _negative(x: Array) -> Array:
  return jnp.minimum(x, 0)


def _term(
  linear: Linear, x: Array, kernel: Array, bias: Any = 0.0
) -> tuple[Array, Callable[[Array], Array]]:
  """Returns W x + b and the function s -> x (W^T s)."""
  z, pull = jax.vjp(lambda x: linear.product(x, kernel), x)
  total = widen(z) + jnp.asarray(bias, widen(z).dtype)

  def back(s: Array) -> Array:
    # What is divided by little may be too large for the type of a half.
    scale = jnp.ones((), s.dtype)
    if z.dtype != s.dtype:
      _, exponent = jnp.frexp(jnp.max(jnp.abs(s), initial=0.0))
      scale = jnp.ldexp(scale, exponent)
    return widen(x) * widen(pull((s / scale).astype(z.dtype))[0]) * scale

  return total, back


def _shared(relevance: Array, epsilon: float, *terms: tuple) -> Array:
  """Shares relevance among terms with one denominator."""
  total = functools.reduce(jnp.add, [z for z, _ in terms])
  s = divide(relevance, total, epsilon)
  return functools.reduce(jnp.add, [back(s) for _, back in terms])


def _epsilon(linear, relevance, epsilon):
  term = _term(linear, linear.input, linear.kernel, linear.bias)
  return _shared(relevance, epsilon, term)


def _gamma(linear, relevance, gamma, epsilon):
  kernel = linear.kernel + gamma * _positive(linear.kernel)
  term = _term(linear, linear.input, kernel, linear.bias)
  return _shared(relevance, epsilon, term)


def _generalised_gamma(linear, relevance, gamma, epsilon):
  z, _ = _term(linear, linear.input, linear.kernel, linear.bias)
  plus, minus = _positive(linear.input), _negative(linear.input)

  def preferred(part, other):
    more, less = (
      linear.kernel + gamma * side(linear.kernel) for side in (part, other)
    )
    bias = linear.bias + gamma * part(linear.bias)
    return _term(linear, plus, more, bias), _term(linear, minus, less)

  up = _shared(
    jnp.where(z > 0, relevance, 0), epsilon, *preferred(_positive, _negative)
  )
  down = _shared(
    jnp.where(z < 0, relevance, 0), epsilon, *preferred(_negative, _positive)
  )
  return up + down


def _products(linear, part, other, bias):
  """Returns the terms of products of one sign."""
  plus, minus = _positive(linear.input), _negative(linear.input)
  return (
    _term(linear, plus, part(linear.kernel), part(bias)),
    _term(linear, minus, other(linear.kernel)),
  )


def _alpha_beta(linear, relevance, alpha, beta, epsilon):
  terms = _products(linear, _positive, _negative, linear.bias)
  shared = alpha * _shared(relevance, epsilon, *terms)
  if not beta:
    return shared
  terms = _products(linear, _negative, _positive, linear.bias)
  return shared - beta * _shared(relevance, epsilon, *terms)


def _positive_weights(linear, relevance, epsilon, bias):
  kernel = _positive(linear.kernel)
  bias = linear.bias if bias else 0.0
  return _shared(relevance, epsilon, _term(linear, linear.input, kernel, bias))


def _separate(linear, relevance, alpha):
  def parts(part, other):
    terms = _products(linear, part, other, jnp.zeros(()))
    return sum(_shared(relevance, 0, term) for term in terms)

  shared = alpha * parts(_positive, _negative)
  if alpha == 1:
    return shared
  return shared - (alpha - 1) * parts(_negative, _positive)


def _flat(linear, relevance, epsilon):
  ones = jnp.ones_like(linear.input), jnp.ones_like(linear.kernel)
  return _shared(relevance, epsilon, _term(linear, *ones))


def _wsquare(linear, relevance, epsilon):
  ones = jnp.ones_like(linear.input)
  return _shared(relevance, epsilon, _term(linear, ones, linear.kernel**2))


def _zbox(linear, relevance, low, high, epsilon):
  x = linear.input
  axes = tuple(range(1, x.ndim))

  def bound(value, reduce):
    if value is None:
      return jnp.broadcast_to(reduce(x, axis=axes, keepdims=True), x.shape)
    return jnp.broadcast_to(jnp.asarray(value, x.dtype), x.shape)

  whole = _term(linear, x, linear.kernel)
  below = _term(linear, -bound(low, jnp.min), _positive(linear.kernel))
  above = _term(linear, -bound(high, jnp.max), _negative(linear.kernel))
  return _shared(relevance, epsilon, whole, below, above)
