"""Train a denoiser, whose scores are compared with the gradients of robust models.

    python -m scripts.pags.score --dataset fashion_mnist --out runs/denoiser

The denoiser is a small U-Net with EDM's preconditioning (Karras et al. 2022), trained with and without classes at once;
see `pags_jax.scores`. In the end the run folder has ``denoiser.safetensors`` (`pags_jax.models.load`), a row for each
noise level with the loss on training and on test images, and figures of losses, denoised test images and samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from scripts.harness import cli, compiling, plot
from scripts.harness.experiment import Experiment, Part, Row
from scripts.harness.lazy import jax, jnp, pags_jax
from scripts.pags import generative

if TYPE_CHECKING:
    from pags_jax import datasets, models

MEASURED = ("train_loss", "test_loss", "test_loss_labelled", "test_rms_error", "checkerboard")
"""What is measured at each noise level."""
PER_CLASS = 8
"""Samples drawn of each class shown, and images denoised."""


@dataclass(frozen=True)
class Config(generative.Config):
    """Train a denoiser by score matching, and look at what it denoises and draws."""

    PRESETS: ClassVar = {
        "quick": {"epochs": 2, "train_rows": 2000, "widths": (16, 32), "blocks": 1, "sample_steps": 10},
        "paper": {
            "dataset": "cifar10", "epochs": 200, "batch_size": 256, "learning_rate": 5e-4, "decay": 0.9998,
            "widths": (128, 256, 256), "blocks": 3,
        },
        "cifar10": {"dataset": "cifar10", "epochs": 6, "batch_size": 64, "storage": "float16"},
    }  # fmt: skip

    widths: tuple[cli.Count, ...] = (32, 96)
    """Numbers of channels at half, a quarter, ... of the images' resolution."""
    blocks: cli.Count = 2
    """Number of residual blocks at each resolution, both on the way down and on the way up."""
    unlabelled: cli.Probability = 0.15
    """Share of the labels that are hidden in training."""
    sigma_data: cli.Positive | None = None
    """Standard deviation of the pixels in [-1, 1]; by default that of the training images."""
    sigmas: tuple[cli.Positive, ...] = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0)
    """Noise levels, for images in [-1, 1], at which losses are measured."""
    sample_steps: cli.Count = 18
    """Number of noise levels that samples pass through, at least 2."""
    sample_sigma: cli.Positive = 20.0
    """Largest noise level that samples pass through."""


def setup(config: Config) -> datasets.Images:
    """The images."""
    pags_jax.scores.noise_schedule(config.sample_steps, sigma_max=config.sample_sigma)  # Refuses what cannot be drawn.
    return generative.images_of(config)


def rows_of(config: Config, data: datasets.Images, **unit: Any) -> list[Row]:
    """Train and save the denoiser; a row for each noise level, with what holds for all of them in each."""
    del unit
    model = model_of(config, data)
    loss = partial(pags_jax.generative.denoising, unlabelled=config.unlabelled)
    variables, row = generative.train(config, data, model, loss)
    stored = generative.as_stored(config, variables)
    table = [row | {"sigma_pm1": sigma} | losses_at(config, data, model, stored, sigma) for sigma in config.sigmas]
    about = generative.known(row) | {"final_epoch_loss": row["epoch_loss"][-1]}
    about |= {name: [line[name] for line in table] for name in COLUMNS}
    generative.save(config, config.out / "denoiser.safetensors", model, variables, about)
    return table


def model_of(config: Config, data: datasets.Images) -> models.UNet:
    """The configured network for these images."""
    sigma_data = config.sigma_data or round(float(2 * data.train_x[:10_000].std(dtype=np.float64) / 255), 3)
    sizes = {"widths": config.widths, "blocks": config.blocks, "sigma_data": sigma_data}
    channels, classes = data.train_x.shape[-1], len(data.classes)
    return pags_jax.models.UNet(channels=channels, classes=classes, upsampling="resize", **sizes)


