"""Deletion requests one by one: what each published model has spent, and when a refresh is due.

    python -m scripts.fmu.stream --out runs/stream

Requests come in random order, or from one group only. At checkpoints the certified bound is set beside the exact
residual, and the streamed model beside a retrained one. There is one row for each data set, order, seed and checkpoint.
"""

from dataclasses import dataclass
from typing import ClassVar

from scripts.fmu import problems
from scripts.harness import cli, looks, names, plot, report
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax

SERIES = {
    "epsilon": looks.Look("certified, no row read", looks.VERMILION, "o"),
    "exact_epsilon": looks.Look("of the exact residual", looks.BLACK, "s", (0, (4.0, 2.0))),
}


@dataclass(frozen=True)
class Config(problems.CertifiedConfig):
    """Serve a stream of deletion requests under a budget."""

    PRESETS: ClassVar = {"quick": {"repeats": 1, "share": 0.2}, "paper": {"repeats": 5}}
    AXES: ClassVar = {"dataset": "datasets", "subset": "subsets"}

    repeats: cli.Count = 3
    subsets: tuple[names.Subset, ...] = ("random", "minority")
    """Subset of the rows that ask to be deleted."""
    share: cli.Share = 0.4
    """Number of requests, as a share of all training rows."""
    epsilon: cli.Positive = 1.0
    """Budget, which is the largest epsilon of a published model."""
    checkpoints: cli.Count = 80
    """Number of requests after which the exact residual is computed."""


def rows_of(config: Config, *, dataset: str, subset: names.Subset, seed: int) -> list[Row]:
    """Checkpoints of one stream."""
    train, test, objective, noise, fitted = problems.train_problem(config, dataset, seed)
    stream, sets = fmu_jax.stream, fmu_jax.forget_sets
    options = {"sigma": config.sigma, "delta": config.delta, "noise": noise}
    state = stream.start(objective, fitted, train, budget=config.epsilon, **options)
    order = sets.draw_requests(train, round(config.share * sets.count_rows(train)), subset=subset, seed=seed)
    _, remaining, served = stream.serve(state, train, order)
    table: list[Row] = stream.epsilon_curve(objective, train, order, served, points=config.checkpoints, **options)
    table[-1] |= stream.beside_retrained(objective, served.params[-1], remaining, test, noise=noise)
    return table


def draw(config: Config, table: list[Row]) -> None:
    """Draw epsilon against the share deleted, certified and exact, with the budget; the first seed of each stream."""
    names_ = [(dataset, subset) for dataset in config.datasets for subset in config.subsets]
    titles = [f"{plot.look(dataset).label}, {subset} rows" for dataset, subset in names_]
    with plot.panels(config.out / "stream.png", titles, len(config.subsets), width=4.2) as axes:
        for (dataset, subset), panel in zip(names_, axes, strict=True):
            part = report.where(table, dataset=dataset, subset=subset, seed=config.seed)
            for column, look in SERIES.items():
                plot.line(panel, [row["share"] for row in part], [row[column] for row in part], look, marker="")
            panel.axhline(config.epsilon, color=looks.GREY, linewidth=0.8, label="budget")
            panel.set(yscale="log", xlabel="share of all rows deleted", ylabel=f"epsilon (delta = {config.delta:g})")
            panel.set_ylim(1e-4 * config.epsilon, 3 * config.epsilon)


def section(results: Results) -> list[report.Block]:
    """The end of each stream beside retraining."""
    ends = [dict(row) for row in results.rows if row.get("distance") is not None]
    for row in ends:
        row["largest"] = max(other["epsilon"] for other in report.where(results.rows, unit=row["unit"]))
    columns = looks.titled(request="requests", refreshes="refreshes", largest="largest epsilon")
    columns |= looks.titled("distance") | {
        f"{model}_{what}": f"{what}, {model}" for what in ("accuracy", "odds") for model in ("streamed", "retrained")
    }
    return [
        "Each request is served by subtracting its row's terms and solving again from the anchor (the last fully "
        "solved model), at a cost that does not depend on the number of rows. If the certified epsilon would exceed "
        "the budget, the model is solved anew before it is published.",
        report.Table(report.medians(ends, looks.titled("dataset", subset="rows"), columns),
                     "After the last request, beside retraining (medians over seeds, test rows)."),
        *results.figures("stream.png", "Certified epsilon of the published model, which rises with the deletions and "
                         "falls at each refresh", "The epsilon that published models have spent, at 80 requests of "
                         "one seed; the figure does not show every refresh."),
    ]  # fmt: skip


def claims(results: Results) -> list[Claim]:
    """Does every published model stay within the budget?"""
    budget = results.rows[0]["config.epsilon"]
    epsilon = [row["epsilon"] for row in results.rows]
    holds = [row["epsilon"] <= budget and row["exact_epsilon"] <= row["epsilon"] for row in results.rows]
    count = sum(row["request"] for row in results.rows if row.get("distance") is not None)
    return [
        Claim(f"Requests are served one by one, and every published model stays within its budget (epsilon "
              f"{budget:g}) by a bound that holds.", holds,
              f"{count} requests, largest epsilon {max(epsilon):.2f}; exact below certified at {len(holds)} checks"),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    "fmu_stream", Config, rows_of, draw=draw, heading="Requests one by one", section=section, claims=claims,
    x64=True, parts=(Part({"none": {"checkpoints": 40}, "quick": {}, "full": {}, "paper": {}}, seeds="repeats"),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
