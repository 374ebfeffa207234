import numpy as np
import pytest

from effjax.studies import audit


def test_bits_have_a_complement_and_values_are_a_partition():
  found = audit.from_columns(
    {"male": [1, 0, 1], "age": [30, 20, 30], "race": ["b", "a", "b"]}
  )
  assert found.names == (
    "male", "not male", "age=20", "age=30", "race=a", "race=b"
  )  # fmt: skip
  assert found.partitions == ("male",) * 2 + ("age",) * 2 + ("race",) * 2
  expected = [[1, 0, 0, 1, 0, 1], [0, 1, 1, 0, 1, 0], [1, 0, 0, 1, 0, 1]]
  np.testing.assert_array_equal(found.members, expected)
  assert found.columns("age") == [2, 3]


def test_absent_values_belong_to_no_group():
  found = audit.from_columns(
    {"race": ["a", "", "b"], "age": [2.0, 3.0, np.nan], "x": [1, np.nan, 0]}
  )
  assert found.missing == {"race": 1, "age": 1, "x": 1}
  assert found.members[1].tolist() == [False] * 2 + [False, True] + [False] * 2


def test_a_matrix_is_one_partition_or_bits():
  whole = audit.from_columns(
    {"groups": np.eye(3)[[0, 1, 2, 0]], "names": ["a", "b", "c"]}
  )
  assert whole.names == ("a", "b", "c")
  assert set(whole.partitions) == {"groups"}
  bits = audit.from_columns({"groups": [[1, 1], [0, 1]], "names": ["a", "b"]})
  assert bits.names == ("a", "not a", "b", "not b")
  assert bits.members.sum(0).tolist() == [1, 1, 2, 0]


@pytest.mark.parametrize(
  ("columns", "message"),
  [
    ({"groups": np.ones((2, 2)), "names": ["a"]}, "2 columns, but there are 1"),
    ({"groups": [[0, 2]], "names": ["a", "b"]}, "row 0, group 'b'"),
    ({"sex": np.zeros((2, 2))}, r"'sex' has shape \[2, 2\]"),
    ({"age": [0.5, 2.0]}, "row 0: 0.5 names no group"),
    ({"age": np.arange(99)}, "99 values"),
    ({"a": [0, 1], "b": [0, 1, 1]}, "differ in length"),
    ({"a": ["", ""]}, "no value in any row"),
    ({"a": [0, 1], "not a": [1, 0]}, "two groups with the name 'not a'"),
    ({"a": np.array([None, "x"])}, "type object"),
    ({}, "no column"),
  ],
)
def test_bad_groups(columns, message):
  with pytest.raises(ValueError, match=message):
    audit.from_columns(columns)
