r"""The figures of Srinivas et al. (2023), from the rows of finished runs alone.

    python -m scripts.pags.figures --trained runs/pags_train --robustness runs/pags_robustness \
        --alignment runs/pags_alignment --distractor runs/pags_distractor --out runs/pags_figures

A run that is not named is left out, with the figures that need it. Published rows do as well, for the figures that
need nothing else:

    python -m scripts.pags.figures --robustness benchmarks/results/reproduce/pags_robustness.csv.gz \
        --alignment benchmarks/results/reproduce/pags_alignment.csv.gz --out runs/published
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.ticker import NullFormatter

from pags_jax.alignment import PAIRINGS
from pags_jax.sweeps import BASELINE, Row, best, curves, nearest, regimes_of, share_regimes_of, swept
from scripts.harness import cli, plot, store
from scripts.pags import explain, panels, tables

Compared = Literal["logit_sum", "logit", "log_prob"]


@dataclass(frozen=True)
class Config(cli.Common):
    """Draw the figures."""

    out: Path = Path("runs/pags_figures")
    trained: Path | None = None
    """Finished run of scripts.pags.train, or its published rows, a .csv.gz."""
    robustness: Path | None = None
    """Finished run of scripts.pags.robustness, or its published rows, a .csv.gz."""
    alignment: Path | None = None
    """Finished run of scripts.pags.alignment, or its published rows, a .csv.gz."""
    distractor: Path | None = None
    """Finished run of scripts.pags.distractor, or its published rows, a .csv.gz."""
    eps: cli.Positive = 2.637
    """Length of the steps on and off the manifold, the nearest that was measured; the paper shows 2.637."""
    target: Compared = "logit"
    """Gradient that is compared with its score: the label's logit with the conditional score, as in the paper's figure
    3. That of logit_sum cannot align: a softmax loss has no gradient along the sum of the last layer's weights."""
    sigma_pm1: cli.Positive = 0.5
    """Noise level of the score that gradients are compared with, the nearest that was measured; the paper's is 0.5."""
    loss: str = "adversarial"
    """Whose gradients are shown from weak to excessive."""
    tolerance: cli.Probability = 0.02
    """How far below a sweep's best accuracy a model may lie before its strength is called excessive."""


def plan(config: Config) -> list[str]:
    """The figures that the named runs are enough for; those of images need folders."""
    runs = {
        "accuracy.png": (config.trained,),
        "regimes.png": (config.robustness,),
        "noise.png": (config.robustness,),
        "alignment.png": (config.alignment,),
        "alignment_by_robustness.png": (config.robustness, config.alignment),
        "gradients.png": (config.alignment,),
        "distractor.png": (config.distractor,),
    }
    named = [name for name, needed in runs.items() if None not in needed]
    if not named:
        raise ValueError("name at least one run: --trained, --robustness, --alignment or --distractor")
    of_images = ("noise.png", "gradients.png")
    return [name for name in named if name not in of_images or not any(run and run.is_file() for run in runs[name])]


def main(config: Config) -> None:
    """Draws them all."""
    draw = {
        "accuracy.png": lambda: draw_accuracy(rows_of(config, "trained")),
        "regimes.png": lambda: draw_regimes(config),
        "noise.png": lambda: draw_noise(config),
        "alignment.png": lambda: draw_alignment(config),
        "alignment_by_robustness.png": lambda: draw_explanation(config),
        "gradients.png": lambda: draw_gradients(config),
        "distractor.png": lambda: draw_distractor(config),
    }
    for name in plan(config):
        plot.save(draw[name](), config.out / name)


def rows_of(config: Config, run: Literal["trained", "robustness", "alignment", "distractor"]) -> list[Row]:
    """The rows of one of the named runs."""
    script = "pags_train" if run == "trained" else f"pags_{run}"
    return tables.read(getattr(config, run), f"--{run}", script)


def strengths_in(config: Config, run: Literal["robustness", "alignment"]) -> list[str]:
    """The losses with strengths, which panels are for."""
    names = swept(rows_of(config, run))
    if not names:
        raise ValueError(
            f"--{run}: {getattr(config, run)} holds {BASELINE} alone, which has no strengths to draw against; train "
            "another --loss as well"
        )
    return names


