"""Published networks of face attributes, pruned in one shot, without labels.

What a network says about a face is no fact about a person. The question here is
only whose decision changes when weights are removed: dense against pruned, on
100 real faces that bear no labels.
"""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax import data, metrics, pruning
from effjax.data import sources
from effjax.io import files, onnx
from effjax.models import face_attributes
from effjax.studies import elements, figures, origin, report
from effjax.training import workdir as workdirs

_TITLES = {"global": "one threshold for the network", "layer": "layer by layer"}


def run(config: Any, workdir: str) -> dict[str, Any]:
  """Prune the networks of gender and age and compare what they say.

  Args:
    config: See `configs/bias/faces.py`.
    workdir: Where everything is written.

  Returns:
    The content of `results.json`.

  Raises:
    FileNotFoundError: If the weights or the faces are not on this machine.
    ValueError: If the configuration asks for something that does not exist.
  """
  place = pathlib.Path(workdir)
  workdirs.start(place, config)
  directory = config.data.directory or None
  weights = sources.locate("age_gender", directory=directory)
  opened = data.source("lfw_subset", "all", directory=directory)
  faces = opened.arrays["images"][opened.arrays["classes"] == 1]
  gender = face_attributes.load_gender(_graph(weights, "gender-v1.onnx"))
  age = face_attributes.load_age(_graph(weights, "age-v1.onnx"))
  how = dict(sparsities=config.sparsities, masks=config.masks)
  rows = compare(*gender, enlarged(faces, 32), _of_gender, **how)
  ages = compare(*age, enlarged(faces, 64), _of_age, **how)
  results = {
    "study": "faces",
    "title": config.title,
    "faces": len(faces),
    "gender": rows,
    "age": ages,
    "data": {
      "faces": dict(opened.provenance),
      "weights": {"name": "age_gender"},
    },
    "environment": json.loads((place / "environment.json").read_text()),
  }
  results = files.without_nan(results)
  files.write_json(place / "results.json", results)
  path = report.build(
    place / "report.html",
    title=config.title,
    summary=summary(results),
    sections=from_results(results),
    provenance=provenance(results, config),
  )
  print(f"report: {path}", flush=True)
  return results


def _graph(weights: Any, name: str) -> onnx.Graph:
  return onnx.parse(weights.read(name), name)


def enlarged(faces: np.ndarray, size: int) -> jax.Array:
  """Enlarge grey faces to what a network takes.

  Args:
    faces: float [N, H, W, 1] in [0, 1].
    size: Height and width.

  Returns:
    float32 [N, size, size, 3], preprocessed.
  """
  shape = (len(faces), size, size, 1)
  grey = jax.image.resize(jnp.asarray(faces, jnp.float32), shape, "linear")
  return face_attributes.preprocess(255 * jnp.repeat(grey, 3, axis=-1))


def compare(
  module: Any,
  params: Any,
  images: jax.Array,
  measure: Callable[[np.ndarray, np.ndarray], dict[str, Any]],
  *,
  sparsities: Sequence[float],
  masks: Sequence[str],
) -> list[dict[str, Any]]:
  """Prune a network by magnitude and measure how its answers change.

  Args:
    module: A linen module.
    params: Its parameters.
    images: What it takes, [N, H, W, C].
    measure: From dense and pruned logits [N, A] to numbers.
    sparsities: The sparsities.
    masks: Kinds of masks, names of `pruning.MASKS`.

  Returns:
    A row for each mask and sparsity.

  Raises:
    ValueError: If a kind of mask does not exist.
  """
  for kind in masks:
    if kind not in _TITLES:
      raise ValueError(
        f"there is no mask {kind!r} here; choose {' or '.join(_TITLES)}"
      )
  logits = jax.jit(lambda params: module.apply({"params": params}, images))
  dense, scores = np.asarray(logits(params)), pruning.magnitude(params)
  rows = []
  for kind in masks:
    for sparsity in sparsities:
      mask = pruning.MASKS[kind](scores, sparsity)
      sparse = np.asarray(logits(pruning.apply_mask(params, mask)))
      rows.append(
        {"mask": kind, "sparsity": sparsity, **measure(dense, sparse)}
      )
  return rows


def _of_gender(dense: np.ndarray, sparse: np.ndarray) -> dict[str, Any]:
  """Count whose decision changes, by what the dense network decides."""
  margins = [z[:, :1] - z[:, 1:2] for z in (dense, sparse)]
  before, after = (margin[:, 0] > 0 for margin in margins)
  groups = {
    "everyone": np.ones_like(before),
    "female": before,
    "male": ~before,
  }
  found: dict[str, Any] = {
    f"flips_{name}": _wilson((before != after) & members, members)
    for name, members in groups.items()
  }
  apart = metrics.compute(
    metrics.divergence(),
    logits=margins[1],
    reference_logits=margins[0],
    groups=np.ones((len(dense), 1), bool),
  )
  found["divergence"] = float(np.asarray(apart.overall).reshape(-1)[0])
  found["share_male"] = float(np.mean(~after))
  return found


