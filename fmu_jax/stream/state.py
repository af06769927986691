r"""Streaming removal: deletions one by one, each certified, at a cost independent of the number of rows.

A state holds an anchor ``a`` (a converged fit) and the moments of the remaining rows there (``fmu_jax.moments``).
Removing rows subtracts their own terms; the model is then the Newton step *from the anchor* for what remains,

    theta = a + D,    D = -H'(a)^{-1} grad F'(a),

so after any sequence of deletions, in any order and batching, it equals the one-shot ``fair_newton`` of their union.
Its residual needs no row (see ``certificates``; ``K = sum_i om_i |x_i| x_i x_i'``, ``L = 1/(6 sqrt 3)``):

    |grad F'(theta)| <= (L/2) D' K D + |grad F'(a) + H'(a) D| + rounding.

When the epsilon of that bound passes the budget, ``refresh`` re-solves and moves the anchor. Everything is pure,
and except for the checks at the edge jittable, so that requests can be scanned:

    state, epsilons = jax.lax.scan(lambda s, row: ((s := delete(s, row)), s.epsilon), state, rows)

Source: Oesterling et al. (2024), section 4, one removal at a time; Guo et al. (2020), section 3.3, for the budget.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fmu_jax.certificates import LOGISTIC_CURVATURE
from fmu_jax.data import Data, as_data, cell_counts, check_data, check_values
from fmu_jax.fitting import FitResult, NotConvergedError, check_params, minimise
from fmu_jax.linalg import norm, solve_positive
from fmu_jax.moments import Moments, Quadratic, assemble, minus, moments
from fmu_jax.objective import Objective, Scalar
from fmu_jax.privacy import certified_epsilon, check_positive, check_probability
from fmu_jax.rounding import widened_norm
from fmu_jax.showing import one_line
from fmu_jax.tracing import is_traced, when_concrete


class State(NamedTuple):
    """A deployed linear model that can forget; a pytree whose size does not depend on the number of rows.

    Attributes:
      params: The current model, ``(d,)``.
      residual_bound: Bound on the norm of the remaining objective's gradient at ``params``, sum form.
      epsilon: The paper's, of objective perturbation: ``certified_epsilon`` of the bound; infinite without noise. It
        assumes a residual that does not depend on ``noise``, which a refresh on a budget violates (``privacy``).
      objective: Objective to minimise.
      noise: The perturbation ``b``, ``(d,)``. Secret, as is the anchor: publish ``params`` only.
      anchor: Where ``moments`` were taken.
      moments: Moments of the remaining rows.
      row_norm: Largest row norm when the anchor was set.
      sigma, delta, budget: Noise level, failure probability, and the epsilon that a published model may have.
      deleted, refreshes: How many rows, and how many times, since ``start``, int32.
    """

    params: Float[Array, " d"]
    residual_bound: Float[Array, ""]
    epsilon: Float[Array, ""]
    objective: Objective
    noise: Float[Array, " d"]
    anchor: Float[Array, " d"]
    moments: Moments
    row_norm: Float[Array, ""]
    sigma: Float[Array, ""]
    delta: Float[Array, ""]
    budget: Float[Array, ""]
    deleted: Int[Array, ""]
    refreshes: Int[Array, ""]

    __repr__ = one_line()

    @property
    def counts(self) -> Int[Array, "groups 2"]:
        """Remaining rows by [group, label]."""
        return self.moments.counts


@jax.default_matmul_precision("highest")
def start(
    objective: Objective, fit: FitResult, data: Data, *, noise, sigma: Scalar, delta: Scalar, budget: Scalar
) -> State:
    """Anchors a stream of deletions at a fitted model.

    Args:
      objective: Objective for the linear model.
      fit: Fit from ``fmu_jax.fit`` with this objective, data and noise.
      data: The ``n`` rows that it was fitted on.
      noise: The perturbation ``b`` that it was fitted with, ``(d,)``; None or zero gives an infinite epsilon.
      sigma: Standard deviation that ``b`` was drawn with, > 0.
      delta: Failure probability, in (0, 1).
      budget: Largest epsilon of a model that may be published, > 0.

    Returns:
      The ``State``.

    Raises:
      ValueError: A number out of range; a model that is not linear; a fit that did not converge; bad rows.

    >>> import fmu_jax
    >>> data = fmu_jax.datasets.synthetic(500, 3, seed=0).train
    >>> objective = Objective(l2=1e-2, fairness=1.0)
    >>> noise = fmu_jax.sample_noise(data.x[0], key=jax.random.key(0), sigma=1.0)
    >>> fitted = fmu_jax.fit(objective, data, noise=noise)
    >>> state = start(objective, fitted, data, noise=noise, sigma=1.0, delta=1e-5, budget=1.0)
    >>> state = delete(state, jax.tree.map(lambda leaf: leaf[jnp.array([3, 14, 15])], data))
    >>> int(state.deleted), bool(needs_refresh(state)), bool(state.epsilon < 0.1)
    (3, False, True)
    """
    if not objective.linear:
        raise ValueError("streaming removal is for the linear model only; use fmu_jax.remove for any other")
    data = as_data(data)
    check_data(data)
    check_params(objective, fit.params, data, noise)
    check_positive(sigma=sigma, budget=budget)
    check_probability(delta=delta)
    if not is_traced(fit.converged) and not fit.converged:
        raise ValueError(f"the fit did not converge (grad_norm={float(fit.grad_norm):.3g}); fit again with more steps")
    noise = jnp.zeros_like(fit.params) if noise is None else noise
    zero = jnp.zeros((), jnp.int32)
    return _anchor(objective, fit.params, data, noise, sigma, delta, budget, zero, zero)


@jax.jit
def _anchor(objective, params, data, noise, sigma, delta, budget, deleted, refreshes) -> State:
    dtype = params.dtype
    sigma, delta, budget, nothing = (jnp.asarray(number).astype(dtype) for number in (sigma, delta, budget, 0))
    objective = jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(dtype), objective)
    largest = jnp.max(jnp.where(data.weight > 0, jnp.linalg.norm(data.x, axis=1), 0))
    return _solve(
        State(
            params=params,
            residual_bound=nothing,
            epsilon=nothing,
            objective=objective,
            noise=noise,
            anchor=params,
            moments=moments(objective, params, data),
            row_norm=largest,
            sigma=sigma,
            delta=delta,
            budget=budget,
            deleted=deleted,
            refreshes=refreshes,
        )
    )


def _solve(state: State) -> State:
    return solve(state)[0]


def solve(state: State) -> tuple[State, Quadratic]:
    """The Newton step from the anchor for the state's moments, with its bound; and the quadratic that it minimises."""
    # Without the barrier XLA computes the matrices anew wherever they are used (5 times slower at d = 512 on a CPU).
    q = jax.lax.optimization_barrier(assemble(state.objective, state.anchor, state.noise, state.moments))
    step = -solve_positive(q.hessian, q.gradient)
    length, d = norm(step), step.shape[0]
    left = widened_norm(q.gradient + q.hessian @ step, q.gradient_error + q.hessian_error * length)
    curved = jnp.vdot(step, q.reach @ step) + q.reach_error * length**2
    # Evaluating the bound rounds too.
    bound = (1 + 8 * (d + 8) * jnp.finfo(step.dtype).eps) * (LOGISTIC_CURVATURE / 2 * curved + left)
    epsilon = jnp.where(jnp.any(state.noise != 0), certified_epsilon(bound, state.sigma, state.delta), jnp.inf)
    return state._replace(params=state.anchor + step, residual_bound=bound, epsilon=epsilon), q


