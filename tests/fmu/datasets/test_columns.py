"""Columns of every type: numbers, truth values, text, or refused by name; names that collide; CSV layouts."""

import bz2
import datetime as dt
import fractions
import io
import lzma
import zipfile
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as arrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmu_jax import datasets
from fmu_jax.datasets import delimited
from fmu_jax.datasets.columns import MISSING_WORDS, USUAL, Missing, Unsuitable, number_reader, plain
from tests.parts import read_together

N = 120
I = np.arange(N)
NUMBERS = (I % 9).tolist()


def people(**columns):
    return pd.DataFrame({"hours": I % 37, "sex": np.array(["F", "M"])[I % 2], "hired": I // 2 % 2} | columns)


def load(table, **options):
    return datasets.from_table(table, **{"label": "hired", "group": "sex", "seed": 0} | options)


def raw(split, name):
    """A feature's values as they were, in the order of the table."""
    column = split.feature_names.index(name)
    values = np.concatenate([np.asarray(data.x)[:, column] for data in (split.train, split.test)])
    rows = np.concatenate([split.train_rows, split.test_rows])
    return (values * split.scale[column] + split.center[column])[np.argsort(rows)]


@pytest.mark.parametrize(
    "values",
    [
        pd.array(NUMBERS, "Int64"),
        pd.array(NUMBERS, "Float64"),
        pd.array(NUMBERS, pd.ArrowDtype(arrow.int16())),
        pd.array([Decimal(k) for k in NUMBERS], pd.ArrowDtype(arrow.decimal128(9, 2))),
        pd.arrays.SparseArray(NUMBERS),
        np.array(NUMBERS, np.float16),
        pd.Series(NUMBERS, dtype=object),
        [Decimal(k) for k in NUMBERS],
        [fractions.Fraction(k) for k in NUMBERS],
        [np.int8(k) if k % 2 else float(k) for k in NUMBERS],
        [True if k == 1 else k for k in NUMBERS],
    ],
    ids=lambda values: str(getattr(values, "dtype", type(values[0]))),
)
def test_numbers_of_any_type_are_numbers(values):
    np.testing.assert_allclose(raw(load(people(d=values)), "d"), NUMBERS, atol=1e-12)


@pytest.mark.parametrize("kind", ["numpy_nullable", "pyarrow"])
def test_other_backends_give_the_same_split(kind):
    table = people(job=np.array(["cook", "clerk", "smith"])[I % 3], member=I % 4 == 0)
    one, two = load(table), load(table.convert_dtypes(dtype_backend=kind))
    assert one.feature_names == two.feature_names
    assert (one.label_values, one.group_values) == (two.label_values, two.group_values)
    np.testing.assert_array_equal(one.train.x, two.train.x)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (pd.date_range("2020", periods=N), "dates of type Timestamp, such as Timestamp"),
        (pd.date_range("2020", periods=N, tz="UTC"), "dates of type Timestamp"),
        (pd.period_range("2020", periods=N, freq="D"), "dates of type Period"),
        (pd.array([dt.date(2020, 1, 1)] * N, pd.ArrowDtype(arrow.date32())), "dates of type date"),
        (pd.to_timedelta(I, "D"), "durations of type Timedelta"),
        ([dt.time(1)] * N, "times of day of type time"),
        (pd.interval_range(0, N), "values of type Interval"),
        (I * 1j, "complex numbers of type complex"),
        ([2, *[1j] * (N - 1)], "complex numbers of type complex"),
        ([[1, 2]] * N, "lists of type list"),
        ([(1, 2)] * N, "lists of type tuple"),
        ([{"a": 1}] * N, "several values in one of type dict"),
        ([b"a"] * N, "bytes of type bytes"),
        (["a", *[b"a"] * (N - 1)], "bytes of type bytes"),
    ],
)
def test_what_is_neither_number_nor_text_is_named(values, said):
    with pytest.raises(ValueError, match=rf"'d' holds {said}.*pass drop=\('d',\)"):
        load(people(d=values))
    assert "d" not in load(people(d=values), drop=("d",)).feature_names
    for role in ("sex", "hired"):
        with pytest.raises(ValueError, match=rf"'{role}' holds {said}"):
            load(people(**{role: values}))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (2**53 + I % 3, ("d=9007199254740992", "d=9007199254740993", "d=9007199254740994")),
        ([10**30 + k % 3 for k in NUMBERS], ("d=1" + "0" * 30, "d=1" + "0" * 29 + "1", "d=1" + "0" * 29 + "2")),
        (np.uint64(2**64 - 1) - (I % 3).astype(np.uint64), tuple(f"d={2**64 - 3 + k}" for k in range(3))),
        (I % 3 / 10, ("d=0", "d=0.1", "d=0.2")),
        (1 / 3 + 1e-9 * (I % 3), tuple(f"d={1 / 3 + 1e-9 * k}" for k in range(3))),
        (np.where(I % 3 == 0, -0.0, I % 3), ("d=0", "d=1", "d=2")),
        ([1, "a", 2.5] * 40, ("d=1", "d=2.5", "d=a")),
    ],
)
def test_categories_that_are_numbers_keep_their_digits(values, names):
    split = load(people(d=values), categorical=("d",))
    assert split.feature_names == ("hours", "sex", *names, "bias")
    assert set(raw(split, names[0]).round(12)) == {0, 1}
    if not any(isinstance(value, str) for value in values):
        assert load(people(d=pd.Categorical(values))).feature_names == split.feature_names
        groups = load(people(sex=values), min_group_rows=10).group_values
        assert len(groups) == 3


