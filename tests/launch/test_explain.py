"""Explaining a picture from the command line and in a page."""

import io
import json
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from flax import linen as nn

from effjax import data
from effjax.models import layers
from effjax.studies.spade import explaining, networks, overlays, photographs
from launch import explain, pages, serving
from tests.launch import chromium
from tests.launch.local import ask

SIDE = 8
CLASSES = ("cat", "dog", "<b>fox</b>", "Dog", "arctic fox")


class Tiny(nn.Module):
  """Two layers that may be pruned after one that may not."""

  @nn.compact
  def __call__(self, x, train=False):
    del train
    x = nn.relu(layers.Conv(4, 3, name="stem")(x))
    x = nn.relu(layers.Conv(6, 1, name="point")(x))
    return nn.Dense(len(CLASSES), name="head")(jnp.mean(x, (1, 2)))


def _prepare(images):
  picture = PIL.Image.fromarray(images[0]).resize((SIDE, SIDE))
  return _normalise(jnp.asarray(picture)[None].astype(jnp.float32) / 255)


def _normalise(x):
  return x - 0.5


@pytest.fixture(scope="module")
def network():
  module = Tiny()
  variables = module.init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
  return networks.make(
    "Tiny <net>",
    module,
    variables,
    CLASSES,
    side=SIDE,
    prepare=_prepare,
    normalise=_normalise,
    kept=("stem/kernel",),
    sparsity=0.5,
    layer="point/kernel",
  )


@pytest.fixture
def tiny(network, monkeypatch):
  monkeypatch.setitem(networks.MODELS, "tiny", lambda directory: network)
  return network


def pixels(height=20, width=30):
  rows = np.arange(height, dtype=np.uint8)[:, None, None] * 8
  columns = np.arange(width, dtype=np.uint8)[None, :, None] * 8
  return np.broadcast_to(rows ^ columns, (height, width, 3)).copy()


def encoded(array, format="png", **options):
  buffer = io.BytesIO()
  PIL.Image.fromarray(array).save(buffer, format, **options)
  return buffer.getvalue()


@pytest.fixture
def picture(tmp_path):
  path = tmp_path / "photo.png"
  path.write_bytes(encoded(pixels()))
  return path


def test_the_command_writes_a_figure(tiny, picture, tmp_path, capsys):
  output = tmp_path / "out.png"
  arguments = [str(picture), "--model=tiny", "--methods=saliency", "--copies=3"]
  assert explain.main([*arguments, f"--output={output}", "--target=CAT"]) == 0
  with PIL.Image.open(output) as drawn:
    assert min(drawn.size) > 300
  said = capsys.readouterr().out
  assert "pruning" in said
  assert "saliency, SPADE" in said
  assert [p.name for p in tmp_path.iterdir() if "part" in p.name] == []


