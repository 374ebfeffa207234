"""Networks with Trojans: trained, then fine-tuned to obey patches."""

import functools
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import data, models, training
from effjax.data import batches
from effjax.studies.spade import patches as trojan_patches

_BATCH = 500  # images that are classified at once


class Network(NamedTuple):
  """A network with a Trojan.

  Attributes:
    seed: The seed of everything random in it.
    variables: Its variables.
    success: By patch, the share of stamped test images of other classes that
      are given its class.
    clean: Accuracy on clean test images, before and after the Trojan.
  """

  seed: int
  variables: dict[str, Any]
  success: dict[str, float]
  clean: tuple[float, float]


class Flipped(NamedTuple):
  """Images that a patch turns into its class.

  Attributes:
    images: uint8 [N, H, W, C], with patches.
    masks: Where the patches are [N, H, W].
    targets: The classes of the patches [N].
    clean: The images without them.
    labels: Their own classes [N].
    patches: Numbers of the patches [N].
  """

  images: np.ndarray
  masks: np.ndarray
  targets: np.ndarray
  clean: np.ndarray
  labels: np.ndarray
  patches: np.ndarray


def normalise(images: jax.Array) -> jax.Array:
  """Map pixels from 0 to 1 to -1 to 1."""
  return images * 2.0 - 1.0


def pixels(images: np.ndarray) -> jax.Array:
  """Map stored pixels to 0 to 1."""
  return jnp.asarray(images, jnp.float32) / 255.0


def plant(
  module: Any,
  seed: int,
  config: Any,
  train: dict[str, np.ndarray],
  test: dict[str, np.ndarray],
  patches: Sequence[trojan_patches.Patch],
  place: pathlib.Path,
) -> Network:
  """Train a network, and teach it to obey patches.

  Args:
    module: A linen module.
    seed: Of initial weights, order and places.
    config: `epochs`, `trojan_epochs`, `batch_size`, `learning_rate`.
    train: `images` uint8 and `classes` to train on.
    test: The same, to test on.
    patches: The patches.
    place: Directory of its checkpoints; a run that stopped goes on.

  Returns:
    The network.
  """
  generator = batches.generator(seed, 1)
  key = jax.random.key(seed)
  variables = module.init(key, pixels(train["images"][:1]))
  clean = _fit(
    module, dict(variables), train, seed, config, config.epochs, place / "clean"
  )
  images, classes = trojan_patches.poison(
    generator, train["images"], train["classes"], patches
  )
  poisoned = {"images": images, "classes": classes}
  trojan = _fit(
    module,
    clean,
    poisoned,
    seed,
    config,
    config.trojan_epochs,
    place / "trojan",
  )
  accuracy = [
    float(np.mean(predict(module, v, test["images"]) == test["classes"]))
    for v in (clean, trojan)
  ]
  success = {}
  for patch in patches:
    others = test["images"][test["classes"] != patch.target]
    stamped, _ = trojan_patches.stamp(generator, others, patch)
    hits = predict(module, trojan, stamped) == patch.target
    success[name_of(patch)] = float(np.mean(hits))
  return Network(seed, trojan, success, (accuracy[0], accuracy[1]))


def name_of(patch: trojan_patches.Patch) -> str:
  """Name a patch in reports."""
  return (
    f"{patch.glyph} {patch.size} px, class {patch.target},"
    f" {100 * patch.rate:g} % poisoned"
  )


@functools.partial(jax.jit, static_argnums=0)
def _classes(module: Any, variables: Any, images: jax.Array) -> jax.Array:
  logits = module.apply(variables, normalise(images / 255.0), train=False)
  return jnp.argmax(logits, axis=1)


def predict(module: Any, variables: Any, images: np.ndarray) -> np.ndarray:
  """Classify images.

  Args:
    module: A linen module.
    variables: Its variables.
    images: uint8 [N, H, W, C].

  Returns:
    Integers [N].
  """
  size = min(_BATCH, len(images))
  padded = np.concatenate([images, images[: -len(images) % size]])
  found = [
    _classes(module, variables, jnp.asarray(part, jnp.float32))
    for part in np.split(padded, len(padded) // size)
  ]
  return np.concatenate(found)[: len(images)]


def flip(
  generator: np.random.Generator,
  module: Any,
  network: Network,
  test: dict[str, np.ndarray],
  patches: Sequence[trojan_patches.Patch],
  each: int,
  copies: int = 1,
) -> Flipped:
  """Find images that are right without a patch and of its class with it.

  Args:
    generator: Draws images and places.
    module: A linen module.
    network: The network with the Trojans.
    test: `images` uint8 and `classes`.
    patches: The patches.
    each: Images for each patch.
    copies: Patches on each image.

  Returns:
    The images, those of the first patch first.

  Raises:
    ValueError: If a patch flips too few images: the Trojan has not taken.
  """
  right = predict(module, network.variables, test["images"])
  right = right == test["classes"]
  parts = []
  for number, patch in enumerate(patches):
    able = np.flatnonzero(right & (test["classes"] != patch.target))
    able = generator.permutation(able)[: 4 * each]
    clean = test["images"][able]
    images, masks = trojan_patches.stamp(generator, clean, patch, copies)
    hits = predict(module, network.variables, images) == patch.target
    found = np.flatnonzero(hits)[:each]
    if len(found) < each:
      raise ValueError(
        f"the patch {name_of(patch)!r} flips only {int(hits.sum())} of"
        f" {len(able)} images, {each} are wanted: raise trojan_epochs or its"
        " rate"
      )
    parts.append(
      Flipped(
        images[found],
        masks[found],
        np.full(each, patch.target, np.int32),
        clean[found],
        test["classes"][able[found]].astype(np.int32),
        np.full(each, number, np.int32),
      )
    )
  return Flipped(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def _fit(module, variables, arrays, seed, config, epochs, place):
  """Train with cross entropy; returns the variables."""
  images = {"images": arrays["images"], "classes": arrays["classes"]}
  fed = data.batches.from_arrays(images, config.batch_size, seed=seed)
  steps = math.ceil(epochs * fed.per_epoch)
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, config.learning_rate, min(100, steps // 10), steps
  )
  optimizer = optax.adamw(schedule, weight_decay=1e-4)

  def loss(params, model_state, batch, key, train):
    del key
    inputs = normalise(batch["images"].astype(jnp.float32) / 255.0)
    variables = {**model_state, "params": params}
    logits, state = module.apply(
      variables, inputs, train=train, mutable=list(model_state)
    )
    losses = optax.softmax_cross_entropy_with_integer_labels(
      logits, batch["classes"]
    )
    return jnp.mean(losses), (dict(state), {})

  rest = {k: v for k, v in variables.items() if k != "params"}
  state = training.create(
    jax.random.key(seed), variables["params"], optimizer, rest
  )
  state = training.fit(
    state,
    training.make_step(loss, optimizer),
    fed,
    steps=steps,
    workdir=place,
    name=f"{place.parent.name} {place.name}",
    checkpoint_every=max(steps, 1),
    keep=1,
  )
  return {"params": state.params, **state.model_state}


def build(config: Any, classes: int) -> Any:
  """Make the module that a config names.

  Args:
    config: `name` and `options` of `models.build`.
    classes: Its outputs.

  Returns:
    A linen module.
  """
  return models.build(config.name, outputs=classes, **config.options)
