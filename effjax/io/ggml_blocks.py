"""Values of weights that GGUF files store in blocks of few bits.

A block holds consecutive weights of a row: one or two scales, and a small whole
number for each weight. Values are float32 and computed from the stored float16
scales as the library that defined the formats does it
(https://github.com/ggml-org/ggml, `ggml-quants.c`), so that they are equal to
the last bit where the order of operations is.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

# Blocks that are turned into values at once: what they need stays in a cache.
_TOGETHER = 1 << 15


class UnknownKindError(Exception):
  """A quantisation is not read here."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
  """A way to store weights.

  Attributes:
    name: what the format calls it.
    weights: weights of a block.
    bytes: bytes of a block.
    decode: from blocks uint8 [N, bytes] to values [N, weights], float32, or of
      the stored dtype where that is a plain one.
  """

  name: str
  weights: int
  bytes: int
  decode: Callable[[np.ndarray], np.ndarray]

  def size(self, count: int) -> int:
    """Return the bytes of `count` weights, which fill blocks."""
    return count // self.weights * self.bytes

  def values(self, data: np.ndarray) -> np.ndarray:
    """Return the weights, float32 [n], of the bytes of blocks, uint8."""
    blocks = data.reshape(-1, self.bytes)
    found = np.empty((len(blocks), self.weights), np.float32)
    step = max(1, _TOGETHER // self.weights)
    for start in range(0, len(blocks), step):
      part = slice(start, start + step)
      found[part] = self.decode(blocks[part])
    return found.reshape(-1)


def kind(code: int, name: str) -> Kind:
  """Return the kind of a tensor by the code in the file.

  Args:
    code: the code.
    name: the tensor's name, for messages.

  Returns:
    The kind.

  Raises:
    UnknownKindError: it is not read here; the message names it.

  >>> kind(3, "w").name
  'Q4_1'
  """
  if code not in _CODES:
    found = _UNREAD.get(code, f"of code {code}")
    raise UnknownKindError(
      f"the tensor {name!r} has the quantisation {found}; known are"
      f" {', '.join(KINDS)}"
    )
  return KINDS[_CODES[code]]


def _plain(dtype: str) -> Callable[[np.ndarray], np.ndarray]:
  return lambda blocks: np.ascontiguousarray(blocks).view(dtype)


def _bfloat16(blocks: np.ndarray) -> np.ndarray:
  high = np.ascontiguousarray(blocks).view("<u2").astype(np.uint32)
  return (high << 16).view(np.float32)


def _half(blocks: np.ndarray, start: int) -> np.ndarray:
  """Return the float16 at a byte of every block as float32 [N, 1]."""
  two = np.ascontiguousarray(blocks[:, start : start + 2])
  return two.view("<f2").astype(np.float32)


def _nibbles(data: np.ndarray) -> np.ndarray:
  """Return the low half of every byte, then the high halves: [N, 2 n]."""
  return np.concatenate([data & 15, data >> 4], axis=1)


def _q4_0(blocks: np.ndarray) -> np.ndarray:
  number = _nibbles(blocks[:, 2:]).astype(np.float32) - np.float32(8)
  return _half(blocks, 0) * number


def _q4_1(blocks: np.ndarray) -> np.ndarray:
  number = _nibbles(blocks[:, 4:]).astype(np.float32)
  number *= _half(blocks, 0)
  number += _half(blocks, 2)
  return number


def _q8_0(blocks: np.ndarray) -> np.ndarray:
  number = blocks[:, 2:].view(np.int8).astype(np.float32)
  number *= _half(blocks, 0)
  return number


def _q4_k(blocks: np.ndarray) -> np.ndarray:
  """Eight parts of 32 weights, with scales and minima of 6 bits.

  Of twelve bytes the first four hold in their low six bits the scales of parts
  0 to 3, the next four their minima; the last four have the low nibbles of the
  scales of parts 4 to 7 and of their minima, whose two high bits are the high
  bits of the first eight bytes.
  """
  packed = blocks[:, 4:16]
  first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
  scales = [first & 63, (third & 15) | (first >> 6 << 4)]
  minima = [second & 63, (third >> 4) | (second >> 6 << 4)]
  scale, minimum = (
    _half(blocks, start) * np.concatenate(parts, axis=1).astype(np.float32)
    for start, parts in ((0, scales), (2, minima))
  )
  # Parts 2 i and 2 i + 1 are the low and the high nibbles of 32 bytes.
  data = blocks[:, 16:].reshape(-1, 4, 1, 32)
  number = np.concatenate([data & 15, data >> 4], axis=2)
  number = number.reshape(-1, 8, 32).astype(np.float32)
  values = scale[..., None] * number - minimum[..., None]
  return values.reshape(-1, 256)


def _q6_k(blocks: np.ndarray) -> np.ndarray:
  """Sixteen parts of 16 weights of 6 bits, with scales of 8 bits.

  Each half has 64 bytes of low nibbles and 32 bytes of high pairs of bits:
  weights 32 i to 32 i + 31 of the half have the nibbles of bytes 32 (i mod 2)
  on, the low ones for i < 2, and pair number i of every byte.
  """
  count = len(blocks)
  low = blocks[:, :128].reshape(count, 2, 1, 64)
  low = np.concatenate([low & 15, low >> 4], axis=2).reshape(count, 2, 4, 32)
  high = blocks[:, 128:192].reshape(count, 2, 1, 32)
  high = high >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
  number = (low | high << 4).astype(np.float32) - np.float32(32)
  scale = blocks[:, 192:208].view(np.int8).astype(np.float32)
  scale = _half(blocks, 208) * scale
  values = scale[..., None] * number.reshape(count, 16, 16)
  return values.reshape(count, 256)


KINDS = {
  kind.name: kind
  for kind in (
    Kind(name="F32", weights=1, bytes=4, decode=_plain("<f4")),
    Kind(name="F16", weights=1, bytes=2, decode=_plain("<f2")),
    Kind(name="BF16", weights=1, bytes=2, decode=_bfloat16),
    Kind(name="Q4_0", weights=32, bytes=18, decode=_q4_0),
    Kind(name="Q4_1", weights=32, bytes=20, decode=_q4_1),
    Kind(name="Q8_0", weights=32, bytes=34, decode=_q8_0),
    Kind(name="Q4_K", weights=256, bytes=144, decode=_q4_k),
    Kind(name="Q6_K", weights=256, bytes=210, decode=_q6_k),
  )
}
_CODES = {
  0: "F32",
  1: "F16",
  2: "Q4_0",
  3: "Q4_1",
  8: "Q8_0",
  12: "Q4_K",
  14: "Q6_K",
  30: "BF16",
}
# What else the format knows, to name it.
_UNREAD = {
  6: "Q5_0",
  7: "Q5_1",
  9: "Q8_1",
  10: "Q2_K",
  11: "Q3_K",
  13: "Q5_K",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  20: "IQ4_NL",
  21: "IQ3_S",
  22: "IQ2_S",
  23: "IQ4_XS",
  24: "I8",
  25: "I16",
  26: "I32",
  27: "I64",
  28: "F64",
  29: "IQ1_M",
  34: "TQ1_0",
  35: "TQ2_0",
  39: "MXFP4",
}
