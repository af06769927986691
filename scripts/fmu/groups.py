"""Gaps between intersections of groups, after penalties on single attributes and on intersections, and removal there.

    python -m scripts.fmu.groups --out runs/groups
    python -m scripts.fmu.groups --preset quick --datasets compas

Models are trained with no penalty, with one on each attribute of --group alone, and with one on their intersections;
rows of one intersection are forgotten, and every model is measured by the worst and the mean gap between intersections,
of predicted labels and of scores, on which penalties act. There is one row for each data set, seed, penalty, penalised
grouping, fraction and method. It takes about a minute on two cores.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import numpy as np

from scripts.fmu import problems
from scripts.fmu.tradeoff import gap_of
from scripts.harness import cli, looks, names, plot, report
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax

METHODS = ("retrain", "no_removal", "fair_newton", "newton")
CERTIFIED = ("residual_norm", "row_bound", "gram_bound", "epsilon", "distance_bound", "local_distance_bound")
NOTHING = "nothing"


@dataclass(frozen=True)
class Config(problems.CertifiedConfig):
    """Train with penalties on attributes and on their intersections, and forget rows of one intersection."""

    PRESETS: ClassVar = {"quick": {"repeats": 1, "fractions": (0.05,)}, "paper": {"repeats": 20}}

    group: tuple[names.Attribute, ...] = ("race", "gender")
    """Protected attributes, penalised one by one and all together, in every combination of their values."""
    penalties: tuple[names.Penalty, ...] = ("equalized_odds", "demographic_parity")
    """Gaps that are penalised, each summed over all pairs of groups."""
    fairness: cli.NonNegative = 10.0
    """Weight of the fairness penalty."""
    fractions: tuple[cli.Share, ...] = (0.01, 0.05)
    """Shares of all training rows to forget; they come from the smallest intersection that keeps half of its rows."""

    @property
    def groupings(self) -> dict[str, tuple[str, ...]]:
        """What is penalised, by name."""
        if len(self.group) < 2:
            raise ValueError(f"--group: an intersection needs two attributes, got {', '.join(self.group) or 'none'}")
        return {**{name: (name,) for name in self.group}, " x ".join(self.group): self.group}

    def units(self) -> list[dict[str, Any]]:
        """One unit for each data set and seed, if there is an intersection."""
        return super().units() if self.groupings else []


def rows_of(config: Config, *, dataset: str, seed: int) -> list[Row]:
    """All models of one split. Whatever the groups, its rows are the same."""
    splits = {name: problems.load_split(config, dataset, seed, group) for name, group in config.groupings.items()}
    whole = list(splits.values())[-1]
    source = fmu_jax.forget_sets.group_to_forget(whole.train, round(max(config.fractions) * len(whole.train.y)))
    about = {"groups": whole.train.groups, "group_values": "; ".join(whole.group_values)}
    about |= {"removed_from": whole.group_values[source]}
    pool = np.flatnonzero(np.asarray(whole.train.group) == source)
    tests, table = {name: split.test for name, split in splits.items()}, []
    for penalty in config.penalties:
        for penalised in (NOTHING, *splits):
            fairness = 0.0 if penalised == NOTHING else config.fairness
            objective = fmu_jax.Objective(l2=config.l2, fairness=fairness, penalty=penalty)
            rows = removals(config, objective, splits.get(penalised, whole).train, tests, pool, seed=seed)
            table += [about | {"penalty": penalty, "penalised": penalised} | row for row in rows]
    return table


def removals(
    config: Config, objective: Any, train: Any, tests: Mapping[str, Any], pool: np.ndarray, *, seed: int
) -> list[Row]:
    """One model, and every removal from it; ``pool`` is where the forgotten rows come from."""
    noise = problems.noise_of(train.x[0], seed, config.sigma)  # As the rows, the same for every grouping of a seed.
    params = fmu_jax.fit(objective, train, noise=noise).params
    trained, table = measured(objective, params, tests), []
    for fraction in config.fractions:
        count = round(fraction * len(train.y))
        forget = np.random.default_rng([seed, count]).choice(pool, count, replace=False)
        removed = {
            method: fmu_jax.remove(objective, params, train, forget, method=method, noise=noise, allow_unfair=True)
            for method in METHODS
            if method != "no_removal"
        }
        best = removed["retrain"].params
        for method in METHODS:
            row = {"fraction": fraction, "rows_removed": count, "method": method}
            after = removed[method].params if method in removed else params
            row |= trained if after is params else measured(objective, after, tests)
            row |= {"distance": problems.distance(after, best)}
            if method == "fair_newton" and config.sigma > 0:
                whole = list(tests.values())[-1]
                row |= problems.certified(config, objective, params, removed[method], whole, noise, CERTIFIED)
            table.append(row)
    return table


def measured(objective: Any, params: Any, tests: Mapping[str, Any]) -> Row:
    """Metrics between the intersections, which are the last of ``tests``, and the gaps of each attribute alone."""
    whole, row = list(tests)[-1], {}
    for name, test in tests.items():
        scores = fmu_jax.objective.logits(objective, params, test.x)
        found = fmu_jax.metrics.group_metrics(scores > 0, test)
        gap = fmu_jax.metrics.score_gaps(objective, scores, test)
        if name == whole:
            row |= fmu_jax.metrics.columns(found)
            row |= {"score_gap": float(gap.max()), "score_gap_mean": float(gap.mean())}
        else:
            gaps = {gap_of(penalty) for penalty in get_args(names.Penalty)}
            row |= {f"{name}_{gap}": float(getattr(found, gap)) for gap in sorted(gaps)}
            row |= {f"{name}_score_gap": float(gap.max())}
    return row


def draw(config: Config, table: list[Row]) -> None:
    """Draw the gaps that each penalty leaves and what removal does to the worst: a figure a data set and penalty."""
    most, order = max(config.fractions), [NOTHING, *config.groupings]
    titles = ("gaps of scores, trained", "gaps of labels, trained", f"gaps of labels, {most:.0%} forgotten")
    for dataset in config.datasets:
        for penalty in config.penalties:
            gap = gap_of(penalty)
            part = report.where(table, dataset=dataset, penalty=penalty, fraction=most)
            mean = {"equalized_odds_mean": "equalized_odds_mean_gap"}.get(gap, f"{gap}_mean_gap")
            path = config.out / f"groups_{dataset}_{penalty}.png"
            with plot.panels(path, titles, width=3.6, height=3.0) as line:
                line[0].figure.suptitle(f"{plot.look(dataset).label}, penalty: {plot.look(penalty).label}")
                for panel, worst, average in ((line[0], "score_gap", "score_gap_mean"), (line[1], gap, mean)):
                    plot.points(panel, by_measure(config, part, worst, average), x="penalised", y="gap", order=order)
                plot.points(line[2], part, x="penalised", y=gap, order=order)
                line[0].set_ylabel("gap [standard deviations]")
                line[2].set_ylabel("worst gap of intersections")
                for panel in line:
                    panel.set(ylim=(0, None), xlabel="penalty on")
                    panel.tick_params(axis="x", labelsize=8)


def by_measure(config: Config, part: list[Row], worst: str, average: str) -> list[Row]:
    """The trained models' rows, one for each gap that is drawn."""
    columns = {f"gap by {name} alone": f"{name}_{worst}" for name in config.group}
    columns |= {"worst gap of intersections": worst, "mean gap of intersections": average}
    trained = report.where(part, method="no_removal")
    return [row | {"method": label, "gap": row[column]} for row in trained for label, column in columns.items()]


