r"""The figures of Srinivas et al. (2023), from the rows of finished runs alone.

    python -m scripts.pags.figures --trained runs/pags_train --robustness runs/pags_robustness \
        --alignment runs/pags_alignment --distractor runs/pags_distractor --out runs/pags_figures

Figures that need a run which you do not name are left out. Published rows suffice for the figures that need nothing
else:

    python -m scripts.pags.figures --robustness benchmarks/results/reproduce/pags_robustness.csv.gz \
        --alignment benchmarks/results/reproduce/pags_alignment.csv.gz --out runs/published
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.ticker import NullFormatter

from scripts.harness import plot, store
from scripts.harness.experiment import PRESETS, Experiment, Part, Row
from scripts.harness.lazy import pags_jax
from scripts.pags import accuracy, claims, panels, sweeps
from scripts.pags.sweeps import BASELINE, PlaceConfig


@dataclass(frozen=True)
class Config(PlaceConfig):
    """Draw the figures."""

    trained: Path | None = None
    """Finished run of scripts.pags.train, or its published rows, a .csv.gz."""
    robustness: Path | None = None
    """Finished run of scripts.pags.robustness, or its published rows, a .csv.gz."""
    alignment: Path | None = None
    """Finished run of scripts.pags.alignment, or its published rows, a .csv.gz."""
    distractor: Path | None = None
    """Finished run of scripts.pags.distractor, or its published rows, a .csv.gz."""
    loss: str = "adversarial"
    """Loss whose gradients are shown from weak to excessive robustness."""


def plan(config: Config) -> list[str]:
    """The figures that the named runs suffice for; figures of images need run folders."""
    runs = {name: [getattr(config, run) for run in needed] for name, (needed, _) in FIGURES.items()}
    named = [name for name, needed in runs.items() if None not in needed]
    if not named:
        raise ValueError("name at least one run: --trained, --robustness, --alignment or --distractor")
    return [name for name in named if name not in OF_IMAGES or not any(run.is_file() for run in runs[name])]


def draw(config: Config, table: list[Row]) -> None:
    """Draw the figures."""
    del table
    for name in plan(config):
        FIGURES[name][1](config, config.out / name)


def read(config: Config, run: Literal["trained", "robustness", "alignment", "distractor"]) -> list[Row]:
    """The rows of one of the named runs."""
    script = "pags_train" if run == "trained" else f"pags_{run}"
    return sweeps.read(getattr(config, run), f"--{run}", script)


def strengths_in(config: Config, run: Literal["robustness", "alignment"]) -> list[str]:
    """The losses with strengths, which panels are for."""
    losses = pags_jax.sweeps.swept(read(config, run))
    if not losses:
        raise ValueError(
            f"--{run}: {getattr(config, run)} holds {BASELINE} alone, which has no strengths to draw against; train "
            "another --loss as well"
        )
    return losses


def draw_accuracy(config: Config, path: Path) -> None:
    """Accuracy under attack."""
    accuracy.draw_accuracy(path, read(config, "trained"))


def draw_regimes(config: Config, path: Path) -> None:
    """Accuracy, deviations on and off the manifold, and alignment if measured, by strength; a figure has two losses.

    Regimes are shaded: those by the gradient's energy where alignment was measured, else those by unit steps.
    """
    losses = strengths_in(config, "robustness")
    for k in range(0, len(losses), 2):
        draw_regimes_of(config, path.with_stem(f"{path.stem}_{k // 2 + 1}"), losses[k : k + 2])


def draw_regimes_of(config: Config, path: Path, losses: Sequence[str]) -> None:
    """Draw a column of panels for each loss."""
    table, nearest = read(config, "robustness"), pags_jax.sweeps.nearest
    part = nearest(table, "eps_l2", config.eps)
    aligned = [] if config.alignment is None else read(config, "alignment")
    at = nearest([row for row in aligned if row["target"] == config.target], "sigma_pm1", config.sigma_pm1)
    labels = ["accuracy (test)", f"deviation, L2 step {part[0]['eps_l2']:.3g}"]
    labels += [f"1 - LPIPS, sigma {at[0]['sigma_pm1']:g}"] if at else []
    titles = [plot.look(name).label for name in losses] + [""] * (len(losses) * (len(labels) - 1))
    with plot.panels(path, titles, len(losses), share_y=True, height=2.2) as axes:
        for column, name in enumerate(losses):
            mine = axes[column :: len(losses)]
            found = pags_jax.sweeps.regimes_of(table, name, eps=config.eps, tolerance=config.tolerance)
            if at:
                found = pags_jax.sweeps.share_regimes_of(
                    aligned, name, target=config.target, tolerance=config.tolerance
                )
                strengths, (similarity,) = pags_jax.sweeps.curves(at, name, "similarity")
                panels.median(mine[2], strengths, similarity, "similarity")
                known = ~np.isnan(similarity).all(axis=1)
                if known.any():
                    best = strengths[known][np.nanmedian(similarity[known], axis=1).argmax()]
                    color = plot.look("similarity").color
                    for panel in mine:
                        panel.axvline(best, color=color, linestyle=":", label="most like the score")
            strengths, values = pags_jax.sweeps.curves(part, name, "test_accuracy", "on", "off")
            sides = zip((0, 1, 1), values, ("accuracy", "on_manifold", "off_manifold"), strict=True)
            for place, curve, side in sides:
                panels.median(mine[place], strengths, curve, side)
            for panel in mine:
                panels.shade(panel, found)
            mine[-1].set(xlabel="strength")
        for panel, label in zip(axes[:: len(losses)], labels, strict=True):
            panel.set(ylabel=label)


def draw_alignment(config: Config, path: Path) -> None:
    """Accuracy, 1 - LPIPS, cosine and the off-manifold share of the gradient against strength."""
    table = [row for row in read(config, "alignment") if row["target"] == config.target]
    table, losses = pags_jax.sweeps.nearest(table, "sigma_pm1", config.sigma_pm1), strengths_in(config, "alignment")
    measures = {"test_accuracy": "accuracy (test)", "similarity": "1 - LPIPS", "cosine": "cosine with the score"}
    measures |= {"off_share": "off-manifold share"}
    with plot.panels(path, list(measures.values()), 2, legend=3, height=2.4) as axes:
        for panel, column in zip(axes, measures, strict=True):
            for name in losses:
                strengths, (values,) = pags_jax.sweeps.curves(table, name, column)
                panels.median(panel, strengths[strengths > 0], values[strengths > 0], name)
            base = [row[column] for row in table if row["loss"] == BASELINE and row[column] is not None]
            if base:
                panel.axhline(np.median(base), color=plot.GREY, linewidth=1, label="undefended")
            panel.set(xlabel="strength (each loss has its own unit)", xscale="log")


def draw_explanation(config: Config, path: Path) -> None:
    """Alignment against the off-manifold deviation and against the gradient's off-manifold share, by model."""
    models = config.joined(read(config, "robustness"), read(config, "alignment"))
    if not models:
        raise ValueError("--robustness and --alignment have no model in common; measure the same --trained")
    names_, sigma = pags_jax.explanation, models[0]["sigma_pm1"]
    across = {"off": f"{names_.MEASURES['off']}, L2 step {models[0]['eps_l2']:.3g}"}
    across |= {"off_share": names_.MEASURES["off_share"]}
    up = {"cosine": f"cosine with the score, sigma {sigma:g}", "similarity": names_.ALIGNMENTS["similarity"]}
    titles = ("Off-manifold robustness", "Off-manifold share", "", "")
    with plot.panels(path, titles, 2, legend=3, share_y=True) as axes:
        for panel, (y, x) in zip(axes, itertools.product(up, across), strict=True):
            for loss in (BASELINE, *pags_jax.sweeps.swept(models)):
                part = [row for row in models if row["loss"] == loss and None not in (row[x], row[y])]
                if part:
                    xs, ys = ([row[column] for row in part] for column in (x, y))
                    plot.line(panel, xs, ys, plot.look(loss), linestyle="none")
            panel.set(xlabel=across[x] if y == "similarity" else "", ylabel=up[y] if x == "off" else "")


