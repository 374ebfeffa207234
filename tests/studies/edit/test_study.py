"""The study of synthetic worlds, in small: pretrained, swept, reported."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import tree
from effjax.studies import edit
from effjax.studies.edit import (
  arms,
  examiner,
  findings,
  interplay,
  intervals,
  page,
  pretraining,
  runs,
  tasks,
  updates,
)
from launch import configuring


@pytest.fixture(scope="module")
def config():
  found = configuring.load("configs/edit/iid.py:miniature")
  found = found.copy_and_resolve_references()
  with found.unlocked():
    found.arms = ("full", "full_attention", "lora1")
    found.rates = (1e-3, 3e-3)
    found.interplay.update(arms=("full", "lora1"), sparsities=(0.9,))
    found.relearning.arms = ("full", "lora1")
    found.interplay.update(relearned=(0.8,), steps=100)
    found.tuning, found.reported, found.steps = 1, 1, 16
  return found


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
  place = tmp_path_factory.mktemp("edit") / "run"
  return place, edit.run(config, str(place))


@pytest.fixture(scope="module")
def subject(config, tmp_path_factory):
  """A model that has hardly learned, and two edits."""
  quick = config.copy_and_resolve_references()
  with quick.unlocked():
    quick.pretraining.update(steps=20, recall=0.0, warm_up=5)
  about = pretraining.subject(quick)
  place = tmp_path_factory.mktemp("subject")
  model = pretraining.pretrain(about, quick, 0, place)
  own = tasks.aligned([tasks.make(jax.random.key(1000), about, quick, 2)])[0]
  return about, model, own


@pytest.mark.slow
def test_all_arms_are_two_programs(finished, config):
  _, results = finished
  assert 1 <= len(results["programs"]) <= 2
  assert results["count"] == 3 * 2 * 2 * 2  # arms, rates, edits, mixes
  assert results["failed"] == 0
  assert set(results["seconds"]) == {"wall", "cpu"}  # as the overview reads
  assert results["pretrained"][0]["recall"]["S-O"] >= 0.9
  rows = {(row["mix"], row["arm"]) for row in results["table"]}
  assert rows == {(m, a) for m in config.mixes for a in config.arms}


@pytest.mark.slow
def test_pruned_models_lose_facts_and_edits(finished):
  _, results = finished
  found = results["interplay"]
  assert [row["level"] for row in found["levels"]] == [
    "dense",
    "90 % pruned",
    "nf4",
    "80 % pruned and relearned",
  ]
  dense, pruned, coded, again = (
    row["old"]["estimate"] for row in found["levels"]
  )
  assert pruned < dense
  assert coded > pruned
  assert again > pruned
  rows = {(r["mix"], r["arm"], r["level"]): r for r in found["rows"]}
  row = rows["behemoth", "full", "dense"]
  assert row["edited_first"] == row["compressed_first"]
  row = rows["behemoth", "full", "80 % pruned and relearned"]
  assert row["edited_first"]["edited"]["estimate"] is None
  assert row["compressed_first"]["edited"]["estimate"] is not None
  full, lora = (rows["behemoth", arm, "nf4"] for arm in ("full", "lora1"))
  assert full["compressed_first"]["edited"]["estimate"] is None
  assert lora["compressed_first"]["edited"]["estimate"] is not None


@pytest.mark.slow
def test_pruned_weights_stay_zero_while_facts_are_edited(config, subject):
  about, model, own = subject
  programs = interplay.Interplay(about, config)
  small = interplay.compress(model.params, interplay.Level(sparsity=0.9))
  for name in config.interplay.arms:
    found = programs._edit(name, small, own, [(0, 0)], 0, [1e-2])
    (edited,) = programs._models(name, small, found.theta)
    leaves = zip(
      jax.tree.leaves(tree.names(small)),
      jax.tree.leaves(small),
      jax.tree.leaves(edited),
      strict=True,
    )
    for path, old, new in leaves:
      if path.startswith("layer_") and path.endswith("/kernel"):
        np.testing.assert_array_equal(np.asarray(new)[np.asarray(old) == 0], 0)
        assert (np.asarray(new) != np.asarray(old)).any(), path


def test_no_rate_is_chosen_for_an_arm_that_is_not_run(config, tmp_path):
  other = config.copy_and_resolve_references()
  with other.unlocked():
    other.interplay.arms = ("lora4",)
  with pytest.raises(ValueError, match="'lora4', which is not among"):
    edit.run(other, str(tmp_path))


@pytest.mark.slow
def test_one_model_decides_no_claim(finished):
  _, results = finished
  assert results["claims"]
  assert {c["result"] for c in results["claims"]} == {"inconclusive"}


def test_the_spread_between_models_decides():
  # Edits of a model agree: resampling these alone would give no width at all.
  gaps = [np.repeat([[0.2], [-0.1], [0.1]], 2, axis=1)]
  judged = findings._judged(gaps, intervals.Resampled(3, 2))
  assert judged["result"] == "inconclusive"
  low, high = judged["difference"]["low"], judged["difference"]["high"]
  assert low < 0 < judged["difference"]["estimate"] < high
  alike = [np.repeat([[0.2], [0.21], [0.19]], 2, axis=1)]
  judged = findings._judged(alike, intervals.Resampled(3, 2))
  assert judged["result"] == "reproduced"
  ends = intervals.Resampled(3, 2).interval(gaps[0])
  assert ends["high"] - ends["low"] > 0.1


@pytest.mark.slow
def test_full_fine_tuning_changes_facts(finished):
  _, results = finished
  full = [r for r in results["table"] if r["arm"] == "full"]
  assert all(r["efficacy"]["estimate"] > 0.3 for r in full)
  assert all(0 <= r["preservation"]["estimate"] <= 1 for r in full)


@pytest.mark.slow
def test_the_report_and_the_second_time(finished, config, capsys):
  place, results = finished
  assert "Success against preservation" in (place / "report.html").read_text()
  capsys.readouterr()
  again = edit.run(config, str(place))
  assert "100/" not in capsys.readouterr().out  # nothing is learned anew
  assert again["table"] == results["table"]
  assert page.summary(results) == page.summary(again)


def test_what_is_not_trained_stays_to_the_bit(config, subject):
  about, model, own = subject
  runner = runs.Runner(about, config)
  made = [
    updates.make_run(arms.find(name), model.params, rate=1e-2, edit=0, mix=0)
    for name in ("full_attention", "full")
  ]
  nothing = jax.tree.map(np.zeros_like, made[1].train)
  made.append(made[1]._replace(train=nothing))
  found = runner.sweep("full", model.params, own.data, made, keep=True)
  assert runner.sweep.compiled == ["full"]
  names = jax.tree.leaves(tree.names(model.params))
  before = jax.tree.leaves(model.params)
  moved = [
    {
      name
      for name, old, new in zip(
        names, before, jax.tree.leaves(found.theta), strict=True
      )
      if np.asarray(old).tobytes() != np.asarray(new[run]).tobytes()
    }
    for run in range(3)
  ]
  assert moved[2] == set()
  assert moved[0]
  assert all("/attention/" in name for name in moved[0])
  assert any("/mlp/" in name for name in moved[1])


def test_columns_beyond_the_rank_do_nothing(subject):
  _, model, _ = subject
  base, key = model.params, jax.random.key(3)
  arm = arms.find("lora4")
  few, many = (updates.factors(key, base, rank) for rank in (4, arms.RANK))
  # B is not zero, so that A gets gradients too.
  few, many = (
    {
      k: (a, b + jnp.arange(1.0, len(b) + 1)[:, None])
      for k, (a, b) in t.items()
    }
    for t in (few, many)
  )
  run = updates.make_run(arm, base, rate=1e-3, edit=0, mix=0, theta=many)
  cut = run._replace(rank=run.rank[:4], theta=few)

  def total(theta, run):
    leaves = jax.tree.leaves(updates.merged(base, theta, run))
    return sum(jnp.sum(jnp.sin(leaf)) for leaf in leaves)

  wide, narrow = jax.grad(total)(many, run), jax.grad(total)(few, cut)
  for path, (a, b) in wide.items():
    assert not a[:, 4:].any(), path
    assert not b[4:].any(), path
    np.testing.assert_allclose(a[:, :4], narrow[path][0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(b[:4], narrow[path][1], rtol=1e-5, atol=1e-6)
  assert float(total(many, run)) == pytest.approx(float(total(few, cut)))


@pytest.mark.slow
def test_side_by_side_is_one_by_one(config, subject):
  about, model, own = subject
  made = [
    updates.make_run(arms.find("full"), model.params, rate=r, edit=0, mix=0)
    for r in (1e-3, 3e-3)
  ]
  sweeps = runs.Runner(about, config).sweep
  both = sweeps("full", model.params, own.data, made, chunk=2)
  one = sweeps("full", model.params, own.data, made[1:], chunk=1)
  for name, history in one.history.items():
    np.testing.assert_allclose(
      both.history[name][1], history[0], rtol=1e-3, atol=1e-4
    )


def test_a_cut_change_has_few_directions_and_no_better_ones(subject):
  _, model, _ = subject
  base = model.params
  draw = lambda p: p + np.random.default_rng(p.size).normal(0, 0.1, p.shape)
  theta = jax.tree.map(lambda p: draw(p).astype(p.dtype), base)
  run = updates.make_run(arms.find("full_cut4"), base, rate=1e-3, edit=0, mix=0)
  found = updates.truncated(base, theta, run)
  kernels = arms.kernels(base)
  names = jax.tree.leaves(tree.names(base))
  leaves = (jax.tree.leaves(t) for t in (base, theta, found))
  for name, old, new, cut in zip(names, *leaves, strict=True):
    if name not in kernels:
      np.testing.assert_array_equal(cut, new)
      continue
    change, kept = np.asarray(new - old), np.asarray(cut - old)
    values = np.linalg.svd(change, compute_uv=False)
    np.testing.assert_allclose(
      np.linalg.svd(kept, compute_uv=False)[:4], values[:4], rtol=1e-3
    )
    # Eckart and Young: the rest is as small as rank 4 can make it.
    rest = np.linalg.norm(change - kept)
    assert rest == pytest.approx(np.linalg.norm(values[4:]), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dora4", "ia3", "sparse", "full_cut1"])
def test_other_arms_start_as_the_model_and_change_it(config, subject, method):
  about, model, own = subject
  with_arm = config.copy_and_resolve_references()
  with with_arm.unlocked():
    with_arm.arms, with_arm.rates = (method,), (1e-9, 3e-2)
  found = runs.Runner(about, with_arm).all(model.params, own, 0)
  assert not found["failed"].any()
  little, much = found["kl"][0, :, 0, 0, -1]  # by rate, of each set
  assert np.nanmax(np.abs(little)) < 1e-5
  assert np.nanmin(much) > 1e-3


@pytest.mark.slow
def test_rosa_trains_few_weights_and_factors(config, subject):
  about, model, own = subject
  with_rosa = config.copy_and_resolve_references()
  with with_rosa.unlocked():
    with_rosa.arms, with_rosa.rates = ("rosa4",), (1e-2,)
  runner = runs.Runner(about, with_rosa)
  wanted = [runs.Wanted("rosa4", 1e-2, 0, 0)]
  made = runner.made(wanted, model.params, own, 0)
  found = runner.run("rosa", model.params, own, made, keep=True)
  assert not found.failed.any()
  count = moved = 0
  theta = jax.tree.map(lambda x: x[0], found.theta)
  kernels = arms.kernels(model.params)
  names = jax.tree.leaves(tree.names(model.params))
  pairs = (jax.tree.leaves(t) for t in (model.params, theta["weights"]))
  for name, old, new in zip(names, *pairs, strict=True):
    changed = int((np.asarray(old) != np.asarray(new)).sum())
    assert name in kernels or not changed, name
    count += old.size * (name in kernels)
    moved += changed
  assert 0 < moved <= 0.011 * count
  # Columns beyond the rank keep what they began with: B is zero there.
  for path, (_, b) in theta["factors"].items():
    assert b[:4].any(), path
    assert not b[4:].any(), path


@pytest.mark.parametrize("paraphrased", [True, False])
def test_the_aggregate_is_of_what_there_is(paraphrased):
  names = ["edited", "with_same_rel", "reg_data", "paraphrase"]
  accuracy = np.array([[0.8, 1.0, 0.6, 0.4], [0.0, 1.0, 1.0, 1.0]])
  agreement = np.array([[0.1, 0.5, 0.7, 0.2], [0.1, 1.0, 1.0, 1.0]])
  kept = 4 if paraphrased else 3
  # One model, arm and rate, two edits; three unrelated facts are asked for.
  found = examiner.summary(
    names[:kept],
    {
      "accuracy": accuracy[None, None, None, :, :kept],
      "agreement": agreement[None, None, None, :, :kept],
    },
    np.array([[[5, 1, 3, 5]] * 2])[..., :kept],
  )
  # Of the four prompts that should stay, whatever their sets.
  local = (0.5 + 3 * 0.7) / 4
  terms = [0.8, 0.4, local] if paraphrased else [0.8, local]
  wanted = len(terms) / sum(1 / x for x in terms)
  one = {name: value[0, 0, 0] for name, value in found.items()}
  np.testing.assert_allclose(one["locality"], [local, 1.0])
  name = "harmonic_egl" if paraphrased else "harmonic_el"
  np.testing.assert_allclose(one[name], [wanted, 0.0], rtol=1e-6)
  assert np.isnan(one["harmonic_egl"]).all() == (not paraphrased)
  np.testing.assert_allclose(one["score"][0], 2 / (1 / 0.8 + 1 / 0.8))
