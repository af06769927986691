r"""Fairness penalties on scores, in O(n) from cell sums.

``R`` is the sum over all pairs of groups a < b of the pair's penalty. With ``n_a`` and ``n_b`` rows, scores ``f_i`` and
a label match ``M[y, y']`` that is

    group:       R_ab = ( 1/(n_a n_b) sum_{i in a, j in b} M[y_i, y_j] (f_i - f_j) )^2
    individual:  R_ab =   1/(n_a n_b) sum_{i in a, j in b} M[y_i, y_j] (f_i - f_j)^2

a plain sum: more groups penalise more at the same weight, and a pair with an empty group adds nothing. The inner sum
of the group form is linear in the scores: the pair's gap is ``sum_i alpha_ab(cell of i) f_i`` with

    alpha_ab(a, y) = sum_y' M[y, y'] N_by' / (n_a n_b),     alpha_ab(b, y) = -sum_y' M[y', y] N_ay' / (n_a n_b),

and the individual form adds up to ``sum_i |alpha_ab,i| f_i^2 - 2/(n_a n_b) sum_{y, y'} M[y, y'] T_ay T_by'`` with the
cell sums ``T`` of the scores. So pairs are summed over cells, never over rows. ``equalized_odds`` is, for two groups,
the penalty of Oesterling et al. (2024), section 4; the group and individual forms are those of Berk et al. (2017), "A
convex framework for fair regression".
"""

import dataclasses
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmu_jax import cells
from fmu_jax.arrays import as_numbers
from fmu_jax.data import Data, is_traced
from fmu_jax.penalty_forms import FORMS
from fmu_jax.row_blocks import gram


@dataclasses.dataclass(frozen=True, eq=False)
class Penalty:
    """A fairness penalty; a pytree, so that a sweep over penalties of one form compiles once.

    >>> from fmu_jax import Objective
    >>> false_positives = Penalty(match=[[1, 0], [0, 0]])
    >>> Objective(l2=1e-3, fairness=1.0, penalty=false_positives).linear
    True

    Attributes:
      match: ``M[y, y']``, ``(2, 2)``, entries >= 0: which labels of a pair's lower and higher group are compared.
      pairwise: The individual form in place of the group form.
    """

    match: Any
    pairwise: bool = False


jax.tree_util.register_dataclass(Penalty, data_fields=["match"], meta_fields=["pairwise"])

PENALTIES = {name: Penalty(np.array(form.match), form.pairwise) for name, form in FORMS.items()}


def find(penalty: Any) -> Penalty:
    """The penalty of that name; one that is a ``Penalty`` already is returned as it is.

    Raises:
      ValueError: Unknown name, or neither a name nor a ``Penalty``, such as a function.
    """
    if isinstance(penalty, Penalty):
        return penalty
    if isinstance(penalty, str) and penalty in PENALTIES:
        return PENALTIES[penalty]
    names = ", ".join(PENALTIES)
    if isinstance(penalty, str):
        raise ValueError(f"unknown penalty {penalty!r}; known: {names}")
    kind = f"the function {penalty.__name__!r}" if inspect.isfunction(penalty) else f"a {type(penalty).__name__}"
    raise ValueError(
        f"`penalty` must be a name ({names}) or a Penalty of fmu_jax.penalties, got {kind}; make one by saying which "
        "labels of two groups are compared, such as Penalty(match=[[1, 0], [0, 1]])"
    )


def on_device(penalty: Any) -> Penalty:
    """The penalty of `find` with ``match`` as a JAX array of the default float, where it can be looked at.

    For programs whose argument it is: late in a process that has used both precisions, JAX 0.10 was seen to hand a
    NumPy argument to a program of the other one. All penalties of one form share a program, too.

    Raises:
      ValueError: See `find`.
    """
    penalty = find(penalty)
    if isinstance(penalty.match, list | tuple | np.ndarray) and not is_traced(penalty.match):
        with jax.ensure_compile_time_eval():
            return dataclasses.replace(penalty, match=jnp.asarray(penalty.match, float))
    return penalty


def check(penalty: Any) -> None:
    """Raises ValueError unless the penalty is known and its ``match``, where it can be looked at, is a (2, 2) >= 0."""
    match = find(penalty).match
    if not is_traced(match):
        numbers = np.asarray(as_numbers(match, "match"))
        if numbers.shape[-2:] != (2, 2) or not np.all((numbers >= 0) & np.isfinite(numbers)):
            raise ValueError(f"`match` must be a (2, 2) matrix of finite numbers >= 0, got {numbers.tolist()}")


def pairs_of(groups: int) -> tuple[np.ndarray, np.ndarray]:
    """The lower and the higher group of each pair, ``(pairs,)`` each, in the order (0, 1), (0, 2), ..., (1, 2), ..."""
    return np.triu_indices(groups, 1)


