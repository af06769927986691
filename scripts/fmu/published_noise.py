"""What hiding a removal costs: noise on the training objective (ours) or on the published model (descent-to-delete).

    python -m scripts.fmu.published_noise --out runs/published_noise

At equal epsilon, a share of the rows is forgotten at random and the model that is published is tested:

- fair Newton with objective noise, as small as certifies that epsilon for the residual which it leaves;
- descent with noise on the published parameters (Neel et al. 2021), as large as their a priori distance asks for by
  their conversion, or as our a posteriori distance asks for exactly;
- a fair Newton step with published noise, which tells the effect of the step from that of where the noise goes.

Each noise is fitted to the deletion at hand, which shows what a guarantee needs; an operator fixes it beforehand (see
``fmu_jax.output_perturbation``). Rows: one for each data set, seed, epsilon, method, bound and number of steps; metrics
are means over noise draws.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

from fmu_jax import certify, metrics, predict_labels, remove, sample_noise
from fmu_jax.calibration import calibrate_noise
from fmu_jax.forget_sets import count_rows, draw_rows
from fmu_jax.output_perturbation import certify_descent, neel_sigma, publish_sigma_from
from scripts.fmu import problems
from scripts.fmu.problems import Problem, ProblemConfig
from scripts.harness import cli, looks, plot

MEASURES = ("accuracy", "equalized_odds_mean", "demographic_parity", "equal_opportunity")
#: How lines of one colour differ by the number of steps.
DASHES = ((0, (1.0, 1.5)), (0, (4.0, 2.0)), "-", (0, (5.0, 1.0, 1.0, 1.0)))


@dataclass(frozen=True)
class Config(ProblemConfig):
    """Compare the two places for noise at equal epsilon; --sigma is not used, each epsilon has its own."""

    PRESETS: ClassVar = {
        "quick": {"repeats": 1, "epsilons": (0.01, 0.1, 1.0, 10.0), "steps": (10, 200), "draws": 5},
        "paper": {
            "repeats": 5,
            "epsilons": tuple(10.0 ** (k / 4) for k in range(-8, 5)),
            "steps": (10, 50, 200, 1000),
            "draws": 100,
        },
    }

    out: Path = Path("runs/fmu_published_noise")
    epsilons: tuple[cli.Positive, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    """What every method has to certify."""
    delta: cli.Probability = 1e-5
    """Failure probability."""
    fraction: cli.Share = 0.01
    """Share of the training rows to forget at random."""
    steps: tuple[cli.Count, ...] = (10, 50, 200)
    """Numbers of gradient steps of descent."""
    draws: cli.Count = 20
    """Noise draws to average over."""
    repeats: cli.Count = 3
    """Seeds, counted from --seed: each draws a split, the rows to forget and the noise."""


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit for each data set and seed."""
    return config.units()


def main(config: Config) -> None:
    """Runs what is not done yet and draws the figure."""
    table = problems.run_units(config, plan(config), rows_of)
    draw(config, table)


def rows_of(config: Config, *, dataset: str, seed: int) -> list[dict[str, Any]]:
    """Every method at every epsilon on one split, and the retrained model without noise."""
    problem = problems.train_problem(config, dataset, seed, sigma=0.0)
    count = round(config.fraction * count_rows(problem.train))
    forget = draw_rows(problem.train, count, seed=seed)
    if forget is None:
        raise ValueError(f"--fraction: {config.fraction} of the rows of {dataset} leaves a cell empty")
    key = jax.random.fold_in(jax.random.key(seed), 1)
    unit = sample_noise(jnp.zeros((config.draws, problem.params.shape[0])), key=key, sigma=1.0)

    retrained = remove(problem.objective, problem.params, problem.train, forget, method="retrain").params
    table = [{"epsilon": 0.0, "method": "retrain", "sigma": 0.0, "distance": 0.0}]
    table[0] |= measure(problem, retrained[None])
    epsilons = jnp.array(config.epsilons)
    for about, params, distance, sigma_of in published(config, problem, forget):
        off = float(jnp.linalg.norm(params - retrained))
        for epsilon, sigma in zip(config.epsilons, sigma_of(distance, epsilons, config.delta).tolist(), strict=True):
            row = {"epsilon": epsilon, "noise": "published", "sigma": sigma, "distance": distance, "true_distance": off}
            table.append(about | row | measure(problem, params[None] + sigma * unit))
    for epsilon in config.epsilons:
        about = {"epsilon": epsilon, "method": "fair_newton", "noise": "objective"}
        table.append(about | perturbed(config, problem, forget, unit, epsilon))
    return table


