"""Intersections of groups: what a penalty on race and on gender alone leaves between race x gender, and removal there.

    python -m scripts.fmu.groups --out runs/groups
    python -m scripts.fmu.groups --preset quick --datasets compas

Models are trained with no penalty, with one on each attribute of --group alone, and with one on their intersections;
rows of one intersection are forgotten, and every model is measured between the intersections: worst and mean gap, of
predicted labels and of scores, which are what a penalty sees. Rows: one for each data set, seed, penalty, penalised
grouping, fraction and method. About a minute on two cores.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fmu_jax import Data, Objective, cells, certify, fairness_interval, fit, metrics, penalties, remove, sample_noise
from fmu_jax.objective import logits
from fmu_jax.penalty_forms import PenaltyName
from scripts.fmu import problems
from scripts.fmu.problems import Attribute, ProblemConfig
from scripts.harness import cli, plot

METHODS = ("retrain", "no_removal", "fair_newton", "newton")
CERTIFIED = ("residual_norm", "row_bound", "gram_bound", "epsilon", "distance_bound", "local_distance_bound")
NOTHING = "nothing"
#: The measure of labels that each penalty is about.
GAPS = {"equalized_odds": "equalized_odds_mean", "demographic_parity": "demographic_parity"}
GAPS |= {"equal_opportunity": "equal_opportunity", "individual": "equalized_odds_mean"}


@dataclass(frozen=True)
class Config(ProblemConfig):
    """Train with penalties on attributes and on their intersections, and forget rows of one intersection."""

    PRESETS: ClassVar = {"quick": {"repeats": 1, "fractions": (0.05,)}, "paper": {"repeats": 20}}

    out: Path = Path("runs/fmu_groups")
    group: tuple[Attribute, ...] = ("race", "gender")
    """Protected attributes: penalised one by one, and all together in every combination of their values."""
    penalties: tuple[PenaltyName, ...] = ("equalized_odds", "demographic_parity")
    """Which gaps are penalised, summed over all pairs of groups."""
    fairness: cli.NonNegative = 10.0
    """Weight of the fairness penalty."""
    fractions: tuple[cli.Share, ...] = (0.01, 0.05)
    """Shares of all training rows to forget, from the smallest intersection that keeps half of its rows."""
    delta: cli.Probability = 1e-5
    """Failure probability of the certificates."""

    @property
    def groupings(self) -> dict[str, tuple[Attribute, ...]]:
        """What is penalised, by name."""
        if len(self.group) < 2:
            raise ValueError(f"--group: an intersection needs two attributes, got {', '.join(self.group) or 'none'}")
        return {**{name: (name,) for name in self.group}, " x ".join(self.group): self.group}


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit for each data set and seed."""
    return config.units() if config.groupings else []


def main(config: Config) -> None:
    """Runs what is not done yet and draws the figure."""
    table = problems.run_units(config, plan(config), rows_of)
    draw(config, table)


def rows_of(config: Config, *, dataset: str, seed: int) -> list[dict[str, Any]]:
    """All models of one split. Whatever the groups, its rows are the same."""
    splits = {name: problems.load_split(config, dataset, seed, group) for name, group in config.groupings.items()}
    whole = list(splits.values())[-1]
    source = group_to_forget(whole.train, round(max(config.fractions) * len(whole.train.y)))
    tests = {name: split.test for name, split in splits.items()}
    about = {"groups": whole.train.groups, "group_values": "; ".join(whole.group_values)}
    about |= {"removed_from": whole.group_values[source]}
    pool = np.flatnonzero(np.asarray(whole.train.group) == source)
    table = []
    for penalty in config.penalties:
        for penalised in (NOTHING, *splits):
            fairness = 0.0 if penalised == NOTHING else config.fairness
            objective = Objective(l2=config.l2, fairness=fairness, penalty=penalty)
            train = splits.get(penalised, whole).train
            rows = removals(config, objective, train, tests, pool, seed=seed)
            table += [about | {"penalty": penalty, "penalised": penalised} | row for row in rows]
    return table


def removals(
    config: Config, objective: Objective, train: Data, tests: Mapping[str, Data], pool: np.ndarray, *, seed: int
) -> list[dict[str, Any]]:
    """One model, and every removal from it; ``pool`` is where the forgotten rows come from."""
    # The same noise and the same rows for every grouping of a seed.
    noise = sample_noise(train.x[0], key=jax.random.fold_in(jax.random.key(seed), 0), sigma=config.sigma)
    params = fit(objective, train, noise=noise).params
    trained, table = measured(objective, params, tests), []
    for fraction in config.fractions:
        count = round(fraction * len(train.y))
        forget = np.random.default_rng([seed, count]).choice(pool, count, replace=False)
        removed = {
            method: remove(objective, params, train, forget, method=method, noise=noise, allow_unfair=True)
            for method in METHODS
            if method != "no_removal"
        }
        best = removed["retrain"].params
        for method in METHODS:
            row = {"fraction": fraction, "rows_removed": count, "method": method}
            after = removed[method].params if method in removed else params
            row |= trained if after is params else measured(objective, after, tests)
            row |= {"distance": float(np.linalg.norm(np.asarray(after - best)))}
            if method == "fair_newton" and config.sigma > 0:
                row |= certified(config, objective, params, removed[method], list(tests.values())[-1], noise)
            table.append(row)
    return table


