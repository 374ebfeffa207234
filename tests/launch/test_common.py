import doctest

import pytest

from configs import common


def test_examples():
  assert doctest.testmod(common).failed == 0
  assert doctest.testmod(common).attempted > 6


def test_parse_arg():
  defaults = {
    "quick": False,
    "sparsity": 0.9,
    "seeds": 3,
    "model": "cnn",
    "levels": (0.5,),
    "limit": None,
  }
  arg = common.parse_arg("", **defaults)
  assert arg.to_dict() == defaults
  arg = common.parse_arg(
    "quick, sparsity=1,seeds=5,model=resnet18,levels=0.5:0.9,limit=7",
    **defaults,
  )
  assert arg.quick is True
  assert arg.sparsity == 1.0
  assert isinstance(arg.sparsity, float)
  assert (arg.seeds, arg.model) == (5, "resnet18")
  assert arg.levels == (0.5, 0.9)
  assert arg.limit == 7
  assert common.parse_arg("quick=false", quick=True).quick is False
  with pytest.raises(AttributeError):
    arg.qick = True


@pytest.mark.parametrize(
  ("arg", "words"),
  [
    ("qick", "no argument 'qick', did you mean 'quick'"),
    ("sparsty=0.5", "did you mean 'sparsity'"),
    ("xyz=1", "no argument 'xyz'; its arguments are quick, sparsity, seeds"),
    ("sparsity", "'sparsity' needs a value"),
    ("sparsity=much", "'sparsity': 'much' is not a number"),
    ("seeds=1.5", "'seeds': '1.5' is not a whole number"),
    ("quick=perhaps", "'quick': 'perhaps' is neither true nor false"),
    ("seeds=1,seeds=2", "'seeds' is given twice"),
  ],
)
def test_arguments_that_make_no_sense(arg, words):
  with pytest.raises(ValueError, match=words):
    common.parse_arg(arg, quick=False, sparsity=0.9, seeds=3)


def test_combinations():
  a, b = common.axis("a", (1, 2)), common.axis("b", (3, 4))
  assert common.product(a, b) == [
    {"a": 1, "b": 3},
    {"a": 1, "b": 4},
    {"a": 2, "b": 3},
    {"a": 2, "b": 4},
  ]
  assert common.product() == [{}]
  assert common.zip_(a, b) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
  assert common.chain(a, b, a) == [*a, *b, *a]
  with pytest.raises(ValueError, match=r"one length, got \[2, 1\]"):
    common.zip_(a, common.axis("b", (3,)))
  with pytest.raises(ValueError, match="two sweeps set the key 'a'"):
    common.product(a, a)
