"""Are models robust if their gradients were trained to look like scores? They are compared with a sweep's models.

    python -m scripts.pags.converse --trained runs/pags_train --out runs/pags_converse

See Ganz, Kawar and Elad (2023) and `pags_jax.losses.score_alignment`. Models are trained like those of the sweep, but
with this loss. They are attacked like the best model of each loss of the sweep: by PGD alone, and by PGD with APGD-CE
and APGD-T. There is a row for each model, with the cosine of its gradient and the score.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from scripts.harness import cli, compiling, plot, report, store
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import jax, jnp, pags_jax
from scripts.pags import accuracy, manifolds, measuring, sweeps, train
from scripts.pags.robustness import FILES, NAMED

ALIGNED = "score_alignment"
_AS_THERE = (
    "dataset", "folder", "model", "activation", "stem", "width", "dtype", "epochs", "schedule", "batch_size",
    "learning_rate", "clip", "weight_decay", "augment", "validation", "train_rows", "start",
)  # fmt: skip
"""Fields of the sweep's configuration that the new models are trained by."""


@dataclass(frozen=True)
class Config(manifolds.ManifoldConfig):
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


class Ready(NamedTuple):
    """What all models share: the configuration of their training, the images, the denoiser's network, and the loss."""

    how: Any
    sample: measuring.Sample
    network: tuple[Any, Any]
    loss: Any


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit for the best model of each loss of the sweep, and one for each strength."""
    table = measuring.trained_rows(config.trained)
    seed = min(row["seed"] for row in table)
    sweep = [unit for unit in measuring.units(accuracy.best(table)) if unit["seed"] == seed]
    return [*sweep, *({"loss": ALIGNED, "strength": strength, "seed": seed} for strength in config.strengths)]


def _file(config: Config) -> Path:
    return manifolds.files_of(config, measuring.trained_rows(config.trained), scores=True)["denoiser"]


def inputs(config: Config) -> dict[str, str]:
    """Digests of the sweep's models and of the denoiser."""
    return measuring.digests(config, measuring.trained_rows(config.trained), {"denoiser": _file(config)})


def setup(config: Config) -> Ready:
    """Images, the denoiser, and how the sweep was trained."""
    table = measuring.trained_rows(config.trained)
    how = train.Config(out=config.out, **{name: table[0][f"config.{name}"] for name in _AS_THERE})
    if train.inputs(how).get("start_sha256") != table[0].get("config.start_sha256"):
        raise ValueError(f"--trained: {how.start} is not the file from which its models started")
    network = pags_jax.models.load(_file(config), kind="denoiser")[:2]
    return Ready(how, measuring.sample(config, table), network, loss_of(network, config.sigma_pm1))


def rows_of(config: Config, ready: Ready, **unit: Any) -> list[Row]:
    """Attack one model, after it was trained if it is not of the sweep."""
    x, y, _, data = ready.sample
    if unit["loss"] == ALIGNED:
        how = ready.how
        split = pags_jax.recipes.hold_out(data, how.validation, seed=unit["seed"], train_rows=how.train_rows)
        task = dataclasses.replace(train.task_with(how, ready.loss, len(data.classes)), evaluated=True)
        hyper = train.hyper_of(how, "cross_entropy", unit["strength"], task, split)
        try:
            _, _, variables, _ = train.trained(how, task, hyper, split, unit, how.start)
        except FloatingPointError as error:
            print(f"{store.unit_name(unit)}: {error}", file=sys.stderr)
            return [{"failure": str(error)}]
        apply_fn = pags_jax.models.evaluator(task.model, variables)
    else:
        _, apply_fn = measuring.model_of(config.trained, measuring.trained_rows(config.trained), unit)
    key, bytes_ = jax.random.key(config.seed), jnp.asarray(jnp.rint(255 * x), jnp.uint8)
    clean = accuracy.measured(apply_fn, jnp.asarray(data.test_x), jnp.asarray(data.test_y), key=key).clean
    how = {"key": key, "radii": (config.eps,), "steps": config.steps}
    attacked = {name: accuracy.measured(apply_fn, bytes_, y, attack=name, **how) for name in ("pgd", "ensemble")}
    denoise, sigma = pags_jax.scores.denoiser(*ready.network, y), jnp.float32(config.sigma_pm1)
    score = compiling.jitted(pags_jax.scores.score)(denoise, x, sigma_pm1=sigma)
    gradient = compiling.jitted(pags_jax.gradients.input_gradients, "target")(apply_fn, x, y, target="logit")
    cosine = pags_jax.alignment.cosine(gradient, score)
    row: Row = {"failure": None, "test_accuracy": clean, "eps_l2": config.eps, "cosine": float(jnp.nanmean(cosine))}
    row |= {attack: found.robust[0] for attack, found in attacked.items()}
    return [row | {f"{attack}_no_gradient": found.no_gradient[0] for attack, found in attacked.items()}]


