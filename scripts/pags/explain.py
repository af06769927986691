"""Which measure of a model says whether its gradients are perceptually aligned: rank correlations over models.

Srinivas et al. (2023) explain alignment by off-manifold robustness. Each model of a sweep is one point.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from scripts.harness import names, plot
from scripts.harness.experiment import Row
from scripts.harness.lazy import jax, pags_jax


class Shown(NamedTuple):
    """Where figures look at a sweep: the length of steps, the gradient, the noise level and the loss of accuracy."""

    eps: float = 2.637
    target: names.Target = "logit"
    sigma_pm1: float = 0.5
    tolerance: float = 0.02


SHOWN = Shown()
#: What may explain alignment, by column.
MEASURES = {
    "off": "off-manifold deviation",
    "on": "on-manifold deviation",
    "ratio": "off over on",
    "off_share": "gradient's off-manifold share",
    "test_accuracy": "test accuracy",
}
ALIGNMENTS = {"cosine": "cosine", "similarity": "1 - LPIPS"}
ALL, ACCURATE, BASELINE = "all", "accurate", "cross_entropy"
SHUFFLES = 9999
"""Random orders behind a p-value."""


def joined(robust: Sequence[Row], aligned: Sequence[Row], *, eps: float, target: str, sigma_pm1: float) -> list[Row]:
    """One row for each model that both runs measured, see `pags_jax.sweeps.join`."""
    check_same_models(robust, aligned)
    return pags_jax.sweeps.join(robust, aligned, eps_l2=eps, target=target, sigma_pm1=sigma_pm1)


def check_same_models(robust: Sequence[Row], aligned: Sequence[Row]) -> None:
    """Raises ValueError if the two runs say that they measured different models."""
    digests = {row["config.trained_sha256"] for row in (*robust, *aligned) if row.get("config.trained_sha256")}
    if len(digests) > 1:
        raise ValueError("--robustness and --alignment are of different trained models; measure the same --trained")


def correlations(models: Sequence[Row]) -> list[Row]:
    """Rank correlations of each alignment with each measure, see `pags_jax.sweeps.correlations`."""
    options = {"measures": MEASURES, "alignments": ALIGNMENTS, "permutations": SHUFFLES}
    return pags_jax.sweeps.correlations(models, key=jax.random.key(0), **options)


def lines(table: Sequence[Row]) -> list[Row]:
    """`correlations` for readers: a line for each group and alignment, a column for each measure, as rho (p)."""
    shown: dict[tuple[str, str, bool], Row] = {}
    for row, given in itertools.product(table, (False, True)):
        if given and "rho_given" not in row:
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
        rho, p = (row["rho_given"], row["p_given"]) if given else (row["rho"], row["p"])
        line[MEASURES[row["measure"]]] = "none" if rho is None else f"{rho:+.2f} ({p:.2g})"
    return list(shown.values())


def sentence(table: Sequence[Row]) -> str:
    """A sentence on which measure predicts alignment best over the accurate models, and how the paper's does."""
    parts = []
    for alignment, name in ALIGNMENTS.items():
        part = {row["measure"]: row for row in table if (row["models"], row["alignment"]) == (ACCURATE, alignment)}
        known = [row for row in part.values() if row["rho"] is not None]
        if not known:
            parts.append(f"{name}: too few models to tell")
            continue
        top, off = max(known, key=lambda row: abs(row["rho"])), part["off"]
        parts.append(
            f"{name}: {MEASURES[top['measure']]} predicts it best (rank correlation {top['rho']:+.2f}, p = "
            f"{top['p']:.2g}, {top['n']} models); off-manifold deviation has {with_p(off, 'rho', 'p')}, given that on "
            f"the manifold {with_p(off, 'rho_given', 'p_given')}"
        )
    return "; ".join(parts) + "."


def with_p(row: Row, rho: str, p: str) -> str:
    """A correlation of a row and its p-value, for readers."""
    return pags_jax.questions.with_p(row[rho], row[p])


def draw(path: Path, models: Sequence[Row]) -> None:
    """Alignment against the off-manifold deviation and against the gradient's off-manifold share, by model."""
    across = {"off": f"off-manifold deviation, L2 step {models[0]['eps_l2']:.3g}", "off_share": MEASURES["off_share"]}
    up = {"cosine": f"cosine with the score, sigma {models[0]['sigma_pm1']:g}", "similarity": ALIGNMENTS["similarity"]}
    cells = list(itertools.product(up, across))
    titles = ("Off-manifold robustness", "Off-manifold share", "", "")
    with plot.panels(path, titles, 2, legend=3, share_y=True) as axes:
        for panel, (y, x) in zip(axes, cells, strict=True):
            for loss in (BASELINE, *pags_jax.sweeps.swept(models)):
                part = [row for row in models if row["loss"] == loss and None not in (row[x], row[y])]
                if part:
                    xs, ys = ([row[column] for row in part] for column in (x, y))
                    plot.line(panel, xs, ys, plot.look(loss), linestyle="none")
            panel.set(xlabel=across[x] if y == "similarity" else "", ylabel=up[y] if x == "off" else "")
