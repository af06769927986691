r"""How far the exactly retrained parameters can lie from the unlearned ones, and what that does to a prediction.

Two bounds, both from the gradient that the remaining objective has left at the unlearned parameters ``theta^-``:
strong convexity, ``|theta^- - theta'| <= residual / (n_w l2)``, the same everywhere; and the curvature that the losses
actually have at ``theta^-``, usually far tighter.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmu_jax import cells
from fmu_jax import objective as objectives
from fmu_jax.objective import Objective
from fmu_jax.removal import Removal
from fmu_jax.rounding import gradient_with_error


def check_certifiable(objective: Objective, removal: Removal) -> None:
    """Raises ValueError unless ``removal`` is of one linear model, the only kind with a certificate."""
    if not objective.linear:
        raise ValueError(
            "no certificate exists for a model that is not linear: its objective is not convex, so a small gradient "
            "does not bound the distance to a retrained model; certify a linear head on frozen features"
        )
    if jnp.ndim(removal.params) != 1:
        raise ValueError("shards are retrained exactly and need no certificate")


def local_radius(objective: Objective, removal: Removal, *, noise=None) -> tuple[Array, Array]:
    r"""Radius around ``theta^-``, in the norm of the local Hessian, that holds the retrained parameters.

    Logistic losses are generalised self-concordant: along ``theta^- + t Delta`` each row's curvature shrinks at most by
    ``exp(-t |x_i.Delta|)`` (Bach 2010). With ``H = H'(theta^-)``, ``nu = |grad F'(theta^-)|_{H^-1}`` and
    ``R = max_i |x_i|_{H^-1}`` over remaining rows, integrating that from ``theta^-`` to ``theta'`` gives, where
    ``nu R < 1``,

        |theta^- - theta'|_H <= -ln(1 - nu R) / R.

    Args:
      objective: for the linear model.
      removal: from ``remove``.
      noise: the perturbation.

    Returns:
      The radius (infinite where ``nu R >= 1``) and the lower Cholesky factor of ``H``, ``(d, d)``.
    """
    data, params = removal.data, removal.params
    factor = jnp.linalg.cholesky(objectives.hessian(objective, params, data))
    grad, margin = gradient_with_error(objective, params, data, noise)

    def dual(columns):
        return jax.scipy.linalg.solve_triangular(factor, columns, lower=True)

    # |margin|_{H^-1} <= margin / sqrt(lowest eigenvalue) = margin |factor^-1|_2 <= margin |factor^-1|_F.
    inverse = dual(jnp.eye(params.shape[0], dtype=params.dtype))
    nu = jnp.linalg.norm(dual(grad)) + margin * jnp.linalg.norm(inverse)
    norms = jnp.linalg.norm(data.x @ inverse.T, axis=1)
    largest = jnp.max(jnp.where(data.weight > 0, norms, 0))
    reach = nu * largest
    radius = jnp.where(reach < 1, -jnp.log1p(-jnp.minimum(reach, 1)) / largest, jnp.inf)
    return jnp.where(jnp.isnan(radius), jnp.inf, radius), factor


def prediction_margins(objective: Objective, removal: Removal, x: Float[Array, "n d"], *, noise=None) -> Array:
    """Bound on ``|x_i.(theta^- - theta')|`` for each row: how far retraining could move its score.

    The smaller of ``kappa |x_i|`` (strong convexity) and ``|x_i|_{H^-1}`` times ``local_radius``.

    Args:
      objective: for the linear model.
      removal: from ``remove``.
      x: ``(n, d)`` rows, of training or test data.
      noise: the perturbation.

    Returns:
      ``(n,)``.

    Raises:
      ValueError: a model that is not one linear model.
    """
    check_certifiable(objective, removal)
    return _margins(objective, removal, x, noise)


@jax.jit
def _margins(objective, removal, x, noise):
    grad, margin = gradient_with_error(objective, removal.params, removal.data, noise)
    kappa = (jnp.linalg.norm(grad) + margin) / (cells.size(removal.data) * objective.l2)
    radius, factor = local_radius(objective, removal, noise=noise)
    dual = jax.scipy.linalg.solve_triangular(factor, x.T, lower=True)
    local = jnp.linalg.norm(dual, axis=0) * radius
    return jnp.fmin(kappa * jnp.linalg.norm(x, axis=1), jnp.where(jnp.isnan(local), jnp.inf, local))
