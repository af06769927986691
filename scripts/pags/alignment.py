"""How much the input gradients of the models of a training run look like the score of a generative model.

    python -m scripts.pags.alignment --trained runs/pags_train --out runs/pags_alignment

Srinivas et al. (2023), the models of section 5. One row for each model and pair of gradient and score: cosine,
1 - LPIPS, and the share of the gradient that is off the data manifold, with the values of all images in ``values/``.
``scores_SIGMA.npz`` and ``gradients/`` keep the maps of a few images. A model trained under noise of standard deviation
s, in [0, 1], is Bayes' of images with the noise 2 s in [-1, 1]: such models are also compared at these levels, at all
that the run has.
"""

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from pags_jax import alignment, robustness
from pags_jax import scores as pags_scores
from pags_jax.datasets import lpips_weights
from pags_jax.gradients import Target, input_gradients
from scripts.harness import cli, compiling, placement, store
from scripts.pags import manifolds, measuring
from scripts.pags import robustness as pags_robustness

plan = measuring.plan
#: The loss whose strength is a noise level.
SMOOTHED = "randomized_smoothing"


@dataclass(frozen=True)
class Config(manifolds.ManifoldConfig):
    """Measure the alignment of gradients with scores."""

    PRESETS: ClassVar = {
        "quick": {"images": 50, "sigmas_pm1": (0.5,)},
        "paper": {"images": 1000},
        "cifar10": {"images": 500},
    }

    out: Path = Path("runs/pags_alignment")
    sigmas_pm1: tuple[cli.Positive, ...] = (0.5, 1.0, 2.0)
    """Noise levels of the score, for images in [-1, 1]; the paper takes 0.5 for CIFAR-10 and 1.2 for ImageNet-64."""
    shown: cli.Count = 6
    """Images whose maps are kept."""


def main(config: Config) -> None:
    """Measures what is not measured yet."""
    table = measuring.trained_rows(config.trained)
    files = manifolds.files_of(config, table, scores=True)
    inputs = measuring.digests(config, table, files)
    sample = measuring.sample(config, table)
    denoisers = manifolds.denoisers(config, sample)
    basis = manifolds.basis_of(config, sample)
    own = noise_levels(table)
    maps = {sigma: scores_of(denoisers, sample, sigma) for sigma in dict.fromkeys((*config.sigmas_pm1, *own))}
    mask = manifolds.mask_of(config, sample)
    basis = manifolds.restricted(mask, basis)
    near = pags_robustness.ranks_of(basis, mask)
    maps = {sigma: within(mask, kinds) for sigma, kinds in maps.items()}

    def rows_of(unit: dict[str, Any], apply_fn: Any) -> list[measuring.Row]:
        x, (y, here, tangent) = placement.rows(sample.x), placement.everywhere((sample.y, maps, basis))
        levels = [*config.sigmas_pm1, *(own if unit["loss"] == SMOOTHED else ())]
        gradients: dict[Target, jax.Array] = {
            target: differentiated()(apply_fn, x, y, target) for target in alignment.PAIRINGS
        }
        gradients = within(mask, gradients)
        keep(config.out / "gradients" / f"{store.unit_name(unit)}.npz", gradients, config.shown)
        return [
            row_of(gradient, target, sigma, here[sigma], tangent) | near
            for sigma in dict.fromkeys(levels)
            for target, gradient in gradients.items()
        ]

    measuring.measure(config, table, rows_of, inputs=inputs)
    for sigma, kinds in maps.items():
        keep(config.out / f"scores_{sigma:g}.npz", {"x": sample.x, "y": sample.y, **kinds}, config.shown)


def scores_of(
    denoisers: tuple[pags_scores.Denoiser, pags_scores.Denoiser], sample: measuring.Sample, sigma: float
) -> dict[str, jax.Array]:
    """The scores of the images at a noise level by kind: of all images, of their class, the difference."""
    unconditional, conditional = denoisers
    score = jax.jit(pags_scores.score, compiler_options=compiling.compiler_options())
    maps = {
        name: score(denoise, sample.x, sigma_pm1=jnp.float32(sigma))
        for name, denoise in (("unconditional", unconditional), ("conditional", conditional))
    }
    return maps | {"bayes": maps["conditional"] - maps["unconditional"]}


def within(mask: jax.Array | None, maps: Any) -> Any:
    """Maps by name, zero outside the mask, if there is one."""
    return maps if mask is None else {name: jnp.where(mask, values, 0) for name, values in maps.items()}


def row_of(
    gradient: jax.Array, target: Target, sigma: float, scores: dict[str, jax.Array], basis: jax.Array
) -> measuring.Row:
    """Values of the images; NaN where a map is zero or infinite."""
    kind = alignment.PAIRINGS[target]
    weights = lpips_weights.load_lpips_weights()
    cosine, similarity, share = placement.on_host(comparison()(gradient, scores[kind], basis, weights))
    place = {"target": target, "sigma_pm1": sigma, "score": kind}
    return place | {"cosine": cosine, "similarity": similarity, "off_share": share}


def noise_levels(table: list[measuring.Row]) -> list[float]:
    """Those of the models that were trained under noise, for images in [-1, 1]."""
    return sorted({2 * row["strength"] for row in table if row["loss"] == SMOOTHED and row["strength"] > 0})


@functools.cache
def differentiated() -> Any:
    """Input gradients of a model that is an argument."""

    def differentiate(apply_fn, x, y, target):
        return input_gradients(apply_fn, x, y, target=target)

    return jax.jit(differentiate, static_argnames="target", compiler_options=compiling.compiler_options())


@functools.cache
def comparison() -> Any:
    """Cosine, 1 - LPIPS and off-manifold share of a batch of maps."""

    def compare(gradient, score, basis, weights):
        similarity = alignment.perceptual_similarity(gradient, score, weights=weights)
        return alignment.cosine(gradient, score), similarity, robustness.off_manifold_share(gradient, basis)

    return jax.jit(compare)


def keep(path: Path, arrays: Any, count: int) -> None:
    """The first maps, for a figure."""
    measuring.keep(path, {name: array[:count] for name, array in arrays.items()})


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
