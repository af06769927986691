"""``fit`` minimises a fair objective, by damped Newton, Newton-CG or L-BFGS.

Eager calls check their input and raise if they did not converge. Under ``jit`` or ``vmap`` only concrete values can be
checked, and ``FitResult.converged`` says whether the solver converged.

The parameters are differentiable, in both modes and to any order, in ``l2``, ``fairness``, the penalty, the rows, their
weights and the noise: by the implicit function theorem at the minimiser, not through the solver's steps. ``init`` and
``tolerance`` have no part in a minimiser, so their derivatives are zero; where ``converged`` is false, all are NaN.

Differs from the reference: D11 training ends at the optimum, or says that it did not (the original's L-BFGS closure
reuses stale scores and stops up to 1.3 away from it).
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fmu_jax import objective as objectives
from fmu_jax.arrays import as_numbers
from fmu_jax.conjugate_gradients import inverse_product
from fmu_jax.data import Data, as_data, check_data
from fmu_jax.linalg import solve_positive
from fmu_jax.minimisers import FitResult, damped_newton, lbfgs
from fmu_jax.objective import Objective, Params, Scalar
from fmu_jax.subsets import restrict, select
from fmu_jax.tracing import NO_TANGENT, is_traced, nan_unless

#: Up to this many features the linear model is solved with a dense (d, d) Hessian, beyond it matrix-free.
DENSE_LIMIT = 2048


class NotConvergedError(ValueError):
    """A solver stopped before reaching its tolerance."""


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
      objective: Objective to minimise.
      data: ``n`` rows.
      noise: The objective perturbation ``b``, a pytree like the parameters; None is zero.
      init: Starting parameters; None is zero, for the linear model only.
      tolerance: Mean-form gradient norm at which to stop; None is 1e-10 in float64 and 1e-5 in float32.
      max_steps: Largest number of iterations; None is 200 for Newton and 2000 for L-BFGS.
      solver: Solver of the linear model's Newton steps: ``dense``, ``cg`` (matrix-free), or ``auto``: dense up to
        ``DENSE_LIMIT`` features.
      only: Names of the parameters to train, such as ``"Dense_1"`` for a flax model's last layer (see ``subsets``); the
        rest stays as in ``init``. None is all of them.
      throw: Whether to raise when not converged (not possible under ``jit``).

    Returns:
      A ``FitResult``.

    Raises:
      ValueError: Bad rows (see ``check_data``), ``init`` missing for a model that is not linear, or wrong shapes.
      NotConvergedError: The gradient norm stayed above ``tolerance``; the message says where it ended.

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
        init = jnp.zeros(data.x.shape[-1], data.x.dtype)  # The check below refuses what is no (n, d).
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
    for leaf in jax.tree.leaves((params, noise)):
        as_numbers(leaf, "parameters or noise")
    dtypes = {jnp.result_type(leaf) for leaf in jax.tree.leaves((params, noise))}
    if dtypes != {data.x.dtype}:
        raise ValueError(
            f"parameters and noise must have the dtype of the features, {data.x.dtype}; got "
            + ", ".join(sorted(str(dtype) for dtype in dtypes))
        )
    if not is_traced(params, noise):
        with np.errstate(over="ignore"):
            leaves = [np.asarray(leaf).astype(data.x.dtype) for leaf in jax.tree.leaves((params, noise))]
        bad = [leaf for leaf in leaves if not np.isfinite(leaf).all()]
        if bad:
            raise ValueError(f"parameters or noise hold NaN or infinite numbers, among {bad[0].shape}; train again")


def use_dense(objective: Objective, params: Params, solver: str) -> bool:
    """Whether linear systems are solved densely: as ``solver`` says, and for ``auto`` if linear and small.

    Raises:
      ValueError: Unknown ``solver``.
    """
    if solver not in ("auto", "dense", "cg"):
        raise ValueError(f"unknown solver {solver!r}; known: auto, dense, cg")
    return solver == "dense" or (solver == "auto" and objective.linear and params.shape[0] <= DENSE_LIMIT)


@partial(jax.jit, static_argnames="dense")
def minimise(objective, init, data, noise, tolerance, max_steps, dense) -> FitResult:
    """What ``fit`` runs once its input is checked; never raises, so other solvers build on it."""
    return _minimiser(dense, objective, init, data, noise, tolerance, max_steps)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _minimiser(dense, objective, init, data, noise, tolerance, max_steps) -> FitResult:
    if not objective.linear:
        return lbfgs(objective, init, data, noise, tolerance, max_steps)
    return damped_newton(objective, init, data, noise, tolerance, max_steps, dense=dense)


@_minimiser.defjvp
def _(dense, primals, tangents):
    """``H d(theta) = -d(grad F)`` at the minimiser: the implicit function theorem, whatever path led there."""
    objective, _, data, noise, *_ = primals
    result = _minimiser(dense, *primals)
    shift = jax.jvp(
        lambda objective, data, noise: objectives.gradient(objective, result.params, data, noise),
        (objective, data, noise),
        (tangents[0], *tangents[2:4]),
    )[1]
    if dense and objective.linear:
        moved = solve_positive(objectives.hessian(objective, result.params, data), shift)
    else:
        moved = inverse_product(lambda v: objectives.hessian_vector_product(objective, result.params, data, v), shift)
    moved = nan_unless(result.converged, optax.tree.scale(-1, moved))
    return result, FitResult(moved, NO_TANGENT, jnp.zeros_like(result.grad_norm), NO_TANGENT)
