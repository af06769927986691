r"""The figures of Srinivas et al. (2023), from the rows of finished runs alone.

    python -m scripts.pags.figures --trained runs/pags_train --robustness runs/pags_robustness \
        --alignment runs/pags_alignment --distractor runs/pags_distractor --out runs/pags_figures

Figures that need a run which you do not name are left out. Published rows (.csv.gz) in place of run folders suffice for
the figures that need nothing else.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matplotlib.ticker import NullFormatter

from scripts.harness import plot, report
from scripts.harness.experiment import PRESETS, Experiment, Part, Row
from scripts.harness.lazy import pags_jax
from scripts.pags import accuracy, claims, generative, measuring, sweeps
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


def plan(config: Config) -> list[str]:
    """The figures that the named runs suffice for; figures of images need run folders."""
    runs = {name: [getattr(config, run) for run in needed] for name, (needed, _) in FIGURES.items()}
    named = [name for name, needed in runs.items() if None not in needed]
    if not named:
        raise ValueError("name at least one run: --trained, --robustness, --alignment or --distractor")
    return [name for name in named if name not in OF_IMAGES or not any(run.is_file() for run in runs[name])]


def draw(config: Config, _: list[Row]) -> None:
    """Draw the figures."""
    for name in plan(config):
        needed, draw_one = FIGURES[name]
        draw_one(config, config.out / name, *(sweeps.read(getattr(config, run), run) for run in needed))


def swept(config: Config, run: Literal["robustness", "alignment"], table: list[Row]) -> list[str]:
    """The losses with strengths, which panels are for."""
    losses = pags_jax.sweeps.swept(table)
    if not losses:
        found = f"{getattr(config, run)} holds {BASELINE} alone, which has no strengths to draw against"
        raise ValueError(f"--{run}: {found}; train another --loss as well")
    return losses


def draw_regimes(config: Config, path: Path, table: list[Row]) -> None:
    """Accuracy, deviations on and off the manifold, and alignment if measured, by strength; a figure has two losses.

    Regimes are shaded: those by the gradient's energy where alignment was measured, else those by unit steps.
    """
    losses, part = swept(config, "robustness", table), config.place.robust(table)
    aligned = [] if config.alignment is None else sweeps.read(config.alignment, "alignment")
    at = config.place.aligned(aligned)
    labels = ["accuracy (test)", f"deviation, L2 step {part[0]['eps_l2']:.3g}"]
    labels += [f"1 - LPIPS, sigma {at[0]['sigma_pm1']:g}"] if at else []
    for k in range(0, len(losses), 2):
        titles = [plot.look(name).label for name in losses[k : k + 2]]
        grid, across = path.with_stem(f"{path.stem}_{k // 2 + 1}"), len(titles)
        titles += [""] * (across * (len(labels) - 1))
        with plot.panels(grid, titles, across, share_y=True, height=2.2) as axes:
            for column, loss in enumerate(losses[k : k + 2]):
                draw_loss(config, axes[column::across], loss, part, aligned, at)
            for panel, label in zip(axes[::across], labels, strict=True):
                panel.set(ylabel=label)


def draw_loss(config: Config, axes: list[Any], loss: str, table: list[Row], aligned: list[Row], at: list[Row]) -> None:
    """Draw a loss's column of panels."""
    found = config.place.by_energy(aligned, loss) if at else config.place.by_steps(table, loss)
    if at:
        sweeps.median(axes[2], at, loss, "similarity", "similarity")
        best = pags_jax.questions.peak_of(at, loss, "similarity")["at strength"]
        for panel in axes if best is not None else ():
            panel.axvline(best, color=plot.look("similarity").color, linestyle=":", label="most like the score")
    sides = {"test_accuracy": "accuracy", "on": "on_manifold", "off": "off_manifold"}
    for place, (column, look) in zip((0, 1, 1), sides.items(), strict=True):
        sweeps.median(axes[place], table, loss, column, look)
    for panel in axes:
        sweeps.shade(panel, found)
    axes[-1].set(xlabel="strength")


def draw_alignment(config: Config, path: Path, table: list[Row]) -> None:
    """Accuracy, 1 - LPIPS, cosine and the off-manifold share of the gradient against strength."""
    losses, table = swept(config, "alignment", table), config.place.aligned(table)
    measures = {"test_accuracy": "accuracy (test)", "similarity": "1 - LPIPS", "cosine": "cosine with the score"}
    measures |= {"off_share": "off-manifold share"}
    with plot.panels(path, list(measures.values()), 2, legend=3, height=2.4) as axes:
        for panel, column in zip(axes, measures, strict=True):
            for loss in losses:
                sweeps.median(panel, table, loss, column, loss, least=0)
            base = report.median(table, column, loss=BASELINE)
            if base is not None:
                panel.axhline(base, color=plot.GREY, linewidth=1, label="undefended")
            panel.set(xlabel="strength (each loss has its own unit)", xscale="log")