@jax.default_matmul_precision("highest")
def delete(state: State, rows: Data) -> State:
    """Removes rows from the model: O(k d^2 + d^3), whatever the number of remaining rows.

    The state does not know which rows it was trained on: that each is removed once, and was trained on, is for the
    caller to ensure (``stream.take`` does). A model whose ``needs_refresh`` is true must be refreshed before it is
    published.

    Args:
      state: State from ``start``, ``delete`` or ``refresh``.
      rows: What to remove: ``k`` rows, or one without the leading axis; rows of weight zero are padding.

    Returns:
      The new ``State``; the old one is untouched.

    Raises:
      ValueError: Rows that do not fit the model or cannot be rows of it, or that would empty a cell (group, label).
    """
    rows = as_data(rows)
    if rows.x.ndim == 1:
        rows = jax.tree.map(lambda leaf: leaf[None], rows)
    d, dtype = state.anchor.shape[0], state.anchor.dtype
    if rows.x.ndim != 2 or rows.x.shape[1] != d or rows.x.dtype != dtype:
        raise ValueError(f"`rows` must hold {d} features of {dtype} each; got {rows.x.shape} of {rows.x.dtype}")
    if rows.groups != state.counts.shape[0]:
        raise ValueError(f"`rows` are of {rows.groups} groups and the state of {state.counts.shape[0]}; pass `groups`")
    check_values(rows, what="the rows to delete")
    after = _delete(state, rows)
    if not is_traced(after, rows):
        check_counts(state.counts, after.counts)
    return after


