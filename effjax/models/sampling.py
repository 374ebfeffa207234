"""Choose the next token by its logits."""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
  """How tokens are chosen.

  Attributes:
    temperature: what logits are divided by; 0 takes the largest.
    top_k: number of the largest logits that may be drawn; None for all. Among
      equal ones the lower token comes first.
    top_p: the fewest of the most likely tokens whose probabilities sum to at
      least this may be drawn (Holtzman et al. 2020, arXiv:1904.09751), after
      `top_k`; None for all.
    repetition_penalty: what positive logits of tokens that were there before
      are divided by, and negative ones multiplied (Keskar et al. 2019,
      arXiv:1909.05858); 1 for nothing. It comes first.
  """

  temperature: float = 0.0
  top_k: int | None = None
  top_p: float | None = None
  repetition_penalty: float = 1.0

  def __post_init__(self):
    for name, fits, expected in (
      ("temperature", self.temperature >= 0, "at least 0"),
      ("top_k", self.top_k is None or self.top_k >= 1, "at least 1"),
      ("top_p", self.top_p is None or 0 < self.top_p <= 1, "in (0, 1]"),
      ("repetition_penalty", self.repetition_penalty > 0, "above 0"),
    ):
      if not fits:
        raise ValueError(
          f"{name} must be {expected}, got {getattr(self, name)!r}."
        )


def penalise(
  logits: jax.Array, seen: jax.Array, penalty: jax.Array | float
) -> jax.Array:
  """Make tokens that were there before less likely.

  Args:
    logits: Logits [B, V].
    seen: Whether a token was there [B, V].
    penalty: What positive logits are divided by, negative ones multiplied.

  Returns:
    Logits [B, V].

  >>> logits, seen = jnp.array([[2.0, -2.0, 2.0]]), jnp.array([[1, 1, 0]])
  >>> penalise(logits, seen == 1, 2.0).tolist()
  [[1.0, -4.0, 2.0]]
  """
  less = jnp.where(logits > 0, logits / penalty, logits * penalty)
  return jnp.where(seen, less, logits)


def candidates(
  logits: jax.Array,
  *,
  top_k: int | None = None,
  top_p: jax.Array | float | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Return the tokens that may be drawn, the most likely first.

  Args:
    logits: Logits [B, V], divided by the temperature.
    top_k: As in `Sampling`.
    top_p: As in `Sampling`.

  Returns:
    Logits [B, n], -inf for what is cut, and the tokens [B, n] that they are of.

  >>> logits = jnp.log(jnp.array([[0.1, 0.6, 0.3]]))
  >>> found, tokens = candidates(logits, top_p=0.7)
  >>> tokens.tolist(), jnp.isfinite(found).tolist()
  ([[1, 2, 0]], [[True, True, False]])
  """
  if top_k is None and top_p is None:
    everything = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    return logits, jnp.broadcast_to(everything, logits.shape)
  count = logits.shape[-1] if top_k is None else min(top_k, logits.shape[-1])
  found, tokens = jax.lax.top_k(logits, count)
  if top_p is not None:
    shares = jax.nn.softmax(found, axis=-1)
    # The one that crosses the sum stays.
    before = jnp.cumsum(shares, axis=-1) - shares
    # The first stays where rounding has it, or the sum, at the limit.
    first = jnp.arange(count) == 0
    kept = (before < top_p) | first[None] | (jnp.asarray(top_p) >= 1)
    found = jnp.where(kept, found, -jnp.inf)
  return found, tokens


def draw(
  keys: jax.Array,
  logits: jax.Array,
  *,
  temperature: jax.Array | float,
  top_k: int | None = None,
  top_p: jax.Array | float | None = None,
) -> jax.Array:
  """Draw a token for each row.

  Args:
    keys: One typed key for each row [B].
    logits: Logits [B, V].
    temperature: What they are divided by, above 0.
    top_k: As in `Sampling`; static.
    top_p: As in `Sampling`.

  Returns:
    Tokens, int32 [B].
  """
  # Differences stay finite where a temperature is next to nothing.
  logits = (logits - jnp.max(logits, axis=1, keepdims=True)) / temperature
  found, tokens = candidates(logits, top_k=top_k, top_p=top_p)
  places = jax.vmap(jax.random.categorical)(keys, found)
  return jnp.take_along_axis(tokens, places[:, None], 1)[:, 0]
