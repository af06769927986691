"""Rows: plain values, strict JSON Lines, CSV, the environment that every row carries."""

import csv
import dataclasses
import io
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.harness import rows

WORDS = st.text(max_size=8).filter(lambda text: text not in ("NaN", "Infinity", "-Infinity"))
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | WORDS
TABLES = st.lists(st.dictionaries(WORDS, SCALARS | st.lists(SCALARS, max_size=3), max_size=4), max_size=4)


def same(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


def refuse_constant(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


@given(TABLES)
def test_json_lines_round_trip_and_are_strict(table: list[dict]) -> None:
    text = rows.to_jsonl(table)
    assert same(rows.from_jsonl(text), table)
    for line in text.splitlines():
        json.loads(line, parse_constant=refuse_constant)


@given(TABLES)
def test_csv_round_trip(table: list[dict]) -> None:
    text = rows.to_csv(table)
    if not any(table):
        assert text == ""
        return
    header, *body = csv.reader(io.StringIO(text, newline=""))
    assert header == list(dict.fromkeys(name for row in table for name in row))
    for row, line in zip(table, body, strict=True):
        for name, cell in zip(header, line, strict=True):
            value = row.get(name)
            if isinstance(value, float):
                assert same(float(cell), value)
            elif isinstance(value, list):
                assert same(rows.from_json(cell), value)
            else:
                assert cell == ("" if value is None else str(value))


def test_csv_reads_with_pandas() -> None:
    table = [{"loss": 0.5, "n": 3, "note": 'a,b\n"c"'}, {"loss": math.nan, "n": 4}, {"loss": -math.inf, "n": 5}]
    frame = pd.read_csv(io.StringIO(rows.to_csv(table)))
    assert frame["loss"].dtype == float
    assert np.isneginf(frame["loss"][2])
    assert frame["note"][0] == 'a,b\n"c"'


def test_plain_values() -> None:
    given_values = [np.float32(0.5), np.int64(3), np.bool_(True), jnp.asarray(2.5), np.str_("a"), Path("a/b"), (1, 2)]
    made = [rows.plain(value) for value in given_values]
    assert made == [0.5, 3, True, 2.5, "a", "a/b", [1, 2]]
    assert [type(value) for value in made] == [float, int, bool, float, str, str, list]
    assert type(rows.plain(np.float64(0.5))) is float


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.zeros(3), r"shape \(3,\)"),
        (jnp.zeros((2, 2)), r"shape \(2, 2\)"),
        ({"a": 1}, "a dict"),
        (object(), "an? object"),
        ("NaN", "'NaN' is how rows spell a float"),
    ],
)
def test_what_a_row_cannot_hold_is_refused(value: object, said: str) -> None:
    with pytest.raises(ValueError, match=f"column 'x'.*{said}"):
        rows.plain(value, "column 'x'")


def test_flatten_names_nested_fields() -> None:
    @dataclasses.dataclass(frozen=True)
    class Inner:
        name: str = "adult"

    @dataclasses.dataclass(frozen=True)
    class Outer:
        data: Inner = dataclasses.field(default_factory=Inner)
        out: Path = Path("runs")
        shares: tuple[float, ...] = (0.1,)

    assert rows.flatten(Outer(), without=("out",)) == {"data.name": "adult", "shares": [0.1]}
    with pytest.raises(ValueError, match="a dataclass or a mapping, got a int"):
        rows.flatten(3)


def test_environment_says_versions_device_and_precision() -> None:
    made = rows.environment()
    assert made["jax"] == jax.__version__
    assert (made["x64"], made["dtype"], made["devices"]) == (True, "float64", 8)
    assert made["device"] == jax.devices()[0].device_kind
    assert len(made["code"]) == 12
    assert all(rows.plain(value) == value for value in made.values())
