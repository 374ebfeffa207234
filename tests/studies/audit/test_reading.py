import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from effjax.studies import audit
from effjax.studies.audit import outputs, reading, tables
from tests.studies.audit import small

NAMES = np.array(["x", "y"])
Z = np.array([[0.5, -1.0], [2.0, 0.25], [-3.0, 1.0]], np.float32)
Y = np.array([[1, 0], [1, 1], [0, 0]])
IDS = np.array(["a", "b", "c"])


@pytest.fixture
def files(tmp_path):
  """Writes three good files; returns a function that reads or replaces them."""

  def save(name, **arrays):
    np.savez(tmp_path / name, **arrays)
    return str(tmp_path / name)

  def read(**changed):
    paths = {
      "predictions": save("a.npz", logits=Z, ids=IDS, attributes=NAMES),
      "reference": save("b.npz", logits=-Z, ids=IDS),
      "groups": save("g.npz", sex=np.array(["f", "m", "f"]), ids=IDS),
      "labels": save("l.npz", labels=Y, ids=IDS),
    }
    options = {}
    for name, value in changed.items():
      if isinstance(value, dict):
        paths[name] = save(f"{name}.npz", **value)
      elif name == "kind":
        options[name] = value
      else:
        paths[name] = value
    return audit.read(**paths, **options)

  return read


def test_good_files(files):
  found = files()
  np.testing.assert_array_equal(found.outputs, Z)
  np.testing.assert_array_equal(found.labels, Y == 1)
  assert found.attributes == ("x", "y")
  assert found.ids.tolist() == ["a", "b", "c"]
  assert "Rows matched by ids, in the same order" in found.notes[0]


def test_csv_and_parquet_read_like_npz(tmp_path, files):
  expected = files()
  found = []
  for suffix in ("csv", "parquet"):

    def save(name, columns, suffix=suffix):
      path = f"{tmp_path}/{name}.{suffix}"
      table = pa.table({"id": IDS, **columns})
      write = csv.write_csv if suffix == "csv" else parquet.write_table
      write(table, path)
      return path

    wide = lambda x: {str(n): x[:, i] for i, n in enumerate(NAMES)}
    found.append(
      audit.read(
        save("a", wide(Z)),
        save("b", wide(-Z)),
        save("g", {"sex": ["f", "m", "f"]}),
        labels=save("l", wide(Y)),
        kind="logits",
      )
    )
  for one in found:
    for name in ("outputs", "reference", "labels", "ids"):
      np.testing.assert_array_equal(
        getattr(one, name), getattr(expected, name), strict=True
      )
    assert one.groups.names == expected.groups.names
    np.testing.assert_array_equal(one.groups.members, expected.groups.members)


def test_rows_and_columns_are_brought_into_one_order(files):
  turn, swap = [2, 0, 1], [1, 0]
  found = files(
    reference={
      "logits": -Z[turn][:, swap],
      "ids": IDS[turn],
      "attributes": NAMES[swap],
    },
    labels={"labels": Y[turn], "ids": IDS[turn]},
  )
  np.testing.assert_array_equal(found.reference, -Z)
  np.testing.assert_array_equal(found.labels, Y == 1)
  note = " ".join(found.notes)
  assert "brought into the order of" in note
  assert "reference.npz" in note


def test_without_ids_the_order_is_trusted_and_said(files):
  found = files(groups={"sex": np.array(["f", "m", "f"])})
  assert "order of rows trusted" in found.notes[-1]
  assert "groups.npz" in found.notes[-1]


def test_kinds_agree():
  rng = np.random.default_rng(0)
  z = rng.normal(size=(5, 2))
  names = ("x", "y")
  p = 1 / (1 + np.exp(-z))
  found = outputs.logits(p, "probabilities", "p", names)
  np.testing.assert_allclose(found, z, rtol=1e-5)
  extreme = outputs.logits(np.array([[0.0, 1.0]]), "probabilities", "p", names)
  assert extreme.tolist() == [[-np.inf, np.inf]]
  decided = outputs.logits(z > 0, "predictions", "p", names)
  np.testing.assert_array_equal(decided, z > 0)


def test_labels_of_an_npz_of_outputs(files, tmp_path):
  both = {"logits": Z, "labels": Y, "ids": IDS}
  found = files(predictions=both, labels=None)
  np.testing.assert_array_equal(found.labels, Y == 1)
  other = {"logits": Z, "labels": 1 - Y, "ids": IDS}
  with pytest.raises(ValueError, match="disagree on 6 labels"):
    files(predictions=both, reference=other, labels=None)


def test_no_labels_at_all(files):
  assert files(labels=None).labels is None


