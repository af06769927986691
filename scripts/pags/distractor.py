"""Does a model look at the signal or at the distractor beside it? Noise on either half, and what it changes.

    python -m scripts.pags.train --dataset distractor --loss cross_entropy gradient_norm --out runs/distractor
    python -m scripts.pags.distractor --trained runs/distractor --out runs/pags_distractor

Srinivas et al. (2023), figure 5. One row for each model and noise: how far equally strong noise on the signal and on
the distractor moves the class probabilities.
"""

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from pags_jax import robustness
from scripts.harness import cli, compiling, placement
from scripts.pags import measuring

plan = measuring.plan


@dataclass(frozen=True)
class Config(measuring.MeasuringConfig):
    """Compare noise on the signal with noise on the distractor."""

    PRESETS: ClassVar = {"quick": {"images": 100, "draws": 1, "sigmas": (0.1, 0.5)}, "paper": {"images": 1000}}

    out: Path = Path("runs/pags_distractor")
    images: cli.Count = 500
    """Test images, drawn by --seed, the same for every model."""
    sigmas: tuple[cli.Positive, ...] = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8)
    """Standard deviations of the noise, for images in [0, 1]; both halves are equally large."""
    draws: cli.Count = 4
    """Noises an image; their mean is taken."""


def main(config: Config) -> None:
    """Measures what is not measured yet."""
    table = measuring.trained_rows(config.trained)
    sample = measuring.sample(config, table)
    if sample.mask is None:
        raise ValueError(
            f"--trained: the models in {config.trained} are of {table[0]['config.dataset']}, which has no "
            "distractor; train with --dataset distractor"
        )
    noise = jax.random.normal(jax.random.key(config.seed), (config.draws, *sample.x.shape), sample.x.dtype)
    x, mask = sample.x, sample.mask
    measuring.measure(
        config,
        table,
        lambda _, apply_fn: rows_of(config, apply_fn, x, mask, noise),
        inputs=measuring.digests(config, table, {}),
    )


def rows_of(config: Config, apply_fn: Any, x: jax.Array, mask: jax.Array, noise: jax.Array) -> list[measuring.Row]:
    """Mean deviations of one model over the images of which both are finite, and their ratio, a row for each noise."""
    table = []
    x, mask, noise = placement.rows(x), *placement.everywhere((mask, noise))
    for sigma in config.sigmas:
        signal, distractor = (
            placement.on_host(measured()(apply_fn, x, part, noise, jnp.float32(sigma))) for part in (mask, ~mask)
        )
        valid = np.isfinite(signal) & np.isfinite(distractor)
        means = measuring.summary("signal", signal, valid) | measuring.summary("distractor", distractor, valid)
        ratio = means["signal"] / means["distractor"] if means["distractor"] else None
        table.append({"sigma": sigma, **means, "ratio": ratio, "invalid": int((~valid).sum())})
    return table


@functools.cache
def measured() -> Any:
    """Deviation under noise on one part, of a model that is an argument."""

    def measure(apply_fn, x, mask, noise, sigma):
        return robustness.relative_noise_robustness(apply_fn, x, mask, noise=noise, sigma=sigma)

    return jax.jit(measure, compiler_options=compiling.compiler_options())


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
