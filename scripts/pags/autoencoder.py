"""Train an autoencoder, whose decoder draws the manifold that models are measured on and off.

    python -m scripts.pags.autoencoder --dataset fashion_mnist --out runs/autoencoder

The run folder ends with ``autoencoder.safetensors`` (`pags_jax.models.load`), a row with the
reconstruction error on training and on test images beside that of the mean image, and figures: the loss, reconstructed
test images.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pags_jax import datasets, generative, models
from pags_jax.images import to_float
from scripts.harness import cli, plot, rows, store
from scripts.pags import generative as pags_generative

plan = pags_generative.plan
SHOWN = 16
"""Images reconstructed in the figure."""


@dataclass(frozen=True)
class Config(pags_generative.Config):
    """Train a convolutional autoencoder by least squares."""

    PRESETS: ClassVar = {
        "quick": {"epochs": 2, "train_rows": 2000},
        "paper": {"dataset": "cifar10", "epochs": 100, "latent": 128, "widths": (64, 144, 320), "learning_rate": 1e-3},
        "cifar10": {
            "dataset": "cifar10",
            "epochs": 8,
            "batch_size": 64,
            "latent": 128,
            "widths": (32, 64, 128),
            "storage": "float16",
        },
    }

    out: Path = Path("runs/pags_autoencoder")
    latent: cli.Count = 32
    """Numbers that an image is encoded in."""
    widths: tuple[cli.Count, ...] = (32, 64)
    """Channels at half, a quarter, ... of the images' resolution."""


def main(config: Config) -> None:
    """Trains what is not trained yet, measures, and draws."""
    data = pags_generative.images_of(config)
    with store.open_run(config.out, config) as run:
        run.do(
            pags_generative.plan(config),
            lambda _: [measured(config, data)],
            then=lambda _: shutil.rmtree(config.out / "checkpoints", ignore_errors=True),
        )
    draw(config, store.read_rows(config.out))
    show(config, data)


def measured(config: Config, data: datasets.Images) -> rows.Row:
    """Trains, measures and saves the autoencoder; errors are mean squares over pixels in [0, 1]."""
    height, width, channels = data.train_x.shape[1:]
    model = models.Autoencoder((height, width, channels), config.latent, config.widths)
    variables, row = pags_generative.train(config, data, model, generative.reconstruction)
    stored = pags_generative.as_stored(config, variables)
    train_x, test_x = data.train_x[: config.measured_rows], data.test_x[: config.measured_rows]
    mean = data.train_x.mean(0, keepdims=True, dtype=np.float64)
    both = models.encoder(model, stored), models.decoder(model, stored)
    errors = partial(pags_generative.compiled(_errors), *both)
    row |= {
        "train_error": pags_generative.mean_over(errors, train_x),
        "test_error": pags_generative.mean_over(errors, test_x),
        "mean_image_error": float((((test_x - mean) / 255) ** 2).mean()),
        "decoder_parameters": models.count_parameters({"params": stored["params"]["decoder"]}),
    }
    about = {name: value for name, value in row.items() if name not in ("epoch_loss", "train_s", "images_per_s")}
    pags_generative.save(config, config.out / "autoencoder.safetensors", model, variables, about)
    return row


def _errors(encode, decode, x):
    x = to_float(x)
    return ((decode(encode(x)) - x) ** 2).mean((1, 2, 3))


def draw(config: Config, table: Sequence[dict[str, Any]]) -> Path:
    """The error over the epochs, and those measured at the end."""
    (row,) = table
    made, axes = plot.figure(1, 1, titles=("Mean squared error per pixel",), width=4)
    epochs = [{"series": "training", "epoch": k + 1, "error": loss} for k, loss in enumerate(row["epoch_loss"])]
    plot.lines(axes[0, 0], epochs, x="epoch", y="error", by="series")
    for column, label in (("test_error", "test, at the end"), ("mean_image_error", "mean image")):
        axes[0, 0].axhline(row[column], color=plot.GREY, linestyle=":" if "mean" in column else "--", label=label)
    axes[0, 0].set(yscale="log")
    plot.legend(made)
    return plot.save(made, config.out / "loss.png")


def show(config: Config, data: datasets.Images) -> None:
    """Draws test images and their reconstructions."""
    model, variables, _ = models.load(config.out / "autoencoder.safetensors", kind="autoencoder")
    x = to_float(data.test_x[:SHOWN])
    images = np.stack([x, models.decoder(model, variables)(models.encoder(model, variables)(x))])
    path = config.out / "reconstructions.png"
    pags_generative.panel(images, path, labels=["test image", "reconstructed"], title="Reconstructions")


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
