"""Certified fair heads of ten classes on what a robust classifier of images has learnt.

    python -m scripts.fmu.image_heads --out runs/image_heads

A LeNet of ``pags_jax`` is trained on public images, plainly ("standard") or adversarially ("robust"); its hidden units
are features of all other images, beside the pixels themselves ("raw", averaged to 14 x 14). The group is artificial:
brighter than the median public image or not. No row of a head depends on another row, because the scale of the features
and the median come from public images. Rows are those of ``fmu_embeddings``; gaps are means over the classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from scripts.fmu import embeddings
from scripts.harness import cli, compiling
from scripts.harness.experiment import Experiment, Row
from scripts.harness.lazy import fmu_jax, jax, jnp, pags_jax
from scripts.pags import fit


@dataclass(frozen=True)
class Config(embeddings.HeadsConfig):
    """Certified fair heads of ten classes on features of images."""

    PRESETS: ClassVar = {
        "quick": {"repeats": 1, "counts": (1, 100), "features": ("raw", "standard"), "epochs": 1, "width": 8},
        "paper": {"repeats": 5, "epochs": 40},
    }
    datasets: tuple[Literal["fashion_mnist"], ...] = ("fashion_mnist",)  # pyright: ignore[reportIncompatibleVariableOverride]
    """Data sets."""
    features: tuple[Literal["raw", "standard", "robust"], ...] = ("raw", "standard", "robust")
    """Features on which the heads are trained."""
    width: cli.Count = 64
    """Number of hidden units of the LeNet."""
    epochs: cli.Count = 10
    """Number of epochs of the LeNet's training."""


def rows_of(config: Config, *, dataset: str, features: str, seed: int) -> list[Row]:
    """All removals from one set of heads."""
    data = pags_jax.datasets.load(dataset)
    public, own = fmu_jax.forget_sets.split_public(len(data.train_y), config.public, seed=seed)
    shown = data.train_x[public]
    extract = extractor(config, features, shown, data.train_y[public], len(data.classes), seed)
    radius = float(np.median(np.linalg.norm(extract(shown), axis=1)))
    if not radius > 0:
        raise ValueError(f"--width {config.width}, --epochs {config.epochs}: most public images move no hidden unit")
    middle = np.median(shown.mean(axis=(1, 2, 3)))

    def rows(x: np.ndarray, labels: np.ndarray) -> Any:
        of_rows = fmu_jax.heads.as_rows(jnp.asarray(extract(x), jnp.float64), radius=radius)
        bright = (x.mean(axis=(1, 2, 3)) > middle).astype(np.int32)
        return fmu_jax.heads.one_vs_rest(of_rows, labels, bright, classes=len(data.classes))

    train, test = rows(data.train_x[own], data.train_y[own]), rows(data.test_x, data.test_y)
    return embeddings.removals(config, train, test, (0.0, 0.0), seed)


def extractor(config: Config, features: str, x: Any, y: Any, classes: int, seed: int) -> Callable[[Any], np.ndarray]:
    """Images to features, ``(n, h, w, c)`` uint8 to ``(n, d)``, each image by itself; trained on public images."""
    if features == "raw":
        return pags_jax.images.averaged
    losses, training = pags_jax.losses, pags_jax.training
    robust = features == "robust"
    loss, strength = (partial(losses.adversarial, steps=5), 1.0) if robust else (losses.cross_entropy, 0.0)
    task = training.Task(pags_jax.models.create("lenet", classes=classes, width=config.width / 128), loss)
    marks = training.milestones(epochs=config.epochs, steps_per_epoch=training.steps_per_epoch(task, len(x)))
    hyper = training.Hyper(strength=strength, learning_rate=0.05, milestones=marks)
    options = {"epochs": config.epochs, "key": jax.random.fold_in(jax.random.key(seed), 1)}
    state = training.train(task, x, y, hyper, compiled_step=fit.compiled_step(), **options)
    features_of = partial(pags_jax.models.features, task.model, {"params": state.params})
    compiled = compiling.jitted(lambda part: features_of(pags_jax.images.to_float(part)))
    return lambda x: np.concatenate([compiled(part) for part in np.split(x, range(500, len(x), 500))])


EXPERIMENT = Experiment(
    "fmu_image_heads", Config, rows_of, draw=embeddings.draw, heading="Heads of ten classes on images",
    section=embeddings.section, x64=True,
)  # fmt: skip
EXPERIMENT.run_as(__name__)
