"""A self-contained HTML report: one file with its text, tables and figures, and nothing fetched from elsewhere.

Everything shown is escaped by the template engine; a report holds no script and no address but links to the rows that
lie beside it. It follows the reader's light or dark setting, folds long tables, turns the rows of wide ones into cards
on a phone, and prints. `write_markdown` writes the same sections for a code host. Both are templates beside this file.
"""

import base64
import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from fmu_jax.deletion import files
from scripts.harness import looks, rows


@dataclasses.dataclass(frozen=True)
class Table:
    """A table from rows.

    Args:
      data: Its rows.
      caption: A sentence above it.
      columns: Titles of the columns to show, in order; by default all are shown, and called by their names.
      digits: Significant digits of floats.
      fold: Whether to show the caption alone until the reader asks for more; by default if it has over twelve rows.
    """

    data: Sequence[rows.Row]
    caption: str = ""
    columns: Mapping[str, str] | None = None
    digits: int = 4
    fold: bool | None = None


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure from a PNG file, whose bytes go into the page; ``alt`` is for those who do not see it."""

    path: Path
    alt: str
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Terms:
    """Definitions of terms, by term."""

    definitions: Mapping[str, str]


Block = str | Table | Figure | Terms


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report: text (an empty line begins a paragraph), tables, figures and terms.

    ``links`` are the files with the rows that it is from: paths relative to the report, by the text of the link.
    """

    heading: str
    blocks: Sequence[Block]
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)


def medians(
    table: Sequence[rows.Row],
    by: Sequence[str] | Mapping[str, str],
    columns: Sequence[str] | Mapping[str, str],
) -> list[rows.Row]:
    """One line for each combination of some columns' values, with the medians of others over its rows.

    Columns are called as `looks.TITLES` says, or as a mapping does.

    >>> rows = [{"method": "newton", "equalized_odds_mean": gap} for gap in (0.1, 0.2, 0.4)]
    >>> medians(rows, ["method"], ["equalized_odds_mean"])
    [{'method': 'Newton', 'average odds gap': 0.2}]
    """
    by, columns = (names if isinstance(names, Mapping) else looks.titled(*names) for names in (by, columns))
    return [
        {title: looks.look(value).label if isinstance(value, str) else value for title, value in named}
        | {title: median(part, column) for column, title in columns.items()}
        for part in groups(table, *by).values()
        for named in [[(title, part[0].get(name)) for name, title in by.items()]]
    ]


def where(table: Sequence[rows.Row], **values: Any) -> list[rows.Row]:
    """The rows that have these values.

    >>> where([{"k": 1, "x": 2}, {"k": 2, "x": 3}], k=2)
    [{'k': 2, 'x': 3}]
    """
    return [row for row in table if all(name in row and row[name] == value for name, value in values.items())]


def groups(table: Sequence[rows.Row], *columns: str) -> dict[Any, list[rows.Row]]:
    """The rows by their values in some columns, in order: by one value, or by a tuple if there are several columns.

    >>> groups([{"k": 1, "x": 2}, {"k": 2, "x": 3}, {"k": 1, "x": 4}], "k")[1]
    [{'k': 1, 'x': 2}, {'k': 1, 'x': 4}]
    """
    found: dict[Any, list[rows.Row]] = {}
    for row in table:
        key = tuple(row.get(name) for name in columns)
        found.setdefault(key if len(columns) > 1 else key[0], []).append(row)
    return found


def median(table: Sequence[rows.Row], column: str, **chosen: Any) -> Any:
    """Median of a column over the rows that have it, or None; whole numbers stay whole.

    >>> median([{"k": 1, "x": 2}, {"k": 1, "x": 4}, {"k": 2, "x": 9}], "x", k=1)
    3
    """
    values = [row[column] for row in where(table, **chosen) if row.get(column) is not None]
    middle = float(np.median(values)) if values else None
    return int(middle) if middle is not None and all(isinstance(value, int) for value in values) else middle


