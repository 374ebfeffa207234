"""Fashion-MNIST with its attributes as a TFDS data set, without TensorFlow.

Importing this module registers the data set:

  import tensorflow_datasets as tfds
  import effjax.data.tfds_fashion

  train = tfds.data_source("fashion_attributes", split="train")
  train[0]["attributes"]  # bool [22], named in dataset_info.metadata

Read it with `tfds.data_source` or `builder.as_data_source`: `tfds.load` and
`as_dataset` need TensorFlow. The first call prepares the data (about half a
minute) from the files that `data.source("fashion_mnist", ...)` finds.
"""

import os
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from effjax.data import images, readers, registry


class FashionAttributes(tfds.core.GeneratorBasedBuilder):
  """The splits of `images.fashion`, one example at a time."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES: ClassVar = {"1.0.0": "22 attributes, 4 of them groups."}

  def __init__(
    self,
    *,
    directory: str | os.PathLike | None = None,
    file_format: str = "array_record",
    **kwargs,
  ):
    """Make the builder.

    Args:
      directory: where Fashion-MNIST lies; by default the resolution order of
        `data.source`.
      file_format: "array_record" or "parquet"; others need TensorFlow.
      **kwargs: of TFDS, such as `data_dir`.
    """
    self._directory = directory
    super().__init__(file_format=file_format, **kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    declaration = registry.SOURCES["fashion_mnist"]
    features = {
      # A tensor, not an image: it needs no library to be encoded or decoded.
      "image": tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8),
      "label": tfds.features.ClassLabel(names=list(readers.FASHION_CLASSES)),
      # One vector each: a feature for every attribute is read ten times slower.
      "attributes": tfds.features.Tensor(
        shape=(len(images.names()),), dtype=np.bool_
      ),
      "groups": tfds.features.Tensor(
        shape=(len(images.groups()),), dtype=np.bool_
      ),
      "id": np.int32,
    }
    columns = {"attributes": images.names(), "groups": images.groups()}
    return tfds.core.DatasetInfo(
      builder=self,
      description=declaration.title,
      features=tfds.features.FeaturesDict(features),
      supervised_keys=("image", "label"),
      metadata=tfds.core.MetadataDict(
        {name: list(names) for name, names in columns.items()}
      ),
      license=declaration.licence,
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing is downloaded here
    return {
      split: self._generate_examples(split)
      for split in ("train", "validation", "test")
    }

  def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
    data = images.fashion(split, directory=self._directory)
    for row, number in enumerate(data["ids"]):
      yield (
        int(number),
        {
          "image": data["images"][row],
          "label": int(data["classes"][row]),
          "attributes": data["labels"][row],
          "groups": data["groups"][row],
          "id": number,
        },
      )
