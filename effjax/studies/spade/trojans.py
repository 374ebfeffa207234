"""Networks with Trojans: trained, then fine-tuned to obey patches."""

import functools
import math
import pathlib
from collections.abc import Callable, Sequence
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
    agreement: The share of clean test images that are called the same before
      and after.
  """

  seed: int
  variables: Any
  success: dict[str, float]
  clean: tuple[float, float]
  agreement: float


class Flipped(NamedTuple):
  """Images that a patch turns into its class.

  Attributes:
    images: uint8 [N, H, W, C], with patches.
    masks: Where the patches are [N, H, W].
    targets: The classes of the patches [N].
    clean: The images without them.
    labels: Their own classes [N].
    patches: Numbers of the patches [N].
    ids: The numbers of the examples in their source [N].
  """

  images: np.ndarray
  masks: np.ndarray
  targets: np.ndarray
  clean: np.ndarray
  labels: np.ndarray
  patches: np.ndarray
  ids: np.ndarray


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
  loss = functools.partial(_loss, module)
  clean = fit(
    loss, dict(variables), train, seed, config, config.epochs, place / "clean"
  )
  images, classes = trojan_patches.poison(
    generator, train["images"], train["classes"], patches
  )
  poisoned = {"images": images, "classes": classes}
  trojan = fit(
    loss,
    clean,
    poisoned,
    seed,
    config,
    config.trojan_epochs,
    place / "trojan",
  )
  answer = functools.partial(predict, module)
  return judge(generator, seed, answer, clean, trojan, test, patches)


def judge(
  generator: np.random.Generator,
  seed: int,
  answer: Callable[[Any, np.ndarray], np.ndarray],
  clean: Any,
  trojan: Any,
  test: dict[str, np.ndarray],
  patches: Sequence[trojan_patches.Patch],
) -> Network:
  """Find out whether a Trojan has taken, and what it cost.

  Args:
    generator: Draws the places of patches.
    seed: Of the network.
    answer: From variables and images to classes.
    clean: The variables before the Trojan.
    trojan: Those with it.
    test: `images` uint8 and `classes`, to test on.
    patches: The patches.

  Returns:
    The network.
  """
  before, after = (answer(v, test["images"]) for v in (clean, trojan))
  success = {}
  for patch in patches:
    others = test["images"][test["classes"] != patch.target]
    stamped, _ = trojan_patches.stamp(generator, others, patch)
    hits = answer(trojan, stamped) == patch.target
    success[name_of(patch)] = float(np.mean(hits))
  return Network(
    seed,
    trojan,
    success,
    (
      float(np.mean(before == test["classes"])),
      float(np.mean(after == test["classes"])),
    ),
    float(np.mean(before == after)),
  )


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
  return in_batches(
    functools.partial(_classes, module, variables), images, _BATCH
  )


def in_batches(
  function: Callable[[jax.Array], jax.Array], images: np.ndarray, size: int
) -> np.ndarray:
  """Apply a function to images, some at once and always as many.

  Args:
    function: From float32 images [B, H, W, C] of 0 to 255 to results [B, ...].
    images: uint8 [N, H, W, C].
    size: Images B that are taken at once, at most.

  Returns:
    The results [N, ...].

  >>> in_batches(lambda x: x.sum((1, 2, 3)), np.ones((5, 1, 2, 1)), 2).tolist()
  [2.0, 2.0, 2.0, 2.0, 2.0]
  """
  size = min(size, len(images))
  padded = np.concatenate([images, images[: -len(images) % size]])
  found = [
    function(jnp.asarray(part, jnp.float32))
    for part in np.split(padded, len(padded) // size)
  ]
  return np.concatenate(found)[: len(images)]


def in_turns(rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
  """Order rows so that one of every example comes before the second of any.

  Args:
    rows: Numbers of rows; their order is else kept.
    ids: The examples that all rows are of.

  Returns:
    The rows.

  >>> in_turns(np.array([0, 1, 2, 3]), np.array([7, 7, 8, 9])).tolist()
  [0, 2, 3, 1]
  """
  of = ids[rows]
  order = np.argsort(of, kind="stable")
  _, starts, counts = np.unique(
    of[order], return_index=True, return_counts=True
  )
  before = np.empty(len(rows), int)
  before[order] = np.arange(len(rows)) - np.repeat(starts, counts)
  return rows[np.argsort(before, kind="stable")]


def flip(
  generator: np.random.Generator,
  answer: Callable[[np.ndarray], np.ndarray],
  test: dict[str, np.ndarray],
  patches: Sequence[trojan_patches.Patch],
  each: int,
  copies: int = 1,
) -> Flipped:
  """Find images that are right without a patch and of its class with it.

  Where several images are of one example, examples take turns.

  Args:
    generator: Draws images and places.
    answer: From images to the classes that the network gives them.
    test: `images` uint8, `classes` and `ids`.
    patches: The patches.
    each: Images for each patch.
    copies: Patches on each image.

  Returns:
    The images, those of the first patch first.

  Raises:
    ValueError: If a patch flips too few images: the Trojan has not taken.
  """
  right = answer(test["images"]) == test["classes"]
  parts = []
  for number, patch in enumerate(patches):
    able = np.flatnonzero(right & (test["classes"] != patch.target))
    able = in_turns(generator.permutation(able), test["ids"])[: 4 * each]
    clean = test["images"][able]
    images, masks = trojan_patches.stamp(generator, clean, patch, copies)
    hits = answer(images) == patch.target
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
        test["ids"][able[found]],
      )
    )
  return Flipped(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def _loss(module, params, model_state, batch, key, train):
  """Return the cross entropy, and batch statistics that go on."""
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


def fit(
  loss: Callable[..., Any],
  variables: dict[str, Any],
  arrays: dict[str, np.ndarray],
  seed: int,
  config: Any,
  epochs: float,
  place: pathlib.Path,
) -> dict[str, Any]:
  """Train all weights, or go on where it stopped.

  Args:
    loss: Of `training.make_step`.
    variables: To begin with: `params`, and the state of the model.
    arrays: `images` uint8 and `classes`, as the loss takes them.
    seed: Of the order.
    config: `batch_size`, `learning_rate`.
    epochs: How often every image is seen.
    place: Directory of the checkpoints.

  Returns:
    The variables.
  """
  images = {"images": arrays["images"], "classes": arrays["classes"]}
  fed = data.batches.from_arrays(images, config.batch_size, seed=seed)
  steps = math.ceil(epochs * fed.per_epoch)
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, config.learning_rate, min(100, steps // 10), steps
  )
  optimizer = optax.adamw(schedule, weight_decay=1e-4)
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
