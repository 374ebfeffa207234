"""Losses that make a language model forget some texts, and keep others.

Logits are [B, T, V] and labels [B, T]; the logits at t predict the label at
t + 1. Labels of -100 (any negative number) are ignored, and so is the one at
position 0, which nothing predicts. N is the loss of a text, the sum of its
tokens', |x| the number of its labels. A text without labels is padding: it is
left out of every mean; a batch of nothing else gives NaN. The reference model
is the one before unlearning, and gets no gradients. Statistics are float32 or
wider, and losses finite however sure the model is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

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
  losses, counted = _token_losses(logits, labels)
  return _mean(losses, counted)


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
  reference = jax.nn.log_softmax(_wide(_fixed(reference_logits, logits)))
  current = jax.nn.log_softmax(_wide(logits))
  p = jnp.exp(reference)
  rows = jnp.sum(jnp.where(p > 0, p * (reference - current), 0.0), axis=-1)
  mask = jnp.ones(rows.shape, bool) if mask is None else jnp.asarray(mask)
  if (mask.shape, mask.dtype) != (rows.shape, jnp.bool_):
    given = f"{mask.dtype} {mask.shape}"
    raise ValueError(f"the mask must be bool {rows.shape}, got {given}")
  return _mean(rows, mask)


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
    beta: How soon it fades, b.

  Returns:
    The forget term [].
  """
  answers = Answers(logits, reference_logits, labels)
  gained, labelled = _gained(answers)
  return _preference(gained, labelled, beta)


def simnpo(
  logits: Array, labels: Array, *, beta: Any = 4.5, delta: Any = 0.0
) -> Array:
  """Do as NPO does without a reference, by the loss of a token (SimNPO).

  -(2/b) mean log sigmoid(b (N / |x| - d)). Fan et al., "Simplicity Prevails"
  (arXiv 2410.07163), whose published weights are gamma=0.125, alpha=1.

  Args:
    logits: [B, T, V].
    labels: [B, T].
    beta: How soon it fades, b.
    delta: Margin of the reward, d.

  Returns:
    The forget term [].
  """
  losses, counted = _token_losses(logits, labels)
  number = jnp.sum(counted, axis=-1).astype(losses.dtype)
  each = jnp.sum(losses, axis=-1) / jnp.maximum(number, 1.0)
  return _preference(each - delta, number > 0, beta)


def dpo(
  win: Answers | tuple, lose: Answers | tuple, *, beta: Any = 0.1
) -> Array:
  """Prefer other answers, such as refusals, to those to forget (DPO).

  -(2/b) mean log sigmoid(b [(N_ref - N)_win - (N_ref - N)_lose]). Rafailov et
  al., "Direct Preference Optimization" (arXiv 2305.18290), scaled like NPO.

  Args:
    win: (logits, reference_logits, labels) of the answers to prefer.
    lose: The same of those to forget, in the same order.
    beta: How soon it fades, b.

  Returns:
    The forget term [].

  Raises:
    ValueError: If there are not as many of both, or shapes do not fit.
  """
  (won, some), (lost, others) = (_gained(Answers(*x)) for x in (win, lose))
  if won.shape != lost.shape:
    raise ValueError(f"{len(won)} answers to prefer, {len(lost)} to forget")
  return _preference(lost - won, some & others, beta)


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
  """
  target = jax.lax.stop_gradient(direction) * scale
  target = jnp.broadcast_to(target, activations.shape[-1:])[None, None, :]
  return _distance(activations, target, labels)


def rmu_direction(key: Array, width: int, dtype: Any = jnp.float32) -> Array:
  """Draw the direction of RMU: uniform in the positive cube, of length 1.

  Args:
    key: A random key.
    width: D.
    dtype: Type of the result.

  Returns:
    The direction [D].
  """
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
  return _distance(activations, _fixed(reference, activations), labels)


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
    beta: By how much the label's logit is lowered, b.

  Returns:
    The forget term [].
  """
  reference = _wide(_fixed(reference_logits, logits))[:, :-1]
  current = jax.nn.log_softmax(_wide(logits))[:, :-1]
  labels = _checked(logits, labels)[:, 1:]
  hit = jax.nn.one_hot(labels, logits.shape[-1], dtype=reference.dtype)
  teacher = jax.nn.softmax(reference - beta * hit)
  rows = jnp.where(teacher > 0, teacher * current, 0.0)
  return _mean(-jnp.sum(rows, axis=-1), labels >= 0)


