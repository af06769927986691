"""What each efficient method does to a model that was trained with a popular fairness intervention.

    python -m scripts.fmu.interventions --out runs/interventions

The negative claim of Oesterling et al. (2024), section 3, as an experiment. Interventions: in-processing (the
penalties), pre-processing (reweighing, Kamiran & Calders 2012), post-processing (group thresholds, Hardt et al. 2016,
refitted on what remains). For each, rows of the minority are forgotten by every efficient method and compared with
retraining *under the same intervention*: distance of the parameters, share of test predictions that differ, change of
the gap.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fmu_jax import metrics, remove
from fmu_jax.forget_sets import Subset, count_rows, draw_rows
from fmu_jax.objective import logits
from fmu_jax.removal import METHODS, fit_shards, make_shards
from fmu_jax.thresholds import fit_thresholds, predict_with_thresholds
from scripts.fmu import problems
from scripts.fmu.problems import ProblemConfig
from scripts.harness import cli, plot, rows

#: Intervention -> overrides of the objective; thresholds act on a plain model.
INTERVENTIONS: dict[str, dict[str, Any]] = {
    "none": {"fairness": 0.0},
    "equalized_odds": {"penalty": "equalized_odds"},
    "demographic_parity": {"penalty": "demographic_parity"},
    "equal_opportunity": {"penalty": "equal_opportunity"},
    "individual": {"penalty": "individual"},
    "reweighing": {"fairness": 0.0, "reweigh": True},
    "thresholds": {"fairness": 0.0},
}


@dataclass(frozen=True)
class Config(ProblemConfig):
    """Forget minority rows from models trained with each fairness intervention."""

    PRESETS: ClassVar = {"quick": {"repeats": 1}, "paper": {}}

    out: Path = Path("runs/fmu_interventions")
    subset: Subset = "minority"
    """Where the forgotten rows come from."""
    fraction: cli.Share = 0.05
    """Share of the training rows to forget."""
    shards: cli.Count = 5
    """Shards of the sharded baseline."""


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit for each data set, intervention and seed."""
    return config.units(intervention=tuple(INTERVENTIONS))


def main(config: Config) -> None:
    """Runs what is not done yet and draws the figure."""
    table = problems.run_units(config, plan(config), rows_of)
    draw(config, table)


def rows_of(config: Config, *, dataset: str, intervention: str, seed: int) -> list[dict[str, Any]]:
    """All methods on one trained model."""
    problem = problems.train_problem(config, dataset, seed, **INTERVENTIONS[intervention])
    objective, train, noise = problem.objective, problem.train, problem.noise
    forget = draw_rows(train, round(config.fraction * count_rows(train)), subset=config.subset, seed=seed)
    if forget is None:
        raise ValueError(f"--fraction: {config.subset} rows of {dataset} are fewer than {config.fraction:.0%} of all")
    shard = make_shards(len(train.y), config.shards, key=jax.random.fold_in(jax.random.key(seed), 1))
    table, reference = [], None
    for method in ("retrain", "no_removal", *(name for name in METHODS if name != "retrain")):
        params, remaining = problem.params, train
        if method == "sharded":
            ensemble = fit_shards(objective, train, shard).params
            removal = remove(objective, ensemble, train, forget, method=method, shard=shard, allow_unfair=True)
            params, remaining = removal.params, removal.data
        elif method != "no_removal":
            removal = remove(objective, params, train, forget, method=method, noise=noise, allow_unfair=True)
            params, remaining = removal.params, removal.data
        labels = predict(problem, intervention, params, remaining)
        measured = metrics.group_metrics(labels, problem.test)
        reference = (params, labels, measured) if reference is None else reference
        same_shape = params.shape == reference[0].shape
        table.append(
            {
                "method": method,
                "rows_removed": len(forget),
                "distance": float(np.linalg.norm(np.asarray(params) - np.asarray(reference[0])))
                if same_shape
                else None,
                "disagreement": float(jnp.average((labels != reference[1]).astype(float), weights=problem.test.weight)),
                "odds_gap_change": float(measured.equalized_odds_mean - reference[2].equalized_odds_mean),
                "parity_gap_change": float(measured.demographic_parity - reference[2].demographic_parity),
            }
            | problems.metric_columns(measured)
        )
    return table


def predict(problem: problems.Problem, intervention: str, params, remaining) -> jax.Array:
    """Test labels under the intervention; shards answer by mean log-odds, so that thresholds apply to them too."""

    def scores(x):
        if params.ndim == 2:
            return (x @ params.T).mean(axis=1)
        return logits(problem.objective, params, x)

    thresholds = jnp.zeros(remaining.groups, params.dtype)
    if intervention == "thresholds":
        thresholds = fit_thresholds(scores(problem.train.x), remaining)
    return predict_with_thresholds(scores(problem.test.x), problem.test.group, thresholds)


MEASURES = {
    "distance": "distance to retrained",
    "disagreement": "predictions differ",
    "odds_gap_change": "change of odds gap",
}


def summary(table: Sequence[dict[str, Any]], dataset: str) -> list[rows.Row]:
    """Medians over seeds: one row for each intervention and measure, one column a method."""
    part = [row for row in table if row["dataset"] == dataset and row["method"] != "retrain"]
    lines = []
    for measure in MEASURES:
        for intervention in INTERVENTIONS:
            line: rows.Row = {"measure": measure.replace("_", " "), "intervention": intervention.replace("_", " ")}
            for method in dict.fromkeys(row["method"] for row in part):
                values = [
                    abs(row[measure])
                    for row in part
                    if (row["intervention"], row["method"]) == (intervention, method) and row[measure] is not None
                ]
                line[plot.look(method).label] = float(np.median(values)) if values else None
            lines.append(line)
    return lines


def draw(config: Config, table: Sequence[dict[str, Any]]) -> Path:
    """Distance and change of the gap by intervention, a row of panels a data set."""
    titles = [f"{plot.look(dataset).label}, {label}" for dataset in config.datasets for label in MEASURES.values()]
    figure, axes = plot.figure(len(config.datasets), len(MEASURES), titles=titles, width=4.0, height=2.8)
    for line, dataset in zip(axes, config.datasets, strict=True):
        for panel, (column, smallest) in zip(line, zip(MEASURES, (1e-5, 1e-4, 1e-4), strict=True), strict=True):
            part = [
                row | {column: abs(row[column])}
                for row in table
                if row["dataset"] == dataset and row["method"] != "retrain" and row[column] is not None
            ]
            plot.points(panel, part, x="intervention", y=column, order=list(INTERVENTIONS))
            panel.set_ylabel("")
            panel.set_yscale("symlog", linthresh=smallest)
            panel.set_ylim(-smallest / 3, 3 * max(row[column] for row in part))
            for tick in panel.get_xticklabels():
                tick.set(rotation=30, ha="right", rotation_mode="anchor")
    plot.legend(figure, columns=7)
    return plot.save(figure, config.out / "interventions.png")


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
