"""Reading tables and refusing bad ones: missing files, repeated or absent columns, missing or infinite values."""

import base64
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from fmu_jax.datasets.columns import MISSING_WORDS, USUAL, Missing, from_text, number_reader
from fmu_jax.datasets.delimited import STANDARD, Layout, read_columns, read_names

MISSING = ("error", "drop")
PARQUET = (".parquet", ".pq")
"""Endings of the files that are read as Parquet, in small letters or capitals."""


def listed(values: Iterable, limit: int = 40) -> str:
    """Writes values as a comma-separated list for a message, cut after `limit`."""
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    more = f", ... ({len(values)} in all)" if len(values) > limit else ""
    return ", ".join(map(repr, values[:limit])) + more


def read_header(path: Path, layout: Layout = STANDARD) -> list[str]:
    """Reads a CSV file's column names.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: As ``delimited.read_columns``.
    """
    return read_names(path, layout)


def read_table(
    path: str | Path,
    columns: Collection[str] | None = None,
    missing: Missing = USUAL,
    *,
    layout: Layout = STANDARD,
    text: Collection[str] = (),
    categorical: Collection[str] = (),
) -> pd.DataFrame:
    """Reads a CSV file (compressed or not) whose first line names its columns, or a Parquet file.

    Args:
      path: The file; Parquet if it ends in ``.parquet`` or ``.pq`` or begins as such files do, else CSV.
      columns: Read only those of these names that the file has; None reads all.
      missing: Which entries of a CSV file are missing.
      layout: How a CSV file is written.
      text: Columns to keep as text, exactly as written but for white space around it: 007 stays 007, and NA is text.
        An empty or missing entry is the empty text.
      categorical: Columns of a CSV file that stay text, missing entries missing: there 01 and 1 are two values.

    Returns:
      The table, one row a record: the columns of a CSV file as ``columns.from_text`` makes them, those of Parquet with
      the types that they have there.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is empty, has no records, repeats a column name, or is no such file; a record does not fit
        the header; or a column of `text` holds what has no one way to be written (Parquet: anything but text and whole
        numbers).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    if path.suffix.lower() in PARQUET or _begins_as_parquet(path):
        table = _read_parquet(path, columns, text)
    else:
        table = _read_csv(path, columns, missing, layout, text, categorical)
    if not len(table):
        raise ValueError(f"{path} has a header but no records")
    return table


def _begins_as_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _read_csv(path: Path, columns, missing: Missing, layout: Layout, text, categorical) -> pd.DataFrame:
    found = read_columns(path, layout, columns)
    read = number_reader(layout.decimal, layout.thousands)
    series = [
        pd.Series([field.strip() for field in fields], dtype=object, name=name)
        if name in text
        else from_text(fields, missing, read, name=name, as_written=name in categorical)
        for name, fields in zip(found.names, found.fields, strict=True)
    ]
    return pd.concat(series, axis=1) if series else pd.DataFrame()


def _read_parquet(path: Path, columns, text) -> pd.DataFrame:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise ValueError(
            f"reading the Parquet file {path} needs pyarrow: pip install pyarrow, or save it as CSV"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            names = [name.strip() for name in file.schema_arrow.names]
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise ValueError(f"{path} has more than one column named {listed(repeated)}; rename the copies")
            nominal = _numeric_categories(file) - set(text)
            read = file.read().rename_columns(names)
        if columns is not None:
            read = read.select([name for name in names if name in columns])
        for name in [name for name in text if name in read.column_names]:
            place, column = read.column_names.index(name), read.column(name)
            if arrow.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            kind = column.type
            exactly = (arrow.string(), arrow.large_string(), arrow.string_view())
            if not arrow.types.is_integer(kind) and kind not in exactly:
                raise ValueError(f"column {name!r} of {path} holds {kind}; save it as text or whole numbers")
            as_text = [("" if entry is None else str(entry)).strip() for entry in column.to_pylist()]
            read = read.set_column(place, name, arrow.array(as_text, arrow.string()))
        # Whole numbers and truth values beside missing ones stay so; pandas' own notes would make columns an index.
        kinds = [kind + bits for kind in ("Int", "UInt") for bits in ("8", "16", "32", "64")]
        exact: dict[Any, Any] = {getattr(arrow, kind.lower())(): getattr(pd, f"{kind}Dtype")() for kind in kinds}
        table = read.to_pandas(ignore_metadata=True, types_mapper=(exact | {arrow.bool_(): pd.BooleanDtype()}).get)
        return table.astype(dict.fromkeys(nominal.intersection(table), "category"))
    except arrow.ArrowException as error:
        raise ValueError(f"{path} does not read as Parquet: {error}") from error


def _numeric_categories(file) -> set[str]:
    """Names of the columns that were categories when the file was written, and that Parquet holds as plain numbers."""
    import pyarrow as arrow

    written = (file.schema_arrow.metadata or {}) | (file.metadata.metadata or {})
    if b"ARROW:schema" not in written:
        return set()
    schema = arrow.ipc.read_schema(arrow.py_buffer(base64.b64decode(written[b"ARROW:schema"])))
    return {field.name.strip() for field in schema if arrow.types.is_dictionary(field.type)}


def require_columns(present: Iterable[str], wanted: Iterable[str], *, source: str) -> None:
    """Raises ValueError naming the wanted columns that are missing and the ones that are present."""
    present = list(present)
    missing = [name for name in wanted if name not in present]
    if missing:
        read = number_reader()
        bare = any(read(name) is not None for name in present)
        why = "; has it no header line, so that the first record gave the names?" if bare else ""
        raise ValueError(f"{source} has no column {listed(missing)}; its columns are {listed(present)}{why}")


def bad_entries(table: pd.DataFrame) -> pd.DataFrame:
    """Marks the entries that are missing or infinite."""
    bad = table.isna().to_numpy(bool)
    for k, name in enumerate(table):
        if pd.api.types.is_float_dtype(table[name]):
            bad[:, k] |= np.isinf(table[name].to_numpy(np.float64, na_value=np.nan))
    return pd.DataFrame(bad, columns=table.columns)


def complete_rows(
    table: pd.DataFrame, *, missing: str, source: str, words: Mapping[str, Collection[str]] | None = None
) -> Bool[np.ndarray, " n"]:
    """Finds the rows without missing or infinite entries.

    Args:
      table: n rows, at least one.
      missing: "drop" to leave incomplete rows out, "error" to refuse them.
      source: Name of the table for messages.
      words: By column, the text that was taken for missing.

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
    words = {name: f", written {listed(texts)}" for name, texts in (words or {}).items() if texts}
    found = ", ".join(f"{name!r}: {count}{words.get(str(name), '')}" for name, count in counts.items())
    explanation = (
        ". Taken for missing are empty entries, those in na_values=(...), and, unless default_na=False, the words "
        + ", ".join(MISSING_WORDS)
    )
    if len(counts) and missing == "error":
        raise ValueError(
            f"{source} has missing, NaN or infinite values ({found} of {len(table)} rows); "
            "pass missing='drop' to leave these rows out, drop=(column, ...) to leave a column out, or fill them first"
            + explanation
        )
    keep = np.logical_not(bad.to_numpy(bool).any(axis=1))
    if not keep.any():
        raise ValueError(
            f"every row of {source} has a missing or infinite value ({found} of {len(table)} rows); leave a column out "
            f"with drop=(column, ...){explanation}"
        )
    return keep
