"""HSLS:09 from made-up files in the forms that users have: NCES text, NCES codes, the paper's cleaned columns."""

import numpy as np
import pandas as pd
import pytest

from fmu_jax import datasets

N = 80
I = np.arange(N)
RACES = (
    "Amer. Indian/Alaska Native, non-Hispanic",
    "Asian, non-Hispanic",
    "Black/African-American, non-Hispanic",
    "Hispanic, no race specified",
    "Hispanic, race specified",
    "More than one race, non-Hispanic",
    "Native Hawaiian/Pacific Islander, non-Hispanic",
    "White, non-Hispanic",
)
RACE_CODES = 1 + (3 * I) % 8
SCORES = 40 + (37 * I) % 53 / 2


def coded(**columns):
    """Records with NCES codes, a later wave, a record number and a column of the file's own."""
    table = {
        "STU_ID": 10000 + I,
        "X1RACE": RACE_CODES,
        "X1SEX": 1 + I // 3 % 2,
        "X1TXMTSCOR": SCORES,
        "X1MTHEFF": (I % 9 - 4) / 3,
        "X1SES": (I % 13 - 6) / 4,
        "X1CONTROL": 1 + I % 3,
        "S1M8GRADE": 1 + I % 6,
        "X2MTHEFF": I % 5,
        "X4EVERDROP": I % 2,
        "na_prop": 0.0,
    }
    return pd.DataFrame({**table, **columns})


def labelled(**columns):
    """The same records with text."""
    table = coded()
    return table.assign(
        **{
            "X1RACE": np.array(RACES)[RACE_CODES - 1],
            "X1SEX": np.where(table["X1SEX"] == 1, "Male", "Female"),
            "X1CONTROL": np.array(["Public", "Catholic", "Other private"])[I % 3],
            "S1M8GRADE": np.array(["A", "B", "C", "D", "Below D", "Class was not graded"])[I % 6],
            **columns,
        }
    )


def load(tmp_path, table, group="race", **options):
    """Writes a table and loads it."""
    table.to_csv(tmp_path / "student.csv", index=False)
    return datasets.load("hsls", group=group, seed=0, path=tmp_path / "student.csv", **options)


def in_order(split, values):
    """Per-row values of a split, train then test, put back in the order of the file."""
    rows = np.concatenate([split.train_rows, split.test_rows])
    parts = [np.asarray(getattr(data, values)) for data in (split.train, split.test)]
    return np.concatenate(parts)[np.argsort(rows)]


def test_text_and_codes_agree(tmp_path):
    codes, text = load(tmp_path, coded()), load(tmp_path, labelled())
    assert codes.train.x.shape == text.train.x.shape == (64, 14)
    assert codes.feature_names[:4] == text.feature_names[:4] == ("racebin", "sexbin", "X1MTHEFF", "X1SES")
    assert codes.feature_names[4:8] == ("X1CONTROL=1", "X1CONTROL=2", "X1CONTROL=3", "S1M8GRADE=1")
    assert text.feature_names[4:8] == (
        "X1CONTROL=Catholic",
        "X1CONTROL=Other private",
        "X1CONTROL=Public",
        "S1M8GRADE=A",
    )
    assert codes.feature_names[-1] == "bias"
    np.testing.assert_array_equal(in_order(codes, "y"), in_order(text, "y"))
    np.testing.assert_array_equal(in_order(codes, "group"), in_order(text, "group"))
    order = [codes.feature_names.index(f"X1CONTROL={code}") for code in (2, 3, 1)]
    np.testing.assert_allclose(np.asarray(codes.train.x)[:, order], np.asarray(text.train.x)[:, 4:7])


