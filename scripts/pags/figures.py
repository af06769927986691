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

from scripts.harness import cli, names, plot, report, store
from scripts.harness.experiment import PRESETS, Claim, Experiment, Part, Results, Row, verdict_of
from scripts.harness.lazy import pags_jax
from scripts.pags import explain, panels, tables
from scripts.pags.explain import BASELINE


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
    target: names.Target = "logit"
    """Gradient that is compared with its score: the label's logit with the conditional score, as in the paper's figure
    3. That of logit_sum cannot align: a softmax loss has no gradient along the sum of the last layer's weights."""
    sigma_pm1: cli.Positive = 0.5
    """Noise level of the score that gradients are compared with, the nearest that was measured; the paper's is 0.5."""
    loss: str = "adversarial"
    """The loss whose gradients are shown from weak to excessive."""
    tolerance: cli.Probability = 0.02
    """How far below a sweep's best accuracy a model may lie before its strength is called excessive."""


def plan(config: Config) -> list[str]:
    """The figures that the named runs are enough for; those of images need folders."""
    runs = {name: [getattr(config, run) for run in needed] for name, (needed, _) in FIGURES.items()}
    named = [name for name, needed in runs.items() if None not in needed]
    if not named:
        raise ValueError("name at least one run: --trained, --robustness, --alignment or --distractor")
    return [name for name in named if name not in OF_IMAGES or not any(run.is_file() for run in runs[name])]


def draw(config: Config, table: list[Row]) -> None:
    """Draw the figures."""
    del table
    for name in plan(config):
        drawn = FIGURES[name][1](config)
        if isinstance(drawn, list):
            stem = name.removesuffix(".png")
            for k, figure in enumerate(drawn):
                plot.save(figure, config.out / f"{stem}_{k + 1}.png")
        else:
            plot.save(drawn, config.out / name)


def read(config: Config, run: Literal["trained", "robustness", "alignment", "distractor"]) -> list[Row]:
    """The rows of one of the named runs."""
    script = "pags_train" if run == "trained" else f"pags_{run}"
    return tables.read(getattr(config, run), f"--{run}", script)


def strengths_in(config: Config, run: Literal["robustness", "alignment"]) -> list[str]:
    """The losses with strengths, which panels are for."""
    losses = pags_jax.sweeps.swept(read(config, run))
    if not losses:
        raise ValueError(
            f"--{run}: {getattr(config, run)} holds {BASELINE} alone, which has no strengths to draw against; train "
            "another --loss as well"
        )
    return losses


def draw_accuracy(table: Sequence[Row]) -> Any:
    """Accuracy against the attack's radius at each loss's best strength, and against clean accuracy over all."""
    trained = [row for row in table if row["failure"] is None]
    radii = trained[0]["attack_eps"] if trained else []
    shown = len(radii) // 2
    figure, axes = plot.figure(1, 2, titles=("Best strength of each loss", "All strengths"), width=3.6)
    attacked = [
        {"loss": row["loss"], "radius": radius, "accuracy": accuracy}
        for row in best(trained)
        for radius, accuracy in zip((0.0, *radii), (row["test_accuracy"], *row["test_attacked"]), strict=True)
    ]
    plot.lines(axes[0, 0], attacked, x="radius", y="accuracy", by="loss")
    pairs = [row | {"attacked": row["test_attacked"][shown]} for row in trained]
    plot.paths(axes[0, 1], pairs, x="test_accuracy", y="attacked", along="strength", by="loss")
    norm = "Linf" if trained and trained[0].get("attack_norm") == "linf" else "L2"
    axes[0, 0].set(xlabel=f"{norm} radius of PGD, pixels in [0, 1]", ylabel="accuracy (test)", ylim=(0, 1))
    radius = f", radius {radii[shown]:g}" if radii else ""
    axes[0, 1].set(xlabel="accuracy (test)", ylabel=f"under attack{radius}")
    plot.legend(figure)
    return figure


def best(trained: Sequence[Row]) -> list[Row]:
    """The rows of each loss's strength that does best on held-out images, as they are and under attack."""
    return pags_jax.sweeps.best(trained, ("validation_accuracy", "validation_attacked"))


