"""What the figures on gradients are drawn with: curves over strengths, shades for regimes, pictures of maps."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import NullFormatter

from scripts.harness import plot

#: Colours of the regimes' shades.
SHADES = {"weak": "#f6ecd2", "aligned": "#d5e6f3", "excessive": "#e4e4e8"}


def shade(panel: Any, found: Any) -> None:
    """Colour each strength by its regime, half-way (by ratio) to its neighbours; None where nothing was measured."""
    if found is None:
        return
    pairs = zip(found.strengths, found.strengths[1:], strict=False)
    edges = (found.strengths[0], *((a * b) ** 0.5 if a > 0 else b / 2 for a, b in pairs), found.strengths[-1])
    for k, label in enumerate(found.labels):
        if label is not None:
            panel.axvspan(edges[k], edges[k + 1], color=SHADES[label], linewidth=0, label=label)


def median(panel: Any, strengths: np.ndarray, values: np.ndarray, name: str) -> None:
    """Draw the median over seeds of ``(strengths, seeds)`` values, on a logarithmic axis that may also hold 0."""
    plot.median_line(panel, strengths, values.T, name)
    positive = strengths[strengths > 0]
    if len(positive) == len(strengths):
        panel.set_xscale("log")
    else:  # The undefended model, at 0; the axis is linear up to a power of ten, as ticks below one run into that at 0.
        panel.set_xscale("symlog", linthresh=10 ** np.ceil(np.log10(positive.min(initial=1.0))), linscale=0.5)
    panel.xaxis.set_minor_formatter(NullFormatter())  # On an axis of one decade they run into each other.


def signed(maps: np.ndarray) -> np.ndarray:
    """Maps as images: zero is grey, the largest absolute value white or black; a map without one is all grey."""
    largest = np.abs(maps).max(axis=(1, 2, 3), keepdims=True)
    usable = np.isfinite(largest) & (largest > 0)
    return np.where(usable, maps / np.where(usable, largest, 1) / 2 + 0.5, 0.5)


def pictures(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Draw a picture for each image (a row) and each column."""
    count = len(next(iter(columns.values())))
    with plot.panels(path, [""] * (count * len(columns)), len(columns), width=0.95, height=1.0) as axes:
        for panel, name in zip(axes, columns, strict=False):
            panel.set_title(name, fontsize=7, loc="center")
        images = (image for line in zip(*columns.values(), strict=True) for image in line)
        for panel, image in zip(axes, images, strict=True):
            plot.picture(panel, image)
