"""COMPAS and Adult as `load` gives them, against pandas on the bundled tables, and every error of `load`."""

import gzip
import hashlib
import io
import math

import jax
import numpy as np
import pandas as pd
import pytest

from fmu_jax import datasets
from fmu_jax.datasets import bundled, registry

ROWS = {"compas": 5278, "adult": 46447}
LABEL = {"compas": ("is_recid", "recidivism"), "adult": ("income", ">50K")}
GROUP_ONE = {
    ("compas", "race"): "Caucasian",
    ("compas", "gender"): "Male",
    ("adult", "race"): "White",
    ("adult", "gender"): "Male",
}
SPLITS = sorted(GROUP_ONE)


def bundled_csv(name):
    """The bundled table by another road than the package's."""
    return pd.read_csv(io.BytesIO((bundled.FILES / f"{name}.csv.gz").read_bytes()), compression="gzip")


def raw_features(name):
    """The features of a bundled data set, encoded here once more."""
    table = bundled_csv(name)
    codes = {"race": table["race"].isin(["Caucasian", "White"]), "gender": table["gender"] == "Male"}
    if name == "compas":
        table = table.assign(**codes, c_charge_degree=2 * (table["c_charge_degree"] == "F") - 1)
        return table[["age", "c_charge_degree", "race", "gender", "priors_count", "length_of_stay"]].astype(float)
    numbers = table.assign(**codes)[
        ["age", "education_num", "race", "gender", "capital_gain", "capital_loss", "hours_per_week"]
    ]
    dummies = pd.get_dummies(table[["marital_status", "relationship"]], prefix_sep="=")
    return pd.concat([numbers, dummies], axis=1).astype(float)


@pytest.fixture(scope="module")
def splits():
    """Every bundled data set and group, seed 0."""
    return {key: datasets.load(key[0], group=key[1], seed=0) for key in SPLITS}


@pytest.mark.parametrize("key", SPLITS)
def test_rows_features_and_types(splits, key):
    name, group = key
    split = splits[key]
    tests = math.ceil(0.2 * ROWS[name])
    assert split.test.x.shape[0] == tests
    assert split.train.x.shape[0] == ROWS[name] - tests
    assert split.feature_names == (*raw_features(name).columns, "bias")
    assert split.train.x.shape[1] == len(split.feature_names) == {"compas": 7, "adult": 21}[name]
    assert (split.source, split.group_name, split.dropped_rows, split.dropped_columns) == (name, group, 0, ())
    for data in (split.train, split.test):
        assert data.x.dtype == data.weight.dtype == np.float64
        assert data.y.dtype == data.group.dtype == np.int32
        assert isinstance(data.x, jax.Array)
        np.testing.assert_array_equal(np.asarray(data.x)[:, -1], 1)
        np.testing.assert_array_equal(data.weight, 1)
    both = np.sort(np.concatenate([split.train_rows, split.test_rows]))
    np.testing.assert_array_equal(both, np.arange(ROWS[name]))


@pytest.mark.parametrize("key", SPLITS)
def test_labels_and_groups_are_those_of_the_table(splits, key):
    split, table = splits[key], bundled_csv(key[0])
    column, positive = LABEL[key[0]]
    for data, rows in ((split.train, split.train_rows), (split.test, split.test_rows)):
        np.testing.assert_array_equal(data.y, (table[column] == positive).to_numpy()[rows])
        np.testing.assert_array_equal(data.group, (table[key[1]] == GROUP_ONE[key]).to_numpy()[rows])
    assert split.label_values[1] == positive
    assert split.group_values[1] == GROUP_ONE[key]
    assert set(split.label_values) == set(table[column])
    assert set(split.group_values) == set(table[key[1]])


def test_balances_are_the_published_ones(splits):
    compas, adult = bundled_csv("compas"), bundled_csv("adult")
    assert compas["race"].value_counts().to_dict() == {"African-American": 3175, "Caucasian": 2103}
    assert adult["race"].value_counts().to_dict() == {"White": 41762, "Black": 4685}
    summary = splits["adult", "gender"].summary()
    by_gender = (adult["income"] == ">50K").groupby(adult["gender"]).mean()
    assert summary["positive_share"] == pytest.approx((adult["income"] == ">50K").mean())
    assert summary["group_share"] == pytest.approx((adult["gender"] == "Male").mean())
    assert summary["positive_share_group0"] == pytest.approx(by_gender["Female"])
    assert summary["positive_share_group1"] == pytest.approx(by_gender["Male"])
    assert (summary["train_rows"], summary["test_rows"], summary["features"]) == (37157, 9290, 21)


