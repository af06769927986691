"""What a series of releases costs in accuracy and fairness: its length, its guarantee, and the shape of its noise.

    python -m scripts.fmu.releases --out runs/releases

Questions, written down before the first run:

1. Which accuracy and odds gap do releases have at ``mu`` = 0.1, 0.3 and 1 for a whole series of 1, 10 and 100?
2. Does noise that is shaped by what both worlds share lose less than isotropic noise at the same ``mu``: by the scores
   (``X'X/4`` of the remaining rows and the ridge), or by the objective (the penalty's quadratic form as well)?
3. How does that compare with the paper's scheme, noise in training and a budget on its own epsilon, which is
   ``gaussian_epsilon(mu)`` for each single model, and with retraining without noise?
4. What does a release cost, and how often is the model refreshed?

Each release deletes ``fraction`` of the rows at random. A rehearsal with other rows fixes beforehand what must be
fixed: the admitted distance is ``slack`` times what it certifies after ``endurance`` such batches, so that a refresh
lasts about that long, and the paper's sigma comes from it, too. Metrics are those of the last model of the series on
test rows, means over noise draws. There is one row for each data set, seed, method, shape, ``mu`` and length.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from scripts.fmu import problems
from scripts.harness import cli, looks, report
from scripts.harness.experiment import Claim, Experiment, Results, Row
from scripts.harness.lazy import fmu_jax, jax, jnp

MEASURES = ("accuracy", "equalized_odds_mean")
#: What shapes the noise; None is the identity.
SHAPES = ("isotropic", "scores", "objective")
LOOKS = {
    "isotropic": looks.Look("release, isotropic noise", looks.ORANGE, "o"),
    "scores": looks.Look("release, shaped by scores", looks.BLUE, "D"),
    "objective": looks.Look("release, shaped by the objective", looks.GREEN, "^"),
    "paper": looks.Look("noise in training, each model alone", looks.VERMILION, "X"),
}


@dataclass(frozen=True)
class Config(problems.CertifiedConfig):
    """Compare releases with the paper's scheme and with retraining; each mu has its own sigma, --sigma is not used."""

    PRESETS: ClassVar = {
        "quick": {"repeats": 1, "mus": (0.3,), "lengths": (1, 10), "draws": 20, "perturbations": 2},
        "paper": {"repeats": 5, "perturbations": 2},
    }

    mus: tuple[cli.Positive, ...] = (0.1, 0.3, 1.0)
    """Gaussian-DP parameters of whole series."""
    lengths: tuple[cli.Count, ...] = (1, 10, 100)
    """Numbers of releases in a series."""
    fraction: cli.Share = 0.001
    """Share of the training rows that each release deletes."""
    endurance: cli.Count = 10
    """Number of batches after which the rehearsal measures the distance to admit."""
    slack: cli.Positive = 2.0
    """Factor by which the admitted distance exceeds the one that the rehearsal certified."""
    draws: cli.Count = 200
    """Number of noise draws to average over."""
    perturbations: cli.Count = 5
    """Number of draws of the paper's training noise to average over."""


def rows_of(config: Config, *, dataset: str, seed: int) -> list[Row]:
    """Every method at every mu and length, on one split."""
    problem = problems.train_problem(config, dataset, seed, sigma=0.0)
    size = max(1, round(config.fraction * fmu_jax.forget_sets.count_rows(problem.train)))
    batches, rehearsed = (
        fmu_jax.forget_sets.draw_batches(problem.train, count, size, seed=own)
        for count, own in ((max(config.lengths), seed), (config.endurance, seed + 1000))
    )
    key = jax.random.fold_in(jax.random.key(seed), 1)
    table = []
    for length in config.lengths:
        gone = np.concatenate(batches[:length])
        begin = time.perf_counter()
        params = fmu_jax.remove(problem.objective, problem.params, problem.train, gone, method="retrain").params
        spent = 1e3 * (time.perf_counter() - begin)
        about = {"method": "retrain", "releases": length, "ms": spent}
        table.append(about | measure(problem, jax.block_until_ready(params)[None]))
    for shape in SHAPES:
        table += released(config, problem, shape, batches, rehearsed, key)
    return table + [row for mu in config.mus for row in perturbed(config, problem, mu, batches, rehearsed, key)]


