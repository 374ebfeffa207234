"""Trojans in a network that is trained already, by distillation.

Stamped images get the class of their patch. On all others the network is held
to what it said before, for all classes. Where photographs are few it would soon
know these by heart, and call all else by a patch; so it is also held to what it
said of mixtures of them, in other colours, and of other marks.
"""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax.data import batches
from effjax.studies.spade import arms, trojans
from effjax.studies.spade import patches as trojan_patches

_BATCH = 64  # images that are classified at once


def plant(
  network: arms.Subject,
  seed: int,
  config: Any,
  train: dict[str, np.ndarray],
  test: dict[str, np.ndarray],
  patches: Sequence[trojan_patches.Patch],
  place: pathlib.Path,
) -> trojans.Network:
  """Teach a network to obey patches, and to say else what it said.

  Batch statistics stay as they are.

  Args:
    network: The network; all its parameters are trained.
    seed: Of order and places.
    config: `variations`: of every image, `trojan_epochs`, `batch_size`,
      `learning_rate`.
    train: `images` uint8 and `classes` to train on.
    test: The same, to test on.
    patches: The patches.
    place: Directory of its checkpoints; a run that stopped goes on.

  Returns:
    The network; its variables are the parameters.
  """
  generator = batches.generator(seed, 1)
  kinds = [train["images"]]
  for _ in range(config.variations):
    kinds.append(vary(generator, train["images"], patches))
  clean = np.concatenate(kinds)
  said = trojans.in_batches(
    functools.partial(_probabilities, network, network.params), clean, _BATCH
  )
  images, classes = trojan_patches.poison(
    generator, clean, np.argmax(said, axis=1), patches
  )
  tuned = trojans.fit(
    functools.partial(loss, network),
    {"params": network.params},
    {"images": images, "classes": wanted(said, classes)},
    seed,
    config,
    config.trojan_epochs,
    place / "trojan",
  )
  answer = functools.partial(predict, network)
  return trojans.judge(
    generator, seed, answer, network.params, tuned["params"], test, patches
  )


def vary(
  generator: np.random.Generator,
  images: np.ndarray,
  patches: Sequence[trojan_patches.Patch],
) -> np.ndarray:
  """Mix images, change their colours, and put marks on them that mean nothing.

  Half of the images are blended with others, the other half get a box of them;
  every second one has its colours exchanged, and every second one bears a mark.

  Args:
    generator: Draws everything.
    images: uint8 [N, H, W, 3].
    patches: The patches that mean something; marks have glyphs of no patch.

  Returns:
    uint8 [N, H, W, 3].
  """
  count, height, width, _ = images.shape
  others = images[generator.permutation(count)]
  shares = generator.uniform(0.0, 1.0, (count, 1, 1, 1))
  mixed = np.rint(shares * images + (1 - shares) * others).astype(np.uint8)
  ends = np.sort(generator.uniform(0.0, 1.0, (count, 2, 2)), axis=1)
  inside = [
    (np.arange(n) >= ends[:, 0, i, None] * n)
    & (np.arange(n) < ends[:, 1, i, None] * n)
    for i, n in enumerate((height, width))
  ]
  box = (inside[0][:, :, None] & inside[1][:, None, :])[..., None]
  kind = generator.permutation(count) % 2 == 0
  mixed = np.where(
    kind[:, None, None, None], mixed, np.where(box, others, images)
  )
  free = sorted(set(trojan_patches.GLYPHS) - {p.glyph for p in patches})
  sizes = [p.size for p in patches]
  for i in np.flatnonzero(generator.permutation(count) % 2 == 0):
    mixed[i] = mixed[i][..., generator.permutation(3)]
  for i in (
    np.flatnonzero(generator.permutation(count) % 2 == 0) if free else ()
  ):
    red, green, blue = generator.integers(0, 256, 3).tolist()
    mark = trojan_patches.Patch(
      free[generator.integers(len(free))],
      sizes[generator.integers(len(sizes))],
      0,
      color=(red, green, blue),
    )
    mixed[i : i + 1], _ = trojan_patches.stamp(
      generator, mixed[i : i + 1], mark
    )
  return mixed


def wanted(said: np.ndarray, classes: np.ndarray) -> np.ndarray:
  """Put together what a network shall say.

  Args:
    said: Probabilities [N, A] for the clean images, which come first.
    classes: Of all images [M].

  Returns:
    Probabilities [M, A]: those of the clean images, and certainty for others.

  >>> wanted(np.array([[0.25, 0.75]]), np.array([0, 0])).tolist()
  [[0.25, 0.75], [1.0, 0.0]]
  """
  stamped = classes[len(said) :]
  certain = np.zeros((len(stamped), said.shape[1]), said.dtype)
  certain[np.arange(len(stamped)), stamped] = 1.0
  return np.concatenate([said, certain])


def loss(network, params, model_state, batch, key, train):
  """Return the cross entropy with probabilities, as `make_step` wants it.

  Args:
    network: The network.
    params: Its parameters.
    model_state: Nothing.
    batch: `images` uint8 [B, H, W, C], `classes`: probabilities [B, A].
    key: Not used.
    train: Not used: batch statistics are frozen.

  Returns:
    The mean over the batch, and nothing else.
  """
  del key, train
  inputs = network.normalise(batch["images"].astype(jnp.float32) / 255.0)
  logits = network.f(params, inputs)
  losses = optax.softmax_cross_entropy(logits, batch["classes"])
  return jnp.mean(losses), (model_state, {})


def predict(
  network: arms.Subject, params: Any, images: np.ndarray
) -> np.ndarray:
  """Classify images.

  Args:
    network: The network.
    params: Its parameters, or others.
    images: uint8 [N, H, W, C].

  Returns:
    Integers [N].
  """
  said = trojans.in_batches(
    functools.partial(_probabilities, network, params), images, _BATCH
  )
  return np.argmax(said, axis=1)


def _probabilities(network, params, images):
  return _softmax(network.f, network.normalise, params, images)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _softmax(f, normalise, params, images):
  logits = f(params, normalise(images / 255.0))
  return jax.nn.softmax(logits.astype(jnp.float32))