def loss_of(network: tuple[Any, Any], sigma: float) -> Any:
    """The loss as `pags_jax.training.Task` takes it, one object for all strengths."""

    def score(x, labels):
        return pags_jax.scores.score(pags_jax.scores.denoiser(*network, labels), x, sigma_pm1=jnp.float32(sigma))

    return functools.partial(pags_jax.losses.score_alignment, score=score)


def draw(config: Config, table: list[Row]) -> None:
    """Draw accuracy, clean and attacked, against the cosine of gradient and score; each marker is one model."""
    titles = ("As they are", f"Under APGD, radius {config.eps:g}")
    with plot.panels(config.out / "converse.png", titles, legend=3, share_y=True) as axes:
        for panel, column in zip(axes, ("test_accuracy", "ensemble"), strict=True):
            for row in report.where(table, failure=None):
                look = plot.look(row["loss"])._replace(label=sweeps.label_of(row))
                plot.line(panel, [row["cosine"]], [row[column]], look, linestyle="none")
            panel.set(xlabel="cosine of the logit's gradient and the score", ylabel="accuracy", ylim=(0, 1))


def section(results: Results) -> list[report.Block]:
    """Each model's accuracies and its gradient's cosine with the score."""
    columns = {"test_accuracy": "clean", "pgd": "PGD", "ensemble": "PGD and APGD", "cosine": "cosine with the score"}
    lines = [
        {"model": sweeps.label_of(row)} | {title: row.get(name) for name, title in columns.items()}
        for row in results.rows
    ]
    return [
        "Models with score alignment are trained like those of the sweep, but their loss pulls the gradient of the "
        "label's logit towards the conditional score. Each loss of the sweep appears at the strength that does best "
        "on held-out images. Accuracy under attack is measured on fewer images than clean accuracy.",
        report.Table(lines, "Does robustness follow from alignment?", digits=3),
        *results.figures("converse.png", "Accuracy, clean and attacked, against the gradient's cosine with the score"),
    ]


def claims(results: Results) -> list[Claim]:
    """Are models that were trained to align more robust than the undefended one, by more than two standard errors?"""
    rows = report.where(results.rows, failure=None)
    (undefended,) = report.where(rows, loss=sweeps.BASELINE)
    found, numbers, as_accurate = [], [], []
    for row in report.where(rows, loss=ALIGNED):
        both = (row["ensemble"], undefended["ensemble"])
        error = np.sqrt(sum(share * (1 - share) for share in both) / row["config.images"])
        found.append(both[0] - both[1] > 2 * error)
        as_accurate.append(row["test_accuracy"] > undefended["test_accuracy"] - 0.02)
        numbers.append(f"strength {row['strength']:g}: {both[0]:.2f}, cosine {row['cosine']:.3f}")
    best = any(more and accurate for more, accurate in zip(found, as_accurate, strict=True))
    number = f"accuracy under PGD and APGD: undefended {undefended['ensemble']:.2f}; {'; '.join(numbers)}"
    return [Claim("Robustness follows from alignment (partly: where accuracy is lost).", [best, any(found)], number)]


EXPERIMENT = Experiment(
    "pags_converse", Config, rows_of, plan, setup=setup, inputs=inputs, draw=draw,
    heading="Does robustness follow from alignment?", section=section, claims=claims,
    parts=(Part({"paper": {}, "cifar10": {}}, reads=NAMED, files=FILES),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
