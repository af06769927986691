"""Train a denoiser, whose scores are compared with the gradients of robust models.

    python -m scripts.pags.score --dataset fashion_mnist --out runs/denoiser

The denoiser is a small U-Net with EDM's preconditioning (Karras et al. 2022), trained with and without classes at once;
see `pags_jax.scores`. In the end ``denoiser.safetensors`` (`pags_jax.models.load`) lies in the run folder. There is a
row for each noise level, see `pags_jax.quality.denoiser`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from scripts.harness import cli, compiling, plot
from scripts.harness.experiment import Experiment, Part, Row
from scripts.harness.lazy import jax, pags_jax
from scripts.pags import fit, generative

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


def setup(config: Config) -> pags_jax.datasets.Images:
    """The images."""
    pags_jax.scores.noise_schedule(config.sample_steps, sigma_max=config.sample_sigma)  # Refuses what cannot be drawn.
    return fit.images_of(config)


def rows_of(config: Config, data: pags_jax.datasets.Images, **_: Any) -> list[Row]:
    """Train and save the denoiser; a row for each noise level, with what holds for all of them in each."""
    quality, channels, classes = pags_jax.quality, data.train_x.shape[-1], len(data.classes)
    sizes = {"widths": config.widths, "blocks": config.blocks, "upsampling": "resize"}
    sizes |= {"sigma_data": config.sigma_data or quality.sigma_data(data.train_x)}
    model = pags_jax.models.UNet(channels=channels, classes=classes, **sizes)
    loss = partial(pags_jax.generative.denoising, unlabelled=config.unlabelled)
    variables, stored, row = generative.train(config, data, model, loss)
    how = {"key": jax.random.key(config.seed), "rows": config.measured_rows}
    how |= {"losses": compiling.jitted(quality.denoising_losses), "score": compiling.jitted(pags_jax.scores.score)}
    measured = [{"sigma_pm1": sigma} | quality.denoiser(model, stored, data, sigma, **how) for sigma in config.sigmas]
    columns = {name: [line[name] for line in measured] for name in COLUMNS}
    generative.save(config, "denoiser", model, variables, row | {"final_epoch_loss": row["epoch_loss"][-1]} | columns)
    return [row | line for line in measured]


def draw(config: Config, table: list[Row]) -> None:
    """Draw the loss over the epochs and by noise level, noisy test images and the denoised ones, and samples."""
    columns = {"train_loss": "training", "test_loss": "test", "test_loss_labelled": "test, knowing the class"}
    with plot.panels(config.out / "loss.png", ("Training", "By noise level"), width=3.6) as (training, by_level):
        generative.draw_epochs(training, table[0], "loss")
        for column, series in columns.items():
            plot.lines(by_level, table, x="sigma_pm1", y=column, series=series)
        by_level.set(xscale="log", xlabel="noise level (images in [-1, 1])", ylabel="loss", ylim=(0, None))
    data, scores = fit.images_of(config), pags_jax.scores
    model, variables, _ = pags_jax.models.load(config.out / "denoiser.safetensors", kind="denoiser")
    clean = 2 * pags_jax.images.to_float(data.test_x[: 2 * PER_CLASS]) - 1
    lines, key = [("clean", clean)], jax.random.key(config.seed)
    for sigma in config.sigmas[::2]:
        noisy = clean + sigma * jax.random.normal(key, clean.shape, clean.dtype)
        denoised = compiling.applied(scores.denoiser(model, variables), noisy, sigma)
        lines += [(f"noise {sigma:g}", noisy), ("denoised", denoised)]
    lines = [(label, (images + 1) / 2) for label, images in lines]
    generative.panel(lines, config.out / "denoised.png", title="Test images")

    names, denoiser = data.classes[:10], partial(scores.denoiser, model, variables)
    how = {"key": key, "steps": config.sample_steps, "sigma_max": config.sample_sigma}
    how |= {"step": compiling.jitted(scores.heun_step)}
    drawn = pags_jax.sampling.of_classes(denoiser, len(names), PER_CLASS, clean.shape[1:], **how)
    generative.panel(zip(names, drawn, strict=True), config.out / "samples.png", title="Samples")


COLUMNS = ("sigma_pm1", "train_loss", "test_loss", "test_loss_labelled", "test_rms_error", "checkerboard")
EXPERIMENT = Experiment(
    "pags_score", Config, rows_of, generative.plan, setup=setup, finished=fit.finished, draw=draw,
    heading="The denoiser", section=generative.section(COLUMNS), parts=(Part({"cifar10": {}}),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