BAD = [
  (
    {"labels": {"labels": Y + np.array([[0, 0], [0, 1], [0, 0]])}},
    "labels.npz, array 'labels', row 1, attribute '1': 2 is no label",
  ),
  (
    {"predictions": {"probabilities": Z}},
    "row 0, attribute '1': -1 is no probability",
  ),
  (
    {"predictions": {"logit": Z}},
    "none of the arrays .* did you mean 'logit'.* it holds logit",
  ),
  (
    {"labels": {"label": Y}},
    "no array 'labels', did you mean 'label'",
  ),
  ({"predictions": {"logits": Z, "probabilities": Z}}, "choose one by --kind"),
  ({"reference": {"logits": Z[:2]}}, "reference.npz has 2 rows, but .* has 3"),
  ({"reference": {"logits": Z[:, :1], "ids": IDS}}, "has 1 attributes"),
  (
    {"reference": {"logits": Z, "attributes": np.array(["x", "z"])}},
    "lacks the attribute 'y'",
  ),
  (
    {"reference": {"logits": Z, "ids": np.array(["a", "b", "d"])}},
    "lacks 1 ids of .*a.npz: c",
  ),
  (
    {"reference": {"logits": Z, "ids": np.array(["a", "b", "b"])}},
    "1 ids more than once: b",
  ),
  ({"reference": {"logits": Z, "ids": IDS[:2]}}, "2 ids for 3 rows"),
  ({"groups": {"sex": np.zeros((3, 2))}}, r"'sex' has shape \[3, 2\]"),
  ({"groups": {"sex": np.array([0, 1])}}, "has 2 rows"),
  ({"predictions": "x.txt"}, "'.txt', which tells no known format"),
  ({"predictions": "nowhere.npz"}, "no file nowhere.npz"),
  ({"predictions": {"logits": np.zeros((2, 2, 2))}}, r"shape \[N, A\]"),
  ({"predictions": {"logits": np.array([["a"]])}}, "expected numbers"),
  ({"predictions": {"logits": np.zeros((0, 2))}}, "has no rows"),
  ({"labels": {"labels": Y, "ids": np.array([0.5, 1, 2])}}, "id in row 0 is"),
]


@pytest.mark.parametrize(("changed", "message"), BAD)
def test_bad_files_are_named(files, changed, message):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    files(**changed)


def test_bad_bytes(tmp_path):
  for name in ("a.npz", "a.parquet"):
    path = tmp_path / name
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="readable"):
      tables.read(str(path))
  np.savez(tmp_path / "o.npz", x=np.array([None]))
  with pytest.raises(ValueError, match="Python objects"):
    tables.read(f"{tmp_path}/o.npz")
  (tmp_path / "e.csv").write_text("")
  with pytest.raises(ValueError, match=r"e.csv is no readable"):
    tables.read(f"{tmp_path}/e.csv")


def test_bad_flat_tables(tmp_path):
  path = tmp_path / "a.csv"
  path.write_text("id,x\n1,0.5\n2,word\n")
  with pytest.raises(ValueError, match=r"a.csv, column 'x' holds text"):
    audit.read(str(path), str(path), str(path), kind="logits")
  path.write_text("x,x\n1,2\n")
  with pytest.raises(ValueError, match="two columns 'x'"):
    tables.read(str(path))
  path.write_text("id,x\n1,0.5\n2,0.5\n")
  with pytest.raises(ValueError, match="by --kind"):
    audit.read(str(path), str(path), str(path))


def test_absent_numbers_of_a_table_are_nan(tmp_path):
  path = tmp_path / "a.csv"
  path.write_text("id,x,y,z\n1,0.5,,a\n2,,3,\n")
  found = tables.read(str(path))
  np.testing.assert_array_equal(found.arrays["x"], [0.5, np.nan])
  np.testing.assert_array_equal(found.arrays["y"], [np.nan, 3])
  assert found.arrays["z"].tolist() == ["a", ""]
  assert found.ids.tolist() == ["1", "2"]


def test_ids_in_several_orders_need_an_anchor():
  ids = np.array(["a", "b"])
  parts = [("a", None, 2), ("b", ids, 2), ("g", ids[::-1], 2)]
  with pytest.raises(ValueError, match="different orders"):
    reading.match(parts)


def test_training_and_validation_files(files, tmp_path):
  train = {"labels": Y, "sex": np.array(["m", "m", "x"])}
  found = files(train=train, validation={"logits": Z, "labels": Y})
  assert found.train.members.tolist() == [[0, 1], [0, 1], [0, 0]]
  np.testing.assert_array_equal(found.validation.labels, Y == 1)
  with pytest.raises(ValueError, match="none of the groups sex=f"):
    files(train={"labels": Y, "age": np.array([3, 4, 5])})
  with pytest.raises(ValueError, match="no array 'labels'"):
    files(validation={"logits": Z})
  path = tmp_path / "t.csv"
  path.write_text("x,y,sex\n1,0,f\n0,1,m\n")
  assert files(train=str(path)).train.labels.tolist() == [[1, 0], [0, 1]]


def test_arrays_of_a_library(files):
  found = small.arrays(20)
  one = audit.from_arrays(
    found["outputs"][:, 0],
    found["reference"][:, 0],
    {"sex": found["sex"]},
    labels=found["labels"][:, 0],
    train=(found["labels"][:, 0], {"sex": found["sex"]}),
  )
  assert one.attributes == ("attribute 0",)
  assert one.labels.shape == (20, 1)
  with pytest.raises(ValueError, match="groups have 19 rows"):
    audit.from_arrays([0.0] * 20, [0.0] * 20, {"sex": found["sex"][1:]})
  with pytest.raises(ValueError, match="kind must be one of"):
    audit.from_arrays([0.0], [0.0], {"a": [1]}, kind="logit")
  with pytest.raises(ValueError, match="nothing to audit"):
    audit.from_arrays(np.zeros((0, 1)), np.zeros((0, 1)), {"a": [1]})
  with pytest.raises(ValueError, match="these are predictions"):
    audit.from_arrays(
      [1], [0], {"a": [1]}, kind="predictions", validation=([1], [1])
    )
