"""Tangent spaces of a data set at test images, and its denoisers, from files or from what comes with the package."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal, get_args

from scripts.harness import cli, compiling, names
from scripts.harness.compiling import jitted
from scripts.harness.experiment import Row
from scripts.harness.lazy import jax, pags_jax
from scripts.pags import measuring

SCRIPTS = {"autoencoder": "autoencoder", "denoiser": "score"}
_SAME_IMAGES = {"fashion_mnist_full": "fashion_mnist", "mnist_test": "mnist"}
"""Data sets that hold images of another one."""


@dataclasses.dataclass(frozen=True)
class ManifoldConfig(measuring.MeasuringConfig):
    """Flags of the experiments that need a manifold."""

    manifold: Literal["autoencoder", "local_pca", "denoiser"] = "autoencoder"
    """Source of tangent spaces: an autoencoder's or a denoiser's Jacobian, or nearby training images (local_pca)."""
    autoencoder: Path | None = None
    """File of scripts.pags.autoencoder; by default the package's own file, for Fashion-MNIST."""
    denoiser: Path | None = None
    """File of scripts.pags.score; by default the package's own file, for Fashion-MNIST."""
    rank: cli.Count = 16
    """Dimension of tangent spaces from local_pca and denoiser; an autoencoder's have the dimension of its code."""
    neighbours: cli.Count = 64
    """Number of training images around each test image, for local_pca and for --pixels varying."""
    pixels: Literal["all", "varying"] = "all"
    """Whether to measure on all pixels or only on those that vary by more than 0.1 among an image's neighbours. Half of
    Fashion-MNIST is black background, where a model's response to noise says nothing about the data."""
    tangent_sigma_pm1: cli.Positive = 0.2
    """Noise level of the denoiser's Jacobian, for images in [-1, 1]."""


def basis_of(config: ManifoldConfig, sample: measuring.Sample) -> jax.Array:
    """A basis of the tangent space at each image, computed once for all models."""
    if config.manifold != "autoencoder":
        _check_rank(config, sample)
    if config.manifold == "local_pca":
        return jitted(pags_jax.manifold.local_pca, "rank")(_neighbours(config, sample), rank=config.rank)
    if config.manifold == "denoiser":
        unconditional, _ = denoisers(config, sample)
        keys = jax.random.split(jax.random.key(config.seed), len(sample.x))
        options = {"sigma_pm1": config.tangent_sigma_pm1, "rank": config.rank}
        return denoiser_bases(unconditional, sample.x, keys, **options)
    model, variables = _autoencoder(config, sample)
    encode, decode = pags_jax.models.encoder(model, variables), pags_jax.models.decoder(model, variables)
    return decoder_bases(decode, compiling.applied(encode, sample.x))


def mask_of(config: ManifoldConfig, sample: measuring.Sample) -> jax.Array | None:
    """The pixels of each image that are measured on; None for all."""
    if config.pixels == "all":
        return None
    _check_neighbours(config, sample)
    return pags_jax.manifold.varying(_neighbours(config, sample), least=0.1)


def restricted(mask: jax.Array | None, basis: jax.Array) -> jax.Array:
    """The basis inside the mask, if there is one."""
    return basis if mask is None else jitted(pags_jax.manifold.restrict)(basis, mask)


def ranks_of(basis: jax.Array, mask: jax.Array | None) -> Row:
    """Dimensions of tangent spaces, and of the space of the pixels that are measured on, in the mean."""
    size = basis[0, 0].size if mask is None else mask.sum() / len(mask)
    return {"rank": float(pags_jax.manifold.rank(basis).mean()), "size": float(size)}


def _neighbours(config: ManifoldConfig, sample: measuring.Sample) -> jax.Array:
    """The training images around each image."""
    nearest = jitted(pags_jax.manifold.nearest, "count", "itself", "chunk_size")
    data = pags_jax.images.to_float(sample.data.train_x)
    return pags_jax.tangents.of_neighbours(sample.x, data, config.neighbours, nearest=nearest)


def decoder_bases(decode: Any, codes: jax.Array) -> jax.Array:
    """See `pags_jax.tangents.of_decoder`."""
    return pags_jax.tangents.of_decoder(decode, codes, basis=jitted(pags_jax.manifold.tangent_basis))


