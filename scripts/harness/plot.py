"""One plot style, drawn from rows: a method has the same colour and marker in every figure.

Figures use matplotlib's objects and its Agg renderer, never pyplot: there is no global figure, no window, and nothing
to close. The colours are Okabe and Ito's, which remain distinct under the common colour-vision deficiencies; markers
and dashes tell methods apart without colour.
"""

import contextlib
import io
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fmu_jax.deletion import files
from scripts.harness.looks import BLACK, LOOKS, Look, look
from scripts.harness.looks import GREY as GREY

STYLE: dict[str, Any] = {
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
}
"""Differences from matplotlib's defaults, applied while a figure is made and saved, never globally."""


def _style() -> AbstractContextManager[None]:
    return matplotlib.rc_context(cast("Any", STYLE))


def figure(
    rows: int = 1,
    columns: int = 1,
    *,
    titles: Sequence[str] = (),
    width: float = 3.4,
    height: float = 2.6,
    share_y: bool = False,
) -> tuple[Figure, np.ndarray]:
    """Make a figure with a grid of panels."""
    with _style():
        made = Figure(figsize=(width * columns, height * rows), layout="constrained")
        FigureCanvasAgg(made)
        axes = made.subplots(rows, columns, squeeze=False, sharey="row" if share_y else False)
        for panel, title in zip(axes.flat, titles, strict=False):
            panel.set_title(title)
    return made, axes