def write(
    path: Path,
    title: str,
    sections: Sequence[Section],
    *,
    lead: str = "",
    config: Any = None,
    environment: Mapping[str, Any] | None = None,
    timing_s: Mapping[str, float] | None = None,
) -> Path:
    """Write a report, atomically.

    Raises:
      FileNotFoundError: If a figure's file is missing.
      ValueError: If a figure's file is no PNG, or a table's column is in none of its rows.
    """
    spent = {**timing_s, "in all": sum(timing_s.values())} if timing_s else {}
    appendix = [
        ("configuration", "Configuration", {} if config is None else rows.flatten(config)),
        ("environment", "Versions and machine", environment),
        ("timing", "Timing", {name: f"{datetime.timedelta(seconds=round(s))} h" for name, s in spent.items()}),
    ]
    return _render(path, "report.html.j2", title=title, lead=lead, sections=sections, appendix=appendix)


def write_markdown(path: Path, title: str, sections: Sequence[Section], *, lead: str = "") -> Path:
    """Write the sections as Markdown, for a page that a code host renders; figures are linked by their file's name."""
    return _render(path, "report.md.j2", title=title, lead=lead, sections=sections)


def _render(path: Path, template: str, **values: Any) -> Path:
    """Write what a template makes of the values."""
    markup = "html" in template
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined, autoescape=markup,
        keep_trailing_newline=markup, trim_blocks=not markup, lstrip_blocks=not markup,
    )  # fmt: skip
    environment.filters |= {"paragraphs": _paragraphs, "cells": _cells, "base64": _base64, "number": number}
    environment.filters["kind"] = lambda block: type(block).__name__
    files.write_text(path, environment.get_template(template).render(values))
    return path


def as_text(table: Table, *, limit: int = 16) -> str:
    """A table as lines of text, the first rows if it is long.

    >>> print(as_text(Table([{"method": "newton", "gap": 0.125}])))
    method  gap
    newton  0.125
    """
    shown = _cells(table)
    lines = [[column["name"] for column in shown["columns"]], *shown["rows"][:limit]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    more = len(shown["rows"]) - limit
    return "\n".join([*([table.caption] if table.caption else []), *text, *([f"... {more} more"] if more > 0 else [])])


def number(value: Any, digits: int = 4) -> str:
    """Format a value for a reader.

    >>> [number(v) for v in (37157, 0.123456, 1e-9, 1e6, 2.0, True, None, float("nan"), (1, 2))]
    ['37\u2009157', '0.1235', '1e-09', '1e+06', '2', 'yes', '–', 'NaN', '1, 2']
    """
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(number(item, digits) for item in value)
    value = rows.plain(value) if hasattr(value, "item") else value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u2009") if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
        return f"{value:.{digits}g}"
    return str(value)


def span(values: Sequence[float], form: str = ",.0f") -> str:
    """The smallest and the largest value, once if they look alike.

    >>> span([3.2, 1.9]), span([8759.1, 8759.4])
    ('2 to 3', '8,759')
    """
    return " to ".join(dict.fromkeys(format(end, form) for end in (min(values), max(values))))


def at_most(value: float) -> str:
    """A bound in words, with two digits.

    >>> at_most(0.0123), at_most(0.0)
    ('at most 0.012', 'less than 0.001')
    """
    return "less than 0.001" if abs(value) < 0.001 else f"at most {value:.2g}"


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def _base64(path: Path) -> str:
    content = path.read_bytes()
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"{path} is no PNG file")
    return base64.b64encode(content).decode("ascii")


def _cells(table: Table) -> dict[str, Any]:
    """What a table shows: its columns (name, and whether they hold numbers), its rows as text, and whether it folds."""
    present = list(dict.fromkeys(name for row in table.data for name in row))
    titles = {name: name.replace("_", " ") for name in present} if table.columns is None else table.columns
    missing = [name for name in titles if name not in present]
    if missing and table.data:
        raise ValueError(f"no row of the table has the column {missing[0]!r}, only {', '.join(present)}")
    columns = []
    for name, title in titles.items():
        given = [row[name] for row in table.data if row.get(name) is not None]
        numeric = bool(given) and all(hasattr(v, "__float__") and not isinstance(v, bool) for v in given)
        columns.append({"name": title, "number": numeric})
    shown = [[number(row.get(name), table.digits) for name in titles] for row in table.data]
    return {"columns": columns, "rows": shown, "fold": len(shown) > 12 if table.fold is None else table.fold}
