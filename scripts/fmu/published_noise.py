"""Accuracy that hiding a removal costs, by noise on the training objective (ours) or on the published model.

    python -m scripts.fmu.published_noise --out runs/published_noise

At equal epsilon, a share of the rows is forgotten at random and the model that is published is tested:

- fair Newton with the smallest objective noise that certifies this epsilon for the residual which it leaves;
- descent with noise on the published parameters (descent-to-delete, Neel et al. 2021), as large as their a priori
  distance requires by their conversion, or as our a posteriori distance requires exactly;
- a fair Newton step with published noise, which separates the effect of the step from that of the noise's place.

Each noise is fitted to the deletion at hand, which shows what a guarantee needs; an operator fixes it beforehand (see
``fmu_jax.output_perturbation``). There is one row for each data set, seed, epsilon, method, bound and number of steps;
metrics are means over noise draws.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from scripts.fmu import problems
from scripts.harness import cli, looks, report
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax, jax, jnp

MEASURES = ("accuracy", "equalized_odds_mean", "demographic_parity", "equal_opportunity")
#: How lines of one colour differ by the number of steps.
DASHES = ((0, (1.0, 1.5)), (0, (4.0, 2.0)), "-", (0, (5.0, 1.0, 1.0, 1.0)))


@dataclass(frozen=True)
class Config(problems.CertifiedConfig):
    """Compare the two places for noise at equal epsilon; each epsilon has its own sigma, and --sigma is not used."""

    PRESETS: ClassVar = {
        "quick": {"repeats": 1, "epsilons": (0.01, 0.1, 1.0, 10.0), "steps": (10, 200), "draws": 5},
        "paper": {
            "repeats": 5, "epsilons": tuple(10.0 ** (k / 4) for k in range(-8, 5)), "steps": (10, 50, 200, 1000),
            "draws": 100,
        },
    }  # fmt: skip

    epsilons: tuple[cli.Positive, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    """The epsilons that every method has to certify."""
    fraction: cli.Share = 0.01
    """Share of the training rows to forget at random."""
    steps: tuple[cli.Count, ...] = (10, 50, 200)
    """Numbers of gradient steps of descent."""
    draws: cli.Count = 20
    """Number of noise draws to average over."""
    repeats: cli.Count = 3


def rows_of(config: Config, *, dataset: str, seed: int) -> list[Row]:
    """Every method at every epsilon on one split, and the retrained model without noise."""
    problem = problems.train_problem(config, dataset, seed, sigma=0.0)
    forget = problems.draw_share(problem, dataset, "random", config.fraction, seed=seed)
    key = jax.random.fold_in(jax.random.key(seed), 1)
    unit = fmu_jax.sample_noise(jnp.zeros((config.draws, problem.params.shape[0])), key=key, sigma=1.0)
    retrained = fmu_jax.remove(problem.objective, problem.params, problem.train, forget, method="retrain").params
    table: list[Row] = [{"epsilon": 0.0, "method": "retrain", "sigma": 0.0, "distance": 0.0}]
    table[0] |= problems.mean_metrics(problem, retrained[None], MEASURES)
    epsilons = jnp.array(config.epsilons)
    for about, params, distance, sigma_of in published(config, problem, forget):
        off = float(jnp.linalg.norm(params - retrained))
        for epsilon, sigma in zip(config.epsilons, sigma_of(distance, epsilons, config.delta).tolist(), strict=True):
            row = {"epsilon": epsilon, "noise": "published", "sigma": sigma, "distance": distance, "true_distance": off}
            table.append(about | row | problems.mean_metrics(problem, params[None] + sigma * unit, MEASURES))
    for epsilon in config.epsilons:
        about = {"epsilon": epsilon, "method": "fair_newton", "noise": "objective"}
        table.append(about | perturbed(config, problem, forget, unit, epsilon))
    return table


def published(config: Config, problem: problems.Problem, forget: np.ndarray) -> list[tuple[Row, Any, float, Any]]:
    """What noise can be added to: a description, parameters, a bound on their distance, and the rule for its level."""
    objective, before, train = problem.objective, problem.params, problem.train
    noise_on = fmu_jax.output_perturbation
    newton = fmu_jax.remove(objective, before, train, forget)
    certificate = fmu_jax.certify(objective, before, newton, sigma=1.0, delta=config.delta)
    bound = min(float(certificate.local_distance_bound), float(certificate.distance_bound))
    found = [({"method": "fair_newton", "bound": "a_posteriori"}, newton.params, bound, noise_on.publish_sigma_from)]
    for steps in config.steps:
        removal = fmu_jax.remove(objective, before, train, forget, method="descent", steps=steps)
        # The distances do not depend on the noise that will be published.
        c = fmu_jax.certify_descent(objective, before, removal, publish_sigma=1.0, delta=config.delta, steps=steps)
        for bound, distance, sigma_of in (
            ("a_priori", c.a_priori_distance, noise_on.neel_sigma),
            ("a_posteriori", c.distance, noise_on.publish_sigma_from),
        ):
            about = {"method": "descent", "bound": bound, "steps": steps}
            found.append((about, removal.params, float(distance), sigma_of))
    return found


def perturbed(config: Config, problem: problems.Problem, forget: np.ndarray, unit: Any, epsilon: float) -> Row:
    """Our row at one epsilon: a noise level, a model and its removal for each draw; None where no level suffices."""
    mask = jnp.zeros(problem.train.y.shape, bool).at[forget].set(True)
    options = {"epsilon": epsilon, "delta": config.delta, "init": problem.params}
    found = fmu_jax.calibration.calibrate_draws(problem.objective, problem.train, mask, unit, **options)
    if not bool(jnp.all(found.converged)):
        return dict.fromkeys(("sigma", "distance", *MEASURES))
    middle = {"sigma": float(jnp.median(found.sigma)), "distance": float(jnp.median(found.distance))}
    return middle | problems.mean_metrics(problem, found.params, MEASURES)


def draw(config: Config, table: list[Row]) -> None:
    """Draw accuracy and odds gap against epsilon."""
    ours = looks.Look("fair Newton, objective noise", looks.VERMILION, "o")
    newton = looks.Look("fair Newton, published noise", looks.GREEN, "D", (0, (4.0, 2.0)))
    curves = [(newton, report.where(table, method="fair_newton", noise="published"))]
    curves.append((ours, report.where(table, method="fair_newton", noise="objective")))
    for bound, label, color, marker in (
        ("a_posteriori", "a posteriori", looks.ORANGE, "X"),
        ("a_priori", "Neel et al.", looks.BLUE, "^"),
    ):
        for k, steps in enumerate(config.steps):
            look = looks.Look(f"descent, {steps} steps, {label}", color, marker, DASHES[k % len(DASHES)])
            curves.append((look, report.where(table, method="descent", bound=bound, steps=steps)))
    path, xlabel = config.out / "published_noise.png", f"epsilon (delta = {config.delta:g})"
    problems.draw_costs(path, table, config.datasets, curves, x="epsilon", xlabel=xlabel)


def shown(results: Results) -> list[Row]:
    """The rows at the epsilon that is nearest to 1, and those of the retrained model."""
    measured = {row["epsilon"] for row in results.rows if row["epsilon"] > 0}
    at = min(measured, key=lambda epsilon: abs(np.log(epsilon)))
    return [row for row in results.rows if row["epsilon"] in (0, at)]


def section(results: Results) -> list[report.Block]:
    """Every method at one epsilon."""
    table = shown(results)
    by = looks.titled("dataset", "method", "steps", noise="noise on", bound="bound")
    columns = looks.titled("sigma", distance="certified distance") | looks.titled("accuracy", "equalized_odds_mean")
    at = max(row["epsilon"] for row in table)
    return [
        "Descent-to-delete hides the removal by noise on the published parameters, fair Newton by noise on the "
        "training objective. A gap that falls together with the accuracy does not show fairness: such predictions "
        "are guesses. Each sigma is fitted to the deletion shown.",
        report.Table(report.medians(table, by, columns), f"At epsilon = {at:g} (medians over seeds, means over noise "
                     "draws, test rows)."),
        *results.figures("published_noise.png", "Accuracy and odds gap against epsilon", "Fair Newton stays near the "
                         "model without noise; descent falls to chance level."),
    ]  # fmt: skip


def claims(results: Results) -> list[Claim]:
    """At equal epsilon, is noise on the objective better than noise on the published model?"""
    ours, theirs = [], []
    for part in report.groups(shown(results), "dataset").values():
        target = report.median(part, "accuracy", method="retrain")
        found = report.median(part, "accuracy", method="fair_newton", noise="objective")
        ours.append(target - found if found is not None else float("inf"))
        theirs.append(min(target - row["accuracy"] for row in report.where(part, method="descent")))
    return [
        Claim("At equal epsilon, noise on the training objective costs less accuracy than descent-to-delete's "
              "noise on the published model.", [a < b for a, b in zip(ours, theirs, strict=True)],
              f"accuracy lost: at most {max(ours):.3f}, against at least {min(theirs):.3f}"),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    "fmu_published_noise", Config, rows_of, draw=draw,
    heading="Noise on the objective or on the published model", section=section, claims=claims, x64=True,
    parts=(Part({"none": {"epsilons": (0.01, 0.1, 1.0), "draws": 10}, "quick": {}, "full": {}, "paper": {}},
                seeds="repeats"),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
