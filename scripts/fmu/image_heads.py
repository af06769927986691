"""Certified fair heads of ten classes on what a robust classifier of images has learnt.

    python -m scripts.fmu.image_heads --out runs/image_heads

The bundled Fashion-MNIST. A part of its training images is public: a LeNet of ``pags_jax`` is trained on them, plainly
("standard") or adversarially ("robust"), and its hidden units are features of all other images, beside the pixels
themselves ("raw", averaged to 14 x 14). On these a certified fair head, one class against the rest, is trained and
forgets. The group is artificial: whether an image is brighter than the median public image. No row of a head depends on
another row, because the scale of the features and the median come from public images. It takes four minutes on two
cores. Rows are those of ``fmu_embeddings``; fairness gaps are means over the classes.
"""

from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from scripts.fmu import embeddings, problems
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
    AXES: ClassVar = {"dataset": "datasets", "features": "features"}

    datasets: tuple[Literal["fashion_mnist"], ...] = ("fashion_mnist",)  # pyright: ignore[reportIncompatibleVariableOverride]
    """Data sets."""
    repeats: cli.Count = 1
    features: tuple[Literal["raw", "standard", "robust"], ...] = ("raw", "standard", "robust")
    """Features on which the heads are trained."""
    width: cli.Count = 64
    """Number of hidden units of the LeNet."""
    epochs: cli.Count = 10
    """Number of epochs of the LeNet's training."""


def rows_of(config: Config, *, dataset: str, features: str, seed: int) -> list[Row]:
    """All removals from one set of heads."""
    data = pags_jax.datasets.load(dataset)
    order = np.random.default_rng([seed, 5]).permutation(len(data.train_y))
    public, own = np.split(order, [round(config.public * len(order))])
    extract = extractor(config, features, data, public, seed)
    pixels = extract(data.train_x[public])
    radius = float(np.median(np.linalg.norm(pixels, axis=1)))
    if not radius > 0:
        raise ValueError(
            f"--width {config.width}, --epochs {config.epochs}: most public images move no hidden unit at all"
        )
    middle = np.median(data.train_x[public].mean(axis=(1, 2, 3)))

    def rows(x: np.ndarray, labels: np.ndarray) -> Any:
        bright = (x.mean(axis=(1, 2, 3)) > middle).astype(np.int32)
        of_rows = fmu_jax.heads.as_rows(jnp.asarray(extract(x), jnp.float64), radius=radius)
        return fmu_jax.heads.one_vs_rest(of_rows, labels, bright, classes=len(data.classes))

    train, test = rows(data.train_x[own], data.train_y[own]), rows(data.test_x, data.test_y)
    objective = fmu_jax.Objective(l2=config.l2, fairness=config.fairness)
    noise = problems.noise_of(jnp.zeros((len(train.y), train.x.shape[1])), seed, config.sigma)
    return embeddings.removals(config, objective, train, test, noise, (0.0, 0.0), seed)


def extractor(config: Config, features: str, data: Any, public: np.ndarray, seed: int):
    """Images to features, ``(n, h, w, c)`` uint8 to ``(n, d)``, each image by itself."""
    if features == "raw":
        return averaged
    losses, training = pags_jax.losses, pags_jax.training
    robust = features == "robust"
    loss, strength = (partial(losses.adversarial, steps=5), 1.0) if robust else (losses.cross_entropy, 0.0)
    task = training.Task(pags_jax.models.create("lenet", classes=len(data.classes), width=config.width / 128), loss)
    x, y = jnp.asarray(data.train_x[public]), jnp.asarray(data.train_y[public])
    state = training.init(task, data.train_x[public], key=jax.random.fold_in(jax.random.key(seed), 1))
    steps = training.steps_per_epoch(task, len(public))
    marks = training.milestones(epochs=config.epochs, steps_per_epoch=steps)
    hyper = training.Hyper(strength=strength, learning_rate=0.05, milestones=marks)
    for _ in range(config.epochs):
        epoch = training.steps(task, state, x, y, hyper, compiled_step=fit.compiled_step())
        ((state, _),) = deque(epoch, maxlen=1)
    training.check_all_finite(state)
    variables = {"params": state.params}

    @compiling.compiled()
    def hidden(part):
        pixels = pags_jax.images.to_float(part)
        return jax.nn.relu(fmu_jax.heads.layer_features(task.model, variables, pixels, layer="Dense_0"))

    return lambda x: np.concatenate([hidden(part) for part in np.split(x, range(500, len(x), 500))])


def averaged(x: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels, ``(n, h w c / 4)``, in [0, 1]."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4)).reshape(n, -1) / 255


EXPERIMENT = Experiment(
    "fmu_image_heads", Config, rows_of, draw=embeddings.draw, heading="Heads of ten classes on images",
    section=embeddings.section, x64=True,
)  # fmt: skip
EXPERIMENT.run_as(__name__)
