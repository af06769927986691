"""Gaps between intersections of groups, after penalties on single attributes and on intersections, and removal there.

    python -m scripts.fmu.groups --out runs/groups

Every model is measured by the worst and the mean gap between intersections, of predicted labels and of scores, on which
penalties act. There is one row for each data set, seed, penalty, penalised grouping, fraction and method.
"""

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

from scripts.fmu import problems
from scripts.harness import cli, looks, names, plot, report
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax


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
        return {**{name: (name,) for name in self.group}, " x ".join(self.group): self.group}

    def units(self) -> list[dict[str, Any]]:
        """As of every experiment; there must be an intersection."""
        if len(self.group) < 2:
            raise ValueError(f"--group: an intersection needs two attributes, got {', '.join(self.group) or 'none'}")
        return super().units()


def rows_of(config: Config, *, dataset: str, seed: int) -> list[Row]:
    """All models of one split. Whatever the groups, its rows are the same."""
    splits = {name: problems.load_split(config, dataset, seed, group) for name, group in config.groupings.items()}
    whole = list(splits.values())[-1]
    source = fmu_jax.forget_sets.group_to_forget(whole.train, round(max(config.fractions) * len(whole.train.y)))
    about = {"groups": whole.train.groups, "group_values": "; ".join(whole.group_values)}
    about |= {"removed_from": whole.group_values[source]}
    objectives = {name: config.objective(penalty=name) for name in config.penalties}
    how = {name: getattr(config, name) for name in ("sigma", "delta", "fractions")} | {"seed": seed}
    how |= {"noise": problems.noise_of(whole.train.x[0], seed, config.sigma)}
    parts = ({name: getattr(split, part) for name, split in splits.items()} for part in ("train", "test"))
    return [about | row for row in fmu_jax.removal_tables.groupings_table(objectives, *parts, **how)]


def draw(config: Config, table: list[Row]) -> None:
    """Draw the gaps that each penalty leaves and what removal does to the worst: a figure a data set and penalty."""
    most, order = max(config.fractions), [fmu_jax.removal_tables.NOTHING, *config.groupings]
    titles = ("gaps of scores, trained", "gaps of labels, trained", f"gaps of labels, {most:.0%} forgotten")
    for dataset, penalty in itertools.product(config.datasets, config.penalties):
        gap = fmu_jax.metrics.gap_of(penalty)
        part = report.where(table, dataset=dataset, penalty=penalty, fraction=most)
        shown = (
            (by_measure(config, part, "score_gap", "score_gap_mean"), "gap", "gap [standard deviations]"),
            (by_measure(config, part, gap, f"{gap.removesuffix('_mean')}_mean_gap"), "gap", "gap"),
            (part, gap, "worst gap of intersections"),
        )
        with plot.panels(config.out / f"groups_{dataset}_{penalty}.png", titles, width=3.6, height=3.0) as axes:
            axes[0].figure.suptitle(f"{plot.look(dataset).label}, penalty: {plot.look(penalty).label}")
            for panel, (rows, column, label) in zip(axes, shown, strict=True):
                panel.set_ylabel(label)
                plot.points(panel, rows, x="penalised", y=column, order=order)
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
    part = report.where(results.rows, penalised=" x ".join(results.rows[0]["config.group"]))
    pairs = zip(report.where(part, method="fair_newton"), report.where(part, method="newton"), strict=True)
    ratio = [plain["distance"] / max(fair["distance"], 1e-300) for fair, plain in pairs]
    text = "Fair unlearning also stays near retraining when groups are intersections of attributes."
    return [Claim(text, [r > 1 for r in ratio], f"{report.span(ratio)} times nearer than Newton")]


SMALL = {"datasets": ("compas",), "fractions": (0.05,), "penalties": ("equalized_odds",), "repeats": 1}
EXPERIMENT = Experiment(
    "fmu_groups", Config, rows_of, draw=draw, heading="Intersections of groups", section=section, claims=claims,
    x64=True, parts=(Part({"none": SMALL, "quick": SMALL, "full": SMALL, "paper": {"repeats": 1}}),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
