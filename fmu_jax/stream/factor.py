r"""A Hessian's factor that outlives its Hessian: certified distances along a stream without factorising anew.

Between two refreshes the remaining Hessian at the anchor changes by the rows that went. For any ``V`` with
``M = V H V'`` and any ``c``

    M >= omega I,   omega = c - |fl(M) - c I|_F - rounding,   so   |v|_{H^-1} <= |V v| / sqrt(omega)   where omega > 0

(see ``curvature.inverse_root``; ``c = tr(M) / d`` leaves out what all rows lose alike). So a factor is kept, with the
norms that were expensive, while ``omega`` is above ``_LEAST``: two products of d x d matrices a deletion in place of a
factorisation and a dozen of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmu_jax.curvature import Curved, inverse_root, spectral_norm_bound
from fmu_jax.distances import convex_distance, local_radius, shape_norms, within
from fmu_jax.linalg import root
from fmu_jax.moments import Quadratic, assemble
from fmu_jax.rounding import frobenius_bound, norm_bound, roundings
from fmu_jax.stream.state import State

#: Below it a factor is renewed: bounds are at most 1 / sqrt(0.7) times wider than with a factor of their own.
_LEAST = 0.7


class Factor(NamedTuple):
    """A factor of some Hessian of a stream, and what is needed of it.

    Attributes:
      dual: ``V``, ``(d, d)``.
      size: Upper bound of its Frobenius norm.
      wide: Upper bound of its spectral norm.
      shaped, everywhere: Upper bounds of ``|V A V'|_2^1/2`` and ``|A|_2^1/2`` for the shape ``A``; without a shape
        ``wide`` and 1.
    """

    dual: Float[Array, "d d"]
    size: Float[Array, ""]
    wide: Float[Array, ""]
    shaped: Float[Array, ""]
    everywhere: Float[Array, ""]


def quadratic(state: State) -> Quadratic:
    """The second-order model of what remains."""
    return assemble(state.objective, state.anchor, state.noise, state.moments)


def remaining(state: State) -> Float[Array, ""]:
    """Number of rows."""
    return state.counts.sum().astype(state.anchor.dtype)


def factorise(state: State, shape: Float[Array, "d d"] | None) -> Factor:
    """The factor of the present Hessian, for which ``omega`` is 1."""
    q = quadratic(state)
    curved = Curved(q.hessian, jnp.ones_like(state.anchor), q.hessian_error)
    dual = inverse_root(curved, remaining(state) * state.objective.l2)
    wide = spectral_norm_bound(dual)
    shaped, everywhere = (wide, jnp.ones_like(wide)) if shape is None else shape_norms(dual, shape)
    return Factor(dual, frobenius_bound(dual), wide, shaped, everywhere)


def weakest(q: Quadratic, factor: Factor) -> Float[Array, ""]:
    """``omega`` of a Hessian; NaN or negative where the factor is of no use."""
    d, dtype = q.gradient.shape[0], q.gradient.dtype
    inside = factor.dual @ q.hessian @ factor.dual.T
    middle = jnp.trace(inside) / d
    off = frobenius_bound(inside - middle * jnp.eye(d, dtype=dtype))
    rounded = roundings(2 * d + 12, dtype) * frobenius_bound(q.hessian) + q.hessian_error
    return middle * (1 - roundings(16, dtype)) - (off + factor.size**2 * rounded) * (1 + roundings(4 * d + 32, dtype))


def renewed(state: State, q: Quadratic, factor: Factor, shape) -> tuple[Factor, Float[Array, ""]]:
    """The factor and its ``omega`` for the state's quadratic, or the present Hessian's own."""
    omega = weakest(q, factor)

    def own():
        return factorise(state, shape), jnp.ones_like(omega)

    return jax.lax.cond(omega >= _LEAST, lambda: (factor, omega), own)


def distance(state: State, factor: Factor, omega: Float[Array, ""]) -> Float[Array, ""]:
    """Bound on ``|theta - theta'|_A``, as ``retrained_region`` and the norms of its dual give it, rounded up."""
    dtype = state.anchor.dtype
    few = 1 + roundings(state.anchor.size + 32, dtype)
    shift = state.row_norm * norm_bound(state.params - state.anchor) * few
    growth = jnp.exp(shift / 2) / root(omega) * few
    wide = factor.wide * growth
    radius = local_radius(state.residual_bound * wide, state.row_norm * wide * few)
    everywhere = convex_distance(state.residual_bound, remaining(state), state.objective.l2) * factor.everywhere
    bound = jnp.minimum(within(radius, factor.shaped * growth), everywhere * few)
    return jnp.where(jnp.isnan(bound), jnp.inf, bound * few)