def draw_accuracy(table: Sequence[Row]) -> Any:
    """Accuracy against the attack's radius at each loss's best strength, and against clean accuracy over all."""
    trained = [row for row in table if row["failure"] is None]
    radii = trained[0]["attack_eps"] if trained else []
    shown = len(radii) // 2
    figure, axes = plot.figure(1, 2, titles=("Best strength of each loss", "All strengths"), width=3.6)
    attacked = [
        {"loss": row["loss"], "radius": radius, "accuracy": accuracy}
        for row in best(trained, ("validation_accuracy", "validation_attacked"))
        for radius, accuracy in zip((0.0, *radii), (row["test_accuracy"], *row["test_attacked"]), strict=True)
    ]
    plot.lines(axes[0, 0], attacked, x="radius", y="accuracy", by="loss")
    pairs = [row | {"attacked": row["test_attacked"][shown]} for row in trained]
    plot.paths(axes[0, 1], pairs, x="test_accuracy", y="attacked", along="strength", by="loss")
    norm = "Linf" if trained and trained[0].get("attack_norm") == "linf" else "L2"
    axes[0, 0].set(xlabel=f"{norm} radius of the attack", ylabel="accuracy (test)", ylim=(0, 1))
    radius = f", radius {radii[shown]:g}" if radii else ""
    axes[0, 1].set(xlabel="accuracy (test)", ylabel=f"under attack{radius}")
    plot.legend(figure)
    return figure


def draw_regimes(config: Config) -> Any:
    """Accuracy, deviations on and off the manifold, and alignment if it was measured, against strength.

    Regimes are shaded: those by the gradient's energy where alignment was measured, else those by unit steps.
    """
    table, names = rows_of(config, "robustness"), strengths_in(config, "robustness")
    part = nearest(table, "eps_l2", config.eps)
    aligned = [] if config.alignment is None else rows_of(config, "alignment")
    at = nearest([row for row in aligned if row["target"] == config.target], "sigma_pm1", config.sigma_pm1)
    titles = [plot.look(name).label for name in names]
    figure, axes = plot.figure(3 if at else 2, len(names), titles=titles, share_y=True)
    for column, name in enumerate(names):
        found = regimes_of(table, name, eps=config.eps, tolerance=config.tolerance)
        if at:
            found = share_regimes_of(aligned, name, target=config.target, tolerance=config.tolerance)
            strengths, (similarity,) = curves(at, name, "similarity")
            panels.median(axes[2, column], strengths, similarity, "similarity")
        strengths, (accuracy, on, off) = curves(part, name, "test_accuracy", "on", "off")
        panels.median(axes[0, column], strengths, accuracy, "accuracy")
        for panel, values, side in ((axes[1, column], on, "on_manifold"), (axes[1, column], off, "off_manifold")):
            panels.median(panel, strengths, values, side)
        for panel in axes[:, column]:
            panels.shade(panel, found)
        axes[-1, column].set(xlabel="strength")
    axes[0, 0].set(ylabel="accuracy (test)")
    if at:
        axes[2, 0].set(ylabel=f"1 - LPIPS, sigma {at[0]['sigma_pm1']:g}")
    axes[1, 0].set(ylabel=f"deviation, L2 step {part[0]['eps_l2']:.3g}")
    plot.legend(figure, columns=3)
    return figure


def draw_alignment(config: Config) -> Any:
    """Accuracy, 1 - LPIPS, cosine and the off-manifold share of the gradient against strength, one curve a measure."""
    table = [row for row in rows_of(config, "alignment") if row["target"] == config.target]
    table, names = nearest(table, "sigma_pm1", config.sigma_pm1), strengths_in(config, "alignment")
    measures = {
        "test_accuracy": "accuracy (test)",
        "similarity": "1 - LPIPS",
        "cosine": "cosine with the score",
        "off_share": "off-manifold share",
    }
    titles = [plot.look(name).label for name in names]
    figure, axes = plot.figure(len(measures), len(names), titles=titles, height=1.9, share_y=True)
    for line, (column, label) in zip(axes, measures.items(), strict=True):
        base = [row[column] for row in table if row["loss"] == BASELINE and row[column] is not None]
        for panel, name in zip(line, names, strict=True):
            strengths, (values,) = curves(table, name, column)
            panels.median(panel, strengths, values, name)
            if base:
                panel.axhline(np.median(base), color=plot.GREY, linewidth=1, label="undefended")
        line[0].set(ylabel=label)
    for panel in axes[-1]:
        panel.set(xlabel="strength")
    plot.legend(figure, columns=3)
    return figure


