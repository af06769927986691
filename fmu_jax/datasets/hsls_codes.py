"""HSLS:09 variable names and codes: which columns become features, and how codes and their text are read."""

import re
from collections.abc import Iterable, Sequence

import pandas as pd

from fmu_jax.datasets.reading import listed, require_columns

SCORES = ("X1TXMSCR", "X1TXMTSCOR", "X1TXMTH")
"""The mathematics score, as the file may have it: IRT score, norm-referenced T score, ability."""

FEATURES = (
    # composites of the student's questionnaire, school and family
    *("X1STAGE", "X1MTHID", "X1MTHUTI", "X1MTHEFF", "X1MTHINT", "X1SCIID", "X1SCIUTI", "X1SCIEFF", "X1SCIINT"),
    *("X1SCHOOLBEL", "X1SCHOOLENG", "X1STUEDEXPCT", "X1PAREDEXPCT", "X1STU30OCC2", "X1SES", "X1FAMINCOME"),
    *("X1HHNUMBER", "X1P1RELATION", "X1PAR1EMP", "X1PAR2EMP", "X1PARRESP", "X1PAR1EDU", "X1PAR2EDU", "X1PAR1OCC2"),
    *("X1PAR2OCC2", "X1CONTROL", "X1LOCALE", "X1REGION", "X1SCHOOLCLI", "X1PROBLEM"),
    # the student's answers
    *("S1M8GRADE", "S1LANG1ST", "S1TEPOPULAR", "S1TEMAKEFUN", "S1MTHCOMP", "S1SCICOMP", "S1APCALC", "S1IBCALC"),
    *("S1MTCHVALUES", "S1MTCHINTRST", "S1MTCHFAIR", "S1MTCHRESPCT", "S1MTCHCONF", "S1MTCHEASY"),
    # the parent's answers
    *("P1REPEATGRD", "P1ELLEVER", "P1MARSTAT", "P1YRBORN1", "P1YRBORN2", "P1JOBNOW1", "P1JOBONET1_STEM1"),
    *("P1JOBONET2_STEM1", "P1HHTIME", "P1EDUASPIRE", "P1EDUEXPECT", "P1MTHHWEFF", "P1SCIHWEFF", "P1ENGHWEFF"),
    *("P1MTHCOMP", "P1SCICOMP", "P1ENGCOMP", "P1MUSEUM", "P1COMPUTER", "P1FIXED", "P1SCIFAIR", "P1SCIPROJ"),
    *("P1STEMDISC", "P1NOACT", "P1CAMPMS", "P1CAMPOTH", "P1NOOUTSCH"),
)
"""Base-year (2009) variables that become features where the file has them: those of Jeong et al. 2022 and their
sibling scales. No variable of a later wave is among them."""

NOMINAL = frozenset(
    (
        *("X1STU30OCC2", "X1P1RELATION", "X1PAR1EMP", "X1PAR2EMP", "X1PARRESP", "X1PAR1OCC2", "X1PAR2OCC2"),
        *("X1CONTROL", "X1LOCALE", "X1REGION", "S1M8GRADE", "S1LANG1ST", "P1ELLEVER", "P1MARSTAT"),
    )
)
"""Features whose numeric codes have no order: one-hot encoded, whether the file has codes or text."""

RESERVED = {
    "missing": -9,
    "unit non-response": -8,
    "unit nonresponse": -8,
    "item legitimate skip/na": -7,
    "legitimate skip": -7,
    "component not applicable": -6,
    "data suppressed": -5,
    "item not administered: abbreviated interview": -4,
    "don't know": -1,
}
"""Text of the NCES reserved codes, lower case."""

RACES = ("white", "asian", "black", "hispanic", "more than one race", "amer", "native")
NOT_FEATURES = re.compile(
    r"gradebin|grade9thbin|studentgrade|racebin|sexbin|studentrace|studentsex|X1TXM.*|X1RACE|X1SEX"
    r"|(STU|SCH)_?ID|na_prop|Unnamed.*|index||[XSPAWC][2-9].*"
)
"""Columns of an already cleaned file that are no features: label, groups, their copies, record numbers (also without a
name), later waves."""


