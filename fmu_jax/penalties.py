r"""Fairness penalties on scores, in O(n) from cell sums.

With groups a = 0 and b = 1 of ``n_a`` and ``n_b`` rows, scores ``f_i`` and a label match ``M[y, y']``:

    group:       R = ( 1/(n_a n_b) sum_{i in a, j in b} M[y_i, y_j] (f_i - f_j) )^2
    individual:  R =   1/(n_a n_b) sum_{i in a, j in b} M[y_i, y_j] (f_i - f_j)^2

The inner sum of the group form is linear in the scores: ``sum_i alpha(cell of i) f_i`` with

    alpha(a, y) = sum_y' M[y, y'] N_by' / (n_a n_b),     alpha(b, y) = -sum_y' M[y', y] N_ay' / (n_a n_b),

and the individual form adds up to ``sum_i |alpha_i| f_i^2 - 2/(n_a n_b) sum_{y, y'} M[y, y'] T_ay T_by'`` with the
cell sums ``T`` of the scores. ``equalized_odds`` is the penalty of Oesterling et al. (2024), section 4; the group
and individual forms are those of Berk et al. (2017), "A convex framework for fair regression".
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmu_jax import cells
from fmu_jax.data import Data


class Penalty(NamedTuple):
    """A fairness penalty: which labels are compared (``match[y, y']``), and whether pair by pair."""

    match: tuple[tuple[int, int], tuple[int, int]]
    pairwise: bool = False


PENALTIES = {
    "equalized_odds": Penalty(match=((1, 0), (0, 1))),
    "demographic_parity": Penalty(match=((1, 1), (1, 1))),
    "equal_opportunity": Penalty(match=((0, 0), (0, 1))),
    "individual": Penalty(match=((1, 0), (0, 1)), pairwise=True),
}


def coefficients(name: str, data: Data) -> tuple[Float[Array, "2 2"], Float[Array, "2 2"]]:
    """Cell coefficients of a penalty.

    Args:
      name: a key of ``PENALTIES``.
      data: the rows; an empty group gives zero coefficients.

    Returns:
      ``alpha`` (2, 2), indexed [group, label], and ``match / (n_a n_b)`` (2, 2), indexed [label in a, label in b].
    """
    table = cells.counts(data)
    match = jnp.asarray(np.array(PENALTIES[name].match), data.x.dtype)
    # The product of the group sizes overflows int32 and is never formed: divide twice.
    inverse = 1 / jnp.maximum(table.sum(axis=1), 1)
    share = table * inverse[:, None]
    alpha = jnp.stack([match @ share[1] * inverse[0], -(match.T @ share[0]) * inverse[1]])
    return alpha, match * inverse[0] * inverse[1]


def from_scores(name: str, scores: Float[Array, " n"], data: Data) -> Float[Array, ""]:
    """The penalty ``R`` at given scores.

    Args:
      name: a key of ``PENALTIES``.
      scores: ``(n,)`` real scores (log-odds).
      data: the rows.

    Returns:
      The non-negative scalar ``R``.
    """
    alpha, pair = coefficients(name, data)
    row_alpha = data.weight * cells.spread(alpha, data)
    if not PENALTIES[name].pairwise:
        return jnp.dot(row_alpha, scores) ** 2
    total = cells.sums(scores, data)
    return jnp.dot(jnp.abs(row_alpha), scores**2) - 2 * total[0] @ pair @ total[1]


def score_gradient(name: str, scores: Float[Array, " n"], data: Data) -> Float[Array, " n"]:
    """Gradient of ``R`` with respect to the scores, ``(n,)``, in closed form."""
    alpha, pair = coefficients(name, data)
    row_alpha = data.weight * cells.spread(alpha, data)
    if not PENALTIES[name].pairwise:
        return 2 * jnp.dot(row_alpha, scores) * row_alpha
    total = cells.sums(scores, data)
    other = jnp.stack([pair @ total[1], pair.T @ total[0]])
    return 2 * (jnp.abs(row_alpha) * scores - data.weight * cells.spread(other, data))


def quadratic_form(name: str, data: Data) -> Float[Array, "d d"]:
    """The matrix ``Q`` with ``R = theta' Q theta`` for the linear model ``f = x theta``.

    The group penalties give ``Q = c c'`` with ``c = sum_i w_i alpha_i x_i``.

    Args:
      name: a key of ``PENALTIES``.
      data: ``n`` rows of ``d`` features.

    Returns:
      ``(d, d)``, symmetric positive semi-definite.
    """
    alpha, pair = coefficients(name, data)
    row_alpha = data.weight * cells.spread(alpha, data)
    if not PENALTIES[name].pairwise:
        c = row_alpha @ data.x
        return jnp.outer(c, c)
    total = cells.sums(data.x, data)
    cross = jnp.einsum("yi,yz,zj->ij", total[0], pair, total[1])
    return (data.x * jnp.abs(row_alpha)[:, None]).T @ data.x - cross - cross.T
