"""One plot style, drawn from rows: a method has the same colour and marker in every figure.

Figures use matplotlib's objects and its Agg renderer, never pyplot: there is no global figure, no window, and nothing
to close. The colours are Okabe and Ito's, which remain distinct under the common colour-vision deficiencies; markers
and dashes tell methods apart without colour.
"""

import contextlib
import io
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fmu_jax.deletion import files
from scripts.harness.looks import BLACK, LOOKS, Look, look
from scripts.harness.looks import GREY as GREY

styled = matplotlib.rc_context(fname=Path(__file__).with_name("plot.mplstyle"))
"""Decorator: ``plot.mplstyle`` holds, over matplotlib's defaults, for as long as a function runs."""


@styled
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
    """The panels of a figure, one for each title; in the end its legend is drawn, and it is saved.

    So many panels stand beside each other as ``columns`` says, by default all, and so many labels as ``legend`` says.
    ``size`` is as for `figure`.
    """
    across = columns or len(titles)
    made, axes = figure(-(-len(titles) // across), across, titles=titles, **size)
    for panel in axes.flat[len(titles) :]:
        panel.set_axis_off()
    yield list(axes.flat[: len(titles)])
    draw_legend(made, columns=legend)
    save(made, path)


@styled
def line(axes: Axes, x: Any, y: Any, style: Look, **other: Any) -> None:
    """Draw a line as a series is drawn; ``other`` says what differs, as to matplotlib."""
    drawn = {"color": style.color, "marker": style.marker, "linestyle": style.dash, "label": style.label}
    axes.plot(x, y, **drawn | other)


def median_line(axes: Axes, x: Any, y: Any, name: str) -> None:
    """Draw the median over repeats, ``(repeats, k)`` at k positions, as a line in a band from smallest to largest.

    Raises:
      ValueError: If the shapes do not fit.
    """
    values = np.atleast_2d(np.asarray(y, float))
    if values.shape[1] != len(x):
        raise ValueError(f"y must be (repeats, {len(x)}) for {len(x)} positions, got {values.shape}")
    _draw_band(axes, x, values.T.tolist(), name)


def lines(
    axes: Axes, table: Sequence[Mapping[str, Any]], *, x: str, y: str, by: str = "method", series: str = ""
) -> None:
    """Draw one median line for each value of a column, from rows; or one line in all, which is called ``series``."""
    for name, found in _group([{**row, by: series} for row in table] if series else table, by, x, y).items():
        _draw_band(axes, list(found), list(found.values()), name)
    _label(axes, x, y)


@styled
def points(
    axes: Axes, table: Sequence[Mapping[str, Any]], *, x: str, y: str, by: str = "method", order: Sequence[str] = ()
) -> None:
    """Draw the median of each category as a marker with a bar over its range, the series side by side, from rows."""
    groups = _group(table, by, x, y)
    places = {at: place for place, at in enumerate(order or dict.fromkeys(row[x] for row in table))}
    for k, (name, found) in enumerate(groups.items()):
        bottom, middle, top = _spread([found.get(at, []) for at in places])
        shift = 0.7 * ((k + 0.5) / len(groups) - 0.5)
        style = look(name)
        axes.errorbar(
            np.arange(len(places)) + shift, middle, yerr=[middle - bottom, top - middle],
            color=style.color, marker=style.marker, label=style.label, linestyle="none",
        )  # fmt: skip
    axes.set_xticks(list(places.values()), [str(at).replace("_", " ") for at in places])
    _label(axes, "", y)


def paths(axes: Axes, table: Sequence[Mapping[str, Any]], *, x: str, y: str, along: str, by: str = "method") -> None:
    """Draw, for each series, the medians of two measures as a path along a third column, from rows."""
    table = [row for row in table if all(row.get(column) is not None for column in (x, y, along))]
    up = _group(table, by, along, y)
    for name, across in _group(table, by, along, x).items():
        x_, y_ = (_spread(found.values())[1] for found in (across, up[name]))
        _draw_joined(axes, x_, y_, look(name))
    _label(axes, x, y)


def curve(axes: Axes, table: Sequence[Mapping[str, Any]], style: Look, *, x: str, y: str) -> None:
    """Draw the median of one column at each value of another, with a look of its own; no value leaves a row out."""
    found = _group([{**row, "all": ""} for row in table], "all", x, y).get("", {})
    _draw_joined(axes, np.array(list(found), float), _spread(found.values())[1], style)


def grids(
    table: Sequence[Mapping[str, Any]], stem: Path, figures: Mapping[str, Mapping[str, str]], *, x: str, across: str,
    title: str, xlabel: str, log: Sequence[str] = (), log_x: bool = False,
) -> None:  # fmt: skip
    """Draw figures, ``STEM_NAME.png``, of measures of methods against a column, from rows; retraining has no distance.

    A figure has a row of panels for each measure, and a column for each value of ``across``.
    """
    table = [row if row["method"] != "retrain" else {**row, "distance": None} for row in table]
    values = list(dict.fromkeys(row[across] for row in table))
    titles = [f"{title}, {value}" for value in values]
    for name, measures in figures.items():
        cells, below = itertools.product(measures.items(), values), [""] * len(values) * (len(measures) - 1)
        path = stem.with_name(f"{stem.name}_{name}.png")
        with panels(path, [*titles, *below], len(values), share_y=True, height=2.3) as axes:
            for panel, ((column, label), value) in zip(axes, cells, strict=True):
                lines(panel, [row for row in table if row[across] == value], x=x, y=column)
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


@styled
def draw_legend(made: Figure, *, columns: int = 4) -> None:
    """Put one legend for all panels below the figure: each label once, in the order of first appearance."""
    entries: dict[str, Any] = {}
    for axes in made.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        made.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)


def _group(table: Sequence[Mapping[str, Any]], by: str, x: str, y: str) -> dict[str, dict[Any, list[float]]]:
    """Values of ``y`` by series and position; rows without a value at both columns are left out.

    Known series come in the order of `LOOKS`, then the others by name; positions in their own.
    """
    groups: dict[str, dict[Any, list[float]]] = {}
    for row in table:
        if row.get(x) is not None and row.get(y) is not None:
            groups.setdefault(str(row[by]), {}).setdefault(row[x], []).append(float(row[y]))
    names = [name for name in LOOKS if name in groups] + sorted(name for name in groups if name not in LOOKS)
    return {name: dict(sorted(groups[name].items())) for name in names}


def _spread(columns: Iterable[Sequence[float]]) -> np.ndarray:
    """The smallest value, the median and the largest value of each column, ``(3, k)``; NaN where none is finite."""
    finite = [[value for value in column if math.isfinite(value)] or [math.nan] for column in columns]
    return np.reshape([np.percentile(values, [0, 50, 100]) for values in finite], (-1, 3)).T


def _draw_band(axes: Axes, x: Any, columns: Sequence[Sequence[float]], name: str) -> None:
    bottom, middle, top = _spread(columns)
    line(axes, x, middle, look(name))
    if max(map(len, columns)) > 1:
        axes.fill_between(x, bottom, top, color=look(name).color, alpha=0.15, linewidth=0)


def _draw_joined(axes: Axes, x: np.ndarray, y: np.ndarray, style: Look) -> None:
    """Draw a line that passes over what is not finite."""
    there = np.isfinite(x + y)
    line(axes, x[there], y[there], style)


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(axes.get_xlabel() or x.replace("_", " "))
    axes.set_ylabel(axes.get_ylabel() or y.replace("_", " "))


@styled
def save(made: Figure, path: Path) -> Path:
    """Write a figure as PNG, atomically; the same figure gives the same bytes under the same matplotlib.

    Raises:
      ValueError: If the path has another ending.
    """
    if path.suffix != ".png":
        raise ValueError(f"figures are saved as .png, got {path.name!r}")
    content = io.BytesIO()
    made.savefig(content, format="png", metadata={"Software": None})
    files.write_bytes(path, content.getvalue())
    return path