def published(config: Config, problem: Problem, forget: np.ndarray) -> list[tuple[dict[str, Any], Any, float, Any]]:
    """What noise can be added to: a description, parameters, a bound on their distance, and the rule for its level."""
    objective, before, train = problem.objective, problem.params, problem.train
    newton = remove(objective, before, train, forget)
    certificate = certify(objective, before, newton, sigma=1.0, delta=config.delta)
    near = min(float(certificate.local_distance_bound), float(certificate.distance_bound))
    found = [({"method": "fair_newton", "bound": "a_posteriori"}, newton.params, near, publish_sigma_from)]
    for steps in config.steps:
        removal = remove(objective, before, train, forget, method="descent", steps=steps)
        # The distances do not depend on the noise that will be published.
        c = certify_descent(objective, before, removal, publish_sigma=1.0, delta=config.delta, steps=steps)
        for bound, distance, sigma_of in (
            ("a_priori", c.a_priori_distance, neel_sigma),
            ("a_posteriori", c.distance, publish_sigma_from),
        ):
            about = {"method": "descent", "bound": bound, "steps": steps}
            found.append((about, removal.params, float(distance), sigma_of))
    return found


def measure(problem: Problem, models: jax.Array) -> dict[str, float]:
    """Mean test metrics of ``(draws, d)`` models."""
    return {name: float(value) for name, value in _measure(problem.objective, models, problem.test).items()}


@jax.jit
def _measure(objective, models, test):
    def one(params):
        return metrics.group_metrics(predict_labels(objective, params, test.x), test)

    every = jax.lax.map(one, models)
    return {name: getattr(every, name).mean() for name in MEASURES}


def perturbed(config: Config, problem: Problem, forget: np.ndarray, unit: jax.Array, epsilon: float) -> dict[str, Any]:
    """Our row at one epsilon: a noise level, a model and its removal for each draw; None where no level suffices."""
    mask = jnp.zeros(problem.train.y.shape, bool).at[forget].set(True)
    found = _calibrated(problem.objective, problem.params, problem.train, mask, unit, epsilon, config.delta)
    if not bool(jnp.all(found.converged)):
        return dict.fromkeys(("sigma", "distance", *MEASURES))
    middle = {"sigma": float(jnp.median(found.sigma)), "distance": float(jnp.median(found.distance))}
    return middle | measure(problem, found.params)


@jax.jit
def _calibrated(objective, params, train, mask, unit, epsilon, delta):
    given = {"epsilon": epsilon, "delta": delta, "init": params}
    return jax.lax.map(lambda direction: calibrate_noise(objective, train, mask, direction, **given), unit)


def series(config: Config) -> list[tuple[looks.Look, dict[str, Any]]]:
    """The lines of the figure: a look, and what its rows have in common."""
    ours = looks.Look("fair Newton, objective noise", looks.VERMILION, "o")
    newton = looks.Look("fair Newton, published noise", looks.GREEN, "D", (0, (4.0, 2.0)))
    lines: list[tuple[looks.Look, dict[str, Any]]] = [
        (newton, {"method": "fair_newton", "noise": "published"}),
        (ours, {"method": "fair_newton", "noise": "objective"}),
    ]
    for bound, label, color, marker in (
        ("a_posteriori", "a posteriori", looks.ORANGE, "X"),
        ("a_priori", "Neel et al.", looks.BLUE, "^"),
    ):
        for k, steps in enumerate(config.steps):
            look = looks.Look(f"descent, {steps} steps, {label}", color, marker, DASHES[k % len(DASHES)])
            lines.append((look, {"method": "descent", "bound": bound, "steps": steps}))
    return lines


def draw(config: Config, table: Sequence[dict[str, Any]]) -> Path:
    """Accuracy and odds gap against epsilon, a row of panels a data set; medians over seeds.

    A gap that falls where accuracy does is no fairness: noise that large makes every prediction a guess.
    """
    columns = {"accuracy": "accuracy", "equalized_odds_mean": "average odds gap"}
    titles = [f"{plot.look(name).label}, {label}" for name in config.datasets for label in columns.values()]
    figure, axes = plot.figure(len(config.datasets), len(columns), titles=titles, width=4.2, height=2.7)
    for line, dataset in zip(axes, config.datasets, strict=True):
        part = [row for row in table if row["dataset"] == dataset]
        for panel, (column, label) in zip(line, columns.items(), strict=True):
            target = float(np.median([row[column] for row in part if row["method"] == "retrain"]))
            panel.axhline(target, color=looks.BLACK, linestyle="--", linewidth=0.9, label="retrained, no noise")
            for look, common in series(config):
                chosen = [row for row in part if common.items() <= row.items()]
                draw_median(panel, chosen, column, look)
            panel.set(xscale="log", xlabel=f"epsilon (delta = {config.delta:g})", ylabel=f"{label} (test)")
    plot.legend(figure, columns=3)
    return plot.save(figure, config.out / "published_noise.png")


def draw_median(panel: Axes, part: Sequence[dict[str, Any]], column: str, look: looks.Look) -> None:
    """The median over seeds at each epsilon; seeds without a value are left out."""
    kept = [row for row in part if row[column] is not None]
    epsilons = sorted({row["epsilon"] for row in kept})
    middle = [np.median([row[column] for row in kept if row["epsilon"] == epsilon]) for epsilon in epsilons]
    size = plot.STYLE["lines.markersize"]
    panel.plot(
        epsilons, middle, color=look.color, marker=look.marker, markersize=size, linestyle=look.dash, label=look.label
    )


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
