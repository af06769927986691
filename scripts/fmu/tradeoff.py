"""Accuracy against fairness over the penalty's weight, for the trained, the retrained and the unlearned model.

    python -m scripts.fmu.tradeoff --out runs/tradeoff

Oesterling et al. (2024), trade-off figure of the appendix. Rows: one for each data set, penalty, seed, weight and
model.
"""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fmu_jax import fit, metrics, predict_labels, remove
from fmu_jax.forget_sets import count_rows, draw_rows
from fmu_jax.penalty_forms import PenaltyName
from scripts.fmu import problems
from scripts.fmu.problems import ProblemConfig
from scripts.harness import cli, plot


@dataclass(frozen=True)
class Config(ProblemConfig):
    """Sweep the fairness weight; the sweep compiles once."""

    PRESETS: ClassVar = {
        "quick": {"repeats": 1, "weights": (0.0, 0.1, 1.0, 10.0)},
        "paper": {"weights": (0.0, *(10.0 ** (k / 4) for k in range(-12, 13)))},
    }

    out: Path = Path("runs/fmu_tradeoff")
    penalties: tuple[PenaltyName, ...] = ("equalized_odds", "demographic_parity", "equal_opportunity", "individual")
    """Fairness penalties to train with."""
    weights: tuple[cli.NonNegative, ...] = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
    """Weights of the penalty (they replace --fairness)."""
    fraction: cli.Share = 0.05
    """Share of the training rows to forget at random."""


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit for each data set, penalty and seed."""
    return config.units(penalty=config.penalties)


def main(config: Config) -> None:
    """Runs what is not done yet and draws the figure."""
    table = problems.run_units(config, plan(config), rows_of)
    draw(config, table)


def rows_of(config: Config, *, dataset: str, penalty: str, seed: int) -> list[dict[str, Any]]:
    """The whole sweep on one split."""
    problem = problems.train_problem(config, dataset, seed, penalty=penalty, fairness=0.0)
    train, test, noise = problem.train, problem.test, problem.noise
    rows = draw_rows(train, round(config.fraction * count_rows(train)), seed=seed)
    if rows is None:
        raise ValueError(
            f"--fraction: {config.fraction} of the {count_rows(train)} rows of {dataset} leaves a cell empty"
        )
    table = []
    for weight in config.weights:
        objective = dataclasses.replace(problem.objective, fairness=weight)
        trained = fit(objective, train, noise=noise).params
        models = {"no_removal": trained} | {
            method: remove(objective, trained, train, rows, method=method, noise=noise).params
            for method in ("retrain", "fair_newton")
        }
        for method, params in models.items():
            measured = metrics.group_metrics(predict_labels(objective, params, test.x), test)
            table.append({"weight": weight, "method": method} | problems.metric_columns(measured))
    return table


#: The measure that each penalty is about, and what to call it.
GAPS = {
    "equalized_odds": ("equalized_odds_mean", "average odds gap"),
    "demographic_parity": ("demographic_parity", "demographic parity gap"),
    "equal_opportunity": ("equal_opportunity", "equal opportunity gap"),
    "individual": ("equalized_odds_mean", "average odds gap"),
}


def draw(config: Config, table: Sequence[dict[str, Any]]) -> Path:
    """Gap and accuracy of each model, a row of panels a data set, a column a penalty."""
    titles = [
        f"{plot.look(dataset).label}, {plot.look(penalty).label}"
        for dataset in config.datasets
        for penalty in config.penalties
    ]
    figure, axes = plot.figure(len(config.datasets), len(config.penalties), titles=titles, width=3.0)
    for line, dataset in zip(axes, config.datasets, strict=True):
        for panel, penalty in zip(line, config.penalties, strict=True):
            column, label = GAPS[penalty]
            part = [row for row in table if (row["dataset"], row["penalty"]) == (dataset, penalty)]
            plot.paths(panel, part, x=column, y="accuracy", along="weight")
            panel.set(xlabel=f"{label} (test)", ylabel="accuracy (test)")
    plot.legend(figure)
    return plot.save(figure, config.out / "tradeoff.png")


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
