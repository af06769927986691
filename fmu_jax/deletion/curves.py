"""Curves over requests as SVG: computes where lines, ticks and labels go; the template draws them without a library."""

import math
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 340.0, 200.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 10.0, 10.0, 24.0
_TICKS = 5

Number = float | int
Value = Number | None


class Line(NamedTuple):
    """A series.

    Attributes:
      label: Label in the legend.
      look: Class of its colour in the page: ``ink``, ``soft``, or ``g0``, ``g1``, ... for a group.
      values: By request; None where there is nothing to draw.
      dash: An SVG dash pattern, empty for a solid line.
      steps: Whether the value holds until the next request, as a count does.
    """

    label: str
    look: str
    values: Sequence[Value]
    dash: str = ""
    steps: bool = False


class Tick(NamedTuple):
    """A tick: where it is, and what it says."""

    at: float
    text: str


class Drawn(NamedTuple):
    """A chart, ready for the template: its title, its lines with their paths, and its ticks."""

    title: str
    lines: list[tuple[Line, str, list[tuple[float, float]]]]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    bottom: float = HEIGHT - _BOTTOM
    width: float = WIDTH
    height: float = HEIGHT


def draw(title: str, lines: Sequence[Line], *, zero: bool = False, whole: bool = False) -> Drawn:
    """Lays a chart out.

    Args:
      title: Title of the chart.
      lines: Its series, each with a value for every request from 0 on.
      zero: The vertical axis begins at zero.
      whole: The values are counts, so that no tick lies between two of them.
    """
    count = max(len(line.values) for line in lines)
    numbers = [value for line in lines for value in line.values if value is not None] or [0.0]
    y_ticks = ticks(0.0 if zero else min(numbers), max(numbers), whole=whole)
    low, high = y_ticks[0], y_ticks[-1]
    places = max(len(f"{value:g}".partition(".")[2]) for value in y_ticks) if high < 1e6 else 0
    bottom, last = HEIGHT - _BOTTOM, max(count - 1, 1)

    def across(number: Number) -> float:
        return round(_LEFT + number / last * (WIDTH - _RIGHT - _LEFT), 2)

    def up(value: Number) -> float:
        return round(bottom - (value - low) / (high - low) * (bottom - _TOP), 2)

    x_ticks = [Tick(across(number), f"{number:g}") for number in ticks(0, last, whole=True) if number <= last]
    drawn = [(line, *_path(line, across, up)) for line in lines]
    return Drawn(title, drawn, x_ticks, [Tick(up(value), f"{value:,.{places}f}") for value in y_ticks])


def ticks(low: Number, high: Number, *, whole: bool = False) -> list[float]:
    """At least two round numbers, evenly apart, from at most ``low`` to at least ``high``.

    >>> ticks(0, 13, whole=True), ticks(0, 1, whole=True)
    ([0.0, 5.0, 10.0, 15.0], [0.0, 1.0])
    >>> ticks(0.812, 0.838)
    [0.81, 0.82, 0.83, 0.84]
    """
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / _TICKS))
    steps = [part * power * scale for scale in (1, 10) for part in (1, 2, 5)]
    step = next(step for step in steps if span / step <= _TICKS and (not whole or step >= 1))
    step = max(round(step), 1) if whole else step
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    places = max(0, 2 - math.floor(math.log10(step)))
    return [round(float(k * step), places) for k in range(first, last + 1)]


def _path(line: Line, across, up) -> tuple[str, list[tuple[float, float]]]:
    """An SVG path with gaps where values are missing; and dots where a value stands alone."""
    parts, dots, pen = [], [], False
    for number, value in enumerate(line.values):
        if value is None:
            pen = False
            continue
        x, y = across(number), up(value)
        after = line.values[number + 1] if number + 1 < len(line.values) else None
        if not pen:
            parts.append(f"M{x:g} {y:g}")
            if after is None:
                dots.append((x, y))
        else:
            parts.append(f"H{x:g}V{y:g}" if line.steps else f"L{x:g} {y:g}")
        pen = True
    return "".join(parts), dots
