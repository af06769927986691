"""Intersections of groups: what a penalty on race and on gender alone leaves between race x gender, and removal there.

    python -m scripts.fmu_groups --out runs/groups
    python -m scripts.fmu_groups --preset quick --datasets compas

Models are trained with no penalty, with one on each attribute of --group alone, and with one on their intersections;
rows of one intersection are forgotten, and every model is measured between the intersections: worst and mean gap.
Rows: one for each data set, penalised grouping, seed, fraction and method. About a minute on two cores.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from fmu_jax import Data, Objective, certify, fairness_interval, fit, metrics, predict_labels, remove, sample_noise
from scripts import fmu_problem
from scripts.fmu_problem import Attribute, Penalty, ProblemConfig
from scripts.harness import cli, plot

METHODS = ("retrain", "no_removal", "fair_newton", "newton")
CERTIFIED = ("residual_norm", "row_bound", "gram_bound", "epsilon", "distance_bound", "local_distance_bound")
NOTHING = "nothing"


@dataclass(frozen=True)
class Config(ProblemConfig):
    """Train with penalties on attributes and on their intersections, and forget rows of one intersection."""

    PRESETS: ClassVar = {"quick": {"repeats": 1, "fractions": (0.05,)}, "paper": {"repeats": 20}}

    out: Path = Path("runs/fmu_groups")
    group: tuple[Attribute, ...] = ("race", "gender")
    """Protected attributes: penalised one by one, and all together in every combination of their values."""
    penalty: Penalty = "equalized_odds"
    """Which gap is penalised, summed over all pairs of groups."""
    fractions: tuple[cli.Share, ...] = (0.01, 0.05)
    """Shares of all training rows to forget, from the smallest intersection that keeps half of its rows."""
    delta: cli.Probability = 1e-5
    """Failure probability of the certificates."""

    @property
    def groupings(self) -> dict[str, tuple[str, ...]]:
        """What is penalised, by name."""
        if len(self.group) < 2:
            raise ValueError(f"--group: an intersection needs two attributes, got {', '.join(self.group) or 'none'}")
        return {NOTHING: (), **{name: (name,) for name in self.group}, " x ".join(self.group): self.group}


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit for each data set, grouping and seed."""
    return config.units(penalised=tuple(config.groupings))


def main(config: Config) -> None:
    """Runs what is not done yet and draws the figure."""
    table = fmu_problem.run_units(config, plan(config), rows_of)
    draw(config, table)


def rows_of(config: Config, *, dataset: str, penalised: str, seed: int) -> list[dict[str, Any]]:
    """All removals from one trained model."""
    whole = fmu_problem.load_split(config, dataset, seed)
    chosen = config.groupings[penalised]
    train = fmu_problem.load_split(config, dataset, seed, chosen).train
    fairness = config.fairness if chosen else 0.0
    objective = Objective(l2=config.l2, fairness=fairness, penalty=config.penalty)
    # The same noise for every grouping of a seed.
    noise = sample_noise(train.x[0], key=jax.random.fold_in(jax.random.key(seed), 0), sigma=config.sigma)
    params = fit(objective, train, noise=noise).params
    source = group_to_forget(whole.train, round(max(config.fractions) * len(train.y)))
    table = []
    for fraction in config.fractions:
        pool = np.flatnonzero(np.asarray(whole.train.group) == source)
        count = round(fraction * len(train.y))
        forget = np.random.default_rng([seed, count]).choice(pool, count, replace=False)
        about = {"fraction": fraction, "rows_removed": count, "removed_from": whole.group_values[source]}
        about |= {"groups": whole.train.groups, "group_values": "; ".join(whole.group_values)}
        retrained = params
        for method in METHODS:
            after, row = params, {}
            if method != "no_removal":
                removal = remove(objective, params, train, forget, method=method, noise=noise, allow_unfair=True)
                after = removal.params
            if method == "fair_newton":
                row = certified(config, objective, params, removal, whole.test, noise)
            retrained = after if method == "retrain" else retrained
            row |= {"distance": float(np.linalg.norm(np.asarray(after - retrained)))}
            table.append(
                about | {"method": method} | row | measured(config, dataset, seed, objective, after, whole.test)
            )
    return table


def group_to_forget(data: Data, most: int) -> int:
    """The smallest group with at least twice as many rows as will be forgotten, or else the largest."""
    sizes = np.bincount(np.asarray(data.group), minlength=data.groups)
    enough = np.flatnonzero(sizes >= 2 * most)
    return int(enough[sizes[enough].argmin()] if len(enough) else sizes.argmax())


def certified(config: Config, objective: Objective, before, removal, test: Data, noise) -> dict[str, float]:
    """The certificate of a removal, and the interval of the retrained model's worst gap between the intersections."""
    certificate = certify(objective, before, removal, sigma=config.sigma, delta=config.delta, noise=noise)
    interval = fairness_interval(objective, removal, test, noise=noise)
    low, high = interval.equalized_odds_mean.tolist()
    row = {name: float(getattr(certificate, name)) for name in CERTIFIED}
    return row | {"undecided": int(interval.undecided), "odds_low": low, "odds_high": high}


def measured(config: Config, dataset: str, seed: int, objective: Objective, params, test: Data) -> dict[str, Any]:
    """Metrics between the intersections, and the gaps of each attribute alone."""
    labels = predict_labels(objective, params, test.x)
    row = fmu_problem.metric_columns(metrics.group_metrics(labels, test))
    for name in config.group:
        alone = metrics.group_metrics(labels, fmu_problem.load_split(config, dataset, seed, (name,)).test)
        row |= {f"{name}_{gap}": float(getattr(alone, gap)) for gap in ("equalized_odds_mean", "demographic_parity")}
    return row


def draw(config: Config, table: Sequence[dict[str, Any]]) -> Path:
    """Left the gaps that each penalty leaves in the trained model, right what removal does to the worst of them."""
    most, names = max(config.fractions), list(config.groupings)
    titles = [
        f"{plot.look(dataset).label}, {what}"
        for dataset in config.datasets
        for what in ("trained", f"{most:.0%} forgotten")
    ]
    figure, axes = plot.figure(len(config.datasets), 2, titles=titles, width=4.8, height=2.9)
    columns = {f"gap by {name} alone": f"{name}_equalized_odds_mean" for name in config.group}
    columns |= {
        "worst gap of intersections": "equalized_odds_mean",
        "mean gap of intersections": "equalized_odds_mean_gap",
    }
    for line, dataset in zip(axes, config.datasets, strict=True):
        part = [row for row in table if row["dataset"] == dataset and row["fraction"] == most]
        trained = [
            row | {"method": label, "gap": row[column]}
            for row in part
            if row["method"] == "no_removal"
            for label, column in columns.items()
        ]
        plot.points(line[0], trained, x="penalised", y="gap", order=names)
        plot.points(line[1], part, x="penalised", y="equalized_odds_mean", order=names)
        line[0].set(xlabel="penalised", ylabel="average odds gap (test)", ylim=(0, None))
        line[1].set(xlabel="penalised", ylabel="worst gap of intersections (test)", ylim=(0, None))
    plot.legend(figure)
    return plot.save(figure, config.out / "groups.png")


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