def denoiser_bases(denoise: Any, x: jax.Array, keys: Any, **options: Any) -> jax.Array:
    """See `pags_jax.tangents.of_denoiser`."""
    basis = jitted(pags_jax.manifold.denoiser_basis, "rank", "iterations", "unroll")
    return pags_jax.tangents.of_denoiser(denoise, x, keys, basis=basis, **options)


def compare(gradient: jax.Array, score: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and 1 - LPIPS of each image's gradient and score."""
    cosine_of = jitted(pags_jax.alignment.cosine, images=False)
    similarity_of = jitted(pags_jax.alignment.perceptual_similarity, images=False)
    weights = pags_jax.datasets.lpips_weights.load_lpips_weights()
    return cosine_of(gradient, score), similarity_of(gradient, score, weights=weights)


def files_of(config: ManifoldConfig, table: list[measuring.Row], *, scores: bool = False) -> dict[str, Path]:
    """The files that a configuration uses, by the flag's name, each checked to be of the trained models' images.

    Raises:
      ValueError: If a file is missing or damaged, or says that it was trained on images of another data set.
    """
    named = {"autoencoder": config.autoencoder, "denoiser": config.denoiser}
    used = {name for name in named if config.manifold == name} | ({"denoiser"} if scores else set())
    pretrained = pags_jax.datasets.pretrained
    shipped = {"autoencoder": pretrained.AUTOENCODER, "denoiser": pretrained.DENOISER}
    files = {name: named[name] or shipped[name] for name in sorted(used)}
    for name, path in files.items():
        _check_same_images(name, path, config.trained, table[0]["config.dataset"])
    return files


def _check_same_images(name: str, path: Path, trained: Path, dataset: str) -> None:
    """Raises ValueError if a file is for other images; prints a note if it does not say for which."""
    known = pags_jax.models.files.about(path).get("config", {}).get("dataset")
    if known is None:
        print(f"note: --{name}: {path} does not say what images it is for; it must be {dataset}", file=sys.stderr)
    elif _SAME_IMAGES.get(known, known) != _SAME_IMAGES.get(dataset, dataset):
        script = f"python -m scripts.pags.{SCRIPTS[name]}"
        can = dataset in get_args(names.Unlabelled)
        fix = f"train one with {script} --dataset {dataset}" if can else f"{script} trains none for {dataset}"
        fix += ", or take --manifold local_pca" if name == "autoencoder" else ""
        raise ValueError(f"--{name}: {path} is for images of {known}, the models in {trained} are of {dataset}; {fix}")


def denoisers(config: ManifoldConfig, sample: measuring.Sample) -> tuple[Any, Any]:
    """The denoiser of all images, and that of each image's class."""
    scores, path = pags_jax.scores, config.denoiser or pags_jax.datasets.pretrained.DENOISER
    model, variables, _ = pags_jax.models.load(path, kind="denoiser")
    if model.channels != sample.x.shape[-1]:
        raise ValueError(
            f"--denoiser: it is for images of {model.channels} channels, those here have {sample.x.shape[-1]}; train "
            "one with python -m scripts.pags.score"
        )
    return scores.denoiser(model, variables), scores.denoiser(model, variables, sample.y)


def _check_rank(config: ManifoldConfig, sample: measuring.Sample) -> None:
    """Refuse a rank that images or neighbours cannot give."""
    size = sample.x[0].size
    most, why = size, f"images of {size} values"
    if config.manifold == "local_pca":
        _check_neighbours(config, sample)
        most = min(size, config.neighbours - 1)
        why = f"{config.neighbours} neighbours (--neighbours) with {size} values each"
    if config.rank > most:
        raise ValueError(f"--rank: {why} give at most {most} directions, got {config.rank}")


def _check_neighbours(config: ManifoldConfig, sample: measuring.Sample) -> None:
    count = len(sample.data.train_x)
    if not 2 <= config.neighbours <= count:
        raise ValueError(f"--neighbours: expected 2 to {count}, the training images, got {config.neighbours}")


def _autoencoder(config: ManifoldConfig, sample: measuring.Sample) -> tuple[Any, Any]:
    path = config.autoencoder or pags_jax.datasets.pretrained.AUTOENCODER
    model, variables, _ = pags_jax.models.load(path, kind="autoencoder")
    if model.shape != sample.x.shape[1:]:
        raise ValueError(
            f"--autoencoder: it is for images of {model.shape}, those here are {sample.x.shape[1:]}; train one with "
            "python -m scripts.pags.autoencoder, or take --manifold local_pca"
        )
    return model, variables
