r"""The extreme eigenvalues of a symmetric operator by Lanczos, and the damping that they require.

Lanczos (1950) builds orthonormal vectors ``V = [v_1 .. v_m]`` of the Krylov space of a start, in which the operator is
tridiagonal: ``A V = V T + beta_m v_{m+1} e_m'``. An eigenpair ``(theta, s)`` of ``T`` gives ``|A V s - theta V s| =
|beta_m s_m|``, so that some eigenvalue of ``A`` lies that close to ``theta``. The extreme eigenvalues are found first,
and always from inside: ``smallest`` is never below the true one, ``largest`` never above it. Every new vector is
orthogonalised twice against all before it (Parlett 1998, section 13.8), or copies of found eigenvalues would appear.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from fmu_jax import linalg
from fmu_jax.objective import Scalar
from fmu_jax.tracing import NO_TANGENT, as_arrays, hoisted, is_traced, without_derivative


class Extremes(NamedTuple):
    """The extreme eigenvalues as far as Lanczos has found them.

    Attributes:
      smallest, largest: Extreme Ritz values; the true ones lie outside them, or are equal.
      smallest_error, largest_error: An eigenvalue lies at most that far from each.
      steps: Products taken; fewer than asked for where the Krylov space was exhausted, int32.
    """

    smallest: Float[Array, ""]
    largest: Float[Array, ""]
    smallest_error: Float[Array, ""]
    largest_error: Float[Array, ""]
    steps: Int[Array, ""]


def extreme_eigenvalues(product: Callable[[Any], Any], start: Any, *, steps: int = 64) -> Extremes:
    """Extreme eigenvalues of a symmetric operator that is given as a product.

    Exact, to rounding, once ``steps`` reaches the number of distinct eigenvalues that ``start`` has a part in. Memory
    is ``steps`` times that of ``start``. Pure: under ``jit`` it compiles one product.

    Args:
      product: ``v -> A v`` on pytrees like ``start``.
      start: Where the Krylov space begins, a pytree of arrays of one dtype; its length does not matter. A random one
        (``optax.tree.random_like(key, params)``) has a part in every eigenvector; zero becomes the vector of ones.
      steps: Largest number of products, at least 1.

    Returns:
      The ``Extremes``; NaN where the operator gives NaN. ``smallest`` and ``largest`` have the derivative
      ``v' dA v`` at their vectors, as good as these; the errors have none (zero).

    Raises:
      ValueError: ``steps`` is below 1, or ``start`` is empty.

    Source: Lanczos (1950); Parlett (1998), "The symmetric eigenvalue problem", chapter 13.

    >>> diagonal = jnp.arange(-1.0, 5.0)
    >>> found = extreme_eigenvalues(lambda v: diagonal * v, jnp.ones(6))
    >>> round(float(found.smallest), 4), round(float(found.largest), 4), int(found.steps)
    (-1.0, 4.0, 6)
    """
    flat, unravel = ravel_pytree(as_arrays(start))
    if steps < 1 or int(steps) != steps:
        raise ValueError(f"`steps` must be a whole number of at least 1, got {steps}")
    if flat.size == 0:
        raise ValueError("`start` holds no number; an operator needs at least one dimension")
    steps = min(int(steps), flat.size)
    if flat.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"`start` must hold arrays of float32 or float64, got {flat.dtype}; convert it first")
    flat = jnp.where(jnp.any(flat != 0), flat, jnp.ones_like(flat))
    return _extremes(*hoisted(lambda v: ravel_pytree(product(unravel(v)))[0], flat), flat, steps)


@partial(jax.custom_jvp, nondiff_argnums=(0, 3))
def _extremes(product, consts, start, steps) -> Extremes:
    return _ritz(*_lanczos(partial(product, consts), start, steps))[0]


@_extremes.defjvp
def _(product, steps, primals, tangents):
    """``d(eigenvalue) = v' dA v`` at its eigenvector, not through the steps."""
    consts, start = primals
    found = _ritz(*_lanczos(partial(product, consts), start, steps))
    extremes, vectors = without_derivative("`extreme_eigenvalues` has first derivatives only", found)

    def rayleigh(consts):
        return [jnp.vdot(vector, product(consts, vector)) for vector in vectors]

    smallest, largest = jax.jvp(rayleigh, (consts,), (tangents[0],))[1]
    zero = jnp.zeros_like(smallest)
    return extremes, Extremes(smallest, largest, zero, zero, NO_TANGENT)


