r"""The gradient of the linear model's objective together with a bound on its own rounding error.

A certificate is a claim about an exact gradient; what is computed is a rounded one. In float64 the difference is far
below any residual, in float32 it is not, so every certified norm is widened by the bound computed here (running error
analysis, Higham 2002, chapters 3 and 4). With unit roundoff ``u`` and ``gamma_m = m u / (1 - m u)``, a sum of ``m``
terms in any order is off by at most ``gamma_m`` times the sum of their sizes; rows are summed in blocks, then blocks
are halved pairwise, so that ``m`` grows with ``log n`` and not with ``n``.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmu_jax import cells, linalg, penalties
from fmu_jax import objective as objectives
from fmu_jax.data import Data
from fmu_jax.objective import Objective
from fmu_jax.row_blocks import TILE, block_rows, by_row, cpu_block_rows, in_blocks, piece_count, pieces

_BLOCK = 32
#: Roundings in one row's terms besides the sums: logistic function, products, cell coefficients.
_LOCAL = 32
#: Roundings in a cell coefficient (counts, two divisions, a sum of two) and its product with a score.
_COEFFICIENT = 12


def roundings(m: int, dtype) -> float:
    """``gamma_m = m u / (1 - m u)``: what ``m`` roundings can do, relative to the size of the terms."""
    unit = float(jnp.finfo(dtype).eps) / 2
    return m * unit / (1 - m * unit)


def block_sum(values: Float[Array, "n k"]) -> Float[Array, " k"]:
    """Sum over rows with error at most ``gamma_m`` times the sum of sizes, ``m = depth(n)``.

    Rows that ``pieces`` deals out are summed piece by piece, side by side, so that those which lie on several devices
    meet as sums of pieces only.
    """
    return _halved(_halved(_blocks(pieces(values)), axis=1), axis=0)[0, 0]


def _blocks(values: Float[Array, "pieces rows k"]) -> Float[Array, "pieces few k"]:
    """Sums of ``_BLOCK`` rows each, added in pairs: of rows a tile apart, if there are whole tiles, else of neighbours.

    XLA:TPU would lay the rows anew to add neighbours within a tile.
    """
    rows, k = values.shape[1:]
    if rows <= _BLOCK:
        return values.sum(axis=1, keepdims=True)
    apart = TILE if rows % TILE == 0 else 1
    size = min(_BLOCK, rows // apart)
    padded = jnp.pad(values, ((0, 0), (0, -rows % (size * apart)), (0, 0)))
    return _halved(padded.reshape(len(values), -1, size, apart, k).sum(axis=2), axis=1)[:, 0]


def _halved(sums: Float[Array, "..."], *, axis: int) -> Float[Array, "..."]:
    """Adds neighbours until one is left along ``axis``."""
    while (count := sums.shape[axis]) > 1:
        sums = jnp.pad(sums, [(0, count % 2 if other == axis else 0) for other in range(sums.ndim)])
        shape = list(sums.shape)
        sums = sums.reshape(*shape[:axis], shape[axis] // 2, 2, *shape[axis + 1 :]).sum(axis=axis + 1)
    return sums


def row_sum(function: Callable[..., Any], *rows: Any) -> Any:
    """``block_sum`` of what ``function`` gives of rows, ``(n, k)`` arrays, without holding all of it at once.

    Args:
      function: Function of rows, to a tree of such arrays.
      *rows: Its arguments, arrays whose first axis are the rows; the first is the largest.

    Returns:
      The tree of sums ``(k,)``, with the error of ``block_sum``.
    """
    return in_blocks(
        lambda *part: jax.tree.map(block_sum, function(*part)),
        lambda found: jax.tree.map(lambda *parts: _halved(jnp.concatenate(parts)[None], axis=1)[0, 0], *found),
        *rows,
    )


def depth(n: int, columns: int = 0) -> int:
    """Roundings that a term goes through in ``block_sum`` of ``n`` rows, or in ``row_sum`` of rows of ``columns``."""
    return max(_of_blocks(_depth, n, size(n, columns)) for size in (block_rows, cpu_block_rows))


def _depth(n: int) -> int:
    side_by_side = piece_count(n)
    blocks = -(-n // (side_by_side * _BLOCK))
    return _BLOCK + math.ceil(math.log2(max(1, blocks))) + math.ceil(math.log2(side_by_side))


def _of_blocks(levels: Callable[[int], int], n: int, size: int) -> int:
    """Roundings in blocks of ``size`` of the ``n`` rows: the most of a block's, and those between blocks."""
    if size >= n:
        return levels(n)
    most = max(levels(size), levels(n % size) if n % size else 0)
    return most + math.ceil(math.log2(n // size + 1))


def block_gram(x: Float[Array, "n d"], weight: Float[Array, " n"]) -> Float[Array, "d d"]:
    """``X' diag(weight) X``, each entry with error at most ``gamma_m`` times the sum of sizes, ``m = gram_depth``.

    Memory is a quarter of that of the rows at most.
    """
    d = x.shape[1]

    def together(found):
        return _halved(jnp.concatenate(found).reshape(1, -1, d * d), axis=1).reshape(d, d)

    return in_blocks(_gram_of_block, together, x, weight)


def _gram_of_block(x, weight):
    d = x.shape[1]
    side_by_side, rows = _gram_pieces(*x.shape)

    def cut(values):
        values = values.reshape(side_by_side, -1, d)
        return jnp.pad(values, ((0, 0), (0, -values.shape[1] % rows), (0, 0))).reshape(side_by_side, -1, rows, d)

    each = jnp.einsum("pbri,pbrj->pbij", cut(x * weight[:, None]), cut(x))
    each = each.reshape(*each.shape[:2], d * d)
    return _halved(_halved(each, axis=1), axis=0).reshape(d, d)


def _gram_pieces(n: int, d: int) -> tuple[int, int]:
    """How many pieces of equal length are worked on side by side, and the rows of each product within them.

    As few of the ``piece_count`` pieces are joined as leave every piece the rows of one product.
    """
    rows, most = min(max(2 * _BLOCK, 4 * d), n), piece_count(n)
    fewer = (most // k for k in range(1, most + 1) if most % k == 0)
    return next(number for number in fewer if n // number >= rows), rows


def gram_depth(n: int, d: int) -> int:
    """Roundings that a term goes through in ``block_gram``."""
    return max(_of_blocks(partial(_gram_depth, d=d), n, size(n, d)) for size in (block_rows, cpu_block_rows))


def _gram_depth(n: int, d: int) -> int:
    number, rows = _gram_pieces(n, d)
    products = -(-(n // number) // rows)
    return rows + 2 + math.ceil(math.log2(products)) + math.ceil(math.log2(number))


def norm_bound(vectors: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    """Upper bound of the Euclidean norm along the last axis: neither rounding nor underflow is below it."""
    d, info = vectors.shape[-1], jnp.finfo(vectors.dtype)
    size = linalg.norm(vectors, axis=-1) * (1 + roundings(d + 4, vectors.dtype))
    return size + 2 * (d * float(info.tiny)) ** 0.5


def widened_norm(vector: Float[Array, " d"], margin: Float[Array, ""]) -> Float[Array, ""]:
    """Upper bound of the norm of a vector that is known up to ``margin``.

    A computed vector no longer than the margin may be what rounding left of zero: its direction is chance, and differs
    between the places where XLA computes it anew, so that parts of a reverse derivative would not cancel. Its
    derivative there is zero, as that of the norm at zero is (``linalg.root``).
    """
    size = norm_bound(vector)
    return jnp.where(size > margin, size, jax.lax.stop_gradient(size)) + margin


def frobenius_bound(matrix: Float[Array, "k d"]) -> Float[Array, ""]:
    """Upper bound of the Frobenius norm, rows first, so that its rounding grows with ``k + d`` and not ``k d``."""
    return norm_bound(norm_bound(matrix))


def score_error(params: Float[Array, " d"], x: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Bounds on the rounding errors of the scores ``x @ params``: ``gamma_{d+2} sum_j |x_ij params_j|``."""
    # A sum of products, not a matrix product: it is fused, and no copy of |x| is made.
    size = by_row(lambda x: jnp.sum(jnp.abs(x * params[None]), axis=1), x, only_on_cpus=True)
    return roundings(x.shape[1] + 2, x.dtype) * size


def gradient_with_error(
    objective: Objective, params: Float[Array, " d"], data: Data, noise: Float[Array, " d"] | None
) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """Gradient of ``F`` and a bound on the norm of its rounding error.

    The gradient is ``X' q + n_w l2 theta + b`` with one number ``q_i`` a row (loss and penalty), so its error is that
    of the ``q_i``, carried through the sum, plus that of the sum.

    Args:
      objective: Objective for the linear model.
      params: ``(d,)``.
      data: ``n`` rows.
      noise: ``(d,)`` or None.

    Returns:
      The gradient ``(d,)`` and the bound, a scalar.
    """
    x, y, n = data.x, data.y.astype(data.x.dtype), cells.size(data)
    unit = jnp.finfo(x.dtype).eps / 2

    def gamma(m):
        return roundings(m, x.dtype)

    weight = objectives.row_weights(objective, data)
    scores, off = x @ params, score_error(params, x)
    by_loss = weight * (jax.nn.sigmoid(scores) - y)
    loss_error = weight * (off / 4 + _LOCAL * unit)

    by_penalty, penalty_error = _penalty_with_error(objective.penalty, scores, off, data, gamma)
    strength = n * objective.fairness
    by_score = by_loss + strength * by_penalty
    by_score_error = loss_error + strength * penalty_error
    by_score_error += 4 * unit * (jnp.abs(by_loss) + strength * jnp.abs(by_penalty))

    levels = depth(*x.shape)
    wide = by_score_error + gamma(levels + 2) * jnp.abs(by_score)
    total, total_error = row_sum(
        lambda x, by_score, wide: (x * by_score[:, None], jnp.abs(x) * wide[:, None]), x, by_score, wide
    )
    ridge = n * objective.l2 * params
    grad, parts = total + ridge, jnp.abs(total) + jnp.abs(ridge)
    if noise is not None:
        grad, parts = grad + noise, parts + jnp.abs(noise)
    # The bound itself is rounded too: 1 + gamma(4 levels) covers it.
    return grad, (1 + gamma(4 * levels)) * jnp.linalg.norm(total_error + 8 * unit * parts)


def _penalty_with_error(penalty, scores, score_error, data, gamma):
    """d(penalty)/d(score) for each row and a bound on its error, both (n,)."""
    unit = gamma(1)
    alpha, across = penalties.coefficients(penalty, cells.counts(data))
    # Pairs and cells are added up too: one rounding each, at most.
    local = gamma(_LOCAL + alpha.shape[0] + alpha.shape[1])
    share = gamma(depth(scores.shape[0], 1) + _COEFFICIENT)
    off = score_error + share * jnp.abs(scores)
    if not penalties.find(penalty).pairwise and alpha.shape[0] == 1:
        row_alpha = data.weight * cells.spread(alpha[0], data)
        gap, gap_error = row_sum(
            lambda *values: jnp.stack(values, axis=1), row_alpha * scores, jnp.abs(row_alpha) * off
        )
        return 2 * gap * row_alpha, 2 * jnp.abs(row_alpha) * (gap_error + _LOCAL * unit * jnp.abs(gap))

    def in_cells(scores, off, data):
        member = cells.members(data)
        return member * scores[:, None], member * off[:, None]

    total, total_error = (each.reshape(data.groups, 2) for each in row_sum(in_cells, scores, off, data._replace(x=off)))
    total_error += local * jnp.abs(total)
    size, strong = jnp.abs(total), jnp.abs(alpha)
    if not penalties.find(penalty).pairwise:
        gap, gap_size = (jnp.einsum("pgy,gy->p", *terms) for terms in ((alpha, total), (strong, size)))
        gap_error = jnp.einsum("pgy,gy->p", strong, total_error) + local * gap_size
        by_cell = jnp.einsum("p,pgy->gy", gap, alpha)
        error = jnp.einsum("p,pgy->gy", gap_error + local * jnp.abs(gap), strong)
        return tuple(2 * data.weight * cells.spread(table, data) for table in (by_cell, (1 + local) * error))
    own = data.weight * cells.spread(strong.sum(axis=0), data)
    other, other_size, other_error = (
        data.weight * cells.spread(jnp.einsum("gyhz,hz->gy", across, table), data)
        for table in (total, size, total_error)
    )
    error = own * score_error + other_error + local * (own * jnp.abs(scores) + other_size)
    return 2 * (own * scores - other), 2 * (1 + local) * error
