"""A user's table, CSV or Parquet: identifiers stay text, values are named as one writes them."""

import sys

import numpy as np
import pandas as pd
import pyarrow as arrow
import pytest
from pyarrow import parquet

from fmu_jax import datasets
from fmu_jax.datasets.reading import read_table
from fmu_jax.deletion import table
from tests.deletion import tables

IDS = ["007", "7", "NA", "1e3", "0x10", "true", " a b ", "Zoë"]


def test_csv_ids_stay_as_written(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text("id,age\n" + "".join(f"{name},1\n" for name in IDS), encoding="utf-8")
    read = read_table(path, text=("id",))
    assert read["id"].tolist() == [name.strip() for name in IDS]
    assert read["age"].dtype == np.int64


@pytest.mark.parametrize(
    "kind",
    [arrow.string(), arrow.large_string(), arrow.string_view(), arrow.dictionary(arrow.int8(), arrow.string())],
)
def test_parquet_ids_stay_as_written(tmp_path, kind):
    path = tmp_path / "people.parquet"
    ids = arrow.array(IDS, arrow.string()).cast(kind)
    parquet.write_table(arrow.table({"id": ids, "age": [1] * len(IDS)}), path)
    assert read_table(path, text=("id",))["id"].tolist() == [name.strip() for name in IDS]


def test_whole_numbers_of_parquet_become_text_exactly(tmp_path):
    path = tmp_path / "people.parquet"
    numbers = [2**53 + 1, -3, None, 7]
    parquet.write_table(arrow.table({"id": arrow.array(numbers, arrow.int64()), "age": [1, 2, 3, 4]}), path)
    assert read_table(path, text=("id",))["id"].tolist() == ["9007199254740993", "-3", "", "7"]


def test_parquet_numbers_that_are_not_whole_are_no_ids(tmp_path):
    path = tmp_path / "people.pq"
    parquet.write_table(arrow.table({"id": [1.0, 2.0]}), path)
    with pytest.raises(ValueError, match=r"column 'id' of .*people\.pq holds double; save it as text or whole numbers"):
        read_table(path, text=("id",))


def test_csv_and_parquet_give_the_same_rows(tmp_path):
    people = tables.people(200).set_index("id")  # Pandas notes the index in the file; it must be a column again.
    people.to_csv(tmp_path / "people.csv")
    people.to_parquet(tmp_path / "people.parquet")
    one, two = (
        table.read(table.Table(tmp_path / name, "id", "paid", "sex"), seed=3)
        for name in ("people.csv", "people.parquet")
    )
    assert one[0] == two[0] == people.index.tolist()
    assert one[1].feature_names == two[1].feature_names
    np.testing.assert_array_equal(one[1].train.x, two[1].train.x)
    np.testing.assert_array_equal(one[1].test.y, two[1].test.y)
    np.testing.assert_array_equal(one[1].test_rows, two[1].test_rows)


def test_from_csv_reads_parquet(tmp_path):
    tables.people(100).drop(columns="id").to_parquet(tmp_path / "people.parquet")
    split = datasets.from_csv(tmp_path / "people.parquet", label="paid", group="sex", seed=0)
    assert split.feature_names == ("age", "score", "job=clerk", "job=cook", "job=smith", "sex", "bias")


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    (tmp_path / "people.parquet").write_text("id,age\n1,2\n")
    with pytest.raises(ValueError, match=r"people\.parquet does not read as Parquet"):
        read_table(tmp_path / "people.parquet")
    with pytest.raises(FileNotFoundError, match=r"no file .*nobody\.parquet"):
        read_table(tmp_path / "nobody.parquet")


def test_parquet_without_records_and_with_repeated_columns(tmp_path):
    parquet.write_table(arrow.table({"id": arrow.array([], arrow.string())}), tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="no records"):
        read_table(tmp_path / "none.parquet")
    twice = arrow.Table.from_arrays([arrow.array([1]), arrow.array([2])], ["a", "a"])
    parquet.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match="more than one column named 'a'"):
        read_table(tmp_path / "twice.parquet")


def test_without_pyarrow_the_message_says_what_to_install(tmp_path, monkeypatch):
    tables.people(20).to_parquet(tmp_path / "people.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"people\.parquet needs pyarrow: pip install pyarrow"):
        read_table(tmp_path / "people.parquet")


@pytest.mark.parametrize(
    ("values", "given", "names"),
    [
        ([0, 1], ("1",), ("0", "1")),
        ([0, 1], ("0",), ("1", "0")),
        ([1.0, 2.0], ("2",), ("1.0", "2.0")),
        ([True, False], ("False",), ("True", "False")),
        (["no", "yes", "maybe"], ("yes", "maybe"), ("no", "maybe or yes")),
        ([0, 1, 2], ("1", "2"), ("0", "1 or 2")),
        ([2**53, 2**53 + 1], ("9007199254740993",), ("9007199254740992", "9007199254740993")),
        ([2**53, 2**53 + 1], ("9007199254740993.0",), ("9007199254740992", "9007199254740993")),
    ],
)
def test_values_are_named_as_one_writes_them(tmp_path, values, given, names):
    people = tables.people(240)
    people["paid"] = np.array(values, object)[np.arange(240) // 3 % len(values)]
    people.to_csv(tmp_path / "people.csv", index=False)
    _, split = table.read(table.Table(tmp_path / "people.csv", "id", "paid", "sex", positive=given), seed=0)
    zero, one = split.label_values
    assert (zero, set(one.split(" or "))) == (names[0], set(names[1].split(" or ")))
    expected = people["paid"].astype(str).isin(names[1].split(" or ")).to_numpy()
    np.testing.assert_array_equal(np.asarray(split.train.y), expected[split.train_rows])


def test_a_value_that_the_column_does_not_hold_is_named(tmp_path):
    tables.people(100).to_csv(tmp_path / "people.csv", index=False)
    with pytest.raises(
        ValueError, match=r"`positive`: column 'paid' has no value 'Yes'; it holds '(yes|no)', '(yes|no)'"
    ):
        table.read(table.Table(tmp_path / "people.csv", "id", "paid", "sex", positive=("Yes",)), seed=0)


@pytest.mark.parametrize("column", ["id", "paid", "sex"])
def test_a_missing_column_is_named(tmp_path, column):
    tables.people(100).drop(columns=column).to_csv(tmp_path / "people.csv", index=False)
    with pytest.raises(ValueError, match=rf"people\.csv has no column '{column}'"):
        table.read(table.Table(tmp_path / "people.csv", "id", "paid", "sex"), seed=0)


def test_bad_ids_of_a_table_are_refused(tmp_path):
    people = tables.people(100)
    pd.concat([people, people[3:4]]).to_csv(tmp_path / "people.csv", index=False)
    with pytest.raises(ValueError, match=r"repeats the id '0003'"):
        table.read(table.Table(tmp_path / "people.csv", "id", "paid", "sex"), seed=0)
    people.loc[[5, 8], "id"] = ["an\nid", "an\r\nother"]
    people.to_csv(tmp_path / "people.csv", index=False)
    with pytest.raises(ValueError, match=r"people\.csv has a line break in the id 'an\\nid', 'an\\r\\nother'; whom"):
        table.read(table.Table(tmp_path / "people.csv", "id", "paid", "sex"), seed=0)
    people.loc[[5, 8], "id"] = ["", "0008"]
    people.to_csv(tmp_path / "people.csv", index=False)
    with pytest.raises(ValueError, match=r"no id in 1 rows \(first: record 6\)"):
        table.read(table.Table(tmp_path / "people.csv", "id", "paid", "sex"), seed=0)
