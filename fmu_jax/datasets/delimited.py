"""CSV files as text: one strict reader (Python's ``csv``), which refuses what does not fit the header."""

import bz2
import codecs
import contextlib
import csv
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Collection, Generator, Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

_OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
"""What opens a compressed file, by its first bytes."""
_DAMAGED = (EOFError, zlib.error, zipfile.BadZipFile, lzma.LZMAError)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Layout(NamedTuple):
    r"""How a CSV file is written.

    Attributes:
      sep: What separates fields, one character; a tab may be written ``\t``.
      decimal: The decimal mark.
      thousands: What separates groups of three digits, or None.
      encoding: A text encoding that Python knows; a byte order mark is read as such.
    """

    sep: str = ","
    decimal: str = "."
    thousands: str | None = None
    encoding: str = "utf-8"

    def checked(self) -> "Layout":
        """The layout with a tab in place of its name.

        Raises:
          ValueError: A mark is no single character, or serves two ends; or there is no such encoding.
        """
        layout = self._replace(sep="\t" if self.sep in ("\\t", "tab") else self.sep)
        for name, mark in (("sep", layout.sep), ("decimal", layout.decimal), ("thousands", layout.thousands)):
            if mark is None and name == "thousands":
                continue
            if not isinstance(mark, str) or len(mark) != 1 or mark.isalnum() or mark in '"\r\n+-\0':
                raise ValueError(
                    f"{name}={mark!r} must be one character, and no letter, digit, sign, quote or line end"
                )
        if layout.decimal == layout.thousands:
            raise ValueError(f"decimal={layout.decimal!r} and thousands={layout.thousands!r} must differ")
        try:
            io.TextIOWrapper(io.BytesIO(), layout.encoding).close()
        except LookupError as error:
            raise ValueError(f"encoding={layout.encoding!r}: {error}; common ones are utf-8, utf-16, cp1252") from None
        return layout


STANDARD = Layout()
"""Commas, a decimal point, UTF-8."""


class Columns(NamedTuple):
    """A CSV file's text: names, and for each column its fields from the first record to the last."""

    names: list[str]
    fields: list[tuple[str, ...]]


def read_names(path: Path, layout: Layout) -> list[str]:
    """The names in a CSV file's first line, without white space around them.

    Raises:
      FileNotFoundError, ValueError: As ``read_columns``.
    """
    layout = layout.checked()
    with contextlib.closing(_records(path, layout)) as records:
        return _header(path, layout, records)[0]


def read_columns(path: Path, layout: Layout, wanted: Collection[str] | None = None) -> Columns:
    """Reads a CSV file as text.

    Args:
      path: The file, plain or compressed with gzip, bzip2, xz, or as the only member of a zip archive.
      layout: How it is written.
      wanted: Read only those of these names that the file has; None reads all.

    Returns:
      The columns; every record has as many fields as the header has names. Lines without any character but white space
      do not count. Where header and records all end in a separator, the column that would follow it is left out.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is empty, damaged, of another encoding or no CSV; a name occurs twice; or a record has more
        or fewer fields than the header. The message says where.
    """
    layout = layout.checked()
    with contextlib.closing(_records(path, layout)) as records:
        names, first = _header(path, layout, records)
        width, ended = len(names), not names[-1]
        picked = [k for k, name in enumerate(names[: width - ended]) if wanted is None or name in wanted]
        rows = []
        for line, last, row in records:
            if len(row) != width:
                raise ValueError(_miscounted(path, layout, line, row, names, first))
            if ended and row[-1].strip():
                raise ValueError(
                    f"{path}, line {line}: the header (line {first}) has no name for the last field, "
                    f"{_cut(row[-1])}; name that column, or put a value that holds {layout.sep!r} between double quotes"
                )
            for place, field in enumerate(row if last > line else ()):
                if _swallows(field, place, width, layout.sep):
                    raise ValueError(
                        f"{path}, line {line}: the value {_cut(field)} holds line breaks as if it were the end of a "
                        "record and the beginning of another; close its double quote, or take the line breaks out"
                    )
            rows.append(row if len(picked) == width else [row[k] for k in picked])
    fields = list(zip(*rows, strict=True)) if rows else [()] * len(picked)
    return Columns([names[k] for k in picked], fields)


def _header(path: Path, layout: Layout, records: Iterator[tuple[int, int, list[str]]]) -> tuple[list[str], int]:
    """Names and the number of their line."""
    line, _, row = next(records, (0, 0, []))
    if not row:
        raise ValueError(f"{path} is empty; expected a header line with column names, then one row a record")
    names = [name.strip() for name in row]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        listed = ", ".join(repr(name) if name else "'' (no name)" for name in repeated)
        raise ValueError(f"{path}, line {line}: more than one column named {listed}; rename or delete the copies")
    others = [mark for mark in ";\t|," if mark in names[0] and mark != layout.sep]
    if len(names) == 1 and others:
        raise ValueError(
            f"{path}, line {line}: {layout.sep!r} separates nothing, so that the only column is {_cut(names[0])}; "
            f"pass sep={others[0]!r}"
        )
    return names, line


