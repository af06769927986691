"""A table in parts, each read by a process of its own: coded, grouped and scaled as if it were read whole."""

import json

import numpy as np
import pandas as pd
import pytest

import fmu_jax
from fmu_jax import datasets
from tests.parts import read_together


def people(n=900, seed=0):
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": draw.integers(18, 90, n),
            "income": draw.lognormal(10, 1, n),
            "job": draw.choice(["cook", "clerk", "smith", "baker"], n),
            "same": 7,
            "race": draw.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2]),
            "sex": draw.choice(["woman", "man"], n),
            "paid": draw.choice(["no", "yes"], n),
        }
    )


def in_parts(tables, **options):
    options = {"label": "paid", "group": ["race", "sex"], "seed": 0} | options

    def read(table, gather):
        found = datasets.from_table(table, gather=lambda values: gather(json.loads(json.dumps(values))), **options)
        return found

    return read_together(read, tables)


def thirds(table, by=None):
    """Unequal parts; sorted ``by`` a column, each lacks values that the others have."""
    table = table if by is None else table.sort_values(by, kind="stable")
    return [table.iloc[:200], table.iloc[200:700], table.iloc[700:]]


@pytest.mark.parametrize("scaling", ["standardise", "minmax", "maxnorm"])
@pytest.mark.parametrize("by", [None, "job", "race", "paid"])
def test_parts_are_prepared_as_the_whole(scaling, by):
    table = people()
    tables = thirds(table, by)
    splits = in_parts(tables, scaling=scaling)
    whole = datasets.from_table(table, label="paid", group=["race", "sex"], seed=0, scaling=scaling)
    for part in splits:
        for field in ("feature_names", "group_values", "label_values", "group_name", "dropped_columns"):
            assert getattr(part, field) == getattr(whole, field)
        np.testing.assert_array_equal(part.center, splits[0].center)
        np.testing.assert_array_equal(part.scale, splits[0].scale)
        assert part.train.groups == 6
    assert [len(part.train_rows) + len(part.test_rows) for part in splits] == [200, 500, 200]
    # Raw features by hand, from the rows that the parts say they hold.
    trained = pd.concat([rows.iloc[part.train_rows] for rows, part in zip(tables, splits, strict=True)])
    raw = by_hand(trained)
    center, spread = {
        "standardise": (raw.mean(0), raw.std(0)),
        "minmax": (raw.min(0), np.ptp(raw, axis=0)),
        "maxnorm": (0 * raw.mean(0), 1 + 0 * raw.std(0)),
    }[scaling]
    largest = np.linalg.norm((raw - center) / spread, axis=1).max()
    np.testing.assert_allclose(splits[0].center, center, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(splits[0].scale, spread * largest, rtol=1e-12)
    for rows, part in zip(tables, splits, strict=True):
        for data, chosen in ((part.train, rows.iloc[part.train_rows]), (part.test, rows.iloc[part.test_rows])):
            expected = (by_hand(chosen) - part.center) / part.scale
            np.testing.assert_allclose(np.asarray(data.x)[:, :-1], expected, atol=1e-12)
            np.testing.assert_array_equal(data.y, chosen["paid"] == "yes")
            named = chosen["race"] + ", " + chosen["sex"]
            assert [part.group_values[code] for code in np.asarray(data.group)] == list(named)


def by_hand(table):
    jobs = [table["job"] == job for job in ("baker", "clerk", "cook", "smith")]
    races = [table["race"] == race for race in "abc"]
    columns = [table["age"], table["income"], *jobs, *races, table["sex"] == "woman"]
    return np.column_stack(columns).astype(float)


def test_one_part_is_the_whole_bit_for_bit():
    table = people()
    [alone] = in_parts([table])
    whole = datasets.from_table(table, label="paid", group=["race", "sex"], seed=0)
    np.testing.assert_array_equal(alone.train.x, whole.train.x)
    np.testing.assert_array_equal(alone.test.group, whole.test.group)
    np.testing.assert_array_equal(alone.train_rows, whole.train_rows)


def test_small_groups_are_those_of_the_whole_table():
    table = people()
    table.loc[:29, "race"] = "d"  # 30 rows in all, 15 or so with either sex: too few to stay, enough together.
    merged = in_parts(thirds(table, "sex"), small_groups="merge", min_group_rows=25)
    assert {part.group_values[-1] for part in merged} == {"other"}
    others = sum(int((np.asarray(data.group) == 6).sum()) for part in merged for data in (part.train, part.test))
    assert others == 30
    refused = in_parts(thirds(table, "sex"), min_group_rows=25)
    assert all("'d, man' (" in str(error) for error in refused)


def test_all_refuse_what_one_cannot_read():
    tables = thirds(people())
    tables[1] = tables[1].assign(income=np.nan)
    errors = in_parts(tables)
    assert "'income': 500" in str(errors[1])
    assert "another part of the table than the table was refused" in str(errors[0])
    assert "'income': 500" in str(errors[2])
    assert all(isinstance(error, ValueError) for error in errors)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.assign(age="old"), "('age', 'numbers')|age.*numbers.*text"),
        (lambda table: table.assign(more=1), "8 beside 7|7 beside 8"),
        (lambda table: table[["income", "age", "job", "same", "race", "sex", "paid"]], "income.*age|age.*income"),
    ],
)
def test_all_refuse_parts_of_other_columns(change, said):
    tables = thirds(people())
    tables[2] = change(tables[2])
    for error in in_parts(tables):
        assert isinstance(error, ValueError)
        with pytest.raises(ValueError, match=said):
            raise error
        assert "same columns of the same types" in str(error)


