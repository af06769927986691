"""Which measure of a model says whether its gradients are perceptually aligned: rank correlations over models.

Srinivas et al. (2023) explain alignment by off-manifold robustness. Each model of a sweep is one point.
"""

import functools
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pags_jax import statistics
from scripts.harness import plot
from scripts.pags import tables
from scripts.pags.tables import Row

#: What may explain alignment, by column.
MEASURES = {
    "off": "off-manifold deviation",
    "on": "on-manifold deviation",
    "ratio": "off over on",
    "off_share": "gradient's off-manifold share",
    "test_accuracy": "test accuracy",
}
ALIGNMENTS = {"cosine": "cosine", "similarity": "1 - LPIPS"}
ALL, ACCURATE = "all", "accurate"
SHUFFLES = 9999
"""Random orders behind a p-value."""


def joined(robust: Sequence[Row], aligned: Sequence[Row], *, eps: float, target: str, sigma_pm1: float) -> list[Row]:
    """One row for each model that both runs measured: its deviations at one length, and its alignment at one place.

    Args:
        robust: Rows of `pags_robustness`.
        aligned: Rows of `pags_alignment`.
        eps: Length of the steps, the nearest that was measured.
        target: Gradient that is compared with its score.
        sigma_pm1: Noise level of the score, the nearest that was measured.

    Raises:
        ValueError: If the two runs say that they measured different models.
    """
    digests = {row["config.trained_sha256"] for row in (*robust, *aligned) if row.get("config.trained_sha256")}
    if len(digests) > 1:
        raise ValueError("--robustness and --alignment are of different trained models; measure the same --trained")
    at = tables.nearest(robust, "eps_l2", eps)
    deviations = {(row["loss"], row["strength"], row["seed"]): row for row in at}
    part = [row for row in aligned if row["target"] == target]
    models = []
    for row in tables.nearest(part, "sigma_pm1", sigma_pm1) if part else []:
        known = deviations.get((row["loss"], row["strength"], row["seed"]))
        if known is not None:
            on, off = known["on"], known["off"]
            ratio = off / on if on and off is not None else None
            models.append({**row, "eps_l2": known["eps_l2"], "on": on, "off": off, "ratio": ratio})
    return models


def correlations(models: Sequence[Row], *, accurate: float = 0.05) -> list[Row]:
    """Spearman's correlations of each alignment with each measure: over all models, the accurate ones, each loss's.

    Args:
        models: From `joined`.
        accurate: How far below the best test accuracy an accurate model may lie: the paper itself expects gradients of
            models that have lost theirs to be aligned with nothing.

    Returns:
        Rows with the number of models, ``rho`` and ``p``, permuted within losses; of several losses also
        ``rho_given_on`` and ``p_given_on``, with the on-manifold deviation partialled out. None where there is none.
    """
    best = max((row["test_accuracy"] for row in models if row["test_accuracy"] is not None), default=0.0)
    groups = {ALL: list(models), ACCURATE: [row for row in models if (row["test_accuracy"] or 0) >= best - accurate]}
    groups |= {loss: [row for row in models if row["loss"] == loss] for loss in tables.swept(models)}
    table = []
    for (group, part), alignment, measure in itertools.product(groups.items(), ALIGNMENTS, MEASURES):
        row = {"models": group, "alignment": alignment, "measure": measure}
        n, rho, p = correlation(part, measure, alignment)
        row |= {"n": n, "rho": rho, "p": p}
        if group in (ALL, ACCURATE):
            given = correlation(part, measure, alignment, given="on") if measure != "on" else (n, None, None)
            row |= {"rho_given_on": given[1], "p_given_on": given[2]}
        table.append(row)
    return table


