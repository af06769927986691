"""Factorisations of d x d matrices that can be mapped over: on a CPU one matrix after another.

XLA for CPUs (jaxlib 0.10) can hang for ever if one program has two independent factorisations of many matrices: each
waits, on a thread of a small pool, for the others' threads. A factorisation of one matrix waits for nobody, so ``vmap``
of these functions is a loop on CPUs; on other devices it is batched. Their derivatives, forward and reverse, factorise
nothing but the same matrices in the same way (Giles 2008, "Collected matrix derivative results").
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """Maps a function over matrices one at a time on a CPU, and at once elsewhere; it cannot be differentiated.

    Args:
      function: Function of arrays, without options.

    >>> factors = jax.vmap(one_by_one(jnp.linalg.cholesky))(jnp.stack([4 * jnp.eye(2), 9 * jnp.eye(2)]))
    >>> factors[:, 0, 0].tolist()
    [2.0, 3.0]
    """
    sequential = jax.custom_batching.sequential_vmap(function)

    @wraps(function)
    def apart(*args):
        return jax.lax.platform_dependent(*args, cpu=sequential, default=function)

    return apart


def solve_positive(matrix: Float[Array, "d d"], b: Float[Array, "d *k"]) -> Float[Array, "d *k"]:
    """Solves ``matrix x = b`` by Cholesky after scaling the diagonal to one; NaN when it is not positive definite."""
    return jax.lax.custom_linear_solve(
        lambda x: jnp.matmul(matrix, x, precision=_HIGHEST), b, lambda _, b: _solve(matrix, b), symmetric=True
    )


@one_by_one
def _solve(matrix, b):
    scale = jax.lax.rsqrt(jnp.diagonal(matrix))
    factor = jax.scipy.linalg.cho_factor(matrix * scale[:, None] * scale[None, :], lower=True)
    scale = scale.reshape(-1, *[1] * (b.ndim - 1))
    return scale * jax.scipy.linalg.cho_solve(factor, scale * b)


@jax.custom_jvp
def whitening(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """The inverse of the lower Cholesky factor, so that ``|whitening @ v|^2 = v' matrix^-1 v``; NaN as above."""
    return _whitening(matrix)


@one_by_one
def _whitening(matrix):
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    return jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(matrix), identity, lower=True)


@whitening.defjvp
def _(primals, tangents):
    inverse = whitening(*primals)
    (moved,) = tangents
    inner = _times(inverse, (moved + moved.T) / 2, inverse.T)
    lower = jnp.tril(inner) - jnp.diag(jnp.diagonal(inner)) / 2
    return inverse, -_times(lower, inverse)


@jax.custom_jvp
def eigh(matrix: Float[Array, "d d"]) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    """Eigenvalues of a symmetric matrix, rising, and eigenvectors as columns.

    Vectors of exactly equal eigenvalues have no derivative; theirs leaves out turns among themselves.
    """
    return _eigh(matrix)


@one_by_one
def _eigh(matrix):
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


@eigh.defjvp
def _(primals, tangents):
    values, vectors = eigh(*primals)
    (moved,) = tangents
    inner = _times(vectors.T, (moved + moved.T) / 2, vectors)
    apart = values[None, :] - values[:, None]
    turned = jnp.where(apart != 0, inner / jnp.where(apart != 0, apart, 1), 0)
    return (values, vectors), (jnp.diagonal(inner), _times(vectors, turned))


@jax.custom_jvp
def eigenvalues(matrix: Float[Array, "d d"]) -> Float[Array, " d"]:
    """Eigenvalues of a symmetric matrix, rising; without the vectors, unless they are differentiated."""
    return _eigenvalues(matrix)


@one_by_one
def _eigenvalues(matrix):
    return jnp.linalg.eigvalsh(matrix)


@eigenvalues.defjvp
def _(primals, tangents):
    return jax.jvp(lambda matrix: eigh(matrix)[0], primals, tangents)


@jax.custom_jvp
def root(square: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The square root. Its derivative at zero is zero, not infinite: what a norm has at its least."""
    return jnp.sqrt(square)


@root.defjvp
def _(primals, tangents):
    value = root(*primals)
    safe = jnp.where(value > 0, value, 1)
    return value, jnp.where(value > 0, 1 / (2 * safe), 0) * tangents[0]


def norm(vector: Float[Array, "..."], axis: int | None = None, *, keepdims: bool = False) -> Float[Array, "..."]:
    """The Euclidean norm, of all entries or along an axis; differentiable at zero (see ``root``)."""
    return root(jnp.sum(vector**2, axis=axis, keepdims=keepdims))


@jax.custom_jvp
def pseudo_inverse(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """Of a symmetric positive semi-definite matrix; its derivative is that at constant rank (Golub & Pereyra 1973)."""
    values, vectors = eigh(matrix)
    inside = values > matrix.shape[0] * jnp.finfo(matrix.dtype).eps * jnp.maximum(values[-1], 0)
    return _times(vectors * jnp.where(inside, 1 / jnp.where(inside, values, 1), 0)[None], vectors.T)


@pseudo_inverse.defjvp
def _(primals, tangents):
    (matrix,), (moved,) = primals, tangents
    inverse = pseudo_inverse(matrix)
    outside = jnp.eye(matrix.shape[0], dtype=matrix.dtype) - _times(inverse, matrix)
    across = _times(inverse, inverse, moved, outside)
    return inverse, across + across.T - _times(inverse, moved, inverse)


@jax.custom_jvp
def spectral_norm(matrix: Float[Array, "d k"]) -> Float[Array, ""]:
    """The largest singular value."""
    return _spectral_norm(matrix)


@one_by_one
def _spectral_norm(matrix):
    return jnp.linalg.norm(matrix, ord=2)


@spectral_norm.defjvp
def _(primals, tangents):
    (matrix,), (moved,) = primals, tangents
    largest = spectral_norm(matrix)
    right = eigh(_times(matrix.T, matrix))[1][:, -1]
    return largest, _times(_times(matrix, right) / largest, moved, right)


def _times(*factors: Array) -> Array:
    """Their product, as exact as the dtype allows."""
    product = factors[0]
    for factor in factors[1:]:
        product = jnp.matmul(product, factor, precision=_HIGHEST)
    return product


_HIGHEST = jax.lax.Precision.HIGHEST