def section(results: Results) -> list[report.Block]:
    """What each penalty leaves, and the distances after removal."""
    by = looks.titled("dataset", "penalty", penalised="penalty on")
    columns = looks.titled(score_gap="worst gap of scores", score_gap_mean="mean gap of scores")
    columns |= looks.titled("equalized_odds_mean", "accuracy")
    lines = report.medians(report.where(results.rows, method="no_removal"), by, columns)
    for method in ("fair_newton", "newton"):
        title = f"distance to retrained, {plot.look(method).label}"
        found = report.medians(report.where(results.rows, method=method), by, {"distance": title})
        lines = [line | {title: other[title]} for line, other in zip(lines, found, strict=True)]
    return [
        "Models are trained with a penalty on each attribute alone, and with one on all pairs of intersections. "
        "Worst gaps are between two intersections. Gaps of scores, on which the penalty acts, are in standard "
        "deviations. Distances are to the retrained model, after rows of one intersection are forgotten.",
        report.Table(lines, "Gaps between intersections that each penalty leaves (test rows)."),
        *results.figures("groups_*.png", "Gaps between intersections by what was penalised",
                         "A smaller gap of scores does not always bring a smaller gap of labels."),
    ]  # fmt: skip


def claims(results: Results) -> list[Claim]:
    """Does removal stay near retraining when groups are intersections?"""
    whole = " x ".join(results.rows[0]["config.group"])
    part = report.where(results.rows, penalised=whole)
    pairs = zip(report.where(part, method="fair_newton"), report.where(part, method="newton"), strict=True)
    ratio = [plain["distance"] / max(fair["distance"], 1e-300) for fair, plain in pairs]
    return [Claim("Fair unlearning also stays near retraining when groups are intersections of attributes.",
                  [r > 1 for r in ratio],
                  f"{min(ratio):.0f} to {max(ratio):.0f} times nearer than Newton")]  # fmt: skip


SMALL = {"datasets": ("compas",), "fractions": (0.05,), "penalties": ("equalized_odds",), "repeats": 1}
EXPERIMENT = Experiment(
    "fmu_groups", Config, rows_of, draw=draw, heading="Intersections of groups", section=section, claims=claims,
    x64=True,
    parts=(Part({"none": SMALL, "quick": SMALL, "full": SMALL, "paper": {"repeats": 1}}),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