def draw_regimes(config: Config) -> list[Any]:
    """Accuracy, deviations on and off the manifold, and alignment if it was measured, by strength; two losses a figure.

    Regimes are shaded: those by the gradient's energy where alignment was measured, else those by unit steps.
    """
    losses = strengths_in(config, "robustness")
    return [_draw_regimes(config, losses[k : k + 2]) for k in range(0, len(losses), 2)]


def _draw_regimes(config: Config, losses: Sequence[str]) -> Any:
    table = read(config, "robustness")
    part = pags_jax.sweeps.nearest(table, "eps_l2", config.eps)
    aligned = [] if config.alignment is None else read(config, "alignment")
    at = pags_jax.sweeps.nearest(
        [row for row in aligned if row["target"] == config.target], "sigma_pm1", config.sigma_pm1
    )
    titles = [plot.look(name).label for name in losses]
    figure, axes = plot.figure(3 if at else 2, len(losses), titles=titles, share_y=True, height=2.2)
    for column, name in enumerate(losses):
        found = pags_jax.sweeps.regimes_of(table, name, eps=config.eps, tolerance=config.tolerance)
        if at:
            found = pags_jax.sweeps.share_regimes_of(aligned, name, target=config.target, tolerance=config.tolerance)
            strengths, (similarity,) = pags_jax.sweeps.curves(at, name, "similarity")
            panels.median(axes[2, column], strengths, similarity, "similarity")
            known = ~np.isnan(similarity).all(axis=1)
            if known.any():
                best = strengths[known][np.nanmedian(similarity[known], axis=1).argmax()]
                for panel in axes[:, column]:
                    panel.axvline(best, color=plot.look("similarity").color, linestyle=":", label="most like the score")
        strengths, (accuracy, on, off) = pags_jax.sweeps.curves(part, name, "test_accuracy", "on", "off")
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
    plot.legend(figure, columns=4)
    return figure


def draw_alignment(config: Config) -> Any:
    """Accuracy, 1 - LPIPS, cosine and the off-manifold share of the gradient against strength, a panel a measure."""
    table = [row for row in read(config, "alignment") if row["target"] == config.target]
    table, losses = pags_jax.sweeps.nearest(table, "sigma_pm1", config.sigma_pm1), strengths_in(config, "alignment")
    measures = {"test_accuracy": "accuracy (test)", "similarity": "1 - LPIPS", "cosine": "cosine with the score"}
    measures |= {"off_share": "off-manifold share"}
    figure, axes = plot.figure(2, 2, titles=list(measures.values()), height=2.4)
    for panel, column in zip(axes.flat, measures, strict=True):
        for name in losses:
            strengths, (values,) = pags_jax.sweeps.curves(table, name, column)
            panels.median(panel, strengths[strengths > 0], values[strengths > 0], name)
        base = [row[column] for row in table if row["loss"] == BASELINE and row[column] is not None]
        if base:
            panel.axhline(np.median(base), color=plot.GREY, linewidth=1, label="undefended")
        panel.set(xlabel="strength (each loss has its own unit)", xscale="log")
    plot.legend(figure, columns=3)
    return figure


def draw_explanation(config: Config) -> Any:
    """Alignment against robustness off the manifold, over all models."""
    place = {"eps": config.eps, "sigma_pm1": config.sigma_pm1}
    models = explain.joined(read(config, "robustness"), read(config, "alignment"), target=config.target, **place)
    if not models:
        raise ValueError("--robustness and --alignment have no model in common; measure the same --trained")
    return explain.draw(models)


def draw_gradients(config: Config) -> Any:
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
    return panels.pictures(columns)


def draw_noise(config: Config) -> Any:
    """Images with steps along the manifold and off it."""
    with np.load((config.robustness or Path()) / "noise.npz", allow_pickle=False) as file:
        x, sides = file["x"], {"on": file["on"], "off": file["off"]}
    steps = {f"{side}, {eps:g}": x + eps * noise for eps in (1.0, 4.0) for side, noise in sides.items()}
    return panels.pictures({"image": x, **steps})


