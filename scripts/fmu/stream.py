"""Deletion requests one by one: what each published model has spent, and when a refresh is due.

    python -m scripts.fmu.stream --out runs/stream

Requests come in random order, or from one group only. At checkpoints the certified bound is set beside the exact
residual, and the streamed model beside a retrained one. Rows: one for each data set, order, seed and checkpoint.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from fmu_jax import FitResult, fit, metrics, predict_labels, privacy, stream
from fmu_jax.forget_sets import Subset, count_rows, draw_requests
from scripts.fmu import problems
from scripts.fmu.problems import ProblemConfig
from scripts.harness import cli, looks, plot


@dataclass(frozen=True)
class Config(ProblemConfig):
    """Serve a stream of deletion requests under a budget."""

    PRESETS: ClassVar = {"quick": {"repeats": 1, "share": 0.2}, "paper": {"repeats": 5}}

    out: Path = Path("runs/fmu_stream")
    repeats: cli.Count = 3
    """Seeds, counted from --seed: each draws a split, a perturbation and the order of the requests."""
    subsets: tuple[Subset, ...] = ("random", "minority")
    """Whose requests come."""
    share: cli.Share = 0.4
    """Requests, as a share of all training rows."""
    epsilon: cli.Positive = 1.0
    """Budget: the largest epsilon of a published model."""
    delta: cli.Probability = 1e-5
    """Failure probability."""
    checkpoints: cli.Count = 80
    """At how many of the requests the exact residual is computed."""


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit for each data set, order and seed."""
    return config.units(subset=config.subsets)


def main(config: Config) -> None:
    """Runs what is not done yet and draws the figure."""
    table = problems.run_units(config, plan(config), rows_of)
    draw(config, table)


def rows_of(config: Config, *, dataset: str, subset: Subset, seed: int) -> list[dict[str, Any]]:
    """Checkpoints of one stream."""
    problem = problems.train_problem(config, dataset, seed)
    objective, train, noise = problem.objective, problem.train, problem.noise
    fitted = FitResult(problem.params, jnp.ones((), bool), jnp.zeros(()), jnp.zeros((), jnp.int32))
    state = stream.start(
        objective, fitted, train, noise=noise, sigma=config.sigma, delta=config.delta, budget=config.epsilon
    )
    order = draw_requests(train, round(config.share * count_rows(train)), subset=subset, seed=seed)
    _, remaining, served = stream.serve(state, train, order)
    marks = np.unique(np.linspace(0, len(order) - 1, config.checkpoints).astype(int))
    exact = stream.exact_residuals(objective, train, order, served.params[marks], marks, noise=noise)
    exact_epsilon = privacy.certified_epsilon(exact, config.sigma, config.delta)
    epsilon, bound = np.asarray(served.epsilon), np.asarray(served.residual_bound)
    refreshes = np.cumsum(np.asarray(served.refreshed))
    table = []
    for t, residual, lowest in zip(marks.tolist(), exact.tolist(), exact_epsilon.tolist(), strict=True):
        row = {
            "request": t + 1,
            "share": (t + 1) / count_rows(train),
            "epsilon": float(epsilon[t]),
            "exact_epsilon": lowest,
            "residual_bound": float(bound[t]),
            "residual_norm": residual,
            "refreshes": int(refreshes[t]),
        }
        if t == marks[-1]:
            params = served.params[t]
            retrained = fit(objective, remaining, noise=noise).params
            row |= {"distance": float(jnp.linalg.norm(params - retrained))}
            for name, model in (("streamed", params), ("retrained", retrained)):
                test = metrics.group_metrics(predict_labels(objective, model, problem.test.x), problem.test)
                row |= {f"{name}_accuracy": float(test.accuracy), f"{name}_odds": float(test.equalized_odds_mean)}
        table.append(row)
    return table


def draw(config: Config, table: Sequence[dict[str, Any]]) -> Path:
    """Epsilon against the share deleted, certified and exact, with the budget; the first seed of each stream."""
    names = [(dataset, subset) for dataset in config.datasets for subset in config.subsets]
    titles = [f"{plot.look(dataset).label}, {subset} rows" for dataset, subset in names]
    figure, axes = plot.figure(len(config.datasets), len(config.subsets), titles=titles, width=4.2)
    for (dataset, subset), panel in zip(names, axes.flat, strict=True):
        part = [row for row in table if (row["dataset"], row["subset"], row["seed"]) == (dataset, subset, config.seed)]
        for column, look in SERIES.items():
            x, y = [row["share"] for row in part], [row[column] for row in part]
            panel.plot(x, y, color=look.color, linestyle=look.dash, label=look.label)
        panel.axhline(config.epsilon, color=looks.GREY, linewidth=0.8, label="budget")
        panel.set(yscale="log", xlabel="share of all rows deleted", ylabel=f"epsilon (delta = {config.delta:g})")
        panel.set_ylim(1e-4 * config.epsilon, 3 * config.epsilon)
    plot.legend(figure)
    return plot.save(figure, config.out / "stream.png")


SERIES = {
    "epsilon": looks.Look("certified, no row read", looks.VERMILION, "o"),
    "exact_epsilon": looks.Look("of the exact residual", looks.BLACK, "s", (0, (4.0, 2.0))),
}


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
