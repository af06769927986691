"""Forget rows by every method: fairness, accuracy, distance to the retrained model and time against the share removed.

    python -m scripts.fmu.removal --out runs/removal
    python -m scripts.fmu.removal --datasets compas --fractions 0.3 0.6 0.9 --fractions-of subset --subsets minority

Oesterling et al. (2024), figures 2 to 4. Rows: one for each data set, penalty, seed, subset, fraction and method.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import numpy as np

from fmu_jax import certify, fairness_interval, metrics, predict_labels, remove
from fmu_jax.forget_sets import Subset, count_rows, draw_rows, subset_rows
from fmu_jax.penalty_forms import PenaltyName
from fmu_jax.removal import METHODS, fit_shards, make_shards
from scripts.fmu import problems
from scripts.fmu.problems import ProblemConfig
from scripts.harness import cli, measure, plot

SHOWN = {
    "equalized_odds_mean": "average odds gap (test)",
    "accuracy": "accuracy (test)",
    "distance": "distance to the retrained model",
    "time_ms": "time of one removal [ms]",
}


@dataclass(frozen=True)
class Config(ProblemConfig):
    """Forget rows by every method, and see what it does to fairness, accuracy and parameters."""

    PRESETS: ClassVar = {"quick": {"repeats": 1, "fractions": (0.01, 0.05)}, "paper": {"repeats": 5}}

    out: Path = Path("runs/fmu_removal")
    penalties: tuple[PenaltyName, ...] = ("equalized_odds",)
    """Fairness penalties to train with."""
    subsets: tuple[Subset, ...] = ("random", "minority", "majority")
    """Where the forgotten rows come from."""
    fractions: tuple[cli.Share, ...] = (0.01, 0.05, 0.1, 0.15, 0.2)
    """Shares to forget; one that a subset cannot give is left out."""
    fractions_of: Literal["rows", "subset"] = "rows"
    """Whether a share is of all training rows or of the subset."""
    shards: cli.Count = 5
    """Shards of the sharded baseline."""
    delta: cli.Probability = 1e-5
    """Failure probability of the certificates."""


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit for each data set, penalty and seed."""
    return config.units(penalty=config.penalties)


def main(config: Config) -> None:
    """Runs what is not done yet and draws the figures."""
    table = problems.run_units(config, plan(config), rows_of)
    draw(config.out, table)


def rows_of(config: Config, *, dataset: str, penalty: str, seed: int) -> list[dict[str, Any]]:
    """All removals from one trained model."""
    problem = problems.train_problem(config, dataset, seed, penalty=penalty)
    train, key = problem.train, jax.random.key(seed)
    shard = make_shards(len(train.y), config.shards, key=jax.random.fold_in(key, 1))
    ensemble = fit_shards(problem.objective, train, shard).params
    table = []
    for subset in config.subsets:
        whole = len(subset_rows(train, subset if config.fractions_of == "subset" else "random"))
        for fraction in config.fractions:
            rows = draw_rows(train, round(fraction * whole), subset=subset, seed=seed)
            if rows is None:
                continue
            about = {"subset": subset, "fraction": fraction, "rows_removed": len(rows)}
            about |= {"train_rows": count_rows(train), "features": train.x.shape[1]}
            retrained = None
            for method in ("retrain", "no_removal", *(name for name in METHODS if name != "retrain")):
                row, params = _one(config, problem, method, rows, shard, ensemble)
                retrained = params if retrained is None else retrained
                distance = (
                    None if method == "sharded" else float(np.linalg.norm(np.asarray(params) - np.asarray(retrained)))
                )
                table.append(about | {"method": method, "distance": distance} | row)
    return table


def _one(config: Config, problem: problems.Problem, method: str, rows, shard, ensemble) -> tuple[dict, Any]:
    """One removal: its row and its parameters."""
    objective, noise, test = problem.objective, problem.noise, problem.test
    if method == "no_removal":
        labels = predict_labels(objective, problem.params, test.x)
        return problems.metric_columns(metrics.group_metrics(labels, test)), problem.params
    options: dict[str, Any] = {"method": method, "noise": noise, "allow_unfair": True}
    params = problem.params
    if method == "sharded":
        params, options = ensemble, options | {"noise": None, "shard": shard}
    removal, timing = measure.time_call(lambda: remove(objective, params, problem.train, rows, **options), repeats=1)
    labels = METHODS[method].predict(objective, removal.params, test.x)
    row = {"time_ms": timing["median_ms"]} | problems.metric_columns(metrics.group_metrics(labels, test))
    if method == "fair_newton" and config.sigma > 0:
        certificate = certify(objective, problem.params, removal, sigma=config.sigma, delta=config.delta, noise=noise)
        interval = fairness_interval(objective, removal, test, noise=noise)
        row |= {name: float(getattr(certificate, name)) for name in CERTIFIED}
        row |= {"undecided": int(interval.undecided)}
        row |= {f"odds_{end}": float(v) for end, v in zip(("low", "high"), interval.equalized_odds_mean, strict=True)}
    return row, removal.params


CERTIFIED = (
    "residual_norm", "row_bound", "gram_bound", "paper_data_dependent", "paper_worst_case", "epsilon",
    "distance_bound", "local_distance_bound",
)  # fmt: skip


def draw(out: Path, table: Sequence[dict[str, Any]]) -> list[Path]:
    """One figure a data set and penalty: measures by subset against the fraction."""
    paths = []
    for dataset, penalty in dict.fromkeys((row["dataset"], row["penalty"]) for row in table):
        chosen = [row for row in table if (row["dataset"], row["penalty"]) == (dataset, penalty)]
        subsets = list(dict.fromkeys(row["subset"] for row in chosen))
        figure, axes = plot.figure(
            len(SHOWN),
            len(subsets),
            titles=[f"{plot.look(dataset).label}, {subset}" for subset in subsets],
            share_y=True,
            height=2.2,
        )
        for line, (column, label) in enumerate(SHOWN.items()):
            for panel, subset in zip(axes[line], subsets, strict=True):
                part = [row for row in chosen if row["subset"] == subset]
                if column == "distance":
                    part = [row for row in part if row["method"] != "retrain"]
                plot.lines(panel, part, x="fraction", y=column)
                panel.set_xlabel("share removed")
                panel.set_ylabel(label if subset == subsets[0] else "")
                if column in ("distance", "time_ms"):
                    panel.set_yscale("log")
        plot.legend(figure)
        paths.append(plot.save(figure, out / f"removal_{dataset}_{penalty}.png"))
    return paths


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
