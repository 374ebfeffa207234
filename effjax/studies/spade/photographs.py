"""Pictures as people have them: any format, colours, size or orientation."""

import io
import os
import pathlib
import warnings
from typing import Any, NamedTuple

import numpy as np

from effjax.studies.text import meant

_LEAST = 16  # pixels of a side
_MOST = 60_000_000  # pixels of a picture
# Crops are shrunk to the side of a network anyway: more pixels than this along
# a side would only take time.
_LONG = 1024


class Picture(NamedTuple):
  """A picture as it was read.

  Attributes:
    pixels: uint8 [H, W, 3].
    note: What was changed or left out, a sentence, or nothing.
  """

  pixels: np.ndarray
  note: str


def read_image(
  source: str | os.PathLike | bytes, place: str = "the picture"
) -> Picture:
  """Read a picture in any of the usual formats and colour models.

  It is turned upright as the camera says; what is transparent becomes white;
  of an animation the first frame is taken.

  Args:
    source: A file, or its content.
    place: What messages call the content.

  Returns:
    The picture.

  Raises:
    FileNotFoundError: If there is no such file, with the nearest one.
    ValueError: If it is no picture that can be read, too small or too large.
  """
  import PIL.Image
  import PIL.ImageOps

  if not isinstance(source, bytes):
    path = pathlib.Path(source)
    place = str(source)
    if not path.is_file():
      if path.is_dir():
        raise ValueError(f"{place} is a directory, not a picture")
      siblings = (
        [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
      )
      raise FileNotFoundError(
        f"there is no file {place}{meant(path.name, siblings)}"
      )
    source = path.read_bytes()
  notes = []
  try:
    with warnings.catch_warnings():
      # Its size is looked at below.
      warnings.simplefilter("ignore")
      with PIL.Image.open(io.BytesIO(source)) as opened:
        width, height = opened.size
        if min(width, height) < _LEAST or width * height > _MOST:
          raise ValueError(
            f"{place} has {width} x {height} pixels; expected at least {_LEAST}"
            f" along each side and {_MOST:,} at most"
          )
        frames = getattr(opened, "n_frames", 1)
        opened.seek(0)
        picture = PIL.ImageOps.exif_transpose(opened)
        pixels = _in_colour(picture)
  except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
    known = "JPEG, PNG, WebP, GIF, BMP or TIFF"
    raise ValueError(
      f"{place} cannot be read as a picture ({known}); it is of another kind,"
      " truncated or damaged"
    ) from error
  if frames > 1:
    notes.append(f"the first of {frames} frames")
  if max(pixels.shape) > _LONG:
    scale = _LONG / max(pixels.shape)
    size = [
      max(1, round(n * scale)) for n in (pixels.shape[1], pixels.shape[0])
    ]
    shrunk = PIL.Image.fromarray(pixels).resize(
      (size[0], size[1]), PIL.Image.Resampling.LANCZOS
    )
    notes.append(f"shrunk from {pixels.shape[1]} x {pixels.shape[0]} pixels")
    pixels = np.asarray(shrunk)
  return Picture(pixels, ", ".join(notes))


def _in_colour(picture: Any) -> np.ndarray:
  """Return RGB, uint8 [H, W, 3]."""
  import PIL.Image

  if picture.mode.startswith(("I", "F")):
    # Grey of more than 8 bits: Pillow would cut it off, not scale it.
    grey = np.asarray(picture, np.float64)
    grey = np.where(np.isfinite(grey), grey, 0.0)
    low, high = float(grey.min()), float(grey.max())
    whole = picture.mode.startswith("I") and low >= 0 and high > 255
    low, high = (0.0, 65535.0) if whole and high <= 65535 else (low, high)
    scaled = (grey - low) * (255.0 / (high - low or 1.0))
    return np.repeat(np.rint(scaled).astype(np.uint8)[..., None], 3, axis=2)
  if "A" in picture.getbands() or "transparency" in picture.info:
    layered = picture.convert("RGBA")
    white = PIL.Image.new("RGBA", layered.size, "white")
    picture = PIL.Image.alpha_composite(white, layered)
  return np.asarray(picture.convert("RGB"))