@contextlib.contextmanager
def panels(
    path: Path, titles: Sequence[str], columns: int | None = None, *, legend: int = 4, **size: Any
) -> Iterator[list[Axes]]:
    """The panels of a figure, one for each title, by default in a row; in the end its legend is drawn and it is saved.

    Args:
      path: Path of the figure, a PNG file.
      titles: Titles of the panels.
      columns: Panels beside each other.
      legend: Labels beside each other in the legend below.
      size: As for `figure`.
    """
    across = columns or len(titles)
    made, axes = figure(-(-len(titles) // across), across, titles=titles, **size)
    for panel in axes.flat[len(titles) :]:
        panel.set_axis_off()
    yield list(axes.flat[: len(titles)])
    draw_legend(made, columns=legend)
    save(made, path)


def line(axes: Axes, x: Any, y: Any, style: Look, **other: Any) -> None:
    """Draw a line as a series is drawn; ``other`` says what differs, as to matplotlib."""
    drawn = {"color": style.color, "marker": style.marker, "linestyle": style.dash, "label": style.label}
    with _style():
        axes.plot(x, y, **drawn | other)


def median_line(axes: Axes, x: Any, y: Any, name: str) -> None:
    """Draw the median over repeats, ``(repeats, k)`` at k positions, as a line in a band from smallest to largest.

    Raises:
      ValueError: If the shapes do not fit.
    """
    values = np.atleast_2d(np.asarray(y, float))
    if values.shape[1] != len(x):
        raise ValueError(f"y must be (repeats, {len(x)}) for {len(x)} positions, got {values.shape}")
    values = np.where(np.isfinite(values), values, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # A column without a value is a gap, and no warning.
        bottom, middle, top = np.nanpercentile(values, [0, 50, 100], axis=0)
    line(axes, x, middle, look(name))
    if len(values) > 1:
        axes.fill_between(x, bottom, top, color=look(name).color, alpha=0.15, linewidth=0)


def lines(
    axes: Axes, table: Sequence[Mapping[str, Any]], *, x: str, y: str, by: str = "method", series: str = ""
) -> None:
    """Draw one median line for each value of a column, from rows; or one line in all, which is called ``series``."""
    groups = _group([{**row, by: series} for row in table] if series else table, by, x, y)
    for name in _ordered(groups):
        positions = sorted(groups[name])
        repeats = max(len(values) for values in groups[name].values())
        padded = [groups[name][at] + [math.nan] * (repeats - len(groups[name][at])) for at in positions]
        median_line(axes, positions, np.transpose(padded), name)
    _label(axes, x, y)


def points(
    axes: Axes, table: Sequence[Mapping[str, Any]], *, x: str, y: str, by: str = "method", order: Sequence[str] = ()
) -> None:
    """Draw the median of each category as a marker with a bar over its range, the series side by side, from rows."""
    groups = _group(table, by, x, y)
    places = {at: place for place, at in enumerate(order or dict.fromkeys(row[x] for row in table))}
    names = _ordered(groups)
    for k, name in enumerate(names):
        found = [(places[at], _finite(values)) for at, values in groups[name].items() if at in places]
        found = sorted((place, values) for place, values in found if values)
        if not found:
            continue
        shift = 0.7 * ((k + 0.5) / len(names) - 0.5)
        middle = np.asarray([np.median(values) for _, values in found])
        reach = [middle - [min(values) for _, values in found], [max(values) for _, values in found] - middle]
        style = look(name)
        at = [place + shift for place, _ in found]
        with _style():
            axes.errorbar(
                at, middle, yerr=reach, color=style.color, marker=style.marker, label=style.label, linestyle="none"
            )
    axes.set_xticks(list(places.values()), [str(at).replace("_", " ") for at in places])
    _label(axes, "", y)


def paths(axes: Axes, table: Sequence[Mapping[str, Any]], *, x: str, y: str, along: str, by: str = "method") -> None:
    """Draw, for each series, the medians of two measures as a path along a third column, from rows."""
    table = [row for row in table if all(row.get(column) is not None for column in (x, y, along))]
    across, up = _group(table, by, along, x), _group(table, by, along, y)
    for name in _ordered(across):
        steps = sorted(at for at in across[name] if _finite(across[name][at]) and _finite(up[name][at]))
        x_, y_ = ([float(np.median(_finite(values[name][at]))) for at in steps] for values in (across, up))
        line(axes, x_, y_, look(name))
    _label(axes, x, y)


def curve(axes: Axes, table: Sequence[Mapping[str, Any]], style: Look, *, x: str, y: str) -> None:
    """Draw the median of one column at each value of another, with a look of its own; no value leaves a row out."""
    found = _group([{"all": "", **row} for row in table], "all", x, y).get("", {})
    middle = [(at, float(np.median(_finite(found[at])))) for at in sorted(found) if _finite(found[at])]
    line(axes, [at for at, _ in middle], [value for _, value in middle], style)


def grid(
    table: Sequence[Mapping[str, Any]], path: Path, *, x: str, measures: Mapping[str, str], across: str, title: str,
    xlabel: str, by: str = "method", log: Sequence[str] = (), log_x: bool = False,
) -> None:  # fmt: skip
    """Draw measures against a column, from rows: a row of panels a measure, a column a value of another."""
    values = list(dict.fromkeys(row[across] for row in table))
    cells = [(measure, value) for measure in measures.items() for value in values]
    titles = [f"{title}, {value}" if place < len(values) else "" for place, (_, value) in enumerate(cells)]
    with panels(path, titles, len(values), share_y=True, height=2.3) as axes:
        for panel, ((column, label), value) in zip(axes, cells, strict=True):
            lines(panel, [row for row in table if row[across] == value], x=x, y=column, by=by)
            panel.set(xlabel=xlabel, ylabel=label if value == values[0] else "")
            panel.set_xscale("log" if log_x else "linear")
            if column in log and panel.lines:
                panel.set_yscale("log")


def attacks(table: Sequence[Mapping[str, Any]], path: Path, shown: Mapping[str, tuple[str, str, float | None]]) -> None:
    """Draw measures of each method by data set, a panel each: title, label, and the value at chance if there is one."""
    table = [{**row, "dataset": look(row["dataset"]).label} for row in table]
    with panels(path, [title for title, _, _ in shown.values()], legend=5, height=2.8) as axes:
        for panel, (column, (_, label, chance)) in zip(axes, shown.items(), strict=True):
            if chance is not None:
                panel.axhline(chance, color=BLACK, linewidth=0.8, linestyle=":", label="chance")
            panel.set_ylabel(label)
            points(panel, table, x="dataset", y=column)


def picture(axes: Axes, pixels: Any) -> None:
    """Show an image, in place of axes."""
    pixels = np.clip(np.asarray(pixels, float), 0, 1)
    with _style():
        axes.imshow(pixels if pixels.shape[-1] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()


def draw_legend(made: Figure, *, columns: int = 4) -> None:
    """Put one legend for all panels below the figure: each label once, in the order of first appearance."""
    entries: dict[str, Any] = {}
    for axes in made.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        with _style():
            made.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)


def _group(table: Sequence[Mapping[str, Any]], by: str, x: str, y: str) -> dict[str, dict[Any, list[float]]]:
    """Values of ``y`` by series and position; rows without a value at both columns are left out."""
    groups: dict[str, dict[Any, list[float]]] = {}
    for row in table:
        if row.get(x) is not None and row.get(y) is not None:
            groups.setdefault(str(row[by]), {}).setdefault(row[x], []).append(float(row[y]))
    return groups


def _ordered(names: Iterable[str]) -> list[str]:
    """Known series in the order of `LOOKS`, then the others by name."""
    order = {name: place for place, name in enumerate(LOOKS)}
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(axes.get_xlabel() or x.replace("_", " "))
    axes.set_ylabel(axes.get_ylabel() or y.replace("_", " "))


def save(made: Figure, path: Path) -> Path:
    """Write a figure as PNG, atomically; the same figure gives the same bytes under the same matplotlib.

    Raises:
      ValueError: If the path has another ending.
    """
    if path.suffix != ".png":
        raise ValueError(f"figures are saved as .png, got {path.name!r}")
    content = io.BytesIO()
    with _style():
        made.savefig(content, format="png", metadata={"Software": None}, facecolor="white")
    files.write_bytes(path, content.getvalue())
    return path
