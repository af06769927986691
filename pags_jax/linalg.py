"""Factorisations that are mapped over images: on a CPU one matrix after another.

If XLA for CPUs (jaxlib 0.10) maps a factorisation, each matrix gets a thread of XLA and, on it, threads of the library.
That is several times slower for tangent spaces of 3,072 pixels and 128 codes, and two programs or operations that do so
side by side can wait for each other for ever. One at a time, a factorisation has all cores. On other devices
factorisations are batched.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """Maps a function of arrays one by one on a CPU, and at once elsewhere; mapped derivatives are always at once.

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
    return apart


@one_by_one
def orthonormal_columns(columns: Float[Array, "d k"]) -> Float[Array, "d k"]:
    """The first factor of ``columns = Q R``."""
    return jnp.linalg.qr(columns)[0]


@one_by_one
def left_singular_vectors(columns: Float[Array, "d k"]) -> tuple[Float[Array, "d r"], Float[Array, " r"]]:
    """Left singular vectors and values, falling, ``r = min(d, k)``: those of ``R`` times ``Q`` of ``columns = Q R``."""
    q, r = jnp.linalg.qr(columns)
    u, values, _ = jnp.linalg.svd(r, full_matrices=False)
    return jnp.matmul(q, u, precision=jax.lax.Precision.HIGHEST), values


@one_by_one
def singular_values(matrix: Float[Array, "d k"]) -> Float[Array, " r"]:
    """Singular values, falling."""
    return jnp.linalg.svd(matrix, compute_uv=False)