@pytest.mark.parametrize("name", ["compas", "adult"])
def test_scaling_is_the_papers_and_uses_train_rows_only(splits, name):
    split, raw = splits[name, "race"], raw_features(name).to_numpy()
    train = raw[split.train_rows]
    center, spread = (train.mean(0), train.std(0)) if name == "adult" else (0.0, 1.0)
    largest = np.linalg.norm((train - center) / spread, axis=1).max()
    for data, rows in ((split.train, split.train_rows), (split.test, split.test_rows)):
        expected = (raw[rows] - center) / spread / largest
        np.testing.assert_allclose(np.asarray(data.x)[:, :-1], expected, rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(data.x, split.scaled(raw[rows]))
    norms = np.linalg.norm(np.asarray(split.train.x)[:, :-1], axis=1)
    assert 1 - 1e-12 < norms.max() <= 1
    assert split.center.dtype == split.scale.dtype == np.float64


def test_test_rows_may_exceed_the_norm_but_train_rows_do_not():
    seeds = [datasets.load("compas", group="race", seed=seed) for seed in range(8)]
    norms = np.array(
        [
            [np.linalg.norm(np.asarray(part.x)[:, :-1], axis=1).max() for part in (split.train, split.test)]
            for split in seeds
        ]
    )
    assert (norms[:, 0] <= 1).all()
    assert (norms[:, 1] > 1).any()


def test_seed_fixes_the_split():
    first, again, other = (datasets.load("compas", group="race", seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.train.x, again.train.x)
    np.testing.assert_array_equal(first.test_rows, again.test_rows)
    assert (first.test_rows != other.test_rows).any()
    expected = np.random.default_rng(3).permutation(5278)
    np.testing.assert_array_equal(first.test_rows, expected[:1056])
    np.testing.assert_array_equal(first.train_rows, expected[1056:])


def test_options(splits):
    without = datasets.load("compas", group="race", seed=0, group_feature=False, scaling="minmax", test_fraction=0.5)
    assert without.feature_names == ("age", "c_charge_degree", "gender", "priors_count", "length_of_stay", "bias")
    assert without.train.x.shape == (2639, 6)
    assert np.asarray(without.train.x)[:, :-1].min() == 0
    np.testing.assert_array_equal(np.bincount(without.train.group) > 0, True)


def test_float32_without_x64():
    with jax.enable_x64(False):
        split = datasets.load("compas", group="gender", seed=0)
    for data in (split.train, split.test):
        assert data.x.dtype == data.weight.dtype == np.float32
        assert data.y.dtype == data.group.dtype == np.int32
    exact = np.asarray(split.train.x, np.float64)[:, :-1]
    assert 1 - 1e-5 < np.linalg.norm(exact, axis=1).max() <= 1
    assert split.scale.dtype == np.float64


@pytest.mark.parametrize("damage", ["flip", "cut", "other", "text", "gone"])
def test_damaged_file_is_refused(tmp_path, monkeypatch, damage):
    content = bytearray((bundled.FILES / "compas.csv.gz").read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 0xFF
    elif damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "other":
        content = bundled.pack(bundled_csv("compas").iloc[:-1])
    elif damage == "text":
        content = gzip.decompress(content)
    if damage != "gone":
        (tmp_path / "compas.csv.gz").write_bytes(bytes(content))
    monkeypatch.setattr(bundled, "FILES", tmp_path)
    error, said = (FileNotFoundError, "missing") if damage == "gone" else (ValueError, "corrupted")
    with pytest.raises(error, match=rf"compas\.csv\.gz is {said}.*install the package again"):
        datasets.load("compas", group="race", seed=0)


def test_sources_record_the_files():
    sources = (bundled.FILES / "SOURCES.md").read_text()
    for name, data_set in registry.BUNDLED.items():
        content = (bundled.FILES / f"{name}.csv.gz").read_bytes()
        assert hashlib.sha256(content).hexdigest() in sources
        assert data_set.sha256 in sources
        assert bundled.text_sha256(content) == data_set.sha256
        assert len(content) < 300_000


def test_pack_depends_on_the_table_alone():
    table = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    assert bundled.pack(table) == bundled.pack(table.copy())
    assert gzip.decompress(bundled.pack(table)) == b"a,b\n1,x\n2,y\n"
    assert bundled.pack(table)[4:8] == b"\0\0\0\0"


@pytest.mark.parametrize(
    ("name", "group", "options", "message"),
    [
        ("mnist", "race", {}, f"unknown data set 'mnist'; available: {', '.join(map(repr, datasets.GROUPS))}"),
        ("compas", "age", {}, "unknown group 'age' of 'compas'; available: 'race', 'gender'"),
        ("hsls", "age", {}, "unknown group 'age' of 'hsls'; available: 'race', 'sex'"),
        ("synthetic", "race", {}, "unknown group 'race' of 'synthetic'; available: 'group'"),
        ("adult", "race", {"n": 5}, "unknown option 'n' of 'adult'; available: 'scaling', 'group_feature'"),
        ("adult", "race", {"path": "adult.csv"}, "'adult' takes no path .*from_csv"),
        ("compas", "race", {"scaling": "robust"}, "unknown scaling 'robust'; available: 'standardise', 'minmax'"),
        ("compas", "race", {"test_fraction": 1.5}, "test_fraction must be between 0 and 1.*1.5"),
        ("compas", "race", {"test_fraction": 0.0}, "test_fraction must be between 0 and 1"),
    ],
)
def test_errors(name, group, options, message):
    with pytest.raises(ValueError, match=message):
        datasets.load(name, group=group, seed=0, **options)


@pytest.mark.parametrize("name", ["compas", "adult"])
def test_intersections_are_of_the_same_rows(splits, name):
    both = datasets.load(name, group=["race", "sex"], seed=0)
    race, gender = splits[name, "race"], splits[name, "gender"]
    assert (both.group_name, both.train.groups) == ("race x gender", 4)
    expected = [f"{a}, {b}" for a in race.group_values for b in gender.group_values]
    assert list(both.group_values) == expected
    for part in ("train", "test"):
        mine, by_race, by_gender = (getattr(split, part) for split in (both, race, gender))
        np.testing.assert_array_equal(mine.x, by_race.x)
        np.testing.assert_array_equal(mine.group, 2 * by_race.group + by_gender.group)
    without = datasets.load(name, group=["race", "gender"], seed=0, group_feature=False)
    assert set(both.feature_names) - set(without.feature_names) == {"race", "gender"}


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (["race", "age"], "unknown group 'age' of 'compas'; available: 'race', 'gender'"),
        (["sex", "gender"], "must name one attribute, or several different ones"),
        ([], "one attribute, or several different ones"),
    ],
)
def test_impossible_intersections_are_refused(group, message):
    with pytest.raises(ValueError, match=message):
        datasets.load("compas", group=group, seed=0)