def draw_explanation(config: Config) -> Any:
    """Alignment against robustness off the manifold, over all models."""
    place = {"eps": config.eps, "sigma_pm1": config.sigma_pm1}
    models = explain.joined(rows_of(config, "robustness"), rows_of(config, "alignment"), target=config.target, **place)
    if not models:
        raise ValueError("--robustness and --alignment have no model in common; measure the same --trained")
    return explain.draw(models)


def draw_gradients(config: Config) -> Any:
    """Images, their score, and the gradients of one loss from weak to excessive."""
    folder, table = config.alignment or Path(), rows_of(config, "alignment")
    if config.loss not in swept(table):
        raise ValueError(f"--loss: {folder} has no models of {config.loss!r}, only {', '.join(swept(table))}")
    seed = min(row["seed"] for row in table)
    part = [row for row in table if row["seed"] == seed and row["target"] == config.target]
    part = nearest(part, "sigma_pm1", config.sigma_pm1)
    shown = [row for row in part if row["loss"] == BASELINE]
    shown += sorted((row for row in part if row["loss"] == config.loss), key=lambda row: row["strength"])
    with np.load(folder / f"scores_{part[0]['sigma_pm1']:g}.npz", allow_pickle=False) as file:
        x, score = file["x"], file[PAIRINGS[config.target]]
    columns = {"image": x, "score": panels.signed(score)}
    for row in shown:
        unit = {name: row[name] for name in ("loss", "strength", "seed")}
        with np.load(folder / "gradients" / f"{store.unit_name(unit)}.npz", allow_pickle=False) as file:
            name = "undefended" if row["loss"] == BASELINE else f"{row['strength']:g}"
            columns[name] = panels.signed(file[config.target])
    return panels.pictures(columns)


def draw_noise(config: Config) -> Any:
    """Images with steps along the manifold and off it."""
    with np.load((config.robustness or Path()) / "noise.npz", allow_pickle=False) as file:
        x, sides = file["x"], {"on": file["on"], "off": file["off"]}
    steps = {f"{side}, {eps:g}": x + eps * noise for eps in (1.0, 4.0) for side, noise in sides.items()}
    return panels.pictures({"image": x, **steps})


def draw_distractor(config: Config) -> Any:
    """Deviation under noise on the signal over that under noise on the distractor."""
    table = rows_of(config, "distractor")
    figure, axes = plot.figure(1, 2, titles=("Signal over distractor", "Signal (dotted: distractor)"), width=3.8)
    table = [
        row | {"model": row["loss"] if row["loss"] == BASELINE else f"{row['loss']} {row['strength']:g}"}
        for row in table
    ]
    plot.lines(axes[0, 0], table, x="sigma", y="ratio", by="model")
    for part, dash in (("signal", "-"), ("distractor", ":")):
        for name in dict.fromkeys(row["model"] for row in table):
            chosen = [row for row in table if row["model"] == name and row[part] is not None]
            sigmas = sorted({row["sigma"] for row in chosen})
            middle = [np.median([float(row[part]) for row in chosen if row["sigma"] == sigma]) for sigma in sigmas]
            axes[0, 1].plot(sigmas, middle, dash, color=plot.look(name).color)
    for panel, label in zip(axes[0], ("ratio", "change of probabilities"), strict=True):
        panel.set(xlabel="standard deviation of the noise", ylabel=label)
        if any(row["ratio"] for row in table):  # A logarithmic axis needs a value.
            panel.set(xscale="log", yscale="log")
        panel.xaxis.set_minor_formatter(NullFormatter())
    plot.legend(figure, columns=3)
    return figure


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