def draw_distractor(config: Config) -> Any:
    """Deviation under noise on the signal over that under noise on the distractor."""
    table = read(config, "distractor")
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


FIGURES: dict[str, tuple[tuple[str, ...], Any]] = {
    "accuracy.png": (("trained",), lambda config: draw_accuracy(read(config, "trained"))),
    "regimes.png": (("robustness",), draw_regimes),
    "noise.png": (("robustness",), draw_noise),
    "alignment.png": (("alignment",), draw_alignment),
    "alignment_by_robustness.png": (("robustness", "alignment"), draw_explanation),
    "gradients.png": (("alignment",), draw_gradients),
    "distractor.png": (("distractor",), draw_distractor),
}
"""What can be drawn: the runs that it needs, and a function that draws one figure or several."""
OF_IMAGES = ("noise.png", "gradients.png")


def both(results: Results) -> tuple[list[Row], list[Row]]:
    """The rows of `pags_robustness` and `pags_alignment` at the place that figures show."""
    config = Config()
    aligned = report.where(results.of("pags_alignment"), target=config.target)
    robust = pags_jax.sweeps.nearest(results.of("pags_robustness"), "eps_l2", config.eps)
    return robust, pags_jax.sweeps.nearest(aligned, "sigma_pm1", config.sigma_pm1)


def holds_of(loss: str, robust: list[Row], aligned: list[Row]) -> Row:
    """One loss's line: whether it shows what the paper says of a sweep, with the numbers."""
    config = Config()
    found = pags_jax.sweeps.regimes_of(robust, loss, eps=config.eps, tolerance=config.tolerance)
    accuracy, on = medians(robust, loss, "test_accuracy", "on")
    span = found.span("aligned") if found else None
    below = "no" if span is None else f"yes, from strength {span[0]:g} to {span[1]:g}"
    top = int(accuracy.argmax()) if accuracy.size else 0
    return {
        "loss": plot.look(loss).label,
        "off falls below on while accurate": below if found else NO_MODEL,
        "cosine peaks inside": peaks(*medians(aligned, loss, "strength", "cosine")),
        "1 - LPIPS peaks inside": peaks(*medians(aligned, loss, "strength", "similarity")),
        "the strongest loses accuracy": falls(accuracy[top], accuracy[-1], config.tolerance) if found else NO_MODEL,
        "and on-manifold sensitivity": falls(on[top], on[-1], 0.0) if found else NO_MODEL,
    }


#: What is written of a loss of which nothing could be measured.
NO_MODEL, NO_MAP = "no usable model", "no usable map"


def largest(table: list[Row], column: str) -> float | None:
    """The largest of a column's values that are there; None where there is none."""
    return max((row[column] for row in table if row[column] is not None and np.isfinite(row[column])), default=None)


def medians(table: list[Row], loss: str, *columns: str) -> list[np.ndarray]:
    """Medians over seeds of columns, at the strengths that have a value of each."""
    _, values = pags_jax.sweeps.curves(table, loss, *columns)
    known = np.all([~np.isnan(column).all(axis=1) for column in values], axis=0)
    return [np.nanmedian(column[known], axis=1) for column in values]


def peaks(strengths: np.ndarray, values: np.ndarray) -> str:
    """Whether a curve is largest inside, and where, with its first, largest and last value."""
    if not values.size:
        return NO_MAP
    top = int(values.argmax())
    inside = f"yes, at {strengths[top]:g}" if 0 < top < len(values) - 1 else "no"
    return f"{inside} ({values[0]:.3f}, {values[top]:.3f}, {values[-1]:.3f})"


def falls(before: float, after: float, tolerance: float) -> str:
    """Whether a value falls by more than a tolerance, with both values."""
    return f"{'yes' if after < before - tolerance else 'no'} ({before:.3f} to {after:.3f})"


