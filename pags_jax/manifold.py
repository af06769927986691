r"""The tangent space of the data manifold at an image: from a decoder, from neighbours, or from a denoiser.

A *basis* is an array ``(n, k, ...image)``: for each image orthonormal vectors ``b_1, b_2, ...``, leading ones first,
then zeros once the rank is reached. It projects by ``P v = sum_j <b_j, v> b_j``, to which zeros add nothing: they are
the mask that keeps shapes static.

    tangent_basis     columns of a decoder's Jacobian d decode / d z
    local_pca         differences of neighbouring images from their mean
    denoiser_basis    leading eigenvectors of a denoiser's Jacobian d D / d u

Each estimator ends in one rank-revealing factorisation, whose matrix ``A`` has the estimator's vectors as columns:
``A = Q R`` (Householder) and ``R = U S V'`` give the left singular vectors ``Q U`` for the price of a small singular
value decomposition. Vectors whose singular value is at most ``rtol`` times the largest become zero.

Everything here is pure and meant to be called under ``jit``. It processes all images at once, or ``chunk_size`` at
a time in a loop, to bound memory. On CPUs, where convolutions inside loops are slow, call it on a few images instead.

Differs from the reference: P14 one factorisation for each image, in which a Jacobian without full rank gives fewer
vectors; there ``scipy.linalg.orth`` anew for every model, and an IndexError. P15 the Jacobian by one forward-mode
product for each latent; there one backward pass for each of the many more pixels, through the decoder's weights too.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from pags_jax import linalg
from pags_jax.bases import principal_angles as principal_angles
from pags_jax.bases import project as project
from pags_jax.bases import rank as rank
from pags_jax.bases import restrict as restrict
from pags_jax.bases import span
from pags_jax.chunks import check_counts, map_chunks
from pags_jax.images import as_images, as_wide, check_positive, check_unit_range, is_traced, wide
from pags_jax.preconditioning import denoised

_HIGHEST = jax.lax.Precision.HIGHEST


@jax.default_matmul_precision("highest")
def tangent_basis(
    decode: Callable[[Any], Any],
    z: Float[Array, "n d"],
    *,
    rtol: Any = None,
    chunk_size: int | None = None,
) -> Float[Array, "n k ..."]:
    """An orthonormal basis of the column space of the decoder's Jacobian at each code.

    Args:
      decode: Maps codes ``(n, d)`` to images ``(n, ...)``; called with one code, whose ``d`` tangents are one batch.
      z: Codes; bfloat16 and float16 ones are decoded in float32, in which ranks can be seen.
      rtol: Singular values of at most this share of the largest count as zero. By default the machine epsilon times
        the larger of ``d`` and the number of features, as for ``numpy.linalg.matrix_rank`` and the reference's
        ``scipy.linalg.orth``: 3.7e-4 in float32 for CIFAR. Latents weaker than that need a smaller one.
      chunk_size: Codes that are worked on at once; all by default.

    Returns:
      The basis, ``k = min(d, features)``, by falling singular value: ``basis[:, :m]`` are the ``m`` directions in which
      images change most. NaN where the Jacobian is not finite.

    Raises:
      ValueError: Codes, a decoder's output, ``rtol`` or ``chunk_size`` that cannot be used.

    >>> decode = lambda z: jnp.stack([z[:, 0], 2 * z[:, 1], z[:, 0] ** 2], axis=1)
    >>> basis = tangent_basis(decode, jnp.zeros((1, 2)))
    >>> jnp.abs(basis[0]).tolist(), rank(basis).tolist()
    ([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], [2])
    """
    if not jnp.issubdtype(z.dtype, jnp.floating) or z.ndim != 2 or z.size == 0:
        raise ValueError(f"codes must be floats of the shape (n, d), got {z.dtype} of the shape {z.shape}")
    z = as_wide(z)
    decoded = jax.eval_shape(decode, z[:1])
    if len(decoded.shape) < 2 or decoded.shape[0] != 1:
        raise ValueError(f"`decode` must map codes (n, d) to images (n, ...), but {z[:1].shape} to {decoded.shape}")
    if rtol is not None and not (is_traced(rtol) or 0 <= float(rtol) < 1):
        raise ValueError(f"`rtol` must be at least 0 and below 1, got {rtol}")
    if rtol is None and decoded.dtype.itemsize < 4:
        raise ValueError(
            f"`decode` makes {decoded.dtype}, whose rounding hides the rank of its Jacobian: let it compute in "
            "float32, or give `rtol`, the share of the largest singular value that counts as zero"
        )

    def one(z):
        def push(tangent):
            return jax.jvp(lambda z: decode(z[None])[0], (z,), (tangent,))[1]

        return span(jax.vmap(push)(jnp.eye(z.size, dtype=z.dtype)).astype(wide(decoded.dtype)), rtol)

    return map_chunks(one, (z,), chunk_size)


def local_pca(neighbours: Float[Array, "n m ..."], *, rank: int) -> Float[Array, "n k ..."]:
    """Leading principal directions of each image's neighbours: its tangent space, if the manifold is flat among them.

    A direction in which neighbours differ by no more than the rounding of their own pixels does not count. Singular
    values are zero up to the machine epsilon times the length of all ``m`` images together, and up to the machine
    epsilon times the larger of ``m`` and the number of features times the largest. So equal images have rank 0 at any
    scale.

    Args:
      neighbours: ``m`` images near each of ``n``, as ``data[nearest(x, data, ...)]``.
      rank: Number of directions, at most ``m - 1``.

    Returns:
      The basis, by falling variance.

    Raises:
      ValueError: ``neighbours`` that cannot be used, or a ``rank`` that they cannot give.

    >>> line = jnp.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
    >>> print(jnp.abs(local_pca(line[None], rank=1)))
    [[[0.6 0.8]]]
    """
    neighbours = as_images(neighbours)
    if neighbours.ndim < 3:
        raise ValueError(f"neighbours must have the shape (n, m, ...), got {neighbours.shape}")
    check_counts(min(neighbours.shape[1] - 1, neighbours[0, 0].size), rank=rank)
    rounding = float(jnp.finfo(neighbours.dtype).eps)
    neighbours = as_wide(neighbours)

    def one(images):
        # Scaled first: squares of tiny or huge images leave the range of floats.
        largest = jnp.max(jnp.abs(images))
        images = images / jnp.where(largest >= jnp.finfo(images.dtype).tiny, largest, 1)
        # Differences from one of them are exact to their own size; from the mean they carry the rounding of the mean.
        moved = images - images[:1]
        floor = rounding * jnp.sqrt(jnp.sum(images**2))
        return span(moved - moved.mean(0, keepdims=True), None, floor)[:rank]

    return jax.vmap(one)(neighbours)


def nearest(
    x: Float[Array, "n ..."],
    data: Float[Array, "m ..."],
    *,
    count: int,
    itself: Int[Array, " n"] | None,
    chunk_size: int | None = None,
) -> Int[Array, "n count"]:
    """Indices of the nearest images in Euclidean distance, the nearest first; ties, up to rounding, in any order.

    Args:
      x: Images.
      data: Images to choose from.
      count: How many for each of ``x``.
      itself: Where in ``data`` each of ``x`` is, which is then no neighbour of its own (a copy elsewhere is one); None
        where ``x`` is not from ``data``.
      chunk_size: Images of ``x`` whose distances to all of ``data`` are held at once; all by default.

    Returns:
      Indices into ``data``.

    Raises:
      ValueError: Images of different shapes, or fewer images than neighbours.

    >>> data = jnp.array([[0.0, 0.0], [5.0, 0.0], [1.0, 1.0]])
    >>> nearest(data[:1], data, count=2, itself=jnp.array([0])).tolist()
    [[2, 1]]
    """
    x, data = as_images(x), as_images(data)
    if x.shape[1:] != data.shape[1:]:
        raise ValueError(f"`x` and `data` must hold images of one shape, got {x.shape[1:]} and {data.shape[1:]}")
    dtype = wide(np.promote_types(x.dtype, data.dtype))
    x, data = x.astype(dtype), data.astype(dtype)
    check_counts(len(data) - (itself is not None), count=count)
    if itself is not None:
        _check_rows(itself, len(x), len(data))
    flat = data.reshape(len(data), -1)
    centre = flat.mean(0, keepdims=True)
    flat = flat - centre
    squares = jnp.sum(flat**2, 1)
    numbers = jnp.arange(len(data), dtype=jnp.int32)
    own = jnp.full(len(x), -1, jnp.int32) if itself is None else jnp.asarray(itself, jnp.int32)

    def one(image, own):
        # Without the image's own square, which all its distances have in common.
        distances = squares - 2 * jnp.matmul(flat, image, precision=_HIGHEST)
        return jax.lax.top_k(-jnp.where(numbers == own, jnp.inf, distances), count)[1]

    return map_chunks(one, (x.reshape(len(x), -1) - centre, own), chunk_size)


@jax.default_matmul_precision("highest")
def denoiser_basis(
    denoise: Callable[[Any, Any], Any],
    x: Float[Array, "n ..."],
    *,
    sigma_pm1: Any,
    rank: int,
    key: Array,
    iterations: int,
    chunk_size: int | None = None,
    unroll: bool = False,
) -> Float[Array, "n k ..."]:
    r"""Leading eigenvectors of the denoiser's Jacobian at each image, by subspace iteration.

    Of the exact denoiser ``D(u; sigma) = E[u_0 | u]``, where ``u = u_0 + sigma noise``, the Jacobian is the posterior's
    covariance ``Cov[u_0 | u] / sigma^2`` (Tweedie's formula of second order): symmetric, with eigenvalues near 1 along
    a manifold that is flat on the scale of ``sigma``, and near 0 across it. A trained one is made symmetric,
    ``(J + J') / 2``. The error falls as ``|lambda_{rank+1} / lambda_rank|^iterations``; the leading vectors of a larger
    ``rank`` converge faster.

    Args:
      denoise: ``denoise(images in [-1, 1], sigma_pm1)``, each image by itself.
      x: Images in [0, 1]; the Jacobian is taken at ``2 x - 1``, without noise.
      sigma_pm1: Noise level for images in [-1, 1], traced.
      rank: Number of vectors.
      key: PRNG key of the start.
      iterations: Products with the Jacobian, each ``rank`` forward and as many backward passes.
      chunk_size: Images that are worked on at once; all by default.
      unroll: Write the iterations out instead of looping: faster on CPUs, and slower to compile.

    Returns:
      The basis, by falling absolute eigenvalue.

    Raises:
      ValueError: Images, a noise level that is not one finite number above 0, or a count that cannot be used.

    >>> denoise = lambda u, sigma: u * jnp.array([[0.9, 0.1, 0.0]])
    >>> options = {"sigma_pm1": 0.5, "rank": 1, "key": jax.random.key(0), "iterations": 20}
    >>> jnp.abs(denoiser_basis(denoise, jnp.zeros((1, 3)), **options)).round(6).tolist()
    [[[1.0, 0.0, 0.0]]]
    """
    x = as_images(x)
    check_counts(x[0].size, rank=rank)
    check_counts(iterations=iterations)
    check_positive("sigma_pm1", sigma_pm1)
    check_unit_range(x, sigma_pm1)
    x = as_wide(x)
    sigma = jnp.asarray(sigma_pm1, x.dtype)

    def one(image, key):
        def clean(u):
            return denoised(denoise, u[None], sigma)[0]

        _, push = jax.linearize(clean, 2 * image - 1)
        _, pull = jax.vjp(clean, 2 * image - 1)

        def multiply(vectors):
            return (jax.vmap(push)(vectors) + jax.vmap(pull)(vectors)[0]) / 2

        def step(_, vectors):
            return linalg.orthonormal_columns(multiply(vectors).reshape(rank, -1).T).T.reshape(vectors.shape)

        start = jax.random.normal(key, (rank, *image.shape), image.dtype)
        return span(multiply(jax.lax.fori_loop(0, iterations - 1, step, start, unroll=unroll)), None)

    return map_chunks(one, (x, jax.random.split(key, len(x))), chunk_size)


def varying(neighbours: Float[Array, "n m ..."], *, least: Any) -> Bool[Array, "n ..."]:
    """A mask of the pixels in which neighbours of an image differ by more than ``least``; the others are constant
    there.

    Half of the pixels of Fashion-MNIST are black background. No nearby image has anything else there, so a model's
    response to noise on them says nothing about the data.

    Args:
      neighbours: ``m`` images near each of ``n``, as ``data[nearest(x, data, ...)]``.
      least: Difference of the largest and the smallest value, traced.

    Returns:
      A mask, shaped as the images.

    Raises:
      ValueError: ``neighbours`` that cannot be used.

    >>> varying(jnp.array([[[0.0, 0.2], [0.0, 0.9]]]), least=0.1).tolist()
    [[False, True]]
    """
    neighbours = as_images(neighbours)
    if neighbours.ndim < 3:
        raise ValueError(f"neighbours must have the shape (n, m, ...), got {neighbours.shape}")
    return neighbours.max(1) - neighbours.min(1) > jnp.asarray(least, neighbours.dtype)


def _check_rows(itself: Any, rows: int, of: int) -> None:
    """Raises ValueError unless ``itself`` holds one row of the data, of which there are ``of``, for each image."""
    if jnp.shape(itself) != (rows,) or not jnp.issubdtype(jnp.result_type(itself), jnp.integer):
        raise ValueError(f"`itself` must be one row number for each of {rows} images, got {itself}")
    if not is_traced(itself) and not np.all((np.asarray(itself) >= 0) & (np.asarray(itself) < of)):
        raise ValueError(f"`itself` must be rows from 0 to {of - 1} of `data`, got {itself}")
