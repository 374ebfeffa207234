"""Models of images and of language in linen."""

from effjax.models import (
  bert,
  efficientnet,
  face_attributes,
  generation,
  layers,
  llama,
  llama_weights,
  neox,
  sampling,
  tokenizers,
)
from effjax.models.capturing import Capture, Layer, capture
from effjax.models.cnn import CNN
from effjax.models.efficientnet import EfficientNetLite
from effjax.models.mlp import MLP
from effjax.models.mobilenet import MobileNetV1
from effjax.models.resnet import ResNet
from effjax.models.zoo import MODELS, build

__all__ = [
  "CNN",
  "MLP",
  "MODELS",
  "Capture",
  "EfficientNetLite",
  "Layer",
  "MobileNetV1",
  "ResNet",
  "bert",
  "build",
  "capture",
  "efficientnet",
  "face_attributes",
  "generation",
  "layers",
  "llama",
  "llama_weights",
  "neox",
  "sampling",
  "tokenizers",
]
