"""What in an example a model's output rests on: gradients, perturbations."""

from effjax.attribution.cam import grad_cam, guided_grad_cam, resize_maps
from effjax.attribution.gradients import (
  REDUCTIONS,
  RULES,
  convergence_delta,
  input_x_gradient,
  integrated_gradients,
  reduce_channels,
  saliency,
)
from effjax.attribution.guided import deconvolution, guided_backprop
from effjax.attribution.noise import gradient_shap, smoothgrad, vargrad
from effjax.attribution.perturbation import (
  feature_ablation,
  grid,
  occlusion,
  rise,
)
from effjax.attribution.surrogate import REGRESSIONS, lime

__all__ = [
  "REDUCTIONS",
  "REGRESSIONS",
  "RULES",
  "convergence_delta",
  "deconvolution",
  "grad_cam",
  "feature_ablation",
  "gradient_shap",
  "grid",
  "guided_backprop",
  "guided_grad_cam",
  "input_x_gradient",
  "integrated_gradients",
  "lime",
  "occlusion",
  "reduce_channels",
  "rise",
  "resize_maps",
  "saliency",
  "smoothgrad",
  "vargrad",
]
