"""Forget rows by every method: fairness, accuracy, distance to the retrained model and time against the share removed.

    python -m scripts.fmu.removal --out runs/removal
    python -m scripts.fmu.removal --datasets compas --fractions 0.3 0.6 0.9 --fractions-of subset --subsets minority

See Oesterling et al. (2024), figures 2 to 4. Each data set, penalty, seed, subset, fraction and method has one row.
"""

import time
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from scripts.fmu import problems
from scripts.harness import cli, names, plot, report
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax, jax

#: The measures of each figure, with what they are called.
FIGURES = {
    "fairness": {"equalized_odds_mean": "average odds gap (test)", "distance": "distance to the retrained model"},
    "accuracy": {"accuracy": "accuracy (test)", "time_ms": "time of one removal [ms]"},
}
CERTIFIED = (
    "residual_norm", "row_bound", "gram_bound", "paper_data_dependent", "paper_worst_case", "epsilon",
    "distance_bound", "local_distance_bound",
)  # fmt: skip


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
    problem = problems.train_problem(config, dataset, seed, penalty=penalty)
    train, sets, table = problem.train, fmu_jax.forget_sets, []
    shards = problems.shards_of(problem, config.shards, seed)
    for subset in config.subsets:
        whole = len(sets.subset_rows(train, subset if config.fractions_of == "subset" else "random"))
        for fraction in config.fractions:
            forget = sets.draw_rows(train, round(fraction * whole), subset=subset, seed=seed)
            if forget is None:
                continue
            about = {"subset": subset, "fraction": fraction, "rows_removed": len(forget)}
            about |= {"train_rows": sets.count_rows(train), "features": train.x.shape[1]}
            retrained = None
            for method in problems.all_methods():
                row, params = one_removal(config, problem, method, forget, shards)
                retrained = params if retrained is None else retrained
                distance = None if method == "sharded" else problems.distance(params, retrained)
                table.append(about | {"method": method, "distance": distance} | row)
    return table


def one_removal(config: Config, problem: problems.Problem, method: str, forget, shards) -> tuple[Row, Any]:
    """Forget rows by one method: its row and its parameters. The second of two calls is timed: the first compiles."""
    objective, noise, test = problem.objective, problem.noise, problem.test
    if method == "no_removal":
        return problems.measured(problem, problem.params), problem.params
    jax.block_until_ready(problems.remove(problem, method, forget, shards))
    begin = time.perf_counter()
    removal = jax.block_until_ready(problems.remove(problem, method, forget, shards))
    row: Row = {"time_ms": 1e3 * (time.perf_counter() - begin)}
    labels = fmu_jax.removal.METHODS[method].predict(objective, removal.params, test.x)
    row |= fmu_jax.metrics.columns(fmu_jax.metrics.group_metrics(labels, test))
    if method == "fair_newton" and config.sigma > 0:
        row |= problems.certified(config, objective, problem.params, removal, test, noise, CERTIFIED)
    return row, removal.params


def draw(config: Config, table: list[Row]) -> None:
    """Draw two figures a data set and penalty: measures by subset against the fraction."""
    for (dataset, penalty), chosen in report.groups(table, "dataset", "penalty").items():
        chosen = [row if row["method"] != "retrain" else row | {"distance": None} for row in chosen]
        for name, shown in FIGURES.items():
            plot.grid(
                chosen, config.out / f"removal_{dataset}_{penalty}_{name}.png", x="fraction", measures=shown,
                across="subset", title=plot.look(dataset).label, xlabel="share removed", log=("distance", "time_ms"),
            )  # fmt: skip


def at_five_percent(results: Results) -> list[Row]:
    """The rows whose share is nearest to 5 %."""
    shown = min({row["fraction"] for row in results.rows}, key=lambda fraction: abs(fraction - 0.05))
    return report.where(results.rows, fraction=shown)


def section(results: Results) -> list[report.Block]:
    """The trained models, what each method does when minority rows are forgotten, and all subsets."""
    table, gaps = at_five_percent(results), ("accuracy", "equalized_odds_mean", "demographic_parity")
    by, columns = ("dataset", "subset", "method"), ("distance", *gaps, "time_ms")
    share = f"{table[0]['fraction']:.0%}"
    headline = [row for row in table if row["subset"] == "minority"] or table
    return [
        "Rows are forgotten at random, from the minority or from the majority group. Retraining on what remains is the "
        "target. Newton, projective and sharded cannot see the fairness penalty; they run for comparison only. Times "
        "are those of a machine that did other work as well.",
        report.Table(
            report.medians(headline, by, columns), f"{share} of the rows forgotten (medians over seeds; metrics on "
            "test rows).", fold=False,
        ),
        report.Table(report.medians(table, by, columns), f"The same for every subset of rows, {share} forgotten."),
        report.Table(
            report.medians(report.where(table, method="no_removal"), ["dataset"], ("train_rows", "features", *gaps)),
            "The trained models before any removal (medians over seeds; metrics on test rows).",
        ),
        *results.figures("removal_*_fairness.png", "Odds gap and distance to retrained against the share removed",
                         "Every method against the share of rows removed: fairness and distance to retrained."),
        *results.figures("removal_*_accuracy.png", "Accuracy and time against the share removed, by method",
                         "Every method against the share of rows removed: accuracy and time."),
    ]  # fmt: skip


def claims(results: Results) -> list[Claim]:
    """Is the fair step nearest to retraining, does it keep fairness and accuracy, and is it faster?"""
    table, nearer, fair, accurate, fast = at_five_percent(results), [], [], [], []
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
              f"{min(nearer):.0f} to {max(nearer):.0f} times nearer"),
        Claim("It keeps the fairness and the accuracy of retraining, also when minority rows are forgotten "
              "(shown: both within 0.005).",
              [max(pair) <= 0.005 for pair in zip(fair, accurate, strict=True)],
              f"odds gap within {max(fair):.2g}, accuracy within {max(accurate):.2g} in every seed"),
        Claim("It is faster than retraining.", [f > 1 for f in fast],
              f"{min(fast):.1f} to {max(fast):.1f} times"),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    "fmu_removal", Config, rows_of, draw=draw, heading="Unlearning: what is left of fairness and accuracy",
    section=section, claims=claims, x64=True,
    parts=(Part({"none": {"fractions": (0.01, 0.05, 0.2)}, "quick": {}, "full": {}, "paper": {}}, seeds="repeats"),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
