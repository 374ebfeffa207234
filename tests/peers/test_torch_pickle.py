"""Files that torch itself writes, in both of its containers."""

import io

import numpy as np
import pytest

from effjax.io import torch_pickle

pytestmark = pytest.mark.peers
TYPES = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16"]
TYPES += ["int8", "uint8", "bool", "complex64", "complex128"]
CONTAINERS = pytest.mark.parametrize("zipped", [False, True])


def saved(torch, value, zipped):
  stream = io.BytesIO()
  torch.save(value, stream, _use_new_zipfile_serialization=zipped)
  return stream.getvalue()


@CONTAINERS
def test_views_and_types(torch, zipped):
  base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
  tensors = {
    "base": base,
    "transposed": base.T,
    "column": base[:, 2],
    "every_other": base[::2, 1::3],
    "expanded": base[1:2].expand(3, 6),
    "scalar": base[3, 5],
    "empty": base[:0],
    "permuted": torch.randn(2, 3, 4, 5).permute(3, 1, 0, 2),
  }
  for name in TYPES:
    tensors[name] = torch.tensor([0, 1, 3]).to(getattr(torch, name))
  state = {"model": tensors, "rest": [1, ("text", None, 0.5)]}
  found = torch_pickle.parse(saved(torch, state, zipped))
  assert found["rest"] == state["rest"]
  assert list(found["model"]) == list(tensors)
  for name, tensor in tensors.items():
    array = found["model"][name]
    assert str(array.dtype) == str(tensor.dtype).removeprefix("torch.")
    if name == "bfloat16":
      array, tensor = array.astype(np.float32), tensor.float()
    np.testing.assert_array_equal(array, tensor.numpy(), err_msg=name)


@CONTAINERS
def test_state_of_a_module_that_has_tied_weights(torch, zipped):
  module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
  module.append(torch.nn.BatchNorm1d(3))
  module[1].weight = module[0].weight
  state = module.state_dict()
  found = torch_pickle.parse(saved(torch, state, zipped))
  assert list(found) == list(state)
  for name, tensor in state.items():
    np.testing.assert_array_equal(found[name], tensor.numpy(), err_msg=name)


@CONTAINERS
def test_modules_are_refused(torch, zipped):
  content = saved(torch, torch.nn.Linear(2, 2), zipped)
  with pytest.raises(ValueError, match=r"asks for torch\.nn\.modules\.linear"):
    torch_pickle.parse(content)
