"""What the local page that explains pictures asks for, see `pages`.

POST /image takes the bytes of a picture and returns its likeliest classes; POST
/explain takes JSON with the picture's id, a class, a method and a sparsity and
returns maps.
"""

import base64
import collections
import hashlib
import json
import math
import threading
import time
from typing import Any, NamedTuple

from effjax import spade
from effjax.studies.spade import explaining, networks, overlays, photographs
from launch import pages

MOST_BYTES = 20_000_000  # of a picture
_MOST_TEXT = 10_000  # of a question
_PICTURES = 4  # whose Gram matrices are kept
_NAMED = 8  # likeliest classes that are listed


class _Kept(NamedTuple):
  """What is known of a picture."""

  picture: photographs.Picture
  seen: explaining.Seen
  grams: list[spade.LayerGrams]  # none until a map is asked for
  traced: dict[float, Any]  # the latest pruned parameters


class Service:
  """What the page asks for; one question at a time.

  Attributes:
    network: The network.
    stage: What is being done, for those who wait.
  """

  token = ""  # there is nothing private on the page

  def __init__(
    self,
    network: networks.Network,
    *,
    method: str = "saliency",
    sparsity: float | None = None,
    copies: int = explaining.COPIES,
    damping: float = explaining.DAMPING,
    seed: int = 0,
  ):
    self.network, self.method = network, method
    self.sparsity = network.sparsity if sparsity is None else sparsity
    self.copies, self.damping, self.seed = copies, damping, seed
    self.stage = ""
    self._lock = threading.Lock()
    self._kept: collections.OrderedDict[str, _Kept] = collections.OrderedDict()

  def page(self, nonce: str) -> str:
    """Return the page; scripts and styles carry the nonce."""
    return pages.render(
      "explain.html.j2",
      nonce=nonce,
      title=self.network.title,
      methods=networks.METHODS,
      method=self.method,
      sparsity=round(100 * self.sparsity),
      copies=self.copies,
      data={"classes": self.network.classes, "most": MOST_BYTES},
    )

  def progress(self) -> dict[str, Any]:
    """Say what is being done."""
    return {"stage": self.stage}

  @property
  def questions(self) -> dict[str, pages.Question]:
    """What the page may ask, by path."""
    return {
      "/image": pages.Question(
        "application/octet-stream", MOST_BYTES, self.accept
      ),
      "/explain": pages.Question(
        "application/json",
        _MOST_TEXT,
        lambda content: self.explain(json.loads(content)),
      ),
    }

  def accept(self, content: bytes) -> dict[str, Any]:
    """Take a picture and name its likeliest classes."""
    name = hashlib.sha256(content).hexdigest()
    with self._lock:
      kept = self._kept.get(name)
      if kept is None:
        self.stage = "reading the picture"
        picture = photographs.read_image(content)
        self.stage = "asking the dense network"
        seen = explaining.look(self.network, picture)
        kept = self._kept[name] = _Kept(picture, seen, [], {})
        while len(self._kept) > _PICTURES:
          self._kept.popitem(last=False)
      self.stage = ""
    likeliest = explaining.best(kept.seen.probabilities, _NAMED)
    return {
      "image": name,
      "shown": _url(kept.seen.shown),
      "note": kept.picture.note,
      "likeliest": [
        {"class": i, "probability": float(kept.seen.probabilities[i])}
        for i in likeliest
      ],
    }

  def explain(self, asked: Any) -> dict[str, Any]:
    """Return the maps of both networks, and how long they took."""
    name, target, method, sparsity = self._read(asked)
    import jax

    with self._lock:
      kept = self._kept.get(name)
      if kept is None:
        raise ValueError("that picture is no longer kept; give it once more")
      self._kept.move_to_end(name)
      at_copies, at_methods = jax.random.split(jax.random.key(self.seed))
      started = time.perf_counter()
      if not kept.grams:
        self.stage = "looking at crops of the picture"
        found = explaining.measure(
          at_copies, self.network, kept.picture, self.copies
        )
        kept.grams.append(jax.block_until_ready(found))
      measured = time.perf_counter()
      if sparsity not in kept.traced:
        kept.traced.clear()
        kept.traced[sparsity] = explaining.prune(
          self.network,
          kept.grams[0],
          sparsity,
          damping=self.damping,
          progress=self._layers,
        )
      traced, zeros = jax.block_until_ready(kept.traced[sparsity])
      pruned = time.perf_counter()
      self.stage = "making maps"
      after = explaining.probabilities(self.network, traced, kept.seen.x)
      maps = [
        explaining.attribute(
          at_methods, self.network, params, kept.seen.x, target, method
        )
        for params in (self.network.subject.params, traced)
      ]
      mapped = time.perf_counter()
      self.stage = ""
    dense, pruned_map = (overlays.overlay(kept.seen.shown, m) for m in maps)
    return {
      "dense": _url(dense),
      "traced": _url(pruned_map),
      "signed": bool(any((one < 0).any() for one in maps)),
      "sparsity": zeros,
      "before": float(kept.seen.probabilities[target]),
      "after": float(after[target]),
      "likeliest": [
        {"class": i, "probability": float(after[i])}
        for i in explaining.best(kept.seen.probabilities, _NAMED)
      ],
      "seconds": {
        "crops": measured - started,
        "pruning": pruned - measured,
        "maps": mapped - pruned,
      },
    }

  def _layers(self, done: int, many: int) -> None:
    self.stage = f"pruning: {done} of {many} layers"

  def _read(self, asked: Any) -> tuple[str, int, str, float]:
    """Check what is asked for."""
    if not isinstance(asked, dict):
      raise ValueError("a question is a JSON object")
    name, target = asked.get("image"), asked.get("class")
    method, sparsity = asked.get("method"), asked.get("sparsity")
    if not isinstance(name, str):
      raise ValueError("image must be the id of a picture")
    if not isinstance(target, int) or isinstance(target, bool):
      raise ValueError("class must be a whole number")
    networks.find_class(self.network, str(target))
    networks.check_methods([str(method)])
    real = isinstance(sparsity, int | float) and not isinstance(sparsity, bool)
    if not real or not 0 <= sparsity <= 1 or not math.isfinite(sparsity):
      raise ValueError(f"sparsity must be from 0 to 1, got {sparsity!r}")
    return name, target, str(method), float(sparsity)


def _url(pixels: Any) -> str:
  content = base64.b64encode(overlays.to_png(pixels)).decode("ascii")
  return f"data:image/png;base64,{content}"
