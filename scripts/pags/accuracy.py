"""Accuracy of trained classifiers on images as they are and under attack: measured, drawn, and shown in the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scripts.harness import compiling, plot, report
from scripts.harness.experiment import Claim, Results, Row
from scripts.harness.lazy import jax, pags_jax
from scripts.pags.sweeps import BASELINE

NORMS = {"l2": "L2", "linf": "Linf", None: "L2"}
"""What figures and tables call norms; old rows do not name theirs."""


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


def draw(config: Any, table: Sequence[Row]) -> None:
    """Draw accuracy against the attack's radius at each loss's best strength, and against clean accuracy over all."""
    trained = report.where(table, failure=None)
    if not trained:
        raise ValueError(f"no model of {config.out} could be trained, see its rows; the first: {table[0]['failure']}")
    radii, norm = trained[0]["attack_eps"], NORMS[trained[0].get("attack_norm")]
    shown = len(radii) // 2
    attacked = [
        {"loss": row["loss"], "radius": radius, "accuracy": accuracy}
        for row in pags_jax.sweeps.best(trained)
        for radius, accuracy in zip((0.0, *radii), (row["test_accuracy"], *row["test_attacked"]), strict=True)
    ]
    pairs = [row | {"attacked": row["test_attacked"][shown]} for row in trained]
    titles = ("Best strength of each loss", "All strengths")
    with plot.panels(config.out / "accuracy.png", titles, width=3.6) as (chosen, every):
        plot.lines(chosen, attacked, x="radius", y="accuracy", by="loss")
        plot.paths(every, pairs, x="test_accuracy", y="attacked", along="strength", by="loss")
        chosen.set(xlabel=f"{norm} radius of PGD, pixels in [0, 1]", ylabel="accuracy (test)", ylim=(0, 1))
        every.set(xlabel="accuracy (test)", ylabel=f"under attack, radius {radii[shown]:g}")


def section(results: Results) -> list[report.Block]:
    """Clean and attacked accuracy of every model of the sweep."""
    table, columns = [], {"test_accuracy": "clean"}
    for row in report.where(results.rows, failure=None):
        norm = NORMS[row.get("attack_norm")]
        attacked = zip(row["attack_eps"], row["test_attacked"], strict=True)
        under = {f"{norm} radius {eps:g}": share for eps, share in attacked}
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
    chosen = pags_jax.sweeps.best(report.where(results.rows, failure=None))
    last = [row | {"last": row["test_attacked"][-1]} for row in chosen]
    text = f"Robust losses raise accuracy under attack (largest radius, {chosen[0]['attack_eps'][-1]:g})."
    return [beyond_undefended(text, last, "last", "{:.0%}")]


def beyond_undefended(text: str, table: Sequence[Row], column: str, form: str, number: str = "") -> Claim:
    """The claim that a column's median over each loss's models, but those that guess, is above the undefended ones'."""
    table, swept = pags_jax.questions.learned(table), pags_jax.sweeps.swept(table)
    base, *values = (report.median(table, column, loss=loss) for loss in (BASELINE, *swept))
    names = (loss.replace("_", " ") for loss in swept)
    words = ["none" if value is None else form.format(value) for value in (base, *values)]
    each = ", ".join(f"{name} {word}" for name, word in zip(names, words[1:], strict=True))
    holds = [base is not None and value is not None and value > base for value in values]
    return Claim(text, holds, f"{number}{each}; undefended {words[0]}")
