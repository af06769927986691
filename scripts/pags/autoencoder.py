"""Train an autoencoder, whose decoder defines the manifold on and off which models are measured.

    python -m scripts.pags.autoencoder --dataset fashion_mnist --out runs/autoencoder

In the end the run folder has ``autoencoder.safetensors`` (`pags_jax.models.load`), a row with the reconstruction errors
on training and test images beside that of the mean image, and figures of the loss and of reconstructed test images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from scripts.harness import cli, compiling, plot
from scripts.harness.experiment import Experiment, Part, Row
from scripts.harness.lazy import pags_jax
from scripts.pags import generative

if TYPE_CHECKING:
    from pags_jax import datasets

SHOWN = 16
"""Images reconstructed in the figure."""


@dataclass(frozen=True)
class Config(generative.Config):
    """Train a convolutional autoencoder by least squares."""

    PRESETS: ClassVar = {
        "quick": {"epochs": 2, "train_rows": 2000},
        "paper": {"dataset": "cifar10", "epochs": 100, "latent": 128, "widths": (64, 144, 320), "learning_rate": 1e-3},
        "cifar10": {
            "dataset": "cifar10", "epochs": 8, "batch_size": 64, "latent": 128, "widths": (32, 64, 128),
            "storage": "float16",
        },
    }  # fmt: skip

    latent: cli.Count = 32
    """Number of numbers that encode an image."""
    widths: tuple[cli.Count, ...] = (32, 64)
    """Numbers of channels at half, a quarter, ... of the images' resolution."""


def rows_of(config: Config, data: datasets.Images, **unit: Any) -> list[Row]:
    """Train, measure and save the autoencoder; errors are mean squares over pixels in [0, 1]."""
    del unit
    height, width, channels = data.train_x.shape[1:]
    models = pags_jax.models
    model = models.Autoencoder((height, width, channels), config.latent, config.widths)
    variables, row = generative.train(config, data, model, pags_jax.generative.reconstruction)
    stored = generative.as_stored(config, variables)
    train_x, test_x = data.train_x[: config.measured_rows], data.test_x[: config.measured_rows]
    mean = data.train_x.mean(0, keepdims=True, dtype=np.float64)
    errors = partial(_errors, models.encoder(model, stored), models.decoder(model, stored))
    row |= {
        "train_error": generative.mean_over(errors, train_x),
        "test_error": generative.mean_over(errors, test_x),
        "mean_image_error": float((((test_x - mean) / 255) ** 2).mean()),
        "decoder_parameters": models.count_parameters({"params": stored["params"]["decoder"]}),
    }
    generative.save(config, config.out / "autoencoder.safetensors", model, variables, generative.known(row))
    return [row]


@compiling.compiled()
def _errors(encode, decode, x):
    x = pags_jax.images.to_float(x)
    return ((decode(encode(x)) - x) ** 2).mean((1, 2, 3))


def draw(config: Config, table: list[Row]) -> None:
    """Draw the error over the epochs, those measured at the end, and test images beside their reconstructions."""
    (row,) = table
    epochs = [{"epoch": k + 1, "error": loss} for k, loss in enumerate(row["epoch_loss"])]
    with plot.panels(config.out / "loss.png", ("Mean squared error per pixel",), width=4) as (panel,):
        plot.lines(panel, epochs, x="epoch", y="error", series="training")
        for column, label in (("test_error", "test, at the end"), ("mean_image_error", "mean image")):
            panel.axhline(row[column], color=plot.GREY, linestyle=":" if "mean" in column else "--", label=label)
        panel.set(yscale="log")

    models: Any = pags_jax.models
    model, variables, _ = models.load(config.out / "autoencoder.safetensors", kind="autoencoder")
    x = pags_jax.images.to_float(generative.images_of(config).test_x[:SHOWN])
    images = np.stack([x, models.decoder(model, variables)(models.encoder(model, variables)(x))])
    path = config.out / "reconstructions.png"
    generative.panel(images, path, labels=["test image", "reconstructed"], title="Reconstructions")


COLUMNS = ("train_rows", "parameters", "train_error", "test_error", "mean_image_error")
EXPERIMENT = Experiment(
    "pags_autoencoder", Config, rows_of, generative.plan, setup=generative.images_of, finished=generative.finished,
    draw=draw, heading="The autoencoder", section=generative.section(COLUMNS), parts=(Part({"cifar10": {}}),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
