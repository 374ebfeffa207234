"""Adapters by the names that configs use."""

import functools

from effjax.adapters.low_rank import dora, lora
from effjax.adapters.scaling import ia3
from effjax.adapters.sparse import rosa, shira

# Name -> function that makes an adapter of its keyword arguments.
ADAPTERS = {
  "lora": lora,
  "rslora": functools.partial(lora, rank_stabilized=True),
  "pissa": functools.partial(lora, initial="pissa"),
  "olora": functools.partial(lora, initial="olora"),
  "dora": dora,
  "ia3": ia3,
  "shira": shira,
  "rosa": rosa,
}