def _lanczos(times, start, steps):
    """Diagonal and off-diagonals of ``T`` ``(steps,)``, the index of the last vector that is one, and the basis."""
    eps = jnp.finfo(start.dtype).eps

    def step(carry, index):
        basis, vector, scale, alive, last = carry
        basis = basis.at[index].set(vector)
        image = times(vector)
        alpha = jnp.vdot(vector, image)
        for _ in range(2):
            image = image - basis.T @ (basis @ image)
        beta = jnp.linalg.norm(image)
        scale = jnp.maximum(scale, jnp.abs(alpha) + beta)
        # What is left of an exhausted space is rounding: a direction, but not one of the operator's.
        going = alive & (beta > 8 * eps * jnp.sqrt(1.0 * start.size) * scale) & (index + 1 < start.size)
        following = jnp.where(going, image / jnp.where(going, beta, 1), 0)
        return (basis, following, scale, going, last + alive.astype(jnp.int32)), (alpha, beta, alive)

    norm = jnp.max(jnp.abs(start))
    start = start / norm
    zero = jnp.zeros((), start.dtype)
    first = (jnp.zeros((steps, start.size), start.dtype), start / jnp.linalg.norm(start), zero, jnp.ones((), bool))
    (basis, *_, used), (alpha, beta, alive) = jax.lax.scan(
        step, (*first, jnp.zeros((), jnp.int32)), jnp.arange(steps, dtype=jnp.int32)
    )
    # Rows past the end repeat the first Rayleigh quotient, which lies within all the others: no extreme moves.
    return jnp.where(alive, alpha, alpha[0]), jnp.where(alive, beta, 0), used - 1, basis


def _ritz(diagonal, beside, last, basis) -> tuple[Extremes, Array]:
    """The extremes and their vectors, ``(2, d)``."""
    steps = diagonal.shape[0]
    # The residual of the last vector is the error, not an entry: it ties nothing to what follows.
    off = jnp.where(jnp.arange(steps, dtype=jnp.int32) < last, beside, 0)[:-1]
    values, vectors = linalg.eigh(jnp.diag(diagonal) + jnp.diag(off, 1) + jnp.diag(off, -1))
    error = beside[last] * jnp.abs(vectors[last])
    extremes = Extremes(values[0], values[-1], error[0], error[-1], last + 1)
    return extremes, jnp.stack([vectors[:, 0], vectors[:, -1]]) @ basis


def damping_for(extremes: Extremes, *, condition: Scalar = 1e4) -> Float[Array, ""]:
    r"""The least damping under which an operator is positive definite and well conditioned.

    With ``l = smallest - smallest_error`` and ``h = max(largest + largest_error, |l|)``,

        damping = max(0, (h - condition l) / (condition - 1)),   so that   (h + damping) / (l + damping) <= condition

    and ``l + damping >= (h - l) / (condition - 1) > 0`` wherever it is positive. Nothing is added where the operator is
    that well conditioned as it is.

    Args:
      extremes: Extremes from ``extreme_eigenvalues``.
      condition: Largest condition number, above 1.

    Returns:
      The scalar to add to every eigenvalue, in the operator's units; NaN for an operator that is.

    Raises:
      ValueError: ``condition`` is not above 1.

    >>> found = extreme_eigenvalues(lambda v: jnp.array([-1.0, 99.0]) * v, jnp.ones(2))
    >>> round(float(damping_for(found, condition=101.0)), 6)
    2.0
    """
    if not is_traced(condition) and not np.asarray(condition) > 1:
        raise ValueError(f"`condition` must be above 1, got {condition}")
    low = extremes.smallest - extremes.smallest_error
    high = jnp.maximum(extremes.largest + extremes.largest_error, jnp.abs(low))
    return jnp.maximum((high - condition * low) / (condition - 1), 0)
