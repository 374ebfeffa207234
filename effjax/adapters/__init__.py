"""Adapters: few trained numbers that change the kernels of any model."""

from effjax.adapters.agendas import Agenda, agenda
from effjax.adapters.base import Adapter
from effjax.adapters.collecting import GradientMean, collect
from effjax.adapters.composition import chain, masked
from effjax.adapters.factored import Part, dense, parts
from effjax.adapters.low_rank import dora, lora
from effjax.adapters.quantized import Quantized, dequantize, quantize
from effjax.adapters.recovery import loftq
from effjax.adapters.scaling import ia3
from effjax.adapters.sparse import rosa, shira, sparse_masks
from effjax.adapters.table import ADAPTERS
from effjax.adapters.training import Summary, labels, lora_plus, summary

__all__ = [
  "ADAPTERS",
  "Adapter",
  "Agenda",
  "GradientMean",
  "Part",
  "Quantized",
  "Summary",
  "agenda",
  "chain",
  "collect",
  "dense",
  "dequantize",
  "dora",
  "ia3",
  "labels",
  "loftq",
  "lora",
  "lora_plus",
  "masked",
  "parts",
  "quantize",
  "rosa",
  "shira",
  "sparse_masks",
  "summary",
]
