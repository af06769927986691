"""A denoiser and an autoencoder of Fashion-MNIST, which come with the package."""

from pathlib import Path
from typing import Any

from pags_jax import models

DENOISER, AUTOENCODER = (
    Path(__file__).resolve().parent / "files" / f"fashion_mnist_{name}.safetensors"
    for name in ("denoiser", "autoencoder")
)

Model = tuple[Any, dict[str, Any]]


def fashion_mnist_denoiser() -> Model:
    """A denoiser of Fashion-MNIST, with and without classes, for ``scores.denoiser``.

    Returns:
      The ``models.UNet`` and its variables.

    >>> model, variables = fashion_mnist_denoiser()
    >>> model.classes
    10
    """
    return models.load(DENOISER, kind="denoiser")[:2]


def fashion_mnist_autoencoder() -> Model:
    """An autoencoder of Fashion-MNIST, for ``models.encoder`` and ``models.decoder``.

    Returns:
      The ``models.Autoencoder`` and its variables.

    >>> model, variables = fashion_mnist_autoencoder()
    >>> model.shape
    (28, 28, 1)
    """
    return models.load(AUTOENCODER, kind="autoencoder")[:2]
