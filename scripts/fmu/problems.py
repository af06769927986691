"""What the experiments on unlearning share: a data set with a trained model, and which rows to forget."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from scripts.harness import cli, looks, names, placement, plot, report, rows
from scripts.harness.lazy import fmu_jax, jax, pags_jax

#: Fashion-MNIST's T-shirt, pullover, dress, coat and shirt; CIFAR-10's animals.
UPPER_BODY, ANIMALS = (0, 2, 3, 4, 6), (2, 3, 4, 5, 6, 7)


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

    def objective(self, **overrides: Any) -> fmu_jax.Objective:
        """The configured objective; ``overrides`` say what differs."""
        values: dict[str, Any] = {"l2": self.l2, "fairness": self.fairness}
        return fmu_jax.Objective(**values | overrides)

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
class NetworkConfig(ProblemConfig):
    """Flags of the experiments that train small networks."""

    l2: cli.Positive = 1e-3
    rows: cli.Count = 1000
    """Number of training rows, and the largest number of test rows."""
    width: cli.Count = 16
    """Number of hidden units."""
    train_steps: cli.Count = 200
    """Number of steps of Adam in training."""
    learning_rate: cli.Positive = 0.02
    """Adam's learning rate, in training and repair."""
    network: Path = Path("benchmarks/results/cifar10/undefended.safetensors")
    """Classifier of CIFAR-10's training images, a model file, whose features of test images are the rows of cifar10."""
    cifar10: Path | None = None
    """Folder of CIFAR-10's binary version; by default it is downloaded."""


class Problem(NamedTuple):
    """Rows, an objective, its perturbation, and the model trained on them."""

    train: fmu_jax.Data
    test: fmu_jax.Data
    objective: fmu_jax.Objective
    noise: jax.Array
    fitted: fmu_jax.FitResult


def load_split(config: ProblemConfig, dataset: str, seed: int, group: Sequence[str] = ()) -> fmu_jax.datasets.Split:
    """Load a data set, grouped as configured or by ``group``; its rows and their order are the same either way."""
    path = config.hsls if dataset == "hsls" else None
    return fmu_jax.datasets.load(dataset, group=group or config.group, seed=seed, path=path)


def train_problem(
    config: ProblemConfig, dataset: str, seed: int, *, sigma: float | None = None, **objective: Any
) -> Problem:
    """Load a data set, draw the perturbation and fit; ``sigma`` and ``objective`` override the configured ones."""
    split = load_split(config, dataset, seed)
    train, test = placement.table(split.train), placement.table(split.test)
    target = config.objective(**objective)
    noise = noise_of(train.x[0], seed, config.sigma if sigma is None else sigma)
    return Problem(train, test, target, noise, fmu_jax.fit(target, train, noise=noise))


def load_rows(config: NetworkConfig, dataset: str, seed: int) -> list[fmu_jax.Data]:
    """Rows to train small networks on and test rows, ``config.rows`` of each at most, float32."""
    if dataset == "fashion_mnist":
        data = pags_jax.datasets.load(dataset)
        images = [(x, np.isin(y, UPPER_BODY)) for x, y in ((data.train_x, data.train_y), (data.test_x, data.test_y))]
        parts = [pictures(pags_jax.images.averaged(np.asarray(x, np.float32)), x, label) for x, label in images]
    elif dataset == "cifar10":  # Which the network was not trained on, so that nobody's row is in its features.
        data, network = pags_jax.datasets.load(dataset, folder=config.cifar10), pags_jax.models.load(config.network)
        features = partial(jax.jit(pags_jax.models.features, static_argnums=0), *network[:2])
        halves = np.random.default_rng(seed).permutation(len(data.test_x)).reshape(2, -1)[:, : config.rows]
        images = [(data.test_x[half], np.isin(data.test_y[half], ANIMALS)) for half in halves]
        parts = [pictures(np.asarray(features(pags_jax.images.to_float(x))), x, label) for x, label in images]
    else:
        split = load_split(config, dataset, seed)
        parts = [split.train, split.test]
    rng, found = np.random.default_rng([seed, 7]), []
    for part in parts:
        part = fmu_jax.data.select_rows(part, rng.permutation(len(part.y))[: config.rows])
        found.append(part._replace(x=part.x.astype("float32"), weight=part.weight.astype("float32")))
    return found


def pictures(rows: np.ndarray, x: np.ndarray, labels: np.ndarray) -> fmu_jax.Data:
    """Rows made of images, with two labels; the group is artificial, brighter than the median image or not."""
    bright = np.asarray(x, np.float64).mean(axis=(1, 2, 3))
    return fmu_jax.make_data(rows, labels.astype(int), (bright > np.median(bright)).astype(int))


def noise_of(like: Any, seed: int, sigma: float) -> jax.Array:
    """The perturbation of a seed, for parameters of the shape of ``like``."""
    return fmu_jax.sample_noise(like, key=jax.random.fold_in(jax.random.key(seed), 0), sigma=sigma)


def draw_share(train: fmu_jax.Data, fraction: float, subset: names.Subset = "random", *, seed: int) -> np.ndarray:
    """Draw a share of all training rows from a subset.

    Raises:
      ValueError: The subset cannot spare so many.
    """
    whole = fmu_jax.forget_sets.count_rows(train)
    rows = fmu_jax.forget_sets.draw_rows(train, round(fraction * whole), subset=subset, seed=seed)
    if rows is None:
        raise ValueError(f"--fraction: {fraction} of {whole} rows would leave a group or label without {subset} rows")
    return rows


def nearest(table: list[rows.Row], column: str, target: float) -> float:
    """The value of a column that is nearest to a target as a factor."""
    return min({row[column] for row in table if row[column] > 0}, key=lambda value: abs(np.log(value / target)))


def largest_difference(table: list[rows.Row], column: str) -> float:
    """The largest difference in a column between the unlearned model and the retrained one, over seeds and settings."""
    ours, theirs = (report.where(table, method=method) for method in ("fair_newton", "retrain"))
    return max(abs(one[column] - other[column]) for one, other in zip(ours, theirs, strict=True))


def draw_costs(
    path: Path, datasets: Sequence[str], curves: Sequence[tuple[looks.Look, list[rows.Row]]], *, x: str, xlabel: str,
    retrained: Sequence[rows.Row] = (), xscale: str = "linear",
) -> None:  # fmt: skip
    """Draw accuracy and odds gap against what guarantees cost, a row of panels a data set; medians over seeds.

    The dashed line is the retrained model. A gap that falls where accuracy does is no fairness: noise that large makes
    every prediction a guess.
    """
    cells = [(name, column) for name in datasets for column in ("accuracy", "equalized_odds_mean")]
    titles = [f"{looks.look(name).label}, {looks.titled(column)[column]}" for name, column in cells]
    with plot.panels(path, titles, 2, legend=3, width=4.2, height=2.7) as axes:
        for panel, (dataset, column) in zip(axes, cells, strict=True):
            if retrained:
                target = report.median(retrained, column, dataset=dataset)
                panel.axhline(target, color=looks.BLACK, linestyle="--", linewidth=0.9, label="retrained, no noise")
            for look, chosen in curves:
                plot.curve(panel, report.where(chosen, dataset=dataset), look, x=x, y=column)
            panel.set(xscale=xscale, xlabel=xlabel, ylabel=f"{looks.titled(column)[column]} (test)")
