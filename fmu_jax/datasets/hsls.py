"""HSLS:09, the High School Longitudinal Study of 2009: 9th-grade mathematics, from a user's public-use file.

The National Center for Education Statistics publishes the student file; it is not bundled here.

Differs from the reference: D13 nominal codes are one-hot encoded, by name or by number alike (the original feeds codes
to the model as numbers).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fmu_jax.datasets.columns import USUAL, plain
from fmu_jax.datasets.grouping import MIN_GROUP_ROWS, attributes_of, intersect, settle_small
from fmu_jax.datasets.hsls_codes import (
    FEATURES,
    NOMINAL,
    SCORES,
    as_numbers,
    feature_columns,
    group_bin,
    group_values,
    label_scores,
)
from fmu_jax.datasets.reading import listed, read_header, read_table
from fmu_jax.datasets.split import Split, make_split
from fmu_jax.datasets.table import encode

GROUPS = ("race", "sex")
WHERE = (
    "HSLS:09 is not bundled. Get the public-use student file of the High School Longitudinal Study of 2009 from the "
    "National Center for Education Statistics (nces.ed.gov, Online Codebook or DataLab), save it as CSV with the NCES "
    f"variable names, and pass path=FILE. It needs a mathematics score ({', '.join(SCORES)}), X1RACE or X1SEX, and "
    "base-year features such as X1MTHEFF or X1SES; or, instead, the columns gradebin, racebin, sexbin and features"
)


def load_hsls(
    path: str | Path | Sequence[str | Path] | None,
    *,
    group: str | Sequence[str],
    seed: int,
    test_fraction: float = 0.2,
    scaling: str | None = None,
    group_feature: bool = True,
    missing: str = "drop",
    features: Sequence[str] | None = None,
    min_group_rows: int = MIN_GROUP_ROWS,
    small_groups: str = "error",
) -> Split:
    """Reads the student file and prepares it as Jeong et al. and the paper's code do.

    Label: the mathematics score (the first of `SCORES` that the file has) is above the median of all kept records.
    Groups: race = White or Asian (1) against every other race (0; "more than one race" included, as in the paper's
    code, so that no record is lost); sex = male (1) against female (0), where the file may hold text, the NCES codes
    1 male and 2 female, or 0 and 1, of which 1 is taken to be male. Both stay features, as `racebin` and `sexbin`.
    Codes of -7 and below (and their text) are missing; other reserved codes are values like any other.
    Features are whatever the file has of `FEATURES`; text and nominal codes are one-hot encoded, then all are scaled
    to [0, 1] and divided by the largest train-row norm.
    A file with `gradebin`, `racebin` and `sexbin` (the paper's cleaned CSV) is taken as it is: these are label and
    groups, whatever they code, and every other column of the base year is a feature.

    Args:
      path: A CSV file, a folder of CSV files (all rows together), or several files, with the same columns.
      group: "race" or "sex".
      seed: Seed of the split.
      test_fraction: Share of test rows.
      scaling: "standardise", "minmax" or "maxnorm"; None for "minmax", the paper's.
      group_feature: Keep the chosen group as a feature.
      missing: Records without label or group are always left out. "drop" leaves out those that lack a feature too
        (the paper's code does); "mean" replaces a missing feature by its mean over the train rows, and leaves out
        records that lack more than half of the features (Jeong et al. do; they take the nearest neighbour's value).
      features: Use only these columns of the base year, instead of all of `FEATURES` that the file has.
      min_group_rows: Fewest rows of a group where there are more than two.
      small_groups: "error" refuses groups of fewer rows, "merge" puts them together as "other".

    Returns:
      The ``Split``; `dropped_rows` counts the records left out.

    Raises:
      ValueError: No path; no such group; a needed column is missing or holds unknown values; records repeat (by
        `STU_ID`); nothing is left.
      FileNotFoundError: `path` does not exist.

    Source: Jeong, Wang, Calmon 2022, "Fairness without Imputation"; NCES 2011-328 (variables and codes).
    """
    attributes = attributes_of(group)
    for attribute in attributes:
        if attribute not in GROUPS:
            raise ValueError(f"unknown group {attribute!r} of 'hsls'; available: {listed(GROUPS)}")
    if missing not in ("drop", "mean"):
        raise ValueError(f"unknown missing={missing!r} of 'hsls'; available: 'drop', 'mean'")
    table, source = read_files(path, features or ())
    names = feature_columns(list(table.columns), features, source=source)
    bins = {f"{kind}bin": group_bin(table, kind, source=source) for kind in GROUPS}
    bins = {name: codes for name, codes in bins.items() if codes is not None}
    for attribute in attributes:
        if f"{attribute}bin" not in bins:
            raise ValueError(f"{source} has no column for group={attribute!r}: X1{attribute.upper()} or {attribute}bin")
    group_bins = [f"{attribute}bin" for attribute in attributes]
    score = label_scores(table, source=source)
    frame = pd.DataFrame({**bins, **{name: as_numbers(table[name]) for name in names}})
    keep = rows_to_keep(frame, score, group=group_bins, missing=missing, source=source)
    frame, score = frame[keep], score[keep]
    cleaned = score.name == "gradebin"
    y = (score > (0 if cleaned else score.median())).to_numpy().astype(np.int32)
    coded = {
        attribute: (frame[name].to_numpy().astype(np.int32), group_values(table, attribute))
        for attribute, name in zip(attributes, group_bins, strict=True)
    }
    frame = frame if group_feature else frame.drop(columns=group_bins)
    return make_split(
        encode(frame, nominal=NOMINAL, exact=frame.columns),
        y,
        settle_small(intersect(coded), min_rows=min_group_rows, small=small_groups),
        seed=seed,
        test_fraction=test_fraction,
        scaling=scaling or "minmax",
        source=source,
        impute=missing == "mean",
        rows=score.index.to_numpy(),
        label_name=str(score.name),
        label_values=("gradebin=0", "gradebin=1") if cleaned else ("at or below the median", "above the median"),
        dropped_rows=int(len(table) - len(score)),
    )


def rows_to_keep(frame: pd.DataFrame, score: pd.Series, *, group: list[str], missing: str, source: str) -> pd.Series:
    """Marks the records that have a label, a group and (see `missing` of ``load_hsls``) enough features.

    Raises:
      ValueError: No such record.
    """
    known = score.notna() & frame[group].notna().all(axis=1)
    lacking = frame.isna()
    enough = ~lacking.any(axis=1) if missing == "drop" else lacking.mean(axis=1) <= 0.5
    if not (known & enough).any():
        worst = lacking[known].sum().sort_values(ascending=False).head(5)
        raise ValueError(
            f"no record of {source} is left: {int(known.sum())} of {len(frame)} have label and group, and features are "
            f"missing ({', '.join(f'{name!r}: {count}' for name, count in worst.items())}); pass missing='mean', or "
            "features=(...) without these columns"
        )
    return known & enough


def read_files(path: str | Path | Sequence[str | Path] | None, extra: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Reads the columns that may be needed, and `extra` ones, from one file, several, or all CSV files of a folder.

    Returns:
      The table, and what to call it in messages.

    Raises:
      ValueError: No path; no file in the folder; files of different columns; a record twice.
      FileNotFoundError: `path` does not exist.
    """
    if path is None:
        raise ValueError(WHERE)
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(item) for item in path]
    source = ", ".join(str(item) for item in paths)
    if len(paths) == 1 and paths[0].is_dir():
        paths = sorted(file for pattern in ("*.csv", "*.csv.gz") for file in paths[0].glob(pattern))
    if not paths:
        raise ValueError(f"no CSV file in {source or 'an empty list of files'}; {WHERE}")
    headers = {file: read_header(file) for file in paths}
    needed = {*FEATURES, *extra, *SCORES, "X1RACE", "X1SEX", "STU_ID", "gradebin", "racebin", "sexbin"}
    tables = []
    for file, names in headers.items():
        columns = names if "gradebin" in names else [name for name in names if name in needed]
        if not columns:
            raise ValueError(f"{file} has no HSLS:09 column; it has {listed(names)}. {WHERE}")
        read = read_table(file, columns)
        tables.append(pd.DataFrame({name: plain(read[name], USUAL) for name in read}))
        different = set(tables[-1].columns) ^ set(tables[0].columns)
        if different:
            raise ValueError(f"{paths[0]} and {file} differ in the columns {listed(sorted(different))}")
    table = pd.concat(tables, ignore_index=True)
    if "STU_ID" in table and table["STU_ID"].duplicated().any():
        repeated = int(table["STU_ID"].duplicated().sum())
        raise ValueError(f"{repeated} records of {source} repeat the STU_ID of another; give each file once")
    return table, source
