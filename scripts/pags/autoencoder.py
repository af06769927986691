"""Train an autoencoder, whose decoder defines the manifold on and off which models are measured.

    python -m scripts.pags.autoencoder --dataset fashion_mnist --out runs/autoencoder

In the end ``autoencoder.safetensors`` (`pags_jax.models.load`) lies in the run folder. The row has the errors of
reconstructed training and test images beside that of the mean image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from scripts.harness import cli, compiling, plot
from scripts.harness.experiment import Experiment, Part, Row
from scripts.harness.lazy import pags_jax
from scripts.pags import fit, generative

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


def rows_of(config: Config, data: pags_jax.datasets.Images, **_: Any) -> list[Row]:
    """Train, measure and save the autoencoder; errors are mean squares over pixels in [0, 1]."""
    model = pags_jax.models.Autoencoder(data.train_x.shape[1:], config.latent, config.widths)
    variables, stored, row = generative.train(config, data, model, pags_jax.generative.reconstruction)
    errors = compiling.jitted(pags_jax.quality.reconstruction_errors)
    row |= pags_jax.quality.autoencoder(model, stored, data, rows=config.measured_rows, errors=errors)
    decoder = {"params": variables["params"]["decoder"]}
    row |= {"decoder_parameters": pags_jax.models.count_parameters(decoder)}
    generative.save(config, "autoencoder", model, variables, row)
    return [row]


def draw(config: Config, table: list[Row]) -> None:
    """Draw the error over the epochs, those measured at the end, and test images beside their reconstructions."""
    (row,) = table
    with plot.panels(config.out / "loss.png", ("Mean squared error per pixel",), width=4) as (panel,):
        generative.draw_epochs(panel, row, "error")
        for column, label in (("test_error", "test, at the end"), ("mean_image_error", "mean image")):
            panel.axhline(row[column], color=plot.GREY, linestyle=":" if "mean" in column else "--", label=label)
        panel.set(yscale="log")

    models: Any = pags_jax.models
    model, variables, _ = models.load(config.out / "autoencoder.safetensors", kind="autoencoder")
    encode, decode = models.encoder(model, variables), models.decoder(model, variables)
    x = pags_jax.images.to_float(fit.images_of(config).test_x[:SHOWN])
    lines = [("test image", x), ("reconstructed", decode(encode(x)))]
    generative.panel(lines, config.out / "reconstructions.png", title="Reconstructions")


COLUMNS = ("train_rows", "parameters", "train_error", "test_error", "mean_image_error")
EXPERIMENT = Experiment(
    "pags_autoencoder", Config, rows_of, generative.plan, setup=fit.images_of, finished=fit.finished,
    draw=draw, heading="The autoencoder", section=generative.section(COLUMNS), parts=(Part({"cifar10": {}}),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
