"""Are models robust if their gradients were trained to look like scores? They are compared with a sweep's models.

    python -m scripts.pags.converse --trained runs/pags_train --out runs/pags_converse

See Ganz, Kawar and Elad (2023) and `pags_jax.losses.score_alignment`. Models with this loss are trained like the
sweep's, but frozen (`pags_jax.training.Task`) if they go on from a model, and attacked like the best of each loss.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from scripts.harness import cli, compiling, plot, report
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import jax, jnp, pags_jax
from scripts.pags import accuracy, manifolds, measuring, sweeps, train
from scripts.pags.robustness import DENOISER_FILE, NAMED

ALIGNED = "score_alignment"
_AS_THERE = (
    "dataset", "folder", "model", "activation", "stem", "width", "dtype", "epochs", "schedule", "batch_size",
    "learning_rate", "clip", "weight_decay", "augment", "validation", "train_rows", "start",
)  # fmt: skip
"""Fields of the sweep's configuration that the new models are trained by."""


@dataclass(frozen=True)
class Config(manifolds.ScoreConfig):
    """Train gradients towards scores, and attack the models."""

    PRESETS: ClassVar = {
        "quick": {"images": 20, "strengths": (1.0,), "steps": 2},
        "paper": {"images": 1000},
        "cifar10": {"eps": 0.5},
    }

    strengths: tuple[cli.Positive, ...] = (1.0, 10.0)
    """Weights of one minus the cosine of gradient and score."""
    sigma_pm1: cli.Positive = 0.5
    """Noise level of the score, for images in [-1, 1]."""
    images: cli.Count = 100
    """Number of test images that are attacked and whose gradients are compared with scores."""
    eps: cli.Positive = 1.0
    """L2 radius of the attacks, for pixels in [0, 1]."""
    steps: cli.Count = 10
    """Number of steps of each attack."""

    def units(self) -> list[dict[str, Any]]:
        """Each loss's best model and the most robust accurate one of the sweep, and a model for each strength."""
        table = measuring.trained_rows(self.trained)
        seed = min(row["seed"] for row in table)
        radius = len(table[0]["attack_eps"]) // 2
        found = measuring.units_of([*pags_jax.sweeps.best(table), *pags_jax.sweeps.most_robust(table, radius)])
        sweep = [unit for k, unit in enumerate(found) if unit["seed"] == seed and unit not in found[:k]]
        return [*sweep, *({"loss": ALIGNED, "strength": strength, "seed": seed} for strength in self.strengths)]


def setup(config: Config) -> tuple[train.Config, pags_jax.samples.Sample, Callable[..., Any], Any]:
    """How new models are trained, images, the denoiser by labels, and the new loss, one object for all strengths."""
    trained = measuring.trained_rows(config.trained)[0]
    how = train.Config(out=config.out, **{name: trained[f"config.{name}"] for name in _AS_THERE})
    if train.inputs(how).get("start_sha256") != trained.get("config.start_sha256"):
        raise ValueError(f"--trained: {how.start} is not the file from which its models started")
    sample = measuring.sample(config)
    denoiser = manifolds.denoiser_of(config, sample)

    def score(x, labels):
        return pags_jax.scores.score(denoiser(labels), x, sigma_pm1=jnp.float32(config.sigma_pm1))

    return how, sample, denoiser, functools.partial(pags_jax.losses.score_alignment, score=score)