def as_numbers(column: pd.Series) -> pd.Series:
    """Reads a column as numbers where it holds numbers (and reserved codes), as text otherwise; missing becomes NaN.

    Args:
      column: Codes, numbers or text; the text of a reserved code may stand among numbers.

    Returns:
      float64, or text; the reserved codes of -7 and below, and their text, are NaN.
    """
    if not pd.api.types.is_numeric_dtype(column):
        reserved = column.str.strip().str.lower().map(RESERVED)
        numbers = pd.to_numeric(column.where(reserved.isna()), errors="coerce")
        if (numbers.isna() & reserved.isna() & column.notna()).any():
            return column.where(~(reserved <= -7))
        column = numbers.fillna(reserved)
    column = column.astype("float64")
    return column.where(column > -7)


def feature_columns(present: Iterable[str], chosen: Sequence[str] | None, *, source: str) -> list[str]:
    """Chooses the feature columns of a file.

    Args:
      present: The file's columns.
      chosen: The user's choice, or None for all that qualify.
      source: What to call the file in messages.

    Returns:
      Column names, without label, groups, record numbers and later waves.

    Raises:
      ValueError: A chosen column is missing or may not be a feature; or the file has none that qualifies.
    """
    present = list(present)
    if chosen is not None:
        require_columns(present, chosen, source=source)
        refused = [name for name in chosen if NOT_FEATURES.fullmatch(name)]
        if refused or not chosen:
            raise ValueError(
                f"features={listed(chosen)}: label, groups, record numbers and later waves are no features "
                f"({listed(refused)}); choose base-year columns such as 'X1MTHEFF'"
            )
        return list(chosen)
    candidates = present if "gradebin" in present else FEATURES
    names = [name for name in candidates if name in present and not NOT_FEATURES.fullmatch(name)]
    if not names:
        raise ValueError(f"{source} has no base-year feature such as {listed(FEATURES[:5])}; got {listed(present)}")
    return names


def label_scores(table: pd.DataFrame, *, source: str) -> pd.Series:
    """The label's source, ``(n,)`` float64 with NaN for missing: `gradebin` if the file has it, else a score."""
    name = next((name for name in ("gradebin", *SCORES) if name in table), None)
    if name is None:
        raise ValueError(f"{source} has no mathematics score, one of {listed(SCORES)} (or gradebin)")
    numbers = as_numbers(table[name])
    if name == "gradebin":
        return check_binary(numbers, source=source)
    if not pd.api.types.is_numeric_dtype(numbers):
        raise ValueError(f"column {name!r} of {source} must hold numbers; got {listed(numbers.dropna().unique(), 5)}")
    return numbers


def group_bin(table: pd.DataFrame, kind: str, *, source: str) -> pd.Series | None:
    """Codes race or sex as 0 and 1 (see ``load_hsls``), NaN where missing; None if the file has no such column.

    Raises:
      ValueError: The column holds an unknown value.
    """
    if f"{kind}bin" in table:
        return check_binary(as_numbers(table[f"{kind}bin"]), source=source)
    column = {"race": "X1RACE", "sex": "X1SEX"}[kind]
    if column not in table:
        return None
    values = as_numbers(table[column])
    known = values.dropna()
    if pd.api.types.is_numeric_dtype(values):
        allowed, ones = (range(1, 9), (2, 8)) if kind == "race" else (range(3), (1,))
        unknown = known[~known.isin(allowed)]
        if kind == "sex" and {0, 2} <= set(known):
            unknown = known[known.isin((0, 2))]
        coded = values.isin(ones)
    else:
        text = values.str.strip().str.lower()
        allowed, ones = (RACES, ("white", "asian")) if kind == "race" else (("male", "female"), ("male",))
        unknown = known[~text[known.index].str.startswith(allowed)]
        coded = text.str.startswith(ones, na=False)
    if len(unknown):
        raise ValueError(
            f"column {column!r} of {source} holds {listed(unknown.unique(), 5)}, which is no NCES code or label"
        )
    return coded.astype("float64").where(values.notna())


def group_values(table: pd.DataFrame, kind: str) -> tuple[str, str]:
    """What groups 0 and 1 mean."""
    if f"{kind}bin" in table:
        return f"{kind}bin=0", f"{kind}bin=1"
    return ("other races", "White or Asian") if kind == "race" else ("female", "male")


def check_binary(values: pd.Series, *, source: str) -> pd.Series:
    """Returns the column if it holds nothing but 0, 1 and NaN; raises ValueError otherwise."""
    unknown = [value for value in values.dropna().unique() if value not in (0, 1)]
    if unknown:
        raise ValueError(f"column {values.name!r} of {source} must hold 0 and 1, got {listed(unknown, 5)}")
    return values
