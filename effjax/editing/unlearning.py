"""Losses that make a language model forget some texts, and keep others.

Logits are [B, T, V] and labels [B, T]; the logits at t predict the label at
t + 1. Labels of -100 (any negative number) are ignored, and so is the one at
position 0, which nothing predicts. N is the loss of a text, the sum of its
tokens', |x| the number of its labels. A text without labels is padding: it is
left out of every mean; a batch of nothing else gives NaN. What is not counted
may be anything, NaN included; a NaN that is counted stays one. The reference
model is the one before unlearning, and gets no gradients. Statistics are
float32 or wider, and losses finite however sure the model is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from effjax import arguments
from effjax.editing.token_losses import (
  checked,
  fixed,
  gained,
  mean,
  mean_of_texts,
  preference,
  token_losses,
  wide,
)

Array = jax.Array


class Answers(NamedTuple):
  """Answers to prompts, and what two models make of them.

  Attributes:
    logits: [B, T, V], of the model that is trained.
    reference_logits: Likewise, of the reference model.
    labels: [B, T].
  """

  logits: Array
  reference_logits: Array
  labels: Array


def nll(logits: Array, labels: Array) -> Array:
  """Average the loss of all labelled tokens: the usual retain term.

  Args:
    logits: [B, T, V].
    labels: [B, T].

  Returns:
    The mean negative log-likelihood [].
  """
  losses, counted = token_losses(logits, labels)
  return mean(losses, counted)


def gradient_ascent(logits: Array, labels: Array) -> Array:
  """Climb where training went down (GA): minus the mean loss, unbounded.

  Args:
    logits: [B, T, V].
    labels: [B, T].

  Returns:
    The forget term [].
  """
  return -nll(logits, labels)


def grad_diff(
  logits: Array,
  labels: Array,
  retain_logits: Array,
  retain_labels: Array,
  *,
  gamma: Any = 1.0,
  alpha: Any = 1.0,
) -> Array:
  """Climb on the texts to forget, and descend on those to keep (GradDiff).

  Args:
    logits: [B, T, V], of the texts to forget.
    labels: [B, T].
    retain_logits: [B', T', V], of the texts to keep.
    retain_labels: [B', T'].
    gamma: What the forget term weighs.
    alpha: What the retain term weighs.

  Returns:
    The total loss [].
  """
  forget = gradient_ascent(logits, labels)
  retain = nll(retain_logits, retain_labels)
  return combine(forget, retain, gamma=gamma, alpha=alpha)


def kl(
  logits: Array, reference_logits: Array, *, mask: Array | None = None
) -> Array:
  """Measure how far the model moved from the reference: a retain term.

  KL(reference || current), averaged over all B T positions without a shift, as
  published, or over those of the mask.

  Args:
    logits: [B, T, V].
    reference_logits: [B, T, V].
    mask: bool [B, T], True = counted.

  Returns:
    The divergence in nats [].

  Raises:
    ValueError: If shapes do not fit, or the mask is not bool.
  """
  logits = jnp.asarray(logits)
  reference_logits = fixed(reference_logits, logits)
  shape = logits.shape[:-1]
  mask = jnp.ones(shape, bool) if mask is None else jnp.asarray(mask)
  if (mask.shape, mask.dtype) != (shape, jnp.bool_):
    given = f"{mask.dtype} {mask.shape}"
    raise ValueError(f"the mask must be bool {shape}, got {given}")
  reference, current = (
    jax.nn.log_softmax(jnp.where(mask[..., None], wide(x), 0.0))
    for x in (reference_logits, logits)
  )
  p = jnp.exp(reference)
  # Not p > 0, which a NaN is not either.
  rows = jnp.where(p == 0, 0.0, p * (reference - current))
  return mean(jnp.sum(rows, axis=-1), mask)


def npo(
  logits: Array, reference_logits: Array, labels: Array, *, beta: Any = 0.1
) -> Array:
  """Treat the texts as dispreferred answers without a preferred one (NPO).

  -(2/b) mean log sigmoid(b (N - N_ref)), gradient ascent that fades where a
  text is already less likely than before, and is `gradient_ascent` of sums as
  b -> 0. Zhang et al., "Negative Preference Optimization" (arXiv 2404.05868),
  equation 3.

  Args:
    logits: [B, T, V].
    reference_logits: [B, T, V].
    labels: [B, T].
    beta: How soon it fades, b, above 0.

  Returns:
    The forget term [].

  Raises:
    ValueError: If shapes do not fit, a label is none, or beta is not above 0.
  """
  more, labelled = gained(logits, reference_logits, labels)
  return preference(more, labelled, beta)


def simnpo(
  logits: Array, labels: Array, *, beta: Any = 4.5, delta: Any = 0.0
) -> Array:
  """Do as NPO does without a reference, by the loss of a token (SimNPO).

  -(2/b) mean log sigmoid(b (N / |x| - d)). Fan et al., "Simplicity Prevails"
  (arXiv 2410.07163), whose published weights are gamma=0.125, alpha=1.

  Args:
    logits: [B, T, V].
    labels: [B, T].
    beta: How soon it fades, b, above 0.
    delta: Margin of the reward, d.

  Returns:
    The forget term [].

  Raises:
    ValueError: If shapes do not fit, a label is none, or beta is not above 0.
  """
  losses, counted = token_losses(logits, labels)
  number = jnp.sum(counted, axis=-1).astype(losses.dtype)
  each = jnp.sum(losses, axis=-1) / jnp.maximum(number, 1.0)
  return preference(each - delta, number > 0, beta)


def dpo(
  win: Answers | tuple, lose: Answers | tuple, *, beta: Any = 0.1
) -> Array:
  """Prefer other answers, such as refusals, to those to forget (DPO).

  -(2/b) mean log sigmoid(b [(N_ref - N)_win - (N_ref - N)_lose]). Rafailov et
  al., "Direct Preference Optimization" (arXiv 2305.18290), scaled like NPO.

  Args:
    win: (logits, reference_logits, labels) of the answers to prefer.
    lose: The same of those to forget, in the same order.
    beta: How soon it fades, b, above 0.

  Returns:
    The forget term [].

  Raises:
    ValueError: If there are not as many of both, or as for `npo`.
  """
  (won, some), (lost, others) = (gained(*Answers(*x)) for x in (win, lose))
  if won.shape != lost.shape:
    raise ValueError(f"{len(won)} answers to prefer, {len(lost)} to forget")
  return preference(lost - won, some & others, beta)


def rmu(
  activations: Array, direction: Array, labels: Array, *, scale: Any = 20.0
) -> Array:
  """Push what a layer says about the texts towards a random direction (RMU).

  The mean over texts of the mean over labelled positions of mean_d (h - c u)^2.
  No layer above needs to run. Li et al., "The WMDP Benchmark" (arXiv
  2403.03218). Published programs set c to 20 or 2.

  Args:
    activations: h [B, T, D], outputs of one layer.
    direction: u [D], see `rmu_direction`.
    labels: [B, T], which here say where to look, without a shift.
    scale: Length of the target, c.

  Returns:
    The forget term [].

  Raises:
    ValueError: If shapes do not fit.
  """
  activations, direction = map(jnp.asarray, (activations, direction))
  if direction.shape != activations.shape[-1:]:
    raise ValueError(
      f"the direction must be [D] = {list(activations.shape[-1:])}, got shape"
      f" {direction.shape}"
    )
  target = jax.lax.stop_gradient(direction) * scale
  return mean_of_texts(activations, target[None, None, :], labels)


def rmu_direction(key: Array, width: int, dtype: Any = jnp.float32) -> Array:
  """Draw the direction of RMU: uniform in the positive cube, of length 1.

  Args:
    key: A random key.
    width: D.
    dtype: Type of the result.

  Returns:
    The direction [D].

  Raises:
    ValueError: If the width is no whole number above 0.
  """
  width = arguments.whole("width", width)
  direction = jax.random.uniform(key, (width,), dtype)
  return direction / jnp.linalg.norm(direction)


def activation_distance(
  activations: Array, reference: Array, labels: Array
) -> Array:
  """Measure how far a layer moved from the reference: RMU's retain term.

  Args:
    activations: [B, T, D].
    reference: [B, T, D], of the reference model.
    labels: [B, T], which say where to look, without a shift.

  Returns:
    The mean over texts of the mean squared distance of a labelled position [].
  """
  activations = jnp.asarray(activations)
  return mean_of_texts(activations, fixed(reference, activations), labels)


def undial(
  logits: Array, reference_logits: Array, labels: Array, *, beta: Any = 10.0
) -> Array:
  """Distil from a reference that likes the labels less (UNDIAL).

  The cross-entropy against softmax(reference - b onehot(label)), averaged over
  labelled tokens. Dong et al. (arXiv 2402.10052), who have no retain term.

  Args:
    logits: [B, T, V].
    reference_logits: [B, T, V].
    labels: [B, T].
    beta: By how much the label's logit is lowered, b, 0 or more.

  Returns:
    The forget term [].

  Raises:
    ValueError: If shapes do not fit, a label is none, or beta is below 0.
  """
  arguments.finite("beta", beta, 0)
  logits, labels = checked(logits, labels)
  size = logits.shape[-1]
  counted = labels >= 0
  reference, current = (
    jnp.where(counted[..., None], wide(x)[:, :-1], 0.0)
    for x in (fixed(reference_logits, logits), logits)
  )
  hit = jax.nn.one_hot(labels, size, dtype=reference.dtype)
  # A label that there is not gives NaN, as in the other losses.
  hit = jnp.where(labels[..., None] < size, hit, jnp.nan)
  teacher = jax.nn.softmax(reference - beta * hit)
  # Not teacher > 0, which a NaN is not either.
  rows = jnp.where(teacher == 0, 0.0, teacher * jax.nn.log_softmax(current))
  return mean(-jnp.sum(rows, axis=-1), counted)


def wga(logits: Array, labels: Array, *, beta: Any = 1.0) -> Array:
  """Climb where the model is still sure (WGA): -mean_t sg(p_t^b) l_t.

  Wang et al., "Rethinking LLM Unlearning Objectives" (arXiv 2502.19301).

  Args:
    logits: [B, T, V].
    labels: [B, T].
    beta: Power of the probability, b, 0 or more.

  Returns:
    The forget term [].

  Raises:
    ValueError: If shapes do not fit, a label is none, or beta is below 0.
  """
  arguments.finite("beta", beta, 0)
  return satimp(logits, labels, beta1=beta, beta2=0.0)


def satimp(
  logits: Array, labels: Array, *, beta1: Any = 5.0, beta2: Any = 1.0
) -> Array:
  """Climb on tokens by saturation and importance (SatImp).

  -mean_t sg(p_t^b1 (1 - p_t)^b2) l_t over labelled tokens. Yang et al. (arXiv
  2505.11953), published with gamma=0.1, alpha=1.

  Args:
    logits: [B, T, V].
    labels: [B, T].
    beta1: Power of the probability, b1, 0 or more.
    beta2: Power of what it lacks to 1, b2, 0 or more.

  Returns:
    The forget term [].

  Raises:
    ValueError: If shapes do not fit, a label is none, or a power is below 0.
  """
  arguments.finite("beta1", beta1, 0)
  arguments.finite("beta2", beta2, 0)
  losses, counted = token_losses(logits, labels)
  # 1 - p as it is, however close p is to 1; a rounded loss may be below 0.
  rest = jnp.maximum(-jnp.expm1(-losses), 0.0)
  # Where p = 0 the loss is infinite: p^0 is 1 there too, and p^b l is 0.
  power = jnp.where(jnp.asarray(beta1) == 0, 0.0, beta1 * losses)
  weights = jax.lax.stop_gradient(jnp.exp(-power) * rest**beta2)
  return -mean(jnp.where(weights == 0, 0.0, weights * losses), counted)


def combine(
  forget: Array, retain: Array, *, gamma: Any = 1.0, alpha: Any = 1.0
) -> Array:
  """Add a forget and a retain term.

  Args:
    forget: What shall be forgotten [].
    retain: What shall be kept [].
    gamma: What the forget term weighs.
    alpha: What the retain term weighs.

  Returns:
    gamma forget + alpha retain [].

  >>> float(combine(jnp.array(2.0), jnp.array(1.0), gamma=0.5))
  2.0
  """
  return gamma * forget + alpha * retain


# Name -> loss, for configs; what each takes its docstring says.
LOSSES: dict[str, Callable[..., Array]] = {
  loss.__name__: loss
  for loss in (
    *(nll, gradient_ascent, grad_diff, kl, npo, simnpo, dpo),
    *(rmu, activation_distance, undial, wga, satimp),
  )
}
