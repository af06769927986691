"""Tables to numbers, shared by every loader: two-value codes, one-hot encoding, the random split and the scaling."""

import math
from collections.abc import Collection

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int32, Int64

from fmu_jax.datasets.columns import is_number
from fmu_jax.datasets.parts import WHOLE, Parts
from fmu_jax.datasets.reading import listed
from fmu_jax.datasets.suitability import alike, differs_little, doubts

SCALINGS = ("standardise", "minmax", "maxnorm")


def code_two_values(
    values: pd.Series, one=None, *, role: str, option: str, exact: bool = False, parts: Parts = WHOLE
) -> tuple[Int32[np.ndarray, " n"], tuple[str, str]]:
    """Codes a column as 0 and 1.

    Rule: with `one`, rows that hold it (or any of it, if a collection) are 1 and all others 0; without it the
    column must hold exactly two values, of which the larger (in sorted order) is 1.

    Args:
      values: n entries, none missing, plain (``columns.plain``).
      one: The value, or values, to code as 1.
      role: "label" or "group", for messages.
      option: The caller's name for `one`, for messages.
      exact: Two texts that hardly differ, such as "yes" and "yes.", are two values; else they are refused where one
        would be 0 and the other 1.
      parts: The parts of the column, of which `values` is one.

    Returns:
      The codes ``(n,)`` int32 and the names of values 0 and 1.

    Raises:
      ValueError: Fewer than two values; more than two and `one` is None; or `one` is no value of the column; or two
        values hardly differ.
    """
    name, distinct = values.name, parts.union(list(values.unique()))
    if len(distinct) < 2:
        raise ValueError(f"{role} column {name!r} holds only the value {listed(distinct)}; it must hold two")
    if one is None:
        if len(distinct) > 2:
            raise ValueError(
                f"{role} column {name!r} must hold exactly two values, but holds {len(distinct)}: "
                f"{listed(distinct, 10)}; pass {option}=VALUE, or several values, to code that as 1 and all others as 0"
            )
        ones = distinct[1:]
    else:
        ones = list(one) if isinstance(one, (tuple, list, set, frozenset)) else [one]
        ones = [value.strip() if isinstance(value, str) else value for value in ones]
        unknown = [value for value in ones if value not in distinct]
        if unknown or not 0 < len(set(ones)) < len(distinct):
            raise ValueError(
                f"{option}={one!r} does not split {role} column {name!r} in two; its values are {listed(distinct, 10)}"
            )
    zeros = [value for value in distinct if value not in ones]
    for zero in zeros:
        for value in ones:
            if not exact and isinstance(zero, str) and isinstance(value, str) and alike([zero, value]):
                raise ValueError(
                    f"{role} column {name!r} {differs_little([zero, value])}; to count both as 1 pass "
                    f"{option}={(value, zero)!r}"
                )
    names = " or ".join(map(str, zeros)), " or ".join(map(str, ones))
    ones = [value for value in distinct if value in ones]  # Of one type: pandas would round numbers of several.
    return values.isin(ones).to_numpy(bool).astype(np.int32), names


def encode(
    table: pd.DataFrame,
    *,
    nominal: Collection[str] = (),
    exact: Collection[str] = (),
    max_categories: int = 50,
    parts: Parts = WHOLE,
) -> pd.DataFrame:
    """Turns every column into float64 columns.

    Rule: numbers and booleans stay as they are; text (and whatever is named in `nominal`) becomes one indicator
    ``column=value`` a category, in sorted order, or, for two categories, only the second's. A missing entry stays NaN.

    Args:
      table: n rows of plain columns (``columns.plain``), of different names.
      nominal: Numeric columns whose numbers are codes.
      exact: Columns each of whose texts is a category, whatever it looks like.
      max_categories: The most categories that a column may have.
      parts: The parts of the table, of which `table` is one; all have the same columns.

    Returns:
      A table of n rows and float64 columns; a name may occur twice (``make_split`` refuses it).

    Raises:
      ValueError: A column has more than `max_categories` categories, or holds text that is probably something else.
    """
    names, columns = [], []
    for name, column in table.items():
        number = is_number(column)
        if number and name not in nominal:
            names.append(str(name))
            columns.append(column.to_numpy(np.float64, na_value=np.nan))
            continue
        categories = parts.union(list(column.dropna().unique()))
        doubt = category_doubts(categories, exact=name in exact, max_categories=max_categories)
        if doubt:
            raise ValueError(f"column {name!r} {doubt}; or leave it out with drop=({name!r},)")
        codes = pd.Categorical(column, categories=categories).codes
        for code, category in list(enumerate(categories))[1 if len(categories) == 2 else 0 :]:
            names.append(f"{name}={shown(category)}")
            columns.append(np.where(codes < 0, np.nan, codes == code))
    return pd.DataFrame(np.column_stack(columns) if columns else np.empty((len(table), 0)), table.index, names)


