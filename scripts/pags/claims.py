"""The paper's claims about robust models, each said to hold or not for each loss by its rows."""

from pathlib import Path
from typing import Any

import numpy as np

from pags_jax import sweeps
from pags_jax.sweeps import Row
from scripts.harness import plot, report, store
from scripts.pags import figures

#: What is said of a loss of which nothing could be measured.
NO_MODEL, NO_MAP = "no usable model", "no usable map"


def claim_blocks(folder: Path) -> list[Any]:
    """The paper's claims, each said to hold or not for each loss by its rows."""
    config = figures.Config()
    robust = store.read_rows(folder / "pags_robustness")
    aligned = [row for row in store.read_rows(folder / "pags_alignment") if row["target"] == config.target]
    robust, aligned = (
        sweeps.nearest(robust, "eps_l2", config.eps),
        sweeps.nearest(aligned, "sigma_pm1", config.sigma_pm1),
    )
    lines = [claims_of(loss, robust, aligned, config) for loss in sweeps.swept(robust)]
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


def claims_of(loss: str, robust: list[Row], aligned: list[Row], config: figures.Config) -> Row:
    """One loss's line."""
    found = sweeps.regimes_of(robust, loss, eps=config.eps, tolerance=config.tolerance)
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
    _, curves = sweeps.curves(table, loss, *columns)
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
