"""A user's CSV file: round trip, codes, encoding, scaling, and an error for everything that can be wrong with it."""

import numpy as np
import pandas as pd
import pytest

from fmu_jax import datasets

N = 60


def people(**columns):
    """Sixty made-up records."""
    i = np.arange(N)
    table = {
        "age": 20 + i % 30,
        "job": np.array(["cook", "clerk", "smith"])[i % 3],
        "member": i % 4 == 0,
        "sex": np.array(["woman", "man"])[i % 2],
        "paid": np.array(["no", "yes"])[(i // 7) % 2],
    }
    return pd.DataFrame({**table, **columns})


def load(tmp_path, table, **options):
    """Writes a table and reads it back through from_csv."""
    path = tmp_path / "people.csv"
    table.to_csv(path, index=False)
    return datasets.from_csv(path, **{"label": "paid", "group": "sex", "seed": 0, **options})


def test_round_trip(tmp_path):
    table = people()
    split = load(tmp_path, table, scaling="minmax")
    assert split.feature_names == ("age", "job=clerk", "job=cook", "job=smith", "member", "sex", "bias")
    assert split.label_values == ("no", "yes")
    assert split.group_values == ("man", "woman")
    assert split.source == str(tmp_path / "people.csv")
    expected = np.column_stack(
        [
            table["age"],
            *(table["job"] == job for job in ("clerk", "cook", "smith")),
            table["member"],
            table["sex"] == "woman",
        ]
    )
    assert len(split.train_rows) == 48
    for data, rows in ((split.train, split.train_rows), (split.test, split.test_rows)):
        raw = np.asarray(data.x)[:, :-1] * split.scale + split.center
        np.testing.assert_allclose(raw, expected[rows].astype(float), atol=1e-12)
        np.testing.assert_array_equal(data.y, table["paid"].to_numpy()[rows] == "yes")
        np.testing.assert_array_equal(data.group, table["sex"].to_numpy()[rows] == "woman")


def test_file_and_frame_agree(tmp_path):
    file = load(tmp_path, people())
    frame = datasets.from_table(people(), label="paid", group="sex", seed=0)
    np.testing.assert_array_equal(file.train.x, frame.train.x)
    assert file.feature_names == frame.feature_names


@pytest.mark.parametrize("scaling", ["standardise", "minmax", "maxnorm"])
def test_scalings_use_train_rows_only(tmp_path, scaling):
    table = people(age=np.where(np.arange(N) == 17, 1e6, np.arange(N) % 11))
    seed = next(seed for seed in range(50) if 17 in np.random.default_rng(seed).permutation(N)[:12])
    split = load(tmp_path, table, seed=seed, scaling=scaling)
    assert 17 in split.test_rows
    train = np.asarray(split.train.x)[:, :-1]
    raw = train * split.scale + split.center
    center, spread = {
        "standardise": (raw.mean(0), raw.std(0)),
        "minmax": (raw.min(0), np.ptp(raw, axis=0)),
        "maxnorm": (np.zeros(6), np.ones(6)),
    }[scaling]
    np.testing.assert_allclose(split.center, center, atol=1e-9)
    np.testing.assert_allclose(split.scale / split.scale[0], spread / spread[0], rtol=1e-9)
    assert np.linalg.norm(train, axis=1).max() == pytest.approx(1, abs=1e-12)
    assert np.linalg.norm(np.asarray(split.test.x)[:, :-1], axis=1).max() > 10


def test_positive_and_group_one_choose_the_codes(tmp_path):
    table = people(job=np.array(["cook", "clerk", "smith"])[np.arange(N) % 3])
    split = load(tmp_path, table, positive="no", group="job", group_one=("cook", "smith"))
    assert split.label_values == ("yes", "no")
    assert split.group_values == ("clerk", "cook or smith")
    np.testing.assert_array_equal(split.train.y, table["paid"].to_numpy()[split.train_rows] == "no")
    np.testing.assert_array_equal(split.train.group, table["job"].to_numpy()[split.train_rows] != "clerk")
    assert "job" in split.feature_names
    numbers = load(tmp_path, people(paid=np.arange(N) % 3), positive=2)
    assert numbers.label_values == ("0 or 1", "2")


@pytest.mark.parametrize("values", [[-1, 1], [1.0, 2.0], [False, True]])
def test_two_valued_numbers_code_the_larger_as_one(tmp_path, values):
    table = people(paid=np.array(values)[np.arange(N) // 7 % 2])
    split = load(tmp_path, table)
    assert split.label_values == (str(values[0]), str(values[1]))
    np.testing.assert_array_equal(split.train.y, table["paid"].to_numpy()[split.train_rows] == values[1])


def test_drop_group_feature_and_constant_columns(tmp_path):
    split = load(tmp_path, people(one=1, same="x"), drop=("job",), group_feature=False)
    assert split.feature_names == ("age", "member", "bias")
    assert split.dropped_columns == ("one", "same=x")


def test_column_constant_on_train_rows_only(tmp_path):
    seed = next(seed for seed in range(50) if 17 in np.random.default_rng(seed).permutation(N)[:12])
    split = load(tmp_path, people(rare=(np.arange(N) == 17).astype(int)), seed=seed)
    column = split.feature_names.index("rare")
    np.testing.assert_array_equal(np.asarray(split.train.x)[:, column], 0)
    assert np.isfinite(np.asarray(split.test.x)).all()


def test_incomplete_rows_are_dropped_and_counted(tmp_path):
    table = people(age=np.where(np.arange(N) % 20 == 3, np.nan, np.arange(N)))
    table.loc[[5, 6], "job"] = "?"
    table.loc[8, "age"] = np.inf
    split = load(tmp_path, table, missing="drop", na_values=("?",))
    assert split.dropped_rows == 6
    kept = np.sort(np.concatenate([split.train_rows, split.test_rows]))
    np.testing.assert_array_equal(kept, np.setdiff1d(np.arange(N), [3, 5, 6, 8, 23, 43]))
    np.testing.assert_array_equal(split.train.y, table["paid"].to_numpy()[split.train_rows] == "yes")


def test_scaled_refuses_other_shapes(tmp_path):
    split = load(tmp_path, people())
    with pytest.raises(ValueError, match="6 features without the bias"):
        split.scaled(np.zeros((3, 7)))


NAN = np.where(np.arange(N) < 2, np.nan, 1.0 * np.arange(N))


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {"label": "hired"}, r"no column 'hired'; its columns are 'age', 'job', 'member', 'sex', 'paid'"),
        ({}, {"drop": ("id", "age")}, "no column 'id'"),
        ({}, {"label": "sex"}, "must be two columns"),
        ({}, {"drop": ("sex",)}, "neither of them in drop"),
        ({}, {"group": "age"}, r"groups of age with fewer than min_group_rows=20 rows: '20' \(2 rows\), .*'merge'"),
        ({}, {"group": "job", "min_group_rows": 21, "small_groups": "merge"}, "job makes 1 groups; there must be 2 to"),
        ({}, {"group": "job", "small_groups": "drop"}, "unknown small_groups='drop'; available: 'error', 'merge'"),
        ({}, {"group": ["job", "job"]}, "must name one attribute, or several different ones"),
        (
            {},
            {"group": ["job", "sex"], "group_one": "man", "min_group_rows": 5},
            "group_one must map columns to values",
        ),
        ({}, {"label": "age"}, r"label column 'age' must hold exactly two values, but holds 30: .*positive=VALUE"),
        ({"paid": "yes"}, {}, r"label column 'paid' holds only the value 'yes'"),
        ({}, {"positive": "maybe"}, r"positive='maybe' does not split .* its values are 'no', 'yes'"),
        ({}, {"group_one": ("man", "woman")}, "does not split group column 'sex'"),
        ({"age": NAN}, {}, r"\('age': 2 of 60 rows\); pass missing='drop'"),
        ({"age": np.where(np.arange(N) < 3, np.inf, 1.0)}, {}, r"'age': 3 of 60 rows"),
        ({"sex": [None] + ["man", "woman"] * 29 + ["man"]}, {}, r"'sex': 1 of 60"),
        ({"age": np.nan}, {"missing": "drop"}, r"every row .* missing or infinite value \('age': 60 of 60 rows\)"),
        ({}, {"missing": "mean"}, "unknown missing='mean'; available: 'error', 'drop'"),
        ({}, {"scaling": "robust"}, "unknown scaling 'robust'"),
        (
            {"job": [f"job {i}" for i in range(N)]},
            {},
            r"'job' has 60 distinct text values, more than max_categories=50",
        ),
        ({"age": ["n/k", *map(str, range(N - 1))]}, {}, r"'age' holds numbers and text such as 'n/k'"),
        ({"age": 1e200 * np.arange(N)}, {"scaling": "maxnorm"}, "too large or too small"),
        ({"sex": np.where(np.arange(N) == 0, "man", "woman")}, {}, r"group 0 has no rows in the 12 test rows"),
    ],
)
def test_errors(tmp_path, columns, options, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, people(**columns), **options)


def test_no_feature_varies(tmp_path):
    with pytest.raises(ValueError, match="no feature that varies; its features are 'one'"):
        load(tmp_path, people(one=1), drop=("age", "job", "member"), group_feature=False)


def test_drop_must_not_be_a_string():
    # A string is a sequence of strings, so that no type checker helps.
    with pytest.raises(ValueError, match=r"write \('age',\)"):
        datasets.from_table(people(), label="paid", group="sex", seed=0, drop="age")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "people.csv is empty"),
        ("a,b,c\n", "has a header but no records"),
        ("a,b,a\n1,2,3\n", "more than one column named 'a'"),
        ("sex,paid\n1,0\n1,0,3,4\n", r"people\.csv, line 3: 4 fields where the header \(line 1\) has 2, in '1,0,3,4'"),
    ],
)
def test_bad_files(tmp_path, text, message):
    (tmp_path / "people.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        datasets.from_csv(tmp_path / "people.csv", label="paid", group="sex", seed=0)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nobody\.csv"):
        datasets.from_csv(tmp_path / "nobody.csv", label="paid", group="sex", seed=0)