def draw_gradients(config: Config, path: Path) -> None:
    """Images, their score, and the gradients of one loss from weak to excessive."""
    folder, table = config.alignment or Path(), read(config, "alignment")
    if config.loss not in pags_jax.sweeps.swept(table):
        raise ValueError(
            f"--loss: {folder} has no models of {config.loss!r}, only {', '.join(pags_jax.sweeps.swept(table))}"
        )
    seed = min(row["seed"] for row in table)
    part = [row for row in table if row["seed"] == seed and row["target"] == config.target]
    part = pags_jax.sweeps.nearest(part, "sigma_pm1", config.sigma_pm1)
    shown = [row for row in part if row["loss"] == BASELINE]
    shown += sorted((row for row in part if row["loss"] == config.loss), key=lambda row: row["strength"])
    with np.load(folder / f"scores_{part[0]['sigma_pm1']:g}.npz", allow_pickle=False) as file:
        x, score = file["x"], file[pags_jax.alignment.PAIRINGS[config.target]]
    columns = {"image": x, "score": panels.signed(score)}
    for row in shown:
        unit = {name: row[name] for name in ("loss", "strength", "seed")}
        with np.load(folder / "gradients" / f"{store.unit_name(unit)}.npz", allow_pickle=False) as file:
            name = "undefended" if row["loss"] == BASELINE else f"{row['strength']:g}"
            columns[name] = panels.signed(file[config.target])
    panels.pictures(path, columns)