def test_a_name_is_never_two_features():
    jobs = np.array(list("abc"))[I % 3]
    for table in (
        people(**{"job": jobs, "job=b": NUMBERS}),
        people(bias=NUMBERS),
        people(**{"a": np.array(["b=c", "d", "e"])[I % 3], "a=b": np.array(["c", "d", "e"])[I % 3]}),
        people(**{"1": jobs, "1=a": NUMBERS}),
    ):
        with pytest.raises(ValueError, match="more than one feature would be named"):
            load(table)
    with pytest.raises(ValueError, match="more than one column named '0'"):
        load(people(**{"0": NUMBERS}).rename(columns={"hours": 0}))
    pairs = people(sex=np.array(["a, b", "a"])[I % 2], job=np.array(["c", "b, c"])[I % 2])
    with pytest.raises(ValueError, match="two groups would both be called 'a, b, c'"):
        load(pairs, group=["sex", "job"])
    groups = np.array(["a", "b", "other", "d", "e"])[np.where(I < 24, 3 + I % 2, I % 3)]
    with pytest.raises(ValueError, match="two groups would both be called 'other'"):
        load(people(sex=groups), small_groups="merge", min_group_rows=20)


@pytest.mark.parametrize("name", ["self", "index", "name", "columns", "data", "axis"])
@pytest.mark.parametrize("role", ["label", "group", "feature"])
def test_any_name_is_a_name(name, role):
    table = people(d=NUMBERS).rename(columns={{"label": "hired", "group": "sex", "feature": "d"}[role]: name})
    options = {} if role == "feature" else {role: name}
    split = load(table, **options)
    assert name in (split.label_name, split.group_name, *split.feature_names)


def test_words_for_missing():
    words = [*MISSING_WORDS, "a", "b", "c"]
    column = pd.Series([f" {words[k % len(words)]} " for k in I])
    assert set(plain(column, USUAL).dropna()) == set("abc")
    assert set(plain(column, Missing(("b",))).dropna()) == set("ac")
    assert set(plain(column, Missing(default=False)).dropna()) == set(words)
    np.testing.assert_array_equal(plain(pd.Series([1, -999, 2]), Missing(("-999.0",))).isna(), [False, True, False])
    np.testing.assert_array_equal(plain(pd.Series([1.5, -9.0]), Missing(("-9", "?"))).isna(), [False, True])
    with pytest.raises(Unsuitable):
        plain(pd.Series([b"NA", "NA"]), USUAL)


@pytest.mark.parametrize("given", ["-999", "-999.0", -999])
def test_numbers_for_missing_are_numbers(given):
    split = load(people(d=np.where(I == 5, -999, I % 7)), na_values=(given,), missing="drop")
    assert split.dropped_rows == 1
    assert 5 not in {*split.train_rows, *split.test_rows}
    table = people(d=np.where(I == 5, -999, 2**53 + I % 3))
    names = load(table, na_values=(given,), missing="drop", categorical=("d",)).feature_names
    assert names[2:-1] == tuple(f"d={2**53 + k}" for k in range(3))


def test_a_table_in_parts_is_refused_where_the_whole_is():
    table = people(d=np.where(I < 60, "a", "A"))
    parts = [table.iloc[:60], table.iloc[60:].reset_index(drop=True)]

    def read(part, gather):
        return load(part, gather=gather)

    for error in (*read_together(read, parts), *read_together(read, [table.assign(d="1"), table.assign(d="x")])):
        assert isinstance(error, ValueError)
        assert "'d' holds" in str(error)


