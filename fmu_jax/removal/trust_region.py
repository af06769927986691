r"""Newton steps within a trust region, for deletions so biased that a single step goes astray.

Each step minimises the quadratic model along the Newton direction within a ball of radius ``r`` around the present
point, ``p = min(1, r / |s|) s`` with ``s = -H'^{-1} grad F'``. It is taken where the objective falls by a tenth
or more of what the model promised; the radius is quartered where it falls by less than a quarter of that, and doubled
where the ball held the step back and it falls by more than three quarters (Nocedal & Wright 2006, Algorithm 4.1).

Certified unlearning by such steps, for deletions that are no random sample, is the proposal of Guo & Cao (2026,
arXiv 2601.06967), who state a bound on the final gradient that is known before the run, from Lipschitz constants within
the balls. Nothing of that bound is used here: the gradient that is left is computed exactly, after the run, at the
price of one pass (``certify``), and the distance to the retrained model follows from it, whatever the deletion was.
A radius of ``|grad| / L``, with ``L`` at least the largest eigenvalue of the Hessian, would never let a Newton step
pass, as ``|H^{-1} g| >= |g| / L``: steps then have the length of gradient descent's.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fmu_jax import cells
from fmu_jax import objective as objectives
from fmu_jax.data import Data
from fmu_jax.objective import Objective, Params, Scalar
from fmu_jax.privacy import check_positive
from fmu_jax.removal.newton import newton_direction
from fmu_jax.removal.update import Update

#: Share of the promised decrease below which a step is refused, and the bounds between which the radius stays.
_REFUSED, _POOR, _GOOD = 0.1, 0.25, 0.75


def trust_region(
    objective: Objective,
    params: Params,
    data: Data,
    remaining: Data,
    *,
    noise: Params | None = None,
    radius: Scalar | None = None,
    max_steps: Scalar = 50,
    tolerance: Scalar | None = None,
    solver: str = "auto",
    damping: Scalar | None = None,
    gauss_newton: bool = False,
) -> Update:
    """Newton steps on the fair objective of what remains, each within a ball that follows how well the last one did.

    Args:
      objective: Objective on which ``params`` was trained, for any model.
      params: The trained parameters.
      data: The rows before removal (not read).
      remaining: The same rows with the forgotten ones at weight zero.
      noise: The perturbation of the training objective.
      radius: Radius of the first ball, > 0; None is the length of the first Newton step.
      max_steps: The largest number of steps, refused ones counted.
      tolerance: Mean-form gradient norm at which to stop; None is 1e-10 in float64 and 1e-5 in float32.
      solver: As for ``fair_newton``.
      damping: As there.
      gauss_newton: As there.

    Returns:
      The ``Update``: ``start`` is the point before the last step that was taken, ``residual`` the mean-form gradient
      norm at the end.

    Raises:
      ValueError: A number out of range.
    """
    del data
    check_positive(max_steps=max_steps, radius=1.0 if radius is None else radius)
    if tolerance is None:
        tolerance = 1e-10 if remaining.x.dtype == jnp.float64 else 1e-5
    options = {"solver": solver, "damping": damping, "gauss_newton": gauss_newton}
    first = jnp.asarray(jnp.inf if radius is None else radius, remaining.x.dtype)
    return _search(objective, params, remaining, noise, first, max_steps, tolerance, **options)


@partial(jax.jit, static_argnames=("solver", "gauss_newton"))
def _search(objective, params, remaining, noise, radius, max_steps, tolerance, *, solver, damping, gauss_newton):
    n, unit = cells.size(remaining), jnp.finfo(remaining.x.dtype).eps
    direction = partial(
        newton_direction, objective, rows=remaining, solver=solver, damping=damping, gauss_newton=gauss_newton
    )

    def value(x):
        return objectives.value(objective, x, remaining, noise)

    def gradient(x):
        grad = objectives.gradient(objective, x, remaining, noise)
        return grad, optax.tree.norm(grad) / n

    def unfinished(carry):
        *_, residual, _, steps, stuck = carry
        return (residual > tolerance) & (steps < max_steps) & ~stuck

    def step(carry):
        x, start, level, grad, residual, radius, steps, _ = carry
        move = direction(x, grad=grad)
        length = optax.tree.norm(move)
        radius = jnp.where(jnp.isinf(radius), length, radius)
        share = jnp.minimum(1, radius / jnp.where(length > 0, length, 1))
        slope = jnp.negative(optax.tree.vdot(grad, move))
        promised = (share - share**2 / 2) * slope
        there = optax.tree.add_scale(x, share, move)
        new = value(there)
        # A decrease that the rounding of the objective hides cannot be checked: near the minimum Newton is right.
        hidden = jnp.abs(promised) <= 64 * unit * jnp.abs(level)
        ratio = jnp.where(hidden, 1, (level - new) / jnp.where(promised > 0, promised, jnp.inf))
        taken = (ratio > _REFUSED) & jnp.isfinite(new)
        longer = (ratio > _GOOD) & (share < 1)
        radius = jnp.where(ratio > _POOR, jnp.where(longer, 2 * radius, radius), share * length / 4)
        x, start = (jax.tree.map(lambda a, b: jnp.where(taken, a, b), *pair) for pair in ((there, x), (x, start)))
        level = jnp.where(taken, new, level)
        grad, left = gradient(x)
        return x, start, level, grad, left, radius, steps + 1, hidden & ~(left < residual)

    grad, residual = gradient(params)
    begin: Any = (params, params, value(params), grad, residual, radius, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    x, start, _, _, residual, _, steps, _ = jax.lax.while_loop(unfinished, step, begin)
    return Update(x, start, residual <= tolerance, residual, steps)