@jax.jit
def _delete(state: State, rows: Data) -> State:
    return without_rows(state, rows)[0]


def without_rows(state: State, rows: Data) -> tuple[State, Quadratic]:
    """What ``delete`` computes, of ``(k, d)`` rows, and the quadratic at the anchor; nothing is checked."""
    removed = moments(state.objective, state.anchor, rows)
    after = state._replace(
        moments=minus(state.moments, removed), deleted=state.deleted + removed.counts.sum(dtype=jnp.int32)
    )
    return solve(after)


def check_counts(before, after) -> None:
    """Raises ValueError where rows were taken from a cell (group, label) and none is left."""
    before, after = np.asarray(before), np.asarray(after)
    for group, label in np.argwhere((after < before) & (after < 1)):
        raise ValueError(
            f"removing {before[group, label] - after[group, label]} rows of group {group} with label {label} leaves "
            f"none of {before[group, label]}; keep at least one row of every group and label, or train anew"
        )


@when_concrete
def check_held(state: State, data: Data) -> None:
    """Raises ValueError unless ``data`` have, up to rounding, the moments at the anchor that the state holds."""
    check_data(data)
    held = np.asarray(cell_counts(data))
    if not np.array_equal(held, state.counts):
        raise ValueError(
            f"`data` holds {held.tolist()} rows by [group][label] where the state holds "
            f"{np.asarray(state.counts).tolist()}; pass what remains after the deletions"
        )
    for name, (apart, error) in zip(_ERRORS, jax.device_get(_apart(state, data)), strict=True):
        if not apart <= error:
            raise ValueError(
                f"`data` are as many rows as the state holds but not the same: their {name} by cell are {apart:.3g} "
                "apart; pass what remains after the deletions"
            )


#: The moments that tell rows apart, and which error of theirs is whose.
_ERRORS = {"sums": "sums", "gradient": "gradient", "curvature": "matrices", "reach": "matrices"}


@jax.jit
def _apart(state: State, data: Data) -> list[tuple[Float[Array, ""], Float[Array, ""]]]:
    """How far the moments of ``data`` are from the state's, and how far rounding can have moved them."""
    mine, theirs = state.moments, moments(state.objective, state.anchor, data)
    apart = [jnp.linalg.norm(jnp.ravel(getattr(mine, name) - getattr(theirs, name))) for name in _ERRORS]
    errors = [getattr(mine.errors, error) + getattr(theirs.errors, error) for error in _ERRORS.values()]
    return list(zip(apart, errors, strict=True))


def needs_refresh(state: State) -> Bool[Array, ""]:
    """Whether the epsilon of the current model passes the budget, so that it must not be published."""
    return ~(state.epsilon <= state.budget)


@jax.default_matmul_precision("highest")
def refresh(state: State, data: Data, *, tolerance: Scalar | None = None) -> State:
    """Re-solves on what remains, from the current parameters; the anchor moves to the optimum.

    The result is the exactly retrained model under the same noise, to solver tolerance, so its epsilon starts anew.

    Args:
      state: The state.
      data: What remains: weight zero for every deleted row.
      tolerance: As for ``fit``.

    Returns:
      The new ``State``.

    Raises:
      ValueError: ``data`` are not the rows that the state holds.
      NotConvergedError: The solver stopped early.
    """
    data = as_data(data)
    check_params(state.objective, state.params, data, state.noise)
    check_held(state, data)
    if tolerance is None:
        tolerance = 1e-10 if data.x.dtype == jnp.float64 else 1e-5
    after, result = _refresh(state, data, tolerance)
    if not is_traced(result.converged) and not result.converged:
        raise NotConvergedError(
            f"the refresh stopped after {int(result.steps)} steps at mean-form gradient norm "
            f"{float(result.grad_norm):.3g}, above tolerance={float(tolerance):.3g}; use float64, or a larger tolerance"
        )
    return after


@jax.jit
def _refresh(state: State, data: Data, tolerance) -> tuple[State, FitResult]:
    result = minimise(state.objective, state.params, data, state.noise, tolerance, 200, True)
    after = _anchor(
        state.objective, result.params, data, state.noise, state.sigma, state.delta, state.budget, state.deleted,
        state.refreshes + 1,
    )  # fmt: skip
    return after, result
