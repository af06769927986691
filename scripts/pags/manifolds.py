"""Tangent spaces of a data set at test images, and its denoisers, from files or from what comes with the package."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from scripts.harness import cli, compiling, names
from scripts.harness.compiling import jitted
from scripts.harness.lazy import jax, pags_jax
from scripts.pags import measuring

SCRIPTS = {"autoencoder": "autoencoder", "denoiser": "score"}


@dataclasses.dataclass(frozen=True)
class ScoreConfig(measuring.MeasuringConfig):
    """Flags of the experiments that need a denoiser."""

    NEEDS: ClassVar[tuple[str, ...]] = ("scores",)
    """What the experiment needs networks for: tangent spaces, scores, or both."""
    DROPPED: ClassVar = ("manifold", "autoencoder", "rank", "neighbours", "pixels", "tangent_sigma_pm1")

    denoiser: Path | None = None
    """File of scripts.pags.score; by default the package's own file, for Fashion-MNIST."""

    def path(self, network: str) -> Path:
        """The file of the autoencoder or of the denoiser."""
        return getattr(self, network) or getattr(pags_jax.datasets.pretrained, network.upper())

    def files(self) -> Mapping[str, Path]:
        """The networks' files by their flags, each checked to be for the images of the trained models."""
        dataset = measuring.trained_rows(self.trained)[0]["config.dataset"]
        sources = {"tangents": getattr(self, "manifold", ""), "scores": "denoiser"}
        used = {sources[need] for need in self.NEEDS}
        found = {name: self.path(name) for name in SCRIPTS if name in used}
        for name, path in found.items():
            known = pags_jax.models.files.about(path).get("config", {}).get("dataset")
            if known is None:
                unknown = "does not say what images it is for; it must be"
                print(f"note: --{name}: {path} {unknown} {dataset}", file=sys.stderr)
            elif not pags_jax.datasets.share_images(known, dataset):
                other = f"{path} is for images of {known}, the models in {self.trained} are of {dataset}"
                raise ValueError(f"--{name}: {other}; {_fix(name, dataset)}")
        return found


@dataclasses.dataclass(frozen=True)
class ManifoldConfig(ScoreConfig):
    """Flags of the experiments that need tangent spaces, which the autoencoder or the denoiser may give."""

    NEEDS: ClassVar = ("tangents",)
    DROPPED: ClassVar = ()

    manifold: Literal["autoencoder", "local_pca", "denoiser"] = "autoencoder"
    """Source of tangent spaces: an autoencoder's or a denoiser's Jacobian, or nearby training images (local_pca)."""
    autoencoder: Path | None = None
    """File of scripts.pags.autoencoder; by default the package's own file, for Fashion-MNIST."""
    rank: cli.Count = 16
    """Dimension of tangent spaces from local_pca and denoiser; an autoencoder's have the dimension of its code."""
    neighbours: cli.Count = 64
    """Number of training images around each test image, for local_pca and for --pixels varying."""
    pixels: Literal["all", "varying"] = "all"
    """Whether to measure on all pixels or only on those that vary by more than 0.1 among an image's neighbours. Half of
    Fashion-MNIST is black background, where a model's response to noise says nothing about the data."""
    tangent_sigma_pm1: cli.Positive = 0.2
    """Noise level of the denoiser's Jacobian, for images in [-1, 1]."""


def _fix(name: str, dataset: str = "") -> str:
    """What to do without a network for these images."""
    script = f"python -m scripts.pags.{SCRIPTS[name]}"
    fix = f"train one with {script}" + (f" --dataset {dataset}" if dataset else "")
    if dataset and dataset not in get_args(names.Unlabelled):
        fix = f"{script} trains none for {dataset}"
    return fix + (", or take --manifold local_pca" if name == "autoencoder" else "")


def tangents_at(config: ManifoldConfig, sample: pags_jax.samples.Sample) -> pags_jax.tangents.Tangents:
    """The tangent spaces at each image, computed once for all models."""
    _check_counts(config, sample)
    basis, mask = basis_of(config, sample), None
    if config.pixels == "varying":
        mask = pags_jax.manifold.varying(_neighbours(config, sample), least=0.1)
    return pags_jax.tangents.within(basis, mask, restrict=jitted(pags_jax.manifold.restrict))


