"""The gradients part of the report: tables and figures from the rows of the runs on robust models."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from pags_jax import regimes, sweeps
from scripts.fmu.report import median
from scripts.harness import plot, report, store
from scripts.pags import claims, explain
from scripts.pags import figures as pags_figures

Row = sweeps.Row
FIGURES = "pags_figures"


def sections(folder: Path) -> list[report.Section]:
    """The sections, in order; those of runs that a preset does not have are left out.

    Args:
      folder: where each run folder lies under its name.
    """
    figures = folder / FIGURES
    sections = [
        report.Section("Robustness and gradients: what the paper shows, and these rows", claims.claim_blocks(folder)),
        *answered(folder / "pags_answers"),
        report.Section("Robust models: accuracy under attack", accuracy_blocks(folder)),
        report.Section("Three regimes of robustness", regime_blocks(folder, figures)),
        report.Section("Alignment of gradients with the score", alignment_blocks(folder / "pags_alignment", figures)),
        report.Section("Which models have aligned gradients", explanation_blocks(folder, figures)),
    ]
    if (folder / "pags_distractor").exists():
        blocks = distractor_blocks(folder / "pags_distractor", figures)
        sections.append(report.Section("Signal and distractor", blocks))
    if (folder / "pags_bayes").exists():
        sections.append(report.Section("Where the truth is known", bayes_blocks(folder / "pags_bayes")))
    return sections


def answered(folder: Path) -> list[report.Section]:
    """The questions that were fixed beforehand and their answers, where `pags_answers` has run."""
    if not folder.exists():
        return []
    columns = ("question", "loss", "strength", "estimate", "low", "high", "p", "beside", "verdict", "said")
    lines = [{name: row.get(name) for name in columns} for row in store.read_rows(folder)]
    return [
        report.Section(
            "The questions fixed beforehand",
            [
                "Questions, tests and what is called shown were written in benchmarks/README.md before the sweep was "
                "measured; numbers as there. A line for all losses, and one for each.",
                report.Table(lines, caption="Answers.", digits=3),
            ],
        )
    ]


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
    steps, maps = (store.read_rows(folder / f"pags_{name}") for name in ("robustness", "alignment"))
    config, lines = pags_figures.Config(), []
    tables = {"energy": maps, "unit steps": steps}
    if (folder / "pags_robustness_varying").exists():
        tables["unit steps, pixels that vary"] = store.read_rows(folder / "pags_robustness_varying")
    for loss, (rule, table) in itertools.product(sweeps.swept(steps), tables.items()):
        if rule == "energy":
            found = sweeps.share_regimes_of(table, loss, target=config.target, tolerance=config.tolerance)
        else:
            found = sweeps.regimes_of(table, loss, eps=config.eps, tolerance=config.tolerance)
        line: dict[str, Any] = {"loss": plot.look(loss).label, "rule": rule}
        for label in regimes.LABELS:
            span = found.span(label) if found else None
            why = found.absent.get(label) if found else claims.NO_MODEL
            line[label] = f"none: {why}" if span is None else f"{span[0]:g} to {span[1]:g}"
        lines.append(line | {"agreement of seeds": float(found.agreement.min()) if found else None})
    return [
        "A model is off-manifold robust where less than half of its gradient's squared length is off the data manifold "
        "(energy), or where a step off it moves the probabilities less than an equally long one along it (unit steps): "
        "the manifold has few dimensions and the rest many, so that a gradient without any direction passes the second "
        "rule. Pixels that vary: without those that are constant among an image's neighbours, such as a black "
        "background. Weak: before that holds. Aligned: it holds, and accuracy is within "
        f"{config.tolerance:g} of the sweep's best. Excessive: accuracy has fallen for good. A sweep whose best "
        "accuracy is not above chance by more than that has no regimes. The undefended model is strength 0.",
        report.Table(lines, caption="Strengths of each regime.", digits=3),
        report.Figure(
            figures / "regimes.png",
            "Accuracy, deviation on and off the manifold, and alignment against strength, with the regimes shaded",
            "Shades, by energy: weak (sand), aligned (green), excessive (red).",
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
            place | peak_of(part, loss, measure) for loss in sweeps.swept(part) for measure in ("cosine", "similarity")
        ]
    return [
        "Gradients and scores of the same images: the gradient of the sum of logits beside the unconditional score, of "
        "the class's logit beside the conditional one, of the log-probability beside their difference. The sum of "
        "logits is no function of the classifier: adding c(x) to all logits changes it and no probability. A softmax "
        "loss has no gradient along the sum of the last layer's weights: training leaves that sum as it was drawn.",
        report.Table(lines, caption="Where the alignment with the score is largest (medians over seeds).", digits=3),
        report.Figure(
            figures / "alignment.png",
            "Accuracy, 1 - LPIPS, cosine and off-manifold share of the gradient against strength for each loss",
            "The gradient of the label's logit and the conditional score.",
        ),
        report.Figure(
            figures / "gradients.png",
            "Images, their score, and gradients of models from undefended to excessively robust",
            "Gradients from weak to excessive robustness.",
        ),
    ]


def peak_of(table: list[Row], loss: str, measure: str) -> Row:
    """Where one measure of one loss is largest; None where no image has it."""
    base = [row for row in table if row["loss"] == sweeps.BASELINE]
    strengths, (values,) = sweeps.curves(table, loss, measure)
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
        "peaks inside": inside if peak else claims.NO_MAP,
    }


def explanation_blocks(folder: Path, figures: Path) -> list[Any]:
    """Which measure of robustness goes with alignment over the models of the sweep, and the figure."""
    config = pags_figures.Config()
    models = explain.joined(
        store.read_rows(folder / "pags_robustness"),
        store.read_rows(folder / "pags_alignment"),
        eps=config.eps,
        target=config.target,
        sigma_pm1=config.sigma_pm1,
    )
    table = explain.correlations(models)
    return [
        "The paper's claim across models: off-manifold robustness explains which of them have aligned gradients, so "
        "that alignment should fall as the deviation off the manifold grows. Over the models within 5 points of the "
        "best accuracy, " + explain.sentence(table),
        "Spearman's rank correlation, and in brackets the p-value (two-sided) from "
        f"{explain.SHUFFLES} permutations of the models within their loss; given on: with the deviation on the "
        "manifold partialled out. The share is measured on the very gradients whose alignment it predicts; the "
        "deviations are measured without them.",
        report.Table(
            explain.lines(table), caption="Alignment of the gradient of the label's logit, and what predicts it."
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