def _wilson(hits: np.ndarray, members: np.ndarray) -> dict[str, float]:
  interval = metrics.wilson(int(hits.sum()), int(members.sum()))
  found = {k: float(v) for k, v in interval._asdict().items()}
  return {**found, "count": int(members.sum())}


def _of_age(dense: np.ndarray, sparse: np.ndarray) -> dict[str, Any]:
  """Measure by how many years the expected age moves."""
  ages = [
    np.asarray(face_attributes.expected_age(jnp.asarray(z)))
    for z in (dense, sparse)
  ]
  change = ages[1] - ages[0]
  found = {}
  for name, values in (("shift", change), ("distance", np.abs(change))):
    # Faces are independent: Student's interval of their mean.
    interval = metrics.seed_interval(values)
    found[name] = {k: float(v) for k, v in interval._asdict().items()}
  return found


def summary(results: Mapping[str, Any]) -> str:
  """Say in a few sentences what was found.

  Args:
    results: The content of `results.json`.

  Returns:
    Text for a report.
  """
  row = results["gender"][-1]
  year = results["age"][-1]
  share = lambda name: f"{100 * row[f'flips_{name}']['estimate']:.0f} %"
  return (
    "Two published networks are pruned by magnitude, without training, and"
    f" look at {results['faces']} real faces that bear no labels. At"
    f" {100 * row['sparsity']:g} % sparsity ({_TITLES[row['mask']]}) the"
    f" network of gender changes its mind about {share('everyone')} of them:"
    f" {share('female')} of those it had called female and {share('male')} of"
    " those it had called male. The expected age moves by"
    f" {year['distance']['estimate']:.1f} years on average.\n\nWhat a network"
    " says about a face is no fact about a person; without labels there is no"
    " accuracy here, only disagreement. The faces are small grey pictures,"
    " enlarged, which these networks were not trained on."
  )


def from_results(results: Mapping[str, Any]) -> list[elements.Section]:
  """Make the sections of the report.

  Args:
    results: The content of `results.json`.

  Returns:
    Sections.
  """
  plots = []
  for kind in dict.fromkeys(row["mask"] for row in results["gender"]):
    rows = [row for row in results["gender"] if row["mask"] == kind]
    series: dict[str, Any] = {
      name: tuple(
        np.array([row[f"flips_{name}"][end] for row in rows], float) * 100
        for end in ("estimate", "low", "high")
      )
      for name in ("female", "male")
    }
    last = {name: parts[0][-1] for name, parts in series.items()}
    title = (
      f"Pruned {_TITLES[kind]}: {last['female']:.0f} % of the dense network's"
      f" female faces flip, {last['male']:.0f} % of its male ones"
    )
    figure = figures.lines_with_bands(
      [row["sparsity"] for row in rows],
      series,
      title=title,
      xlabel="sparsity",
      ylabel="changed decisions, %",
      scale="sparsity",
    )
    plots.append(
      elements.Plot(
        figure,
        alt=f"{title}; against sparsity",
        caption="Bands are Wilson's 95 % intervals over faces:"
        f" {rows[0]['flips_female']['count']} female and"
        f" {rows[0]['flips_male']['count']} male by the dense network.",
      )
    )
  percent = lambda title: elements.Column(title, "%", digits=1, scale=100)
  columns = [
    "sparsity",
    percent("changed"),
    percent("female to male"),
    percent("male to female"),
    elements.Column("divergence", "nats", digits=3),
    percent("called male"),
    elements.Column("age moves by", "years", digits=1),
    elements.Column("age shifts by", "years", digits=1),
  ]
  lines: list[Any] = []
  both = list(zip(results["gender"], results["age"], strict=True))
  for kind in dict.fromkeys(row["mask"] for row in results["gender"]):
    lines.append(f"pruned {_TITLES[kind]}")
    lines += [
      [
        f"{100 * row['sparsity']:g} %",
        row["flips_everyone"],
        row["flips_female"],
        row["flips_male"],
        row["divergence"],
        row["share_male"],
        year["distance"],
        year["shift"],
      ]
      for row, year in both
      if row["mask"] == kind
    ]
  table = elements.Table(
    columns,
    lines,
    caption="Shares with Wilson's, means with Student's 95 % interval over"
    f" {results['faces']} faces. Divergence is that of the pruned network's"
    " probabilities from the dense one's.",
  )
  return [
    elements.Section("Whose decision changes", [elements.Plots(plots), table])
  ]


def provenance(
  results: Mapping[str, Any], config: Any = None
) -> dict[str, Any]:
  """Gather what a reader needs to repeat the study.

  Args:
    results: The content of `results.json`.
    config: The configuration, or None.

  Returns:
    Names to values.
  """
  return origin.facts(results, config)
