r"""The Hessian of the linear model's objective, a bound on its rounding error, and a factor that is verified.

**Rounding.** With unit roundoff ``u``, ``gamma_m = m u / (1 - m u)`` and ``S`` a diagonal of powers of two that brings
the diagonal near one, ``hessian_with_error`` gives an ``E`` with ``S H S >= S fl(H) S - E I`` for the exact ``H`` of
the numbers given, the sum of

    losses    sum_i q_i min(1, s_i + 32 u) |S x_i|^2 + gamma_levels tr(S X'QX S)
              q_i = e / (1 + e)^2, e = exp(-|f_i|): off by s_i = gamma_{d+2} |x_i|.|theta| relatively, as q' <= q
    group     2 n fairness sum |S dc| (2 |S c| + |S dc|),   |dc| <= gamma sum_i |alpha_i| |x_i| componentwise
    pairwise  the same of the cell sums, and gamma tr of the weighted Gram matrix

Matrices are summed by blocks of rows and then pairwise, so that ``levels`` hardly grows with the number of rows
(Higham 2002, sections 3.1 and 4.2).

**Factor.** Any computed ``V`` may serve as inverse Cholesky factor, if it is checked: in
scaled coordinates

    V H V' >= (1 - tau) I,    tau = |fl(V fl(H) V') - I|_F + gamma_{2d+4} | |V| |H| |V'| |_F + E |V|_F^2,

so where ``tau < 1``, ``|v|_{H^-1} <= |V v| / sqrt(1 - tau)``: a proof after the fact, whatever the factorisation did on
whatever device. Where it fails (nearly singular, or NaN) ``H >= n_w l2 I`` gives ``V = I / sqrt(n_w l2)``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmu_jax import cells, linalg, penalties
from fmu_jax import objective as objectives
from fmu_jax.data import Data
from fmu_jax.objective import Objective
from fmu_jax.rounding import (
    block_gram,
    depth,
    frobenius_bound,
    gram_depth,
    norm_bound,
    roundings,
    row_sum,
    score_error,
)

#: Roundings in a row's curvature besides those of its score: exponential, quotient, weight.
_LOCAL = 32
#: Squarings of a matrix whose spectral norm is bounded.
_SQUARINGS = 6
#: Roundings in a cell coefficient (counts, two divisions, a sum of two).
_COEFFICIENT = 12


class Curved(NamedTuple):
    """A symmetric matrix and how far it can be above the exact one.

    Attributes:
      matrix: As computed, ``(d, d)``.
      scale: Powers of two, ``(d,)``.
      error: No eigenvalue of ``diag(scale) (exact - matrix) diag(scale)`` is below minus this.
    """

    matrix: Float[Array, "d d"]
    scale: Float[Array, " d"]
    error: Float[Array, ""]


def hessian_with_error(objective: Objective, params: Float[Array, " d"], data: Data) -> Curved:
    """The Hessian of ``F`` with a bound on its rounding error, see above.

    Args:
      objective: Objective for the linear model.
      params: ``(d,)``.
      data: ``n`` rows.

    Returns:
      A ``Curved``.
    """
    x, n, dtype, d = data.x, cells.size(data), data.x.dtype, data.x.shape[1]
    unit = roundings(1, dtype)
    scores = x @ params
    off = score_error(params, x)
    tail = jnp.exp(-jnp.abs(scores))
    q = objectives.row_weights(objective, data) * tail / (1 + tail) ** 2
    losses = block_gram(x, q)
    by_row = row_sum(lambda x, wide: x**2 * wide[:, None], x, q * jnp.minimum(off + _LOCAL * unit, 1))

    strength = 2 * n * objective.fairness
    penalty, penalty_error = _penalty_with_error(objective.penalty, data)
    ridge = n * objective.l2
    hessian = losses + strength * penalty + ridge * jnp.eye(d, dtype=dtype)
    scale = balance(hessian)
    of_penalty, size = penalty_error(scale)
    trace = jnp.vdot(scale**2, jnp.diagonal(losses))
    error = jnp.vdot(scale**2, by_row) + roundings(gram_depth(*x.shape) + 4, dtype) * trace + strength * of_penalty
    error += 8 * unit * (trace + strength * size + ridge * jnp.sum(scale**2))
    # The bound is rounded too.
    return Curved(hessian, scale, (1 + roundings(8 * (depth(*x.shape) + d), dtype)) * error)


def balance(matrix: Float[Array, "d d"]) -> Float[Array, " d"]:
    """Powers of two that bring the diagonal within a factor two of one: multiplying by them rounds nothing."""
    diagonal = jnp.diagonal(matrix)
    exponent = jnp.round(jnp.log2(jnp.where(diagonal > 0, diagonal, 1)) / 2)
    return jnp.ldexp(jnp.ones_like(diagonal), -jax.lax.stop_gradient(exponent).astype(jnp.int32))


def _penalty_with_error(penalty, data: Data):
    """The penalty's matrix, and what gives, for a scale, the bound on its error and the size of its parts."""
    x, dtype = data.x, data.x.dtype
    alpha, across = penalties.coefficients(penalty, cells.counts(data))
    local = roundings(_COEFFICIENT + alpha.shape[0] + alpha.shape[1] + 8, dtype)
    share = roundings(depth(*x.shape) + _COEFFICIENT, dtype)

    def summed(column):
        total, size = row_sum(lambda x, q: (x * q[:, None], jnp.abs(x * q[:, None])), x, column)
        return total, share * size

    if not penalties.find(penalty).pairwise:
        c, off = (
            jnp.stack(parts)
            for parts in zip(*(summed(data.weight * cells.spread(table, data)) for table in alpha), strict=True)
        )

        def error(scale):
            size, wrong = norm_bound(scale[None] * c), norm_bound(scale[None] * off)
            return jnp.sum(wrong * (2 * size + wrong)) + local * jnp.sum(size**2), jnp.sum(size**2)

        return c.T @ c, error

    own = data.weight * cells.spread(jnp.abs(alpha).sum(axis=0), data)
    gram = block_gram(x, own)
    sums, off = (jnp.stack(parts) for parts in zip(*(summed(column) for column in cells.members(data).T), strict=True))
    flat = across.reshape(2 * [sums.shape[0]])

    def error(scale):
        size, wrong = norm_bound(scale[None] * sums), norm_bound(scale[None] * off)
        trace, wide = jnp.vdot(scale**2, jnp.diagonal(gram)), size + wrong
        between = wide @ flat @ wide
        moved = 2 * size @ flat @ wrong + wrong @ flat @ wrong
        rows = roundings(gram_depth(*x.shape) + _COEFFICIENT + alpha.shape[0], dtype)
        return moved + rows * trace + local * between, trace + between

    return gram - sums.T @ flat @ sums, error


