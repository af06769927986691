r"""The sums over rows that streaming removal stores, at a fixed anchor ``a``, each with its rounding error.

With scores ``f_i = x_i.a``, ``p_i = sigmoid(f_i)`` and norms ``|x_i|``, over the rows of weight one and by cell
(group, label):

    counts N, sums S of x_i, and, kept by cell only where the objective reweighs cells,
    gradient = sum (p_i - y_i) x_i,   curvature = sum p_i (1 - p_i) x_i x_i',   reach = sum |x_i| x_i x_i'.

A pairwise penalty also needs ``gram = sum x_i x_i'`` by cell. All are additive: the moments of what remains are those
of all rows minus those of the removed ones, whatever the order. ``assemble`` turns them into the gradient and the
Hessian of the fair objective at ``a``, which are then exact for what remains.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fmu_jax import cells, penalties
from fmu_jax import objective as objectives
from fmu_jax.data import Data, cell_counts
from fmu_jax.objective import Objective
from fmu_jax.rounding import block_sum, depth, roundings, score_error
from fmu_jax.row_blocks import PIECES, fold, piece_count, whole_tiles
from fmu_jax.showing import one_line
from fmu_jax.tracing import without_derivative

#: Rows whose matrices are summed at once; larger data go block by block, so that no copy of all rows is made.
BLOCK = 4 * PIECES
#: Blocks at most: each costs a sum over devices, if the rows lie on several.
_MOST_BLOCKS = 1024
#: Roundings in one row's terms besides the sums: logistic function, norm, products.
_LOCAL = 16
_NO_DERIVATIVE = "a stream counts rows in whole numbers and has no derivative in their `weight`; differentiate `fit`"


class Errors(NamedTuple):
    """Bounds on the rounding errors in ``Moments``, norms summed over cells.

    Attributes:
      gradient, sums: Errors of the vectors.
      matrices: Error of each of ``curvature``, ``reach`` and ``gram``, Frobenius norm.
    """

    gradient: Float[Array, ""]
    sums: Float[Array, ""]
    matrices: Float[Array, ""]


class Moments(NamedTuple):
    """Additive statistics of rows at an anchor; ``c`` is the number of cells with ``reweigh``, else 1.

    Attributes:
      counts: Rows by [group, label], int32.
      sums: Sums of the rows of each cell.
      gradient, curvature: Gradient and curvature of the logistic losses at the anchor.
      reach: Norm-weighted Gram matrix, of which the residual bound is made.
      gram: Gram matrices by cell for a pairwise penalty (``g`` cells), else empty (``g`` = 0).
      errors: Rounding errors of all of them.
    """

    counts: Int[Array, "groups 2"]
    sums: Float[Array, "groups 2 d"]
    gradient: Float[Array, "c d"]
    curvature: Float[Array, "c d d"]
    reach: Float[Array, "c d d"]
    gram: Float[Array, "g d d"]
    errors: Errors

    __repr__ = one_line()


@jax.jit
def moments(objective: Objective, anchor: Float[Array, " d"], rows: Data) -> Moments:
    """Moments of ``rows`` at ``anchor``, in one pass and O(d^2) memory beyond the rows.

    Args:
      objective: Says which statistics its penalty and its reweighing need.
      anchor: ``(d,)``.
      rows: ``k`` rows of ``d`` features; those of weight zero do not count.

    Returns:
      The ``Moments``.
    """
    rows = rows._replace(weight=without_derivative(_NO_DERIVATIVE, rows.weight))
    k = rows.x.shape[0]
    number = piece_count(k)
    size = whole_tiles(max(BLOCK, k // _MOST_BLOCKS) // number) * number
    if k <= BLOCK:
        return _block(objective, anchor, rows)
    return fold(lambda part: _block(objective, anchor, part), (rows,), size, plus)


def _block(objective: Objective, anchor, rows: Data) -> Moments:
    x, w, dtype = rows.x, rows.weight, rows.x.dtype
    k, d = x.shape
    member = cells.members(rows)
    part = member if objective.reweigh else w[:, None]
    p = jax.nn.sigmoid(x @ anchor)
    off, norm = p - rows.y.astype(dtype), jnp.linalg.norm(x, axis=1)

    def matrices(values, member):
        return jnp.stack([(x * (values * column)[:, None]).T @ x for column in member.T])

    pairwise = penalties.find(objective.penalty).pairwise
    # A score is off by gamma_{d+2} sum_j |x_ij a_j|, and sigmoid' <= 1/4, |(p (1 - p))'| <= 1/10.
    score = score_error(anchor, x)
    once = roundings(depth(k) + _LOCAL, dtype)
    errors = Errors(
        gradient=jnp.dot(w * norm, score / 4 + once * (jnp.abs(off) + 1)),
        sums=once * jnp.dot(w, norm),
        matrices=jnp.dot(w * norm**2, score / 10 + roundings(k + _LOCAL, dtype) * jnp.maximum(norm, 1)),
    )
    return Moments(
        counts=cell_counts(rows),
        sums=_by_cell(x, member).reshape(rows.groups, 2, d),
        gradient=_by_cell(x * off[:, None], part),
        curvature=matrices(p * (1 - p), part),
        reach=matrices(norm, part),
        gram=matrices(jnp.ones_like(w), member) if pairwise else jnp.zeros((0, d, d), dtype),
        errors=errors,
    )


def _by_cell(values, member):
    return jnp.stack([block_sum(values * column[:, None]) for column in member.T])


def none(objective: Objective, groups: int, d: int) -> Moments:
    """Moments of no rows of ``d`` features, as NumPy arrays: their shapes cost no trace."""
    parts = 2 * groups if objective.reweigh else 1
    pairs = 2 * groups if penalties.find(objective.penalty).pairwise else 0
    counts: Any = np.zeros((groups, 2), np.int32)
    shapes = (groups, 2, d), (parts, d), (parts, d, d), (parts, d, d), (pairs, d, d)
    arrays: list[Any] = [np.zeros(shape) for shape in shapes]
    zero: Any = np.zeros(())
    return Moments(counts, *arrays, errors=Errors(zero, zero, zero))


def plus(a: Moments, b: Moments) -> Moments:
    """Moments of two sets of rows together."""
    return _combine(a, b, 1)


def minus(a: Moments, b: Moments) -> Moments:
    """Moments of the rows of ``a`` without those of ``b``; the errors of both stay."""
    return _combine(a, b, -1)


def _combine(a: Moments, b: Moments, sign: int) -> Moments:
    total = jax.tree.map(lambda left, right: left + sign * right, a._replace(errors=b.errors), b)
    dtype = a.sums.dtype
    unit = roundings(1, dtype)
    # Traces bound the Frobenius norms of the positive semi-definite sums.
    matrices = (a.curvature, a.reach, a.gram, b.curvature, b.reach, b.gram)
    trace = jnp.stack([jnp.trace(matrix, axis1=1, axis2=2).sum() for matrix in matrices]).sum()
    rounded = Errors(
        gradient=unit * jnp.linalg.norm(total.gradient, axis=1).sum(),
        sums=unit * jnp.linalg.norm(total.sums, axis=2).sum(),
        matrices=unit * trace,
    )
    errors = jax.tree.map(lambda *parts: sum(parts), a.errors, b.errors, rounded)
    return total._replace(errors=errors)


class Quadratic(NamedTuple):
    """Second-order model of the remaining objective at the anchor.

    Attributes:
      gradient, hessian: Gradient and hessian of ``F'`` at the anchor, ``(d,)`` and ``(d, d)``.
      reach: ``sum_i om_i |x_i| x_i x_i'``, ``(d, d)``.
      gradient_error, hessian_error, reach_error: Bounds on the norms of their rounding errors.
    """

    gradient: Float[Array, " d"]
    hessian: Float[Array, "d d"]
    reach: Float[Array, "d d"]
    gradient_error: Float[Array, ""]
    hessian_error: Float[Array, ""]
    reach_error: Float[Array, ""]


def assemble(objective: Objective, anchor: Float[Array, " d"], noise: Float[Array, " d"], m: Moments) -> Quadratic:
    """Gradient and Hessian of the fair objective at the anchor, from moments.

    Args:
      objective: Linear model.
      anchor: ``(d,)``, at which ``m`` was taken.
      noise: The perturbation ``b``, ``(d,)``.
      m: Moments of what remains.

    Returns:
      The ``Quadratic``.
    """
    d, dtype = anchor.shape[0], anchor.dtype
    counts = m.counts.astype(dtype)
    n = counts.sum()
    om = objectives.reweighing(counts).ravel() if objective.reweigh else jnp.ones(1, dtype)
    q = penalties.quadratic_form_of_cells(objective.penalty, counts, m.sums, m.gram)
    strength = 2 * n * objective.fairness
    ridge = n * objective.l2
    hessian = jnp.einsum("c,cij->ij", om, m.curvature) + strength * q + ridge * jnp.eye(d, dtype=dtype)
    from_loss, from_penalty = om @ m.gradient, strength * (q @ anchor)
    size = jnp.linalg.norm(anchor)
    q_error = _penalty_error(objective, counts, m)
    largest, local = om.max(), roundings(d + _LOCAL, dtype)
    parts = jnp.linalg.norm(from_loss) + ridge * size + jnp.linalg.norm(noise)
    return Quadratic(
        gradient=from_loss + ridge * anchor + from_penalty + noise,
        hessian=hessian,
        reach=jnp.einsum("c,cij->ij", om, m.reach),
        gradient_error=largest * m.errors.gradient + strength * q_error * size + local * parts,
        hessian_error=largest * m.errors.matrices + strength * q_error + local * jnp.trace(hessian),
        reach_error=largest * m.errors.matrices,
    )


def _penalty_error(objective: Objective, counts, m: Moments):
    """Bound on the rounding error of the penalty's matrix Q, Frobenius norm."""
    alpha, across = penalties.coefficients(objective.penalty, counts)
    # Pairs and cells are added up too: one rounding each, at most.
    local = roundings(_LOCAL + 2 * (alpha.shape[0] + alpha.shape[1]), counts.dtype)
    alpha, norms = jnp.abs(alpha), jnp.linalg.norm(m.sums, axis=2)
    if not penalties.find(objective.penalty).pairwise:
        size = jnp.einsum("pgy,gy->p", alpha, norms)  # of each pair's c, at most
        error = alpha.max(axis=(1, 2)) * m.errors.sums + local * size
        return jnp.sum(2 * size * error + error**2 + local * size**2)
    wide = norms + m.errors.sums
    most, least = (jnp.einsum("gy,gyhz,hz->", size, across, size) for size in (wide, norms))
    own, traces = alpha.sum(axis=0), jnp.trace(m.gram, axis1=1, axis2=2)
    return own.max() * m.errors.matrices + local * jnp.dot(own.ravel(), traces) + most * (1 + local) - least
