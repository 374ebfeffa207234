"""GGUF files written here, entry by entry."""

import struct

import numpy as np

NUMBERS = {
  "u8": (0, "B"),
  "i8": (1, "b"),
  "u16": (2, "H"),
  "i16": (3, "h"),
  "u32": (4, "I"),
  "i32": (5, "i"),
  "f32": (6, "f"),
  "bool": (7, "?"),
  "u64": (10, "Q"),
  "i64": (11, "q"),
  "f64": (12, "d"),
}
CODES = {
  "F32": 0,
  "F16": 1,
  "Q4_0": 2,
  "Q4_1": 3,
  "Q8_0": 8,
  "Q4_K": 12,
  "Q6_K": 14,
  "BF16": 30,
}


def text(value):
  value = value.encode() if isinstance(value, str) else value
  return struct.pack("<Q", len(value)) + value


def number(kind, value):
  """Return an entry's type and value."""
  code, form = NUMBERS[kind]
  return struct.pack(f"<I{form}", code, value)


def string(value):
  return struct.pack("<I", 8) + text(value)


def numbers(kind, values):
  code, form = NUMBERS[kind]
  head = struct.pack("<IIQ", 9, code, len(values))
  return head + struct.pack(f"<{len(values)}{form}", *values)


def strings(values):
  return struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(text, values))


def file(entries=None, tensors=None, *, version=3, alignment=32):
  """Return a GGUF file.

  Args:
    entries: From a key to its encoded type and value.
    tensors: From a name to (shape, name or code of the kind, bytes).
    version: Version of the format.
    alignment: What the places of tensors are multiples of.

  Returns:
    The bytes.
  """
  entries, tensors = entries or {}, tensors or {}
  head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries))
  for key, value in entries.items():
    head += text(key) + value
  body = b""
  for name, (shape, kind, content) in tensors.items():
    body += b"\0" * (-len(body) % alignment)
    head += text(name) + struct.pack("<I", len(shape))
    head += b"".join(struct.pack("<Q", n) for n in reversed(shape))
    head += struct.pack("<IQ", CODES.get(kind, kind), len(body))
    body += content
  return head + b"\0" * (-len(head) % alignment) + body


def floats(array):
  """Return a tensor of float32 for `file`."""
  array = np.asarray(array, np.float32)
  return array.shape, "F32", array.astype("<f4").tobytes()
