"""Minimise a fair objective: damped Newton, Newton-CG or L-BFGS, one front door.

``fit`` is eager at the edge (it checks its input and raises when it did not converge) and pure inside: under
``jit`` or ``vmap`` nothing can be checked, and ``FitResult.converged`` says what happened.

Differs from the reference: D11 training ends at the optimum, or says that it did not (the original's L-BFGS closure
reuses stale scores and stops up to 1.3 away from it).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from fmu_jax import cells
from fmu_jax import objective as objectives
from fmu_jax.conjugate_gradients import conjugate_gradients
from fmu_jax.data import Data, as_data, check_data, is_traced
from fmu_jax.linalg import solve_positive
from fmu_jax.objective import Objective, Params, Scalar
from fmu_jax.showing import one_line
from fmu_jax.subsets import restrict, select

#: Up to this many features the linear model is solved with a dense (d, d) Hessian, beyond it matrix-free.
DENSE_LIMIT = 2048

_ARMIJO = 1e-4
_MAX_HALVINGS = 40
_MAX_STALLED = 3


class NotConvergedError(ValueError):
    """A solver stopped before reaching its tolerance."""


class FitResult(NamedTuple):
    """Outcome of ``fit``.

    Attributes:
      params: the minimiser, ``(d,)`` for the linear model.
      converged: ``grad_norm`` is within tolerance.
      grad_norm: ``|grad F| / n_w``, the mean-form gradient norm at ``params``.
      steps: iterations taken, int32.
    """

    params: Any
    converged: Bool[Array, ""]
    grad_norm: Float[Array, ""]
    steps: Int[Array, ""]

    __repr__ = one_line()


@jax.default_matmul_precision("highest")
def fit(
    objective: Objective,
    data: Data,
    *,
    noise: Params | None = None,
    init: Params | None = None,
    tolerance: Scalar | None = None,
    max_steps: Scalar | None = None,
    solver: str = "auto",
    only: str | Sequence[str] | None = None,
    throw: bool = True,
) -> FitResult:
    """Minimises ``objective`` over the rows of weight one.

    The linear model takes damped Newton steps (dense up to ``DENSE_LIMIT`` features, conjugate gradients beyond);
    any other model L-BFGS with a zoom line search.

    Args:
      objective: what to minimise.
      data: ``n`` rows.
      noise: the objective perturbation ``b``, a pytree like the parameters; None is zero.
      init: starting parameters; None is zero, for the linear model only.
      tolerance: mean-form gradient norm at which to stop; None is 1e-10 in float64 and 1e-5 in float32.
      max_steps: largest number of iterations; None is 200 for Newton and 2000 for L-BFGS.
      solver: of the linear model's Newton steps: ``dense``, ``cg`` (matrix-free), or ``auto``: dense up to
        ``DENSE_LIMIT`` features.
      only: names of the parameters to train, such as ``"Dense_1"`` for a flax model's last layer (see ``subsets``); the
        rest stays as in ``init``. None is all of them.
      throw: whether to raise when not converged (not possible under ``jit``).

    Returns:
      A ``FitResult``.

    Raises:
      ValueError: bad rows (see ``check_data``), ``init`` missing for a model that is not linear, or wrong shapes.
      NotConvergedError: the gradient norm stayed above ``tolerance``; the message says where it ended.

    >>> from fmu_jax.data import make_data
    >>> data = make_data([[0.5, 1.0], [0.1, 1.0], [0.2, 1.0], [0.9, 1.0]], y=[0, 1, 0, 1], group=[0, 0, 1, 1])
    >>> bool(fit(Objective(l2=1e-2, fairness=1.0), data).converged)
    True
    """
    data = as_data(data)
    check_data(data)
    if init is None:
        if not objective.linear:
            raise ValueError("`init` is required for a model that is not linear; pass its initial parameters")
        init = jnp.zeros(data.x.shape[1], data.x.dtype)
    check_params(objective, init, data, noise)
    if tolerance is None:
        tolerance = 1e-10 if data.x.dtype == jnp.float64 else 1e-5
    if max_steps is None:
        max_steps = 200 if objective.linear else 2000
    merge = None
    if only is not None:
        objective, init, merge = restrict(objective, init, only)
        noise = None if noise is None else select(noise, only)[0]
    result = minimise(objective, init, data, noise, tolerance, max_steps, use_dense(objective, init, solver))
    if merge is not None:
        result = result._replace(params=merge(result.params))
    if throw and not is_traced(result.converged) and not result.converged:
        raise NotConvergedError(
            f"after {int(result.steps)} steps the mean-form gradient norm is {float(result.grad_norm):.3g}, above "
            f"tolerance={tolerance:.3g}; raise `l2` or `max_steps`, use float64, or pass throw=False to take it as is"
        )
    return result


def check_params(objective: Objective, params: Params, data: Data, noise: Params | None) -> None:
    """Raises ValueError when parameters or noise cannot belong to this objective and data."""
    if objective.linear:
        d = data.x.shape[1] if data.x.ndim == 2 else None
        if d is None:
            raise ValueError(f"the linear model needs features of shape (n, d), got {data.x.shape}")
        for name, array in (("params", params), ("noise", noise)):
            if array is not None and jnp.shape(array) != (d,):
                raise ValueError(f"`{name}` must have shape ({d},), one entry a feature; got {jnp.shape(array)}")
    elif noise is not None and jax.tree.map(jnp.shape, noise) != jax.tree.map(jnp.shape, params):
        raise ValueError("`noise` must be a pytree of the same structure and shapes as the parameters")
    if not all(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves((params, noise))):
        raise ValueError("parameters and noise must be arrays; convert them with jnp.asarray")
    if not is_traced(params, noise):
        bad = [leaf for leaf in jax.tree.leaves((params, noise)) if not np.isfinite(np.asarray(leaf)).all()]
        if bad:
            raise ValueError(f"parameters or noise hold NaN or infinite numbers, among {bad[0].shape}; train again")
    dtypes = {jnp.result_type(leaf) for leaf in jax.tree.leaves((params, noise))}
    if dtypes != {data.x.dtype}:
        raise ValueError(
            f"parameters and noise must have the dtype of the features, {data.x.dtype}; got "
            + ", ".join(sorted(str(dtype) for dtype in dtypes))
        )


def use_dense(objective: Objective, params: Params, solver: str) -> bool:
    """Whether linear systems are solved densely: as ``solver`` says, and for ``auto`` if linear and small.

    Raises:
      ValueError: unknown ``solver``.
    """
    if solver not in ("auto", "dense", "cg"):
        raise ValueError(f"unknown solver {solver!r}; known: auto, dense, cg")
    return solver == "dense" or (solver == "auto" and objective.linear and params.shape[0] <= DENSE_LIMIT)


@partial(jax.jit, static_argnames="dense")
def minimise(objective, init, data, noise, tolerance, max_steps, dense) -> FitResult:
    """What ``fit`` runs once its input is checked; never raises, so other solvers build on it."""
    if not objective.linear:
        return _lbfgs(objective, init, data, noise, tolerance, max_steps)
    return _newton(objective, init, data, noise, tolerance, max_steps, dense=dense)


class _NewtonState(NamedTuple):
    params: Float[Array, " d"]
    grad: Float[Array, " d"]
    best: Float[Array, ""]
    stalled: Int[Array, ""]
    steps: Int[Array, ""]


def _newton(objective, init, data, noise, tolerance, max_steps, *, dense) -> FitResult:
    """Damped Newton for the linear model; every line-search trial costs O(n), as scores move on a line."""
    x, n = data.x, cells.size(data)
    weight = objectives.row_weights(objective, data)
    quadratic = objectives.quadratic_part(objective, data) if dense else None
    linear = jnp.zeros_like(init) if noise is None else noise
    y = data.y.astype(x.dtype)

    def times_quadratic(v):
        if quadratic is not None:
            return quadratic @ v
        by_score = objectives.penalties.score_gradient(objective.penalty, x @ v, data)
        return n * (objective.l2 * v + objective.fairness * (by_score @ x))

    def gradient(params):
        # Through the scores, not through the matrix Q: with a heavy penalty Q theta loses what is left of c.theta.
        return objectives.gradient(objective, params, data, linear)

    def newton_direction(params, grad):
        p = jax.nn.sigmoid(x @ params)
        scale = weight * p * (1 - p)
        if quadratic is not None:
            return -solve_positive((x * scale[:, None]).T @ x + quadratic, grad)
        forcing = jnp.minimum(0.1, jnp.sqrt(jnp.linalg.norm(grad) / n))
        product = conjugate_gradients(
            lambda v: (scale * (x @ v)) @ x + times_quadratic(v), grad, tolerance=forcing, max_steps=500
        )
        return -product.solution

    def step_size(params, grad, direction):
        scores, along = x @ params, x @ direction
        slope, curved = jnp.vdot(linear, direction), times_quadratic(direction)
        first, second = jnp.vdot(curved, params) + slope, jnp.vdot(curved, direction)
        losses = jnp.dot(weight, jax.nn.softplus(scores) - y * scores)

        def change(t):
            trial = scores + t * along
            return jnp.dot(weight, jax.nn.softplus(trial) - y * trial) - losses + t * first + t**2 / 2 * second

        descent = jnp.vdot(grad, direction)
        noise_floor = 8 * jnp.finfo(x.dtype).eps * (losses + jnp.abs(first) + second)

        def too_long(state):
            t, halvings = state
            return ~(change(t) <= _ARMIJO * t * descent + noise_floor) & (halvings < _MAX_HALVINGS)

        return jax.lax.while_loop(too_long, lambda s: (s[0] / 2, s[1] + 1), (jnp.ones((), x.dtype), 0))[0]

    def going(state):
        far = jnp.linalg.norm(state.grad) > tolerance * n
        return far & (state.steps < max_steps) & (state.stalled < _MAX_STALLED)

    def step(state):
        direction = newton_direction(state.params, state.grad)
        params = state.params + step_size(state.params, state.grad, direction) * direction
        # A singular Hessian gives no direction: stay at the last good point, and end as stalled.
        params = jnp.where(jnp.all(jnp.isfinite(params)), params, state.params)
        grad = gradient(params)
        norm = jnp.linalg.norm(grad)
        # Far from the optimum the gradient may grow while F falls; at rounding level neither moves any more.
        moved = jnp.any(params != state.params) & jnp.isfinite(norm)
        progress = moved & ((norm < 0.9 * state.best) | (norm > 1e-6 * n))
        stalled = jnp.where(progress, 0, state.stalled + 1)
        return _NewtonState(params, grad, jnp.minimum(norm, state.best), stalled, state.steps + 1)

    grad = gradient(init)
    zero = jnp.zeros((), jnp.int32)
    end = jax.lax.while_loop(going, step, _NewtonState(init, grad, jnp.linalg.norm(grad), zero, zero))
    grad_norm = jnp.linalg.norm(end.grad) / n
    return FitResult(end.params, grad_norm <= tolerance, grad_norm, end.steps)


def _lbfgs(objective, init, data, noise, tolerance, max_steps) -> FitResult:
    """L-BFGS on the mean form, for any differentiable model."""
    n = cells.size(data)

    def mean_value(params):
        return objectives.value(objective, params, data, noise) / n

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(mean_value)

    def going(carry):
        _, _, norm, _, steps, stalled = carry
        return (norm > tolerance) & (steps < max_steps) & (stalled < 2 * _MAX_STALLED)

    def step(carry):
        params, state, _, best, steps, stalled = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = solver.update(grad, state, params, value=value, grad=grad, value_fn=mean_value)
        params = optax.apply_updates(params, updates)
        norm = optax.tree.norm(optax.tree.get(state, "grad"))
        moved = optax.tree.norm(updates) > 0
        stalled = jnp.where(moved & jnp.isfinite(norm), 0, stalled + 1)
        return params, state, norm, jnp.minimum(best, norm), steps + 1, stalled

    norm = optax.tree.norm(jax.grad(mean_value)(init))
    zero = jnp.zeros((), jnp.int32)
    params, _, _, _, steps, _ = jax.lax.while_loop(going, step, (init, solver.init(init), norm, norm, zero, zero))
    grad_norm = optax.tree.norm(jax.grad(mean_value)(params))
    return FitResult(params, grad_norm <= tolerance, grad_norm, steps)
