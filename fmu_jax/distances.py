r"""Bounds on the distance of the exactly retrained parameters from the unlearned ones, and on their predictions.

Two bounds, both from the gradient that the remaining objective has left at the unlearned parameters ``theta^-``:
strong convexity, ``|theta^- - theta'| <= residual / (n_w l2)``, the same everywhere; and the curvature that the losses
actually have at ``theta^-``, usually far tighter.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmu_jax import cells, linalg, row_blocks
from fmu_jax.curvature import hessian_with_error, inverse_root, mapped_norm, spectral_norm_bound
from fmu_jax.fitting import check_params
from fmu_jax.objective import Objective
from fmu_jax.removal import Removal
from fmu_jax.rounding import frobenius_bound, gradient_with_error, norm_bound, roundings, widened_norm
from fmu_jax.showing import one_line


def check_certifiable(objective: Objective, removal: Removal) -> None:
    """Raises ValueError unless ``removal`` is of one linear model, the only kind with a certificate."""
    if not objective.linear:
        raise ValueError(
            "no certificate exists for a model that is not linear: its objective is not convex, so a small gradient "
            "does not bound the distance to a retrained model; certify a linear head on frozen features"
        )
    if jnp.ndim(removal.params) != 1:
        raise ValueError("shards are retrained exactly and need no certificate")


class Region(NamedTuple):
    """A region around the unlearned parameters that contains the exactly retrained ones, ``theta'``.

    Every bound holds for the exact numbers, whatever rounding did; none is NaN.

    Attributes:
      residual_norm: ``|grad F'(theta^-)|``, widened by ``rounding_margin``.
      rounding_margin: Bound on the rounding error in it.
      distance: ``residual_norm / (n_w l2) >= |theta^- - theta'|``.
      radius: Bound on ``|theta^- - theta'|_H`` in the norm of ``H = H'(theta^-)``; infinite where no bound follows.
      dual: Inverse of the lower Cholesky factor of ``H``, rounded up, ``(d, d)``: ``|v|_{H^-1} <= |dual v|``, so that
        ``|v.(theta^- - theta')| <= radius |dual v|`` for every ``v`` (see ``curvature.inverse_root``).
    """

    residual_norm: Float[Array, ""]
    rounding_margin: Float[Array, ""]
    distance: Float[Array, ""]
    radius: Float[Array, ""]
    dual: Float[Array, "d d"]

    __repr__ = one_line()


@jax.default_matmul_precision("highest")
def retrained_region(objective: Objective, removal: Removal, *, noise=None) -> Region:
    r"""Bounds how far the retrained parameters lie from the unlearned ones, in two norms.

    Logistic losses are generalised self-concordant: along ``theta^- + t Delta`` each row's curvature shrinks at most
    by ``exp(-t |x_i.Delta|)`` (Bach 2010, Lemma 1). With ``nu = |grad F'(theta^-)|_{H^-1}`` and
    ``R = max_i |x_i|_{H^-1}`` over remaining rows, integrating that from ``theta^-`` to ``theta'`` gives, where
    ``nu R < 1``,

        |theta^- - theta'|_H <= -ln(1 - nu R) / R.

    Args:
      objective: Objective for the linear model.
      removal: Removal from ``remove``.
      noise: The perturbation of the training objective.

    Returns:
      The ``Region``.

    Raises:
      ValueError: A model that is not one linear model, or noise that does not fit it.
    """
    check_certifiable(objective, removal)
    check_params(objective, removal.params, removal.data, noise)
    return _region(objective, removal, noise)


@jax.jit
def _region(objective, removal, noise) -> Region:
    data, params = removal.data, removal.params
    grad, margin = gradient_with_error(objective, params, data, noise)
    n = cells.size(data)
    dual = inverse_root(hessian_with_error(objective, params, data), n * objective.l2)
    # |margin|_{H^-1} <= margin |dual|_2 <= margin |dual|_F.
    nu = mapped_norm(dual, grad) + margin * frobenius_bound(dual)
    largest = row_blocks.largest(lambda x, w: jnp.where(w > 0, mapped_norm(dual, x), 0), data.x, data.weight)
    residual = widened_norm(grad, margin)
    margin = residual - linalg.norm(grad)
    return Region(residual, margin, convex_distance(residual, n, objective.l2), local_radius(nu, largest), dual)


def convex_distance(residual, n, l2) -> Float[Array, ""]:
    """``residual / (n l2)``, rounded up; infinite without a ridge."""
    distance = residual / (n * l2) * (1 + roundings(8, residual.dtype))
    return jnp.where(jnp.isnan(distance), jnp.inf, distance)


def local_radius(nu, largest) -> Float[Array, ""]:
    """``-ln(1 - nu R) / R`` for ``R = largest``, rounded up; infinite unless ``nu R < 1``."""
    nu, largest = jnp.asarray(nu), jnp.asarray(largest)
    margin = roundings(16, nu.dtype)
    reach = nu * largest * (1 + margin)
    inside = reach < 1  # Where it is false the derivative is zero.
    safe = jnp.where(inside & (reach > 0), reach, 0.5)
    growth = jnp.where(reach > 0, -jnp.log1p(-safe) / safe, 1)
    return jnp.where(inside, nu * growth * (1 + margin), jnp.inf)


def local_distance(region: Region) -> Float[Array, ""]:
    """Bound on ``|theta^- - theta'|`` by the curvature at ``theta^-``, infinite where none follows."""
    known = jnp.isfinite(region.radius)
    return within(region.radius, spectral_norm_bound(jnp.where(known, region.dual, 1)))


def within(radius, wide) -> Float[Array, ""]:
    """``radius wide``, rounded up; infinite, with a derivative of zero, where the radius is."""
    known = jnp.isfinite(radius)
    return jnp.where(known, jnp.where(known, radius, 0) * wide * (1 + roundings(4, radius.dtype)), jnp.inf)


def shaped_distance(region: Region, shape: Float[Array, "d d"]) -> Float[Array, ""]:
    """Bound on ``|theta^- - theta'|_A`` for a symmetric positive semi-definite ``A``, rounded up.

    The smaller of ``radius |V A V'|_2^1/2``, ``V`` the region's dual, and ``distance |A|_2^1/2``.
    """
    known = jnp.isfinite(region.radius) & jnp.all(jnp.isfinite(region.dual))
    dual_norm, everywhere = shape_norms(jnp.where(known, region.dual, 1), shape)
    local = jnp.where(known, jnp.where(known, region.radius, 0) * dual_norm, jnp.inf)
    bound = jnp.minimum(local, region.distance * everywhere)
    return jnp.where(jnp.isnan(bound), jnp.inf, bound * (1 + roundings(16, shape.dtype)))


def shape_norms(dual: Float[Array, "d d"], shape: Float[Array, "d d"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Upper bounds of ``|V A V'|_2^1/2`` and ``|A|_2^1/2`` for the dual ``V`` and a shape ``A``."""
    size = jnp.abs(dual)
    shaped = dual @ shape @ dual.T
    slack = roundings(2 * shape.shape[0] + 8, shape.dtype) * frobenius_bound(size @ jnp.abs(shape) @ size.T)
    return linalg.root(spectral_norm_bound((shaped + shaped.T) / 2) + slack), linalg.root(spectral_norm_bound(shape))


def prediction_margins(region: Region, x: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Bound on ``|x_i.(theta^- - theta')|`` for each row: how far retraining could move its score.

    The smaller of ``distance |x_i|`` and ``radius |x_i|_{H^-1}``.

    Args:
      region: Region from ``retrained_region``.
      x: ``(n, d)`` rows, of training or test data.

    Returns:
      ``(n,)``.
    """
    mapped, size = row_blocks.by_row(lambda x: (mapped_norm(region.dual, x), norm_bound(x)), x)
    local, everywhere = region.radius * mapped, region.distance * size
    margins = jnp.fmin(everywhere, jnp.where(jnp.isnan(local), jnp.inf, local))
    return margins * (1 + roundings(4, x.dtype))
