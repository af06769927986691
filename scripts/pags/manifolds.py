"""Tangent spaces of a data set at test images, and its denoisers: from files, or those that come with the package."""

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from pags_jax import manifold, models, scores
from pags_jax.datasets import pretrained
from pags_jax.images import to_float
from scripts.harness import cli, compiling, threads
from scripts.pags import generative, measuring

_SCRIPTS = {"autoencoder": "autoencoder", "denoiser": "score"}
_SAME_IMAGES = {"fashion_mnist_full": "fashion_mnist", "mnist_test": "mnist"}
"""Data sets that hold images of another one."""


@dataclasses.dataclass(frozen=True)
class ManifoldConfig(measuring.MeasuringConfig):
    """Flags of the scripts that need a manifold."""

    manifold: Literal["autoencoder", "local_pca", "denoiser"] = "autoencoder"
    """Where tangent spaces come from: an autoencoder's Jacobian, near training images, or a denoiser's Jacobian."""
    autoencoder: Path | None = None
    """File of scripts.pags.autoencoder; by default the one for Fashion-MNIST that comes with the package."""
    denoiser: Path | None = None
    """File of scripts.pags.score; by default the one for Fashion-MNIST that comes with the package."""
    rank: cli.Count = 16
    """Dimensions of tangent spaces from local_pca and denoiser; an autoencoder's have those of its code."""
    neighbours: cli.Count = 64
    """Training images around each, for local_pca and for --pixels varying."""
    pixels: Literal["all", "varying"] = "all"
    """Measure on all pixels, or on those alone that vary by more than 0.1 among an image's neighbours: half of
    Fashion-MNIST is black background, and what a model does with noise there says nothing of the data."""
    tangent_sigma_pm1: cli.Positive = 0.2
    """Noise level of the denoiser's Jacobian, for images in [-1, 1]."""


def basis_of(config: ManifoldConfig, sample: measuring.Sample) -> jax.Array:
    """A basis of the tangent space at each image, computed once for all models."""
    options = compiling.compiler_options()
    if config.manifold != "autoencoder":
        _check_rank(config, sample)
    if config.manifold == "local_pca":
        return jax.jit(manifold.local_pca, static_argnames="rank")(_neighbours(config, sample), rank=config.rank)
    if config.manifold == "denoiser":
        unconditional, _ = denoisers(config, sample)
        # One image at a time: convolutions inside of loops are slow on CPUs.
        basis = jax.jit(
            lambda denoise, x, key: manifold.denoiser_basis(
                denoise, x, sigma_pm1=config.tangent_sigma_pm1, rank=config.rank, key=key, iterations=8, unroll=True
            ),
            compiler_options=options,
        )
        keys = jax.random.split(jax.random.key(config.seed), len(sample.x))
        return jnp.concatenate([basis(unconditional, sample.x[k : k + 1], keys[k]) for k in range(len(keys))])
    model, variables = _autoencoder(config, sample)
    encode, decode = models.encoder(model, variables), models.decoder(model, variables)
    codes = jax.jit(lambda encode, x: encode(x), compiler_options=options)(encode, sample.x)
    return bases_at(decode, codes)


def mask_of(config: ManifoldConfig, sample: measuring.Sample) -> jax.Array | None:
    """The pixels of each image that are measured on; None for all."""
    if config.pixels == "all":
        return None
    if not 2 <= config.neighbours <= len(sample.data.train_x):
        raise ValueError(
            f"--neighbours: expected 2 to {len(sample.data.train_x)}, the training images, got {config.neighbours}"
        )
    return manifold.varying(_neighbours(config, sample), least=0.1)


def restricted(mask: jax.Array | None, basis: jax.Array) -> jax.Array:
    """The basis inside the mask, if there is one."""
    return basis if mask is None else jax.jit(manifold.restrict)(basis, mask)


def _neighbours(config: ManifoldConfig, sample: measuring.Sample) -> jax.Array:
    """The training images around each image."""
    data = to_float(sample.data.train_x)
    find = jax.jit(lambda x: manifold.nearest(x, data, count=config.neighbours, itself=None, chunk_size=1))
    return data[find(sample.x)]