def coefficients(
    penalty: str | Penalty, counts: Float[Array, "groups 2"]
) -> tuple[Float[Array, "pairs groups 2"], Float[Array, "groups 2 groups 2"]]:
    """Cell coefficients of a penalty.

    Args:
      penalty: A key of ``PENALTIES``, or a ``Penalty``.
      counts: ``cells.counts``, (groups, 2) indexed [group, label]; an empty group gives zero coefficients.

    Returns:
      ``alpha`` (pairs, groups, 2), indexed [pair, group, label], zero outside the pair's two groups; and
      ``match / (n_a n_b)`` between any two cells, (groups, 2, groups, 2), symmetric, zero within a group.
    """
    match = jnp.asarray(find(penalty).match, counts.dtype)
    groups = counts.shape[0]
    first, second = pairs_of(groups)
    is_first, is_second = (jnp.eye(groups, dtype=counts.dtype)[part][:, :, None] for part in (first, second))
    # The product of the group sizes overflows int32 and is never formed: divide twice.
    inverse = 1 / jnp.maximum(counts.sum(axis=1), 1)
    share = counts * inverse[:, None]
    up = share[second] @ match.T * inverse[first][:, None]
    down = share[first] @ match * inverse[second][:, None]
    alpha = is_first * up[:, None] - is_second * down[:, None]
    above = jnp.triu(jnp.ones((groups, groups), counts.dtype), 1)[:, None, :, None]
    across = above * match[None, :, None, :] + above.transpose(2, 1, 0, 3) * match.T[None, :, None, :]
    return alpha, across * inverse[:, None, None, None] * inverse[None, None, :, None]


def gaps(alpha: Float[Array, "pairs groups 2"], values: Float[Array, "n *k"], data: Data) -> Float[Array, "pairs *k"]:
    """The gap ``sum_i w_i alpha_i values_i`` of each pair of groups.

    Args:
      alpha: From ``coefficients``.
      values: A number ``(n,)`` or a vector ``(n, k)`` for each row.
      data: The rows.

    Returns:
      ``(pairs,)`` or ``(pairs, k)``.
    """
    if alpha.shape[0] == 1:
        # One product, twice to ten times faster than sums by cell.
        return (data.weight * cells.spread(alpha[0], data) @ values)[None]
    return jnp.einsum("pgy,gy...->p...", alpha, cells.sums(values, data))


def from_scores(penalty: str | Penalty, scores: Float[Array, " n"], data: Data) -> Float[Array, ""]:
    """The penalty ``R`` at given scores.

    Args:
      penalty: A key of ``PENALTIES``, or a ``Penalty``.
      scores: ``(n,)`` real scores (log-odds).
      data: The rows.

    Returns:
      The non-negative scalar ``R``.
    """
    alpha, across = coefficients(penalty, cells.counts(data))
    if not find(penalty).pairwise:
        return jnp.sum(gaps(alpha, scores, data) ** 2)
    # R does not change when all scores shift; centred ones do not cancel.
    scores = scores - jnp.dot(data.weight, scores) / jnp.maximum(cells.size(data), 1)
    total = cells.sums(scores, data)
    own = data.weight * cells.spread(jnp.abs(alpha).sum(axis=0), data)
    return jnp.dot(own, scores**2) - jnp.einsum("gy,gyhz,hz->", total, across, total)


def score_gradient(penalty: str | Penalty, scores: Float[Array, " n"], data: Data) -> Float[Array, " n"]:
    """Gradient of ``R`` with respect to the scores, ``(n,)``, in closed form."""
    alpha, across = coefficients(penalty, cells.counts(data))
    if not find(penalty).pairwise:
        by_cell = jnp.einsum("p,pgy->gy", 2 * gaps(alpha, scores, data), alpha)
        return data.weight * cells.spread(by_cell, data)
    own = cells.spread(jnp.abs(alpha).sum(axis=0), data)
    other = jnp.einsum("gyhz,hz->gy", across, cells.sums(scores, data))
    return 2 * data.weight * (own * scores - cells.spread(other, data))


def quadratic_form(penalty: str | Penalty, data: Data) -> Float[Array, "d d"]:
    """The matrix ``Q`` with ``R = theta' Q theta`` for the linear model ``f = x theta``.

    The group penalties give ``Q = sum c c'``, over pairs of groups, with ``c = sum_i w_i alpha_i x_i``.

    Args:
      penalty: A key of ``PENALTIES``, or a ``Penalty``.
      data: ``n`` rows of ``d`` features.

    Returns:
      ``(d, d)``, symmetric positive semi-definite.
    """
    alpha, across = coefficients(penalty, cells.counts(data))
    if not find(penalty).pairwise:
        c = gaps(alpha, data.x, data)
        return c.T @ c
    own = data.weight * cells.spread(jnp.abs(alpha).sum(axis=0), data)
    return gram(data.x, own) - _between(cells.sums(data.x, data), across)


def quadratic_form_of_cells(
    penalty: str | Penalty,
    counts: Float[Array, "groups 2"],
    sums: Float[Array, "groups 2 d"],
    gram: Float[Array, "k d d"],
) -> Float[Array, "d d"]:
    """``quadratic_form`` from cell statistics alone, at a cost independent of the number of rows.

    Args:
      penalty: A key of ``PENALTIES``, or a ``Penalty``.
      counts: Rows by [group, label], (groups, 2).
      sums: Sum of the rows of each cell, (groups, 2, d).
      gram: Gram matrix of each cell, in the order (group 0, label 0), (0, 1), (1, 0), ...; read by the individual form
        only, so ``k`` may be 0 otherwise.

    Returns:
      ``(d, d)``, symmetric positive semi-definite up to rounding.
    """
    alpha, across = coefficients(penalty, counts)
    if not find(penalty).pairwise:
        c = jnp.einsum("pgy,gyd->pd", alpha, sums)
        return c.T @ c
    return jnp.einsum("k,kij->ij", jnp.abs(alpha).sum(axis=0).ravel(), gram) - _between(sums, across)


def _between(sums, across):
    """Products of the cell sums of one group with those of another, both ways, over all pairs of groups."""
    flat = sums.reshape(-1, sums.shape[-1])
    return flat.T @ across.reshape(2 * [flat.shape[0]]) @ flat
