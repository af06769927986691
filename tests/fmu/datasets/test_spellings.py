"""One value, several spellings; and several values that look like one: kept apart, taken together, or refused."""

import numpy as np
import pandas as pd
import pyarrow as arrow
import pytest
from pyarrow import parquet

from fmu_jax import datasets
from fmu_jax.datasets.columns import USUAL, Missing, plain

N = 120
I = np.arange(N)


def people(**columns):
    return pd.DataFrame({"hours": I % 37, "sex": np.array(["F", "M"])[I % 2], "hired": I // 2 % 2} | columns)


def load(path, **options):
    return datasets.from_csv(path, **{"label": "hired", "group": "sex", "seed": 0} | options)


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
    expected = datasets.from_table(table, label="hired", group="sex", seed=0)
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
    y = datasets.from_table(
        people(hired=large), label="hired", group="sex", seed=0, positive=(2**53 + 1, 5.0), scaling="maxnorm"
    )
    np.testing.assert_array_equal(y.train.y, (y.train_rows % 3 > 0).astype(int))
    assert plain(large, USUAL).tolist() == large.tolist()
