"""What a series of releases costs in accuracy and fairness: its length, its guarantee, and the shape of its noise.

    python -m scripts.fmu.releases --out runs/releases

Questions, written down before the first run:

1. Which accuracy and odds gap do releases have at ``mu`` = 0.1, 0.3 and 1 for a whole series of 1, 10 and 100?
2. Does noise that is shaped by what both worlds share lose less than isotropic noise at the same ``mu``: by the scores
   (``X'X/4`` of the remaining rows and the ridge), or by the objective (the penalty's quadratic form as well)?
3. How does that compare with the paper's scheme, noise in training and a budget on its own epsilon, which is
   ``gaussian_epsilon(mu)`` for each single model, and with retraining without noise?
4. What does a release cost, and how often is the model refreshed?

A rehearsal with other rows fixes beforehand what must be fixed (see ``fmu_jax.stream.series``). Metrics are those of
the last model of the series. There is one row for each data set, seed, method, shape, ``mu`` and length.
"""

import time
from dataclasses import dataclass
from typing import Any, ClassVar

from scripts.fmu import problems
from scripts.harness import cli, looks, report
from scripts.harness.experiment import Claim, Experiment, Results, Row
from scripts.harness.lazy import fmu_jax, jax

#: What shapes the noise; None is the identity.
SHAPES = ("isotropic", "scores", "objective")
#: Flags that say what is compared, and how precisely.
HOW = ("mus", "lengths", "slack", "draws", "delta", "perturbations")
#: How the rows that have some values are drawn.
CURVES = (
    (looks.Look("release, isotropic noise", looks.ORANGE, "o"), {"shape": "isotropic"}),
    (looks.Look("release, shaped by scores", looks.BLUE, "D"), {"shape": "scores"}),
    (looks.Look("release, shaped by the objective", looks.GREEN, "^"), {"shape": "objective"}),
    (looks.Look("noise in training, each model alone", looks.VERMILION, "X"), {"method": "objective_noise"}),
)


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
    train, test, objective, _, fitted = problems.train_problem(config, dataset, seed, sigma=0.0)
    sets, stream = fmu_jax.forget_sets, fmu_jax.stream
    size = max(1, round(config.fraction * sets.count_rows(train)))
    batches = sets.draw_batches(train, max(config.lengths), size, seed=seed)
    rehearsed = sets.draw_batches(train, config.endurance, size, seed=seed + 1000)
    how: dict[str, Any] = {name: getattr(config, name) for name in HOW}
    how |= {"kinds": SHAPES, "key": jax.random.fold_in(jax.random.key(seed), 1), "clock": time.perf_counter}
    return stream.series_costs(objective, fitted.params, train, test, batches, rehearsed, **how)


def draw(config: Config, table: list[Row]) -> None:
    """Draw accuracy and odds gap against the mu of one release, ``mu / sqrt(length)``.

    The noise depends on nothing else, so series of every length and guarantee lie on one line. The paper's epsilon is
    that of one model, however long the series.
    """
    noisy = [row for row in table if row["method"] != "retrain"]
    lengths = [row["releases"] if row["method"] == "release" else 1 for row in noisy]
    noisy = [row | {"each": round(row["mu"] / n**0.5, 6)} for row, n in zip(noisy, lengths, strict=True)]
    curves = [(look, report.where(noisy, **values)) for look, values in CURVES]
    axis = {"x": "each", "xlabel": "mu of one release", "xscale": "log"}
    target = report.where(table, method="retrain")
    problems.draw_costs(config.out / "releases.png", config.datasets, curves, retrained=target, **axis)


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
    return [Claim(text, [value <= 0.01 for value in lost], f"accuracy lost: {report.at_most(max(lost))}")]


EXPERIMENT = Experiment(
    "fmu_releases", Config, rows_of, draw=draw, heading="Releases with fresh noise", section=section,
    claims=claims, x64=True, optimised=True,
)  # fmt: skip
EXPERIMENT.run_as(__name__)
