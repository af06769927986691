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

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmu_jax import cells
from fmu_jax.data import Data


@dataclasses.dataclass(frozen=True, eq=False)
class Penalty:
    """A fairness penalty; a pytree, so that a sweep over penalties of one form compiles once.

    Attributes:
      match: ``M[y, y']``, ``(2, 2)``: which labels of group 0 and of group 1 are compared.
      pairwise: the individual form in place of the group form.
    """

    match: Any
    pairwise: bool = False


jax.tree_util.register_dataclass(Penalty, data_fields=["match"], meta_fields=["pairwise"])

PENALTIES = {
    "equalized_odds": Penalty(np.array([[1.0, 0.0], [0.0, 1.0]])),
    "demographic_parity": Penalty(np.array([[1.0, 1.0], [1.0, 1.0]])),
    "equal_opportunity": Penalty(np.array([[0.0, 0.0], [0.0, 1.0]])),
    "individual": Penalty(np.array([[1.0, 0.0], [0.0, 1.0]]), pairwise=True),
}


def find(penalty: str | Penalty) -> Penalty:
    """The penalty of that name; one that is a ``Penalty`` already is returned as it is.

    Raises:
      ValueError: unknown name.
    """
    if isinstance(penalty, Penalty):
        return penalty
    if penalty not in PENALTIES:
        raise ValueError(f"unknown penalty {penalty!r}; known: {', '.join(PENALTIES)}")
    return PENALTIES[penalty]


def coefficients(
    penalty: str | Penalty, counts: Float[Array, "2 2"]
) -> tuple[Float[Array, "2 2"], Float[Array, "2 2"]]:
    """Cell coefficients of a penalty.

    Args:
      penalty: a key of ``PENALTIES``, or a ``Penalty``.
      counts: ``cells.counts``, (2, 2) indexed [group, label]; an empty group gives zero coefficients.

    Returns:
      ``alpha`` (2, 2), indexed [group, label], and ``match / (n_a n_b)`` (2, 2), indexed [label in a, label in b].
    """
    match = jnp.asarray(find(penalty).match).astype(counts.dtype)
    # The product of the group sizes overflows int32 and is never formed: divide twice.
    inverse = 1 / jnp.maximum(counts.sum(axis=1), 1)
    share = counts * inverse[:, None]
    alpha = jnp.stack([match @ share[1] * inverse[0], -(match.T @ share[0]) * inverse[1]])
    return alpha, match * inverse[0] * inverse[1]


def from_scores(penalty: str | Penalty, scores: Float[Array, " n"], data: Data) -> Float[Array, ""]:
    """The penalty ``R`` at given scores.

    Args:
      penalty: a key of ``PENALTIES``, or a ``Penalty``.
      scores: ``(n,)`` real scores (log-odds).
      data: the rows.

    Returns:
      The non-negative scalar ``R``.
    """
    alpha, pair = coefficients(penalty, cells.counts(data))
    row_alpha = data.weight * cells.spread(alpha, data)
    if not find(penalty).pairwise:
        return jnp.dot(row_alpha, scores) ** 2
    # R does not change when all scores shift; centred ones do not cancel.
    scores = scores - jnp.dot(data.weight, scores) / jnp.maximum(cells.size(data), 1)
    total = cells.sums(scores, data)
    return jnp.dot(jnp.abs(row_alpha), scores**2) - 2 * total[0] @ pair @ total[1]


def score_gradient(penalty: str | Penalty, scores: Float[Array, " n"], data: Data) -> Float[Array, " n"]:
    """Gradient of ``R`` with respect to the scores, ``(n,)``, in closed form."""
    alpha, pair = coefficients(penalty, cells.counts(data))
    row_alpha = data.weight * cells.spread(alpha, data)
    if not find(penalty).pairwise:
        return 2 * jnp.dot(row_alpha, scores) * row_alpha
    total = cells.sums(scores, data)
    other = jnp.stack([pair @ total[1], pair.T @ total[0]])
    return 2 * (jnp.abs(row_alpha) * scores - data.weight * cells.spread(other, data))


def quadratic_form(penalty: str | Penalty, data: Data) -> Float[Array, "d d"]:
    """The matrix ``Q`` with ``R = theta' Q theta`` for the linear model ``f = x theta``.

    The group penalties give ``Q = c c'`` with ``c = sum_i w_i alpha_i x_i``.

    Args:
      penalty: a key of ``PENALTIES``, or a ``Penalty``.
      data: ``n`` rows of ``d`` features.

    Returns:
      ``(d, d)``, symmetric positive semi-definite.
    """
    alpha, pair = coefficients(penalty, cells.counts(data))
    row_alpha = data.weight * cells.spread(alpha, data)
    if not find(penalty).pairwise:
        c = row_alpha @ data.x
        return jnp.outer(c, c)
    return (data.x * jnp.abs(row_alpha)[:, None]).T @ data.x - _across(cells.sums(data.x, data), pair)


def quadratic_form_of_cells(
    penalty: str | Penalty, counts: Float[Array, "2 2"], sums: Float[Array, "2 2 d"], gram: Float[Array, "k d d"]
) -> Float[Array, "d d"]:
    """``quadratic_form`` from cell statistics alone, at a cost independent of the number of rows.

    Args:
      penalty: a key of ``PENALTIES``, or a ``Penalty``.
      counts: rows by [group, label], (2, 2).
      sums: sum of the rows of each cell, (2, 2, d).
      gram: Gram matrix of each cell, in the order (group 0, label 0), (0, 1), (1, 0), (1, 1); read by the individual
        form only, so ``k`` may be 0 otherwise.

    Returns:
      ``(d, d)``, symmetric positive semi-definite up to rounding.
    """
    alpha, pair = coefficients(penalty, counts)
    if not find(penalty).pairwise:
        c = jnp.einsum("gy,gyd->d", alpha, sums)
        return jnp.outer(c, c)
    return jnp.einsum("k,kij->ij", jnp.abs(alpha).ravel(), gram) - _across(sums, pair)


def _across(sums, pair):
    """Products of the cell sums of one group with those of the other, both ways."""
    cross = jnp.einsum("yi,yz,zj->ij", sums[0], pair, sums[1])
    return cross + cross.T
