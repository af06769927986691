"""What the unlearning scripts share: a data set with a trained model, and which rows to forget."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from fmu_jax import Data, Objective, datasets, fit, sample_noise
from fmu_jax.metrics import GroupMetrics
from scripts.harness import cli, placement, rows, store

Attribute = Literal["race", "gender"]
DataSet = Literal["compas", "adult", "hsls"]


@dataclasses.dataclass(frozen=True)
class ProblemConfig(cli.Common):
    """Flags of every unlearning script."""

    datasets: tuple[DataSet, ...] = ("compas", "adult")
    """Data sets; hsls needs --hsls."""
    group: tuple[Attribute, ...] = ("race",)
    """Protected attribute; of several, every combination of their values is a group."""
    hsls: Path | None = None
    """Your HSLS:09 public-use file, or a folder of its parts."""
    l2: cli.Positive = 1e-4
    """Ridge strength per row."""
    fairness: cli.NonNegative = 1.0
    """Weight of the fairness penalty."""
    sigma: cli.NonNegative = 1.0
    """Standard deviation of the objective perturbation."""
    repeats: cli.Count = 5
    """Seeds, counted from --seed: each draws a split, a perturbation and the rows to forget."""

    def units(self, **axes: tuple) -> list[dict[str, Any]]:
        """One unit of work for each data set, combination of ``axes`` and seed."""
        if "hsls" in self.datasets and self.hsls is None:
            raise ValueError("--datasets hsls needs --hsls, the path of your HSLS:09 public-use file")
        units: list[dict[str, Any]] = [{"dataset": name} for name in self.datasets]
        for axis, values in {**axes, "seed": tuple(range(self.seed, self.seed + self.repeats))}.items():
            units = [unit | {axis: value} for unit in units for value in values]
        return units


@dataclasses.dataclass(frozen=True)
class Problem:
    """A split, an objective, its perturbation, and the parameters trained on them."""

    split: datasets.Split
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


def run_units(
    config: ProblemConfig, units: Sequence[dict[str, Any]], rows_of: Callable[..., list[rows.Row]]
) -> list[rows.Row]:
    """Does the units that are not done yet, in float64 as certificates want, and returns all rows of the run.

    Args:
      config: the script's; says where.
      units: all units of the run.
      rows_of: ``rows_of(config, **unit)``, the rows of one unit.
    """
    jax.config.update("jax_enable_x64", True)
    with store.open_run(config.out, config) as run:
        run.do(units, lambda unit: rows_of(config, **unit))
    return store.read_rows(config.out)


def load_split(config: ProblemConfig, dataset: str, seed: int, group: Sequence[str] = ()) -> datasets.Split:
    """Loads a data set, grouped as configured or by ``group``; its rows and their order are the same either way."""
    return datasets.load(
        dataset, group=group or config.group, seed=seed, path=config.hsls if dataset == "hsls" else None
    )


def train_problem(
    config: ProblemConfig, dataset: str, seed: int, *, sigma: float | None = None, **objective: Any
) -> Problem:
    """Loads a data set, draws the perturbation and fits; ``sigma`` and ``objective`` override the configured ones."""
    split = load_split(config, dataset, seed)
    split = dataclasses.replace(split, train=placement.table(split.train), test=placement.table(split.test))
    target = dataclasses.replace(Objective(l2=config.l2, fairness=config.fairness), **objective)
    key = jax.random.fold_in(jax.random.key(seed), 0)
    noise = sample_noise(split.train.x[0], key=key, sigma=config.sigma if sigma is None else sigma)
    return Problem(split, target, noise, fit(target, split.train, noise=noise).params)


def metric_columns(metrics: GroupMetrics) -> rows.Row:
    """Group metrics as columns of a row; group vectors become a column a group."""
    columns: rows.Row = {}
    for name, value in metrics._asdict().items():
        value = np.asarray(value)
        columns |= {f"{name}_{g}": v for g, v in enumerate(value.tolist())} if value.ndim else {name: float(value)}
    return columns
