"""The gradients part of the report: tables and figures from the rows of the runs on robust models."""

from pathlib import Path
from typing import Any

import numpy as np

from pags_jax import regimes
from scripts import pags_explain, pags_figures, pags_tables
from scripts.fmu_report import median
from scripts.harness import plot, report, store

Row = pags_tables.Row
FIGURES = "pags_figures"
#: What is said of a loss of which nothing could be measured.
NO_MODEL, NO_MAP = "no usable model", "no usable map"


def sections(folder: Path) -> list[report.Section]:
    """The sections, in order.

    Args:
      folder: where each run folder lies under its name.
    """
    figures = folder / FIGURES
    return [
        report.Section("Robustness and gradients: what the paper shows, and these rows", claim_blocks(folder)),
        report.Section("Robust models: accuracy under attack", accuracy_blocks(folder)),
        report.Section("Three regimes of robustness", regime_blocks(folder / "pags_robustness", figures)),
        report.Section("Alignment of gradients with the score", alignment_blocks(folder / "pags_alignment", figures)),
        report.Section("Which models have aligned gradients", explanation_blocks(folder, figures)),
        report.Section("Signal and distractor", distractor_blocks(folder / "pags_distractor", figures)),
        report.Section("Where the truth is known", bayes_blocks(folder / "pags_bayes")),
    ]


def claim_blocks(folder: Path) -> list[Any]:
    """The paper's claims, each said to hold or not for each loss by its rows."""
    config = pags_figures.Config()
    robust = store.read_rows(folder / "pags_robustness")
    aligned = [row for row in store.read_rows(folder / "pags_alignment") if row["target"] == config.target]
    robust, aligned = (
        pags_tables.nearest(robust, "eps_l2", config.eps),
        pags_tables.nearest(aligned, "sigma_pm1", config.sigma_pm1),
    )
    lines = [claims_of(loss, robust, aligned, config) for loss in pags_tables.swept(robust)]
    errors = [
        f"{error:.3f} of {name}"
        for name, column in (("a cosine", "cosine_error"), ("1 - LPIPS", "similarity_error"))
        if (error := largest(aligned, column)) is not None
    ]
    return [
        "The paper: robustness off the manifold comes before accuracy falls, gradients look most like the score at a "
        "middle strength, and excessive robustness gives up accuracy and sensitivity along the manifold as well. Each "
        "entry is read off the rows by the rule in its column's name, medians over seeds; peaks as values at the "
        "weakest, the best and the strongest; falls from the most accurate strength to the strongest. "
        + (
            f"Standard errors over images are up to {' and '.join(errors)}: smaller falls say little." if errors else ""
        ),
        report.Table(lines, caption="Does each sweep show it?"),
    ]


def claims_of(loss: str, robust: list[Row], aligned: list[Row], config: pags_figures.Config) -> Row:
    """One loss's line."""
    found = pags_tables.regimes_of(robust, loss, eps=config.eps, tolerance=config.tolerance)
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


def largest(table: list[Row], column: str) -> float | None:
    """Of the values that are there; None where there is none."""
    return max((row[column] for row in table if row[column] is not None and np.isfinite(row[column])), default=None)


def medians(table: list[Row], loss: str, *columns: str) -> list[np.ndarray]:
    """Medians over seeds of columns, at the strengths that have a value of each."""
    _, curves = pags_tables.curves(table, loss, *columns)
    known = np.all([~np.isnan(values).all(axis=1) for values in curves], axis=0)
    return [np.nanmedian(values[known], axis=1) for values in curves]


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


