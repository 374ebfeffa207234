"""Sparsities for each layer, chosen by what explanations gain from them.

The search first tries one sparsity for all layers, then moves one layer at a
time along the grid, from the last layer to the first, until nothing improves or
the budget is spent. It asks only for a score of a choice, such as the two that
`spade.explanation_score` makes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

Rules = list[tuple[str, float | None]]

GRID = (None, 0.5, 0.8, 0.9, 0.95, 0.99)


class Tuned(NamedTuple):
  """The outcome of a search.

  Attributes:
    rules: The best rules for `spade.trace`, those of `fixed` first.
    score: Their score.
    history: Every choice that was tried, with its score, in order.
  """

  rules: Rules
  score: float
  history: list[tuple[Rules, float]]


def tune(
  evaluate: Callable[[Rules], float],
  layers: Sequence[str],
  *,
  grid: Sequence[float | None] = GRID,
  fixed: Sequence[tuple[str, float | None]] = (),
  budget: int = 40,
) -> Tuned:
  """Choose the sparsity of each layer, or group of layers.

  Args:
    evaluate: From rules of `spade.trace` to a score; higher is better, and NaN
      is worst.
    layers: Patterns of layers that share a sparsity, in the order in which the
      network applies them.
    grid: The sparsities to choose from, in ascending order; None leaves a layer
      as it is.
    fixed: Rules that stay, for the first layer for example.
    budget: How many choices may be tried.

  Returns:
    The best choice; the first one among equals.

  Raises:
    ValueError: If there are no layers, the grid is empty, not ascending or
      without a sparsity, nothing may be tried, or all scores are NaN.

  >>> score = lambda rules: -sum(abs((s or 0.0) - 0.9) for _, s in rules)
  >>> tune(score, ["a", "b"], grid=(None, 0.5, 0.9, 0.95)).rules
  [('a', 0.9), ('b', 0.9)]
  """
  numbers = [-1.0 if value is None else float(value) for value in grid]
  if not layers or not grid or numbers != sorted(set(numbers)):
    raise ValueError(
      "tune needs layers and an ascending grid, None before numbers; got"
      f" {list(layers)} and {list(grid)}"
    )
  if not max(numbers) > 0:
    # The dense network needs no search.
    raise ValueError(
      f"tune needs a sparsity above 0 to try, the grid is {list(grid)}"
    )
  if budget < 1:
    raise ValueError(f"budget must be at least 1, got {budget}")
  search = _Search(evaluate, layers, grid, fixed, budget)
  places = search.best([(i,) * len(layers) for i in range(len(grid))])
  while True:
    before = places
    for layer in reversed(range(len(layers))):
      around = [
        (*places[:layer], place, *places[layer + 1 :])
        for place in (places[layer] + 1, places[layer] - 1)
        if 0 <= place < len(grid)
      ]
      places = search.best([places, *around])
    if places == before or search.is_over():
      break
  if search.scores[places] == float("-inf"):
    raise ValueError(
      f"none of the {len(search.scores)} choices of sparsities that were tried"
      " has a score that is a number"
    )
  history = [(search.rules(p), s) for p, s in search.scores.items()]
  return Tuned(search.rules(places), search.scores[places], history)


class _Search:
  """The choices that were tried, as positions in the grid."""

  def __init__(self, evaluate, layers, grid, fixed, budget):
    self.evaluate, self.layers, self.grid = evaluate, layers, grid
    self.fixed, self.budget = list(fixed), budget
    self.scores: dict[tuple[int, ...], float] = {}

  def rules(self, places: tuple[int, ...]) -> Rules:
    """Write a choice as rules."""
    chosen = [self.grid[place] for place in places]
    return self.fixed + list(zip(self.layers, chosen, strict=True))

  def is_over(self) -> bool:
    """Say whether the budget is spent."""
    return len(self.scores) >= self.budget

  def best(self, choices: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Try choices as far as the budget goes; return the best that is known."""
    for places in choices:
      if places in self.scores or self.is_over():
        continue
      if all(self.grid[place] is None for place in places):
        # The dense network: nothing can be traced.
        continue
      score = float(self.evaluate(self.rules(places)))
      self.scores[places] = score if score == score else float("-inf")
    known = [places for places in choices if places in self.scores]
    return max(known, key=self.scores.__getitem__)
