"""A local page that explains pictures, on the standard library's server.

It listens on this machine only. POST /image takes the bytes of a picture and
returns its likeliest classes; POST /explain takes JSON with the picture's id, a
class, a method and a sparsity and returns maps. Errors are JSON too.
"""

import base64
import collections
import hashlib
import http
import http.server
import json
import math
import pathlib
import secrets
import threading
import time
import urllib.parse
from typing import Any, NamedTuple, cast

from effjax import spade
from effjax.studies.spade import explaining, networks, overlays, photographs

MOST_BYTES = 20_000_000  # of a picture
_MOST_TEXT = 10_000  # of a question
_PICTURES = 4  # whose Gram matrices are kept
_NAMED = 8  # likeliest classes that are listed
_HOSTS = ("127.0.0.1", "localhost")
_TEMPLATES = pathlib.Path(explaining.__file__).parents[1] / "templates"


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
    import jinja2

    environment = jinja2.Environment(
      loader=jinja2.FileSystemLoader(_TEMPLATES),
      autoescape=True,
      undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("explain.html.j2").render(
      nonce=nonce,
      title=self.network.title,
      methods=networks.METHODS,
      method=self.method,
      sparsity=round(100 * self.sparsity),
      copies=self.copies,
      data={"classes": self.network.classes, "most": MOST_BYTES},
    )

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


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True
  allow_reuse_address = True

  def __init__(self, address: tuple[str, int], service: Service):
    self.service = service
    super().__init__(address, _Handler)


def make_server(service: Service, port: int = 0) -> _Server:
  """Listen on this machine.

  Args:
    service: What answers.
    port: The port, 0 for a free one.

  Returns:
    The server; `serve_forever` serves.

  Raises:
    ValueError: If the port cannot be had.
  """
  try:
    return _Server((_HOSTS[0], port), service)
  except OSError as error:
    raise ValueError(
      f"the port {port} cannot be had ({error.strerror}); choose another by"
      " --port, 0 for a free one"
    ) from None


class _Handler(http.server.BaseHTTPRequestHandler):
  """One request."""

  @property
  def service(self) -> Service:
    """What answers."""
    return cast(_Server, self.server).service

  protocol_version = "HTTP/1.1"
  timeout = 60

  def do_GET(self) -> None:
    path = urllib.parse.urlsplit(self.path).path
    if not self._is_local():
      self._fail(http.HTTPStatus.FORBIDDEN, "this page is for this machine")
    elif path == "/":
      nonce = secrets.token_urlsafe(16)
      page = self.service.page(nonce).encode("utf-8")
      self._send(page, "text/html; charset=utf-8", nonce=nonce)
    elif path == "/progress":
      self._json({"stage": self.service.stage})
    else:
      self._fail(http.HTTPStatus.NOT_FOUND, f"there is no page {path}")

  def do_POST(self) -> None:
    service = self.service
    path = urllib.parse.urlsplit(self.path).path
    # A page from elsewhere cannot send these types without being asked first.
    kinds = {
      "/image": ("application/octet-stream", MOST_BYTES),
      "/explain": ("application/json", _MOST_TEXT),
    }
    if not self._is_local():
      self._fail(http.HTTPStatus.FORBIDDEN, "this page is for this machine")
      return
    if path not in kinds:
      self._fail(http.HTTPStatus.NOT_FOUND, f"there is no page {path}")
      return
    kind, most = kinds[path]
    if self.headers.get_content_type() != kind:
      self._fail(http.HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{path} takes {kind}")
      return
    length = self.headers.get("Content-Length", "")
    if not length.isdecimal():
      self._fail(http.HTTPStatus.LENGTH_REQUIRED, "the length is missing")
      return
    if int(length) > most:
      self._fail(
        http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"{int(length):,} bytes are too many; {most:,} are the limit",
      )
      return
    content = self.rfile.read(int(length))
    try:
      if path == "/image":
        self._json(service.accept(content))
      else:
        self._json(service.explain(json.loads(content)))
    except ValueError as error:
      service.stage = ""
      self._fail(http.HTTPStatus.BAD_REQUEST, str(error))

  def _is_local(self) -> bool:
    """Refuse names of other machines that point here."""
    host = self.headers.get("Host", "").rpartition(":")[0]
    origin = urllib.parse.urlsplit(self.headers.get("Origin", ""))
    return host in _HOSTS and origin.hostname in (None, *_HOSTS)

  def _json(
    self, content: Any, status: http.HTTPStatus = http.HTTPStatus.OK
  ) -> None:
    self._send(
      json.dumps(content).encode("utf-8"), "application/json", status=status
    )

  def _fail(self, status: http.HTTPStatus, text: str) -> None:
    # The rest of the request may not have been read.
    self.close_connection = True
    self._json({"error": text}, status)

  def _send(
    self,
    content: bytes,
    kind: str,
    *,
    status: http.HTTPStatus = http.HTTPStatus.OK,
    nonce: str = "",
  ) -> None:
    policy = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
    if nonce:
      policy += (
        f"; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src"
        " data:; connect-src 'self'; form-action 'none'"
      )
    self.send_response(status)
    self.send_header("Content-Type", kind)
    self.send_header("Content-Length", str(len(content)))
    self.send_header("Content-Security-Policy", policy)
    self.send_header("X-Content-Type-Options", "nosniff")
    self.send_header("Referrer-Policy", "no-referrer")
    self.send_header("Cache-Control", "no-store")
    if self.close_connection:
      self.send_header("Connection", "close")
    self.end_headers()
    self.wfile.write(content)

  def log_message(self, format: str, *args: Any) -> None:
    """Say nothing of every request."""
