"""Conjugate gradients on pytrees, with a report of how the iteration ended."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from fmu_jax.showing import one_line
from fmu_jax.tracing import NO_TANGENT, as_arrays, hoisted, nan_unless


class CGResult(NamedTuple):
    """Outcome of ``conjugate_gradients``.

    Attributes:
      solution: Pytree like the right-hand side.
      converged: The true relative residual is within tolerance, and no negative curvature was met.
      residual_norm: ``|b - A x| / |b|``, recomputed from the solution.
      steps: Iterations taken, int32.
      indefinite: A direction with ``p' A p <= 0`` was met, so that ``A`` is not positive definite.
      curvature: The least ``p' A p / p' p`` met, infinite before the first product; the largest eigenvalue is no less.
    """

    solution: Any
    converged: Bool[Array, ""]
    residual_norm: Float[Array, ""]
    steps: Int[Array, ""]
    indefinite: Bool[Array, ""]
    curvature: Float[Array, ""]

    __repr__ = one_line()


def conjugate_gradients(
    operator: Callable[[Any], Any], b: Any, *, tolerance: float | Array | None = None, max_steps: int | Array = 1000
) -> CGResult:
    """Solves ``A x = b`` for a positive definite ``A`` that is given as a product (Hestenes & Stiefel 1952).

    Args:
      operator: ``v -> A v`` on pytrees like ``b``.
      b: Right-hand side, a pytree of arrays of one dtype.
      tolerance: Relative residual at which to stop; None is 1e-10 in float64 and 1e-5 in float32.
      max_steps: Largest number of products.

    Returns:
      The solution and how it was reached. Failure is a value: nothing is raised, and the solution is then the last
      iterate before the failure. The derivative of the solution, in either mode, is ``A^{-1} (db - dA x)``, solved in
      the same way, and NaN where one of the solves failed; how it was reached has none (zero).

    Raises:
      ValueError: ``b`` holds no array, or arrays that are not all float32 or all float64.

    >>> result = conjugate_gradients(lambda v: 2.0 * v, jnp.array([2.0, 4.0]))
    >>> result.solution.tolist(), bool(result.converged)
    ([1.0, 2.0], True)
    """
    b = as_arrays(b)
    tolerance = default_tolerance(b) if tolerance is None else tolerance
    return _solve(*hoisted(operator, b), b, tolerance, max_steps)


def default_tolerance(b: Any) -> float:
    """1e-10 in float64 and 1e-5 in float32; ValueError for anything else: half precision would stall far from it."""
    dtypes = {jnp.result_type(leaf) for leaf in jax.tree.leaves(b)}
    if dtypes not in ({jnp.dtype("float32")}, {jnp.dtype("float64")}):
        names = ", ".join(sorted(map(str, dtypes))) or "no array"
        raise ValueError(f"`b` must hold arrays of float32, or of float64; got {names}; convert it first")
    return 1e-10 if dtypes == {jnp.dtype("float64")} else 1e-5


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _solve(operator, consts, b, tolerance, max_steps) -> CGResult:
    return iterate(partial(operator, consts), b, tolerance, max_steps)


@_solve.defjvp
def _(operator, primals, tangents):
    consts, _, tolerance, max_steps = primals
    found = _solve(operator, *primals)
    moved_image = jax.jvp(lambda consts: operator(consts, found.solution), (consts,), (tangents[0],))[1]
    shift = optax.tree.sub(tangents[1], moved_image)
    moved = inverse_product(partial(operator, consts), shift, tolerance=tolerance, max_steps=max_steps)
    zero = jnp.zeros_like(found.residual_norm)
    return found, CGResult(nan_unless(found.converged, moved), NO_TANGENT, zero, NO_TANGENT, NO_TANGENT, zero)


def inverse_product(operator: Callable[[Any], Any], b: Any, *, tolerance=None, max_steps=1000) -> Any:
    """``A^{-1} b`` alone, linear in ``b``, so that rules of derivatives can use it; NaN where the solve failed."""
    tolerance = default_tolerance(b) if tolerance is None else tolerance

    def solve(product, b):
        found = iterate(product, b, tolerance, max_steps)
        return jax.tree.map(lambda leaf: jnp.where(found.converged, leaf, jnp.nan), found.solution)

    return jax.lax.custom_linear_solve(operator, b, solve, symmetric=True)


def iterate(operator: Callable[[Any], Any], b: Any, tolerance, max_steps) -> CGResult:
    """The loop of ``conjugate_gradients``, which has no reverse derivative of its own."""
    norm = optax.tree.norm(b)
    target = tolerance * norm

    def going(state):
        _, residual, _, _, steps, indefinite, _ = state
        return (optax.tree.norm(residual) > target) & (steps < max_steps) & ~indefinite

    def step(state):
        x, residual, direction, square, steps, _, least = state
        product = operator(direction)
        curvature = jnp.asarray(optax.tree.vdot(direction, product))
        indefinite = ~(curvature > 0)
        least = jnp.minimum(least, curvature / optax.tree.norm(direction, squared=True))
        size = jnp.where(indefinite, 0, square / jnp.where(indefinite, 1, curvature))
        x = optax.tree.add_scale(x, size, direction)
        residual = optax.tree.add_scale(residual, -size, product)
        new_square = optax.tree.norm(residual, squared=True)
        direction = optax.tree.add_scale(residual, new_square / square, direction)
        return x, residual, direction, new_square, steps + 1, indefinite, least

    square, steps, indefinite = optax.tree.norm(b, squared=True), jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    start = (optax.tree.zeros_like(b), b, b, square, steps, indefinite, jnp.full_like(square, jnp.inf))
    x, _, _, _, steps, indefinite, least = jax.lax.while_loop(going, step, start)
    true_residual = optax.tree.norm(optax.tree.sub(b, operator(x)))
    # Rounding parts the recurrence from the truth by about the condition number; ten tolerances allow for it.
    converged = (true_residual <= 10 * target) & ~indefinite
    return CGResult(x, converged, true_residual / jnp.where(norm > 0, norm, 1), steps, indefinite, least)
