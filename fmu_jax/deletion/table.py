"""A user's table as a store needs it: identifiers, and rows that are encoded, scaled and split."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from fmu_jax import datasets
from fmu_jax.datasets.columns import TRUTH, Missing, Unsuitable, number_reader, plain
from fmu_jax.datasets.delimited import STANDARD, Layout
from fmu_jax.datasets.grouping import MIN_GROUP_ROWS
from fmu_jax.datasets.reading import listed, read_table, require_columns
from fmu_jax.deletion import people


class Table(NamedTuple):
    """A table of people: which file, and what its columns are.

    Attributes:
      path: CSV, compressed or not, or Parquet (.parquet, .pq).
      id: Column of the identifiers: text or whole numbers, one for each person, exact (007 is not 7).
      label: Column to predict.
      group: Column of the protected attribute, each of whose values is a group; of several columns, each combination
        of their values that occurs. They stay features.
      positive: Label values that count as 1; not needed where the label has two values (then the larger is 1).
      group_one: Group values that make up group 1, all others being group 0; for a single column.
      drop: Columns to leave out.
      missing: People with a missing value: "error" refuses the table, "drop" leaves them out.
      na_values: Text that stands for a missing value, beside the words that usually do.
      default_na: Whether those words (NA, null, nan and the like) are missing values.
      categorical: Columns each of whose values is a category, exactly as it stands.
      layout: Separator, decimal mark and encoding of a CSV file.
      scaling: "standardise", "minmax" or "maxnorm", before rows are brought to norm 1.
      max_categories: The most values that a text column may have.
      min_group_rows: Fewest people of a group, where there are more than two groups.
      small_groups: Groups of fewer people: "error" refuses the table, "merge" makes them one more group, "other".
      test_fraction: Share of people held out to measure accuracy and fairness, in (0, 1); they can be deleted too.
    """

    path: str | Path
    id: str
    label: str
    group: str | Sequence[str]
    positive: Sequence[str] = ()
    group_one: Sequence[str] = ()
    drop: Sequence[str] = ()
    missing: str = "error"
    na_values: Sequence[str] = ()
    default_na: bool = True
    categorical: Sequence[str] = ()
    layout: Layout = STANDARD
    scaling: str = "standardise"
    max_categories: int = 50
    min_group_rows: int = MIN_GROUP_ROWS
    small_groups: str = "error"
    test_fraction: float = 0.2


def read(table: Table, *, seed: int) -> tuple[list[str], datasets.Split]:
    """Reads a table.

    Args:
      table: What to read.
      seed: Seed of the split.

    Returns:
      The identifiers of all its records, in order; and the prepared rows, whose ``train_rows`` and ``test_rows`` count
      those records.

    Raises:
      OSError: There is no such file.
      ValueError: It cannot be used; the message says what to do.
    """
    source, missing = str(table.path), Missing(tuple(table.na_values), table.default_na)
    content = read_table(
        Path(table.path), missing=missing, layout=table.layout, text=(table.id,), categorical=table.categorical
    )
    attributes = (table.group,) if isinstance(table.group, str) else tuple(table.group)
    require_columns(content.columns, (table.id, table.label, *attributes), source=source)
    if table.group_one and len(attributes) > 1:
        raise ValueError(
            f"`group_one` makes two groups of one column, and `group` names {len(attributes)}; leave it out"
        )
    ids = content[table.id].tolist()
    people.check_ids(ids, source=source)
    split = datasets.from_table(
        content,
        label=table.label,
        group=attributes,
        seed=seed,
        positive=_values(content[table.label], missing, table.positive, "`positive`"),
        group_one=_values(content[next(iter(attributes))], missing, table.group_one, "`group_one`"),
        drop=(table.id, *table.drop),
        scaling=table.scaling,
        test_fraction=table.test_fraction,
        missing=table.missing,
        na_values=table.na_values,
        default_na=table.default_na,
        categorical=table.categorical,
        max_categories=table.max_categories,
        min_group_rows=table.min_group_rows,
        small_groups=table.small_groups,
        source=source,
    )
    return ids, split


def _values(column: pd.Series, missing: Missing, texts: Sequence[str], name: str) -> tuple[Any, ...] | None:
    """The column's values that are written so; None where no text is given."""
    if not texts:
        return None
    try:
        present = plain(column, missing).dropna().unique().tolist()
    except Unsuitable as error:
        raise ValueError(f"{name}: column {column.name!r} holds {error}") from None
    for text in texts:
        if not any(_means(text.strip(), value) for value in present):
            raise ValueError(f"{name}: column {column.name!r} has no value {text!r}; it holds {listed(present, 10)}")
    return tuple(value for value in present if any(_means(text.strip(), value) for text in texts))


def _means(text: str, value: Any) -> bool:
    """Whether a text is how one writes a value; for a number in any spelling, such as 1 and 1.0."""
    if isinstance(value, bool):
        return TRUTH.get(text) is value
    if not isinstance(value, int | float):
        return str(value) == text
    number = number_reader()(text)
    if number is None:
        return False
    return Decimal(text) == value if isinstance(value, int) else number == value  # A float would be the next integer.