def wga(logits: Array, labels: Array, *, beta: Any = 1.0) -> Array:
  """Climb where the model is still sure (WGA): -mean_t sg(p_t^b) l_t.

  Wang et al., "Rethinking LLM Unlearning Objectives" (arXiv 2502.19301).

  Args:
    logits: [B, T, V].
    labels: [B, T].
    beta: Power of the probability, b.

  Returns:
    The forget term [].
  """
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
    beta1: Power of the probability, b1.
    beta2: Power of what it lacks to 1, b2.

  Returns:
    The forget term [].
  """
  losses, counted = _token_losses(logits, labels)
  # 1 - p as it is, however close p is to 1; a rounded loss may be below 0.
  rest = jnp.maximum(-jnp.expm1(-losses), 0.0)
  weights = jnp.exp(-beta1 * losses) * rest**beta2
  return -_mean(jax.lax.stop_gradient(weights) * losses, counted)


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


def _wide(x: Array) -> Array:
  return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def _fixed(reference: Array, like: Array) -> Array:
  reference = jax.lax.stop_gradient(jnp.asarray(reference))
  if reference.shape != like.shape:
    raise ValueError(
      f"the reference has shape {reference.shape}, the model {like.shape}"
    )
  return reference


def _checked(logits: Array, labels: Array) -> Array:
  labels = jnp.asarray(labels)
  if logits.ndim != 3 or labels.shape != logits.shape[:2]:
    raise ValueError(
      f"logits must be [B, T, V] and labels [B, T], got shapes {logits.shape}"
      f" and {labels.shape}"
    )
  return labels


def _token_losses(logits: Array, labels: Array) -> tuple[Array, Array]:
  """Return the losses of tokens [B, T - 1], and which of them count."""
  labels = _checked(logits, labels)[:, 1:]
  counted = labels >= 0
  losses = optax.softmax_cross_entropy_with_integer_labels(
    _wide(logits)[:, :-1], jnp.where(counted, labels, 0)
  )
  return jnp.where(counted, losses, 0.0), counted


def _gained(answers: Answers) -> tuple[Array, Array]:
  """Return by how much the loss of texts grew [B], and which have labels."""
  reference = _fixed(answers.reference_logits, answers.logits)
  now, counted = _token_losses(answers.logits, answers.labels)
  before, _ = _token_losses(reference, answers.labels)
  return jnp.sum(now - before, axis=-1), jnp.any(counted, axis=-1)


def _preference(margin: Array, labelled: Array, beta: Any) -> Array:
  return -2.0 / beta * _mean(jax.nn.log_sigmoid(beta * margin), labelled)


def _distance(activations: Array, target: Array, labels: Array) -> Array:
  h = _wide(activations)
  counted = _checked(activations, labels) >= 0
  squares = jnp.mean((h - target.astype(h.dtype)) ** 2, axis=-1)
  squares = jnp.where(counted, squares, 0.0)
  number = jnp.sum(counted, axis=-1).astype(h.dtype)
  each = jnp.sum(squares, axis=-1) / jnp.maximum(number, 1.0)
  return _mean(each, number > 0)


def _mean(values: Array, counted: Array) -> Array:
  """Average what counts; NaN if nothing does."""
  number = jnp.sum(counted, dtype=jnp.int32).astype(values.dtype)
  return jnp.sum(jnp.where(counted, values, 0.0)) / number
