r"""Newton-style removal: ``fair_newton`` (the paper), ``newton`` (Guo et al. 2020), ``influence`` (Koh & Liang 2017).

All three are ``theta - H^{-1} g``; they differ in what ``H`` and ``g`` know. ``'`` marks what remains:

    fair_newton   H = Hessian of F' at theta      g = grad F'(theta)              fair term and true gradient
    influence     H = Hessian of F  at theta      g = grad F'(theta)              curvature of all rows: first order
    newton        H = Hessian of F'_plain         g = -grad of the removed rows   sees neither fair term nor F'

Differs from the reference: D1 cell sums in place of an n_a x n_b array; D2 the true gradient at the start, so that
an unconverged start is repaired and not inherited; D3 ridge and fairness normalised by what remains; D4 the bias
enters the predictions once.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from fmu_jax import cells
from fmu_jax import objective as objectives
from fmu_jax.conjugate_gradients import conjugate_gradients
from fmu_jax.data import Data
from fmu_jax.fitting import use_dense
from fmu_jax.linalg import solve_positive
from fmu_jax.objective import Objective, Params, Scalar
from fmu_jax.removal.update import Update, exact_update
from fmu_jax.spectrum import damping_for, extreme_eigenvalues

#: Products by which ``damping=None`` measures the extreme eigenvalues, and the condition number that it allows.
LANCZOS_STEPS = 64
CONDITION = 1e4

_STATIC = ("solver", "gauss_newton")


@partial(jax.jit, static_argnames=("steps", *_STATIC))
def fair_newton(
    objective: Objective,
    params: Params,
    data: Data,
    remaining: Data,
    *,
    noise: Params | None = None,
    steps: int = 1,
    solver: str = "auto",
    damping: Scalar | None = None,
    gauss_newton: bool = False,
    tolerance: Scalar | None = None,
    max_steps: Scalar = 1000,
) -> Update:
    """Newton steps on the fair objective of what remains: ``theta - H'(theta)^{-1} grad F'(theta)``.

    Args:
      objective: Objective on which ``params`` was trained.
      params: The trained parameters; they need not be converged.
      data: The rows before removal (not read: everything is in ``remaining``).
      remaining: The same rows with the forgotten ones at weight zero.
      noise: The perturbation ``b`` of the training objective.
      steps: Number of Newton steps; a second one squares the error again. ``converged`` is about the last solve.
      solver: ``dense``, ``cg`` (matrix-free), or ``auto``: dense for a linear model of up to ``DENSE_LIMIT`` features.
      damping: Adds ``n_w damping I`` to the Hessian, >= 0. None is 0 for the linear model; for any other the least that
        bounds the condition number by ``CONDITION``, as Lanczos measures the extreme eigenvalues (``damping_for``).
      gauss_newton: Use the Gauss-Newton product in place of the Hessian; ``auto`` then means ``cg``.
      tolerance: Relative residual of the conjugate gradients; None is 1e-10 in float64 and 1e-5 in float32.
      max_steps: Their largest number.

    Returns:
      The ``Update``.

    Source: Oesterling et al. (2024), Algorithm 1 and Theorem 1; see D1 to D4.
    """
    del data
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1, got {steps}")
    step = partial(
        _step, objective, solver=solver, damping=damping, gauss_newton=gauss_newton, tolerance=tolerance,
        max_steps=max_steps,
    )  # fmt: skip
    update = exact_update(params, params, remaining.x.dtype)
    for _ in range(steps):
        update = step(update.params, remaining, objectives.gradient(objective, update.params, remaining, noise))
    return update


@partial(jax.jit, static_argnames=_STATIC)
def influence(
    objective: Objective,
    params: Params,
    data: Data,
    remaining: Data,
    *,
    noise: Params | None = None,
    solver: str = "auto",
    damping: Scalar | None = None,
    gauss_newton: bool = False,
    tolerance: Scalar | None = None,
    max_steps: Scalar = 1000,
) -> Update:
    """First-order removal: the Hessian of *all* rows, ``theta - H(theta)^{-1} grad F'(theta)``.

    The fair term enters through both factors, so fairness is honoured to first order. Arguments as for
    ``fair_newton``, except that there is one step. Source: Koh & Liang (2017), section 2.
    """
    grad = objectives.gradient(objective, params, remaining, noise)
    return _step(
        objective, params, data, grad, solver=solver, damping=damping, gauss_newton=gauss_newton,
        tolerance=tolerance, max_steps=max_steps,
    )  # fmt: skip


@partial(jax.jit, static_argnames=_STATIC)
def newton(
    objective: Objective,
    params: Params,
    data: Data,
    remaining: Data,
    *,
    noise: Params | None = None,
    solver: str = "auto",
    damping: Scalar | None = None,
    gauss_newton: bool = False,
    tolerance: Scalar | None = None,
    max_steps: Scalar = 1000,
) -> Update:
    """The plain Newton update of Guo et al. (2020), section 3.1: ``theta + H'_plain(theta)^{-1} (removed gradients)``.

    It assumes a start that is stationary for a sum of per-row losses, which a fair objective is not: the fairness
    penalty is not seen, and reweighing weights stay what they were before the removal. Arguments as for
    ``influence``; ``noise`` cancels in the difference of gradients.
    """
    del noise
    plain = objectives.plain(objective)
    row_weights = objectives.row_weights(objective, data)
    before = data._replace(weight=row_weights)
    after = remaining._replace(weight=jnp.where(remaining.weight > 0, row_weights, jnp.zeros_like(row_weights)))
    grad = optax.tree.sub(objectives.gradient(plain, params, after), objectives.gradient(plain, params, before))
    return _step(
        plain, params, after, grad, solver=solver, damping=damping, gauss_newton=gauss_newton, tolerance=tolerance,
        max_steps=max_steps,
    )  # fmt: skip


def _step(objective, params, rows, grad, *, solver, damping, gauss_newton, tolerance, max_steps) -> Update:
    """Solves ``(H + n_w damping I) step = grad`` and takes the step."""
    product_of = objectives.gauss_newton_vector_product if gauss_newton else objectives.hessian_vector_product
    n = cells.size(rows)

    def undamped(v):
        return product_of(objective, params, rows, v)

    if damping is None:
        damping = chosen_damping(objective, undamped, grad, n)
    damping = jnp.asarray(damping, n.dtype)

    def product(v):
        return optax.tree.add_scale(undamped(v), n * damping, v)

    if not use_dense(objective, params, "cg" if gauss_newton and solver == "auto" else solver):
        found = conjugate_gradients(product, grad, tolerance=tolerance, max_steps=max_steps)
        end = optax.tree.sub(params, found.solution)
        return Update(end, params, found.converged, found.residual_norm, found.steps, damping, found.curvature / n)

    flat, unravel = ravel_pytree(grad)
    identity = jnp.eye(flat.size, dtype=flat.dtype)
    if objective.linear:
        matrix = objectives.hessian(objective, params, rows) + n * damping * identity
    else:
        matrix = jax.lax.map(lambda v: ravel_pytree(product(unravel(v)))[0], identity, batch_size=64)
    step = solve_positive(matrix, flat)
    norm = jnp.linalg.norm(flat)
    # That of an exact solve is zero, and so is its derivative.
    residual = jax.lax.stop_gradient(jnp.linalg.norm(matrix @ step - flat) / jnp.where(norm > 0, norm, 1))
    converged = residual <= jnp.sqrt(jnp.finfo(flat.dtype).eps)  # False when the factorisation gave NaN
    one = jnp.ones((), jnp.int32)
    return Update(optax.tree.sub(params, unravel(step)), params, converged, residual, one, damping)


def newton_direction(objective: Objective, params: Params, *, rows: Data, grad: Params, **options) -> Params:
    """``-(H + n damping I)^{-1} grad`` at ``params``; options as for ``influence``, less its last two."""
    update = _step(objective, params, rows, grad, tolerance=None, max_steps=1000, **options)
    return optax.tree.sub(update.params, params)


def chosen_damping(objective: Objective, product, grad, n) -> Float[Array, ""]:
    """What ``damping=None`` stands for: nothing for the linear model, else what ``damping_for`` asks for.

    Lanczos starts from the gradient: it then measures the operator in the space in which conjugate gradients will
    solve, and draws nothing at random.
    """
    if objective.linear:
        return jnp.zeros((), n.dtype)
    extremes = extreme_eigenvalues(lambda v: optax.tree.scale(1 / n, product(v)), grad, steps=LANCZOS_STEPS)
    return damping_for(extremes, condition=CONDITION)
