"""What a column holds: numbers, text, or neither; and the words that stand for a missing value."""

import functools
import numbers
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

MISSING_WORDS = (
    *("NA", "N/A", "n/a", "#N/A", "#NA", "<NA>", "NaN", "nan", "-NaN", "-nan", "None", "null", "NULL"),
    *("1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
"""Words taken for a missing value unless this is switched off: those that pandas takes, as programs write them."""
TRUTH = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
_STRANGE = {
    **dict.fromkeys(("date", "datetime", "Timestamp", "Period"), "dates"),
    **dict.fromkeys(("timedelta", "Timedelta"), "durations"),
    **dict.fromkeys(("list", "tuple", "set", "ndarray"), "lists"),
    **dict.fromkeys(("complex", "complex64", "complex128"), "complex numbers"),
    "time": "times of day",
    "bytes": "bytes",
    "dict": "several values in one",
}
"""What values of a type are called in messages."""


class Unsuitable(ValueError):
    """A column holds neither numbers nor text; the message says what."""


class Missing(NamedTuple):
    """Which entries are missing, beside those without a value.

    Attributes:
      words: Text that stands for a missing value; a number among them stands for that number however it is written.
      default: Take `MISSING_WORDS` for missing too.
    """

    words: tuple[str, ...] = ()
    default: bool = True

    def covers(self, text: str) -> bool:
        """Whether a text, white space around it apart, is missing; the empty text always is."""
        return not text or text in self.words or (self.default and text in MISSING_WORDS)

    @property
    def values(self) -> list[int | float]:
        """The words that are numbers, as numbers."""
        return [value for value in map(number_reader(), self.words) if value is not None]


USUAL = Missing()
"""What is missing unless a caller says more, or less."""


@functools.cache
def number_reader(decimal: str = ".", thousands: str | None = None) -> Callable[[str], int | float | None]:
    """Makes a reader of numbers: an int or a float of a text that is wholly a number in ASCII digits, else None.

    >>> read = number_reader()
    >>> [read(text) for text in ("007", "-1e3", "1_000", "1,234", "0x10", "12%", "inf")]
    [7, -1000.0, None, None, None, None, inf]
    >>> read = number_reader(decimal=",", thousands=".")
    >>> [read(text) for text in ("1.234,5", "1.234.567", "12.34", "1,5")]
    [1234.5, 1234567, None, 1.5]
    """
    mark = re.escape(decimal)
    whole = r"\d+" if thousands is None else rf"(?:\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+|\d+)"
    pattern = re.compile(rf"[-+]?(?:{whole}(?P<part>{mark}\d*)?|(?P<only>{mark}\d+))(?P<power>[eE][-+]?\d+)?", re.ASCII)
    infinite = re.compile(r"[-+]?inf(inity)?", re.IGNORECASE)

    def read(text: str) -> int | float | None:
        found = pattern.fullmatch(text)
        if found is None:
            return float(text) if infinite.fullmatch(text) else None
        plain = text if thousands is None else text.replace(thousands, "")
        if found["part"] is None and found["only"] is None and found["power"] is None and len(plain) < 4000:
            return int(plain)
        return float(plain.replace(decimal, "."))

    return read


def from_text(
    fields: Sequence[str],
    missing: Missing,
    read: Callable[[str], int | float | None],
    *,
    name: str = "",
    as_written: bool = False,
) -> pd.Series:
    """A column of a text file: numbers if every entry is one (or missing), else true and false, else text.

    Args:
      fields: n entries; white space around them does not count.
      missing: Which of them are missing, beside numbers or truth values.
      read: Function made by ``number_reader``.
      name: Name of the column.
      as_written: Text, whatever it looks like.

    Returns:
      n entries as ``as_series`` makes them. Text keeps the words that stand for a missing value: ``plain`` takes them.
    """
    words = {field: field.strip() for field in set(fields)}
    present = {word for word in words.values() if not missing.covers(word)}
    values: dict[str, Any] = {word: read(word) for word in present}
    if None in values.values():
        values = {word: TRUTH.get(word) for word in present}
    if as_written or None in values.values():
        values = {word: word or None for word in words.values()}
    lookup = {field: values.get(word) for field, word in words.items()}
    return as_series([lookup[field] for field in fields], name=name)


def as_series(values: list[Any], *, name: str = "") -> pd.Series:
    """A column of Python values of one kind, None where missing.

    Returns:
      Whole numbers exactly: int64 or uint64, nullable where one is missing, Python's where they are too large; other
      numbers (decimals too) float64; truth values; or text, as objects.

    Raises:
      Unsuitable: The values are of no such kind, or of several.
    """
    kinds = set(map(type, values)) - {type(None)}

    def only(*allowed: type) -> bool:
        return all(issubclass(kind, allowed) for kind in kinds)

    if not kinds:
        return pd.Series(np.full(len(values), np.nan), name=name)
    if only(str):
        return pd.Series(values, dtype=object, name=name)
    if only(bool, np.bool_):
        return pd.Series(values, dtype="boolean" if None in values else bool, name=name)
    if only(numbers.Integral):
        present = [int(value) for value in values if value is not None]
        low, high = min(present), max(present)
        for kind, nullable in ((np.int64, "Int64"), (np.uint64, "UInt64")):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return pd.Series(values, dtype=kind if len(present) == len(values) else nullable, name=name)
        return pd.Series([None if value is None else int(value) for value in values], dtype=object, name=name)
    if only(numbers.Real, Decimal, np.bool_):
        return pd.Series([np.nan if value is None else float(value) for value in values], name=name)
    if only(numbers.Real, Decimal, np.bool_, str):
        return pd.Series([None if value is None else str(value) for value in values], dtype=object, name=name)
    odd = next(value for value in values if not isinstance(value, numbers.Real | Decimal | np.bool_ | str | None))
    kind = type(odd).__name__
    raise Unsuitable(f"{_STRANGE.get(kind, 'values')} of type {kind}, such as {short(odd)}")


def plain(column: pd.Series, missing: Missing) -> pd.Series:
    """A column of any type as numbers, truth values or text, as ``as_series`` makes them; exact.

    Args:
      column: n entries: NumPy's, nullable, pyarrow's, categorical, sparse or objects.
      missing: Which text is missing, and which numbers.

    Returns:
      n entries. Text loses white space around it; what is text stays text, though it be digits.

    Raises:
      Unsuitable: It holds dates, times, durations, complex numbers, bytes or lists.
    """
    kind, name = column.dtype, str(column.name)
    if isinstance(kind, pd.SparseDtype):
        column = pd.Series(np.asarray(column), name=name)
        kind = column.dtype
    simple = pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_complex_dtype(kind)
    if simple and not isinstance(kind, pd.ArrowDtype):
        out = pd.Series(column.array, name=name)
    else:
        absent = column.isna().to_numpy(bool)
        values = [None if lacks else value for value, lacks in zip(column.tolist(), absent, strict=True)]
        values = [value.strip() if isinstance(value, str) else value for value in values]
        out = as_series([None if isinstance(v, str) and missing.covers(v) else v for v in values], name=name)
    if missing.values and is_number(out) and not pd.api.types.is_bool_dtype(out):
        # Compared by Python, as pandas would round whole numbers beside fractions.
        absent = [value for value in out.dropna().unique().tolist() if value in missing.values]
        # Nullable first: NumPy's whole numbers would become floats.
        out = (out.convert_dtypes() if pd.api.types.is_integer_dtype(out) else out).mask(out.isin(absent))
    return out


def is_number(column: pd.Series) -> bool:
    """Whether a plain column holds numbers or truth values, and not text."""
    return pd.api.types.is_numeric_dtype(column) or pd.api.types.infer_dtype(column, skipna=True) == "integer"


def short(value: Any, limit: int = 40) -> str:
    """A value for a message, cut after `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
