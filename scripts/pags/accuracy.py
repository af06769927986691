"""Accuracy of trained classifiers on images as they are and under attack: measured, drawn, and shown in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scripts.harness import compiling, plot, report
from scripts.harness.experiment import Claim, Results, Row
from scripts.harness.lazy import jax, pags_jax
from scripts.pags.sweeps import BASELINE

BATCH_SIZE = 250
"""Images in one call."""


def columns(
    config: Any, model: Any, variables: Any, parts: Mapping[str, tuple[jax.Array, jax.Array]], *, key: jax.Array
) -> Row:
    """What a row says of a model's accuracies on parts of the data.

    ``PART_accuracy`` is the share of images classified rightly as they are, ``PART_attacked`` the share that stays
    right, for each radius, and ``PART_no_gradient``, for each radius, the number of images that stayed right though no
    attack on them had a gradient all the way, so that nothing is known of them; they are not among the former.
    """
    apply_fn = pags_jax.models.evaluator(model, variables)
    options = {"steps": config.attack_steps, "norm": config.norm, "attack": config.attack}
    options["unroll"] = jax.default_backend() == "cpu"
    row: Row = {"attack_eps": config.attack_eps, "attack_norm": config.norm}
    for part, (x, y) in parts.items():

        def share(judge: Any, x: Any, y: Any) -> Any:
            return pags_jax.evaluation.accuracy(judge, x, y, key=key, batch_size=min(BATCH_SIZE, len(x)))

        row[f"{part}_accuracy"] = share(partial(_as_is, apply_fn), x, y)
        x, y = x[: config.attack_rows], y[: config.attack_rows]
        found = [share(partial(_under_attack, apply_fn, radius, **options), x, y) for radius in config.attack_eps]
        row[f"{part}_attacked"] = [one.robust for one in found]
        row[f"{part}_no_gradient"] = [round(one.no_gradient * len(x)) for one in found]
    return row


@compiling.compiled()
def _as_is(apply_fn, x, y, key):
    del key
    return pags_jax.evaluation.correct(apply_fn, pags_jax.images.to_float(x), y)


@compiling.compiled("steps", "norm", "attack", "unroll")
def _under_attack(apply_fn, radius, x, y, key, *, norm, **options):
    x = pags_jax.images.to_float(x)
    return pags_jax.evaluation.under_attack(apply_fn, x, y, key=key, **{f"eps_{norm}": radius}, **options)


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
        "Every model sees the same training images. Attacks are projected gradient ascent (PGD) within a radius around "
        "each image, for pixels in [0, 1], and stay within [0, 1]. Under attack an image counts as right only if an "
        "attack on it had a gradient at every step; images without one are counted by themselves.",
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
