"""COMPAS: will a defendant of Broward County be charged again? ProPublica, "Machine Bias", 2016."""

from pathlib import Path

import pandas as pd

from fmu_jax.datasets.bundled import Bundled, two_valued
from fmu_jax.datasets.reading import require_columns

RAW_FILE = "compas-scores-two-years.csv"
GROUPS = {"race": ("African-American", "Caucasian"), "gender": ("Female", "Male")}
LABEL_VALUES = ("no recidivism", "recidivism")
CLEAN_COLUMNS = ("age", "c_charge_degree", "race", "gender", "priors_count", "length_of_stay", "is_recid")
RAW_COLUMNS = (
    "age",
    "c_charge_degree",
    "race",
    "sex",
    "priors_count",
    "days_b_screening_arrest",
    "is_recid",
    "c_jail_in",
    "c_jail_out",
)


def read_raw(path: str | Path) -> pd.DataFrame:
    """Reads ProPublica's `compas-scores-two-years.csv`.

    Args:
      path: The file. Two of its names occur twice; pandas renames the later column, and the first one counts.

    Returns:
      The table, with the columns that ``clean`` needs and more.

    Raises:
      FileNotFoundError: There is no such file.
    """
    return pd.read_csv(path, low_memory=False)


def clean(raw: pd.DataFrame) -> pd.DataFrame:
    """Filters and selects as the paper's code does.

    Rule: ProPublica's filter (the arrest within 30 days of the screening, `is_recid` known, no ordinary traffic
    offence "O"), then defendants whose race is African-American or Caucasian. `length_of_stay` is the number of
    whole days from `c_jail_in` to `c_jail_out`, rounded down (so -1 for a release recorded before the booking).

    Args:
      raw: The raw table, any number of rows.

    Returns:
      Columns `CLEAN_COLUMNS`, in the raw order, renumbered from 0.

    Raises:
      ValueError: A column is missing.
    """
    require_columns(raw.columns, RAW_COLUMNS, source=RAW_FILE)
    keep = (
        raw["days_b_screening_arrest"].between(-30, 30)
        & (raw["is_recid"] != -1)
        & (raw["c_charge_degree"] != "O")
        & raw["race"].isin(GROUPS["race"])
    )
    selected = raw[keep]
    stay = pd.to_datetime(selected["c_jail_out"]) - pd.to_datetime(selected["c_jail_in"])
    table = selected.assign(
        gender=selected["sex"],
        length_of_stay=stay.dt.days.astype("int64"),
        is_recid=selected["is_recid"].map(dict(enumerate(LABEL_VALUES))),
    )
    return table[list(CLEAN_COLUMNS)].reset_index(drop=True)


def features(table: pd.DataFrame) -> pd.DataFrame:
    """The six features of the paper's code, float64: felony charge 1 and misdemeanour -1, Caucasian 1, male 1."""
    return pd.DataFrame(
        {
            "age": table["age"],
            "c_charge_degree": table["c_charge_degree"].map({"F": 1, "M": -1}),
            "race": two_valued(table["race"], GROUPS["race"]),
            "gender": two_valued(table["gender"], GROUPS["gender"]),
            "priors_count": table["priors_count"],
            "length_of_stay": table["length_of_stay"],
        }
    ).astype("float64")


COMPAS = Bundled(
    name="compas",
    sha256="efb04ea26983c30cd35c8fe8cfbd629e18834e98b8437ce51d259797a8651517",
    features=features,
    label="is_recid",
    label_values=LABEL_VALUES,
    groups=GROUPS,
    scaling="maxnorm",
)
