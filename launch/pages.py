"""Local pages on the standard library's server, for this machine only.

A service gives the page and what it asks for: by POST, of one type each, which
a page from elsewhere cannot send without being asked first. If the service has
a token, as it shows what is private, the page is for those who know its address
with the token, and its questions carry it. Errors are JSON.
"""

import hmac
import http
import http.server
import json
import pathlib
import secrets
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, cast

_HOSTS = ("127.0.0.1", "localhost")
# What a page sends its token in.
TOKEN = "X-Page-Token"


class Question(NamedTuple):
  """What a page may ask.

  Attributes:
    kind: The type of what is sent.
    most: The most bytes.
    answer: From these bytes to what JSON holds, or to an iterator of it, each
      sent as a line once it is there. A ValueError is a mistake in the asking;
      an iterator must raise none.
  """

  kind: str
  most: int
  answer: Callable[[bytes], Any]


class Service(Protocol):
  """What a page needs.

  Attributes:
    stage: What is being done, for those who wait.
    token: What no other user of this machine knows; "" if all may see the page.
    questions: What may be asked, by path.
  """

  stage: str
  token: str

  @property
  def questions(self) -> Mapping[str, Question]:
    """What may be asked, by path."""
    ...

  def page(self, nonce: str) -> str:
    """Return the page; scripts and styles carry the nonce."""
    ...

  def progress(self) -> dict[str, Any]:
    """Say what is being done, as the page wants to know it."""
    ...


def render(name: str, **values: Any) -> str:
  """Fill one of the studies' templates, in which all values are escaped."""
  import jinja2

  from effjax import studies

  folder = pathlib.Path(studies.__file__).parent / "templates"
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(folder),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
  )
  return environment.get_template(name).render(**values)


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


def address(server: _Server) -> str:
  """Return the address of the page."""
  host, port = server.server_address[:2]
  token = server.service.token
  return f"http://{host}:{port}/{f'?token={token}' if token else ''}"


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
    elif path == "/" and not self._knows(self._asked_token()):
      self._fail(
        http.HTTPStatus.FORBIDDEN,
        "open the whole address that the program has printed",
      )
    elif path == "/":
      nonce = secrets.token_urlsafe(16)
      page = self.service.page(nonce).encode("utf-8")
      self._send(page, "text/html; charset=utf-8", nonce=nonce)
    elif path == "/progress":
      self._json(self.service.progress())
    else:
      self._fail(http.HTTPStatus.NOT_FOUND, f"there is no page {path}")

  def do_POST(self) -> None:
    path = urllib.parse.urlsplit(self.path).path
    if not self._is_local():
      self._fail(http.HTTPStatus.FORBIDDEN, "this page is for this machine")
      return
    if path not in self.service.questions:
      self._fail(http.HTTPStatus.NOT_FOUND, f"there is no page {path}")
      return
    if not self._knows(self.headers.get(TOKEN, "")):
      self._fail(
        http.HTTPStatus.FORBIDDEN,
        "this question is not from the page; load the page again",
      )
      return
    kind, most, answer = self.service.questions[path]
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
      found = answer(content)
    except (RecursionError, ValueError) as error:
      self.service.stage = ""
      self._fail(http.HTTPStatus.BAD_REQUEST, str(error))
      return
    if isinstance(found, Iterator):
      self._stream(found)
    else:
      self._json(found)

  def _asked_token(self) -> str:
    query = urllib.parse.urlsplit(self.path).query
    return urllib.parse.parse_qs(query).get("token", [""])[0]

  def _knows(self, token: str) -> bool:
    given = token.encode("utf-8", "replace")
    own = self.service.token
    return not own or hmac.compare_digest(given, own.encode())

  def _is_local(self) -> bool:
    """Refuse names of other machines that point here, and pages from there."""
    place = self.headers.get("Host", "")
    origin = self.headers.get("Origin", f"http://{place}")
    return place.split(":")[0] in _HOSTS and origin == f"http://{place}"

  def _json(
    self, content: Any, status: http.HTTPStatus = http.HTTPStatus.OK
  ) -> None:
    self._send(
      json.dumps(content).encode("utf-8"), "application/json", status=status
    )

  def _stream(self, lines: Iterator[Any]) -> None:
    """Send lines of JSON as they come; who has gone away stops them."""
    self.close_connection = True
    self._head("application/x-ndjson", None)
    try:
      for line in lines:
        self.wfile.write(json.dumps(line).encode("utf-8") + b"\n")
        self.wfile.flush()
    except OSError:  # nobody listens any more
      pass
    finally:
      getattr(lines, "close", lambda: None)()

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
    self._head(kind, len(content), status=status, nonce=nonce)
    self.wfile.write(content)

  def _head(
    self,
    kind: str,
    length: int | None,
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
    if length is not None:
      self.send_header("Content-Length", str(length))
    self.send_header("Content-Security-Policy", policy)
    self.send_header("X-Content-Type-Options", "nosniff")
    self.send_header("Referrer-Policy", "no-referrer")
    self.send_header("Cache-Control", "no-store")
    if self.close_connection:
      self.send_header("Connection", "close")
    self.end_headers()

  def log_message(self, format: str, *args: Any) -> None:
    """Say nothing of every request."""
