"""Accuracy of trained classifiers on images as they are and under attack: measured, drawn, and shown in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.harness import compiling, plot, report
from scripts.harness.experiment import Claim, Results, Row
from scripts.harness.lazy import jax, pags_jax
from scripts.pags.sweeps import BASELINE


def measured(
    apply_fn: Any, x: jax.Array, y: jax.Array, *, key: jax.Array, radii: Sequence[float] = (), norm: str = "l2",
    steps: int = 1, attack: str = "pgd", rows: int | None = None,
) -> Any:  # fmt: skip
    """See `pags_jax.evaluation.accuracies`; all models of an architecture share its programs."""
    evaluation, options = pags_jax.evaluation, {"steps": steps, "norm": norm, "attack": attack}
    options["unroll"] = jax.default_backend() == "cpu"
    judges = {"as_is": compiling.jitted(evaluation.judge_as_is)}
    judges |= {"within": compiling.jitted(evaluation.judge_within, "steps", "norm", "attack", "unroll")}
    return evaluation.accuracies(apply_fn, x, y, key=key, radii=radii, rows=rows, **judges, **options)


def columns(config: Any, apply_fn: Any, parts: Mapping[str, tuple[jax.Array, jax.Array]], *, key: jax.Array) -> Row:
    """What a row says of a model's accuracies on parts of the data: each of the three, by part."""
    options = {"norm": config.norm, "steps": config.attack_steps, "attack": config.attack, "rows": config.attack_rows}
    row: Row = {"attack_eps": config.attack_eps, "attack_norm": config.norm}
    for part, (x, y) in parts.items():
        found = measured(apply_fn, x, y, key=key, radii=config.attack_eps, **options)
        row |= {f"{part}_accuracy": found.clean, f"{part}_attacked": found.robust}
        row |= {f"{part}_no_gradient": found.no_gradient}
    return row


def draw_accuracy(path: Path, table: Sequence[Row]) -> None:
    """Accuracy against the attack's radius at each loss's best strength, and against clean accuracy over all."""
    trained = [row for row in table if row["failure"] is None]
    radii = trained[0]["attack_eps"] if trained else []
    shown = len(radii) // 2
    titles = ("Best strength of each loss", "All strengths")
    attacked = [
        {"loss": row["loss"], "radius": radius, "accuracy": accuracy}
        for row in best(trained)
        for radius, accuracy in zip((0.0, *radii), (row["test_accuracy"], *row["test_attacked"]), strict=True)
    ]
    pairs = [row | {"attacked": row["test_attacked"][shown]} for row in trained]
    norm = "Linf" if trained and trained[0].get("attack_norm") == "linf" else "L2"
    radius = f", radius {radii[shown]:g}" if radii else ""
    with plot.panels(path, titles, width=3.6) as (chosen, every):
        plot.lines(chosen, attacked, x="radius", y="accuracy", by="loss")
        plot.paths(every, pairs, x="test_accuracy", y="attacked", along="strength", by="loss")
        chosen.set(xlabel=f"{norm} radius of PGD, pixels in [0, 1]", ylabel="accuracy (test)", ylim=(0, 1))
        every.set(xlabel="accuracy (test)", ylabel=f"under attack{radius}")


def best(trained: Sequence[Row]) -> list[Row]:
    """The rows of each loss's strength that does best on held-out images, as they are and under attack."""
    return pags_jax.sweeps.best(trained, ("validation_accuracy", "validation_attacked"))


def section(results: Results) -> list[report.Block]:
    """Clean and attacked accuracy of every model of the sweep."""
    table, columns = [], {"test_accuracy": "clean"}
    for row in results.rows:
        if row["failure"] is None:
            norm = {"l2": "L2", "linf": "Linf"}[row.get("attack_norm") or "l2"]
            attacked = dict(zip(row["attack_eps"], row["test_attacked"], strict=True))
            under = {f"{norm} radius {eps:g}": share for eps, share in attacked.items()}
            columns |= {name: name for name in under}
            counted = max(row["test_no_gradient"], default=0) if "test_no_gradient" in row else None
            table.append(row | under | {"no_gradient": counted})
    return [
        "Every model sees the same training images. Attacks are projected gradient ascent (PGD) within a radius "
        "around each image, for pixels in [0, 1], and stay within [0, 1]. Under attack an image counts as right only "
        "if an attack on it had a gradient at every step; images without a gradient have a column of their own.",
        report.Table(report.medians(table, ("loss", "strength"), columns | {"no_gradient": "images without gradient"}),
                     "Accuracy on test images as they are and under attack (medians over seeds).", digits=3),
        *results.figures("accuracy.png", "Accuracy against the radius of the attack for each loss, and under attack "
                         "against clean over all strengths", "Strengths are chosen on held-out training images."),
    ]  # fmt: skip


def claims(results: Results) -> list[Claim]:
    """Do robust losses make models robust?"""
    trained = [row for row in results.rows if row["failure"] is None]
    chosen = best(trained)
    last = {loss: np.median([row["test_attacked"][-1] for row in report.where(chosen, loss=loss)])
            for loss in (BASELINE, *pags_jax.sweeps.swept(chosen))}  # fmt: skip
    base = last.pop(BASELINE, 0.0)
    text = f"Robust losses raise accuracy under attack (largest radius, {trained[0]['attack_eps'][-1]:g})."
    number = ", ".join(f"{loss.replace('_', ' ')} {value:.0%}" for loss, value in last.items())
    return [Claim(text, [v > base for v in last.values()], f"{number}; undefended {base:.0%}")]
