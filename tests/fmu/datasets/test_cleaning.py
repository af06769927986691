"""Hand-written rows in the exact raw formats through the cleaning functions, and the script that rebuilds files."""

import hashlib

import pandas as pd
import pytest

from fmu_jax.datasets import adult, bundled, compas, raw

COMPAS_HEADER = (
    "id,sex,age,race,priors_count,days_b_screening_arrest,c_jail_in,c_jail_out,c_charge_degree,is_recid,priors_count"
)
COMPAS_ROWS = """\
1,Male,34,African-American,0,-1,2013-01-26 03:45:27,2013-02-05 05:36:53,F,1,7
2,Female,24,Caucasian,4,0,2013-04-13 23:58:00,2013-04-14 00:02:00,M,0,7
3,Male,41,Caucasian,14,30,2013-01-01 10:00:00,2013-01-02 09:59:59,F,0,7
4,Male,41,Caucasian,14,-30,2013-01-01 10:00:00,2013-01-02 10:00:00,F,1,7
5,Male,50,Caucasian,1,0,2013-01-02 10:00:00,2013-01-02 04:00:00,M,0,7
6,Male,23,Other,1,0,2013-01-01 10:00:00,2013-01-02 10:00:00,F,1,7
7,Male,23,Caucasian,1,31,2013-01-01 10:00:00,2013-01-02 10:00:00,F,1,7
8,Male,23,Caucasian,1,-31,2013-01-01 10:00:00,2013-01-02 10:00:00,F,1,7
9,Male,23,Caucasian,1,,,,F,1,7
10,Male,23,Caucasian,1,0,2013-01-01 10:00:00,2013-01-02 10:00:00,O,1,7
11,Male,23,Caucasian,1,0,2013-01-01 10:00:00,2013-01-02 10:00:00,F,-1,7
"""

ADULT_DATA = """\
39, State-gov, 77516, Bachelors, 13, Never-married, Sales, Not-in-family, White, Male, 2174, 0, 40, Cuba, <=50K
54, ?, 180211, Some-college, 10, Married-civ-spouse, ?, Husband, Asian-Pac-Islander, Male, 0, 0, 60, South, >50K
35, ?, 129305, HS-grad, 9, Divorced, ?, Unmarried, Black, Female, 0, 1408, 38, ?, >50K

"""
ADULT_TEST = """\
|1x3 Cross validator
25, Private, 226802, 11th, 7, Never-married, Machine-op-inspct, Own-child, Black, Male, 0, 0, 40, United-States, <=50K.
44, Private, 160323, Some-college, 10, Married-civ-spouse, Sales, Wife, White, Female, 7688, 0, 40, Cuba, >50K.

"""


def test_compas_rows(tmp_path):
    path = tmp_path / compas.RAW_FILE
    path.write_text(f"{COMPAS_HEADER}\n{COMPAS_ROWS}")
    table = compas.clean(compas.read_raw(path))
    assert tuple(table.columns) == compas.CLEAN_COLUMNS
    assert table.values.tolist() == [
        [34, "F", "African-American", "Male", 0, 10, "recidivism"],
        [24, "M", "Caucasian", "Female", 4, 0, "no recidivism"],  # across midnight, four minutes
        [41, "F", "Caucasian", "Male", 14, 0, "no recidivism"],  # a second less than a day
        [41, "F", "Caucasian", "Male", 14, 1, "recidivism"],
        [50, "M", "Caucasian", "Male", 1, -1, "no recidivism"],  # out before in: rounded down
    ]
    features = compas.features(table)
    assert list(features) == ["age", "c_charge_degree", "race", "gender", "priors_count", "length_of_stay"]
    assert features.values.tolist()[:2] == [[34, 1, 0, 1, 0, 10], [24, -1, 1, 0, 4, 0]]
    assert (features.dtypes == "float64").all()


def test_compas_missing_column():
    with pytest.raises(ValueError, match=r"no column 'c_jail_out'; its columns are 'age'"):
        compas.clean(pd.DataFrame(columns=[name for name in compas.RAW_COLUMNS if name != "c_jail_out"]))


