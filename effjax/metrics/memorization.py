"""What a model knows by heart, and whether its losses give that away.

Measures of MUSE (Shi et al., arXiv 2407.06460) and OpenUnlearning (arXiv
2506.12618). Logits are [B, T, V] and labels [B, T]; the logits at t predict the
label at t + 1; labels of -100 are ignored. Scores of membership are higher for
what is less familiar. Published programs leave out the last labelled token of a
text, as `drop_last=True` does.
"""

import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import arguments
from effjax.metrics import answers
from effjax.metrics.ranking import auc_exact
from effjax.metrics.texts import listed

Array = jax.Array


def min_k(
  logits: Any, labels: Any, *, share: float = 0.2, drop_last: bool = False
) -> Array:
  """Returns minus the mean of the least log-probabilities (Min-K%).

  Shi et al., "Detecting Pretraining Data" (arXiv 2310.16789). TOFU takes a
  share of 0.2, MUSE 0.4.

  Args:
    logits: [B, T, V].
    labels: [B, T].
    share: Share k of the tokens of a text: max(1, int(k n)) of n.
    drop_last: Leave out the last labelled token.

  Returns:
    The scores [B], NaN for a text without labels or with a NaN at one.

  Raises:
    ValueError: If the share is outside (0, 1] or shapes do not fit.
  """
  arguments.share("share", share)
  found = answers.tokens(logits, labels, drop_last=drop_last)
  return -_least(-found.losses, found.counted, share)


def min_k_plus_plus(
  logits: Any, labels: Any, *, share: float = 0.2, drop_last: bool = False
) -> Array:
  """Returns Min-K% of log-probabilities standardised by their vocabulary.

  (log p - mu) / sigma with mu = sum_v p_v log p_v and sigma^2 = max(sum_v p_v
  (log p_v)^2 - mu^2, 1e-6). Zhang et al., "Min-K%++" (arXiv 2404.02936).

  Args:
    logits: [B, T, V].
    labels: [B, T].
    share: Share k of the tokens of a text: max(1, int(k n)) of n.
    drop_last: Leave out the last labelled token.

  Returns:
    The scores [B], NaN for a text without labels or with a NaN at one.

  Raises:
    ValueError: If the share is outside (0, 1] or shapes do not fit.
  """
  arguments.share("share", share)
  found = answers.tokens(logits, labels, drop_last=drop_last)
  logp = jax.nn.log_softmax(answers.wide(logits))[:, :-1]
  p = jnp.exp(logp)
  mean = lambda x: jnp.sum(jnp.where(p == 0, 0.0, p * x), axis=-1)
  mu = mean(logp)
  # Centred, which is the same and loses no digits where sigma is small.
  variance = jnp.maximum(mean((logp - mu[..., None]) ** 2), 1e-6)
  scores = (-found.losses - mu) / jnp.sqrt(variance)
  return -_least(scores, found.counted, share)


def zlib_score(losses: Any, texts: Sequence[str]) -> Array:
  """Returns losses over the lengths of the compressed texts.

  Carlini et al., "Extracting Training Data" (arXiv 2012.07805).

  Args:
    losses: [B], of a token or a text.
    texts: The B texts.

  Returns:
    The scores [B].

  Raises:
    ValueError: If there are not as many texts as losses, or they are a single
      text.

  >>> zlib_score(jnp.array([12.0]), ["abcd"]).item()
  1.0
  """
  losses, texts = answers.wide(losses), listed(texts, "texts")
  if losses.shape != (len(texts),):
    raise ValueError(
      f"{len(texts)} texts need as many losses, got {list(losses.shape)}."
    )
  sizes = np.array([len(zlib.compress(text.encode())) for text in texts])
  return losses / sizes.astype(losses.dtype)


def exact_memorization(
  logits: Any, labels: Any, *, drop_last: bool = False, each: bool = False
) -> Array:
  """Returns the share of labelled tokens that are the likeliest ones.

  Args:
    logits: [B, T, V].
    labels: [B, T].
    drop_last: Leave out the last labelled token.
    each: Return the share of each text.

  Returns:
    The mean over texts with labels [], or [B] with NaN for those without.

  Raises:
    ValueError: If shapes do not fit.
  """
  found = answers.tokens(logits, labels, drop_last=drop_last)
  shares = answers.mean(found.correct, found.counted, axis=-1)
  return _over_texts(shares, found.counted, each)