def correlations(results: Results) -> list[Row]:
    """How alignment goes with each measure over the models."""
    place = {"eps": Config().eps, "target": Config().target, "sigma_pm1": Config().sigma_pm1}
    models = explain.joined(results.of("pags_robustness"), results.of("pags_alignment"), **place)
    return explain.correlations(models)


def section(results: Results) -> list[report.Block]:
    """What each loss shows, and which measure of robustness goes with alignment over the models."""
    robust, aligned = both(results)
    lines, table = [holds_of(loss, robust, aligned) for loss in pags_jax.sweeps.swept(robust)], correlations(results)
    errors = [
        f"{error:.3f} of {name}"
        for name, column in (("a cosine", "cosine_error"), ("1 - LPIPS", "similarity_error"))
        if (error := largest(aligned, column)) is not None
    ]
    small = f"Standard errors over images are up to {' and '.join(errors)}: smaller falls say little." if errors else ""
    return [
        "The paper: robustness off the manifold comes before accuracy falls, gradients look most like the score at a "
        "middle strength, and excessive robustness gives up accuracy and sensitivity along the manifold as well. Each "
        "entry is read off the rows by the rule in its column's name, medians over seeds; peaks as values at the "
        f"weakest, the best and the strongest; falls from the most accurate strength to the strongest. {small}",
        report.Table(lines, "Does each sweep show it?"),
        "The paper's claim across models: off-manifold robustness explains which of them have aligned gradients, so "
        "that alignment should fall as the deviation off the manifold grows. Over the models within 5 points of the "
        "best accuracy, " + explain.sentence(table),
        "Spearman's rank correlation, and in brackets the p-value (two-sided) from "
        f"{explain.SHUFFLES} permutations of the models within their loss; given on: with the deviation on the "
        "manifold partialled out. The share is measured on the very gradients whose alignment it predicts; the "
        "deviations are measured without them.",
        report.Table(explain.lines(table), "Alignment of the logit's gradient, and what predicts it.", fold=True),
        *results.figures("alignment_by_robustness.png", "Alignment against deviation off the manifold",
                         "One marker a model."),
    ]  # fmt: skip


def claims(results: Results) -> list[Claim]:
    """Do alignment's peak, excessive robustness and the correlation show?"""
    robust, aligned = both(results)
    lines = [holds_of(loss, robust, aligned) for loss in pags_jax.sweeps.swept(robust)]

    def count(text: str, *columns: str) -> Claim:
        holds = [all(line[column].startswith("yes") for column in columns) for line in lines]
        names_ = [line["loss"] for line, held in zip(lines, holds, strict=True) if held]
        number = f"{sum(holds)} of {len(lines)} losses" + (f": {', '.join(names_)}" if names_ else "")
        return Claim("pags", text, verdict_of(holds), number)

    (row,) = (
        row
        for row in correlations(results)
        if (row["models"], row["alignment"], row["measure"]) == (explain.ACCURATE, "similarity", "off")
    )
    known = row["rho"] is not None and row["rho"] < 0
    text = "Off-manifold robustness explains which accurate models have aligned gradients (1 - LPIPS falls as the "
    text += "deviation off the manifold grows; shown: p < 0.05)."
    verdict = "shown" if known and row["p"] < 0.05 else "partly" if known else "not shown"
    return [
        count("Models become robust off the manifold before their accuracy falls.",
              "off falls below on while accurate"),
        count("Gradients look most like the score at a middle strength (1 - LPIPS).", "1 - LPIPS peaks inside"),
        count("Excessive robustness gives up accuracy and sensitivity along the manifold.",
              "the strongest loses accuracy", "and on-manifold sensitivity"),
        Claim("pags", text, verdict, f"rank correlation {explain.with_p(row['rho'], row['p'])}, {row['n']} models"),
    ]  # fmt: skip


READS = {"robustness": "pags_robustness", "alignment": "pags_alignment", "distractor": "pags_distractor"}
EXPERIMENT = Experiment(
    "pags_figures", Config, plan, draw=draw, heading="What each sweep shows, and which models have aligned gradients",
    section=section, claims=claims, parts=(Part({preset: {} for preset in PRESETS}, reads=READS),),
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(EXPERIMENT.run())
