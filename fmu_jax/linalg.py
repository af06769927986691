"""Factorisations of d x d matrices that can be mapped over: on a CPU one matrix after another.

XLA for CPUs (jaxlib 0.10) can stop for ever where two independent factorisations of many matrices meet in one program:
each waits, on a thread of a small pool, for the others' threads. A factorisation of one matrix waits for nobody, so
``vmap`` of these functions is a loop there. Elsewhere they are batched.
"""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Function = TypeVar("Function", bound=Callable)


def one_by_one(function: Function) -> Function:
    """Maps a function over matrices one at a time on a CPU, and at once elsewhere; it can be differentiated.

    Args:
      function: of arrays, without options.

    >>> factors = jax.vmap(one_by_one(jnp.linalg.cholesky))(jnp.stack([4 * jnp.eye(2), 9 * jnp.eye(2)]))
    >>> factors[:, 0, 0].tolist()
    [2.0, 3.0]
    """
    sequential = jax.custom_batching.sequential_vmap(function)

    # A function that is mapped one by one has no reverse mode; its derivatives are those of the function itself.
    @jax.custom_jvp
    @wraps(function)
    def apart(*args):
        return jax.lax.platform_dependent(*args, cpu=sequential, default=function)

    apart.defjvp(lambda primals, tangents: jax.jvp(function, primals, tangents))
    return apart  # pyright: ignore[reportReturnType] - the same signature


@one_by_one
def solve_positive(matrix: Float[Array, "d d"], b: Float[Array, "d *k"]) -> Float[Array, "d *k"]:
    """Solves ``matrix x = b`` by Cholesky after scaling the diagonal to one; NaN when it is not positive definite."""
    scale = jax.lax.rsqrt(jnp.diagonal(matrix))
    factor = jax.scipy.linalg.cho_factor(matrix * scale[:, None] * scale[None, :], lower=True)
    scale = scale.reshape(-1, *[1] * (b.ndim - 1))
    return scale * jax.scipy.linalg.cho_solve(factor, scale * b)


@one_by_one
def whitening(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """The inverse of the lower Cholesky factor, so that ``|whitening @ v|^2 = v' matrix^-1 v``; NaN as above."""
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    return jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(matrix), identity, lower=True)


@one_by_one
def eigh(matrix: Float[Array, "d d"]) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    """Eigenvalues of a symmetric matrix, rising, and eigenvectors as columns."""
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


@one_by_one
def eigenvalues(matrix: Float[Array, "d d"]) -> Float[Array, " d"]:
    """Eigenvalues of a symmetric matrix, rising."""
    return jnp.linalg.eigvalsh(matrix)


@one_by_one
def spectral_norm(matrix: Float[Array, "d k"]) -> Float[Array, ""]:
    """The largest singular value."""
    return jnp.linalg.norm(matrix, ord=2)