def draw_noise(config: Config, path: Path) -> None:
    """Images with steps along the manifold and off it."""
    with np.load((config.robustness or Path()) / "noise.npz", allow_pickle=False) as file:
        x, sides = file["x"], {"on": file["on"], "off": file["off"]}
    steps = {f"{side}, {eps:g}": x + eps * noise for eps in (1.0, 4.0) for side, noise in sides.items()}
    panels.pictures(path, {"image": x, **steps})


def draw_distractor(config: Config, path: Path) -> None:
    """Deviation under noise on the signal over that under noise on the distractor."""
    table = read(config, "distractor")
    table = [
        row | {"model": row["loss"] if row["loss"] == BASELINE else f"{row['loss']} {row['strength']:g}"}
        for row in table
    ]
    titles = ("Signal over distractor", "Signal (dotted: distractor)")
    with plot.panels(path, titles, legend=3, width=3.8) as (ratio, both):
        plot.lines(ratio, table, x="sigma", y="ratio", by="model")
        for name in dict.fromkeys(row["model"] for row in table):
            for part, dash in (("signal", "-"), ("distractor", ":")):
                look = plot.look(name)._replace(label="", marker="", dash=dash)
                plot.curve(both, [row for row in table if row["model"] == name], look, x="sigma", y=part)
        for panel, label in ((ratio, "ratio"), (both, "change of probabilities")):
            panel.set(xlabel="standard deviation of the noise", ylabel=label)
            if any(row["ratio"] for row in table):  # A logarithmic axis needs a value.
                panel.set(xscale="log", yscale="log")
            panel.xaxis.set_minor_formatter(NullFormatter())


FIGURES: dict[str, tuple[tuple[str, ...], Any]] = {
    "accuracy.png": (("trained",), draw_accuracy),
    "regimes.png": (("robustness",), draw_regimes),
    "noise.png": (("robustness",), draw_noise),
    "alignment.png": (("alignment",), draw_alignment),
    "alignment_by_robustness.png": (("robustness", "alignment"), draw_explanation),
    "gradients.png": (("alignment",), draw_gradients),
    "distractor.png": (("distractor",), draw_distractor),
}
"""What can be drawn: the runs that it needs, and a function that draws it to a path, or several beside it."""
OF_IMAGES = ("noise.png", "gradients.png")


READS = {"robustness": "pags_robustness", "alignment": "pags_alignment", "distractor": "pags_distractor"}
EXPERIMENT = Experiment(
    "pags_figures", Config, plan=plan, draw=draw,
    heading="What each sweep shows, and which models have aligned gradients", section=claims.section,
    claims=claims.claims, parts=(Part({preset: {} for preset in PRESETS}, reads=READS),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