def test_label_and_groups(tmp_path):
    split = load(tmp_path, labelled())
    np.testing.assert_array_equal(in_order(split, "y"), np.median(SCORES) < SCORES)
    np.testing.assert_array_equal(in_order(split, "group"), np.isin(RACE_CODES, (2, 8)))
    assert split.label_name == "X1TXMTSCOR"
    assert split.label_values == ("at or below the median", "above the median")
    assert split.group_values == ("other races", "White or Asian")
    by_sex = load(tmp_path, labelled(), group="sex")
    np.testing.assert_array_equal(in_order(by_sex, "group"), I // 3 % 2 == 0)
    assert by_sex.group_values == ("female", "male")
    assert (split.dropped_rows, split.scaling) == (0, "minmax")


def test_sex_as_zero_and_one(tmp_path):
    split = load(tmp_path, coded(X1SEX=I // 3 % 2), group="sex")
    np.testing.assert_array_equal(in_order(split, "group"), I // 3 % 2)


def test_scaling_is_minmax_on_train_rows(tmp_path):
    split = load(tmp_path, coded())
    raw = coded()[["X1MTHEFF", "X1SES"]].to_numpy()[split.train_rows]
    expected = (raw - raw.min(0)) / np.ptp(raw, axis=0)
    ratio = np.asarray(split.train.x)[:, 2:4] / np.where(expected > 0, expected, 1)
    np.testing.assert_allclose(ratio[expected > 0], ratio.max(), rtol=1e-12)
    assert np.linalg.norm(np.asarray(split.train.x)[:, :-1], axis=1).max() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("other", ["X1TXMSCR", "X1TXMTH"])
def test_other_scores(tmp_path, other):
    table = coded()
    table[other] = -SCORES / 10
    split = load(tmp_path, table if other == "X1TXMSCR" else table.drop(columns="X1TXMTSCOR"))
    assert split.label_name == other
    assert not set(split.feature_names) & {"X1TXMSCR", "X1TXMTSCOR", "X1TXMTH"}
    np.testing.assert_array_equal(in_order(split, "y"), np.median(SCORES) > SCORES)


def missing_table():
    """Records 0 to 5 lack something; record 6 has codes that are values."""
    table = labelled().astype({"X1MTHEFF": object, "X1SES": object})
    table.loc[0, "X1RACE"] = "Missing"
    table.loc[1, "X1TXMTSCOR"] = -8
    table.loc[2, "X1MTHEFF"] = -9
    table.loc[3, "X1SES"] = "Unit non-response"
    table.loc[4, "X1CONTROL"] = "Item legitimate skip/NA"
    table.loc[5, ["X1MTHEFF", "X1SES", "X1CONTROL", "S1M8GRADE", "X1SEX"]] = [-7, -7, np.nan, "Missing", "Missing"]
    table.loc[6, ["X1MTHEFF", "X1SES"]] = ["Component not applicable", -6.99]
    return table


def test_missing_records_are_dropped_and_counted(tmp_path):
    split = load(tmp_path, missing_table())
    kept = np.sort(np.concatenate([split.train_rows, split.test_rows]))
    np.testing.assert_array_equal(kept, np.arange(6, N))
    assert split.dropped_rows == 6
    np.testing.assert_array_equal(in_order(split, "y"), np.median(SCORES[6:]) < SCORES[6:])
    part, rows = (split.train, split.train_rows) if 6 in split.train_rows else (split.test, split.test_rows)
    raw = np.asarray(part.x)[np.flatnonzero(rows == 6)[0], :-1] * split.scale + split.center
    np.testing.assert_allclose(raw[2:4], [-6, -6.99])


def test_missing_features_may_be_filled_by_train_means(tmp_path):
    split = load(tmp_path, missing_table(), missing="mean")
    kept = np.sort(np.concatenate([split.train_rows, split.test_rows]))
    np.testing.assert_array_equal(kept, [2, 3, 4, *range(6, N)])  # 5 lacks more than half of its features
    assert split.dropped_rows == 3
    raw = {
        row: np.asarray(data.x)[k, :-1] * split.scale + split.center
        for data, rows in ((split.train, split.train_rows), (split.test, split.test_rows))
        for k, row in enumerate(rows)
    }
    known = [raw[row] for row in split.train_rows if row != 2]
    np.testing.assert_allclose(raw[2][2], np.mean(known, axis=0)[2])
    known = [raw[row] for row in split.train_rows if row != 4]
    np.testing.assert_allclose(raw[4][4:7], np.mean(known, axis=0)[4:7])


def test_folder_and_sequence_equal_one_file(tmp_path):
    whole = load(tmp_path, coded())
    parts = tmp_path / "parts"
    parts.mkdir()
    coded()[:50].to_csv(parts / "a.csv", index=False)
    coded()[50:].to_csv(parts / "b.csv", index=False)
    for path in (parts, str(parts), [parts / "a.csv", parts / "b.csv"]):
        split = datasets.load("hsls", group="race", seed=0, path=path)
        np.testing.assert_array_equal(split.train.x, whole.train.x)


def cleaned(**columns):
    """The paper's cleaned file: bins, a copied label and record numbers beside features."""
    table = {
        "Unnamed: 0": I,
        "X1MTHEFF": I % 9 / 8,
        "P1MUSEUM": I % 2,
        "X1TXMSCR": SCORES,
        "X3TCREDMAT": SCORES,
        "studentrace": RACE_CODES / 8,
        "racebin": np.isin(RACE_CODES, (2, 8)).astype(int),
        "sexbin": I // 3 % 2,
        "gradebin": (np.median(SCORES) < SCORES).astype(int),
    }
    return pd.DataFrame({**table, **columns})


def test_cleaned_file(tmp_path):
    split = load(tmp_path, cleaned(), group="sex")
    assert split.feature_names == ("racebin", "sexbin", "X1MTHEFF", "P1MUSEUM", "bias")
    np.testing.assert_array_equal(in_order(split, "y"), cleaned()["gradebin"])
    np.testing.assert_array_equal(in_order(split, "group"), cleaned()["sexbin"])
    assert split.label_values == ("gradebin=0", "gradebin=1")
    assert split.group_values == ("sexbin=0", "sexbin=1")


def test_options(tmp_path):
    split = load(tmp_path, coded(), features=("X1SES", "X1MTHEFF"), group_feature=False, scaling="standardise")
    assert split.feature_names == ("sexbin", "X1SES", "X1MTHEFF", "bias")
    assert split.scaling == "standardise"
    assert load(tmp_path, coded(S1EXTRA=I % 4), features=("S1EXTRA",)).feature_names[2] == "S1EXTRA"
    without_sex = load(tmp_path, coded().drop(columns="X1SEX"))
    assert without_sex.feature_names[:2] == ("racebin", "X1MTHEFF")


def test_without_a_path_the_error_says_where_to_get_the_file():
    with pytest.raises(
        ValueError, match=r"HSLS:09 is not bundled.*National Center for Education.*X1TXMSCR.*path=FILE|path="
    ):
        datasets.load("hsls", group="race", seed=0)


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (coded().drop(columns="X1TXMTSCOR"), {}, "no mathematics score, one of 'X1TXMSCR', 'X1TXMTSCOR', 'X1TXMTH'"),
        (coded().drop(columns="X1RACE"), {}, "no column for group='race': X1RACE or racebin"),
        (coded().drop(columns="X1SEX"), {"group": "sex"}, "X1SEX or sexbin"),
        (coded()[["STU_ID", "X1RACE", "X1TXMTSCOR"]], {}, "no base-year feature such as 'X1STAGE'"),
        (coded()[["X2MTHEFF"]], {}, "no HSLS:09 column; it has 'X2MTHEFF'"),
        (coded(X1RACE=9), {}, "column 'X1RACE' of .* holds 9.0, which is no NCES code or label"),
        (coded(X1SEX=I % 3), {"group": "sex"}, "'X1SEX' .* holds"),
        (labelled(X1RACE="purple"), {}, "holds 'purple'"),
        (labelled(X1TXMTSCOR="high"), {}, "'X1TXMTSCOR' of .* must hold numbers; got 'high'"),
        (cleaned(gradebin=I % 3), {}, "'gradebin' of .* must hold 0 and 1, got 2.0"),
        (coded(X1SES=-8), {}, r"is left: 80 of 80 have label and group.*'X1SES': 80.*missing='mean'"),
        (coded(X1RACE=-9), {}, "is left: 0 of 80"),
        (coded(X1RACE=8), {}, "group 0 has no rows"),
        (coded(STU_ID=1), {}, "79 records of .* repeat the STU_ID"),
        (coded(), {"features": ("X1MTHID",)}, "no column 'X1MTHID'"),
        (coded(), {"features": ("X1SES", "X2MTHEFF")}, r"are no features \('X2MTHEFF'\)"),
        (coded(), {"features": ("X1TXMTSCOR",)}, "are no features"),
        (coded(), {"missing": "knn"}, "unknown missing='knn' of 'hsls'; available: 'drop', 'mean'"),
    ],
)
def test_errors(tmp_path, table, options, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, table, **options)


def test_file_errors(tmp_path):
    with pytest.raises(ValueError, match=r"no CSV file in .*HSLS:09 is not bundled"):
        datasets.load("hsls", group="race", seed=0, path=tmp_path)
    with pytest.raises(FileNotFoundError, match="no file"):
        datasets.load("hsls", group="race", seed=0, path=tmp_path / "student.csv")
    coded().to_csv(tmp_path / "a.csv", index=False)
    coded().drop(columns="X1SES").to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(ValueError, match=r"a\.csv and .*b\.csv differ in the columns 'X1SES'"):
        datasets.load("hsls", group="race", seed=0, path=tmp_path)


def test_intersections_of_race_and_sex(tmp_path):
    with pytest.raises(ValueError, match=r"groups of race x sex with fewer than .* 'White or Asian, male' \(6 rows\)"):
        load(tmp_path, labelled(), group=["race", "gender"])
    split = load(tmp_path, labelled(), group=["race", "gender"], small_groups="merge")
    race, sex = (in_order(load(tmp_path, labelled(), group=name), "group") for name in ("race", "sex"))
    assert split.group_name == "race x sex"
    np.testing.assert_array_equal(in_order(split, "group"), np.where(race == 1, 2, sex))
    assert split.group_values == ("other races, female", "other races, male", "other")