def accuracy_blocks(folder: Path) -> list[Any]:
    """Clean and attacked accuracy of every model of the sweep."""
    table = [row for row in store.read_rows(folder / "pags_train") if row["failure"] is None]
    lines = []
    for loss, strength in dict.fromkeys((row["loss"], row["strength"]) for row in table):
        part = [row for row in table if (row["loss"], row["strength"]) == (loss, strength)]
        line: dict[str, Any] = {
            "loss": plot.look(loss).label,
            "strength": strength,
            "clean": median(part, "test_accuracy"),
        }
        for place, eps in enumerate(part[0]["attack_eps"]):
            line[f"radius {eps:g}"] = float(np.median([row["test_attacked"][place] for row in part]))
        counted = all("test_no_gradient" in row for row in part)
        line["no gradient"] = max(max(row["test_no_gradient"], default=0) for row in part) if counted else None
        lines.append(line)
    alt = "Accuracy against the radius of the attack for each loss, and under attack against clean over all strengths"
    return [
        "Every model sees the same training images. Attacks stay within [0, 1], on each image by itself. Under attack "
        "an image counts as right only if an attack on it had a gradient at every step.",
        report.Table(
            lines,
            caption="Accuracy on test images (medians over seeds), and the most images at one radius that no attack "
            "could test for want of a gradient; runs from before these were counted say nothing.",
            digits=3,
        ),
        report.Figure(folder / "pags_train" / "accuracy.png", alt, "Strengths are chosen on held-out training images."),
    ]


def regime_blocks(folder: Path, figures: Path) -> list[Any]:
    """The regimes of each loss, by the stated rules, and the figures."""
    table = store.read_rows(folder)
    lines = []
    for loss in pags_tables.swept(table):
        found = pags_tables.regimes_of(
            table, loss, eps=pags_figures.Config.eps, tolerance=pags_figures.Config.tolerance
        )
        line: dict[str, Any] = {"loss": plot.look(loss).label}
        for label in regimes.LABELS:
            span = found.span(label) if found else None
            why = found.absent.get(label) if found else NO_MODEL
            line[label] = f"none: {why}" if span is None else f"{span[0]:g} to {span[1]:g}"
        lines.append(line | {"agreement of seeds": float(found.agreement.min()) if found else None})
    return [
        "A model is off-manifold robust where a step off the data manifold moves its probabilities less than an "
        "equally long step along it. Weak: before that holds. Aligned: it holds, and accuracy is within "
        f"{pags_figures.Config.tolerance:g} of the sweep's best. Excessive: accuracy has fallen for good. A sweep "
        "whose best accuracy is not above chance by more than that has no regimes.",
        report.Table(lines, caption="Strengths of each regime.", digits=3),
        report.Figure(
            figures / "regimes.png",
            "Accuracy, and deviation on and off the manifold, against strength, with the regimes shaded",
            "Shades: weak (sand), aligned (green), excessive (red).",
        ),
        report.Figure(
            figures / "noise.png",
            "Images with a step along the manifold, which keeps the garment's look, and off it, which looks like noise",
            "Steps along the manifold and off it.",
        ),
    ]


def alignment_blocks(folder: Path, figures: Path) -> list[Any]:
    """Where alignment peaks, said from the rows, and the figures."""
    table = store.read_rows(folder)
    lines = []
    for target, sigma in dict.fromkeys((row["target"], row["sigma_pm1"]) for row in table):
        part = [row for row in table if (row["target"], row["sigma_pm1"]) == (target, sigma)]
        place = {"gradient of": target.replace("_", " "), "sigma": sigma}
        lines += [
            place | peak_of(part, loss, measure)
            for loss in pags_tables.swept(part)
            for measure in ("cosine", "similarity")
        ]
    return [
        "Gradients and scores of the same images: the gradient of the sum of logits beside the unconditional score, of "
        "the class's logit beside the conditional one, of the log-probability beside their difference. The sum of "
        "logits is the paper's, but no function of the classifier: adding c(x) to all logits changes it and no "
        "probability.",
        report.Table(lines, caption="Where the alignment with the score is largest (medians over seeds).", digits=3),
        report.Figure(
            figures / "alignment.png",
            "Accuracy, 1 - LPIPS, cosine and off-manifold share of the gradient against strength for each loss",
            "The log-probability's gradient and the Bayes gradient.",
        ),
        report.Figure(
            figures / "gradients.png",
            "Images, their score, and gradients of models from undefended to excessively robust",
            "Gradients from weak to excessive robustness.",
        ),
    ]


