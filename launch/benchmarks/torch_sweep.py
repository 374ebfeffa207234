"""The fine-tunings of the study of edits as a plain loop of PyTorch.

One run after another, as a trainer does that knows nothing of others: gradients
for what an arm trains alone, Adam, clipping, and the same measures as often.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from effjax import tree
from effjax.studies.edit import arms, sweep, updates


class Loop:
  """Fine-tunes copies of a small model."""

  def __init__(self, torch: Any, config: Any, data: sweep.Data, every: int):
    """Take a model and edits.

    Args:
      torch: The module.
      config: Sizes of the model, with learnt positions.
      data: What the edits are trained on and measured with.
      every: Steps between evaluations.
    """
    self.torch, self.config, self.every = torch, config, every
    self.data = jax.tree.map(
      lambda x: torch.from_numpy(np.array(x)).to(
        torch.bool if x.dtype == bool else torch.long
      ),
      data,
    )

  def __call__(
    self, params: Any, runs: Sequence[tuple[arms.Arm, updates.Run]]
  ) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Fine-tune by every arm in turn.

    Args:
      params: Parameters before.
      runs: Arms of the methods "full" and "lora", and their runs.

    Returns:
      For each run the parameters after it by path, with the products of factors
      added, and its history: accuracy, agreement and divergence of each set,
      [evaluations, 3, sets].
    """
    names = jax.tree.leaves(tree.names(params))
    leaves = [np.array(x) for x in jax.tree.leaves(params)]
    return [
      self._one(dict(zip(names, leaves, strict=True)), arm, run)
      for arm, run in runs
    ]

  def _one(self, arrays, arm, run):
    torch = self.torch
    make = lambda x: torch.tensor(np.array(x))
    weights = {name: make(x) for name, x in arrays.items()}
    base = dict(weights)
    pattern = re.compile(arms.selector(arm.targets))
    factors = {}
    if arm.method == "lora":
      factors = {
        path: (make(a[:, : arm.rank]), make(b[: arm.rank]))
        for path, (a, b) in run.theta.items()
        if pattern.fullmatch(path)
      }
      trained = [x for pair in factors.values() for x in pair]
    else:
      trained = [x for name, x in weights.items() if pattern.fullmatch(name)]
      base = {name: x.clone() for name, x in weights.items()}
    for x in trained:
      x.requires_grad_()
    adam = torch.optim.Adam(trained, lr=float(run.rate), betas=(0.9, 0.95))
    edit, mix = int(run.edit), int(run.mix)
    rows = [x[edit] for x in self.data[:4]]
    asked = jax.tree.map(lambda x: x[edit], self.data.asked)
    with torch.no_grad():
      before = torch.log_softmax(self._asked(base, {}, 1.0, asked), 1)
    history = []
    for number, chosen in enumerate(self.data.drawn[mix, edit]):
      tokens, places, targets, counted = (x[chosen] for x in rows)
      found = self._logits(weights, factors, arm.scale, tokens, places)
      loss = torch.nn.functional.cross_entropy(found[counted], targets[counted])
      adam.zero_grad()
      loss.backward()
      torch.nn.utils.clip_grad_norm_(trained, 1.0)
      adam.step()
      if (number + 1) % self.every == 0:
        with torch.no_grad():
          now = self._asked(weights, factors, arm.scale, asked)
          history.append(
            self._measure(torch.log_softmax(now, 1), before, asked)
          )
    with torch.no_grad():
      for path, (a, b) in factors.items():
        weights[path] = weights[path] + arm.scale * (a @ b)
    after = {name: x.detach().numpy() for name, x in weights.items()}
    return after, np.array(history)

  def _asked(self, weights, factors, scale, asked):
    places = asked.lengths[:, None] - 1
    return self._logits(weights, factors, scale, asked.tokens, places)[:, 0]

  def _measure(self, now, before, asked):
    """Average right answers, agreement and divergence over each set."""
    torch, count = self.torch, asked.names.shape[0]
    each = torch.stack(
      [
        (now.argmax(1) == asked.targets).float(),
        (now.argmax(1) == before.argmax(1)).float(),
        (before.exp() * (before - now)).sum(1),
      ]
    )
    # What belongs to no set has the number behind the last.
    totals = torch.zeros(3, count + 1).index_add_(1, asked.sets, each)
    sizes = torch.bincount(asked.sets, minlength=count + 1)
    return (totals / sizes)[:, :count].numpy()

  def _logits(self, weights, factors, scale, tokens, places):
    """Answer at some places; the layers of `models.NeoX`."""
    torch, c = self.torch, self.config
    functional = torch.nn.functional

    def dense(x, path):
      kernel = f"{path}/kernel"
      y = x @ weights[kernel] + weights[f"{path}/bias"]
      if kernel in factors:
        a, b = factors[kernel]
        y = y + scale * ((x @ a) @ b)
      return y

    def norm(x, path):
      scales = weights[f"{path}/scale"], weights[f"{path}/bias"]
      return functional.layer_norm(x, (c.width,), *scales, c.epsilon)

    heads = lambda x: x.reshape(*x.shape[:2], c.heads, -1).transpose(1, 2)
    x = weights["embed/embedding"][tokens]
    x = x + weights["positions/embedding"][: tokens.shape[1]]
    for layer in range(c.layers):
      own = f"layer_{layer}"
      y = norm(x, f"{own}/attention_norm")
      y = functional.scaled_dot_product_attention(
        *(heads(dense(y, f"{own}/attention/{n}")) for n in _INPUTS),
        is_causal=True,
      )
      y = y.transpose(1, 2).reshape(x.shape)
      z = norm(x, f"{own}/mlp_norm")
      z = functional.gelu(dense(z, f"{own}/mlp/up"))
      x = x + dense(y, f"{own}/attention/output") + dense(z, f"{own}/mlp/down")
    index = places[..., None].expand(-1, -1, c.width)
    chosen = norm(x, "norm").gather(1, index)
    return chosen @ weights["head/kernel"]


_INPUTS = ("query", "key", "value")
