"""What a removal costs in epsilon: our bounds beside the paper's, against the share removed, sigma and delta.

    python -m scripts.fmu.certificates --out runs/certificates

Oesterling et al. (2024), figure 5 and appendix. Rows: one for each data set, seed, sigma, fraction and delta.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fmu_jax import certify, privacy, remove
from fmu_jax.forget_sets import count_rows, draw_rows
from scripts.fmu import problems
from scripts.fmu.problems import ProblemConfig
from scripts.harness import cli, plot

BOUNDS = ("residual_norm", "row_bound", "gram_bound", "paper_data_dependent", "paper_worst_case")


@dataclass(frozen=True)
class Config(ProblemConfig):
    """Certify random removals under many noise levels and failure probabilities."""

    PRESETS: ClassVar = {
        "quick": {"repeats": 1, "sigmas": (0.1, 1.0, 10.0)},
        "paper": {"sigmas": tuple(10.0**k for k in range(-4, 5)), "deltas": (1e-4, 1e-3, 1e-2, 1e-1)},
    }

    out: Path = Path("runs/fmu_certificates")
    sigmas: tuple[cli.Positive, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    """Standard deviations of the objective perturbation."""
    deltas: tuple[cli.Probability, ...] = (1e-5, 1e-3, 1e-1)
    """Failure probabilities."""
    fractions: tuple[cli.Share, ...] = (0.001, 0.01, 0.05, 0.2)
    """Shares of the training rows to forget at random."""
    shown_fraction: cli.Share = 0.01
    """Share at which epsilon is drawn against sigma; one of the fractions."""
    shown_sigma: cli.Positive = 1.0
    """Sigma at which the bounds are drawn against the share removed; one of the sigmas."""


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit for each data set, sigma and seed."""
    for shown, among, flag in (
        (config.shown_fraction, config.fractions, "--shown-fraction"),
        (config.shown_sigma, config.sigmas, "--shown-sigma"),
    ):
        if shown not in among:
            raise ValueError(f"{flag}: {shown} is not measured; choose one of {', '.join(map(str, among))}")
    return config.units(sigma=config.sigmas)


def main(config: Config) -> None:
    """Runs what is not done yet and draws the figure."""
    table = problems.run_units(config, plan(config), rows_of)
    draw(config, table)


def rows_of(config: Config, *, dataset: str, sigma: float, seed: int) -> list[dict[str, Any]]:
    """Certificates of one trained model's removals."""
    problem = problems.train_problem(config, dataset, seed, sigma=sigma)
    table = []
    for fraction in config.fractions:
        rows = draw_rows(problem.train, round(fraction * count_rows(problem.train)), seed=seed)
        if rows is None:
            continue
        removal = remove(problem.objective, problem.params, problem.train, rows, noise=problem.noise)
        for delta in config.deltas:
            certificate = certify(
                problem.objective, problem.params, removal, sigma=sigma, delta=delta, noise=problem.noise
            )
            bounds = {name: float(getattr(certificate, name)) for name in BOUNDS}
            epsilons = {f"epsilon_{name}": _epsilon(bound, sigma, delta) for name, bound in bounds.items()}
            exact = float(privacy.gaussian_epsilon(bounds["residual_norm"], sigma, delta))
            about = {"fraction": fraction, "rows_removed": len(rows), "delta": delta}
            table.append(about | bounds | epsilons | {"epsilon_gaussian": exact})
    return table


def _epsilon(bound: float, sigma: float, delta: float) -> float:
    return float(privacy.certified_epsilon(bound, sigma, delta))


def draw(config: Config, table: Sequence[dict[str, Any]]) -> Path:
    """Bounds against the share removed, and epsilon against sigma, one row of panels a data set."""
    delta = config.deltas[0]
    left_title, right_title = f"bounds at sigma = {config.shown_sigma:g}", f"{config.shown_fraction:.1%} removed"
    titles = [f"{plot.look(name).label}, {title}" for name in config.datasets for title in (left_title, right_title)]
    figure, axes = plot.figure(len(config.datasets), 2, titles=titles)
    for (left, right), dataset in zip(axes, config.datasets, strict=True):
        part = [row for row in table if row["dataset"] == dataset and np.isclose(row["delta"], delta)]
        for name in BOUNDS:
            at_sigma = [row | {"bound": name} for row in part if np.isclose(row["sigma"], config.shown_sigma)]
            plot.lines(left, at_sigma, x="fraction", y=name, by="bound")
            at_share = [row | {"bound": name} for row in part if np.isclose(row["fraction"], config.shown_fraction)]
            plot.lines(right, at_share, x="sigma", y=f"epsilon_{name}", by="bound")
        left.set(xscale="log", yscale="log", xlabel="share removed", ylabel="bound on the residual")
        right.set(xscale="log", yscale="log", xlabel="sigma", ylabel=f"epsilon (delta = {delta:g})")
        right.axhline(1, color="0.5", linewidth=0.8)
    plot.legend(figure, columns=3)
    return plot.save(figure, config.out / "certificates.png")


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
