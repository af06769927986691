"""Tangent spaces of many images, one image after the other, because convolutions inside loops are slow on CPUs.

`manifold` has the estimators. These functions apply them to one image after the other, with the same result as for that
image alone; you may pass each estimator under a ``jit`` of your own.
"""

import contextlib
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from pags_jax import manifold
from pags_jax.scores import Denoiser


class Tangents(NamedTuple):
    """Tangent spaces at images, within the pixels that are measured on; made by ``within``.

    Attributes:
      basis: Orthonormal bases, zero elsewhere.
      mask: The pixels of each image that are measured on; None for all.
      rank: Dimension of the tangent spaces, a mean over images.
      size: Dimension of the space of these pixels, likewise.
    """

    basis: Float[Array, "n k ..."]
    mask: Bool[Array, "n ..."] | None
    rank: float
    size: float

    def only(self, maps: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Maps that are zero at pixels that are not measured on."""
        return maps if self.mask is None else jnp.where(self.mask, maps, 0)


def within(
    basis: Float[Array, "n k ..."], mask: Bool[Array, "n ..."] | None = None, *,
    restrict: Callable[..., Array] = manifold.restrict,
) -> Tangents:  # fmt: skip
    """Tangent spaces within some pixels of each image, such as those of ``manifold.varying``.

    Args:
      basis: Orthonormal basis of each image's tangent space.
      mask: The pixels of each image; by default all.
      restrict: ``manifold.restrict``, best under a ``jit`` of your own.

    >>> found = within(jnp.eye(3)[None, :2], jnp.array([[True, False, True]]))
    >>> found.rank, found.size, found.only(jnp.ones((1, 3))).tolist()
    (1.0, 2.0, [[1.0, 0.0, 1.0]])
    """
    if mask is not None:
        basis = restrict(basis, mask)
    size = basis[0, 0].size if mask is None else mask.sum() / len(mask)
    return Tangents(basis, mask, float(manifold.rank(basis).mean()), float(size))


def of_decoder(
    decode: Callable[[Any], Any], codes: Float[Array, "n d"], *, basis: Callable[..., Array] = manifold.tangent_basis
) -> Float[Array, "n k ..."]:
    """``manifold.tangent_basis`` at each code.

    JAX calls SciPy's LAPACK on CPUs. After a factorisation LAPACK's threads spin until the next one, and take the cores
    from XLA's threads, so LAPACK gets one thread where the package threadpoolctl is installed.

    Args:
      decode: Maps codes to images.
      codes: Codes of the images.
      basis: ``manifold.tangent_basis``, best under a ``jit`` of your own.

    Returns:
      A basis for each code.
    """
    with _one_blas_thread():
        bases = [basis(decode, codes[k : k + 1]) for k in range(len(codes))]
        return jax.block_until_ready(jnp.concatenate(bases))


def of_denoiser(
    denoise: Denoiser, x: Float[Array, "n ..."], keys: Sequence[Array] | Array, *, sigma_pm1: float, rank: int,
    iterations: int = 8, basis: Callable[..., Array] = manifold.denoiser_basis,
) -> Float[Array, "n k ..."]:  # fmt: skip
    """``manifold.denoiser_basis`` at each image.

    Args:
      denoise: A denoiser of images in [-1, 1].
      x: Images in [0, 1].
      keys: One for each image.
      sigma_pm1: Noise level for images in [-1, 1].
      rank: Dimensions of the tangent spaces.
      iterations: Number of iterations of the subspace iteration.
      basis: ``manifold.denoiser_basis``, best under a ``jit`` of your own with ``rank``, ``iterations`` and ``unroll``
        static.

    Returns:
      A basis for each image.
    """
    options = {"sigma_pm1": jnp.float32(sigma_pm1), "rank": rank, "iterations": iterations, "unroll": True}
    return jnp.concatenate([basis(denoise, x[k : k + 1], key=key, **options) for k, key in enumerate(keys)])


def of_neighbours(
    x: Float[Array, "n ..."], data: Float[Array, "m ..."], count: int, *,
    nearest: Callable[..., Array] = manifold.nearest,
) -> Float[Array, "n count ..."]:  # fmt: skip
    """The nearest images of a data set around each image, for ``manifold.local_pca`` and ``manifold.varying``.

    Args:
      x: Images.
      data: Others, which hold none of ``x``.
      count: Number of nearest images.
      nearest: ``manifold.nearest``, best under a ``jit`` of your own with ``count``, ``itself`` and ``chunk_size``
        static.
    """
    return data[nearest(x, data, count=count, itself=None, chunk_size=1)]


def _one_blas_thread() -> contextlib.AbstractContextManager[Any]:
    if importlib.util.find_spec("threadpoolctl") is None:
        return contextlib.nullcontext()
    importlib.import_module("scipy.linalg")  # Loads the library, which is else not there to be limited.
    return importlib.import_module("threadpoolctl").threadpool_limits(1, user_api="blas")
