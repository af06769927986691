"""What training a denoiser and training an autoencoder share: flags, training that resumes, and panels of images."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scripts.harness import cli, looks, names, plot, report, rows
from scripts.harness.experiment import Results, Row
from scripts.harness.lazy import jax, jnp, pags_jax
from scripts.pags import fit


@dataclass(frozen=True)
class Config(fit.Config):
    """Flags of both experiments."""

    dataset: names.Unlabelled = "fashion_mnist"
    """Data set; fashion_mnist is a balanced subset that the package contains."""
    batch_size: cli.Count = 128
    learning_rate: cli.Positive = 2e-3
    """Adam's highest learning rate."""
    warm_up: cli.Count = 200
    """Number of steps in which the learning rate rises to its highest value."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate changes after the warm-up; the cosine ends at zero with the last epoch."""
    decay: cli.Probability = 0.999
    """Decay of the moving average of the parameters; the average is measured and saved."""
    augment: Literal["auto", "none", "flip"] = "auto"
    """Whether training images are flipped at random; auto flips those of CIFAR and ImageNet."""
    train_rows: cli.Count | None = None
    """Number of training images, counted from the first; by default all."""
    measured_rows: cli.Count = 2000
    """Number of training and of test images to measure on, counted from the first."""
    storage: Literal["float32", "float16"] = "float32"
    """Type of the saved weights; the saved weights are the ones that are measured."""


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit: the model."""
    return [{"dataset": config.dataset, "seed": config.seed}]


def train(config: Config, data: pags_jax.datasets.Images, model: Any, loss: Callable[..., Any]) -> tuple[Any, Any, Row]:
    """Train a network: its variables (means of the parameters over the steps), these as a file holds them, and the row.

    Raises:
      ValueError: If the training diverges; the message names step and number.
    """
    x, y = (jnp.asarray(column[: config.train_rows]) for column in (data.train_x, data.train_y))
    training, generative = pags_jax.training, pags_jax.generative
    task = training.Task(model, loss, pags_jax.recipes.flips_of(config.augment, config.dataset), config.batch_size)
    total = config.epochs * training.steps_per_epoch(task, len(x))
    end = total if config.schedule == "cosine" else np.inf
    hyper = generative.Hyper(*map(jnp.float32, (config.learning_rate, config.warm_up, end, config.decay)))
    (unit,), key = plan(config), jax.random.key(config.seed)
    try:
        done, row = fit.fit(config, unit, task, hyper, x, y, generative, key=key)
    except FloatingPointError as error:
        raise ValueError(f"training diverged: {error}") from error
    variables = {"params": done.run.state.average}
    stored = jax.tree.map(lambda leaf: leaf.astype(config.storage).astype(jnp.float32), variables)
    return variables, stored, {"train_rows": len(x), "parameters": pags_jax.models.count_parameters(variables)} | row


def save(config: Config, file: str, model: Any, variables: Any, measured: Row) -> None:
    """Write a network with how it was made and what was measured, but for times; see `pags_jax.models.save`."""
    known = {name: measured[name] for name in measured if name not in ("epoch_loss", "train_s", "images_per_s")}
    about = {"command": command_of(config), "config": rows.flatten(config, without=fit.HOW)}
    about |= {"measured": rows.flatten(known)}
    pags_jax.models.save(config.out / f"{file}.safetensors", model, variables, about, dtype=config.storage)


def command_of(config: Config) -> str:
    """The command that trains this model, whatever its flags were called by; folders are left out.

    >>> command_of(Config(epochs=3))
    'python -m scripts.pags.generative --epochs 3'
    """
    default, words = type(config)(), []
    for name, value in rows.flatten(config, without=fit.HOW).items():
        if getattr(config, name) != getattr(default, name):
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    script = Path(inspect.getfile(type(config))).stem
    return " ".join(["python -m", f"scripts.pags.{script}", *words])


def draw_epochs(panel: Any, row: Row, name: str) -> None:
    """Draw the loss of each epoch of the training."""
    epochs = [{"epoch": k + 1, name: loss} for k, loss in enumerate(row["epoch_loss"])]
    plot.lines(panel, epochs, x="epoch", y=name, series="training")


def panel(lines: Iterable[tuple[str, Any]], path: Path, *, title: str, columns: Sequence[str] = ()) -> None:
    """Draw lines of images in [0, 1] with their labels as PNG, and perhaps labels of the columns."""
    labels, images = zip(*lines, strict=True)
    images = np.stack(images)
    count, across, height, width, channels = images.shape
    tiled = np.clip(images, 0, 1).transpose(0, 2, 1, 3, 4).reshape(count * height, across * width, channels)
    size = {"width": 0.5 * across + 1.5, "height": 0.5 * count * height / width + 0.6}
    with plot.panels(path, (title,), **size) as (axes,):
        axes.imshow(tiled if channels == 3 else tiled[:, :, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_yticks(height * (np.arange(count) + 0.5), labels)
        axes.set_xticks(width * (np.arange(len(columns)) + 0.5), columns, fontsize=5)
        axes.grid(visible=False)


def section(columns: Sequence[str]) -> Callable[[Results], list[report.Block]]:
    """A section that shows some columns of the rows, and the figures."""

    def shown(results: Results) -> list[report.Block]:
        table = report.Table(results.rows, "Measures at the end of training.", columns=looks.titled(*columns))
        return [table, *results.figures("*.png", "What it learnt")]

    return shown