def test_adult_rows(tmp_path):
    for name, text in zip(adult.RAW_FILES, (ADULT_DATA, ADULT_TEST), strict=True):
        (tmp_path / name).write_text(text)
    data, test = (adult.read_raw(tmp_path / name) for name in adult.RAW_FILES)
    assert (len(data), len(test)) == (3, 2)
    assert data["workclass"].isna().tolist() == [False, True, True]
    assert test["income"].tolist() == ["<=50K.", ">50K."]
    table = adult.clean(data, test)
    assert table.values.tolist() == [
        [39, 13, "Never-married", "Not-in-family", "White", "Male", 2174, 0, 40, "<=50K"],
        [35, 9, "Divorced", "Unmarried", "Black", "Female", 0, 1408, 38, ">50K"],
        [25, 7, "Never-married", "Own-child", "Black", "Male", 0, 0, 40, "<=50K"],
        [44, 10, "Married-civ-spouse", "Wife", "White", "Female", 7688, 0, 40, ">50K"],
    ]
    features = adult.features(table)
    assert list(features)[:8] == [*adult.NUMBERS, "marital_status=Divorced"]
    assert features.iloc[0].to_dict() == {
        **dict(zip(adult.NUMBERS, [39, 13, 1, 1, 2174, 0, 40], strict=True)),
        **{f"marital_status={value}": value == "Never-married" for value in sorted(set(table["marital_status"]))},
        **{f"relationship={value}": value == "Not-in-family" for value in sorted(set(table["relationship"]))},
    }


def test_adult_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*adult\.data"):
        adult.read_raw(tmp_path / "adult.data")
    (tmp_path / "adult.data").write_text("39, State-gov, 77516\n")
    with pytest.raises(ValueError, match="fewer than 15 fields"):
        adult.read_raw(tmp_path / "adult.data")
    (tmp_path / "adult.data").write_text(ADULT_DATA.replace(">50K", "lots"))
    data = adult.read_raw(tmp_path / "adult.data")
    with pytest.raises(ValueError, match=r"unknown income \['lots'\]"):
        adult.clean(data, data)


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The build script, made to expect this file's few rows; only in a source tree."""
    module = pytest.importorskip("build_datasets")
    texts = {
        compas.RAW_FILE: f"{COMPAS_HEADER}\n{COMPAS_ROWS}",
        "adult.data": ADULT_DATA,
        "adult.test": ADULT_TEST,
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    monkeypatch.setattr(raw, "RAW", {name: (raw.RAW[name][0], digest) for name, digest in digests.items()})
    return module


def run(script, *argv):
    """Exit status of the script, on the tables alone."""
    words = ["--data", "compas", "adult", *argv]
    return script.run([str(word) for word in words])


def test_script_builds_and_checks(script, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(script, "--raw", tmp_path, "--out", out) == 0
    assert capsys.readouterr().out.count("written") == 2
    folder = out / "fmu_jax" / "datasets" / "files"
    assert sorted(path for path in out.rglob("*") if path.is_file()) == [
        folder / "adult.csv.gz",
        folder / "compas.csv.gz",
    ]
    assert pd.read_csv(folder / "adult.csv.gz").shape == (4, 10)
    assert pd.read_csv(folder / "compas.csv.gz").shape == (5, 7)
    assert run(script, "--raw", tmp_path, "--out", out, "--check") == 0
    assert capsys.readouterr().out.count("identical") == 2
    (folder / "adult.csv.gz").write_bytes(bundled.pack(pd.DataFrame({"a": [1]})))
    assert run(script, "--raw", tmp_path, "--out", out, "--check") == 1
    assert "adult.csv.gz differs from a rebuild" in capsys.readouterr().err
    (folder / "adult.csv.gz").unlink()
    assert run(script, "--raw", tmp_path, "--out", out, "--check") == 1
    assert "no bundled file" in capsys.readouterr().err


def test_script_refuses_wrong_or_missing_raw_files(script, tmp_path, capsys):
    with (tmp_path / "adult.test").open("a") as file:
        file.write("x")
    assert run(script, "--raw", tmp_path, "--out", tmp_path / "out") == 1
    assert "adult.test has SHA-256" in capsys.readouterr().err
    (tmp_path / "adult.data").unlink()
    assert run(script, "--raw", tmp_path, "--out", tmp_path / "out") == 1
    assert "adult.data; get it from https://archive.ics.uci.edu" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_script_says_what_to_do_without_a_network(script, tmp_path, capsys, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(raw.pooch, "retrieve", refuse)
    assert run(script, "--out", tmp_path / "out") == 1
    assert "no route to host; download it by hand and pass --raw" in capsys.readouterr().err