def draw_explanation(config: Config, path: Path, robust: list[Row], aligned: list[Row]) -> None:
    """Alignment against the off-manifold deviation and against the gradient's off-manifold share, by model."""
    models = config.joined(robust, aligned)
    if not models:
        raise ValueError("--robustness and --alignment have no model in common; measure the same --trained")
    first, titles = models[0], ("Off-manifold robustness", "Off-manifold share", "", "")
    labels = pags_jax.explanation.MEASURES | pags_jax.explanation.ALIGNMENTS
    labels["off"] += f", L2 step {first['eps_l2']:.3g}"
    labels["cosine"] += f" with the score, sigma {first['sigma_pm1']:g}"
    with plot.panels(path, titles, 2, legend=3, share_y=True) as axes:
        for panel, (y, x) in zip(axes, itertools.product(("cosine", "similarity"), ("off", "off_share")), strict=True):
            known = [row for row in models if None not in (row[x], row[y])]
            for loss in (BASELINE, *pags_jax.sweeps.swept(known)):
                xs, ys = ([row[column] for row in report.where(known, loss=loss)] for column in (x, y))
                if xs:
                    plot.line(panel, xs, ys, plot.look(loss), linestyle="none")
            panel.set(xlabel=labels[x] if y == "similarity" else "", ylabel=labels[y] if x == "off" else "")


def draw_gradients(config: Config, path: Path, table: list[Row]) -> None:
    """Images, their score, and the gradients of the undefended model and of each strength; a figure has one loss."""
    losses, folder = swept(config, "alignment", table), config.alignment or Path()
    part = config.place.aligned(report.where(table, seed=min(row["seed"] for row in table)))
    scores = measuring.load_arrays(folder / f"scores_{part[0]['sigma_pm1']:g}.npz")
    score = scores[pags_jax.alignment.PAIRINGS[config.target]]
    for loss in losses:
        lines = {"image": scores["x"], "score": pags_jax.gradients.as_pictures(score)}
        shown = [row for row in part if row["loss"] in (BASELINE, loss)]
        for row in sorted(shown, key=lambda row: row["strength"]):
            name = "undefended" if row["loss"] == BASELINE else f"{row['strength']:g}"
            maps = measuring.load_arrays(folder / "gradients" / f"{row['unit']}.npz")
            lines[name] = pags_jax.gradients.as_pictures(maps[config.target])
        generative.panel(lines.items(), path.with_stem(f"{path.stem}_{loss}"), title=plot.look(loss).label)


def draw_noise(config: Config, path: Path, _: list[Row]) -> None:
    """Images with steps along the manifold and off it."""
    images = measuring.load_arrays((config.robustness or Path()) / "noise.npz")
    steps = {f"{side}, {eps:g}": images["x"] + eps * images[side] for eps in (1.0, 4.0) for side in ("on", "off")}
    generative.panel({"image": images["x"], **steps}.items(), path, title="L2 steps on and off the manifold")


def draw_distractor(_: Config, path: Path, table: list[Row]) -> None:
    """Deviation under noise on the signal over that under noise on the distractor."""
    table = [row | {"model": f"{row['loss']} {row['strength']:g}".removesuffix(" 0")} for row in table]
    titles = ("Signal over distractor", "Signal (dotted: distractor)")
    with plot.panels(path, titles, legend=3, width=3.8) as (ratio, both):
        plot.lines(ratio, table, x="sigma", y="ratio", by="model")
        for name, part in report.groups(table, "model").items():
            for side, dash in (("signal", "-"), ("distractor", ":")):
                look = plot.look(name)._replace(label="", marker="", dash=dash)
                plot.curve(both, part, look, x="sigma", y=side)
        for panel, label in ((ratio, "ratio"), (both, "change of probabilities")):
            panel.set(xlabel="standard deviation of the noise", ylabel=label)
            if any(row["ratio"] for row in table):  # A logarithmic axis needs a value.
                panel.set(xscale="log", yscale="log")
            panel.xaxis.set_minor_formatter(NullFormatter())


FIGURES: dict[str, tuple[tuple[str, ...], Any]] = {
    "accuracy.png": (("trained",), lambda config, path, table: accuracy.draw(config, table)),
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
