"""What in an example a model's output rests on."""

from effjax.attribution import rules
from effjax.attribution.cam import (
  grad_cam,
  guided_grad_cam,
  resize_maps,
  score_cam,
)
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
from effjax.attribution.multipliers import deep_lift
from effjax.attribution.noise import gradient_shap, smoothgrad, vargrad
from effjax.attribution.perturbation import (
  feature_ablation,
  grid,
  occlusion,
  rise,
)
from effjax.attribution.relevance import COMPOSITES, Composite, lrp
from effjax.attribution.surrogate import REGRESSIONS, lime
from effjax.attribution.visualization import Transforms, visualize

__all__ = [
  "COMPOSITES",
  "REDUCTIONS",
  "REGRESSIONS",
  "RULES",
  "Composite",
  "Transforms",
  "convergence_delta",
  "deconvolution",
  "deep_lift",
  "feature_ablation",
  "grad_cam",
  "gradient_shap",
  "grid",
  "guided_backprop",
  "guided_grad_cam",
  "input_x_gradient",
  "integrated_gradients",
  "lime",
  "lrp",
  "occlusion",
  "reduce_channels",
  "resize_maps",
  "rise",
  "rules",
  "saliency",
  "score_cam",
  "smoothgrad",
  "vargrad",
  "visualize",
]