def peak_of(table: list[Row], loss: str, measure: str) -> Row:
    """Where one measure of one loss is largest; None where no image has it."""
    base = [row for row in table if row["loss"] == pags_tables.BASELINE]
    strengths, (values,) = pags_tables.curves(table, loss, measure)
    known = ~np.isnan(values).all(axis=1)
    strengths, values = strengths[known], values[known]
    middle = np.nanmedian(values, axis=1) if values.size else np.full(1, np.nan)
    peak = regimes.peak(strengths, values) if values.size else None
    inside = "yes" if peak and peak.is_inner else "no"
    at = {"at the weakest": middle[0], "largest": middle.max(), "at the strongest": middle[-1]}
    at = {name: float(value) if peak else None for name, value in at.items()}
    return {
        "loss": plot.look(loss).label,
        "measure": "1 - LPIPS" if measure == "similarity" else measure,
        "undefended": median(base, measure),
        "at the weakest": at["at the weakest"],
        "largest": at["largest"],
        "at strength": peak.strength if peak else None,
        "at the strongest": at["at the strongest"],
        "peaks inside": inside if peak else NO_MAP,
    }


def explanation_blocks(folder: Path, figures: Path) -> list[Any]:
    """Which measure of robustness goes with alignment over the models of the sweep, and the figure."""
    config = pags_figures.Config()
    models = pags_explain.joined(
        store.read_rows(folder / "pags_robustness"),
        store.read_rows(folder / "pags_alignment"),
        eps=config.eps,
        target=config.target,
        sigma_pm1=config.sigma_pm1,
    )
    table = pags_explain.correlations(models)
    return [
        "The paper's claim across models: off-manifold robustness explains which of them have aligned gradients, so "
        "that alignment should fall as the deviation off the manifold grows. Over the models of this sweep, "
        + pags_explain.sentence(table),
        "Spearman's rank correlation, and in brackets the p-value from permutations (two-sided; every order up to "
        f"seven models, else {pags_explain.SHUFFLES} random ones). Models of one loss differ in strength alone and are "
        "not independent, so that p-values over all of them are too small. The share is measured on the very gradients "
        "whose alignment it predicts; the deviations are measured without them.",
        report.Table(
            pags_explain.lines(table), caption="Alignment of the log-probability's gradient, and what predicts it."
        ),
        report.Figure(
            figures / "alignment_by_robustness.png",
            "Cosine and 1 - LPIPS against off-manifold deviation and against the gradient's off-manifold share",
            "One marker a model.",
        ),
    ]


def distractor_blocks(folder: Path, figures: Path) -> list[Any]:
    """Ratios, and the figure."""
    table = store.read_rows(folder)
    lines = []
    for loss, strength in dict.fromkeys((row["loss"], row["strength"]) for row in table):
        part = [row for row in table if (row["loss"], row["strength"]) == (loss, strength)]
        line: dict[str, Any] = {
            "loss": plot.look(loss).label,
            "strength": strength,
            "accuracy": median(part, "test_accuracy"),
        }
        for sigma in sorted({row["sigma"] for row in part}):
            line[f"sigma {sigma:g}"] = median([row for row in part if row["sigma"] == sigma], "ratio")
        lines.append(line)
    return [
        "Each image stands beside a letter that says nothing of its class. A model that uses the signal alone reacts "
        "to noise on the image more than to equal noise on the letter.",
        report.Table(
            lines, caption="Change under noise on the signal over that under noise on the distractor.", digits=3
        ),
        report.Figure(
            figures / "distractor.png", "Ratio of signal to distractor against the noise, and both parts", "Figure 5."
        ),
    ]


def bayes_blocks(folder: Path) -> list[Any]:
    """The figure of `pags_bayes`."""
    blocks: list[Any] = [
        "Synthetic data on a linear and a curved manifold whose class posterior, tangent space and score are closed "
        "forms: the Bayes-optimal model's gradient lies in the signal's tangent space."
    ]
    for path in sorted(folder.glob("*.png")):
        alt = "Off-manifold share, distractor share and cosine with the Bayes gradient against strength"
        blocks.append(report.Figure(path, alt, "Networks against the closed form."))
    return blocks