def _miscounted(path: Path, layout: Layout, line: int, row: list[str], names: list[str], first: int) -> str:
    if len(row) > len(names) and not any(row[len(names) :]):
        why = "the header does not end in a separator as this line does; let both, or none"
    elif len(row) > len(names):
        why = (
            f"put a value that holds {layout.sep!r} between double quotes, and write row names not at all "
            "(R: row.names=FALSE) or with a name for their column"
        )
    else:
        why = "complete the record, put a value with a line break between double quotes, delete a comment"
    given = _cut(layout.sep.join(row))
    return f"{path}, line {line}: {len(row)} fields where the header (line {first}) has {len(names)}, in {given}; {why}"


def _swallows(field: str, place: int, width: int, sep: str) -> bool:
    """Whether the lines of a value have as many separators as if a quote had been left open across records.

    Args:
      field: The value.
      place: Which of the record's fields it is, from 0.
      width: The number of fields.
      sep: The separator.
    """
    first, *others = (piece.count(sep) for piece in re.split(r"[\r\n]+", field))
    return bool(others) and [first, *others] == [width - 1 - place, *[width - 1] * (len(others) - 1), place]


def _cut(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")


def _records(path: Path, layout: Layout) -> Generator[tuple[int, int, list[str]], None, None]:
    """Each record's first and last line and its fields, without blank lines; errors of reading say where."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    line = 0
    try:
        with _opened(path) as file, io.TextIOWrapper(file, layout.encoding, newline="") as text:
            reader = csv.reader(
                _lines(text, path), delimiter=layout.sep, strict=True, skipinitialspace=layout.sep != " "
            )
            for row in reader:
                if row and (len(row) > 1 or row[0].strip()):
                    yield line + 1, reader.line_num, row
                line = reader.line_num
    except csv.Error as error:
        raise ValueError(
            f"{path} does not parse as CSV in the record that begins in line {line + 1}: {error}; a field that begins "
            'with a double quote must end with one, and a quote inside it is written twice (""); '
            f"fields are separated by {layout.sep!r} (`sep`)"
        ) from None
    except UnicodeError as error:
        raise ValueError(_undecodable(path, layout.encoding, error)) from None
    except _DAMAGED as error:
        raise ValueError(f"{path} is damaged or cut short ({error}); copy it again") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise ValueError(f"{path} is damaged or cut short ({error}); copy it again") from error


def _lines(text: Iterable[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(text, start=1):
        if "\0" in line:
            raise ValueError(
                f"{path}, line {number}: a NUL character, which no text holds; is it in another encoding (pass "
                "encoding='utf-16'), or no CSV file?"
            )
        if number == 1 and line.startswith(codecs.BOM_UTF8.decode("latin-1")):
            raise ValueError(f"{path} begins with the mark of UTF-8; leave `encoding` out")
        yield line.removeprefix("\ufeff") if number == 1 else line


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A file's bytes, unpacked."""
    with path.open("rb") as file:
        start = file.read(6)
        if not start.startswith(b"PK\x03\x04"):
            file.seek(0)
            opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
            with contextlib.nullcontext(file) if opener is None else opener(file, "rb") as unpacked:
                yield unpacked
            return
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if not name.endswith("/")]
        if "[Content_Types].xml" in members:
            raise ValueError(f"{path} is a workbook of a spreadsheet program; save its sheet as CSV")
        if len(members) != 1:
            raise ValueError(f"{path} holds {len(members)} files; unpack the table, or pack it alone")
        with archive.open(members[0]) as unpacked:
            yield unpacked


def _undecodable(path: Path, encoding: str, error: UnicodeError) -> str:
    """Says in which line the first byte stands that is not of the encoding, as far as lines can be told."""
    where, what, other = str(path), str(error), "latin-1" if encoding == "cp1252" else "cp1252"
    with _opened(path) as file:
        if file.read(2) in _UTF16:
            other = "utf-16"
    if other != "utf-16" and "\n".encode(encoding) == b"\n":
        with _opened(path) as file:
            for number, line in enumerate(file, start=1):
                try:
                    line.decode(encoding)
                except UnicodeDecodeError as found:
                    where, what = f"{path}, line {number}", f"byte {line[found.start]:#04x}: {found.reason}"
                    break
    return (
        f"{where}: no text in {encoding.upper()} ({what}); save the file in UTF-8, or pass the encoding that it has, "
        f"such as encoding={other!r}"
    )
