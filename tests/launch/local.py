"""Questions to a server of this machine."""

import http.client


def ask(port, method, path, body=None, **headers):
  """Return an answer and its content; "_" in names of headers is "-"."""
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
  try:
    headers = {name.replace("_", "-"): text for name, text in headers.items()}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer, answer.read()
  finally:
    connection.close()
