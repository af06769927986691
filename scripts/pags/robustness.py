"""On- and off-manifold robustness of the models of a training run, on the same images, directions and noise.

    python -m scripts.pags.robustness --trained runs/pags_train --out runs/pags_robustness

Srinivas et al. (2023), the models of section 5: how far a step of a given length, along the data manifold or off it,
moves the class probabilities. One row for each model and length, with the values of all images in ``values/``.
``noise.npz`` keeps a few images and their two noises.
"""

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from pags_jax import manifold, robustness
from scripts.harness import cli, compiling, placement
from scripts.pags import manifolds, measuring

plan = measuring.plan


@dataclass(frozen=True)
class Config(manifolds.ManifoldConfig):
    """Measure on- and off-manifold robustness."""

    PRESETS: ClassVar = {
        "quick": {"images": 50, "draws": 1, "eps": (0.1, 0.5, 1.0, 2.637)},
        "paper": {"images": 1000},
        "cifar10": {"images": 500, "eps": (0.07, 0.43, 1.3, 2.637, 5.0)},
    }

    out: Path = Path("runs/pags_robustness")
    eps: tuple[cli.Positive, ...] = tuple(float(f"{eps:.6g}") for eps in robustness.REFERENCE_EPS)
    """Lengths (L2) of the steps, for images in [0, 1]; by default the paper's twenty."""
    draws: cli.Count = 2
    """Noises an image; their mean is taken."""
    shown: cli.Count = 4
    """Images in noise.npz."""


def main(config: Config) -> None:
    """Measures what is not measured yet."""
    table = measuring.trained_rows(config.trained)
    files = manifolds.files_of(config, table)
    inputs = measuring.digests(config, table, files)
    sample = measuring.sample(config, table)
    basis = manifolds.basis_of(config, sample)
    shape = (config.draws, *sample.x.shape)
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(config.seed), 1), shape, sample.x.dtype)
    mask = manifolds.mask_of(config, sample)
    basis = manifolds.restricted(mask, basis)
    noise = noise if mask is None else jnp.where(mask[None], noise, 0)
    near = ranks_of(basis, mask)
    measuring.measure(
        config, table, lambda _, apply_fn: rows_of(config, apply_fn, sample.x, basis, noise, near), inputs=inputs
    )
    keep_noise(config, sample.x, basis, noise[0])


def rows_of(
    config: Config, apply_fn: Any, x: jax.Array, basis: jax.Array, noise: jax.Array, near: measuring.Row
) -> list[measuring.Row]:
    """Deviations of one model, a row for each length."""
    table = []
    x, basis, noise = placement.rows(x), *placement.everywhere((basis, noise))
    for eps in config.eps:
        on, off = placement.on_host(measured()(apply_fn, x, basis, noise, jnp.float32(eps)))
        table.append({"eps_l2": eps, "on": on, "off": off, **near})
    return table


def ranks_of(basis: jax.Array, mask: jax.Array | None) -> measuring.Row:
    """Dimensions of tangent spaces, and of the space of the pixels that are measured on, in the mean."""
    size = basis[0, 0].size if mask is None else mask.sum() / len(mask)
    return {"rank": float(manifold.rank(basis).mean()), "size": float(size)}


@functools.cache
def measured() -> Any:
    """`manifold_robustness` of a model that is an argument: compiled once for all of an architecture."""

    def measure(apply_fn, x, basis, noise, eps_l2):
        return robustness.manifold_robustness(apply_fn, x, basis, noise=noise, eps_l2=eps_l2)

    return jax.jit(measure, compiler_options=compiling.compiler_options())


def keep_noise(config: Config, x: jax.Array, basis: jax.Array, noise: jax.Array) -> None:
    """A few images, their noise on and off the manifold (unit length), and their rank, for a figure."""
    shown = slice(0, config.shown)
    on, off = robustness.directions(basis[shown], noise[shown])
    arrays = {"x": x[shown], "on": on, "off": off, "rank": manifold.rank(basis[shown])}
    measuring.keep(config.out / "noise.npz", arrays)


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
