"""A user's own table: any CSV or Parquet file or DataFrame with a label column and a group column."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fmu_jax.datasets import table as tables
from fmu_jax.datasets.reading import complete_rows, listed, read_table, require_columns
from fmu_jax.datasets.split import Split, make_split


def from_csv(
    path: str | Path,
    *,
    label: str,
    group: str,
    seed: int,
    positive=None,
    group_one=None,
    drop: Sequence[str] = (),
    scaling: str = "standardise",
    test_fraction: float = 0.2,
    missing: str = "error",
    na_values: Sequence[str] = (),
    max_categories: int = 50,
    group_feature: bool = True,
) -> Split:
    r"""Reads a CSV file whose first line names its columns, or a Parquet file.

    Args:
      path: the file; a CSV file may be compressed (.gz, .zip, ...), Parquet (.parquet, .pq) needs pyarrow.
      label: the column to predict.
      group: the column of the protected attribute.
      seed: of the random split (``numpy.random.default_rng``).
      positive: the label value (or a tuple of values) that counts as 1, all others being 0. Without it the label must
        hold exactly two values, and the larger in sorted order is 1.
      group_one: the same for the group.
      drop: columns to leave out, such as record numbers.
      scaling: "standardise" (mean 0, standard deviation 1), "minmax" (to [0, 1]) or "maxnorm" (neither); then all
        features are divided by the largest train-row norm.
      test_fraction: share of rows held out, in (0, 1).
      missing: "error" refuses missing, NaN or infinite values; "drop" leaves such rows out and counts them.
      na_values: text that stands for a missing value, such as "?".
      max_categories: the most values that a text column may have to be one-hot encoded.
      group_feature: keep the group, coded 0 and 1, as a feature.

    Returns:
      The ``Split``. Text columns become indicators ``column=value``; columns that never vary are left out.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: an empty file, repeated or missing columns, a label or group that is not two values, missing or
        infinite values, too many categories, or an unknown option; the message names the value and what to pass.

    >>> import pathlib, tempfile
    >>> lines = ["hours,job,sex,hired"]
    >>> lines += [f"{i % 7},{'abc'[i % 3]},{'FM'[i % 2]},{'no' if i % 5 else 'yes'}" for i in range(100)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "people.csv")
    ...     _ = path.write_text("\n".join(lines))
    ...     split = from_csv(path, label="hired", group="sex", seed=0)
    >>> split.feature_names
    ('hours', 'job=a', 'job=b', 'job=c', 'sex', 'bias')
    >>> split.label_values, split.group_values, split.train.x.shape
    (('no', 'yes'), ('F', 'M'), (80, 6))
    """
    table = read_table(path, na_values=na_values)
    return from_table(
        table,
        label=label,
        group=group,
        seed=seed,
        positive=positive,
        group_one=group_one,
        drop=drop,
        scaling=scaling,
        test_fraction=test_fraction,
        missing=missing,
        max_categories=max_categories,
        group_feature=group_feature,
        source=str(path),
    )


def from_table(
    table: pd.DataFrame,
    *,
    label: str,
    group: str,
    seed: int,
    positive=None,
    group_one=None,
    drop: Sequence[str] = (),
    scaling: str = "standardise",
    test_fraction: float = 0.2,
    missing: str = "error",
    max_categories: int = 50,
    group_feature: bool = True,
    source: str = "the table",
) -> Split:
    """Prepares a DataFrame as ``from_csv`` prepares a file; pure.

    Args:
      table: n rows with named columns.
      label: the column to predict.
      group: the column of the protected attribute.
      seed: of the random split.
      positive: the label value, or tuple of values, that counts as 1.
      group_one: the same for the group.
      drop: columns to leave out.
      scaling: "standardise", "minmax" or "maxnorm".
      test_fraction: share of rows held out.
      missing: "error" or "drop".
      max_categories: the most values of a one-hot encoded column.
      group_feature: keep the group as a feature.
      source: what to call the table in messages and in the result.

    Returns:
      The ``Split``.

    Raises:
      ValueError: as ``from_csv``.

    >>> people = pd.DataFrame({"age": range(50), "club": ["a", "b"] * 25, "won": [0, 0, 1, 1, 0] * 10})
    >>> split = from_table(people, label="won", group="club", seed=1)
    >>> split.feature_names, split.group_values
    (('age', 'club', 'bias'), ('a', 'b'))
    """
    if isinstance(drop, str):
        raise ValueError(f"drop must be a sequence of column names, got the string {drop!r}; write ({drop!r},)")
    repeated = table.columns[table.columns.duplicated()]
    if len(repeated):
        raise ValueError(f"{source} has more than one column named {listed(repeated)}; rename the copies")
    require_columns(table.columns, (label, group, *drop), source=source)
    if label == group or label in drop or group in drop:
        raise ValueError(f"label={label!r} and group={group!r} must be two columns, neither of them in drop={drop!r}")
    table = table.drop(columns=list(drop))
    keep = complete_rows(table, missing=missing, source=source)
    rows, kept = keep.nonzero()[0], table[keep]
    y, label_values = tables.code_two_values(kept[label], positive, role="label", option="positive")
    groups, group_values = tables.code_two_values(kept[group], group_one, role="group", option="group_one")
    features = kept.drop(columns=[label]).assign(**{group: groups})
    if not group_feature:
        features = features.drop(columns=[group])
    return make_split(
        tables.encode(features, max_categories=max_categories),
        y,
        groups,
        seed=seed,
        test_fraction=test_fraction,
        scaling=scaling,
        source=source,
        rows=rows,
        label_name=label,
        label_values=label_values,
        group_name=group,
        group_values=group_values,
        dropped_rows=int(len(table) - len(rows)),
    )
