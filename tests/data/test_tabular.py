"""Small tables in the files' own formats, and the real ones where present."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from effjax import data
from effjax.data import readers, registry, sources, tabular

from .conftest import write_files

COMPAS_HEADER = (
  "id,name,first,last,compas_screening_date,sex,dob,age,age_cat,race,"
  "juv_fel_count,decile_score,juv_misd_count,juv_other_count,priors_count,"
  "days_b_screening_arrest,c_charge_degree,is_recid,is_violent_recid,"
  "decile_score,score_text,v_decile_score,priors_count,two_year_recid"
)


def adult_row(age, race, sex, income, job="Sales", country="Cuba", hours=40):
  work = "?" if job == "?" else "Private"
  return (
    f"{age}, {work}, 1000, HS-grad, 9, Divorced, {job}, Wife, {race}, {sex},"
    f" 0, 0, {hours}, {country}, {income}"
  )


def adult_files():
  """Return 40 + 3 rows; two of the training file have unknown values."""
  rows = [
    adult_row(
      age=20 + i,
      race="Black" if i % 3 else "White",
      sex="Male" if i % 2 else "Female",
      income=">50K" if i % 4 == 0 else "<=50K",
      job="?" if i in (3, 7) else "Sales",
      hours=30 + i,
    )
    for i in range(40)
  ]
  test = [
    "|1x3 Cross validator",
    adult_row(24, "Other", "Male", "<=50K."),
    adult_row(65, "White", "Female", ">50K.", country="Peru"),
    adult_row(44, "White", "Female", ">50K.", job="?"),
  ]
  end = "\n\n"
  return {
    "adult.data": ("\n".join(rows) + end).encode(),
    "adult.test": ("\n".join(test) + end).encode(),
  }


def compas_file():
  """Return 50 rows, of which the filter leaves 45."""
  rows = [COMPAS_HEADER]
  for i in range(50):
    days = {0: "", 1: "-31", 2: "31", 3: "30", 4: "-30"}.get(i, "-1")
    recid = "-1" if i == 5 else str(i % 2)
    degree = "O" if i in (1, 6) else "FM"[i % 2]
    score = "N/A" if i == 0 else "Low"
    race = "Caucasian" if i % 5 else "Hispanic"
    rows.append(
      f"{i},Secret Name,Secret,Name,2013-01-01,Male,1980-01-01,{20 + i},x,"
      f"{race},0,3,0,0,{i},{days},{degree},{recid},0,3,{score},1,{i},{i % 2}"
    )
  return {"compas-scores-two-years.csv": "\n".join(rows).encode()}


def german_files():
  book = {
    "status": {"A11": "low", "A14": "none "},
    "status_sex": {"A92": "female : any", "A93": "male : single"},
    "telephone": {"A191": False, "A192": True},
    "credit": {"1": "good", "2": "bad"},
  }
  names = readers.GERMAN_COLUMNS
  for name in ("credit_history", "purpose", "savings", "present_employment"):
    book[name] = {"A": name}
  for name in ("other_debtors", "property", "installment_plans", "housing"):
    book[name] = {"A": name}
  for name in ("job", "foreign_worker"):
    book[name] = {"A": name}
  rows = []
  for i in range(20):
    row = {name: "A" if name in book else str(i) for name in names}
    row["status"] = "A14" if i % 2 else "A11"
    row["status_sex"] = "A93" if i % 4 else "A92"
    row["telephone"] = "A192" if i % 5 else "A191"
    row["credit"] = "1" if i % 3 else "2"
    row["age"] = str(20 + i)
    rows.append(" ".join(row[name] for name in names))
  return {
    "german.data": ("\n".join(rows) + "\n").encode(),
    "values_maps.json": json.dumps(book).encode(),
  }


FILES = {
  "adult": adult_files(),
  "compas": compas_file(),
  "german_credit": german_files(),
}


@pytest.fixture
def tiny(empty_places, monkeypatch):
  """Declare the small files in place of the real ones."""
  for name, contents in FILES.items():
    declared = sources.declared(name)
    files = tuple(
      dataclasses.replace(
        file, sha256=hashlib.sha256(contents[file.name]).hexdigest()
      )
      for file in declared.files
    )
    monkeypatch.setitem(
      registry.SOURCES, name, dataclasses.replace(declared, files=files)
    )
    write_files(empty_places / "cache/effjax" / name, contents)


def test_adult_is_read_with_its_quirks():
  train = readers.read_adult(FILES["adult"]["adult.data"])
  test = readers.read_adult(FILES["adult"]["adult.test"])
  assert tuple(train) == readers.ADULT_COLUMNS
  assert train["age"].dtype == np.int32
  assert train["age"].tolist() == list(range(20, 60))
  assert test["income"].tolist() == ["<=50K", ">50K", ">50K"]
  assert test["occupation"].tolist() == ["Sales", "Sales", "?"]
  assert set(train["workclass"]) == {"Private", "?"}


def test_compas_is_read_without_names():
  (content,) = FILES["compas"].values()
  table = readers.read_compas(content)
  expected = set(COMPAS_HEADER.split(",")) - set(readers.COMPAS_PRIVATE)
  assert set(table) == expected
  text = " ".join(str(column.tolist()) for column in table.values())
  assert "Secret" not in text
  assert "1980" not in text
  days = table["days_b_screening_arrest"]
  assert days.dtype == np.float32
  assert np.isnan(days).nonzero()[0].tolist() == [0]
  assert days[1:5].tolist() == [-31, 31, 30, -30]
  assert table["priors_count"].tolist() == list(range(50))


def test_german_codes_get_their_meaning():
  table = readers.read_german(*FILES["german_credit"].values())
  assert set(table) == {*readers.GERMAN_COLUMNS, "sex"}
  assert table["status"][:2].tolist() == ["low", "none"]
  assert table["sex"][:2].tolist() == ["female", "male"]
  assert table["telephone"][:2].tolist() == ["no", "yes"]
  assert table["credit"][:2].tolist() == ["bad", "good"]
  assert table["amount"].dtype == np.int32


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "place has no rows"),
    (b"1, 2\n", "place, line 1: expected 15 values, found 2"),
    (
      (adult_row("x", "White", "Male", ">50K") + "\n").encode(),
      "line 1: age is 'x', expected a number",
    ),
    (
      (adult_row(30, "White", "Male", "50K") + "\n").encode(),
      "income is '50K', expected one of <=50K, >50K",
    ),
  ],
)
def test_damaged_adult_is_named(content, message):
  with pytest.raises(ValueError, match=message):
    readers.read_adult(content, "place")


def test_damaged_tables_are_named():
  with pytest.raises(ValueError, match="no column name, first"):
    readers.read_compas(b"id,sex\n1,Male\n")
  german = dict(FILES["german_credit"])
  content = german["german.data"].replace(b"A93", b"A99", 1)
  with pytest.raises(ValueError, match="status_sex is 'A99', expected one of"):
    readers.read_german(content, german["values_maps.json"])


@pytest.mark.parametrize("name", tabular.LAYOUTS)
def test_splits_are_disjoint_and_lose_no_row(tiny, name):
  splits = {split: tabular.load(name, split) for split in tabular.SPLITS}
  for split, table in splits.items():
    arrays, counts = table.arrays, table.provenance["rows"]
    assert arrays["features"].dtype == np.float32
    assert np.isfinite(arrays["features"]).all()
    assert arrays["labels"].dtype == arrays["groups"].dtype == bool
    assert arrays["labels"].shape == (len(table), 1)
    assert arrays["ids"].dtype == np.int32
    for field in ("features", "labels", "groups"):
      assert arrays[field].shape == (len(table), len(table.names[field]))
    assert counts["used"] == len(table)
    lost = counts["in the split"] - counts["used"]
    assert lost <= sum(counts["left out"].values())
    assert (lost == 0) == (not any(counts["left out"].values())), split
  files = ("train", "validation") if name == "adult" else tabular.SPLITS
  ids = np.concatenate([splits[split].arrays["ids"] for split in files])
  assert len(set(ids.tolist())) == len(ids)
  whole = sum(splits[s].provenance["rows"]["in the split"] for s in files)
  assert whole == splits["train"].provenance["rows"]["in the file"]
  again = tabular.load(name, "train")
  assert again.arrays["ids"].tolist() == splits["train"].arrays["ids"].tolist()
  other = tabular.load(name, "train", seed=1)
  assert other.arrays["ids"].tolist() != again.arrays["ids"].tolist()


def test_shares_of_the_splits(tiny):
  size = lambda name, split, **kw: tabular.load(name, split, **kw).provenance[
    "rows"
  ]["in the split"]
  shares = lambda name: [size(name, split) for split in tabular.SPLITS]
  assert shares("german_credit") == [14, 2, 4]
  assert shares("compas") == [35, 5, 10]
  assert shares("adult") == [35, 5, 3]
  assert size("adult", "train", validation=0) == 40


def test_features_by_hand(tiny):
  train = tabular.load("adult", "train", validation=0, use_protected=True)
  test = tabular.load("adult", "test", validation=0, use_protected=True)
  assert (
    train.names["features"]
    == test.names["features"]
    == (
      "age",
      "education-num",
      "capital-gain",
      "capital-loss",
      "hours-per-week",
      "workclass=Private",
      "workclass=unknown",
      "education=HS-grad",
      "education=unknown",
      "marital-status=Divorced",
      "marital-status=unknown",
      "occupation=Sales",
      "occupation=unknown",
      "relationship=Wife",
      "relationship=unknown",
      "race=Black",
      "race=White",
      "race=unknown",
      "sex=Female",
      "sex=Male",
      "sex=unknown",
      "native-country=Cuba",
      "native-country=unknown",
    )
  )
  ages = np.arange(20, 60)
  standard = (np.array([24, 65, 44]) - ages.mean()) / ages.std()
  column = lambda name: test.arrays["features"][
    :, test.names["features"].index(name)
  ]
  np.testing.assert_allclose(column("age"), standard, rtol=1e-6)
  assert column("education-num").tolist() == [0, 0, 0]  # it does not vary
  assert column("race=unknown").tolist() == [1, 0, 0]  # Other: unseen
  assert column("native-country=unknown").tolist() == [0, 1, 0]
  assert column("occupation=unknown").tolist() == [0, 0, 1]
  assert column("occupation=Sales").tolist() == [1, 1, 0]
  assert test.arrays["labels"][:, 0].tolist() == [False, True, True]
  groups = dict(zip(test.names["groups"], test.arrays["groups"].T, strict=True))
  assert groups["sex=Female"].tolist() == [False, True, True]
  assert groups["race=Other"].tolist() == [True, False, False]
  assert groups["race=Black"].tolist() == [False] * 3  # empty, but there
  assert groups["age<25"].tolist() == [True, False, False]
  assert groups["age=25-44"].tolist() == [False, False, True]
  assert groups["age=45-64"].tolist() == [False, False, False]
  assert groups["age>=65"].tolist() == [False, True, False]
  assert test.provenance["rows"]["unknown levels"] == {
    "workclass": 1,
    "occupation": 1,
    "race": 1,
    "native-country": 1,
  }


@pytest.mark.parametrize("name", tabular.LAYOUTS)
def test_protected_attributes_are_no_features_unless_asked(tiny, name):
  secret = {
    "adult": ("race=", "sex="),
    "compas": ("race=", "sex="),
    "german_credit": ("status_sex=",),
  }[name]
  without = tabular.load(name, "train").names["features"]
  assert not any(feature.startswith(secret) for feature in without)
  assert "age" in without
  among = tabular.load(name, "train", use_protected=True).names["features"]
  for prefix in secret:
    assert any(feature.startswith(prefix) for feature in among)
  assert [f for f in among if not f.startswith(secret)] == list(without)


def test_rows_that_are_left_out_are_counted(tiny):
  counts = {
    rows: [
      tabular.load("compas", split, rows=rows).provenance["rows"]
      for split in tabular.SPLITS
    ]
    for rows in tabular.ROWS
  }
  total = lambda rows: sum(count["used"] for count in counts[rows])
  assert [total(rows) for rows in ("all", "usual", "complete")] == [50, 45, 45]
  assert all(not count["left out"] for count in counts["all"])
  reasons = {}
  for count in counts["usual"]:
    for what, number in count["left out"].items():
      reasons[what] = reasons.get(what, 0) + number
  assert reasons == {
    "screened within 30 days of arrest": 3,
    "known recidivism": 1,
    "no ordinary traffic offence": 2,  # one of them is late as well
    "scored": 1,  # and so is this one
  }
  complete = [
    tabular.load("adult", split, rows="complete") for split in tabular.SPLITS
  ]
  assert [len(table) for table in complete][2] == 2
  assert sum(len(table) for table in complete[:2]) == 38
  # The choice of rows moves nobody from one split to another.
  usual = set(tabular.load("compas", "test").arrays["ids"].tolist())
  every = tabular.load("compas", "test", rows="all").arrays["ids"].tolist()
  assert usual <= set(every)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("adults", "train"), "no table 'adults'; expected one of adult, compas"),
    (("adult", "all"), "no split 'all'; expected one of train, validation"),
    (("adult", "train", "some"), "no choice of rows 'some'"),
  ],
)
def test_unknown_names_are_named(arguments, message):
  name, split, *rows = arguments
  options = {"rows": rows[0]} if rows else {}
  with pytest.raises(ValueError, match=message):
    tabular.load(name, split, **options)


def test_too_many_validation_rows_are_named(tiny):
  with pytest.raises(ValueError, match="validation=40 rows cannot be cut from"):
    tabular.load("adult", "train", validation=40)


def real(name, split):
  try:
    return data.source(name, split).arrays
  except FileNotFoundError:
    pytest.skip(f"{name} is absent: python -m launch.fetch {name}")


def tally(column):
  return dict(
    zip(*map(np.ndarray.tolist, np.unique_counts(column)), strict=True)
  )


@pytest.mark.data
def test_real_adult():
  train, test = real("adult", "train"), real("adult", "test")
  assert [len(t["age"]) for t in (train, test)] == [32_561, 16_281]
  assert [tally(t["income"])[">50K"] for t in (train, test)] == [7_841, 3_846]
  assert [tally(t["sex"])["Male"] for t in (train, test)] == [21_790, 10_860]
  assert tally(train["race"]) == {
    "White": 27_816,
    "Black": 3_124,
    "Asian-Pac-Islander": 1_039,
    "Amer-Indian-Eskimo": 311,
    "Other": 271,
  }
  unknown = [
    int(np.any([t[name] == "?" for name in t], axis=0).sum())
    for t in (train, test)
  ]
  assert unknown == [2_399, 1_221]
  complete = tabular.load("adult", "test", rows="complete")
  assert complete.provenance["rows"]["left out"] == {"no unknown value": 1_221}
  features = tabular.load("adult", "train").arrays["features"][:, :5]
  features = features.astype(np.float64)
  np.testing.assert_allclose(features.mean(0), 0, atol=1e-5)
  np.testing.assert_allclose(features.std(0), 1, atol=1e-5)


@pytest.mark.data
def test_real_compas():
  table = real("compas", "all")
  assert len(table["id"]) == 7_214
  assert table["two_year_recid"].sum() == 3_251
  assert tally(table["sex"])["Male"] == 5_819
  assert tally(table["race"]) == {
    "African-American": 3_696,
    "Caucasian": 2_454,
    "Hispanic": 637,
    "Other": 377,
    "Asian": 32,
    "Native American": 18,
  }
  splits = [tabular.load("compas", split) for split in tabular.SPLITS]
  assert sum(map(len, splits)) == 6_172
  groups = np.concatenate([split.arrays["groups"] for split in splits])
  bands = [n.startswith("age") for n in splits[0].names["groups"]]
  assert groups[:, bands].sum(1).tolist() == [1] * 6_172
  # The bands are those of the file's own column.
  assert tally(table["age_cat"]) == {
    "25 - 45": int(((table["age"] >= 25) & (table["age"] < 45)).sum()),
    "Greater than 45": int((table["age"] >= 45).sum()),
    "Less than 25": int((table["age"] < 25).sum()),
  }


@pytest.mark.data
def test_real_german_credit():
  table = real("german_credit", "all")
  assert tally(table["credit"]) == {"good": 700, "bad": 300}
  assert tally(table["sex"]) == {"female": 310, "male": 690}
  assert sorted(tally(table["status_sex"]).values()) == [50, 92, 310, 548]
  splits = [tabular.load("german_credit", split) for split in tabular.SPLITS]
  assert [len(split) for split in splits] == [700, 100, 200]
