"""Metrics against torchmetrics, on random and on degenerate data.

Run with -s, the largest differences are printed as a table.
"""

import numpy as np
import pytest

from effjax import metrics

pytestmark = pytest.mark.peers


def data(kind, seed=0, rows=500):
  """Logits and labels [N, 3] of float32 and bool, no logit near a bin's edge.

  Probabilities of exactly 0, 1/2 and 1 occur.
  """
  rng = np.random.default_rng(seed)
  labels = rng.random((rows, 3)) < [0.5, 0.2, 0.03]
  logits = rng.normal(size=(rows, 3)) * 2 + labels
  if kind == "tied":
    logits = np.round(logits)
  elif kind == "sure":
    logits = np.where(
      rng.random((rows, 3)) < 0.3, np.sign(logits) * 200, logits
    )
  elif kind == "equal":
    logits = np.zeros((rows, 3))
  elif kind == "few":
    logits, labels = logits[:3], labels[:3]
  elif kind == "one class":
    labels[:, 0], labels[:, 1] = True, False
  edges = np.log(np.arange(1, 15) / np.arange(14, 0, -1))
  edges = np.append(edges, np.log(np.arange(1, 10) / np.arange(9, 0, -1)))
  close = np.abs(logits[..., None] - edges).min(-1) < 1e-3
  return np.where(close & (logits != 0), 5.0, logits).astype(np.float32), labels


KINDS = ("random", "tied", "sure", "equal", "few", "one class")
every = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def differences():
  """The largest difference of each measure, printed at the end."""
  largest = {}
  yield largest
  print("\n\nlargest difference from torchmetrics")
  for name, value in sorted(largest.items()):
    print(f"  {name:<44}{value:.1e}")


@pytest.fixture
def agree(differences):
  def agree(name, found, expected, tolerance):
    found, expected = (np.asarray(x, np.float64) for x in (found, expected))
    assert found.shape == expected.shape
    difference = float(np.abs(found - expected).max(initial=0.0))
    differences[name] = max(difference, differences.get(name, 0.0))
    assert difference <= tolerance, name

  return agree


@pytest.fixture
def functional(torchmetrics):
  return pytest.importorskip("torchmetrics.functional.classification")


def tensors(torch, logits, labels):
  """Probabilities as torch has them, and labels as integers."""
  scores = torch.from_numpy(logits.copy()).sigmoid()
  return scores, torch.from_numpy(labels.astype(np.int64))


def by_column(function, scores, labels):
  columns = range(scores.shape[1])
  return np.array(
    [function(scores[:, a].contiguous(), labels[:, a]) for a in columns]
  )


@every
@pytest.mark.parametrize("bins", [10, 15])
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_calibration_error(torch, functional, agree, kind, bins, norm):
  logits, labels = data(kind)
  expected = by_column(
    lambda p, y: functional.binary_calibration_error(
      p, y, n_bins=bins, norm=norm
    ),
    *tensors(torch, logits, labels),
  )
  # Torchmetrics has a bin more than asked for, which p = 1 falls into.
  for convention in ("reference", "exact"):
    if convention == "exact" and kind == "sure":
      continue
    metric = metrics.calibration_error(bins, norm, convention=convention)
    found = metrics.compute(metric, logits=logits, labels=labels)
    agree(f"calibration error {norm}, {bins} bins", found, expected, 2e-6)


def classes(kind):
  """Logits [N, 5] and class numbers [N], away from the edges of bins."""
  rng = np.random.default_rng(0)
  rows = 1 if kind == "one row" else 400
  logits = rng.normal(size=(rows, 5)) * (200 if kind == "sure" else 1.5)
  ids = rng.integers(0, 1 if kind == "one class" else 5, rows)
  if kind == "equal":
    logits = np.tile([0.3, 0.0, 0.0, 0.0, 0.3], (rows, 1))
  top = np.exp(logits - logits.max(1, keepdims=True))
  top = 1 / top.sum(1)
  scaled = top[:, None] * [10, 15]
  close = np.abs(scaled - np.round(scaled)).min(1) < 1e-3
  keep = ~close | (top == 1)
  return logits[keep].astype(np.float32), ids[keep]


@pytest.mark.parametrize(
  "kind", ["random", "sure", "equal", "one row", "one class"]
)
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_calibration_error_of_classes(torch, functional, agree, kind, norm):
  logits, ids = classes(kind)
  for bins in (10, 15):
    expected = functional.multiclass_calibration_error(
      torch.from_numpy(logits.copy()).softmax(1),
      torch.from_numpy(ids),
      5,
      n_bins=bins,
      norm=norm,
    )
    metric = metrics.calibration_error(
      bins, norm, confidence="top_class", convention="reference"
    )
    labels = np.eye(5, dtype=bool)[ids]
    found = metrics.compute(metric, logits=logits, labels=labels)
    agree(f"calibration error of classes {norm}", found[0], expected, 2e-6)


