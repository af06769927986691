"""The solvers behind ``fit``: damped Newton (dense, or matrix-free by conjugate gradients) and L-BFGS.

They are loops with no derivative of their own; ``fitting.minimise`` gives the minimiser its derivative.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from fmu_jax import cells
from fmu_jax import objective as objectives
from fmu_jax.conjugate_gradients import iterate
from fmu_jax.linalg import solve_positive
from fmu_jax.row_blocks import gram, held
from fmu_jax.showing import one_line

_ARMIJO = 1e-4
_MAX_HALVINGS = 40
_MAX_STALLED = 3


class FitResult(NamedTuple):
    """Outcome of ``fit``.

    Attributes:
      params: The minimiser, ``(d,)`` for the linear model.
      converged: ``grad_norm`` is within tolerance.
      grad_norm: ``|grad F| / n_w``, the mean-form gradient norm at ``params``.
      steps: Iterations taken, int32.
    """

    params: Any
    converged: Bool[Array, ""]
    grad_norm: Float[Array, ""]
    steps: Int[Array, ""]

    __repr__ = one_line()


class _NewtonState(NamedTuple):
    params: Float[Array, " d"]
    grad: Float[Array, " d"]
    best: Float[Array, ""]
    stalled: Int[Array, ""]
    steps: Int[Array, ""]


def damped_newton(objective, init, data, noise, tolerance, max_steps, *, dense) -> FitResult:
    """Damped Newton for the linear model; every line-search trial costs O(n), as scores move on a line."""
    n = cells.size(data)
    weight = objectives.row_weights(objective, data)
    quadratic = objectives.quadratic_part(objective, data) if dense else None
    linear = jnp.zeros_like(init) if noise is None else noise
    y = data.y.astype(data.x.dtype)

    def times_quadratic(x, v):
        if quadratic is not None:
            return quadratic @ v
        by_score = objectives.penalties.score_gradient(objective.penalty, x @ v, data)
        return n * (objective.l2 * v + objective.fairness * (by_score @ x))

    def gradient(x, params):
        # Through the scores, not through the matrix Q: with a heavy penalty Q theta loses what is left of c.theta.
        return objectives.gradient(objective, params, data._replace(x=x), linear)

    def newton_direction(x, params, grad):
        p = jax.nn.sigmoid(x @ params)
        scale = weight * p * (1 - p)
        if quadratic is not None:
            return -solve_positive(gram(x, scale) + quadratic, grad)
        forcing = jnp.minimum(0.1, jnp.sqrt(jnp.linalg.norm(grad) / n))
        return -iterate(lambda v: (scale * (x @ v)) @ x + times_quadratic(x, v), grad, forcing, 500).solution

    def step_size(x, params, grad, direction):
        scores, along = x @ params, x @ direction
        slope, curved = jnp.vdot(linear, direction), times_quadratic(x, direction)
        first, second = jnp.vdot(curved, params) + slope, jnp.vdot(curved, direction)
        losses = jax.nn.softplus(scores) - y * scores

        def change(t):
            # A sum of differences: a difference of sums would carry the rounding of two sums over all rows.
            trial = scores + t * along
            differences = jax.nn.softplus(trial) - y * trial - losses
            return jnp.dot(weight, differences) + t * first + t**2 / 2 * second

        descent = jnp.vdot(grad, direction)
        # `first` is a small difference of large terms where the penalty is heavy: its rounding is that of the terms.
        terms = jnp.vdot(jnp.abs(curved), jnp.abs(params)) + jnp.vdot(jnp.abs(linear), jnp.abs(direction))
        noise_floor = 8 * jnp.finfo(x.dtype).eps * (jnp.dot(weight, losses) + terms + second)

        def too_long(state):
            t, halvings = state
            return ~(change(t) <= _ARMIJO * t * descent + noise_floor) & (halvings < _MAX_HALVINGS)

        return jax.lax.while_loop(too_long, lambda s: (s[0] / 2, s[1] + 1), (jnp.ones((), x.dtype), 0))[0]

    def going(state):
        far = jnp.linalg.norm(state.grad) > tolerance * n
        return far & (state.steps < max_steps) & (state.stalled < _MAX_STALLED)

    def step(state):
        x, state = held(data.x, state)
        direction = newton_direction(x, state.params, state.grad)
        params = state.params + step_size(x, state.params, state.grad, direction) * direction
        # A singular Hessian gives no direction: stay at the last good point, and end as stalled.
        params = jnp.where(jnp.all(jnp.isfinite(params)), params, state.params)
        grad = gradient(x, params)
        norm = jnp.linalg.norm(grad)
        # Far from the optimum the gradient may grow while F falls; at rounding level neither moves any more.
        moved = jnp.any(params != state.params) & jnp.isfinite(norm)
        progress = moved & ((norm < 0.9 * state.best) | (norm > 1e-6 * n))
        stalled = jnp.where(progress, 0, state.stalled + 1)
        return _NewtonState(params, grad, jnp.minimum(norm, state.best), stalled, state.steps + 1)

    grad = gradient(data.x, init)
    zero = jnp.zeros((), jnp.int32)
    end = jax.lax.while_loop(going, step, _NewtonState(init, grad, jnp.linalg.norm(grad), zero, zero))
    grad_norm = jnp.linalg.norm(end.grad) / n
    return FitResult(end.params, grad_norm <= tolerance, grad_norm, end.steps)


def lbfgs(objective, init, data, noise, tolerance, max_steps) -> FitResult:
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
