"""What the experiments on unlearning share: a data set with a trained model, and which rows to forget."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from scripts.harness import cli, looks, names, placement, plot, report, rows
from scripts.harness.lazy import fmu_jax, jax

if TYPE_CHECKING:
    from fmu_jax import Data, Objective
    from fmu_jax.datasets import Split


@dataclasses.dataclass(frozen=True)
class ProblemConfig(cli.Repeated):
    """Flags of every experiment on unlearning."""

    AXES: ClassVar[Mapping[str, str | tuple]] = {"dataset": "datasets"}

    datasets: tuple[names.DataSet, ...] = ("compas", "adult")
    """Data sets; hsls needs --hsls."""
    group: tuple[names.Attribute, ...] = ("race",)
    """Protected attribute; if you name several, every combination of their values is a group."""
    hsls: Path | None = None
    """Your HSLS:09 public-use file, or a folder with its parts."""
    l2: cli.Positive = 1e-4
    """Ridge strength per row."""
    fairness: cli.NonNegative = 1.0
    """Weight of the fairness penalty."""
    sigma: cli.NonNegative = 1.0
    """Standard deviation of the objective perturbation."""
    repeats: cli.Count = 5

    def units(self) -> list[dict[str, Any]]:
        """As of every experiment; a data set that needs a file must have one."""
        if "hsls" in self.datasets and self.hsls is None:
            raise ValueError("--datasets hsls needs --hsls, the path of your HSLS:09 public-use file")
        return super().units()


@dataclasses.dataclass(frozen=True)
class CertifiedConfig(ProblemConfig):
    """Flags of the experiments whose guarantees are at one failure probability."""

    delta: cli.Probability = 1e-5
    """Failure probability of every certificate and guarantee."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """A split, an objective, its perturbation, and the parameters trained on them."""

    split: Split
    objective: Objective
    noise: jax.Array
    params: jax.Array

    @property
    def train(self) -> Data:
        """The training rows."""
        return self.split.train

    @property
    def test(self) -> Data:
        """The test rows."""
        return self.split.test


def load_split(config: ProblemConfig, dataset: str, seed: int, group: Sequence[str] = ()) -> Split:
    """Load a data set, grouped as configured or by ``group``; its rows and their order are the same either way."""
    path = config.hsls if dataset == "hsls" else None
    return fmu_jax.datasets.load(dataset, group=group or config.group, seed=seed, path=path)


def train_problem(
    config: ProblemConfig, dataset: str, seed: int, *, sigma: float | None = None, **objective: Any
) -> Problem:
    """Load a data set, draw the perturbation and fit; ``sigma`` and ``objective`` override the configured ones."""
    split = load_split(config, dataset, seed)
    split = dataclasses.replace(split, train=placement.table(split.train), test=placement.table(split.test))
    target = dataclasses.replace(fmu_jax.Objective(l2=config.l2, fairness=config.fairness), **objective)
    noise = noise_of(split.train.x[0], seed, config.sigma if sigma is None else sigma)
    return Problem(split, target, noise, fmu_jax.fit(target, split.train, noise=noise).params)


def noise_of(like: Any, seed: int, sigma: float) -> jax.Array:
    """The perturbation of a seed, for parameters of the shape of ``like``."""
    return fmu_jax.sample_noise(like, key=jax.random.fold_in(jax.random.key(seed), 0), sigma=sigma)


def draw_share(problem: Problem, dataset: str, subset: names.Subset, fraction: float, *, seed: int) -> np.ndarray:
    """Draw a share of all training rows from a subset.

    Raises:
      ValueError: The subset cannot spare so many.
    """
    whole = fmu_jax.forget_sets.count_rows(problem.train)
    rows = fmu_jax.forget_sets.draw_rows(problem.train, round(fraction * whole), subset=subset, seed=seed)
    if rows is None:
        raise ValueError(
            f"--fraction: {fraction} of the {whole} rows of {dataset} is more than its {subset} rows can "
            "spare without emptying a group or label"
        )
    return rows


def distance(first: Any, second: Any) -> float | None:
    """L2 distance of two parameter arrays; None where they have different shapes."""
    first, second = np.asarray(first), np.asarray(second)
    return float(np.linalg.norm(first - second)) if first.shape == second.shape else None


def certified(
    config: Any, objective: Any, before: Any, removal: Any, test: Data, noise: Any, bounds: Sequence[str]
) -> rows.Row:
    """Columns of a removal's certificate, and of the interval in which the retrained model's odds gap lies.

    A model of groups by one attribute is as good a model of other groups: the interval is about labels alone.
    """
    found = fmu_jax.certify(objective, before, removal, sigma=config.sigma, delta=config.delta, noise=noise)
    interval = fmu_jax.fairness_interval(objective, removal, test, noise=noise)
    low, high = interval.equalized_odds_mean.tolist()
    columns = {name: float(getattr(found, name)) for name in bounds}
    return columns | {"undecided": int(interval.undecided), "odds_low": low, "odds_high": high}


def measured(problem: Problem, params: Any) -> rows.Row:
    """Metrics of a model on the test rows, as columns."""
    labels = fmu_jax.predict_labels(problem.objective, params, problem.test.x)
    return fmu_jax.metrics.columns(fmu_jax.metrics.group_metrics(labels, problem.test))


@dataclasses.dataclass(frozen=True)
class Shards:
    """What the sharded baseline needs beside a problem: the shard of each row, and the models of the shards."""

    number: jax.Array
    params: jax.Array


def shards_of(problem: Problem, count: int, seed: int) -> Shards:
    """Deal the rows among shards and train each, without noise."""
    key = jax.random.fold_in(jax.random.key(seed), 1)
    number = fmu_jax.removal.make_shards(len(problem.train.y), count, key=key)
    return Shards(number, fmu_jax.removal.fit_shards(problem.objective, problem.train, number).params)


def remove(problem: Problem, method: str, forget: Any, shards: Shards) -> Any:
    """Forget rows by any method, also where it cannot see the penalty."""
    params = problem.params
    options: dict[str, Any] = {"noise": problem.noise}
    if method == "sharded":
        params, options = shards.params, {"shard": shards.number}
    return fmu_jax.remove(problem.objective, params, problem.train, forget, method=method, allow_unfair=True, **options)


def all_methods() -> list[str]:
    """Every removal method and no removal, retraining first: the others are compared with it."""
    return ["retrain", "no_removal", *(name for name in fmu_jax.removal.METHODS if name != "retrain")]


def mean_metrics(problem: Problem, models: Any, measures: Sequence[str]) -> dict[str, float]:
    """Mean test metrics of ``(draws, d)`` models."""
    every = fmu_jax.metrics.metrics_of_models(problem.objective, models, problem.test)
    return {name: float(getattr(every, name).mean()) for name in measures}


def largest_difference(table: list[rows.Row], column: str) -> float:
    """The largest difference in a column between the unlearned model and the retrained one, over seeds and settings."""
    ours, theirs = (report.where(table, method=method) for method in ("fair_newton", "retrain"))
    return max(abs(one[column] - other[column]) for one, other in zip(ours, theirs, strict=True))


def draw_costs(
    path: Path, table: list[rows.Row], datasets: Sequence[str], curves: Sequence[tuple[looks.Look, list[rows.Row]]], *,
    x: str, xlabel: str,
) -> None:  # fmt: skip
    """Draw accuracy and odds gap against what noise depends on, a row of panels a data set; medians over seeds.

    The dashed line is the retrained model. A gap that falls where accuracy does is no fairness: noise that large makes
    every prediction a guess.
    """
    cells = [(name, column) for name in datasets for column in ("accuracy", "equalized_odds_mean")]
    titles = [f"{looks.look(name).label}, {looks.titled(column)[column]}" for name, column in cells]
    with plot.panels(path, titles, 2, legend=3, width=4.2, height=2.7) as axes:
        for panel, (dataset, column) in zip(axes, cells, strict=True):
            target = report.median(table, column, dataset=dataset, method="retrain")
            panel.axhline(target, color=looks.BLACK, linestyle="--", linewidth=0.9, label="retrained, no noise")
            for look, chosen in curves:
                plot.curve(panel, report.where(chosen, dataset=dataset), look, x=x, y=column)
            panel.set(xscale="log", xlabel=xlabel, ylabel=f"{looks.titled(column)[column]} (test)")