@every
def test_average_precision(torch, functional, agree, kind):
  logits, labels = data(kind)
  defined = labels.any(0)
  expected = by_column(
    functional.binary_average_precision,
    # As in test_auroc: probabilities of torch's own would tie.
    torch.from_numpy(logits[:, defined]).double() / 1000 + 0.5,
    torch.from_numpy(labels[:, defined].astype(np.int64)),
  )
  found = np.asarray(metrics.average_precision(logits, labels))
  agree("average precision", found[defined], expected, 1e-6)
  assert np.isnan(found[~defined]).all()


@every
def test_auroc(torch, functional, agree, kind):
  logits, labels = data(kind)
  defined = labels.any(0) & ~labels.all(0)
  assert defined.any()
  # Torch's probabilities tie where large logits differ; it ranks these.
  ranks = torch.from_numpy(logits.copy()).double() / 1000 + 0.5
  expected = by_column(
    functional.binary_auroc,
    ranks[:, defined],
    torch.from_numpy(labels[:, defined].astype(np.int64)),
  )
  exact = np.asarray(metrics.auc_exact(logits, labels))
  agree("AUROC, exact", exact[defined], expected, 1e-6)
  area = metrics.compute(
    metrics.auc(details=True), logits=logits, labels=labels
  )
  agree("AUROC, binned", np.asarray(area.value)[defined], expected, 1e-3)
  error = np.abs(np.asarray(area.value)[defined] - expected)
  assert (error <= np.asarray(area.bound)[defined] + 1e-6).all()
  for value in (exact, np.asarray(area.value)):
    assert np.isnan(value[~defined]).all()


@pytest.mark.filterwarnings("ignore:No (posi|nega)tive samples:UserWarning")
def test_undefined_areas_differ(torch, functional):
  """There torchmetrics says 0, which looks like the worst of models."""
  logits, labels = data("one class")
  scores, target = tensors(torch, logits, labels)
  peer = by_column(functional.binary_auroc, scores[:, :2], target[:, :2])
  assert peer.tolist() == [0.0, 0.0]
  assert np.isnan(metrics.auc_exact(logits, labels)[:2]).all()


@every
def test_accuracy(torch, functional, agree, kind):
  logits, labels = data(kind)
  # Probabilities of tiny logits are 1/2 in torch: decisions on logits differ.
  scores, target = tensors(torch, logits, labels)
  expected = by_column(functional.binary_accuracy, scores, target)
  found = metrics.compute(metrics.accuracy(), logits=logits, labels=labels)
  agree("accuracy", found, expected, 1e-7)


def grouped(kind):
  logits, labels = data(kind)
  rng = np.random.default_rng(1)
  ids = rng.integers(0, 3, len(logits))
  ids[:3] = 0, 1, 2  # torchmetrics renumbers groups that are absent
  return logits, labels, ids


@every
def test_rates_of_groups(torch, functional, agree, kind):
  logits, labels, ids = grouped(kind)
  groups = metrics.one_hot(ids, 3)
  found = metrics.compute(
    metrics.group_rates(), logits=logits, labels=labels, groups=groups
  )
  members = np.asarray(groups).sum(0)[:, None]
  ours = np.stack([found.tp, found.fp, found.tn, found.fn], -1)
  ours = ours / members[:, None]
  for a in range(3):
    scores, target = tensors(torch, logits[:, a], labels[:, a])
    peer = functional.binary_groups_stat_rates(
      scores, target, torch.from_numpy(ids), 3
    )
    expected = [peer[f"group_{g}"].numpy() for g in range(3)]
    agree("rates of groups", ours[:, a], np.stack(expected), 1e-7)


@pytest.mark.parametrize("kind", ["random", "tied", "sure"])
def test_fairness_ratios(torch, functional, agree, kind):
  logits, labels, ids = grouped(kind)
  found = metrics.compute(
    metrics.group_rates(),
    logits=logits,
    labels=labels,
    groups=metrics.one_hot(ids, 3),
  )
  ratio = lambda rate: np.min(rate, axis=0) / np.max(rate, axis=0)
  for a in range(3):
    scores, target = tensors(torch, logits[:, a], labels[:, a])
    peer = functional.binary_fairness(scores, target, torch.from_numpy(ids))
    values = {k.split("_")[0]: v.item() for k, v in peer.items()}
    for name, rate in (("DP", found.selection_rate), ("EO", found.tpr)):
      agree(
        f"{name} ratio of groups",
        ratio(np.asarray(rate)[:, a]),
        values[name],
        1e-6,
      )


def test_merging_batches_equals_updates_of_torchmetrics(
  torch, torchmetrics, agree
):
  logits, labels = data("random", rows=701)
  peer = torchmetrics.classification.BinaryCalibrationError(n_bins=10)
  cuts = np.array_split(np.arange(701), 7)
  for rows in cuts:
    peer.update(*tensors(torch, logits[rows, 0], labels[rows, 0]))
  found = metrics.evaluate(
    metrics.calibration_error(10),
    [{"logits": logits[r, :1], "labels": labels[r, :1]} for r in cuts],
  )
  agree("calibration error over batches", found[0], peer.compute(), 2e-6)
