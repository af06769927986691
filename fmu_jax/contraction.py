r"""Bounds on how close gradient descent comes to the minimiser: one before the first step, one by repeating the
descent.

Every curvature of the remaining objective lies between ``m = n_w l2`` and its smoothness ``M``, so a step of size
``eta`` brings ``theta`` closer to the minimiser ``theta'`` at the rate ``gamma = max(|1 - eta M|, |1 - eta m|)``, and
after ``T`` steps

    |theta_T - theta'| <= gamma^T |theta_0 - theta'| <= gamma^T |grad F'(theta_0)| / m.

A computed step is off by its rounding, which the later steps contract: ``bound <- gamma bound + rounding``.
Source: Neel et al. (2021), section 3; Nesterov (2004), Theorem 2.1.15.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fmu_jax import cells, penalties
from fmu_jax import objective as objectives
from fmu_jax.data import Data
from fmu_jax.objective import Objective, Scalar
from fmu_jax.removal import Removal
from fmu_jax.removal.descent import curvature_range
from fmu_jax.rounding import depth, gradient_with_error, roundings
from fmu_jax.showing import one_line


class Replay(NamedTuple):
    """A descent that was repeated.

    Attributes:
      end: ``theta_T``, one step from ``removal.start``.
      slack: Bound on the distance between ``end`` and the last iterate as ``descent`` rounded it.
      distance: ``>= |theta_T - theta'|``, a priori, for the iterate of ``descent`` however it was rounded.
      contraction: The rate ``gamma``; no less than 1 where a step may diverge.
      start_off: ``|removal.start - theta_{T-1}|``.
      params_off: ``|removal.params - theta_T|``: published noise, or rounding.
      same_start: Whether ``start_off`` is rounding, and nothing was solved inside, as nothing is by ``descent``.
    """

    end: Float[Array, " d"]
    slack: Float[Array, ""]
    distance: Float[Array, ""]
    contraction: Float[Array, ""]
    start_off: Float[Array, ""]
    params_off: Float[Array, ""]
    same_start: Bool[Array, ""]

    __repr__ = one_line()


@partial(jax.jit, static_argnames="steps")
def replay_descent(
    objective: Objective, before: Array, removal: Removal, *, noise=None, steps: int, step_size: Scalar | None = None
) -> Replay:
    """Repeats a descent from ``before`` on ``removal.data``, with bounds on its rounding and on where it ends.

    Args:
      objective: Objective for the linear model.
      before: The parameters before the removal, ``(d,)``.
      removal: What is to be recognised as the result.
      noise: The perturbation of the training objective.
      steps: Number of steps.
      step_size: Sum form; None is that of ``descent``.

    Returns:
      The ``Replay``.
    """
    data, dtype = removal.data, before.dtype
    size, size_error, rate = contraction(objective, data, step_size)
    n = data.x.shape[0]
    # What a sum over rows in any order can be off by, relative to the blocked one of `gradient_with_error`.
    any_order = max(1.0, _roundings(n, dtype) / roundings(depth(*data.x.shape), dtype))

    def step(params):
        grad, error = gradient_with_error(objective, params, data, noise)
        moved = size * jnp.linalg.norm(grad)
        # Twice, because the iterate that was rounded otherwise is itself a little elsewhere.
        off = 2 * size * any_order * error + size_error * moved
        return params - size * grad, off + 8 * roundings(1, dtype) * (jnp.linalg.norm(params) + moved)

    def contract(_, carry):
        params, bound = carry
        params, off = step(params)
        return params, rate * bound + off

    grad, error = gradient_with_error(objective, before, data, noise)
    bound = (jnp.linalg.norm(grad) + error) / (cells.size(data) * objective.l2)
    start, bound = jax.lax.fori_loop(0, steps - 1, contract, (before, bound))
    end, slack = step(removal.start)
    start_off = jnp.linalg.norm(removal.start - start)
    # Tells one descent from another method, and is no bound: rounding is many orders of magnitude smaller.
    tolerance = jnp.sqrt(jnp.finfo(dtype).eps) * (jnp.linalg.norm(before) + jnp.linalg.norm(start))
    params_off = jnp.linalg.norm(removal.params - end)
    same_start = (start_off <= tolerance) & (removal.steps == 0)
    return Replay(end, slack, rate * bound + slack, rate, start_off, params_off, same_start)


def contraction(objective: Objective, data: Data, step_size: Scalar | None) -> tuple[Array, Array, Array]:
    """Step size, a bound on its relative rounding error, and the rate ``gamma`` rounded up.

    Args:
      objective: Objective for the linear model.
      data: What remains.
      step_size: Sum form; None is ``2 / (M + m)``.

    Returns:
      Three scalars.
    """
    x, n = data.x, cells.size(data)
    largest, smallest = curvature_range(objective, data)
    weight, squares = objectives.row_weights(objective, data), jnp.sum(x**2, axis=1)
    # The size of the terms that add up to the curvature: those of the penalty may cancel.
    match = jnp.max(jnp.abs(jnp.asarray(penalties.find(objective.penalty).match).astype(x.dtype)))
    farthest = jnp.max(jnp.where(data.weight > 0, squares, 0))
    terms = jnp.dot(weight, squares) / 4 + n * objective.l2
    pairs = data.groups * (data.groups - 1) // 2
    terms += 8 * n * objective.fairness * pairs * jnp.maximum(match, 1) ** 2 * farthest
    error = 2 * _roundings(x.shape[0] + 8 * x.shape[1], x.dtype) * terms
    if step_size is None:
        size, size_error = 2 / (largest + smallest), 4 * error / (largest + smallest)
    else:
        size, size_error = jnp.asarray(step_size).astype(x.dtype), jnp.zeros((), x.dtype)
    slowest = size * jnp.maximum(1 - size_error, 0) * n * objective.l2
    return size, size_error, jnp.maximum(size * (1 + size_error) * (largest + error) - 1, 1 - slowest)


def _roundings(m: int, dtype) -> float:
    """``roundings``, infinite where so many can do anything."""
    return roundings(m, dtype) if m * float(jnp.finfo(dtype).eps) < 1 else float("inf")