def rows_of(config: Config, ready: tuple[Any, ...], **unit: Any) -> list[Row]:
    """Attack one model, after it was trained if it is not of the sweep."""
    how, (x, y, _, data), denoiser, loss = ready
    if unit["loss"] == ALIGNED:
        task = dataclasses.replace(train.task_of(how, loss, len(data.classes)), frozen=how.start is not None)
        variables, _, found = train.trained(how, task, "cross_entropy", data, unit)
        if variables is None:
            return [{"failure": found["failure"]}]
        apply_fn = pags_jax.models.evaluator(task.model, variables)
    else:
        _, apply_fn = measuring.model_of(config.trained, **unit)
    key, bytes_ = jax.random.key(config.seed), jnp.asarray(jnp.rint(255 * x), jnp.uint8)
    clean = accuracy.measured(apply_fn, jnp.asarray(data.test_x), jnp.asarray(data.test_y), key=key).clean
    attack = {"key": key, "radii": (config.eps,), "steps": config.steps}
    attacked = {name: accuracy.measured(apply_fn, bytes_, y, attack=name, **attack) for name in ("pgd", "ensemble")}
    score_of, sigma = compiling.jitted(pags_jax.scores.score), jnp.float32(config.sigma_pm1)
    gradient = compiling.jitted(pags_jax.gradients.input_gradients, "target")(apply_fn, x, y, target="logit")
    cosine = pags_jax.alignment.cosine(gradient, score_of(denoiser(y), x, sigma_pm1=sigma))
    row: Row = {"failure": None, "test_accuracy": clean, "eps_l2": config.eps, "cosine": float(jnp.nanmean(cosine))}
    row |= {name: found.robust[0] for name, found in attacked.items()}
    return [row | {f"{name}_no_gradient": found.no_gradient[0] for name, found in attacked.items()}]


def draw(config: Config, table: list[Row]) -> None:
    """Draw accuracy, clean and attacked, against the cosine of gradient and score; each marker is one model."""
    titles = ("As they are", f"Under PGD and APGD, radius {config.eps:g}")
    with plot.panels(config.out / "converse.png", titles, legend=3, share_y=True) as axes:
        for panel, column in zip(axes, ("test_accuracy", "ensemble"), strict=True):
            for part in report.groups(report.where(table, failure=None), "loss").values():
                for row, filled in zip(part, itertools.cycle(("full", "none", "left", "right")), strict=False):
                    look = plot.look(row["loss"])._replace(label=sweeps.label_of(row))
                    plot.line(panel, [row["cosine"]], [row[column]], look, linestyle="none", fillstyle=filled)
            panel.set(xlabel="cosine of the logit's gradient and the score", ylabel="accuracy", ylim=(0, 1))


def section(results: Results) -> list[report.Block]:
    """Each model's accuracies and its gradient's cosine with the score."""
    table = [row | {"model": sweeps.label_of(row)} for row in results.rows]
    columns = {"model": "model", "test_accuracy": "clean", "pgd": "PGD", "ensemble": "PGD and APGD"}
    columns |= {"cosine": "cosine with the score"}
    return [
        "Models with score alignment are trained like those of the sweep, but their loss pulls the gradient of the "
        "label's logit towards the conditional score. Of the sweep appear each loss at its best strength on held-out "
        "images and the most robust accurate model. Accuracy under attack is measured on fewer images than clean.",
        report.Table(table, "Does robustness follow from alignment?", columns=columns, digits=3),
        *results.figures("converse.png", "Accuracy, clean and attacked, against the gradient's cosine with the score"),
    ]


def claims(results: Results) -> list[Claim]:
    """Are models that were trained to align more robust than the undefended one, by more than two standard errors?"""
    table = report.where(results.rows, failure=None)
    answers = pags_jax.drawing_questions.aligned(table, images=table[0]["config.images"])
    each = [f"strength {row['strength']:g}: {row['estimate']:.2f}, {row['detail']}" for row in answers]
    base, verdicts = report.median(table, "ensemble", loss=sweeps.BASELINE), [row["verdict"] for row in answers]
    number = f"accuracy under PGD and APGD: undefended {base:.2f}; {'; '.join(each)}"
    holds = ["shown" in verdicts, any(verdict != "not shown" for verdict in verdicts)]
    return [Claim("Robustness follows from alignment (partly: where accuracy is lost).", holds, number)]


EXPERIMENT = Experiment(
    "pags_converse", Config, rows_of, setup=setup, inputs=measuring.inputs, draw=draw,
    heading="Does robustness follow from alignment?", section=section, claims=claims,
    parts=(Part({"paper": {}, "cifar10": {}}, reads=NAMED, files=DENOISER_FILE),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
