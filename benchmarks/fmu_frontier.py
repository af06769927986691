"""The frontier of certified networks: accuracy against the odds gap, from published rows.

    python -m benchmarks.fmu_frontier

Draws ``frontier.png`` beside the rows of ``scripts.fmu.noisy_finetuning`` that it reads: retrained networks, networks
certified by noise alone around the smaller clip, both after the last repair that all data sets' networks have in their
rows, and certified heads. A marker is the median over seeds, its bars the range.
"""

import itertools
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.harness import cli, looks, plot, report, rows

RUNS = ("tables", "images", "features")
STARTS = {"init": "initialisation", "public": "public network"}
MARKERS = {"init": "^", "public": "o"}
COLORS = {0.5: looks.VERMILION, 1.0: looks.ORANGE, 2.0: looks.BLUE}


@dataclass(frozen=True)
class Config(cli.Common):
    """Draw the frontier."""

    out: Path = Path("benchmarks/results/fmu_noisy_finetuning")
    """Folder of the rows, and of the figure."""


def main(config: Config) -> None:
    """Draws the figure from the files that are there."""
    table = [row for row in rows_of(config.out, RUNS) if row["method"] != "head" or row["mu"] == 1.0]
    datasets = list(dict.fromkeys(row["dataset"] for row in table))
    titles = [looks.look(name).label for name in datasets]
    with plot.panels(config.out / "frontier.png", titles, 3, legend=3, width=4.0, height=2.9) as axes:
        for panel, dataset in zip(axes, datasets, strict=True):
            for look, found in series(report.where(table, dataset=dataset)):
                draw(panel, look, found)
            panel.set(xlabel="average odds gap (test)", ylabel="accuracy (test)")


def rows_of(folder: Path, names: Iterable[str]) -> list[rows.Row]:
    """The published rows of several runs."""
    return [row for name in names for row in rows.read_published(folder / f"{name}.csv.gz")]


def series(table: list[rows.Row]) -> Iterable[tuple[looks.Look, list[rows.Row]]]:
    """What is compared on a data set: how it is drawn, and its rows, one a seed."""
    certified = [row for row in table if row["method"] == "noisy_output"]
    last, clip = max(row["repair_steps"] for row in certified), min(row["clip"] for row in certified)
    for start in STARTS:
        chosen = report.where(table, method="retrain", start=start, repair_steps=last)
        yield _look("retrained", start, looks.BLACK), chosen
    for mu, start in itertools.product(COLORS, STARTS):
        chosen = report.where(certified, start=start, mu=mu, clip=clip, repair_steps=last)
        yield _look(f"certified, mu {mu:g}", start, COLORS[mu]), chosen
    heads = [row for row in report.where(table, method="head") if row["accuracy"] is not None]
    yield looks.Look("certified head, mu 1", looks.GREEN, "D"), heads


def _look(label: str, start: str, color: str) -> looks.Look:
    return looks.Look(f"{label}, from the {STARTS[start]}", color, MARKERS[start])


def draw(panel: Any, look: looks.Look, found: list[rows.Row]) -> None:
    """Draws a median, and the range of the seeds in both directions; nothing where there are no rows."""
    if not found:
        return
    gap, accuracy = (np.array([row[column] for row in found]) for column in ("equalized_odds_mean", "accuracy"))
    middle = [float(np.median(each)) for each in (gap, accuracy)]
    bars = [[[at - each.min()], [each.max() - at]] for at, each in zip(middle, (gap, accuracy), strict=True)]
    panel.errorbar(*middle, xerr=bars[0], yerr=bars[1], color=look.color, marker=look.marker, label=look.label,
                   linestyle="none", elinewidth=0.7)  # fmt: skip


if __name__ == "__main__":
    sys.exit(cli.run(main, Config))
