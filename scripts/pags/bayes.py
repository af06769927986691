"""Train networks on synthetic images whose Bayes-optimal model is known, and see how near regularisation brings them.

    python -m scripts.pags.bayes --out runs/bayes

See Srinivas et al. (2023), section 3 for the theorems and section 4 for the regimes, and `pags_jax.bayes_networks`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import ClassVar, Literal

from scripts.harness import cli, plot, report
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import jax, pags_jax
from scripts.pags import sweeps

Manifold = Literal["linear", "curved"]


@dataclass(frozen=True)
class Config(cli.Repeated):
    """Train on manifolds of known truth; the sweep compiles once."""

    PRESETS: ClassVar = {
        "quick": {"manifolds": ("curved",), "repeats": 2, "steps": 300, "strengths": (0.0, 0.1, 1.0, 10.0, 100.0)},
        "paper": {"repeats": 20, "steps": 2000, "strengths": (0.0, *(10.0 ** (k / 5) for k in range(-15, 11)))},
    }
    AXES: ClassVar = {"manifold": "manifolds"}

    manifolds: tuple[Manifold, ...] = ("linear", "curved")
    """Shapes of the data manifold: a plane, or a product of circles, one for each coordinate."""
    strengths: tuple[cli.NonNegative, ...] = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    """Weights of the squared norm of the input gradient."""
    repeats: cli.Count = 5
    pixels: cli.Count = 64
    """Number of pixels in an image."""
    distractors: cli.Count = 22
    """Number of directions of the manifold that are independent of the label; the signal has two directions."""
    distractor_std: cli.Positive = 0.15
    """Standard deviation of images along each distractor; the signal has 0.5 around its means."""
    noise: cli.NonNegative = 0.5
    """Standard deviation of images off the manifold, in every normal direction."""
    radius: cli.Positive = 3.0
    """Radius of the circles of the curved manifold."""
    train_rows: cli.Count = 64
    """Number of training images."""
    test_rows: cli.Count = 1000
    """Number of further images, on which networks are measured."""
    width: cli.Count = 32
    """Number of units in each of the two hidden layers."""
    steps: cli.Count = 500
    """Number of steps of Adam, each on all images."""
    learning_rate: cli.Positive = 3e-3
    """Adam's learning rate."""
    eps_l2: cli.Positive = 0.5
    """Length of the steps on and off the manifold."""
    tolerance: cli.Probability = 0.05
    """How far a model's accuracy may lie below the best of its sweep before its robustness counts as excessive."""


def rows_of(config: Config, *, manifold: Manifold, seed: int) -> list[Row]:
    """One row for each strength."""
    shape = ("pixels", "distractors", "distractor_std", "noise", "radius", "train_rows", "test_rows")
    training = ("width", "steps", "learning_rate", "eps_l2")
    how = {name: getattr(config, name) for name in (*shape, *training)}
    return pags_jax.bayes_networks.sweep(manifold, config.strengths, key=jax.random.key(seed), **how)


#: What each panel shows against the strength: columns, and where the axis ends.
PANELS = {
    "class probabilities": (("accuracy", "posterior_gap"), 1.0),
    "input gradient": (("cosine", "off_manifold_share", "distractor_share"), 1.0),
    "deviation": (("on_manifold", "off_manifold"), None),
}


def draw(config: Config, table: list[Row]) -> None:
    """Draw the measures against the strength, with regimes shaded and a row of panels for each manifold."""
    titles = [f"{manifold}: {panel}" for manifold in config.manifolds for panel in PANELS]
    threshold = min([s for s in config.strengths if s > 0], default=1.0)
    with plot.panels(config.out / "bayes.png", titles, len(PANELS)) as axes:
        for place, manifold in enumerate(config.manifolds):
            part, line = report.where(table, manifold=manifold), axes[place * len(PANELS) :][: len(PANELS)]
            found = pags_jax.bayes_networks.regimes_of(part, tolerance=config.tolerance)
            for label, reason in found.absent.items():
                print(f"{manifold}: no strength is {label}: {reason}", file=sys.stderr)
            for panel, (columns, top) in zip(line, PANELS.values(), strict=True):
                for name in columns:
                    plot.lines(panel, part, x="strength", y=name, series=name)
                sweeps.shade(panel, found)
                panel.set_xscale("symlog", linthresh=threshold, linscale=0.5)
                panel.set(xlabel="gradient-norm strength", ylabel="", ylim=(0, top))
            known = part[0]["bayes_accuracy"]
            line[0].axhline(known, color=plot.GREY, linestyle=":", label="accuracy of the posterior")


def section(results: Results) -> list[report.Block]:
    """The networks at each strength."""
    columns = {"accuracy": "accuracy", "posterior_gap": "distance from the posterior", "cosine": "cosine with Bayes"}
    columns |= {"off_manifold_share": "off-manifold share", "distractor_share": "distractor share"}
    return [
        "The synthetic images lie on a linear and on a curved manifold. Class posterior, tangent space and score are "
        "closed forms, and the Bayes-optimal model's gradient lies in the signal's tangent space.",
        report.Table(report.medians(results.rows, ("manifold", "strength"), columns),
                     "Networks trained with each strength of the gradient norm (medians over seeds; the distance is "
                     "total variation).", digits=3),
        *results.figures("bayes.png", "Off-manifold share, distractor share and cosine with the Bayes gradient",
                         "Networks compared with the closed form. Shades mark regimes by unit steps: weak (sand), "
                         "aligned (blue), excessive (grey)."),
    ]  # fmt: skip


def claims(results: Results) -> list[Claim]:
    """Does regularisation move the gradient onto the manifold and towards Bayes'?"""
    holds, numbers = [], []
    for manifold, part in report.groups(results.rows, "manifold").items():
        lines = report.medians(part, ("strength",), {"off_manifold_share": "share", "cosine": "cosine"})
        weakest, best = min(lines, key=lambda line: line["strength"]), max(lines, key=lambda line: line["cosine"])
        holds += [best["share"] < weakest["share"], best["cosine"] > weakest["cosine"]]
        moved = {key: f"{weakest[key]:.2f} to {best[key]:.2f}" for key in ("share", "cosine")}
        numbers.append(f"{manifold}: share off the manifold {moved['share']}, cosine {moved['cosine']}")
    return [Claim("Where the truth is known, regularised gradients move onto the manifold and towards the "
                  "Bayes-optimal model's.", holds, "; ".join(numbers))]  # fmt: skip


EXPERIMENT = Experiment(
    "pags_bayes", Config, rows_of, draw=draw, heading="Where the truth is known", section=section, claims=claims,
    parts=(Part({"none": {"repeats": 2}, "quick": {}, "full": {}, "paper": {}}),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
