"""What is done with a basis ``(n, k, ...image)`` of each image's tangent space, see `pags_jax.manifold`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from pags_jax.images import wide
from pags_jax.linalg import left_singular_vectors, singular_values

_HIGHEST = jax.lax.Precision.HIGHEST


def project(basis: Float[Array, "n k ..."], v: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    """The part of each ``v`` in its image's span: ``P v = sum_j <b_j, v> b_j``. For several of each, use ``vmap``.

    Raises:
      ValueError: A basis for other shapes.

    >>> print(project(jnp.array([[[0.6, 0.8]]]), jnp.array([[5.0, 0.0]])))
    [[1.8 2.4]]
    """
    if basis.ndim != v.ndim + 1 or basis.shape[:1] != v.shape[:1] or basis.shape[2:] != v.shape[1:]:
        raise ValueError(f"vectors of the shape {v.shape} need a basis (n, k, ...image), got {basis.shape}")
    v = jnp.asarray(v)
    flat = _flat(basis).astype(v.dtype)
    along = jnp.einsum("nkf,nf->nk", flat, v.reshape(len(v), -1), precision=_HIGHEST)
    return jnp.einsum("nk,nkf->nf", along, flat, precision=_HIGHEST).reshape(v.shape)


def rank(basis: Float[Array, "n k ..."]) -> Int[Array, " n"]:
    """How many vectors of each image's basis are not zero."""
    return jnp.any(_flat(basis) != 0, -1).sum(-1, dtype=jnp.int32)


def parts(basis: Any, v: Array) -> tuple[Array, Array]:
    """``P v`` and ``v - P v``; exactly zero where the basis has rank 0, or spans everything."""
    basis = jnp.asarray(basis)
    on = project(basis, v)
    everything = rank(basis) == v[0].size
    return on, jnp.where(everything.reshape(-1, *(1,) * (v.ndim - 1)), 0, v - on)


def principal_angles(a: Float[Array, "n k ..."], b: Float[Array, "n l ..."]) -> Float[Array, "n angles"]:
    """The angles between the spans of two bases, the smallest first, without loss of digits (Björck and Golub 1973).

    Args:
      a: A basis.
      b: Another.

    Returns:
      ``min(k, l)`` angles in radians; NaN beyond the smaller of the two ranks.

    Raises:
      ValueError: Bases for other shapes of image.

    >>> principal_angles(jnp.array([[[1.0, 0.0]]]), jnp.array([[[0.6, 0.8]]])).round(4).tolist()
    [[0.9273]]
    """
    if a.shape[:1] != b.shape[:1] or a.shape[2:] != b.shape[2:]:
        raise ValueError(f"expected two bases for the same images, got the shapes {a.shape} and {b.shape}")
    dtype = wide(np.promote_types(a.dtype, b.dtype))
    count, size = min(a.shape[1], b.shape[1]), max(a.shape[1], b.shape[1])

    def one(a, b, rank_a, rank_b):
        a, b = (jnp.pad(v.reshape(len(v), -1).astype(dtype), ((0, size - len(v)), (0, 0))) for v in (a, b))
        small, large = jnp.where(rank_a < rank_b, a, b), jnp.where(rank_a < rank_b, b, a)
        product = jnp.matmul(small, large.T, precision=_HIGHEST)
        cosines = singular_values(product)[:count]
        sines = singular_values(small - jnp.matmul(product, large, precision=_HIGHEST))
        number, angles = jnp.arange(count, dtype=jnp.int32), jnp.minimum(rank_a, rank_b)
        # They fall, with those of zero vectors last: the smallest of an angle is number `angles - 1`.
        sines = sines[jnp.maximum(angles - 1 - number, 0)]
        by_sine, by_cosine = jnp.arcsin(jnp.minimum(sines, 1)), jnp.arccos(jnp.minimum(cosines, 1))
        return jnp.where(number < angles, jnp.where(cosines**2 < 0.5, by_cosine, by_sine), jnp.nan)

    return jax.vmap(one)(a, b, rank(a), rank(b))


def restrict(basis: Float[Array, "n k ..."], mask: Bool[Array, "n ..."]) -> Float[Array, "n k ..."]:
    """A basis of what is left of each tangent space when everything outside a mask is set to zero.

    Noise that is zero outside the mask, too, has parts on and off the manifold inside it alone.

    Args:
      basis: Basis of each image's tangent space.
      mask: True where pixels count, of the shape of the images.

    Returns:
      The basis, shaped as ``basis``; of rank 0 where the mask is empty.

    Raises:
      ValueError: A mask for other shapes.

    >>> basis = jnp.array([[[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]])
    >>> print(jnp.abs(restrict(basis, jnp.array([[True, False, False]]))))
    [[[1. 0. 0.]
      [0. 0. 0.]]]
    """
    basis, mask = jnp.asarray(basis), jnp.asarray(mask)
    if mask.dtype != bool or mask.shape != (*basis.shape[:1], *basis.shape[2:]):
        raise ValueError(
            f"`mask` must be truth values for the images of a basis {basis.shape}, got {mask.dtype}{list(mask.shape)}"
        )
    return jax.vmap(lambda vectors, mask: span(jnp.where(mask[None], vectors, 0), None))(basis, mask)


def resize(basis: Float[Array, "n k h w c"], size: int) -> Float[Array, "n k size size c"]:
    """A basis of the tangent space of resized images: each vector is resized bilinearly, and they are orthonormalised.

    Resizing is linear, so that the tangents of resized images are the resized tangents. For classifiers of larger
    images than those that an autoencoder or a denoiser was trained on.

    Args:
      basis: Basis of each image's tangent space.
      size: Height and width of the resized images, at least those of the images: smaller ones lose directions.

    Returns:
      The basis; ``basis`` itself, to rounding, if the size is theirs.

    Raises:
      ValueError: A smaller size, or a basis of no images.

    >>> resize(jnp.full((1, 1, 2, 2, 1), 0.5), 4).shape
    (1, 1, 4, 4, 1)
    """
    if basis.ndim != 5 or size < max(basis.shape[2:4]):
        raise ValueError(f"`size` must be at least that of images (n, k, h, w, c), got {size} for {basis.shape}")

    def one(vectors):
        shape = (len(vectors), size, size, vectors.shape[-1])
        return span(jax.image.resize(vectors, shape, "bilinear"), None)

    return jax.vmap(one)(basis)


def span(vectors: Float[Array, "m ..."], rtol: Any, floor: Any = 0) -> Float[Array, "k ..."]:
    """Left singular vectors of the matrix whose columns are the ``(m, ...)`` vectors, those of value zero as zeros.

    Zero are singular values of at most ``rtol`` times the largest, or of at most ``floor``.
    """
    columns = vectors.reshape(len(vectors), -1).T
    if rtol is None:
        rtol = float(jnp.finfo(columns.dtype).eps) * max(columns.shape)
    directions, values = left_singular_vectors(columns)
    # Not "kept if above": what is not finite must make NaN, not a subspace of rank zero.
    vanish = values <= jnp.maximum(jnp.asarray(rtol, values.dtype) * values[0], jnp.asarray(floor, values.dtype))
    basis = jnp.where(vanish[None], 0, directions)
    return basis.T.reshape(-1, *vectors.shape[1:])


def _flat(basis: Array) -> Array:
    """A basis as ``(n, k, features)``."""
    if basis.ndim < 3 or basis.size == 0:
        raise ValueError(
            f"a basis is (n, k, ...image) with k at least 1 (a vector of zeros where there is no direction), "
            f"got the shape {basis.shape}"
        )
    return basis.reshape(*basis.shape[:2], -1)