def group_to_forget(data: Data, most: int) -> int:
    """The smallest group with at least twice as many rows as will be forgotten, or else the largest."""
    sizes = np.bincount(np.asarray(data.group), minlength=data.groups)
    enough = np.flatnonzero(sizes >= 2 * most)
    return int(enough[sizes[enough].argmin()] if len(enough) else sizes.argmax())


def certified(config: Config, objective: Objective, before, removal, test: Data, noise) -> dict[str, float]:
    """The certificate of a removal, and the interval of the retrained model's worst gap between the intersections."""
    certificate = certify(objective, before, removal, sigma=config.sigma, delta=config.delta, noise=noise)
    row = {name: float(getattr(certificate, name)) for name in CERTIFIED}
    # A model of groups by one attribute is as good a model of the intersections: the interval is about labels alone.
    interval = fairness_interval(objective, removal, test, noise=noise)
    low, high = interval.equalized_odds_mean.tolist()
    return row | {"undecided": int(interval.undecided), "odds_low": low, "odds_high": high}


def measured(objective: Objective, params, tests: Mapping[str, Data]) -> dict[str, Any]:
    """Metrics between the intersections, which are the last of ``tests``, and the gaps of each attribute alone."""
    whole = list(tests)[-1]
    row: dict[str, Any] = {}
    for name, test in tests.items():
        scores = logits(objective, params, test.x)
        found = metrics.group_metrics(scores > 0, test)
        gap = score_gaps(objective, scores, test)
        if name == whole:
            row |= problems.metric_columns(found)
            row |= {"score_gap": float(gap.max()), "score_gap_mean": float(gap.mean())}
        else:
            row |= {f"{name}_{gap}": float(getattr(found, gap)) for gap in set(GAPS.values())}
            row |= {f"{name}_score_gap": float(gap.max())}
    return row


def score_gaps(objective: Objective, scores: jax.Array, test: Data) -> np.ndarray:
    """What the penalty sees of each pair of groups, without its square, in standard deviations of the scores."""
    alpha, _ = penalties.coefficients(objective.penalty, cells.counts(test))
    return np.abs(np.asarray(penalties.gaps(alpha, scores, test) / jnp.std(scores)))


def draw(config: Config, table: Sequence[dict[str, Any]]) -> Path:
    """Gaps of scores and labels that each penalty leaves in the trained model, and what removal does to the worst."""
    most, order = max(config.fractions), [NOTHING, *config.groupings]
    lines = [(dataset, penalty) for dataset in config.datasets for penalty in config.penalties]
    what = ("scores, trained", "labels, trained", f"labels, {most:.0%} forgotten")
    titles = [
        f"{plot.look(dataset).label}, {plot.look(penalty).label}: {part}" for dataset, penalty in lines for part in what
    ]
    figure, axes = plot.figure(len(lines), 3, titles=titles, width=4.8, height=2.6)
    for line, (dataset, penalty) in zip(axes, lines, strict=True):
        gap = GAPS[penalty]
        part = [row for row in table if (row["dataset"], row["penalty"], row["fraction"]) == (dataset, penalty, most)]
        mean = {"equalized_odds_mean": "equalized_odds_mean_gap"}.get(gap, f"{gap}_mean_gap")
        for panel, worst, average in ((line[0], "score_gap", "score_gap_mean"), (line[1], gap, mean)):
            plot.points(panel, by_measure(config, part, worst, average), x="penalised", y="gap", order=order)
            panel.set(ylim=(0, None))
        line[0].set_ylabel("gap [standard deviations]")
        plot.points(line[2], part, x="penalised", y=gap, order=order)
        line[2].set(ylabel="worst gap of intersections", ylim=(0, None))
    plot.legend(figure)
    return plot.save(figure, config.out / "groups.png")


def by_measure(config: Config, part: Sequence[dict[str, Any]], worst: str, average: str) -> list[dict[str, Any]]:
    """The trained models' rows, one for each gap that is drawn."""
    columns = {f"gap by {name} alone": f"{name}_{worst}" for name in config.group}
    columns |= {"worst gap of intersections": worst, "mean gap of intersections": average}
    return [
        row | {"method": label, "gap": row[column]}
        for row in part
        if row["method"] == "no_removal"
        for label, column in columns.items()
    ]


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