def correlation(
    models: Sequence[Row], x: str, y: str, *, given: str | None = None
) -> tuple[int, float | None, float | None]:
    """How many models have these columns, their rank correlation, and its p-value from permutations within losses.

    Correlation and p-value are None for fewer than three models, or where one side has a single value.
    """
    columns = [name for name in (x, y, given) if name is not None]
    rows = [
        row for row in models if None not in (values := [row[name] for name in columns]) and np.isfinite(values).all()
    ]
    if len(rows) < 3:
        return len(rows), None, None
    arrays = [jnp.asarray([row[name] for row in rows], jnp.float32) for name in columns]
    losses = sorted({row["loss"] for row in rows})
    groups = jnp.asarray([losses.index(row["loss"]) for row in rows], jnp.int32)
    nothing = jnp.zeros_like(arrays[0])  # A constant takes nothing out, and compiles nothing more.
    beside = arrays[2] if given else nothing
    found = _compiled()(arrays[0], arrays[1], key=jax.random.key(0), groups=groups, given=beside)
    rho, p = float(found.rho), float(found.p)
    return (len(rows), None, None) if np.isnan(rho) else (len(rows), rho, p)


@functools.cache
def _compiled() -> Any:
    return jax.jit(partial(statistics.rank_correlation, permutations=SHUFFLES))


def lines(table: Sequence[Row]) -> list[Row]:
    """`correlations` for readers: a line for each group and alignment, a column for each measure, as rho (p)."""
    shown: dict[tuple[str, str, bool], Row] = {}
    for row, given in itertools.product(table, (False, True)):
        if given and "rho_given_on" not in row:
            continue
        group = {ALL: "all losses", ACCURATE: "accurate, all losses"}.get(row["models"]) or plot.look(
            row["models"]
        ).label
        group += ", given on" if given else ""
        line = shown.setdefault(
            (group, row["alignment"], given),
            {"models": group, "alignment": ALIGNMENTS[row["alignment"]], "n": row["n"]},
        )
        line["n"] = min(line["n"], row["n"])
        rho, p = (row["rho_given_on"], row["p_given_on"]) if given else (row["rho"], row["p"])
        line[MEASURES[row["measure"]]] = "none" if rho is None else f"{rho:+.2f} ({p:.2g})"
    return list(shown.values())


def sentence(table: Sequence[Row]) -> str:
    """Which measure goes with alignment most closely over the accurate models, and how the paper's does."""
    said = []
    for alignment, name in ALIGNMENTS.items():
        part = {row["measure"]: row for row in table if (row["models"], row["alignment"]) == (ACCURATE, alignment)}
        known = [row for row in part.values() if row["rho"] is not None]
        if not known:
            said.append(f"{name}: too few models to say")
            continue
        top, off = max(known, key=lambda row: abs(row["rho"])), part["off"]
        said.append(
            f"{name}: {MEASURES[top['measure']]} predicts it best (rank correlation {top['rho']:+.2f}, p = "
            f"{top['p']:.2g}, {top['n']} models); off-manifold deviation has {with_p(off['rho'], off['p'])}, given "
            f"that on the manifold {with_p(off['rho_given_on'], off['p_given_on'])}"
        )
    return "; ".join(said) + "."


def with_p(rho: float | None, p: float | None) -> str:
    """A correlation and its p-value for readers; "none" if there is none."""
    return "none" if rho is None else f"{rho:+.2f} (p = {p:.2g})"


def draw(models: Sequence[Row]) -> Any:
    """Alignment against the off-manifold deviation and against the gradient's off-manifold share, a marker a model."""
    across = {"off": f"off-manifold deviation, L2 step {models[0]['eps_l2']:.3g}", "off_share": MEASURES["off_share"]}
    up = {"cosine": f"cosine with the score, sigma {models[0]['sigma_pm1']:g}", "similarity": ALIGNMENTS["similarity"]}
    figure, axes = plot.figure(2, 2, titles=("Off-manifold robustness", "Off-manifold share"), share_y=True)
    for (y, panels), x in itertools.product(zip(up, axes, strict=True), across):
        panel = panels[list(across).index(x)]
        for loss in (tables.BASELINE, *tables.swept(models)):
            part = [row for row in models if row["loss"] == loss and None not in (row[x], row[y])]
            if part:
                look = plot.look(loss)
                panel.plot(
                    [row[x] for row in part],
                    [row[y] for row in part],
                    linestyle="none",
                    marker=look.marker,
                    color=look.color,
                    label=look.label,
                )
    for panel, label in zip(axes[1], across.values(), strict=True):
        panel.set(xlabel=label)
    for panel, label in zip(axes[:, 0], up.values(), strict=True):
        panel.set(ylabel=label)
    plot.legend(figure, columns=3)
    return figure