def basis_of(config: ManifoldConfig, sample: pags_jax.samples.Sample) -> jax.Array:
    """A basis of the tangent space at each image."""
    if config.manifold == "local_pca":
        return jitted(pags_jax.manifold.local_pca, "rank")(_neighbours(config, sample), rank=config.rank)
    if config.manifold == "denoiser":
        keys = jax.random.split(jax.random.key(config.seed), len(sample.x))
        options = {"sigma_pm1": config.tangent_sigma_pm1, "rank": config.rank}
        return denoiser_bases(denoiser_of(config, sample)(), sample.x, keys, **options)
    model, variables, _ = pags_jax.models.load(config.path("autoencoder"), kind="autoencoder")
    if model.shape != sample.x.shape[1:]:
        found = f"it is for images of {model.shape}, those here are {sample.x.shape[1:]}"
        raise ValueError(f"--autoencoder: {found}; {_fix('autoencoder')}")
    encode, decode = pags_jax.models.encoder(model, variables), pags_jax.models.decoder(model, variables)
    codes, basis = compiling.applied(encode, sample.x), jitted(pags_jax.manifold.tangent_basis)
    return pags_jax.tangents.of_decoder(decode, codes, basis=basis)


def denoiser_of(config: ScoreConfig, sample: pags_jax.samples.Sample) -> Callable[..., Any]:
    """A function from labels to the denoiser of these classes; without labels it gives that of all images."""
    model, variables, _ = pags_jax.models.load(config.path("denoiser"), kind="denoiser")
    if model.channels != sample.x.shape[-1]:
        found = f"it is for images of {model.channels} channels, those here have {sample.x.shape[-1]}"
        raise ValueError(f"--denoiser: {found}; {_fix('denoiser')}")
    return functools.partial(pags_jax.scores.denoiser, model, variables)


def denoiser_bases(denoise: Any, x: jax.Array, keys: Any, **options: Any) -> jax.Array:
    """See `pags_jax.tangents.of_denoiser`."""
    basis = jitted(pags_jax.manifold.denoiser_basis, "rank", "iterations", "unroll")
    return pags_jax.tangents.of_denoiser(denoise, x, keys, basis=basis, **options)


def compare(gradient: jax.Array, score: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and 1 - LPIPS of each image's gradient and score."""
    similarity_of = jitted(pags_jax.alignment.perceptual_similarity, images=False)
    weights = pags_jax.datasets.lpips_weights.load_lpips_weights()
    cosine = jitted(pags_jax.alignment.cosine, images=False)(gradient, score)
    return cosine, similarity_of(gradient, score, weights=weights)


def _neighbours(config: ManifoldConfig, sample: pags_jax.samples.Sample) -> jax.Array:
    """The training images around each image."""
    nearest = jitted(pags_jax.manifold.nearest, "count", "itself", "chunk_size")
    data = pags_jax.images.to_float(sample.data.train_x)
    return pags_jax.tangents.of_neighbours(sample.x, data, config.neighbours, nearest=nearest)


def _check_counts(config: ManifoldConfig, sample: pags_jax.samples.Sample) -> None:
    """Refuse numbers of neighbours and of directions that these images cannot give."""
    size, count, nearby = sample.x[0].size, len(sample.data.train_x), config.manifold == "local_pca"
    if (nearby or config.pixels == "varying") and not 2 <= config.neighbours <= count:
        raise ValueError(f"--neighbours: expected 2 to {count}, the training images, got {config.neighbours}")
    most, why = size, f"images of {size} values"
    if nearby:
        why = f"{config.neighbours} neighbours (--neighbours) with {size} values each"
        most = min(size, config.neighbours - 1)
    if config.rank > most and config.manifold != "autoencoder":
        raise ValueError(f"--rank: {why} give at most {most} directions, got {config.rank}")
