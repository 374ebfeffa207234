"""Turn the bytes of declared files into arrays."""

import gzip
import io
import math

import numpy as np

FASHION_CLASSES = (
  "T-shirt/top",
  "trouser",
  "pullover",
  "dress",
  "coat",
  "sandal",
  "shirt",
  "sneaker",
  "bag",
  "ankle boot",
)
DIGIT_CLASSES = tuple(str(digit) for digit in range(10))

_IDX_TYPES = {
  0x08: ">u1",
  0x09: ">i1",
  0x0B: ">i2",
  0x0C: ">i4",
  0x0D: ">f4",
  0x0E: ">f8",
}


def read_idx(content: bytes, place: str = "the IDX file") -> np.ndarray:
  """Read an array in IDX format, the container of the MNIST family.

  Two zero bytes, a byte for the type, a byte for the number of dimensions,
  then big-endian int32 sizes, then the values in C order.

  Args:
    content: the decompressed bytes.
    place: where they come from, for messages.

  Returns:
    The array, in native byte order.

  Raises:
    ValueError: the bytes are no IDX file, or too few or too many.

  Example:
    >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9])).tolist()
    [7, 8, 9]
  """
  if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_TYPES:
    raise ValueError(
      f"{place} is not an IDX file: it starts with {content[:4].hex(' ')},"
      " expected 00 00, a type and the number of dimensions."
    )
  dtype, ndim = np.dtype(_IDX_TYPES[content[2]]), content[3]
  start = 4 + 4 * ndim
  if len(content) < start:
    raise ValueError(f"{place} is truncated inside its header.")
  shape = tuple(int(n) for n in np.frombuffer(content[4:start], ">i4"))
  expected = start + math.prod(shape) * dtype.itemsize
  if len(content) != expected:
    raise ValueError(
      f"{place} has {len(content)} bytes, expected {expected} for shape"
      f" {list(shape)}; it is truncated or damaged."
    )
  values = np.frombuffer(content, dtype, offset=start).reshape(shape)
  return values.astype(dtype.newbyteorder("="))


def read_label_last(
  content: bytes, side: int, maximum: int
) -> dict[str, np.ndarray]:
  """Read gzipped comma-separated pictures whose last column is the class.

  Args:
    content: the gzipped text; a row has side * side values and the class.
    side: height and width of a picture.
    maximum: largest grey value of the file; values are scaled to 0..255.

  Returns:
    images uint8 [N, side, side, 1] and classes int32 [N].
  """
  text = io.BytesIO(gzip.decompress(content))
  table = np.loadtxt(text, delimiter=",", dtype=np.float32)
  grey = np.rint(table[:, :-1] * (255 / maximum)).astype(np.uint8)
  return {
    "images": grey.reshape(-1, side, side, 1),
    "classes": table[:, -1].astype(np.int32),
  }