def test_a_users_errors(tiny, picture, tmp_path, capsys, monkeypatch):
  def fails(*arguments):
    assert explain.main(list(arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("explain: ")
    assert error.count("\n") == 1
    return error

  monkeypatch.chdir(tmp_path)
  name, model = str(picture), "--model=tiny"
  assert "IMAGE is missing" in fails(model)
  assert "did you mean '--sparsity'" in fails(name, model, "--sparsty=0.5")
  assert "did you mean 'photo.png'" in fails("foto.png", model)
  assert "is a directory" in fails(str(tmp_path), model)
  assert "did you mean 'saliency'" in fails(name, model, "--methods=salience")
  assert "at least one of" in fails(name, model, "--methods=,")
  assert "did you mean 'tiny'" in fails(name, "--model=tyny")
  assert "numbered from 0 to 4" in fails(name, model, "--target=5")
  assert "no class 'wolf'" in fails(name, model, "--target=wolf")
  assert "nearest are 'arctic fox'" in fails(name, model, "--target=arctic")
  assert "1, 3 are all called 'dog'" in fails(name, model, "--target=dog")
  assert "from 0.0 to 1.0" in fails(name, model, "--sparsity=1.5")
  assert "from 0.0 to 1.0" in fails(name, model, "--sparsity=nan")
  assert "--copies must be from 1" in fails(name, model, "--copies=0")
  assert "must end in .png" in fails(name, model, "--output=x.txt")
  assert "in no directory" in fails(name, model, "--output=no/x.png")
  if sys.platform == "linux":
    assert "cannot be written" in fails(name, model, "--output=/proc/x.png")
  (tmp_path / "broken.png").write_bytes(picture.read_bytes()[:60])
  assert "truncated or damaged" in fails("broken.png", model)
  lite0 = fails(name, f"--directory={tmp_path}")
  assert "launch.fetch efficientnet_lite0 imagenet_classes" in lite0


def test_pictures_of_all_kinds_are_read():
  plain = pixels()
  read = photographs.read_image
  np.testing.assert_array_equal(read(encoded(plain)).pixels, plain)
  grey = read(encoded(plain[..., 0])).pixels
  np.testing.assert_array_equal(grey, np.repeat(plain[..., :1], 3, 2))
  # Transparent is white, whatever colour lies below.
  alpha = np.zeros((20, 30, 4), np.uint8)
  alpha[:10, :, 3] = 255
  seen = read(encoded(alpha)).pixels
  assert seen[:10].max() == 0
  assert seen[10:].min() == 255
  buffer = io.BytesIO()
  PIL.Image.fromarray(plain).convert("P").save(buffer, "gif")
  assert read(buffer.getvalue()).pixels.shape == plain.shape
  # Grey of sixteen bits is scaled, not cut off.
  deep = np.full((20, 30), 32768, np.uint16)
  deep[0] = 65535
  assert abs(int(read(encoded(deep)).pixels[5, 5, 0]) - 128) <= 1
  # Turned upright as the camera says.
  exif = PIL.Image.Exif()
  exif[274] = 6
  assert read(encoded(plain, "jpeg", exif=exif)).pixels.shape == (30, 20, 3)


def test_what_is_changed_is_said_and_what_is_no_picture_refused():
  read = photographs.read_image
  frames = [PIL.Image.fromarray(pixels() // n) for n in (1, 2, 3)]
  buffer = io.BytesIO()
  frames[0].save(buffer, "gif", save_all=True, append_images=frames[1:])
  assert read(buffer.getvalue()).note == "the first of 3 frames"
  large = read(encoded(np.zeros((40, 2000, 3), np.uint8)))
  assert large.pixels.shape == (20, 1024, 3)
  assert large.note == "shrunk from 2000 x 40 pixels"
  with pytest.raises(ValueError, match="has 15 x 20 pixels; expected at least"):
    read(encoded(pixels(20, 15)))
  with pytest.raises(ValueError, match="the picture cannot be read"):
    read(b"<html>")


def test_maps_are_those_of_the_networks(network):
  picture = photographs.Picture(pixels(), "")
  found = explaining.explain(
    jax.random.key(0), network, picture, ["saliency"], copies=3
  )
  dense, traced = found.maps["saliency"]
  assert dense.shape == (SIDE, SIDE)
  assert not np.allclose(dense, traced)
  x = network.prepare(picture.pixels[None])
  f, params = network.subject.f, network.subject.params
  gradient = jax.grad(lambda x: f(params, x)[0, found.target[0]])(x)
  np.testing.assert_allclose(dense, abs(gradient).sum(-1)[0], atol=1e-6)
  probabilities = jax.nn.softmax(f(params, x)[0])
  assert found.target[0] == int(jnp.argmax(probabilities))
  assert found.chances[0] == pytest.approx(float(max(probabilities)), 1e-5)
  assert found.sparsity == pytest.approx(0.5)
  assert len(found.top) == 5
  # The dense network again where nothing is pruned.
  grams = explaining.measure(jax.random.key(0), network, picture, 3)
  same, zeros = explaining.prune(network, grams, 0.0)
  assert zeros == 0.0
  np.testing.assert_array_equal(
    same["head"]["kernel"], params["head"]["kernel"]
  )


def test_every_method_is_known_to_the_study(network):
  assert set(network.methods) == set(networks.METHODS)


def test_what_is_large_is_opaque():
  shown = np.full((4, 4, 3), 255, np.uint8)
  found = np.zeros((4, 4))
  found[0, 0], found[1, 1], found[2, 2] = 2.0, -2.0, np.nan
  drawn = overlays.overlay(shown, found)
  assert drawn[0, 0].tolist() == [0xB8, 0x5C, 0x0B]
  assert drawn[1, 1].tolist() == [0x1F, 0x6A, 0xA8]
  assert drawn[2, 2].tolist() == drawn[3, 3].tolist() == [255, 255, 255]
  overlays.overlay(shown, np.zeros((4, 4)))


@pytest.fixture(scope="module")
def served(network):
  service = serving.Service(network, copies=3)
  with pages.make_server(service) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()


def post(port, path, body, kind):
  answer, content = ask(port, "POST", path, body, Content_Type=kind)
  return answer.status, json.loads(content)


def upload(port, content):
  return post(port, "/image", content, "application/octet-stream")


def question(port, **asked):
  return post(port, "/explain", json.dumps(asked), "application/json")


def test_the_page_is_one_safe_file(served):
  answer, content = ask(served, "GET", "/")
  text = content.decode()
  assert "What Tiny &lt;net&gt; looks at" in text
  assert "<b>fox" not in text
  policy = answer.headers["Content-Security-Policy"]
  assert "default-src 'none'" in policy
  assert "unsafe" not in policy
  for tag in ("<script nonce=", "<style nonce="):
    assert text.count(tag) == 1
  assert "http" not in text
  assert " on" + "click" not in text
  assert " style=" not in text
  again, _ = ask(served, "GET", "/")
  assert again.headers["Content-Security-Policy"] != policy


def test_the_page_answers(served):
  status, taken = upload(served, encoded(pixels()))
  assert status == 200
  assert taken["shown"].startswith("data:image/png;base64,")
  assert [c["class"] for c in taken["likeliest"]] != []
  asked = {
    "image": taken["image"],
    "class": 2,
    "method": "saliency",
    "sparsity": 0.5,
  }
  status, first = question(served, **asked)
  assert status == 200
  assert first["dense"] != first["traced"]
  assert first["sparsity"] == pytest.approx(0.5)
  status, second = question(served, **{**asked, "sparsity": 0.25})
  assert second["dense"] == first["dense"]
  assert second["traced"] != first["traced"]
  # The Gram matrices are still there.
  assert second["seconds"]["crops"] < 0.01


def test_the_page_refuses(served):
  _, taken = upload(served, encoded(pixels()))
  good = {
    "image": taken["image"],
    "class": 0,
    "method": "saliency",
    "sparsity": 0.5,
  }

  def refused(**changes):
    status, answer = question(served, **{**good, **changes})
    assert status == 400
    return answer["error"]

  assert "no longer kept" in refused(image="x")
  assert "from 0 to 4" in refused(**{"class": 5})
  assert "whole number" in refused(**{"class": "cat"})
  assert "did you mean 'saliency'" in refused(method="salience")
  assert "from 0 to 1" in refused(sparsity=2)
  assert "from 0 to 1" in refused(sparsity=float("nan"))
  assert "truncated or damaged" in upload(served, b"GIF89a")[1]["error"]
  assert post(served, "/explain", "[", "application/json")[0] == 400
  assert post(served, "/explain", "[]", "application/json")[0] == 400
  # A page from elsewhere can send this type, and gets nothing.
  assert post(served, "/image", b"x", "text/plain")[0] == 415
  assert ask(served, "GET", "/", Host="evil.example:80")[0].status == 403
  origin = ask(served, "POST", "/image", b"x", Origin="http://evil.example")
  assert origin[0].status == 403
  assert ask(served, "GET", "/etc/passwd")[0].status == 404
  length = {"Content_Type": "application/octet-stream"}
  length["Content_Length"] = str(serving.MOST_BYTES + 1)
  assert ask(served, "POST", "/image", b"", **length)[0].status == 413


def test_a_port_that_is_taken(served, tiny, capsys):
  assert explain.main(["--serve", "--model=tiny", f"--port={served}"]) == 2
  assert f"the port {served} cannot be had" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(chromium.find() is None, reason="there is no Chromium")
def test_the_page_in_a_browser(served, picture, tmp_path):
  page = chromium.Page(chromium.find(), tmp_path / "profile")
  try:
    page.open(f"http://127.0.0.1:{served}/")
    assert page.js("document.getElementById('controls').disabled")
    page.choose("#file", picture)
    page.wait("document.body.dataset.done === '1'")
    first = page.js("document.getElementById('traced').src")
    assert first.startswith("data:image/png")
    assert "<b>fox</b>" in page.js("document.body.innerText")
    # The slider, by the keyboard.
    page.js("document.getElementById('sparsity').focus()")
    page.press("ArrowRight", 39)
    page.wait("document.body.dataset.done === '2'")
    assert page.js("document.getElementById('share').textContent") == "55\xa0%"
    assert page.js("document.getElementById('traced').src") != first
    # On a phone nothing is wider than the screen.
    page.resize(360, 740)
    assert page.js("document.documentElement.scrollWidth") <= 360
    assert page.complaints() == []
    text = picture.with_suffix(".txt")
    text.write_text("no picture")
    page.choose("#file", text)
    page.wait("!document.getElementById('error').hidden")
    shown = page.js("document.getElementById('error').textContent")
    assert "cannot be read as a picture" in shown
  finally:
    page.close()


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(900)
def test_a_photograph(tmp_path, capsys):
  try:
    found = data.locate("astronaut")
    for name in ("efficientnet_lite0", "imagenet_classes"):
      data.locate(name)
  except FileNotFoundError as error:
    pytest.skip(str(error).splitlines()[0])
  photo = tmp_path / "astronaut.png"
  photo.write_bytes(found.read("astronaut.png"))
  output = tmp_path / "out.png"
  arguments = [str(photo), "--methods=saliency", "--target=space shuttle"]
  arguments.append(f"--output={output}")
  assert explain.main(arguments) == 0
  assert output.stat().st_size > 100_000
  said = capsys.readouterr().out
  # The helmet beside her.
  assert "% by SPADE  football helmet" in said
