"""A user's own table: any CSV or Parquet file or DataFrame with a label column and a group column."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from fmu_jax.datasets import grouping
from fmu_jax.datasets import table as tables
from fmu_jax.datasets.reading import complete_rows, listed, read_table, require_columns
from fmu_jax.datasets.shards import Gather, Shards
from fmu_jax.datasets.split import Split, make_split


def from_csv(
    path: str | Path,
    *,
    label: str,
    group: str | Sequence[str],
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
    min_group_rows: int = grouping.MIN_GROUP_ROWS,
    small_groups: str = "error",
    gather: Gather | None = None,
) -> Split:
    r"""Reads a CSV file whose first line names its columns, or a Parquet file.

    Args:
      path: the file; a CSV file may be compressed (.gz, .zip, ...), Parquet (.parquet, .pq) needs pyarrow.
      label: the column to predict.
      group: the column of the protected attribute, each of whose values is a group; several columns give a group for
        each combination of their values that occurs.
      seed: of the random split (``numpy.random.default_rng``).
      positive: the label value (or a tuple of values) that counts as 1, all others being 0. Without it the label must
        hold exactly two values, and the larger in sorted order is 1.
      group_one: the group value (or a tuple of values) that is group 1, all others being group 0; for several columns a
        mapping from column to that. Without it a column keeps all its values, in sorted order.
      drop: columns to leave out, such as record numbers.
      scaling: "standardise" (mean 0, standard deviation 1), "minmax" (to [0, 1]) or "maxnorm" (neither); then all
        features are divided by the largest train-row norm.
      test_fraction: share of rows held out, in (0, 1).
      missing: "error" refuses missing, NaN or infinite values; "drop" leaves such rows out and counts them.
      na_values: text that stands for a missing value, such as "?".
      max_categories: the most values that a text column may have to be one-hot encoded.
      group_feature: keep the group's columns as features, two values coded 0 and 1, more as indicators.
      min_group_rows: fewest rows of a group where there are more than two.
      small_groups: "error" refuses groups of fewer rows; "merge" puts them together as "other".
      gather: for a file that holds only a part of the table, each process having its own: passes this part's values,
        ranges and sums (never a row) and returns those of all parts in one order. All parts are then coded, grouped
        and scaled alike; each holds out its own test rows, and what the ``Split`` counts are its own rows. All must
        call this with the same options (but for the seed), and all fail where one file cannot be read.

    Returns:
      The ``Split``. Text columns become indicators ``column=value``; columns that never vary are left out.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: an empty file, repeated or missing columns, a label that is not two values, a group of one value or
        of too few rows, missing or infinite values, too many categories, or an unknown option; the message names the
        value and what to pass.

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
    shards = Shards(gather)
    with shards.together(str(path)):
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
        min_group_rows=min_group_rows,
        small_groups=small_groups,
        gather=gather,
        source=str(path),
    )


def from_table(
    table: pd.DataFrame,
    *,
    label: str,
    group: str | Sequence[str],
    seed: int,
    positive=None,
    group_one=None,
    drop: Sequence[str] = (),
    scaling: str = "standardise",
    test_fraction: float = 0.2,
    missing: str = "error",
    max_categories: int = 50,
    group_feature: bool = True,
    min_group_rows: int = grouping.MIN_GROUP_ROWS,
    small_groups: str = "error",
    gather: Gather | None = None,
    source: str = "the table",
) -> Split:
    """Prepares a DataFrame as ``from_csv`` prepares a file; pure.

    Args:
      table: n rows with named columns.
      label: the column to predict.
      group: the column of the protected attribute, or several.
      seed: of the random split.
      positive: the label value, or tuple of values, that counts as 1.
      group_one: the group value, or tuple of values, that is group 1; a mapping by column where there are several.
      drop: columns to leave out.
      scaling: "standardise", "minmax" or "maxnorm".
      test_fraction: share of rows held out.
      missing: "error" or "drop".
      max_categories: the most values of a one-hot encoded column.
      group_feature: keep the group's columns as features.
      min_group_rows: fewest rows of a group where there are more than two.
      small_groups: "error" or "merge".
      gather: for a part of a table, as for ``from_csv``.
      source: what to call the table in messages and in the result.

    Returns:
      The ``Split``.

    Raises:
      ValueError: as ``from_csv``.

    >>> people = pd.DataFrame({"age": range(400), "club": ["a", "b"] * 200, "won": [0, 0, 1, 1, 0] * 80})
    >>> split = from_table(people, label="won", group="club", seed=1)
    >>> split.feature_names, split.group_values
    (('age', 'club', 'bias'), ('a', 'b'))
    >>> people["side"] = ["left", "left", "right", "right"] * 100
    >>> from_table(people, label="won", group=["club", "side"], seed=1).group_values
    ('a, left', 'a, right', 'b, left', 'b, right')
    """
    if isinstance(drop, str):
        raise ValueError(f"drop must be a sequence of column names, got the string {drop!r}; write ({drop!r},)")
    attributes, shards = grouping.attributes_of(group), Shards(gather)
    if label in attributes or label in drop or set(attributes) & set(drop):
        raise ValueError(f"label={label!r} and group={group!r} must be two columns, neither of them in drop={drop!r}")
    if len(attributes) > 1 and not (group_one is None or isinstance(group_one, Mapping)):
        raise ValueError(f"for several group columns group_one must map columns to values, got {group_one!r}")
    ones = group_one if isinstance(group_one, Mapping) else dict.fromkeys(attributes, group_one)
    with shards.together(source):
        repeated = table.columns[table.columns.duplicated()]
        if len(repeated):
            raise ValueError(f"{source} has more than one column named {listed(repeated)}; rename the copies")
        require_columns(table.columns, (label, *attributes, *drop), source=source)
        table = table.drop(columns=list(drop))
        keep = complete_rows(table, missing=missing, source=source)
        tables.count_test_rows(int(keep.sum()), test_fraction)
    kinds = {str(name): "numbers" if pd.api.types.is_numeric_dtype(table[name]) else "text" for name in table}
    shards.same(kinds, what="columns", source=source)
    rows, kept = keep.nonzero()[0], table[keep]
    y, label_values = tables.code_two_values(kept[label], positive, role="label", option="positive", shards=shards)
    coded = {name: grouping.code_values(kept[name], ones.get(name), shards=shards) for name in attributes}
    groups = grouping.intersect(coded, shards=shards)
    groups = grouping.settle_small(groups, min_rows=min_group_rows, small=small_groups, shards=shards)
    two_valued = {name: codes for name, (codes, values) in coded.items() if len(values) == 2}
    features = kept.drop(columns=[label]).assign(**two_valued)
    if not group_feature:
        features = features.drop(columns=list(attributes))
    return make_split(
        tables.encode(
            features, nominal=set(attributes) - set(two_valued), max_categories=max_categories, shards=shards
        ),
        y,
        groups,
        seed=seed,
        test_fraction=test_fraction,
        scaling=scaling,
        source=source,
        rows=rows,
        shards=shards,
        label_name=label,
        label_values=label_values,
        dropped_rows=int(len(table) - len(rows)),
    )
