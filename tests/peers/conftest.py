import pytest


@pytest.fixture(scope="session")
def torch():
  """Torch on one thread; imported only when such a test is chosen."""
  torch = pytest.importorskip("torch", reason="torch is not installed")
  torch.set_num_threads(1)
  return torch


@pytest.fixture(scope="session")
def torchmetrics(torch):
  return pytest.importorskip(
    "torchmetrics", reason="torchmetrics is not installed"
  )