def category_doubts(categories: list, *, exact: bool, max_categories: int) -> str | None:
    """Why these values cannot be the categories of a feature, and what to do; None if they can."""
    texts = [value for value in categories if isinstance(value, str)]
    if texts and not exact:
        return doubts(texts, max_categories=max_categories)
    if len(categories) > max_categories:
        return (
            f"has {len(categories)} categories, more than max_categories={max_categories}, such as "
            f"{listed(categories[:3])} (group its values, or raise max_categories)"
        )
    return None


def shown(value) -> str:
    """A category as a feature's name says it: whole numbers, also floats, by all their digits.

    >>> shown(2**53 + 1), shown(3.0), shown(0.1), shown("3.0")
    ('9007199254740993', '3', '0.1', '3.0')
    """
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def split_rows(n: int, *, test_fraction: float, seed: int) -> tuple[Int64[np.ndarray, " a"], Int64[np.ndarray, " b"]]:
    """Splits rows 0..n-1 at random: the first ``ceil(test_fraction n)`` of a permutation are test rows.

    Args:
      n: Number of rows.
      test_fraction: Share of test rows, in (0, 1).
      seed: Seed of ``numpy.random.default_rng``.

    Returns:
      Train rows and test rows, int64.

    Raises:
      ValueError: `test_fraction` is outside (0, 1), or a side would have no row; or `seed` is no whole number >= 0.
    """
    tests = count_test_rows(n, test_fraction)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed={seed!r} must be a whole number >= 0, so that the same split can be drawn again")
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
    x: Float64[np.ndarray, "n d"], how: str, *, margin: float = 0.0, parts: Parts = WHOLE
) -> tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, " d"]]:
    """Center and scale after which ``(x - center) / scale`` has row norms at most ``1 / (1 + margin)``.

    Rule: "standardise" takes mean and standard deviation (divisor n), "minmax" minimum and range, "maxnorm"
    neither; then all columns are divided by the largest row norm. A constant column has spread 1.

    Args:
      x: The train rows, finite.
      how: "standardise", "minmax" or "maxnorm".
      margin: Head room for rounding when the result is stored in a narrower dtype.
      parts: The parts of the table, of which `x` is from one.

    Returns:
      ``center`` and ``scale``, both float64 ``(d,)``.

    Raises:
      ValueError: `how` is unknown, or the values are so large that the scale overflows.
    """
    if how not in SCALINGS:
        raise ValueError(f"unknown scaling {how!r}; available: {listed(SCALINGS)}")
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        low, high = parts.least(x.min(axis=0)), parts.most(x.max(axis=0))
        center, spread = np.zeros(x.shape[1]), np.ones(x.shape[1])
        if how == "standardise":
            n = parts.total(np.array(len(x)))
            center = parts.total(x.sum(axis=0)) / n
            spread = np.sqrt(parts.total(np.square(x - center).sum(axis=0)) / n)
        elif how == "minmax":
            center, spread = low, high - low
        constant = high - low == 0
        center = np.where(constant & (how != "maxnorm"), low, center)
        spread = np.where(constant, 1.0, spread)
        largest = parts.most(np.asarray(np.linalg.norm((x - center) / spread, axis=1).max()))
        scale = spread * (largest if largest > 0 else 1.0) * (1 + margin)
    if not (np.isfinite(center).all() and np.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError("feature values are too large or too small to scale in float64; change their unit")
    return center, scale
