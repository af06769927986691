"""A user's own table: any CSV or Parquet file or DataFrame with a label column and a group column."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from fmu_jax.datasets import grouping
from fmu_jax.datasets import table as tables
from fmu_jax.datasets.columns import Missing, is_number
from fmu_jax.datasets.delimited import Layout
from fmu_jax.datasets.parts import Gather, Parts
from fmu_jax.datasets.reading import complete_rows, listed, read_table
from fmu_jax.datasets.split import Split, make_split
from fmu_jax.datasets.suitability import named, plain_columns


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
    na_values: Sequence[str | int | float] = (),
    default_na: bool = True,
    categorical: Sequence[str] = (),
    max_categories: int = 50,
    group_feature: bool = True,
    min_group_rows: int = grouping.MIN_GROUP_ROWS,
    small_groups: str = "error",
    sep: str = ",",
    decimal: str = ".",
    thousands: str | None = None,
    encoding: str = "utf-8",
    gather: Gather | None = None,
) -> Split:
    r"""Reads a CSV file whose first line names its columns, or a Parquet file.

    The contents of the file are used as they stand, or refused:

    - Every record must have as many fields as the header has names; lines without text do not count. A separator may
      end all lines, the header's too. A value with a separator, a line break or a double quote stands between double
      quotes, and a quote inside it is doubled.
    - White space around names and values does not count. Each column has a name of its own; one without (row numbers,
      as pandas and R save them) must be left out by `drop`, as ``""`` or by the name that pandas gave it.
    - A column of a CSV file holds numbers if every value is one (ASCII digits, decimal mark, exponent; also inf), true
      and false if every value is one of these, else text. Parquet keeps its types.
    - An entry without text is missing, and so are `na_values` and the words that `default_na` stands for.
    - Text becomes categories. It is refused where it is probably something else: numbers beside text, numbers with
      units or marks, dates, times, or values that differ only in case, blanks, what is invisible or a full stop. A
      column named in `categorical`, or of a dictionary type (pandas: category), has each value as a category of its
      own, be it a number.
    - Dates, times, durations, lists, bytes and complex numbers are refused.

    Args:
      path: The file; a CSV file may be packed by gzip, bzip2, xz or zip, Parquet (.parquet, .pq) needs pyarrow.
      label: The column to predict.
      group: The column of the protected attribute, each of whose values is a group; several columns give a group for
        each combination of their values that occurs.
      seed: Seed of the random split (``numpy.random.default_rng``).
      positive: The label value (or a tuple of values) that counts as 1, all others being 0. Without it the label must
        hold exactly two values, and the larger in sorted order is 1.
      group_one: The group value (or a tuple of values) that is group 1, all others being group 0; for several columns a
        mapping from column to that. Without it a column keeps all its values, in sorted order.
      drop: Columns to leave out, such as record numbers.
      scaling: "standardise" (mean 0, standard deviation 1), "minmax" (to [0, 1]) or "maxnorm" (neither); then all
        features are divided by the largest train-row norm.
      test_fraction: Share of rows held out, in (0, 1).
      missing: "error" refuses missing, NaN or infinite values; "drop" leaves such rows out and counts them.
      na_values: Text that stands for a missing value, such as "?", or for a missing number, such as "-999".
      default_na: Take the usual words for missing values (NA, N/A, None, null, nan, ...; ``columns.MISSING_WORDS``).
      categorical: Columns each of whose values is a category, exactly as it stands.
      max_categories: The most values that a text column may have to be one-hot encoded.
      group_feature: Keep the group's columns as features, two values coded 0 and 1, more as indicators.
      min_group_rows: Fewest rows of a group where there are more than two.
      small_groups: "error" refuses groups of fewer rows; "merge" puts them together as "other".
      sep: What separates the fields of a CSV file, such as ";" or a tab.
      decimal: Its decimal mark.
      thousands: What separates groups of three digits in it, if anything does.
      encoding: Its text encoding, such as "cp1252" or "utf-16".
      gather: For a file that holds only a part of the table, each process having its own: passes this part's values,
        ranges and sums (never a row) and returns those of all parts in one order. All parts are then coded, grouped
        and scaled alike; each holds out its own test rows, and what the ``Split`` counts are its own rows. All must
        call this with the same options (but for the seed), and all fail where one file cannot be read.

    Returns:
      The ``Split``. Text columns become indicators ``column=value``; columns that never vary are left out.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: An empty file, records that do not fit the header, another encoding, repeated or missing columns, a
        label that is not two values, a group of one value or of too few rows, missing or infinite values, columns that
        cannot be features, or an unknown option; the message names the value, its place and what to pass.

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
    parts = Parts(gather)
    with parts.together(str(path)):
        layout = Layout(sep, decimal, thousands, encoding)
        words = Missing(tuple(map(str, na_values)), default_na)
        table = read_table(path, missing=words, layout=layout, categorical=categorical)
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
        na_values=na_values,
        default_na=default_na,
        categorical=categorical,
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
    na_values: Sequence[str | int | float] = (),
    default_na: bool = True,
    categorical: Sequence[str] = (),
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
      label: The column to predict.
      group: The column of the protected attribute, or several.
      seed: Seed of the random split.
      positive: The label value, or tuple of values, that counts as 1.
      group_one: The group value, or tuple of values, that is group 1; a mapping by column where there are several.
      drop: Columns to leave out.
      scaling: "standardise", "minmax" or "maxnorm".
      test_fraction: Share of rows held out.
      missing: "error" or "drop".
      na_values: Text or numbers that stand for a missing value.
      default_na: Take the usual words in text columns for missing values.
      categorical: Columns each of whose values is a category, exactly as it stands.
      max_categories: The most values of a one-hot encoded column.
      group_feature: Keep the group's columns as features.
      min_group_rows: Fewest rows of a group where there are more than two.
      small_groups: "error" or "merge".
      gather: For a part of a table, as for ``from_csv``.
      source: What to call the table in messages and in the result.

    Returns:
      The ``Split``.

    Raises:
      ValueError: As ``from_csv``.

    >>> people = pd.DataFrame({"age": range(400), "club": ["a", "b"] * 200, "won": [0, 0, 1, 1, 0] * 80})
    >>> split = from_table(people, label="won", group="club", seed=1)
    >>> split.feature_names, split.group_values
    (('age', 'club', 'bias'), ('a', 'b'))
    >>> people["side"] = ["left", "left", "right", "right"] * 100
    >>> from_table(people, label="won", group=["club", "side"], seed=1).group_values
    ('a, left', 'a, right', 'b, left', 'b, right')
    """
    for option, names in (("drop", drop), ("na_values", na_values), ("categorical", categorical)):
        if isinstance(names, str):
            raise ValueError(f"{option} must be a sequence of texts, got the string {names!r}; write ({names!r},)")
    attributes, parts = grouping.attributes_of(group), Parts(gather)
    if label in attributes or label in drop or set(attributes) & set(drop):
        raise ValueError(f"label={label!r} and group={group!r} must be two columns, neither of them in drop={drop!r}")
    if len(attributes) > 1 and not (group_one is None or isinstance(group_one, Mapping)):
        raise ValueError(f"for several group columns group_one must map columns to values, got {group_one!r}")
    ones = group_one if isinstance(group_one, Mapping) else dict.fromkeys(attributes, group_one)
    if set(ones) - set(attributes):
        raise ValueError(f"group_one={group_one!r} names columns that are not in group={group!r}")
    words = Missing(tuple(map(str, na_values)), default_na)
    with parts.together(source):
        table = named(table, (label, *attributes, *drop, *categorical), drop=drop, source=source)
        names = [str(name) for name in table]
        nominal = {
            *set(categorical) - set(drop),
            *(name for name in names if isinstance(table[name].dtype, pd.CategoricalDtype)),
        }
        most = {name: None if name in (label, *attributes) else max_categories for name in names}
        most = {name: limit for name, limit in most.items() if name not in categorical}
        table, taken = plain_columns(table, words, most=most, source=source)
        keep = complete_rows(table, missing=missing, source=source, words=taken)
        for name in (label, *attributes):
            unasked = [word for word in taken.get(name, ()) if word not in words.words]
            if unasked:
                raise ValueError(
                    f"column {name!r} of {source} holds the text {listed(unasked)}, which may be a value or say that "
                    f"it is missing; pass na_values=({listed(unasked)},) if it is missing, default_na=False if not"
                )
        tables.count_test_rows(int(keep.sum()), test_fraction)
    kinds = {name: "numbers" if is_number(table[name]) else "text" for name in names}
    kinds |= {name: f"categories of {kinds[name]}" for name in nominal}
    parts.same(kinds, what="columns", source=source)
    rows, complete = keep.nonzero()[0], table[keep]
    lacking = len(table) - len(rows)
    with _about(source + (f", without the {lacking} rows that lack a value" if lacking else "")):
        y, label_values = tables.code_two_values(
            complete[label], positive, role="label", option="positive", exact=label in categorical, parts=parts
        )
        coded = {
            name: grouping.code_values(complete[name], ones.get(name), exact=name in categorical, parts=parts)
            for name in attributes
        }
        groups = grouping.intersect(coded, parts=parts)
        groups = grouping.settle_small(groups, min_rows=min_group_rows, small=small_groups, parts=parts)
        two_valued = {name: codes for name, (codes, values) in coded.items() if len(values) == 2}
        features = complete.drop(columns=[label] if group_feature else [label, *attributes])
        for name, codes in two_valued.items():
            if name in features:
                features[name] = codes
        features = tables.encode(
            features,
            nominal=(nominal | set(attributes)) - set(two_valued),
            exact={*categorical, *attributes},
            max_categories=max_categories,
            parts=parts,
        )
    return make_split(
        features,
        y,
        groups,
        seed=seed,
        test_fraction=test_fraction,
        scaling=scaling,
        source=source,
        rows=rows,
        parts=parts,
        label_name=label,
        label_values=label_values,
        dropped_rows=lacking,
    )


@contextlib.contextmanager
def _about(source: str) -> Iterator[None]:
    """Lets errors name the table."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