def test_a_file_that_is_not_there_stops_all(tmp_path):
    table = people()
    table.iloc[:400].to_csv(tmp_path / "0.csv", index=False)

    def read(path, gather):
        return datasets.from_csv(path, label="paid", group="sex", seed=0, gather=gather)

    there, absent = read_together(read, [tmp_path / "0.csv", tmp_path / "1.csv"])
    assert isinstance(absent, FileNotFoundError)
    assert "1.csv" in str(there)
    assert "refused" in str(there)


def test_parts_together_train_the_model_of_their_rows():
    tables = thirds(people())
    splits = in_parts(tables, group="sex")
    rows = [np.concatenate([np.asarray(getattr(part.train, name)) for part in splits]) for name in ("x", "y", "group")]
    objective = fmu_jax.Objective(l2=1e-3, fairness=1.0)
    fitted = fmu_jax.fit(objective, fmu_jax.make_data(*rows))
    trained = pd.concat([table.iloc[part.train_rows] for table, part in zip(tables, splits, strict=True)])
    x = np.column_stack([(by_hand(trained) - splits[0].center) / splits[0].scale, np.ones(len(trained))])
    apart = fmu_jax.make_data(x, trained["paid"] == "yes", trained["sex"] == "woman")
    np.testing.assert_allclose(fitted.params, fmu_jax.fit(objective, apart).params, rtol=1e-9)


def test_a_file_cut_short_stops_all(tmp_path):
    table = people()
    for number, rows in enumerate((table.iloc[:400], table.iloc[400:])):
        rows.to_csv(tmp_path / f"{number}.csv.gz", index=False)
    whole = (tmp_path / "1.csv.gz").read_bytes()
    (tmp_path / "1.csv.gz").write_bytes(whole[: len(whole) // 2])

    def read(path, gather):
        return datasets.from_csv(path, label="paid", group="sex", seed=0, gather=gather)

    errors = read_together(read, [tmp_path / "0.csv.gz", tmp_path / "1.csv.gz"])
    assert all(isinstance(error, ValueError) for error in errors)
    assert all("1.csv.gz is damaged or cut short" in str(error) for error in errors)


def test_dates_are_refused_by_all():
    tables = [
        table.assign(paid=pd.Timestamp("2020-01-01") + pd.to_timedelta(table["age"] % 2, "D"))
        for table in thirds(people())
    ]
    for error in in_parts(tables):
        assert isinstance(error, ValueError)
        assert "'paid' holds dates of type Timestamp" in str(error)


@pytest.mark.parametrize("lacking", [0, 1, 2])
def test_a_missing_number_in_one_part_names_values_as_the_whole_table_does(lacking):
    table = people().assign(paid=lambda rows: (rows["paid"] == "yes").astype(int))
    tables = thirds(table)
    tables[lacking] = tables[lacking].assign(paid=tables[lacking]["paid"].where(tables[lacking]["age"] > 20))
    whole = datasets.from_table(pd.concat(tables), label="paid", group="sex", seed=0, missing="drop")
    for part in in_parts(tables, group="sex", missing="drop"):
        assert part.label_values == whole.label_values == ("0.0", "1.0")