@given(st.integers(-(10**25), 10**25), st.sampled_from([None, ".", " ", "'"]))
def test_integers_are_read_exactly(number, thousands):
    text = str(number) if thousands is None else f"{number:,}".replace(",", thousands)
    assert number_reader(",", thousands)(text) == number


@given(st.floats(allow_nan=False), st.sampled_from([".", ","]))
def test_floats_are_read_exactly(number, decimal):
    read = number_reader(decimal)(repr(number).replace(".", decimal))
    assert read == number
    assert isinstance(read, float)


@given(st.text(alphabet="0123456789.,eE+-_ infa%$x", max_size=8))
def test_what_is_read_as_a_number_is_what_python_reads(text):
    read = number_reader()(text)
    if read is not None:
        assert read == float(text)
    elif "_" not in text and text.strip() == text:
        with pytest.raises(ValueError, match="could not convert"):
            float(text.replace("nan", "x"))


def people_csv(sep=",", **columns):
    out = io.StringIO()
    people(**columns).to_csv(out, index=False, sep=sep)
    return out.getvalue()


def test_layouts_of_csv_give_the_same_split(tmp_path):
    job = np.array(["Köchin", "clerk; smith"])[I // 3 % 2]
    plain_text = people_csv(job=job, pay=1234.5 * (1 + I % 9))
    european = people_csv(";", job=job, pay=[f"{1234.5 * (1 + k % 9):,}".translate({44: ".", 46: ","}) for k in I])
    options = {"label": "hired", "group": "sex", "seed": 0}
    (tmp_path / "a.csv").write_text(plain_text)
    whole = datasets.from_csv(tmp_path / "a.csv", **options)
    for name, content, layout in (
        ("b.csv", european.encode("cp1252"), {"sep": ";", "decimal": ",", "thousands": ".", "encoding": "cp1252"}),
        ("c.csv", plain_text.replace(",", "\t").encode("utf-16"), {"sep": "\t", "encoding": "utf-16"}),
        ("d.csv.bz2", bz2.compress(plain_text.encode()), {}),
        ("e.csv.xz", lzma.compress(plain_text.encode()), {}),
    ):
        (tmp_path / name).write_bytes(content)
        split = datasets.from_csv(tmp_path / name, **options, **layout)
        assert split.feature_names == whole.feature_names
        np.testing.assert_array_equal(split.train.x, whole.train.x)


def test_zip_holds_one_table(tmp_path):
    path = tmp_path / "a.zip"
    for members in (["a.csv"], ["a.csv", "b.csv"], ["[Content_Types].xml", "xl/workbook.xml"]):
        with zipfile.ZipFile(path, "w") as archive:
            for member in members:
                archive.writestr(member, people_csv())
        if len(members) == 1:
            assert datasets.from_csv(path, label="hired", group="sex", seed=0).feature_names[0] == "hours"
        else:
            with pytest.raises(ValueError, match=r"a\.zip (holds 2 files|is a workbook)"):
                datasets.from_csv(path, label="hired", group="sex", seed=0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"categorical": "hours"}, r"write \('hours',\)"),
        ({"categorical": ("x",)}, "no column 'x'"),
        ({"na_values": "?"}, r"write \('\?',\)"),
        ({"positive": ()}, r"positive=\(\) does not split"),
        ({"group_one": {"jobs": 1}}, "names columns that are not in group='sex'"),
        ({"drop": ("hours",), "group_feature": False}, "has no feature: every column"),
    ],
)
def test_options_are_looked_at(options, said):
    with pytest.raises(ValueError, match=said):
        load(people(), **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sep": None}, "sep=None must be one character"),
        ({"sep": "::"}, "sep='::' must be one character"),
        ({"sep": '"'}, "sep='\"' must be one character"),
        ({"decimal": "5"}, "decimal='5' must be one character"),
        ({"thousands": "-"}, "thousands='-' must be one character"),
        ({"decimal": ",", "thousands": ","}, "must differ"),
        ({"encoding": "utf-9"}, "encoding='utf-9': unknown encoding"),
        ({"encoding": "base64"}, "encoding='base64': .* is not a text encoding"),
    ],
)
def test_layouts_are_looked_at(tmp_path, options, said):
    (tmp_path / "a.csv").write_text(people_csv())
    with pytest.raises(ValueError, match=said):
        delimited.read_columns(tmp_path / "a.csv", delimited.STANDARD._replace(**options))


def test_no_rows():
    with pytest.raises(ValueError, match="has no rows"):
        load(people().head(0))