def test_repeated_columns_of_a_frame():
    table = pd.concat([people(), people()[["age"]]], axis=1)
    with pytest.raises(ValueError, match="more than one column named 'age'"):
        datasets.from_table(table, label="paid", group="sex", seed=0)


def test_a_binary_file_is_named(tmp_path):
    (tmp_path / "people.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match=r"people\.csv: no text in UTF-8 .*encoding='utf-16'"):
        datasets.from_csv(tmp_path / "people.csv", label="a", group="b", seed=0)


@pytest.mark.parametrize("seed", [-1, -5])
def test_bad_seeds_are_named(seed):
    with pytest.raises(ValueError, match="`seed` must be a whole number >= 0"):
        datasets.load("compas", group="race", seed=seed)


def test_gender_and_sex_are_one_attribute():
    assert (
        datasets.load("compas", group="sex", seed=0).group_values
        == datasets.load("compas", group="gender", seed=0).group_values
    )


def test_every_value_of_a_column_is_a_group(tmp_path):
    table = people()
    split = load(tmp_path, table, group="job")
    assert (split.group_name, split.group_values, split.train.groups) == ("job", ("clerk", "cook", "smith"), 3)
    for data, rows in ((split.train, split.train_rows), (split.test, split.test_rows)):
        names = np.array(split.group_values)[np.asarray(data.group)]
        np.testing.assert_array_equal(names, table["job"].to_numpy()[rows])
    assert {"job=clerk", "job=cook", "job=smith"} < set(split.feature_names)
    assert not {"job=clerk", "job"} & set(load(tmp_path, table, group="job", group_feature=False).feature_names)
    summary = split.summary()
    assert summary["group2_share"] == pytest.approx((table["job"] == "smith").mean())
    assert summary["positive_share_group1"] == pytest.approx((table["paid"] == "yes")[table["job"] == "cook"].mean())


def test_numbers_that_are_groups_are_no_feature_by_size(tmp_path):
    split = load(tmp_path, people(age=30 + np.arange(N) // 20), group="age")
    assert split.group_values == ("30", "31", "32")
    assert {"age=30", "age=31", "age=32"} < set(split.feature_names)


def test_several_columns_make_intersections(tmp_path):
    table = pd.concat(6 * [people()], ignore_index=True)
    split = load(tmp_path, table, group=["sex", "job"])
    assert split.group_name == "sex x job"
    assert split.group_values == tuple(
        f"{sex}, {job}" for sex in ("man", "woman") for job in ("clerk", "cook", "smith")
    )
    pairs = (table["sex"] + ", " + table["job"]).to_numpy()[split.train_rows]
    np.testing.assert_array_equal(np.array(split.group_values)[np.asarray(split.train.group)], pairs)
    one = load(tmp_path, table, group="sex")
    np.testing.assert_array_equal(one.train.x, split.train.x)  # Groups change no feature, row or scale.
    np.testing.assert_array_equal(one.train_rows, split.train_rows)
    two = load(tmp_path, table, group=["sex", "job"], group_one={"job": ("cook", "smith")})
    assert two.group_values[:2] == ("man, clerk", "man, cook or smith")
    assert load(tmp_path, table, group=("sex",)).group_values == ("man", "woman")


def test_small_groups_are_named_or_merged(tmp_path):
    table = people(
        job=np.array(["cook", "clerk", "smith", "sexton"])[np.array([0, 1, 0, 1, 2, 0, 1, 3, 0, 1])[np.arange(N) % 10]]
    )
    with pytest.raises(ValueError, match=r"fewer than min_group_rows=20 rows: 'sexton' \(6 rows\), 'smith' \(6 rows\)"):
        load(tmp_path, table, group="job")
    with pytest.raises(ValueError, match="rows even together: 'sexton'"):
        load(tmp_path, table, group="job", small_groups="merge")
    split = load(tmp_path, table, group="job", small_groups="merge", min_group_rows=12)
    assert split.group_values == ("clerk", "cook", "other")
    rare = table["job"].isin(["smith", "sexton"]).to_numpy()
    np.testing.assert_array_equal(np.asarray(split.train.group) == 2, rare[split.train_rows])
    assert "job=smith" in split.feature_names


def test_every_group_of_three_needs_both_labels_in_train_and_test(tmp_path):
    table = people()
    table.loc[(table["job"] == "smith") & (np.arange(N) != 8), "paid"] = "no"
    with pytest.raises(ValueError, match=r"rows of .* have no label 1 with job 'smith'"):
        load(tmp_path, table, group="job")
