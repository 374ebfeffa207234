"""The search of sparsities: what it tries, what it returns."""

import math

import pytest

from effjax import spade

GRID = (None, 0.5, 0.8, 0.9)


def search(score, layers=("a", "b", "c"), **options):
  tried = []

  def evaluate(rules):
    tried.append(tuple(rules))
    return score(dict(rules))

  found = spade.tune(evaluate, layers, **({"grid": GRID} | options))
  return found, tried


def peak(**best):
  """Score by the distance on the grid from a choice."""
  place = lambda share: GRID.index(share)
  return lambda rules: (
    -sum(abs(place(rules[k]) - place(v)) for k, v in best.items())
  )


def test_the_best_choice_is_found_layer_by_layer():
  score = peak(a=0.5, b=None, c=0.9)
  found, tried = search(score, budget=100)
  assert dict(found.rules) == {"a": 0.5, "b": None, "c": 0.9}
  assert found.score == 0
  assert len(tried) == len(set(tried)) < 4**3
  # One sparsity for all layers first, without the dense network.
  assert tried[:3] == [
    tuple((k, share) for k in "abc") for share in (0.5, 0.8, 0.9)
  ]
  assert [tuple(rules) for rules, _ in found.history] == tried
  assert [s for _, s in found.history] == [score(dict(r)) for r in tried]
  # The last layer is moved first.
  assert {k: v for k, v in tried[3] if k != "c"} == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize("budget", [1, 2, 4, 7])
def test_the_budget_is_kept(budget):
  found, tried = search(peak(a=0.9, b=None, c=0.5), budget=budget)
  assert len(tried) == len(found.history) == budget
  assert found.score == max(s for _, s in found.history)
  assert (found.rules, found.score) in found.history


def test_the_search_ends_where_nothing_improves():
  found, tried = search(lambda rules: 0.0, budget=1000)
  # Among equals the first choice stays.
  assert found.rules == [("a", 0.5), ("b", 0.5), ("c", 0.5)]
  assert tried[0] == tuple(found.rules)
  # Three for all layers, then two neighbours of each.
  assert len(tried) == 3 + 2 * 3


def test_the_dense_network_is_never_asked_for():
  found, tried = search(lambda r: -sum(s or 0.0 for s in r.values()), budget=99)
  assert all(any(s is not None for _, s in rules) for rules in tried)
  assert sum(s is not None for _, s in found.rules) == 1


def test_fixed_rules_come_first():
  fixed = [("stem/.*", None)]
  found, tried = search(peak(a=0.8), layers=["a"], fixed=fixed)
  assert found.rules == [("stem/.*", None), ("a", 0.8)]
  assert all(rules[0] == ("stem/.*", None) for rules in tried)


def test_nan_is_worst():
  found, _ = search(
    lambda r: math.nan if r["a"] == 0.5 else -1.0, layers=["a"], budget=9
  )
  assert found.rules != [("a", 0.5)]
  assert found.score == -1.0
  assert dict((r[0][1], s) for r, s in found.history)[0.5] == -math.inf


@pytest.mark.parametrize(
  ("layers", "options", "message"),
  [
    ([], {}, "needs layers"),
    (["a"], {"grid": ()}, "ascending grid"),
    (["a"], {"grid": (0.9, 0.5)}, "ascending grid"),
    (["a"], {"grid": (0.5, 0.5)}, "ascending grid"),
    (["a"], {"grid": (0.5, None)}, "None before numbers"),
    (["a"], {"budget": 0}, "at least 1, got 0"),
  ],
)
def test_bad_searches_are_named(layers, options, message):
  with pytest.raises(ValueError, match=message):
    search(lambda rules: 0.0, layers=layers, **options)


def test_a_grid_that_only_leaves_layers_alone_has_no_answer():
  with pytest.raises(ValueError, match="a sparsity above 0"):
    search(lambda rules: 0.0, grid=(None,))


def test_scores_that_are_all_nan_are_no_answer():
  with pytest.raises(ValueError, match=r"choices of sparsities .* number"):
    search(lambda rules: math.nan, layers=["a"])
