"""A Chromium without a window, driven through a pipe; for tests of pages."""

import base64
import json
import os
import shutil
import signal
import subprocess
import time


def find():
  """Return the path of a Chromium, or None."""
  for name in ("chromium", "chromium-browser", "google-chrome"):
    if path := shutil.which(name):
      return path
  return None


class Page:
  """One tab. Its messages are JSON that ends with a zero byte."""

  def __init__(self, path, profile, size=(1100, 1000)):
    ours, theirs = os.pipe(), os.pipe()
    command = [
      path,
      "--headless=new",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-dev-shm-usage",
      "--no-first-run",
      f"--user-data-dir={profile}",
      f"--window-size={size[0]},{size[1]}",
      "--remote-debugging-pipe",
      "about:blank",
    ]
    # It reads at 3 and writes at 4.
    script = f'exec 3<&{ours[0]} 4>&{theirs[1]}; exec "$@"'
    self.process = subprocess.Popen(
      ["bash", "-c", script, "chromium", *command],
      pass_fds=(ours[0], theirs[1]),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      start_new_session=True,
    )
    os.close(ours[0])
    os.close(theirs[1])
    self.input, self.output = ours[1], theirs[0]
    self.number, self.rest, self.events = 0, b"", []
    self.session = None
    targets = self.call("Target.getTargets")["targetInfos"]
    target = next(t for t in targets if t["type"] == "page")["targetId"]
    self.session = self.call(
      "Target.attachToTarget", targetId=target, flatten=True
    )["sessionId"]
    for domain in ("Page", "Runtime", "Log", "DOM"):
      self.call(f"{domain}.enable")

  def call(self, method, **params):
    """Do something and return what comes of it."""
    self.number += 1
    message = {"id": self.number, "method": method, "params": params}
    if self.session:
      message["sessionId"] = self.session
    os.write(self.input, json.dumps(message).encode() + b"\0")
    while True:
      answer = self._next()
      if answer.get("id") == self.number:
        if "error" in answer:
          raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]
      self.events.append(answer)

  def _next(self):
    while b"\0" not in self.rest:
      read = os.read(self.output, 1 << 16)
      if not read:
        raise RuntimeError("Chromium has gone")
      self.rest += read
    text, _, self.rest = self.rest.partition(b"\0")
    return json.loads(text)

  def js(self, expression):
    """Return the value of an expression, awaited if it is a promise."""
    found = self.call(
      "Runtime.evaluate",
      expression=expression,
      returnByValue=True,
      awaitPromise=True,
    )
    if "exceptionDetails" in found:
      raise RuntimeError(str(found["exceptionDetails"]))
    return found["result"].get("value")

  def wait(self, condition, seconds=60):
    """Wait until an expression is true."""
    end = time.monotonic() + seconds
    while not self.js(condition):
      if time.monotonic() > end:
        raise TimeoutError(condition)
      time.sleep(0.1)

  def open(self, url):
    """Go to a page."""
    self.call("Page.navigate", url=url)
    self.wait(
      "document.readyState === 'complete' && location.href !== 'about:blank'"
    )

  def choose(self, selector, path):
    """Give a file to an input."""
    root = self.call("DOM.getDocument")["root"]["nodeId"]
    node = self.call("DOM.querySelector", nodeId=root, selector=selector)
    self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node["nodeId"])

  def press(self, key, code):
    """Press a key, such as ("ArrowRight", 39)."""
    for kind in ("keyDown", "keyUp"):
      self.call(
        "Input.dispatchKeyEvent",
        type=kind,
        key=key,
        code=key,
        windowsVirtualKeyCode=code,
      )

  def complaints(self):
    """Return what went wrong on the page, by its console."""
    self.js("1")
    wrong = []
    for event in self.events:
      params = event.get("params", {})
      if event.get("method") == "Runtime.exceptionThrown":
        wrong.append(str(params["exceptionDetails"]))
      if event.get("method") == "Log.entryAdded":
        entry = params["entry"]
        if entry["level"] == "error":
          wrong.append(f"{entry['text']} {entry.get('url', '')}")
    return wrong

  def screenshot(self, path):
    """Save the whole page as PNG."""
    data = self.call(
      "Page.captureScreenshot", format="png", captureBeyondViewport=True
    )["data"]
    with open(path, "wb") as file:
      file.write(base64.b64decode(data))

  def resize(self, width, height, dark=False):
    """Look at the page on another screen."""
    self.call(
      "Emulation.setDeviceMetricsOverride",
      width=width,
      height=height,
      deviceScaleFactor=1,
      mobile=width < 600,
    )
    self.call(
      "Emulation.setEmulatedMedia",
      features=[
        {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
      ],
    )

  def close(self):
    """End the browser and what it started."""
    os.close(self.input)
    try:
      self.process.wait(5)
    except subprocess.TimeoutExpired:
      os.killpg(self.process.pid, signal.SIGKILL)
      self.process.wait()
    os.close(self.output)
