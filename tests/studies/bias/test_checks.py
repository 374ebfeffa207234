import ml_collections
import pytest

from configs.bias import celeba_mobilenet, celeba_resnet18, fashion
from effjax.studies.bias import checks


@pytest.mark.parametrize("arg", ["", "quick"])
@pytest.mark.parametrize("module", [fashion, celeba_resnet18, celeba_mobilenet])
def test_our_configs_pass(module, arg):
  checks.check(module.get_config(arg))


@pytest.mark.parametrize(
  ("key", "value", "words"),
  [
    ("data.size", 0, "data.size must be at least 1, not 0"),
    ("data.limit", -5, "data.limit must be at least 1, not -5"),
    ("data.validation", 0, "data.validation must be at least 1"),
    ("data.validation", "all", "at least 1, not 'all'"),
    ("training.epochs", 0, "training.epochs must be"),
    ("training.batch_size", -4, "training.batch_size must be"),
    ("training.eval_batch_size", 0, "training.eval_batch_size"),
    ("seeds", (), "seeds is empty"),
    ("seeds", (23, 24, 23), "seeds names 23 twice"),
    ("sparsities", (0.9, 0.9), "sparsities names 0.9 twice"),
    ("training.learning_rates.ri", -0.1, "learning_rates.ri must be a number"),
    ("training.learning_rates.pt", float("nan"), "above 0, not nan"),
    ("tuning.learning_rates", (0.1, 0.0), "tuning.learning_rates must be"),
    ("data.marks", ("square",), "mappings of attribute, mark, skew"),
    ("data.marks", ({"mark": "square"},), "mappings of attribute, mark"),
  ],
)
def test_values_that_make_no_sense(key, value, words):
  config = celeba_resnet18.get_config("quick")
  with config.unlocked(), config.ignore_type():
    config.update_from_flattened_dict({key: value})
  with pytest.raises(ValueError, match=words):
    checks.check(config)


def test_absent_keys_are_passed_over():
  checks.check(ml_collections.ConfigDict({"data": {}}))
