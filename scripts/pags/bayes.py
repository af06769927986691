"""Train networks on synthetic images whose Bayes-optimal model is known, and see how near regularisation brings them.

    python -m scripts.pags.bayes --out runs/bayes

See Srinivas et al. (2023), section 3 for the theorems and section 4 for the regimes. The networks of a seed start from
the same parameters and see the same images; one program trains all strengths of the gradient norm.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from scripts.harness import cli, plot, report
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import jax, jnp, pags_jax
from scripts.pags import panels

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
    networks, keys = pags_jax.bayes_networks, jax.random.split(jax.random.key(seed), 4)
    shape = {name: getattr(config, name) for name in ("radius", "distractors", "distractor_std", "noise")}
    problem = networks.corners(manifold, (config.pixels,), key=keys[0], **shape)
    rows = {"train_rows": config.train_rows, "test_rows": config.test_rows}
    train, truth = networks.images_of(problem, key=keys[1], **rows)
    model, strengths = networks.Network(config.width, problem.means.shape[0]), sorted(set(config.strengths))
    found = networks.fit(model, train, jnp.float32(strengths), config.learning_rate, key=keys[2], steps=config.steps)
    measured = networks.compare(model, found, truth, config.eps_l2, key=keys[3])
    return [
        {"strength": strength} | {name: float(values[k]) for name, values in measured.items()}
        for k, strength in enumerate(strengths)
    ]


#: What each panel shows against the strength: columns, and where the axis ends.
PANELS = {
    "class probabilities": (("accuracy", "posterior_gap"), 1.0),
    "input gradient": (("cosine", "off_manifold_share", "distractor_share"), 1.0),
    "deviation": (("on_manifold", "off_manifold"), None),
}
#: What regimes are read off.
REGIME_COLUMNS = ("accuracy", "on_manifold", "off_manifold")


def draw(config: Config, table: list[Row]) -> None:
    """Draw the measures against the strength, with regimes shaded and a row of panels for each manifold."""
    titles = [f"{manifold}: {panel}" for manifold in config.manifolds for panel in PANELS]
    with plot.panels(config.out / "bayes.png", titles, len(PANELS)) as axes:
        for place, manifold in enumerate(config.manifolds):
            line = axes[place * len(PANELS) :][: len(PANELS)]
            draw_manifold(config, line, [row for row in table if row["manifold"] == manifold])


def draw_manifold(config: Config, line: list[Any], part: list[Row]) -> None:
    """Draw one manifold's row of panels, and print which regimes are absent."""
    found = regimes_of(config, part)
    for label, reason in found.absent.items():
        print(f"{part[0]['manifold']}: no strength is {label}: {reason}", file=sys.stderr)
    for panel, (columns, top) in zip(line, PANELS.values(), strict=True):
        for name in columns:
            plot.lines(panel, part, x="strength", y=name, series=name)
        panels.shade(panel, found)
        panel.set_xscale("symlog", linthresh=min([s for s in config.strengths if s > 0], default=1.0), linscale=0.5)
        panel.set(xlabel="gradient-norm strength", ylabel="", ylim=(0, top))
    line[0].axhline(part[0]["bayes_accuracy"], color=plot.GREY, linestyle=":", label="accuracy of the posterior")


def regimes_of(config: Any, table: list[Row]) -> Any:
    """Read the regimes off the rows of one manifold."""
    strengths = sorted(set(config.strengths))
    curves = ([[row[name] for row in table if row["strength"] == s] for s in strengths] for name in REGIME_COLUMNS)
    return pags_jax.regimes.read(strengths, *curves, tolerance=config.tolerance)


def section(results: Results) -> list[report.Block]:
    """The networks at each strength."""
    columns = {"accuracy": "accuracy", "posterior_gap": "distance from the posterior", "cosine": "cosine with Bayes"}
    columns |= {"off_manifold_share": "off-manifold share", "distractor_share": "distractor share"}
    return [
        "The synthetic images lie on a linear and on a curved manifold. Class posterior, tangent space and score are "
        "closed forms, and the Bayes-optimal model's gradient lies in the signal's tangent space.",
        report.Table(report.medians(results.rows, {"manifold": "manifold", "strength": "strength"}, columns),
                     "Networks trained with each strength of the gradient norm (medians over seeds; the distance is "
                     "total variation).", digits=3),
        *results.figures("bayes.png", "Off-manifold share, distractor share and cosine with the Bayes gradient",
                         "Networks compared with the closed form. Shades mark regimes by unit steps: weak (sand), "
                         "aligned (blue), excessive (grey)."),
    ]  # fmt: skip


def claims(results: Results) -> list[Claim]:
    """Does regularisation move the gradient onto the manifold and towards Bayes'?"""
    holds, numbers = [], []
    for manifold in dict.fromkeys(row["manifold"] for row in results.rows):
        lines = report.medians(report.where(results.rows, manifold=manifold), {"strength": "strength"},
                               {"off_manifold_share": "share", "cosine": "cosine"})  # fmt: skip
        lines.sort(key=lambda line: line["strength"])
        best = max(lines, key=lambda line: line["cosine"])
        holds += [best["share"] < lines[0]["share"], best["cosine"] > lines[0]["cosine"]]
        numbers.append(f"{manifold}: share off the manifold {lines[0]['share']:.2f} to {best['share']:.2f}, cosine "
                       f"{lines[0]['cosine']:.2f} to {best['cosine']:.2f}")  # fmt: skip
    text = (
        "Where the truth is known, regularised gradients move onto the manifold and towards the Bayes-optimal model's."
    )
    return [Claim(text, holds, "; ".join(numbers))]


EXPERIMENT = Experiment(
    "pags_bayes", Config, rows_of, draw=draw, heading="Where the truth is known", section=section, claims=claims,
    parts=(Part({"none": {"repeats": 2}, "quick": {}, "full": {}, "paper": {}}),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
