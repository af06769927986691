"""Adult: does a person earn more than 50,000 dollars a year? 1994 US census, Becker & Kohavi 1996 (UCI)."""

from pathlib import Path

import pandas as pd

from fmu_jax.datasets.bundled import Bundled, two_valued
from fmu_jax.datasets.table import encode

RAW_FILES = ("adult.data", "adult.test")
RAW_COLUMNS = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    "income",
)
GROUPS = {"race": ("Black", "White"), "gender": ("Female", "Male")}
LABEL_VALUES = ("<=50K", ">50K")
NUMBERS = ("age", "education_num", "race", "gender", "capital_gain", "capital_loss", "hours_per_week")
CATEGORIES = ("marital_status", "relationship")


def read_raw(path: str | Path) -> pd.DataFrame:
    """Reads `adult.data` or `adult.test` in the format of the UCI archive.

    Format: no header; fields separated by a comma and a space; "?" for an unknown value; in `adult.test` a first line
    that starts with "|" and a full stop after the income.

    Args:
      path: The file.

    Returns:
      Columns `RAW_COLUMNS`, "?" as NaN.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: A line does not have 15 fields.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    table = pd.read_csv(
        path,
        header=None,
        names=list(RAW_COLUMNS),
        index_col=False,
        comment="|",
        skipinitialspace=True,
        keep_default_na=False,
        na_values=["?", ""],
    )
    if table["income"].isna().any():
        raise ValueError(f"{path} has lines with fewer than {len(RAW_COLUMNS)} fields; expected the UCI file as it is")
    return table


def clean(data: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """Joins both files and keeps people whose race is White or Black, as the paper's code does.

    Rule: rows with unknown fields stay, because no column used here is ever unknown; repeated rows stay.

    Args:
      data: The raw `adult.data`.
      test: The raw `adult.test`.

    Returns:
      Columns age, education_num, marital_status, relationship, race, gender, capital_gain, capital_loss,
      hours_per_week, income; first the rows of `data`, then those of `test`, renumbered from 0.

    Raises:
      ValueError: An income is neither ``<=50K`` nor ``>50K``.
    """
    raw = pd.concat([data, test], ignore_index=True)
    table = raw.rename(columns={"sex": "gender"}).rename(columns=lambda name: name.replace("-", "_"))
    table["income"] = table["income"].str.removesuffix(".")
    unknown = sorted(set(table["income"]) - set(LABEL_VALUES))
    if unknown:
        raise ValueError(f"unknown income {unknown}; expected {LABEL_VALUES}")
    columns = [
        *("age", "education_num", *CATEGORIES, "race", "gender"),
        *("capital_gain", "capital_loss", "hours_per_week", "income"),
    ]
    return table.loc[table["race"].isin(GROUPS["race"]), columns].reset_index(drop=True)


def features(table: pd.DataFrame) -> pd.DataFrame:
    """The twenty features of the paper's code, float64: seven numbers (White 1, male 1), then 7 + 6 indicators."""
    coded = table.assign(**{name: two_valued(table[name], values) for name, values in GROUPS.items()})
    return encode(coded[[*NUMBERS, *CATEGORIES]])


ADULT = Bundled(
    name="adult",
    sha256="e29435f2a9843aee44fa1660e017e1e400653c3d5dcf9b2b7fc02cd8e4e689e4",
    features=features,
    label="income",
    label_values=LABEL_VALUES,
    groups=GROUPS,
    scaling="standardise",
)
