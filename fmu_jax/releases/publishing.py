"""Parameters with fresh noise, on a grid, and the certified distance that the noise hides."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmu_jax.curvature import Curved, balance, inverse_root
from fmu_jax.data import Data
from fmu_jax.distances import Region, local_distance, retrained_region, shaped_distance
from fmu_jax.objective import Objective, Scalar, quadratic_part
from fmu_jax.privacy import check_norm, check_positive, check_probability, gaussian_epsilon
from fmu_jax.removal import Removal
from fmu_jax.rounding import norm_bound
from fmu_jax.row_blocks import gram
from fmu_jax.showing import one_line
from fmu_jax.tails import outward, round_up, unit_of
from fmu_jax.tracing import is_traced, when_concrete

#: Added up for one noise: their sum's support is finer and wider than that of each.
_COPIES = 4
#: Powers of two between the grid and the least standard deviation.
_FINER = 8
#: No noise is further from zero: a float64 of ``jax.random.normal`` stays within 8.3, and four over two are added.
_REACH = 17.0


class Release(NamedTuple):
    """A published model and its guarantee; everything in it may be public.

    Attributes:
      params: Published parameters; NaN where a trace could not raise what is refused.
      mu: Gaussian-DP parameter of this release; infinite likewise.
      epsilon, delta: Epsilon and delta of this release alone; for any other delta, ``privacy.gaussian_epsilon(mu, 1.0,
        delta)``.
      scale: Standard deviation ``s``.
      spacing: Spacing of the grid of ``params``.
    """

    params: Float[Array, "*k d"]
    mu: Float[Array, ""]
    epsilon: Float[Array, ""]
    delta: Float[Array, ""]
    scale: Float[Array, ""]
    spacing: Float[Array, ""]

    __repr__ = one_line()


def distance_to_retrained(
    objective: Objective, removal: Removal, *, noise: Array | None = None, shape: Array | None = None
) -> Float[Array, ""]:
    """Certified bound on ``|theta^- - theta'|_A`` for the unlearned parameters of a linear model or head.

    Args:
      objective: Objective for the linear model, with any penalty, groups and reweighing.
      removal: Removal from ``remove`` or ``heads.remove_head``.
      noise: The perturbation of the training objective, if there was one.
      shape: ``A``, ``(d, d)`` positive definite; None is the identity.

    Returns:
      The scalar, rounding included; of all classes together for a head of several. Infinite where nothing is known.

    Raises:
      ValueError: A model that is not one linear model or head, or noise or a shape that does not fit it.
    """
    if removal.data.y.ndim == 1:
        return _distance(retrained_region(objective, removal, noise=noise), shape)
    data = removal.data

    def of_class(theta, y, b):
        part = removal._replace(params=theta, data=data._replace(y=y))
        return _distance(retrained_region(objective, part, noise=b), shape)

    return norm_bound(jax.vmap(of_class)(removal.params, data.y, noise))


def _distance(region: Region, shape) -> Float[Array, ""]:
    if shape is None:
        return jnp.minimum(region.distance, local_distance(region))
    return shaped_distance(region, as_shape(shape, region.dual.shape[0], region.dual.dtype))


@jax.default_matmul_precision("highest")
def release(
    params: Any,
    distance: Scalar,
    *,
    key: Array,
    scale: Scalar,
    admitted: Scalar | None = None,
    shape: Array | None = None,
    delta: Scalar = 1e-5,
) -> Release:
    """Publishes parameters with fresh Gaussian noise.

    Args:
      params: The unlearned parameters, ``(d,)``, or ``(k, d)`` for ``k`` classes. Secret, the release is not.
      distance: Certified bound on their distance to the retrained ones in the norm of ``shape``, >= 0; see
        ``distance_to_retrained``. Zero for a model that is retrained exactly.
      key: PRNG key, required; secret, and never used twice.
      scale: Standard deviation ``s``, > 0, fixed beforehand: ``scale_for``.
      admitted: The largest distance that may be published, fixed beforehand; the guarantee is that of this distance,
        whatever the present one is, and so composes. None takes ``distance`` itself as fixed.
      shape: ``A``, ``(d, d)`` positive definite and the same in both worlds; None is the identity.
      delta: Failure probability of ``epsilon``, in (0, 1).

    Returns:
      The ``Release``. Under a trace, where nothing can be raised, its parameters are NaN and its mu infinite wherever
      a ``ValueError`` is due but for ``delta``: a distance that is beyond the admitted one or no number, for instance.
      Traced numbers may have been rounded on their way: a distance within a few roundings of the admitted one is
      beyond it.

    Raises:
      ValueError: A number out of range; a distance beyond the admitted one; a shape that is not safely positive
        definite; a scale too small for the dtype.

    >>> from fmu_jax import datasets, fit, remove
    >>> from fmu_jax.releases import compose, scale_for
    >>> data = datasets.synthetic(500, 3, seed=0).train
    >>> objective = Objective(l2=1e-2, fairness=1.0)
    >>> removal = remove(objective, fit(objective, data).params, data, [3, 14, 15])
    >>> distance = distance_to_retrained(objective, removal)
    >>> scale = scale_for(1e-3, mu=0.3, releases=10)
    >>> published = release(removal.params, distance, key=jax.random.key(0), scale=scale, admitted=1e-3)
    >>> bool(distance < 1e-3), round(float(published.mu), 4), round(float(compose([published.mu] * 10)), 4)
    (True, 0.0949, 0.3)
    """
    params = jnp.asarray(params)
    if params.ndim < 1 or not jnp.issubdtype(params.dtype, jnp.floating):
        raise ValueError(f"`params` must be floating, (d,) or (k, d); got {params.shape} of {params.dtype}")
    fixed = admitted is None
    admitted = distance if fixed else admitted
    check_norm(distance=distance, admitted=admitted)
    check_probability(delta=delta)
    if shape is not None:
        shape = as_shape(shape, params.shape[-1], params.dtype)
    scale = as_scale(scale, params.dtype)
    mu = mu_of(admitted, scale)
    fits = jnp.ones((), bool) if fixed else outward(_fits, distance, admitted) > 0
    published, spacing, fine = add_noise(params, key, scale, shape)
    _check_published(published, spacing, fine, fits, distance, admitted, scale)
    epsilon = gaussian_epsilon(mu, 1.0, delta)
    return _unless_refused(Release(published, mu, epsilon, delta, scale, spacing), fits, fine)


@jax.jit
def _unless_refused(released: Release, fits, fine) -> Release:
    good = fits & fine & (released.mu >= 0)
    mu, epsilon = (jnp.where(good, number, jnp.inf) for number in (released.mu, released.epsilon))
    params, delta = jnp.where(good, released.params, jnp.nan), jnp.asarray(released.delta).astype(epsilon.dtype)
    return released._replace(params=params, mu=mu, epsilon=epsilon, delta=delta)


@when_concrete
def _check_published(published, spacing, fine, fits, distance, admitted, scale) -> None:
    if not fits:
        raise ValueError(
            f"the distance {float(distance):.3g} exceeds the admitted {float(admitted):.3g}; refresh or retrain before "
            "publishing, or plan with a larger `admitted`"
        )
    if not np.isfinite(spacing):
        raise ValueError("`shape` must be positive definite beyond rounding; add a ridge to it, or use float64")
    if not np.all(np.isfinite(published)):
        raise ValueError("`params` must be finite numbers")
    if not fine:
        raise ValueError(
            f"`scale` {float(scale):.3g} is too small for {published.dtype} parameters: published they have size "
            f"{float(jnp.max(jnp.abs(published))):.3g}, and the noise would drown in rounding; use float64, a larger "
            "scale or a `shape` of smaller condition number"
        )


@jax.jit
def add_noise(params, key, scale, shape):
    """Parameters with noise, on the grid; its spacing, infinite if the shape cannot be trusted; whether all is well.

    It is not where the dtype cannot hold the grid at the size that parameters and noise may have, or something is NaN.
    That depends on the parameters, not on the noise. No check of anything else and no guarantee: ``release`` has both.
    """
    noisy, spacing, fine = with_noise(params, key, scale, shape)
    return on_grid(noisy, spacing), spacing, fine


def on_grid(noisy: Array, spacing: Array) -> Array:
    """The nearest points of the grid."""
    return jnp.round(noisy / spacing) * spacing


def with_noise(params, key, scale, shape):
    """As ``add_noise``, not rounded to the grid yet: a state that is not published."""
    copies = jax.random.normal(key, (_COPIES, *params.shape), params.dtype)
    noise, least = copies.sum(axis=0) / math.sqrt(_COPIES), jnp.ones((), params.dtype)
    fine, reach = jnp.ones((), bool), jnp.asarray(_REACH, params.dtype)
    if shape is not None:
        # V A V' >= I, so the covariance V'V of V' xi is no less than A^-1, rounding included.
        root = inverse_root(Curved(shape, balance(shape), jnp.zeros((), params.dtype)), jnp.zeros((), params.dtype))
        fine = jnp.all(jnp.isfinite(root))
        root = jnp.where(fine, root, 0)
        noise, least = noise @ root, jax.lax.rsqrt(jnp.trace(shape))
        reach = _REACH * jnp.max(jnp.sum(jnp.abs(root), axis=0))
    exponent = jnp.floor(jnp.log2(jnp.where(fine, scale * least, 1))) - _FINER
    spacing = jnp.ldexp(jnp.ones((), params.dtype), jax.lax.stop_gradient(exponent).astype(jnp.int32))
    largest = jnp.max(jnp.abs(params)) + scale * reach
    holds = (scale > 0) & (spacing >= jnp.finfo(params.dtype).eps * largest)
    spacing = jnp.where(fine, spacing, jnp.inf)
    return params + scale * noise, spacing, holds & jnp.isfinite(spacing)


def mu_of(admitted: Scalar, scale: Scalar) -> Array:
    """``admitted / scale``, rounded up."""
    return outward(_mu, admitted, scale)


def as_scale(scale: Any, dtype: Any) -> Array:
    """The scale as a scalar of a dtype, or a ValueError that says what it is not."""
    check_positive(scale=scale)
    if jnp.ndim(scale):
        raise ValueError(f"`scale` must be one number, got {jnp.shape(scale)}; noise of several is a `shape`")
    cast = jnp.asarray(scale).astype(dtype)
    if not is_traced(cast) and not 0 < np.asarray(cast) < np.inf:
        raise ValueError(f"`scale` {float(scale):.3g} is no number of {cast.dtype}; use float64")
    return cast


def as_shape(shape: Any, d: int, dtype: Any) -> Float[Array, "d d"]:
    """The shape as a symmetric ``(d, d)`` matrix of a dtype, or a ValueError that says what it is not."""
    shape = jnp.asarray(shape).astype(dtype)
    if shape.shape != (d, d):
        raise ValueError(f"`shape` must be a ({d}, {d}) matrix, got {shape.shape}")
    if not is_traced(shape) and not np.allclose(np.asarray(shape), np.asarray(shape).T, rtol=1e-5, atol=0):
        raise ValueError("`shape` must be symmetric")
    return _symmetric(shape)


_symmetric = jax.jit(lambda shape: (shape + shape.T) / 2)


def _mu(xp, admitted, scale):
    return round_up(xp, admitted / scale, 8, admitted > 0)


def _fits(xp, distance, admitted):
    """1 where the distance is surely at most the admitted one, else 0."""
    # On the host both are exact; elsewhere each may have been rounded.
    exact = 0 if xp is np else 4 * unit_of(xp, distance)
    return xp.where((distance >= 0) & (distance * (1 + exact) <= admitted), 1.0, 0.0)


def release_many(params: Any, distance: Scalar, *, keys: Array, **options: Any) -> Float[Array, "k d"]:
    """The parameters of independent releases of one model, one for each key; all together cost ``sqrt(k)`` times one.

    For experiments that average over the noise.

    Args:
      params: As for ``release``.
      distance: As there.
      keys: ``(k,)`` PRNG keys.
      **options: As there.

    Returns:
      ``(k, d)``; NaN where ``release`` would refuse them.

    Raises:
      ValueError: A number out of range.
    """
    return jax.vmap(lambda key: release(params, distance, key=key, **options).params)(keys)


def noise_shape(objective: Objective, data: Data, kind: str) -> Float[Array, "d d"] | None:
    """The shape of a release's noise, from the remaining rows alone, so that both worlds share it.

    Args:
      objective: Linear.
      data: The remaining rows.
      kind: "isotropic" (None, the identity), "scores" (``X'X / 4`` and the ridge), or "objective" (``X'X / 4``, the
        ridge and the penalty's quadratic form).

    Returns:
      ``A`` for ``release`` and ``distance_to_retrained``.

    Raises:
      ValueError: Another kind.
    """
    if kind not in ("isotropic", "scores", "objective"):
        raise ValueError(f"`kind` must be isotropic, scores or objective, got {kind!r}")
    return None if kind == "isotropic" else _shape(objective, data, kind == "objective")


@partial(jax.jit, static_argnames="penalised")
def _shape(objective, data, penalised):
    curved = gram(data.x, data.weight) / 4
    if penalised:
        return curved + quadratic_part(objective, data)
    return curved + data.weight.sum() * objective.l2 * jnp.eye(data.x.shape[1], dtype=data.x.dtype)
