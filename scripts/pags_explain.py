"""Which measure of a model says whether its gradients are perceptually aligned: rank correlations over models.

Srinivas et al. (2023) explain alignment by off-manifold robustness. Each model of a sweep is one point.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from scripts import pags_tables
from scripts.harness import plot
from scripts.pags_tables import Row

#: What may explain alignment, by column.
MEASURES = {
    "off": "off-manifold deviation",
    "on": "on-manifold deviation",
    "ratio": "off over on",
    "off_share": "gradient's off-manifold share",
    "test_accuracy": "test accuracy",
}
ALIGNMENTS = {"cosine": "cosine", "similarity": "1 - LPIPS"}
ALL = "all"
SHUFFLES = 9999
"""Random orders behind a p-value; up to seven models, every order is taken."""


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
    at = pags_tables.nearest(robust, "eps_l2", eps)
    deviations = {(row["loss"], row["strength"], row["seed"]): row for row in at}
    part = [row for row in aligned if row["target"] == target]
    models = []
    for row in pags_tables.nearest(part, "sigma_pm1", sigma_pm1) if part else []:
        known = deviations.get((row["loss"], row["strength"], row["seed"]))
        if known is not None:
            on, off = known["on"], known["off"]
            ratio = off / on if on and off is not None else None
            models.append({**row, "eps_l2": known["eps_l2"], "on": on, "off": off, "ratio": ratio})
    return models


def correlation(x: Sequence[Any], y: Sequence[Any]) -> tuple[float, float] | None:
    """Spearman's rank correlation and its p-value, two-sided, from permutations.

    The p-value is the share of the orders of ``y`` that correlate as strongly: of all of them, or of random ones and of
    the one that is there.

    Args:
        x: Numbers.
        y: As many.

    Returns:
        Both; None for fewer than three models, or where one side has a single value.

    >>> [round(value, 3) for value in correlation([1, 2, 3, 4], [1, 4, 9, 16])]
    [1.0, 0.083]
    """
    ranks = np.stack([stats.rankdata(values) for values in (x, y)]) if len(x) else np.zeros((2, 0))
    if ranks.shape[1] < 3 or (np.ptp(ranks, axis=1) == 0).any():
        return None
    one, other = (ranks - ranks.mean(1, keepdims=True)) / (ranks.std(1, keepdims=True) * np.sqrt(ranks.shape[1]))
    rho = float(np.clip(one @ other, -1, 1))
    if len(one) <= 7:
        orders = np.array(list(itertools.permutations(other)))
        extra = 0
    else:
        orders = np.random.default_rng(0).permuted(np.tile(other, (SHUFFLES, 1)), axis=1)
        extra = 1
    as_strong = int((np.abs(orders @ one) >= abs(rho) - 1e-9).sum())
    return rho, (as_strong + extra) / (len(orders) + extra)


def correlations(models: Sequence[Row]) -> list[Row]:
    """A row for all models and each loss's, each alignment and each measure: n, rho and p; None if there is none."""
    groups = {ALL: list(models)}
    groups |= {loss: [row for row in models if row["loss"] == loss] for loss in pags_tables.swept(models)}
    table = []
    for (group, part), alignment, measure in itertools.product(groups.items(), ALIGNMENTS, MEASURES):
        pairs = [(row[measure], row[alignment]) for row in part]
        pairs = [pair for pair in pairs if None not in pair and np.isfinite(pair).all()]
        rho, p = correlation(*zip(*pairs, strict=True)) or (None, None) if pairs else (None, None)
        table.append({"models": group, "alignment": alignment, "measure": measure, "n": len(pairs), "rho": rho, "p": p})
    return table


def lines(table: Sequence[Row]) -> list[Row]:
    """`correlations` for readers: a line for each group and alignment, a column for each measure, as rho (p)."""
    shown: dict[tuple[str, str], Row] = {}
    for row in table:
        group = "all losses" if row["models"] == ALL else plot.look(row["models"]).label
        line = shown.setdefault(
            (group, row["alignment"]), {"models": group, "alignment": ALIGNMENTS[row["alignment"]], "n": row["n"]}
        )
        line["n"] = min(line["n"], row["n"])
        said = "none" if row["rho"] is None else f"{row['rho']:+.2f} ({row['p']:.2g})"
        line[MEASURES[row["measure"]]] = said
    return list(shown.values())


def sentence(table: Sequence[Row]) -> str:
    """Which measure goes with alignment most closely over all models, and how the paper's does, from `correlations`."""
    said = []
    for alignment, name in ALIGNMENTS.items():
        part = {row["measure"]: row for row in table if (row["models"], row["alignment"]) == (ALL, alignment)}
        known = [row for row in part.values() if row["rho"] is not None]
        if not known:
            said.append(f"{name}: too few models to say")
            continue
        top = max(known, key=lambda row: abs(row["rho"]))
        off = part["off"]["rho"]
        paper = "not known" if off is None else f"{off:+.2f}"
        said.append(
            f"{name}: {MEASURES[top['measure']]} predicts it best (rank correlation {top['rho']:+.2f}, p = "
            f"{top['p']:.2g}, {top['n']} models); off-manifold deviation has {paper}"
        )
    return "; ".join(said) + "."


def draw(models: Sequence[Row]) -> Any:
    """Alignment against the off-manifold deviation and against the gradient's off-manifold share, a marker a model."""
    across = {"off": f"off-manifold deviation, L2 step {models[0]['eps_l2']:.3g}", "off_share": MEASURES["off_share"]}
    up = {"cosine": f"cosine with the score, sigma {models[0]['sigma_pm1']:g}", "similarity": ALIGNMENTS["similarity"]}
    figure, axes = plot.figure(2, 2, titles=("Off-manifold robustness", "Off-manifold share"), share_y=True)
    for (y, panels), x in itertools.product(zip(up, axes, strict=True), across):
        panel = panels[list(across).index(x)]
        for loss in (pags_tables.BASELINE, *pags_tables.swept(models)):
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