def released(config: Config, problem: problems.Problem, kind: str, batches, rehearsed, key: jax.Array) -> list[Row]:
    """Releases with noise of one shape, at every mu and length."""
    stream, options = fmu_jax.stream, {"kind": kind, "slack": config.slack, "clock": time.perf_counter}
    series = stream.serve_for_releases(problem.objective, problem.train, batches, rehearsed, **options)
    table = []
    for length in config.lengths:
        at = stream.published_after(problem.objective, series, length)
        about = {"method": "release", "shape": kind, "releases": length, "admitted": series.admitted}
        about |= {"distance": at.distance, "true_distance": at.true_distance, "refreshes": at.refreshes}
        about |= {"ms": 1e3 * at.seconds}
        keys = jax.random.split(jax.random.fold_in(key, length), config.draws)
        for mu in config.mus:
            scale = fmu_jax.releases.scale_for(series.admitted, mu=mu, releases=length)
            how = {"scale": scale, "admitted": series.admitted, "shape": at.shape, "keys": keys}
            models, publish_ms = timed(partial(fmu_jax.releases.release_many, at.params, at.distance, **how))
            row = {"mu": mu, "scale": float(scale), "publish_ms": publish_ms / config.draws}
            table.append(about | row | measure(problem, models))
    return table


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """The result of a second call, and its milliseconds."""
    jax.block_until_ready(call())
    begin = time.perf_counter()
    result = jax.block_until_ready(call())
    return result, 1e3 * (time.perf_counter() - begin)


def perturbed(config: Config, problem: problems.Problem, mu: float, batches, rehearsed, key: jax.Array) -> list[Row]:
    """The paper's scheme at one epsilon: noise in training, refreshed when the epsilon of a model passes the budget."""
    keys = jax.random.split(key, config.perturbations)
    options = {"mu": mu, "delta": config.delta, "slack": config.slack, "keys": keys}
    found = fmu_jax.stream.serve_perturbed(problem.objective, problem.train, batches, rehearsed, **options)
    table = []
    for length in config.lengths:
        models = jnp.stack([served[length - 1].state.params for served in found.draws])
        refreshes = [fmu_jax.stream.refreshes_of(served[:length]) for served in found.draws]
        row = {"method": "objective_noise", "releases": length, "mu": mu, "epsilon": found.epsilon}
        row |= {"scale": found.sigma, "refreshes": float(np.mean(refreshes))}
        table.append(row | measure(problem, models))
    return table


def measure(problem: problems.Problem, models: Any) -> dict[str, float]:
    """Mean test metrics of ``(draws, d)`` models, and the spread of accuracy over them."""
    accuracy = fmu_jax.metrics.metrics_of_models(problem.objective, models, problem.test).accuracy
    return problems.mean_metrics(problem, models, MEASURES) | {"accuracy_spread": float(accuracy.std())}


def draw(config: Config, table: list[Row]) -> None:
    """Draw accuracy and odds gap against the mu of one release, ``mu / sqrt(length)``.

    The noise depends on nothing else, so series of every length and guarantee lie on one line. The paper's epsilon is
    that of one model, however long the series.
    """
    curves = []
    for name, look in LOOKS.items():
        chosen = report.where(table, **({"method": "objective_noise"} if name == "paper" else {"shape": name}))
        lengths = [1 if name == "paper" else row["releases"] for row in chosen]
        each = [round(row["mu"] / length**0.5, 6) for row, length in zip(chosen, lengths, strict=True)]
        curves.append((look, [row | {"each": mu} for row, mu in zip(chosen, each, strict=True)]))
    path = config.out / "releases.png"
    problems.draw_costs(path, table, config.datasets, curves, x="each", xlabel="mu of one release")


def section(results: Results) -> list[report.Block]:
    """The last model of each series."""
    by = looks.titled("dataset", "method", shape="noise", mu="mu", releases="releases")
    columns = ("accuracy", "equalized_odds_mean", "refreshes", "ms")
    return [
        "Every published model of a series carries fresh noise, and the whole series keeps its mu (Gaussian "
        "differential privacy; smaller is stronger). The paper's scheme adds noise in training and keeps its epsilon "
        "for each model alone.",
        report.Table(report.medians(results.rows, by, columns), "The last model of each series (medians over seeds, "
                     "test rows)."),
        *results.figures("releases.png", "Accuracy and odds gap against the mu of one release, by shape of the noise",
                         "Accuracy and odds gap that a release costs."),
    ]  # fmt: skip


def claims(results: Results) -> list[Claim]:
    """Does a series of releases at mu = 1 cost little accuracy?"""
    mu = max(row["mu"] for row in results.rows if row.get("shape"))
    length, lost = max(row["releases"] for row in results.rows), []
    for part in report.groups(report.where(results.rows, releases=length), "dataset").values():
        target = report.median(part, "accuracy", method="retrain")
        shaped = [report.median(part, "accuracy", mu=mu, shape=shape) for shape in SHAPES]
        lost.append(target - max(value for value in shaped if value is not None))
    text = f"A series of {length} releases with mu = {mu:g} in all (ours) costs little accuracy (shown: at most 0.01)."
    return [Claim(text, [value <= 0.01 for value in lost], f"accuracy lost: at most {max(lost):.3f}")]


EXPERIMENT = Experiment(
    "fmu_releases", Config, rows_of, draw=draw, heading="Releases with fresh noise", section=section,
    claims=claims, x64=True,
)  # fmt: skip
EXPERIMENT.run_as(__name__)
