"""Accuracy against fairness over the penalty's weight, for the trained, the retrained and the unlearned model.

    python -m scripts.fmu.tradeoff --out runs/tradeoff

See Oesterling et al. (2024), trade-off figure of the appendix. Each data set, penalty, seed, weight and model has one
row.
"""

from dataclasses import dataclass
from typing import ClassVar

from scripts.fmu import problems
from scripts.harness import cli, looks, names, plot, report
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax


@dataclass(frozen=True)
class Config(problems.ProblemConfig):
    """Sweep the fairness weight; the sweep compiles once."""

    PRESETS: ClassVar = {
        "quick": {"repeats": 1, "weights": (0.0, 0.1, 1.0, 10.0)},
        "paper": {"weights": (0.0, *(10.0 ** (k / 4) for k in range(-12, 13)))},
    }
    AXES: ClassVar = {"dataset": "datasets", "penalty": "penalties"}

    penalties: tuple[names.Penalty, ...] = ("equalized_odds", "demographic_parity", "equal_opportunity", "individual")
    """Fairness penalties to train with."""
    weights: tuple[cli.NonNegative, ...] = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
    """Weights of the penalty, which replace --fairness."""
    fraction: cli.Share = 0.05
    """Share of the training rows to forget at random."""


def rows_of(config: Config, *, dataset: str, penalty: str, seed: int) -> list[Row]:
    """The whole sweep on one split."""
    train, test, _, noise, _ = problems.train_problem(config, dataset, seed, penalty=penalty, fairness=0.0)
    forget = problems.draw_share(train, config.fraction, seed=seed)
    options, table = {"methods": ("no_removal", "retrain", "fair_newton"), "noise": noise}, []
    for weight in config.weights:
        objective = config.objective(penalty=penalty, fairness=weight)
        trained = fmu_jax.fit(objective, train, noise=noise).params
        for method, outcome in fmu_jax.comparison.compare(objective, trained, train, forget, **options).items():
            row: Row = {"weight": weight, "method": method}
            table.append(row | fmu_jax.comparison.measure(objective, outcome, test))
    return table


def draw(config: Config, table: list[Row]) -> None:
    """Draw gap and accuracy of each model, a figure a data set, a panel a penalty."""
    for dataset in config.datasets:
        titles = [f"{plot.look(dataset).label}, {plot.look(penalty).label}" for penalty in config.penalties]
        with plot.panels(config.out / f"tradeoff_{dataset}.png", titles, min(len(titles), 2)) as axes:
            for panel, penalty in zip(axes, config.penalties, strict=True):
                gap = fmu_jax.metrics.gap_of(penalty)
                part = report.where(table, dataset=dataset, penalty=penalty)
                plot.paths(panel, part, x=gap, y="accuracy", along="weight")
                panel.set(xlabel=f"{looks.TITLES[gap]} (test)", ylabel="accuracy (test)")


def differences(results: Results) -> list[Row]:
    """The largest difference between the unlearned and the retrained model over weights and seeds."""
    return [
        {"data set": plot.look(dataset).label, "penalty": plot.look(penalty).label}
        | {"accuracy": problems.largest_difference(part, "accuracy")}
        | {"penalised gap": problems.largest_difference(part, fmu_jax.metrics.gap_of(penalty))}
        for (dataset, penalty), part in report.groups(results.rows, "dataset", "penalty").items()
    ]


def section(results: Results) -> list[report.Block]:
    """The largest differences, and the paths."""
    return [
        "Each line follows one model as the weight of the penalty grows; some rows are forgotten at random. The path "
        "of the unlearned model should lie on that of the retrained one.",
        report.Table(differences(results), "Largest difference between the unlearned and the retrained model, over all "
                     "weights and seeds (test rows).", digits=2),
        *results.figures("tradeoff_*.png", "Accuracy against the fairness gap as the penalty's weight grows",
                         "Test accuracy against the penalised gap, for the trained, retrained and unlearned model."),
    ]  # fmt: skip


def claims(results: Results) -> list[Claim]:
    """Has the unlearned model the retrained model's trade-off?"""
    worst = [max(line["accuracy"], line["penalised gap"]) for line in differences(results)]
    return [
        Claim("The unlearned model has the retrained model's trade-off of accuracy and fairness at every weight "
              "(shown: both within 0.01).", [w <= 0.01 for w in worst], f"{report.at_most(max(worst))} apart"),
    ]  # fmt: skip


TWO = {"penalties": ("equalized_odds", "demographic_parity")}
EXPERIMENT = Experiment(
    "fmu_tradeoff", Config, rows_of, draw=draw, heading="Accuracy against fairness", section=section,
    claims=claims, x64=True, parts=(Part({"none": TWO, "quick": {}, "full": TWO, "paper": {}}, seeds="repeats"),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
