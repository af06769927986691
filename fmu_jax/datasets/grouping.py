"""Groups from one protected attribute or several: all their values, their intersections, and what is too few rows."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int, Int32

from fmu_jax.data import MOST_GROUPS
from fmu_jax.datasets.parts import WHOLE, Parts
from fmu_jax.datasets.reading import listed
from fmu_jax.datasets.suitability import differs_little
from fmu_jax.datasets.table import code_two_values

SMALL_GROUPS = ("error", "merge")
MIN_GROUP_ROWS = 20
"""Fewest rows of one of three groups or more: with fewer, no rate of the group means much."""
OTHER = "other"


class Groups(NamedTuple):
    """The group of each row.

    Attributes:
      codes: 0 to ``len(values) - 1``, ``(n,)``.
      name: The attribute, or the attributes with " x " between them.
      values: What each code means; for intersections the attributes' values with ", " between them.
    """

    codes: Int32[np.ndarray, " n"]
    name: str
    values: tuple[str, ...]


def attributes_of(group: str | Sequence[str]) -> tuple[str, ...]:
    """The attributes that a caller named, one or several.

    Raises:
      ValueError: None, or one of them twice.
    """
    names = (group,) if isinstance(group, str) else tuple(group)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"group={names!r} must name one attribute, or several different ones")
    return names


def code_values(
    values: pd.Series, one=None, *, exact: bool = False, parts: Parts = WHOLE
) -> tuple[Int32[np.ndarray, " n"], tuple[str, ...]]:
    """Codes all values of a column, in sorted order; with `one`, or two values, as ``code_two_values`` does.

    Raises:
      ValueError: Fewer than two values, `one` is none of them, or two of them hardly differ (unless `exact`).
    """
    distinct = parts.union(list(values.unique()))
    if one is not None or len(distinct) <= 2:
        return code_two_values(values, one, role="group", option="group_one", exact=exact, parts=parts)
    similar = None if exact else differs_little(value for value in distinct if isinstance(value, str))
    if similar:
        raise ValueError(f"group column {values.name!r} {similar}")
    return pd.Categorical(values, categories=distinct).codes.astype(np.int32), tuple(map(str, distinct))


def intersect(
    attributes: Mapping[str, tuple[Int[np.ndarray, " n"], tuple[str, ...]]], *, parts: Parts = WHOLE
) -> Groups:
    """One group for each combination of attribute values that occurs, in the order of the codes, first attribute first.

    Args:
      attributes: By name, the codes of each row and what they mean; one attribute stays as it is.
      parts: The parts of the table, of which these rows are one.

    Returns:
      The ``Groups``.

    >>> a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 0])
    >>> intersect({"race": (a, ("Black", "White")), "gender": (b, ("Female", "Male"))})[1:]
    ('race x gender', ('Black, Female', 'Black, Male', 'White, Female'))
    """
    columns, meanings = zip(*attributes.values(), strict=True)
    if len(columns) == 1:
        return Groups(columns[0].astype(np.int32), next(iter(attributes)), meanings[0])
    sizes = [len(meaning) for meaning in meanings]
    combined = np.asarray(np.ravel_multi_index(columns, sizes))
    present = np.array(parts.union(list(np.unique(combined))))
    values = tuple(
        ", ".join(meaning[code] for meaning, code in zip(meanings, row, strict=True))
        for row in np.column_stack(np.unravel_index(present, sizes)).tolist()
    )
    _check_different(values)
    return Groups(np.asarray(np.searchsorted(present, combined), np.int32), " x ".join(attributes), values)


def settle_small(
    groups: Groups, *, min_rows: int = MIN_GROUP_ROWS, small: str = "error", parts: Parts = WHOLE
) -> Groups:
    """Refuses or merges groups of few rows where there are more than two groups; two are left as they are.

    Args:
      groups: Groups of all rows.
      min_rows: Fewest rows of a group.
      small: "error", or "merge" to put all smaller groups together as one more, "other", the last.
      parts: The parts of the table, of which these rows are one.

    Returns:
      The ``Groups``.

    Raises:
      ValueError: A group has fewer rows, also after merging; fewer than two groups or more than `MOST_GROUPS` are
        left; or `small` is unknown.
    """
    if small not in SMALL_GROUPS:
        raise ValueError(f"unknown small_groups={small!r}; available: {listed(SMALL_GROUPS)}")
    if len(groups.values) < 3:
        return groups
    counts = parts.total(np.bincount(groups.codes, minlength=len(groups.values)))
    few = np.flatnonzero(counts < min_rows)
    named = ", ".join(f"{groups.values[code]!r} ({counts[code]} rows)" for code in few[:10])
    named += f", ... ({len(few)} in all)" if len(few) > 10 else ""
    if len(few) and (small == "error" or counts[few].sum() < min_rows):
        merge = f"pass small_groups='merge' to put them together as {OTHER!r}, " if small == "error" else ""
        both = " even together" if small == "merge" else ""
        raise ValueError(
            f"groups of {groups.name} with fewer than min_group_rows={min_rows} rows{both}: {named}; {merge}"
            "lower min_group_rows, or leave these rows out"
        )
    frequent = np.setdiff1d(np.arange(len(counts)), few)
    if len(few):
        new = np.full(len(counts), len(frequent))
        new[frequent] = np.arange(len(frequent))
        values = (*(groups.values[code] for code in frequent), OTHER)
        _check_different(values)
        groups = Groups(new[groups.codes].astype(np.int32), groups.name, values)
    if not 2 <= len(groups.values) <= MOST_GROUPS:
        raise ValueError(f"{groups.name} makes {len(groups.values)} groups; there must be 2 to {MOST_GROUPS}")
    return groups


def _check_different(values: Sequence[str]) -> None:
    """Raises ValueError if two groups would have one name."""
    same = sorted({value for value in values if values.count(value) > 1})
    if same:
        raise ValueError(f"two groups would both be called {listed(same)}; rename a value of the group columns")
