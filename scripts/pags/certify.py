"""Certified accuracy by randomised smoothing, of models trained under noise and of a model behind a denoiser.

    python -m scripts.pags.certify --trained runs/pags_train --out runs/pags_certify

See Cohen, Rosenfeld and Kolter (2019), Carlini et al. (2023) for the denoiser, and `pags_jax.smoothing`. Each noise
level, classifier and radius has a row; an image counts if its class is right and certified beyond the radius.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from scripts.harness import cli, compiling, placement, plot, report
from scripts.harness.experiment import Experiment, Part, Results, Row
from scripts.harness.lazy import jax, jnp, pags_jax
from scripts.pags import manifolds, measuring
from scripts.pags.robustness import DENOISER_FILE, NAMED
from scripts.pags.sweeps import BASELINE, SMOOTHED

DENOISED, UNDEFENDED = "undefended, denoised", "undefended"


@dataclass(frozen=True)
class Config(manifolds.ScoreConfig):
    """Certify the smoothed classifiers of trained models."""

    PRESETS: ClassVar = {
        "quick": {"images": 20, "samples": 50},
        "paper": {"images": 500, "samples": 100_000, "denoised_samples": 10_000},
        "cifar10": {"images": 100, "samples": 500, "denoised_samples": 200},
    }

    sigmas: tuple[cli.Positive, ...] = ()
    """Noise levels, for images in [0, 1]; by default those up to 1 under which models were trained."""
    images: cli.Count = 100
    samples: cli.Count = 1000
    """Number of noise draws that are counted for an image; the largest radius is sigma Phi^-1(alpha^(1/samples))."""
    denoised_samples: cli.Count = 200
    """Number of noise draws for each image behind the denoiser, which makes a draw far more expensive."""
    selection_samples: cli.Count = 50
    """Number of noise draws that choose the class of an image."""
    alpha: cli.Probability = 0.001
    """Highest probability that an image is certified in error."""
    radii: tuple[cli.NonNegative, ...] = tuple(k / 10 for k in range(21))
    """L2 radii of the curve, for images in [0, 1]."""

    def units(self) -> list[dict[str, Any]]:
        """One unit for each noise level and classifier."""
        table = measuring.trained_rows(self.trained)
        trained, has_base = pags_jax.sweeps.noise_levels(table), bool(report.where(table, loss=BASELINE))
        sigmas = self.sigmas or [sigma for sigma in trained if sigma <= 1]
        if not sigmas or not (has_base or trained):
            raise ValueError(f"--trained: {self.trained} holds no model of {SMOOTHED}; name noise levels by --sigmas")
        seed = min(row["seed"] for row in table)
        return [
            {"classifier": classifier, "sigma": sigma, "seed": seed}
            for sigma in sigmas
            for classifier in (SMOOTHED, UNDEFENDED, DENOISED)
            if (sigma in trained if classifier == SMOOTHED else has_base)
        ]


def setup(config: Config) -> tuple[pags_jax.samples.Sample, Any]:
    """Images and the denoiser."""
    sample = measuring.sample(config)
    return sample, manifolds.denoiser_of(config, sample)()


def rows_of(config: Config, ready: tuple[Any, ...], *, classifier: str, sigma: float, seed: int) -> list[Row]:
    """Certified accuracy of one smoothed classifier, a row for each radius."""
    (sample, denoise), smoothed, samples = ready, classifier == SMOOTHED, config.samples
    loss, strength = (SMOOTHED, sigma) if smoothed else (BASELINE, 0.0)
    _, apply_fn = measuring.model_of(config.trained, loss=loss, strength=strength, seed=seed)
    if classifier == DENOISED:
        apply_fn = pags_jax.wrappers.denoised(apply_fn, denoise, sigma=jnp.float32(sigma))
        samples = config.denoised_samples
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    options = {"samples": samples, "selection_samples": config.selection_samples, "alpha": config.alpha}
    certify = compiling.jitted(pags_jax.smoothing.certify, *options)
    found = certify(apply_fn, sample.x, key=key, sigma=jnp.float32(sigma), **options)
    curve = pags_jax.smoothing.certified_accuracy(found, sample.y, jnp.asarray(config.radii, jnp.float32))
    curve, radius = placement.on_host((curve, found.radius))
    row = {"samples": samples, "abstained": float(curve.abstained), "mean_radius": float(radius.mean())}
    return [
        row | {"radius": r, "accuracy": float(accuracy), "accuracy_error": float(error)}
        for r, accuracy, error in zip(config.radii, curve.accuracy, curve.error, strict=True)
    ]


def draw(config: Config, table: list[Row]) -> None:
    """Draw certified accuracy against the radius, a panel for each noise level."""
    sigmas = sorted({row["sigma"] for row in table})
    titles = [f"noise {sigma:g}" for sigma in sigmas]
    with plot.panels(config.out / "certified.png", titles, legend=3, share_y=True, width=2.6) as axes:
        for panel, sigma in zip(axes, sigmas, strict=True):
            plot.lines(panel, report.where(table, sigma=sigma), x="radius", y="accuracy", by="classifier")
            panel.set(xlabel="L2 radius, pixels in [0, 1]", ylabel="certified accuracy", ylim=(0, 1))


def section(results: Results) -> list[report.Block]:
    """Certified accuracy at a few radii, and the curves."""
    radii = sorted({row["radius"] for row in results.rows})
    shown = [radius for radius in (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5) if radius in radii] or radii[:8]
    lines = []
    for (sigma, name), part in report.groups(results.rows, "sigma", "classifier").items():
        first, at = part[0], {row["radius"]: row["accuracy"] for row in part}
        line: Row = {"noise": sigma, "classifier": plot.look(name).label, "draws": first["samples"]}
        line |= {f"radius {radius:g}": at[radius] for radius in shown}
        lines.append(line | {"abstained": first["abstained"]})
    return [
        "Certified accuracy is the share of test images whose predicted class is right and stays the same within an "
        "L2 radius, whatever the attack; the certificate of an image fails with a probability of at most alpha (column "
        "config.alpha). A smoothed classifier predicts the class that its base model predicts most often under noise. "
        "A denoiser in front of the undefended model makes one without training.",
        report.Table(lines, "Certified accuracy.", digits=3),
        *results.figures("certified.png", "Certified accuracy against the radius for each noise level"),
    ]


EXPERIMENT = Experiment(
    "pags_certify", Config, rows_of, setup=setup, inputs=measuring.inputs, draw=draw,
    heading="Certified accuracy", section=section,
    parts=(
        Part({"full": {"sigmas": (0.25,), "samples": 500, "denoised_samples": 100}, "paper": {}, "cifar10": {}},
             reads=NAMED, files=DENOISER_FILE),
    ),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
