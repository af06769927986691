"""Forget rows by every method: fairness, accuracy, distance to the retrained model and time against the share removed.

    python -m scripts.fmu.removal --out runs/removal
    python -m scripts.fmu.removal --datasets compas --fractions 0.3 0.6 0.9 --fractions-of subset --subsets minority

See Oesterling et al. (2024), figures 2 to 4. Each data set, penalty, seed, subset, fraction and method has one row.
"""

import time
from dataclasses import dataclass
from typing import ClassVar, Literal

from scripts.fmu import problems
from scripts.harness import cli, names, plot, report
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax, jax

#: The measures of each figure, with what they are called.
FIGURES = {
    "fairness": {"equalized_odds_mean": "average odds gap (test)", "distance": "distance to the retrained model"},
    "accuracy": {"accuracy": "accuracy (test)", "time_ms": "time of one removal [ms]"},
}


@dataclass(frozen=True)
class Config(problems.CertifiedConfig):
    """Forget rows by every method, and see what it does to fairness, accuracy and parameters."""

    PRESETS: ClassVar = {"quick": {"repeats": 1, "fractions": (0.01, 0.05)}, "paper": {"repeats": 5}}
    AXES: ClassVar = {"dataset": "datasets", "penalty": "penalties"}

    penalties: tuple[names.Penalty, ...] = ("equalized_odds",)
    """Fairness penalties to train with."""
    subsets: tuple[names.Subset, ...] = ("random", "minority", "majority")
    """Subsets from which rows are forgotten."""
    fractions: tuple[cli.Share, ...] = (0.01, 0.05, 0.1, 0.15, 0.2)
    """Shares of rows to forget; a share that a subset cannot give is left out."""
    fractions_of: Literal["rows", "subset"] = "rows"
    """Whether the shares are of all training rows or of the subset."""
    shards: cli.Count = 5
    """Number of shards of the sharded baseline."""


def rows_of(config: Config, *, dataset: str, penalty: str, seed: int) -> list[Row]:
    """All removals from one trained model."""
    train, test, objective, noise, fitted = problems.train_problem(config, dataset, seed, penalty=penalty)
    how = {"subsets": config.subsets, "fractions": config.fractions, "of_subset": config.fractions_of == "subset"}
    how |= {name: getattr(config, name) for name in ("sigma", "delta", "shards")} | {"noise": noise, "seed": seed}
    key, clock = jax.random.fold_in(jax.random.key(seed), 1), time.perf_counter
    return fmu_jax.removal_tables.removal_table(objective, fitted.params, train, test, key=key, clock=clock, **how)


def draw(config: Config, table: list[Row]) -> None:
    """Draw two figures a data set and penalty: measures by subset against the fraction."""
    for (dataset, penalty), part in report.groups(table, "dataset", "penalty").items():
        axis = {"x": "fraction", "xlabel": "share removed", "log": ("distance", "time_ms")}
        title, stem = plot.look(dataset).label, config.out / f"removal_{dataset}_{penalty}"
        plot.grids(part, stem, FIGURES, across="subset", title=title, **axis)


def section(results: Results) -> list[report.Block]:
    """The trained models, what each method does when minority rows are forgotten, and all subsets."""
    table = report.where(results.rows, fraction=problems.nearest(results.rows, "fraction", 0.05))
    gaps = ("accuracy", "equalized_odds_mean", "demographic_parity")
    by, columns = ("dataset", "subset", "method"), ("distance", *gaps, "time_ms")
    share, headline = f"{table[0]['fraction']:.0%}", report.where(table, subset="minority") or table
    return [
        "Rows are forgotten at random, from the minority or from the majority group. Retraining on what remains is the "
        "target. Newton, projective and sharded cannot see the fairness penalty; they run for comparison only. Times "
        "are those of a machine that did other work as well.",
        report.Table(report.medians(headline, by, columns),
                     f"{share} of the rows forgotten (medians over seeds; metrics on test rows).", fold=False),
        report.Table(report.medians(table, by, columns), f"The same for every subset of rows, {share} forgotten."),
        report.Table(
            report.medians(report.where(table, method="no_removal"), ["dataset"], ("train_rows", "features", *gaps)),
            "The trained models before any removal (medians over seeds; metrics on test rows)."),
        *results.figures("removal_*_fairness.png", "Odds gap and distance to retrained against the share removed",
                         "Every method against the share of rows removed: fairness and distance to retrained."),
        *results.figures("removal_*_accuracy.png", "Accuracy and time against the share removed, by method",
                         "Every method against the share of rows removed: accuracy and time."),
    ]  # fmt: skip


def claims(results: Results) -> list[Claim]:
    """Is the fair step nearest to retraining, does it keep fairness and accuracy, and is it faster?"""
    table = report.where(results.rows, fraction=problems.nearest(results.rows, "fraction", 0.05))
    nearer, fair, accurate, fast = [], [], [], []
    for part in report.groups(table, "dataset", "subset").values():
        of = report.groups(part, "method")
        others = [report.median(of[m], "distance") for m in of if m not in ("retrain", "fair_newton", "sharded")]
        nearer.append(min(others) / max(report.median(of["fair_newton"], "distance"), 1e-300))
        fair.append(problems.largest_difference(part, "equalized_odds_mean"))
        accurate.append(problems.largest_difference(part, "accuracy"))
        fast.append(report.median(of["retrain"], "time_ms") / report.median(of["fair_newton"], "time_ms"))
    return [
        Claim("Fair unlearning ends nearer to the retrained model than every other efficient method, wherever "
              "the rows come from.", [n > 1 for n in nearer],
              f"{report.span(nearer)} times nearer"),
        Claim("It keeps the fairness and the accuracy of retraining, also when minority rows are forgotten "
              "(shown: both within 0.005).",
              [max(pair) <= 0.005 for pair in zip(fair, accurate, strict=True)],
              f"odds gap: {report.at_most(max(fair))} apart, accuracy: {report.at_most(max(accurate))}, in every seed"),
        Claim("It is faster than retraining.", [f > 1 for f in fast], f"{report.span(fast, '.1f')} times"),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    "fmu_removal", Config, rows_of, draw=draw, heading="Unlearning: what is left of fairness and accuracy",
    section=section, claims=claims, x64=True, optimised=True,
    parts=(Part({"none": {"fractions": (0.01, 0.05, 0.2)}, "quick": {}, "full": {}, "paper": {}}, seeds="repeats"),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
