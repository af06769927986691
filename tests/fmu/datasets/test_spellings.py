"""One value, several spellings; and several values that look like one: kept apart, taken together, or refused."""

import numpy as np
import pandas as pd
import pyarrow as arrow
import pytest
from pyarrow import parquet

from fmu_jax import datasets
from fmu_jax.datasets.columns import USUAL, Missing, plain
from fmu_jax.datasets.suitability import alike, doubts

USE = {"label": "hired", "group": "sex", "seed": 0}
N = 120
I = np.arange(N)


def people(**columns):
    return pd.DataFrame({"hours": I % 37, "sex": np.array(["F", "M"])[I % 2], "hired": I // 2 % 2} | columns)


def load(path, **options):
    return datasets.from_csv(path, **USE | options)


@pytest.mark.parametrize(
    "values",
    [["007", "7", "8"], ["1", "1.0", "2"], ["TRUE", "True", "False"], ["0.1", "0.10", "1"], ["1000", "1e3", "2"]],
)
def test_categories_of_a_csv_file_stand_as_written(tmp_path, values):
    path, values = tmp_path / "people.csv", np.array(values)
    people(code=values[I % 3]).to_csv(path, index=False)
    names = load(path, categorical=["code"]).feature_names
    assert {f"code={value}" for value in values} <= set(names)
    people(sex=values[I % 3]).to_csv(path, index=False)
    assert set(load(path, categorical=["sex"]).group_values) == set(values)


def test_a_missing_category_is_missing(tmp_path):
    path = tmp_path / "people.csv"
    people(code=np.array(["007", "7", "NA"])[I % 3]).to_csv(path, index=False)
    with pytest.raises(ValueError, match="'code': 40, written 'NA' of 120 rows"):
        load(path, categorical=["code"])
    assert "code=NA" in load(path, categorical=["code"], default_na=False).feature_names


@pytest.mark.parametrize("values", [[2**53, 2**53 + 1, 3], [0.5, 1.0, 2.0], ["b", "a", "c"]], ids=str)
def test_categories_of_numbers_survive_parquet(tmp_path, values):
    """Parquet holds categories of numbers as numbers; what wrote it noted what they were."""
    table = people(code=pd.Categorical(np.array(values, object)[I % 3]))
    table.to_parquet(tmp_path / "pandas.parquet")
    code = arrow.array(np.array(values)[I % 3]).dictionary_encode()
    parquet.write_table(
        arrow.table({name: table[name].to_numpy() for name in ("hours", "sex", "hired")} | {"code": code}),
        tmp_path / "arrow.parquet",
    )
    expected = datasets.from_table(table, **USE)
    assert sum(name.startswith("code=") for name in expected.feature_names) == 3
    for name in ("pandas", "arrow"):
        found = load(tmp_path / f"{name}.parquet")
        assert found.feature_names == expected.feature_names
        np.testing.assert_array_equal(found.train.x, expected.train.x)


@pytest.mark.parametrize("kind", [np.int64, "Int64", object])
def test_whole_numbers_are_compared_exactly_beside_fractions(kind):
    large = pd.Series(np.array([2**53, 2**53 + 1, 5], object)[I % 3], name="d").astype(kind)
    missing = plain(large, Missing((str(2**53 + 1), "-999.5"))).isna()
    np.testing.assert_array_equal(missing, I % 3 == 1)
    y = datasets.from_table(people(hired=large), **USE, positive=(2**53 + 1, 5.0), scaling="maxnorm")
    np.testing.assert_array_equal(y.train.y, (y.train_rows % 3 > 0).astype(int))
    assert plain(large, USUAL).tolist() == large.tolist()


@pytest.mark.parametrize(
    "values",
    [
        *(["\u22121", "\u22122"], ["3-", "12-"], ["0x1F", "0xA0"], ["1.5D+03", "-2D-01"], ["60 kg", "61 kg", "62 kg"]),
        *(["1 days", "2 days", "3 days"], ["1-Jan-2020", "2-Feb-2020"], ["01JAN2020", "02FEB2020"]),
        *(["March 5", "May 6, 2020"], ["9:30", "10:30"], ["1 PM", "2 pm"], ["10:30:59.5", "a"]),
    ],
    ids=str,
)
def test_what_is_written_for_people_is_no_category(values):
    assert doubts(values, max_categories=50)
    assert doubts(values)
    with pytest.raises(ValueError, match=r"'code' holds text .* looks like .*categorical=\(\.\.\.\)"):
        datasets.from_table(people(code=np.array(values)[I % len(values)]), **USE)


@pytest.mark.parametrize(
    "values",
    [
        *(["20-29", "30-39", "65+"], ["<20", ">=20"], ["1st", "2nd", "3rd"], ["2dr", "4dr"], ["1a", "1b", "2a"]),
        *(
            ["5th-6th", "7th-8th", "HS-grad"],
            ["market 3", "marine 5"],
            ["A", "B-", "C+"],
            ["Q1", "Q2"],
            ["May", "June"],
        ),
    ],
    ids=str,
)
def test_what_is_a_category_stays_one(values):
    assert doubts(values, max_categories=50) is None


@pytest.mark.parametrize(
    "twin", ["caf\u00e9", "cafe\u0301", "caf\u00e9\u200b", "\ufeffcaf\u00e9", "ca\u00adf\u00e9", "caf\u00e9\u2060"]
)
def test_values_and_names_that_look_the_same_are_refused(twin):
    other = "caf\u00e9" if twin != "caf\u00e9" else "Caf\u00e9."
    assert alike([other, twin]) == (other, twin)
    for column in ("job", "sex"):
        with pytest.raises(ValueError, match=rf"'{column}' holds .* which differ only in .*categorical"):
            datasets.from_table(people(**{column: np.array([other, twin, "bar"])[I % 3]}), **USE)
    with pytest.raises(ValueError, match=r"label column 'hired' holds .* which differ only in"):
        table = people(hired=np.array(["no", other, twin])[I % 3])
        datasets.from_table(table, **USE, positive=other)
    if other == "caf\u00e9":
        with pytest.raises(ValueError, match=r"names look the same: 'caf\\xe9', '.*'; rename one"):
            datasets.from_table(people(**{other: I, twin: I % 5}), **USE)


@pytest.mark.parametrize("seed", [-1, True])
def test_a_split_can_be_drawn_again(seed):
    with pytest.raises(ValueError, match=r"seed=.* must be a whole number >= 0"):
        datasets.from_table(people(), **USE | {"seed": seed})


def test_features_too_small_to_scale_are_refused_without_a_warning():
    with pytest.raises(ValueError, match="too large or too small to scale"):
        datasets.from_table(people(tiny=I * 5e-324), **USE)


def test_an_attribute_named_twice_is_said_as_an_argument():
    """So that the command can say it as its flag."""
    with pytest.raises(ValueError, match=r"^group=\('sex', 'sex'\) must name one attribute"):
        datasets.from_table(people(), label="hired", group=["sex", "sex"], seed=0)
