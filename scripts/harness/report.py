"""A self-contained HTML report: one file with its text, tables and figures, and nothing fetched from elsewhere.

Everything shown is escaped by the template engine; a report holds no script and no address. It follows the reader's
light or dark setting, scrolls wide tables inside the page, and prints.
"""

import base64
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from fmu_jax.deletion import files
from scripts.harness import rows

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table from rows.

    Args:
        data: A sequence of mappings from column names to values, or a pandas DataFrame (its columns, not its index).
        caption: A sentence above it.
        columns: Which columns, in which order; by default all. A mapping also renames them.
        digits: Significant digits of floats.
    """

    data: Any
    caption: str = ""
    columns: Sequence[str] | Mapping[str, str] | None = None
    digits: int = 4


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure from a PNG file.

    Args:
        path: The file; its bytes go into the page.
        alt: What it shows, in words, for those who do not see it.
        caption: A sentence or two below it.
    """

    path: Path
    alt: str
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report.

    Args:
        heading: Its heading, also in the table of contents.
        blocks: What it holds, in order: text (an empty line begins a paragraph), `Table` and `Figure`.
    """

    heading: str
    blocks: Sequence[str | Table | Figure]


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

    Args:
        path: The HTML file.
        title: Of the page.
        sections: The page's parts, in order.
        lead: What the page says, under the title; an empty line begins a paragraph.
        config: The run's configuration, a dataclass or a mapping, shown after the sections.
        environment: Versions and machine, as `rows.environment` gives them.
        timing_s: Wall time in seconds by the name of a step.

    Returns:
        The path.

    Raises:
        FileNotFoundError: If a figure's file is missing.
        ValueError: If a figure's file is no PNG, or a table's column is in none of its rows.
    """
    appendix: list[tuple[str, str, list[tuple[str, str]]]] = []
    if config is not None:
        pairs = rows.flatten(config).items()
        appendix.append(("configuration", "Configuration", [(name, number(value)) for name, value in pairs]))
    if environment:
        pairs = [(name, number(value)) for name, value in environment.items()]
        appendix.append(("environment", "Versions and machine", pairs))
    if timing_s:
        pairs = [(name, seconds(value)) for name, value in {**timing_s, "in all": sum(timing_s.values())}.items()]
        appendix.append(("timing", "Timing", pairs))
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    ).get_template("report.html.j2")
    page = template.render(
        title=title,
        lead=_paragraphs(lead),
        sections=[
            {"heading": s.heading, "blocks": [b for block in s.blocks for b in _blocks(block)]} for s in sections
        ],
        appendix=appendix,
        footer="One self-contained page; the rows and figures lie beside it.",
    )
    files.write_text(path, page)
    return path


def number(value: Any, digits: int = 4) -> str:
    """Format a value for a reader.

    Args:
        value: Any plain value.
        digits: Significant digits of floats.

    Returns:
        Text: integers with thin spaces between thousands from 10 000 on, floats with so many significant digits and an
        exponent only where it shortens them, yes and no for bools, a dash for None.

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


def seconds(value: float) -> str:
    """Format a duration.

    >>> [seconds(v) for v in (0.00012, 0.25, 61.0, 7322.0)]
    ['0.12 ms', '250 ms', '1 min 1 s', '2 h 2 min']
    """
    if value < 1:
        return f"{1e3 * value:.3g} ms"
    if value < 60:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def _blocks(block: str | Table | Figure) -> list[dict[str, Any]]:
    if isinstance(block, str):
        return [{"kind": "paragraph", "text": text} for text in _paragraphs(block)]
    if isinstance(block, Table):
        return [_table(block)]
    content = block.path.read_bytes()
    if not content.startswith(_PNG):
        raise ValueError(f"{block.path} is no PNG file")
    data = base64.b64encode(content).decode("ascii")
    return [{"kind": "figure", "data": data, "alt": block.alt, "caption": block.caption}]


def _table(table: Table) -> dict[str, Any]:
    data = table.data.to_dict("records") if hasattr(table.data, "to_dict") else list(table.data)
    present = list(dict.fromkeys(str(name) for row in data for name in row))
    chosen = present if table.columns is None else list(table.columns)
    missing = [name for name in chosen if name not in present]
    if missing and data:
        raise ValueError(f"no row of the table has the column {missing[0]!r}, only {', '.join(present)}")
    titles = table.columns if isinstance(table.columns, Mapping) else {}
    cells = [[row.get(name) for name in chosen] for row in data]
    columns = [
        {"name": titles.get(name, name.replace("_", " ")), "number": _numeric([row[k] for row in cells])}
        for k, name in enumerate(chosen)
    ]
    shown = [[number(cell, table.digits) for cell in row] for row in cells]
    return {"kind": "table", "caption": table.caption, "columns": columns, "rows": shown}


def _numeric(values: list[Any]) -> bool:
    given = [value for value in values if value is not None]
    return bool(given) and all(hasattr(v, "__float__") and not isinstance(v, bool) for v in given)