def extraction_strength(
  logits: Any,
  labels: Any,
  *,
  strict: bool = False,
  drop_last: bool = False,
  each: bool = False,
) -> Array:
  """Returns the share of a text that follows by heart from what precedes it.

  1 - k / n with k the smallest start from which all n - k labelled tokens are
  the likeliest ones. Carlini et al. (arXiv 2012.07805); if even the last token
  is wrong, published programs take k = n - 1.

  Args:
    logits: [B, T, V].
    labels: [B, T].
    strict: Take k = n if the last token is wrong, for 0 instead of 1 / n.
    drop_last: Leave out the last labelled token.
    each: Return the strength of each text.

  Returns:
    The mean over texts with labels [], or [B] with NaN for those without.

  Raises:
    ValueError: If shapes do not fit.
  """
  found = answers.tokens(logits, labels, drop_last=drop_last)
  wrong = found.counted & (found.correct < 1)
  # Nothing is wrong from here on.
  later = jnp.cumsum(wrong[:, ::-1], axis=1, dtype=jnp.int32)[:, ::-1]
  suffix = jnp.sum(found.counted & (later == 0), axis=1, dtype=jnp.int32)
  number = jnp.sum(found.counted, axis=1, dtype=jnp.int32)
  if not strict:
    suffix = jnp.maximum(suffix, 1)
  strength = answers.wide(suffix) / answers.wide(number)
  unknown = jnp.any(jnp.isnan(found.correct), axis=1) | (number == 0)
  strength = jnp.where(unknown, jnp.nan, strength)
  return _over_texts(strength, found.counted, each)


def privacy_leakage(
  forget: Any, holdout: Any, *, retrained: tuple[Any, Any] | None = None
) -> Array:
  """Returns how much more familiar forgotten texts are than they should be.

  PrivLeak = 100 ((1 - A) - (1 - A_ref)) / ((1 - A_ref) + 1e-10), with A the
  area under the curve of a score that is higher for what is less familiar:
  texts to forget are class 0, texts never seen class 1. Near 0 is best; A = 1,
  forgotten texts look most familiar, gives -100.

  Args:
    forget: [N], scores of the texts to forget.
    holdout: [M], scores of texts never seen.
    retrained: The same two of a model trained without the texts; A_ref is 0.5
      without it.

  Returns:
    The leakage in percent [], NaN without texts of either kind.

  Raises:
    ValueError: If scores are no vectors.

  >>> privacy_leakage(jnp.array([1.0, 2.0]), jnp.array([3.0])).item()
  -100.0
  """
  # The other class's area, which is 1 - A without its cancellation.
  found = _area(forget, holdout)
  rest = 0.5 if retrained is None else _area(*retrained)
  return 100 * (found - rest) / (rest + 1e-10)


def _area(forget: Any, holdout: Any) -> Array:
  forget, holdout = answers.wide(forget), answers.wide(holdout)
  if forget.ndim != 1 or holdout.ndim != 1:
    raise ValueError(
      "scores must be vectors, got"
      f" {list(forget.shape)} and {list(holdout.shape)}."
    )
  scores = jnp.concatenate([forget, holdout])
  return auc_exact(scores, np.arange(scores.size) < forget.size)


def _least(values: Array, counted: Array, share: float) -> Array:
  """Returns the mean of the least values of each row [B]."""
  # Whole numbers of the host, as int(k n) has them.
  sizes = [max(1, int(share * n)) for n in range(values.shape[1] + 1)]
  number = jnp.sum(counted, axis=1, dtype=jnp.int32)
  size = jnp.minimum(jnp.array(sizes, jnp.int32)[number], number)
  order = jnp.sort(jnp.where(counted, values, jnp.inf), axis=1)
  place = jnp.arange(values.shape[1], dtype=size.dtype)
  least = answers.mean(order, place[None, :] < size[:, None], axis=-1)
  # Sorting puts NaN last, where it would not be seen.
  unknown = jnp.any(counted & jnp.isnan(values), axis=1)
  return jnp.where(unknown, jnp.nan, least)


def _over_texts(values: Array, counted: Array, each: bool) -> Array:
  if each:
    return values
  return answers.mean(values, jnp.any(counted, axis=-1))