def bases_at(decode: Any, codes: jax.Array) -> jax.Array:
    """`tangent_basis` of one code after the other: convolutions inside of loops are slow on CPUs."""
    with threads.one_lapack_thread():
        bases = [tangent_basis()(decode, codes[k : k + 1]) for k in range(len(codes))]
        return jax.block_until_ready(jnp.concatenate(bases))


@functools.cache
def tangent_basis() -> Any:
    """Compiled once."""
    return jax.jit(manifold.tangent_basis, compiler_options=compiling.compiler_options())


def files_of(config: ManifoldConfig, table: list[measuring.Row], *, scores: bool = False) -> dict[str, Path]:
    """The files that a configuration uses, by the flag's name, each checked to be of the trained models' images.

    Args:
        config: The configuration.
        table: The training run's rows.
        scores: Whether scores are needed besides tangent spaces.

    Raises:
        ValueError: If a file is missing or damaged, or says that it was trained on images of another data set.
    """
    named = {"autoencoder": config.autoencoder, "denoiser": config.denoiser}
    used = {name for name in named if config.manifold == name} | ({"denoiser"} if scores else set())
    shipped = {"autoencoder": pretrained.AUTOENCODER, "denoiser": pretrained.DENOISER}
    files = {name: named[name] or shipped[name] for name in sorted(used)}
    for name, path in files.items():
        _check_same_images(name, path, config.trained, table[0]["config.dataset"])
    return files


def _check_same_images(name: str, path: Path, trained: Path, dataset: str) -> None:
    """A file that does not say what it was trained on is taken, and that is said."""
    known = models.files.about(path).get("config", {}).get("dataset")
    if known is None:
        print(f"note: --{name}: {path} does not say what images it is for; it must be {dataset}", file=sys.stderr)
    elif _SAME_IMAGES.get(known, known) != _SAME_IMAGES.get(dataset, dataset):
        script = f"python -m scripts.pags.{_SCRIPTS[name]}"
        can = dataset in get_args(generative.DataSet)
        fix = f"train one with {script} --dataset {dataset}" if can else f"{script} trains none for {dataset}"
        fix += ", or take --manifold local_pca" if name == "autoencoder" else ""
        raise ValueError(f"--{name}: {path} is for images of {known}, the models in {trained} are of {dataset}; {fix}")


def denoisers(config: ManifoldConfig, sample: measuring.Sample) -> tuple[scores.Denoiser, scores.Denoiser]:
    """The denoiser of all images, and that of each image's class."""
    model, variables, _ = models.load(config.denoiser or pretrained.DENOISER, kind="denoiser")
    if model.channels != sample.x.shape[-1]:
        raise ValueError(
            f"--denoiser: it is for images of {model.channels} channels, those here have {sample.x.shape[-1]}; train "
            "one with python -m scripts.pags.score"
        )
    return scores.denoiser(model, variables), scores.denoiser(model, variables, sample.y)


def _check_rank(config: ManifoldConfig, sample: measuring.Sample) -> None:
    """Of the manifolds that need one."""
    size, count = sample.x[0].size, len(sample.data.train_x)
    most, why = size, f"images of {size} values"
    if config.manifold == "local_pca":
        if not 2 <= config.neighbours <= count:
            raise ValueError(f"--neighbours: expected 2 to {count}, the training images, got {config.neighbours}")
        most = min(size, config.neighbours - 1)
        why = f"{config.neighbours} neighbours (--neighbours) with {size} values each"
    if config.rank > most:
        raise ValueError(f"--rank: {why} give at most {most} directions, got {config.rank}")


def _autoencoder(config: ManifoldConfig, sample: measuring.Sample) -> tuple[Any, Any]:
    model, variables, _ = models.load(config.autoencoder or pretrained.AUTOENCODER, kind="autoencoder")
    if model.shape != sample.x.shape[1:]:
        raise ValueError(
            f"--autoencoder: it is for images of {model.shape}, those here are {sample.x.shape[1:]}; train one with "
            "python -m scripts.pags.autoencoder, or take --manifold local_pca"
        )
    return model, variables
