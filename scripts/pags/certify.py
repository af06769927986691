"""Certified accuracy by randomised smoothing, of models trained under noise and of a model behind a denoiser.

    python -m scripts.pags.certify --trained runs/pags_train --out runs/pags_certify

See Cohen, Rosenfeld and Kolter (2019), Carlini et al. (2023) for the denoiser, and `pags_jax.smoothing`. For each noise
level and radius there is a row for each classifier under that noise: the model that was trained under it, the
undefended model, and the undefended model behind the denoiser. An image counts if its class is right and certified
beyond the radius.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from scripts.harness import cli, compiling, placement, plot, report
from scripts.harness.experiment import Experiment, Part, Results, Row
from scripts.harness.lazy import jax, jnp, pags_jax
from scripts.pags import manifolds, measuring
from scripts.pags.robustness import FILES, NAMED
from scripts.pags.sweeps import BASELINE, SMOOTHED

DENOISED, UNDEFENDED = "undefended, denoised", "undefended"


@dataclass(frozen=True)
class Config(manifolds.ManifoldConfig):
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


class Ready(NamedTuple):
    """The images to certify, and the denoiser."""

    sample: measuring.Sample
    denoise: Any


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit for each noise level and classifier."""
    table = measuring.trained_rows(config.trained)
    trained = sorted({row["strength"] for row in table if row["loss"] == SMOOTHED and row["strength"] > 0})
    sigmas = config.sigmas or [strength for strength in trained if strength <= 1]
    has_base = any(row["loss"] == BASELINE for row in table)
    if not sigmas or not (has_base or trained):
        raise ValueError(f"--trained: {config.trained} holds no model of {SMOOTHED}; name noise levels by --sigmas")
    seed = min(row["seed"] for row in table)
    return [
        {"classifier": classifier, "sigma": sigma, "seed": seed}
        for sigma in sigmas
        for classifier in (SMOOTHED, UNDEFENDED, DENOISED)
        if (sigma in trained if classifier == SMOOTHED else has_base)
    ]


def inputs(config: Config) -> dict[str, str]:
    """Digests of the models and of the denoiser."""
    table = measuring.trained_rows(config.trained)
    return measuring.digests(config, table, {"denoiser": _file(config, table)})


def _file(config: Config, table: list[Row]) -> Path:
    return manifolds.files_of(config, table, scores=True)["denoiser"]


def setup(config: Config) -> Ready:
    """Images and the denoiser."""
    if not 0 < config.alpha < 1:
        raise ValueError(f"--alpha: expected a probability above 0 and below 1, got {config.alpha}")
    table = measuring.trained_rows(config.trained)
    network = pags_jax.models.load(_file(config, table), kind="denoiser")[:2]
    return Ready(measuring.sample(config, table), pags_jax.scores.denoiser(*network))


def rows_of(config: Config, ready: Ready, *, classifier: str, sigma: float, seed: int) -> list[Row]:
    """Certified accuracy of one smoothed classifier, a row for each radius."""
    smoothed = classifier == SMOOTHED
    unit = {"loss": SMOOTHED if smoothed else BASELINE, "strength": sigma if smoothed else 0.0, "seed": seed}
    _, apply_fn = measuring.model_of(config.trained, measuring.trained_rows(config.trained), unit)
    samples = config.samples
    if classifier == DENOISED:
        apply_fn = pags_jax.wrappers.denoised(apply_fn, ready.denoise, sigma=jnp.float32(sigma))
        samples = config.denoised_samples
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    options = {"samples": samples, "selection_samples": config.selection_samples, "alpha": config.alpha}
    certify = compiling.jitted(pags_jax.smoothing.certify, *options)
    found = certify(apply_fn, ready.sample.x, key=key, sigma=jnp.float32(sigma), **options)
    curve = pags_jax.smoothing.certified_accuracy(found, ready.sample.y, jnp.asarray(config.radii, jnp.float32))
    radius, error = np.asarray(placement.on_host(found.radius)), len(ready.sample.y)
    row = {"samples": samples, "abstained": float(curve.abstained), "mean_radius": float(radius.mean())}
    return [
        row | {"radius": r, "accuracy": float(a), "accuracy_error": float(np.sqrt(a * (1 - a) / error))}
        for r, a in zip(config.radii, placement.on_host(curve.accuracy), strict=True)
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
    for sigma, name in dict.fromkeys((row["sigma"], row["classifier"]) for row in results.rows):
        part = {row["radius"]: row for row in report.where(results.rows, sigma=sigma, classifier=name)}
        line: Row = {"noise": sigma, "classifier": plot.look(name).label, "draws": part[radii[0]]["samples"]}
        line |= {f"radius {radius:g}": part[radius]["accuracy"] for radius in shown}
        lines.append(line | {"abstained": part[radii[0]]["abstained"]})
    return [
        "Certified accuracy is the share of test images whose predicted class is right and stays the same within an "
        "L2 radius, whatever the attack; the configuration states the confidence for each image. The smoothed "
        "classifier predicts the class that its base model predicts most often under noise. A denoiser in front of "
        "the undefended model makes a smoothed classifier without training.",
        report.Table(lines, "Certified accuracy.", digits=3),
        *results.figures("certified.png", "Certified accuracy against the radius for each noise level"),
    ]


EXPERIMENT = Experiment(
    "pags_certify", Config, rows_of, plan, setup=setup, inputs=inputs, draw=draw,
    heading="Certified accuracy", section=section,
    parts=(
        Part({"full": {"sigmas": (0.25,), "samples": 500, "denoised_samples": 100}, "paper": {}, "cifar10": {}},
             reads=NAMED, files=FILES),
    ),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
