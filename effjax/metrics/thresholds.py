"""Decision thresholds chosen on validation data."""

from typing import Any

import jax
import jax.numpy as jnp

from effjax.metrics import counting


def adjust_thresholds(
  logits: Any, labels: Any, *, convention: str = "exact"
) -> jax.Array:
  """Returns the thresholds at which the predicted rate meets the base rate.

  With k positive labels the threshold is the k-th largest logit. A decision is
  strictly above it, so k - 1 validation samples are positive, and fewer if
  several logits equal it. No group information is used; rank statistics and
  probabilities do not change.
  Iofinova, Peste, Alistarh, "Bias in Pruned Vision Models" (CVPR 2023).

  Args:
    logits: [N, A] or [N], of validation data.
    labels: Like `logits`, bool.
    convention: What an attribute without positive labels gets: +inf under
      "exact" (nothing is positive), the smallest logit under "reference"
      (nearly everything is).

  Returns:
    [A] or [], in the type of the logits: a `threshold` for the metrics and for
    `decisions`. NaN where a logit is NaN.

  Raises:
    ValueError: If the shapes differ, have another rank, or hold no sample.

  >>> import numpy as np
  >>> logits = np.array([3.0, 1.0, 2.0, 0.0], np.float32)
  >>> float(adjust_thresholds(logits, np.array([1, 0, 1, 0])))
  2.0
  """
  counting.check_convention(convention)
  logits, labels = jnp.asarray(logits), counting.positive(jnp.asarray(labels))
  if logits.shape != labels.shape or logits.ndim not in (1, 2):
    raise ValueError(
      "logits and labels must both have shape [N] or [N, A], got"
      f" {list(logits.shape)} and {list(labels.shape)}."
    )
  rows = logits.shape[0]
  if not rows:
    raise ValueError("Thresholds cannot be chosen without any sample.")
  positives = jnp.sum(labels, axis=0, dtype=jnp.int32)
  ordered = jnp.sort(logits, axis=0)
  index = jnp.where(positives > 0, rows - positives, 0)
  value = jnp.take_along_axis(ordered, index[None], axis=0)[0]
  if convention == "exact":
    value = jnp.where(positives > 0, value, jnp.inf)
  return jnp.where(jnp.any(jnp.isnan(logits), axis=0), jnp.nan, value)
