"""Accuracy that hiding a removal costs, by noise on the training objective (ours) or on the published model.

    python -m scripts.fmu.published_noise --out runs/published_noise

``fmu_jax.publication`` has the methods, which are compared at equal epsilon. Each noise is fitted to the deletion at
hand, which shows what a guarantee needs; an operator fixes it beforehand. There is one row for each data set, seed,
epsilon, method, bound and number of steps; metrics are means over noise draws.
"""

import itertools
from dataclasses import dataclass
from typing import ClassVar

from scripts.fmu import problems
from scripts.harness import cli, looks, report
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax, jax

#: Label, colour and marker of descent by the bound on its distance.
BOUNDS = {"a_posteriori": ("a posteriori", looks.ORANGE, "X"), "a_priori": ("Neel et al.", looks.BLUE, "^")}
#: How lines of one colour differ by the number of steps.
DASHES = ((0, (1.0, 1.5)), (0, (4.0, 2.0)), "-", (0, (5.0, 1.0, 1.0, 1.0)))


@dataclass(frozen=True)
class Config(problems.CertifiedConfig):
    """Compare the two places for noise at equal epsilon; each epsilon has its own sigma, and --sigma is not used."""

    PRESETS: ClassVar = {
        "quick": {"repeats": 1, "epsilons": (0.01, 0.1, 1.0, 10.0), "steps": (10, 200), "draws": 5},
        "paper": {"repeats": 5, "epsilons": tuple(10.0 ** (k / 4) for k in range(-8, 5)), "draws": 100,
                  "steps": (10, 50, 200, 1000)},
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
    train, test, objective, _, fitted = problems.train_problem(config, dataset, seed, sigma=0.0)
    forget = problems.draw_share(train, config.fraction, seed=seed)
    sizes = {name: getattr(config, name) for name in ("epsilons", "steps", "delta", "draws")}
    key = jax.random.fold_in(jax.random.key(seed), 1)
    return fmu_jax.publication.cost_table(objective, fitted.params, train, test, forget, key=key, **sizes)


def draw(config: Config, table: list[Row]) -> None:
    """Draw accuracy and odds gap against epsilon."""
    newton = report.where(table, method="fair_newton")
    published = looks.Look("fair Newton, published noise", looks.GREEN, "D", (0, (4.0, 2.0)))
    ours = looks.Look("fair Newton, objective noise", looks.VERMILION, "o")
    curves = [(published, report.where(newton, noise="published")), (ours, report.where(newton, noise="objective"))]
    for bound, (label, color, marker) in BOUNDS.items():
        for steps, dash in zip(config.steps, itertools.cycle(DASHES), strict=False):
            look = looks.Look(f"descent, {steps} steps, {label}", color, marker, dash)
            curves.append((look, report.where(table, method="descent", bound=bound, steps=steps)))
    axis = {"x": "epsilon", "xlabel": f"epsilon (delta = {config.delta:g})", "xscale": "log"}
    target = report.where(table, method="retrain")
    problems.draw_costs(config.out / "published_noise.png", config.datasets, curves, retrained=target, **axis)


def shown(results: Results) -> list[Row]:
    """The rows at the epsilon that is nearest to 1, and those of the retrained model."""
    at = problems.nearest(results.rows, "epsilon", 1)
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
              f"accuracy lost: {report.at_most(max(ours))}, against at least {min(theirs):.3f}"),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    "fmu_published_noise", Config, rows_of, draw=draw,
    heading="Noise on the objective or on the published model", section=section, claims=claims, x64=True,
    parts=(Part({"none": {"epsilons": (0.01, 0.1, 1.0), "draws": 10}, "quick": {}, "full": {}, "paper": {}},
                seeds="repeats"),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
