"""Reading tables and refusing bad ones: missing files, repeated or absent columns, missing or infinite values."""

import lzma
import zipfile
import zlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool

MISSING = ("error", "drop")
PARQUET = (".parquet", ".pq")
"""Endings of the files that are read as Parquet."""
_CUT_SHORT = (EOFError, zlib.error, zipfile.BadZipFile, lzma.LZMAError)


def listed(values: Iterable, limit: int = 40) -> str:
    """Writes values as a comma-separated list for a message, cut after `limit`."""
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    more = f", ... ({len(values)} in all)" if len(values) > limit else ""
    return ", ".join(map(repr, values[:limit])) + more


def read_header(path: Path) -> list[str]:
    """Reads a CSV file's column names.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is empty, or a column name occurs twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        header = pd.read_csv(path, header=None, nrows=1, dtype=str, skipinitialspace=True, encoding="utf-8-sig")
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path} is empty; expected a header line with column names, then one row a record") from None
    except _CUT_SHORT as error:
        raise ValueError(f"{path} is damaged or cut short ({error}); copy it again") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no CSV file in UTF-8 ({error.reason} at byte {error.start}); save it as one"
        ) from None
    names = header.iloc[0].fillna("").tolist()
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        raise ValueError(f"{path} has more than one column named {listed(repeated)}; rename or delete the copies")
    return names


def read_table(
    path: str | Path,
    columns: Collection[str] | None = None,
    na_values: Sequence[str] = (),
    *,
    text: Collection[str] = (),
) -> pd.DataFrame:
    """Reads a CSV file (compressed or not) whose first line names its columns, or a Parquet file, told by its ending.

    Args:
      path: the file; ``.parquet`` or ``.pq`` is Parquet, anything else CSV.
      columns: read only those of these names that the file has; None reads all.
      na_values: text that stands for a missing value in a CSV file, beside pandas' usual ones (empty, NA, NaN, ...).
      text: columns to keep as text, exactly as written but for white space around it: 007 stays 007, and NA is text.
        An empty or missing entry is the empty text.

    Returns:
      The table, one row a record.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is empty, has no records, repeats a column name, or is no such file; or a column of `text`
        holds what has no one way to be written (Parquet: anything but text and whole numbers).
    """
    path = Path(path)
    if path.suffix in PARQUET:
        table = _read_parquet(path, columns, text)
    else:
        table = _read_csv(path, columns, na_values, text)
    if not len(table):
        raise ValueError(f"{path} has a header but no records")
    return table


def _read_csv(path: Path, columns, na_values, text) -> pd.DataFrame:
    names = read_header(path)
    wanted = None if columns is None else [name for name in names if name in columns]
    kept = [name for name in names if name in text and (wanted is None or name in wanted)]
    layout = {"index_col": False, "skipinitialspace": True, "encoding": "utf-8-sig"}
    try:
        table = pd.read_csv(path, usecols=wanted, na_values=list(na_values), low_memory=False, **layout)
        if kept:
            # Once more, without looking for numbers or missing values.
            as_text = pd.read_csv(path, usecols=kept, dtype=str, na_filter=False, **layout)
            table = table.assign(**{name: [entry.strip() for entry in as_text[name]] for name in kept})
    except pd.errors.ParserError as error:
        raise ValueError(f"{path} does not parse as CSV: {error}") from error
    except _CUT_SHORT as error:
        raise ValueError(f"{path} is damaged or cut short ({error}); copy it again") from error
    return table


def _read_parquet(path: Path, columns, text) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise ValueError(
            f"reading the Parquet file {path} needs pyarrow: pip install pyarrow, or save it as CSV"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise ValueError(f"{path} has more than one column named {listed(repeated)}; rename the copies")
            read = file.read(None if columns is None else [name for name in names if name in columns])
    except arrow.ArrowException as error:
        raise ValueError(f"{path} does not read as Parquet: {error}") from error
    for name in [name for name in text if name in read.column_names]:
        place, column = read.column_names.index(name), read.column(name)
        if arrow.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        kind = column.type
        if not (arrow.types.is_integer(kind) or arrow.types.is_string(kind) or arrow.types.is_large_string(kind)):
            raise ValueError(f"column {name!r} of {path} holds {kind}; save it as text or whole numbers")
        as_text = [("" if entry is None else str(entry)).strip() for entry in column.to_pylist()]
        read = read.set_column(place, name, arrow.array(as_text, arrow.string()))
    # What pandas noted in the file would turn columns into an index.
    return read.to_pandas(ignore_metadata=True)


def require_columns(present: Iterable[str], wanted: Iterable[str], *, source: str) -> None:
    """Raises ValueError naming the wanted columns that are missing and the ones that are present."""
    present = list(present)
    missing = [name for name in wanted if name not in present]
    if missing:
        raise ValueError(f"{source} has no column {listed(missing)}; its columns are {listed(present)}")


def bad_entries(table: pd.DataFrame) -> pd.DataFrame:
    """Marks the entries that are missing or infinite."""
    bad = table.isna()
    for name in table.select_dtypes("number"):
        bad[name] |= np.isinf(table[name])
    return bad


def complete_rows(table: pd.DataFrame, *, missing: str, source: str) -> Bool[np.ndarray, " n"]:
    """Finds the rows without missing or infinite entries.

    Args:
      table: n rows.
      missing: "drop" to leave incomplete rows out, "error" to refuse them.
      source: what to call the table in messages.

    Returns:
      Which rows to keep, ``(n,)``.

    Raises:
      ValueError: `missing` is unknown; or an entry is bad and `missing` is "error"; or no row is complete.
    """
    if missing not in MISSING:
        raise ValueError(f"unknown missing={missing!r}; available: {listed(MISSING)}")
    bad = bad_entries(table)
    counts = bad.sum()
    counts = counts[counts > 0].sort_values(ascending=False)
    found = ", ".join(f"{name!r}: {count}" for name, count in counts.items())
    if len(counts) and missing == "error":
        raise ValueError(
            f"{source} has missing, NaN or infinite values ({found} of {len(table)} rows); "
            "pass missing='drop' to leave these rows out, drop=(column, ...) to leave a column out, or fill them first"
        )
    keep = np.logical_not(bad.to_numpy(bool).any(axis=1))
    if not keep.any():
        raise ValueError(f"every row of {source} has a missing or infinite value ({found}); leave out a column")
    return keep
