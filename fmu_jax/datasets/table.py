"""Tables to numbers, shared by every loader: two-value codes, one-hot encoding, the random split and the scaling."""

import math
from collections.abc import Collection

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int32, Int64

from fmu_jax.datasets.reading import listed
from fmu_jax.datasets.shards import WHOLE, Shards

SCALINGS = ("standardise", "minmax", "maxnorm")


def code_two_values(
    values: pd.Series, one=None, *, role: str, option: str, shards: Shards = WHOLE
) -> tuple[Int32[np.ndarray, " n"], tuple[str, str]]:
    """Codes a column as 0 and 1.

    Rule: with `one`, rows that hold it (or any of it, if a collection) are 1 and all others 0; without it the
    column must hold exactly two values, of which the larger (in sorted order) is 1.

    Args:
      values: n entries, none missing.
      one: the value, or values, to code as 1.
      role: "label" or "group", for messages.
      option: the caller's name for `one`, for messages.
      shards: the parts of the column, of which `values` is one.

    Returns:
      The codes ``(n,)`` int32 and the names of values 0 and 1.

    Raises:
      ValueError: fewer than two values; more than two and `one` is None; or `one` is no value of the column.
    """
    name, seen = values.name, shards.union(list(values.unique()))
    if len(seen) < 2:
        raise ValueError(f"{role} column {name!r} holds only the value {listed(seen)}; it must hold two")
    if one is None:
        if len(seen) > 2:
            raise ValueError(
                f"{role} column {name!r} must hold exactly two values, but holds {len(seen)}: {listed(seen, 10)}; "
                f"pass {option}=VALUE, or several values, to code that as 1 and all others as 0"
            )
        ones = seen[1:]
    else:
        ones = list(one) if isinstance(one, (tuple, list, set, frozenset)) else [one]
        unknown = [value for value in ones if value not in seen]
        if unknown or len(set(ones)) == len(seen):
            raise ValueError(
                f"{option}={one!r} does not split {role} column {name!r} in two; its values are {listed(seen, 10)}"
            )
    zeros = [value for value in seen if value not in ones]
    names = " or ".join(map(str, zeros)), " or ".join(map(str, ones))
    return values.isin(ones).to_numpy().astype(np.int32), names


def encode(
    table: pd.DataFrame, *, nominal: Collection[str] = (), max_categories: int = 50, shards: Shards = WHOLE
) -> pd.DataFrame:
    """Turns every column into float64 columns.

    Rule: numbers and booleans stay as they are; text (and whatever is named in `nominal`) becomes one indicator
    ``column=value`` a category, in sorted order, or, for two categories, only the second's. A missing entry stays NaN.

    Args:
      table: n rows.
      nominal: numeric columns whose numbers are codes.
      max_categories: the most categories that a column may have.
      shards: the parts of the table, of which `table` is one; all have the same columns.

    Returns:
      A table of n rows and float64 columns.

    Raises:
      ValueError: a column has more than `max_categories` categories.
    """
    columns = {}
    for name, column in table.items():
        is_number = pd.api.types.is_numeric_dtype(column)
        if is_number and name not in nominal:
            columns[name] = column.to_numpy(np.float64, na_value=np.nan)
            continue
        present = column.dropna()
        categories = shards.union(list(present.unique() if is_number else present.astype(str).unique()))
        if len(categories) > max_categories:
            raise ValueError(too_many_categories(str(name), present, len(categories), max_categories))
        known = column if is_number else column.astype(str)
        for category in categories[1:] if len(categories) == 2 else categories:
            indicator = (known == category).to_numpy().astype(np.float64)
            text = f"{category:g}" if is_number else category
            columns[f"{name}={text}"] = np.where(column.isna(), np.nan, indicator)
    return pd.DataFrame(columns, index=table.index)


def too_many_categories(name: str, column: pd.Series, count: int, limit: int) -> str:
    """Explains why a text column cannot be one-hot encoded, and what to do."""
    numbers = pd.to_numeric(column.astype(str), errors="coerce")
    if numbers.notna().mean() > 0.5:
        stray = column[numbers.isna()].astype(str).unique()
        return (
            f"column {name!r} is mostly numbers, but holds text such as {listed(stray[:5])}; "
            "correct it, or pass that text in na_values=(...) with missing='drop'"
        )
    return (
        f"column {name!r} has {count} distinct text values, more than max_categories={limit}; "
        f"leave it out with drop=({name!r},), group its values, or raise max_categories"
    )


def split_rows(n: int, *, test_fraction: float, seed: int) -> tuple[Int64[np.ndarray, " a"], Int64[np.ndarray, " b"]]:
    """Splits rows 0..n-1 at random: the first ``ceil(test_fraction n)`` of a permutation are test rows.

    Args:
      n: number of rows.
      test_fraction: share of test rows, in (0, 1).
      seed: of ``numpy.random.default_rng``.

    Returns:
      Train rows and test rows, int64.

    Raises:
      ValueError: `test_fraction` is outside (0, 1), or a side would have no row.
    """
    tests = count_test_rows(n, test_fraction)
    order = np.random.default_rng(seed).permutation(n)
    return order[tests:], order[:tests]


def count_test_rows(n: int, test_fraction: float) -> int:
    """Number of test rows, ``ceil(test_fraction n)``; ValueError unless both sides have a row."""
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must be between 0 and 1 (exclusive), got {test_fraction}")
    tests = math.ceil(test_fraction * n - 1e-9)
    if n - tests < 1:
        raise ValueError(f"test_fraction={test_fraction} leaves no train row of {n} row(s)")
    return tests


def fit_scaling(
    x: Float64[np.ndarray, "n d"], how: str, *, margin: float = 0.0, shards: Shards = WHOLE
) -> tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, " d"]]:
    """Center and scale after which ``(x - center) / scale`` has row norms at most ``1 / (1 + margin)``.

    Rule: "standardise" takes mean and standard deviation (divisor n), "minmax" minimum and range, "maxnorm"
    neither; then all columns are divided by the largest row norm. A constant column has spread 1.

    Args:
      x: the train rows, finite.
      how: "standardise", "minmax" or "maxnorm".
      margin: head room for rounding when the result is stored in a narrower dtype.
      shards: the parts of the table, of which `x` is from one.

    Returns:
      ``center`` and ``scale``, both float64 ``(d,)``.

    Raises:
      ValueError: `how` is unknown, or the values are so large that the scale overflows.
    """
    if how not in SCALINGS:
        raise ValueError(f"unknown scaling {how!r}; available: {listed(SCALINGS)}")
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = shards.least(x.min(axis=0)), shards.most(x.max(axis=0))
        center, spread = np.zeros(x.shape[1]), np.ones(x.shape[1])
        if how == "standardise":
            n = shards.total(np.array(len(x)))
            center = shards.total(x.sum(axis=0)) / n
            spread = np.sqrt(shards.total(np.square(x - center).sum(axis=0)) / n)
        elif how == "minmax":
            center, spread = low, high - low
        constant = high - low == 0
        center = np.where(constant & (how != "maxnorm"), low, center)
        spread = np.where(constant, 1.0, spread)
        largest = shards.most(np.asarray(np.linalg.norm((x - center) / spread, axis=1).max()))
        scale = spread * (largest if largest > 0 else 1.0) * (1 + margin)
    if not (np.isfinite(center).all() and np.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError("feature values are too large or too small to scale in float64; change their unit")
    return center, scale