def losses_at(config: Config, data: datasets.Images, model: Any, variables: Any, sigma: float) -> Row:
    """Losses at one noise level, on training and test images, there also knowing the class; the noise is the same."""
    weight = pags_jax.scores.loss_weight(sigma, model.sigma_data)

    def loss(x, y, labelled):
        x, y = jnp.asarray(x[: config.measured_rows]), jnp.asarray(y[: config.measured_rows])
        noise = jax.random.normal(jax.random.key(config.seed), x.shape, jnp.float32)

        def of_batch(x, y, noise):
            denoise = pags_jax.scores.denoiser(model, variables, y if labelled else None)
            return _losses(denoise, x, sigma, noise, model.sigma_data)

        return generative.mean_over(of_batch, x, y, noise)

    unlabelled = loss(data.test_x, data.test_y, False)
    clean = pags_jax.images.to_float(jnp.asarray(data.test_x[: min(config.measured_rows, 200)]))
    denoise, score_of = pags_jax.scores.denoiser(model, variables), compiling.jitted(pags_jax.scores.score)
    score = score_of(denoise, clean, sigma_pm1=jnp.float32(sigma))
    return {
        "train_loss": loss(data.train_x, data.train_y, False),
        "test_loss": unlabelled,
        "test_loss_labelled": loss(data.test_x, data.test_y, True),
        "test_rms_error": float(np.sqrt(unlabelled / weight)),
        "checkerboard": pags_jax.sampling.checkerboard(np.asarray(score, np.float64)),
    }


@compiling.compiled()
def _losses(denoise, x, sigma, noise, sigma_data):
    return pags_jax.scores.denoising_loss(
        denoise, 2 * pags_jax.images.to_float(x) - 1, sigma, noise, sigma_data=sigma_data
    )


def draw(config: Config, table: list[Row]) -> None:
    """Draw the loss over the epochs and by noise level, noisy test images and the denoised ones, and samples."""
    columns = {"train_loss": "training", "test_loss": "test", "test_loss_labelled": "test, knowing the class"}
    with plot.panels(config.out / "loss.png", ("Training", "By noise level"), width=3.6) as (training, by_level):
        epochs = [{"epoch": k + 1, "loss": loss} for k, loss in enumerate(table[0]["epoch_loss"])]
        plot.lines(training, epochs, x="epoch", y="loss", series="training")
        for column, series in columns.items():
            plot.lines(by_level, table, x="sigma_pm1", y=column, series=series)
        by_level.set(xscale="log", xlabel="noise level (images in [-1, 1])", ylabel="loss", ylim=(0, None))
    show(config, generative.images_of(config))


def show(config: Config, data: datasets.Images) -> None:
    """Draw noisy test images and the denoised ones below, and samples of the first ten classes."""
    scores = pags_jax.scores
    model, variables, _ = pags_jax.models.load(config.out / "denoiser.safetensors", kind="denoiser")
    of_all = scores.denoiser(model, variables)
    clean = 2 * pags_jax.images.to_float(data.test_x[: 2 * PER_CLASS]) - 1
    key = jax.random.key(config.seed)
    lines, labels = [clean], ["clean"]
    for sigma in config.sigmas[::2]:
        noisy = clean + sigma * jax.random.normal(key, clean.shape, clean.dtype)
        lines += [noisy, compiling.applied(of_all, noisy, sigma)]
        labels += [f"noise {sigma:g}", "denoised"]
    images = (np.stack(lines) + 1) / 2
    generative.panel(images, config.out / "denoised.png", labels=labels, title="Test images")

    shown = data.classes[:10]
    classes = jnp.repeat(jnp.arange(len(shown)), PER_CLASS)
    noise = jax.random.normal(key, (len(classes), *clean.shape[1:]), clean.dtype)
    levels = scores.noise_schedule(config.sample_steps, sigma_max=config.sample_sigma)
    drawn = scores.sample(
        scores.denoiser(model, variables, classes), noise, levels, step=compiling.jitted(scores.heun_step)
    )
    images = (np.asarray(drawn).reshape(len(shown), PER_CLASS, *clean.shape[1:]) + 1) / 2
    generative.panel(images, config.out / "samples.png", labels=list(shown), title="Samples")


COLUMNS = ("sigma_pm1", *MEASURED)
EXPERIMENT = Experiment(
    "pags_score", Config, rows_of, generative.plan, setup=setup, finished=generative.finished, draw=draw,
    heading="The denoiser", section=generative.section(COLUMNS), parts=(Part({"cifar10": {}}),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