def inverse_root(curved: Curved, floor: Float[Array, ""]) -> Float[Array, "d d"]:
    """A matrix ``V`` with ``|v|_{H^-1} <= |V v|`` for every ``v`` and every ``H`` that ``curved`` admits, see above.

    Args:
      curved: The Hessian.
      floor: A number that no eigenvalue of ``H`` is below; used where the check fails.

    Returns:
      ``(d, d)``; infinite where the check fails and ``floor`` is zero.
    """
    d, dtype = curved.matrix.shape[0], curved.matrix.dtype
    identity, unit = jnp.eye(d, dtype=dtype), roundings(1, dtype)
    matrix = curved.matrix * curved.scale[:, None] * curved.scale[None, :]
    inverse = linalg.whitening(matrix)
    inverse = jnp.where(jnp.all(jnp.isfinite(inverse)), inverse, 0)
    size = jnp.abs(inverse)
    tau = frobenius_bound(inverse @ matrix @ inverse.T - identity)
    tau += roundings(2 * d + 4, dtype) * frobenius_bound(size @ jnp.abs(matrix) @ size.T)
    tau += curved.error * frobenius_bound(inverse) ** 2 + 8 * unit
    tau *= 1 + roundings(4 * d + 16, dtype)
    trusted = tau < 1
    widened = inverse * (jax.lax.rsqrt(jnp.where(trusted, 1 - tau, 1)) * (1 + 16 * unit))
    least = jnp.where(floor > 0, jax.lax.rsqrt(jnp.where(floor > 0, floor, 1)) * (1 + 16 * unit), jnp.inf)
    return jnp.where(trusted, widened * curved.scale[None, :], jnp.where(identity > 0, least, 0))


def mapped_norm(matrix: Float[Array, "k d"], vectors: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    """Upper bound of ``|matrix v|`` for each vector, rounding included."""
    slack = roundings(matrix.shape[1] + 2, matrix.dtype)
    # A sum of products, not a matrix product: it is fused, and no copy of |v| is made.
    columns = jnp.expand_dims(norm_bound(matrix.T), tuple(range(vectors.ndim - 1)))
    return norm_bound(vectors @ matrix.T) + slack * jnp.sum(jnp.abs(vectors) * columns, axis=-1)


def spectral_norm_bound(matrix: Float[Array, "k d"]) -> Float[Array, ""]:
    """Upper bound of the largest singular value, a few percent above it at most: no eigensolver is trusted.

    ``|A|_2^2 = |A'A|_2`` for any ``A``, and of factors of Frobenius norm one the product is rounded by ``gamma`` at
    most. So ``A`` is normalised and squared some times, the last is bounded by its Frobenius norm, and roots are taken
    on the way back: at most ``d^(1/128)`` too much. Less than half the cost of an SVD.
    """
    sizes, slack = [], roundings(max(matrix.shape) + 8, matrix.dtype)
    for _ in range(_SQUARINGS):
        sizes.append(frobenius_bound(matrix))
        matrix = matrix / jnp.where(sizes[-1] > 0, sizes[-1], 1)
        matrix = matrix.T @ matrix
    bound = frobenius_bound(matrix)
    for size in reversed(sizes):
        bound = size * linalg.root(bound + slack) * (1 + roundings(8, matrix.dtype))
    return bound
