"""What each efficient method does to a model that was trained with a popular fairness intervention.

    python -m scripts.fmu.interventions --out runs/interventions

This tests the negative claim of Oesterling et al. (2024), section 3, on in-processing (the penalties), pre-processing
(reweighing, Kamiran & Calders 2012) and post-processing (group thresholds, Hardt et al. 2016, refitted on what
remains). Every method is compared with retraining *under the same intervention*.
"""

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fmu_jax.penalty_forms import FORMS
from scripts.fmu import problems
from scripts.harness import cli, names, plot, report
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax, jax

#: Intervention -> overrides of the objective; thresholds act on a plain model.
INTERVENTIONS: dict[str, dict[str, Any]] = {
    "none": {"fairness": 0.0},
    **{penalty: {"penalty": penalty} for penalty in FORMS},
    "reweighing": {"fairness": 0.0, "reweigh": True},
    "thresholds": {"fairness": 0.0},
}
#: The measures, with what they are called and the smallest value that their axis tells from zero.
MEASURES = {
    "distance": ("distance to retrained", 1e-5),
    "disagreement": ("share of predictions that differ", 1e-4),
    "odds_gap_change": ("change of the odds gap", 1e-4),
}


@dataclass(frozen=True)
class Config(problems.ProblemConfig):
    """Forget minority rows from models trained with each fairness intervention."""

    PRESETS: ClassVar = {"quick": {"repeats": 1}, "paper": {}}
    AXES: ClassVar = {"dataset": "datasets", "intervention": tuple(INTERVENTIONS)}

    subset: names.Subset = "minority"
    """Subset from which rows are forgotten."""
    fraction: cli.Share = 0.05
    """Share of the training rows to forget."""
    shards: cli.Count = 5
    """Number of shards of the sharded baseline."""


def rows_of(config: Config, *, dataset: str, intervention: str, seed: int) -> list[Row]:
    """All methods on one trained model."""
    train, test, objective, noise, fitted = problems.train_problem(config, dataset, seed, **INTERVENTIONS[intervention])
    forget = problems.draw_share(train, config.fraction, config.subset, seed=seed)
    key = jax.random.fold_in(jax.random.key(seed), 1)
    ensemble = fmu_jax.removal.fit_ensemble(objective, train, config.shards, key=key)
    found = fmu_jax.comparison.compare(objective, fitted.params, train, forget, noise=noise, ensemble=ensemble)
    table = fmu_jax.comparison.changes(found, train, test, thresholds=intervention == "thresholds")
    return [{"rows_removed": len(forget)} | row for row in table]


def without_retrain(table: list[Row], dataset: str) -> list[Row]:
    """The rows of a data set to compare with retraining, changes without their sign."""
    part = [row for row in table if row["dataset"] == dataset and row["method"] != "retrain"]
    return [row | {"odds_gap_change": abs(row["odds_gap_change"])} for row in part]


def draw(config: Config, table: list[Row]) -> None:
    """Draw each measure by intervention, a figure a data set."""
    for dataset in config.datasets:
        titles = [f"{plot.look(dataset).label}, {label}" for label, _ in MEASURES.values()]
        path = config.out / f"interventions_{dataset}.png"
        with plot.panels(path, titles, legend=7, width=3.5, height=3.0) as axes:
            for panel, (column, (_, smallest)) in zip(axes, MEASURES.items(), strict=True):
                part = [row for row in without_retrain(table, dataset) if row[column] is not None]
                plot.points(panel, part, x="intervention", y=column, order=list(INTERVENTIONS))
                panel.set_ylabel("")
                panel.set_yscale("symlog", linthresh=smallest)
                panel.set_ylim(-smallest / 3, 3 * max(row[column] for row in part))
                for tick in panel.get_xticklabels():
                    tick.set(rotation=30, ha="right", rotation_mode="anchor")


def summary(table: list[Row], dataset: str) -> list[Row]:
    """Medians over seeds: one line for each intervention and measure, one column a method."""
    lines, parts = [], report.groups(without_retrain(table, dataset), "intervention")
    for (measure, (label, _)), (intervention, part) in itertools.product(MEASURES.items(), parts.items()):
        methods = {plot.look(row["method"]).label: row["method"] for row in part}
        line = {"measure": label, "intervention": intervention.replace("_", " ")}
        lines.append(line | {title: report.median(part, measure, method=name) for title, name in methods.items()})
    return lines


def section(results: Results) -> list[report.Block]:
    """Tables and figures of each data set."""
    blocks: list[report.Block] = [
        "A model is trained with each intervention, some of its minority rows are forgotten, and the result is "
        "compared with retraining under the same intervention. Group thresholds are refitted. Here the sharded "
        "method predicts by the mean log-odds of its shards, and trains them without noise."
    ]
    for dataset in dict.fromkeys(row["dataset"] for row in results.rows):
        caption = f"{plot.look(dataset).label}: compared with retraining under the intervention (medians over seeds)."
        blocks.append(report.Table(summary(results.rows, dataset), caption, digits=2))
    alt = "Distance to the retrained model, differing predictions and change of the gap, by intervention and method"
    return blocks + results.figures("interventions_*.png", alt, "Every intervention and every method, on test rows.")


def claims(results: Results) -> list[Claim]:
    """Under a fair objective, do other methods change more predictions than the fair step?"""
    others, ours, holds = [], [], []
    fair_objectives = [row for row in results.rows if INTERVENTIONS[row["intervention"]].get("penalty")]
    for part in report.groups(fair_objectives, "dataset", "intervention").values():
        methods = ("fair_newton", "newton", "projective", "sharded")
        fair, *rest = (report.median(part, "disagreement", method=method) or 0.0 for method in methods)
        ours.append(fair)
        others += rest
        holds.append(min(rest) > fair)
    return [
        Claim("Existing efficient methods do not unlearn from fair models: Newton, projective and sharded "
              "change more test predictions than fair Newton does, under every penalty.", holds,
              f"{sum(holds)} of {len(holds)} data sets and penalties; predictions that differ from retraining: "
              f"{100 * np.median(others):.2f} % in the median (up to {100 * max(others):.1f} %), after fair Newton "
              f"{report.at_most(100 * max(ours))} %"),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    "fmu_interventions", Config, rows_of, draw=draw, heading="Popular interventions under efficient methods",
    section=section, claims=claims, x64=True,
    parts=(Part({"none": {}, "quick": {}, "full": {}, "paper": {}}, seeds="repeats"),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
