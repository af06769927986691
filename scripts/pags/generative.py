"""What training a denoiser and training an autoencoder share: flags, training that resumes, and panels of images."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scripts.harness import cli, names, plot, report, rows, store
from scripts.harness.experiment import Results
from scripts.harness.lazy import jax, jnp, pags_jax
from scripts.pags import fit

if TYPE_CHECKING:
    from pags_jax import datasets

_HOW = (*store.RUN_FIELDS, "folder", "driver", "save_minutes")
"""Fields of a configuration that change nothing of a model."""


@dataclass(frozen=True)
class Config(cli.Common):
    """Flags of both experiments."""

    dataset: names.Unlabelled = "fashion_mnist"
    """Data set; fashion_mnist is a balanced subset that the package contains."""
    folder: Path | None = None
    """Folder of the data set's files; by default they are downloaded if possible."""
    epochs: cli.Count = 20
    """Number of passes over the training images."""
    batch_size: cli.Count = 128
    """Number of images in a step."""
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
    driver: names.Driver = "auto"
    """Whether Python runs single steps or an epoch is one program; auto runs single steps on CPUs."""
    save_minutes: cli.NonNegative = 5.0
    """Minutes between checkpoints."""


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit: the model."""
    return [{"dataset": config.dataset, "seed": config.seed}]


def images_of(config: Config) -> datasets.Images:
    """The configured image set."""
    return pags_jax.datasets.load(config.dataset, folder=config.folder)


def train(config: Config, data: datasets.Images, model: Any, loss: Callable[..., Any]) -> tuple[Any, rows.Row]:
    """Train a model to the end, from its checkpoint if there is one.

    Raises:
      ValueError: If the training diverges; the message names step and number.
    """
    x, y = (jnp.asarray(column[: config.train_rows]) for column in (data.train_x, data.train_y))
    training, generative = pags_jax.training, pags_jax.generative
    task = training.Task(model, loss, pags_jax.recipes.flips_of(config.augment, config.dataset), config.batch_size)
    total = config.epochs * training.steps_per_epoch(task, len(x))
    end = total if config.schedule == "cosine" else np.inf
    hyper = generative.Hyper(*map(jnp.float32, (config.learning_rate, config.warm_up, end, config.decay)))
    try:
        done, images_per_s = fit.fit(
            task, hyper, x, y, key=jax.random.key(config.seed), epochs=config.epochs, folder=config.out / "checkpoints",
            fingerprint=rows.flatten(config, without=store.RUN_FIELDS), save_minutes=config.save_minutes,
            driver=config.driver, label=config.out.name, trainer=generative,
        )  # fmt: skip
    except FloatingPointError as error:
        raise ValueError(f"training diverged: {error}") from error
    losses = done.metrics.reshape(config.epochs, -1, 2)[:, :, 0].mean(1, dtype=np.float64)
    return {"params": done.state.average}, {
        "train_rows": len(x),
        "parameters": pags_jax.models.count_parameters({"params": done.state.params}),
        "epoch_loss": losses.tolist(),
        "train_s": float(done.train_s),
        "images_per_s": images_per_s,
    }


def known(row: rows.Row) -> rows.Row:
    """What a row says that another run of the same training would repeat."""
    return {name: value for name, value in row.items() if name not in ("epoch_loss", "train_s", "images_per_s")}


def save(config: Config, path: Path, model: Any, variables: Any, measured: rows.Row) -> None:
    """Write a model with how it was made and what was measured, atomically; see `pags_jax.models.save`."""
    about = {"command": command_of(config), "config": rows.flatten(config, without=_HOW)}
    about |= {"measured": rows.flatten(measured)}
    pags_jax.models.save(path, model, variables, about, dtype=config.storage)


def command_of(config: Config) -> str:
    """The command that trains this model, whatever its flags were called by; folders are left out.

    >>> command_of(Config(epochs=3))
    'python -m scripts.pags.generative --epochs 3'
    """
    default, words = type(config)(), []
    for name, value in rows.flatten(config, without=_HOW).items():
        if getattr(config, name) != getattr(default, name):
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    script = Path(inspect.getfile(type(config))).stem
    return " ".join(["python -m", f"scripts.pags.{script}", *words])


def as_stored(config: Config, variables: Any) -> Any:
    """The variables as they come back from the file."""
    return jax.tree.map(lambda leaf: leaf.astype(config.storage).astype(jnp.float32), variables)


def mean_over(function: Callable[..., Any], *columns: Any, batch_size: int = 500) -> float:
    """The mean of one number for each row, computed in batches."""
    starts = range(0, len(columns[0]), batch_size)
    parts = [np.asarray(function(*(column[k : k + batch_size] for column in columns))) for k in starts]
    return float(np.concatenate(parts).mean(dtype=np.float64))


def panel(images: np.ndarray, path: Path, *, labels: Sequence[str], title: str, columns: Sequence[str] = ()) -> Path:
    """Draw a grid of images as PNG, with labels of its lines, and perhaps of its columns."""
    count, across, height, width, channels = images.shape
    tiled = np.clip(images, 0, 1).transpose(0, 2, 1, 3, 4).reshape(count * height, across * width, channels)
    made, axes = plot.figure(width=0.5 * across + 1.5, height=0.5 * count * height / width + 0.6, titles=(title,))
    axes[0, 0].imshow(tiled if channels == 3 else tiled[:, :, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes[0, 0].set_yticks(height * (np.arange(count) + 0.5), labels)
    axes[0, 0].set_xticks(width * (np.arange(len(columns)) + 0.5), columns, fontsize=5)
    axes[0, 0].grid(visible=False)
    return plot.save(made, path)


def finished(config: Config, unit: Any) -> None:
    """Remove the checkpoints when the rows are written."""
    del unit
    shutil.rmtree(config.out / "checkpoints", ignore_errors=True)


def section(columns: Sequence[str]) -> Callable[[Results], list[report.Block]]:
    """A section that shows some columns of the rows, and the figures."""

    def shown(results: Results) -> list[report.Block]:
        lines = [{name: row[name] for name in columns} for row in results.rows]
        return [report.Table(lines, "Measures at the end of training."), *results.figures("*.png", "What it learnt")]

    return shown
