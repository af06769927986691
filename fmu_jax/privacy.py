"""From a residual gradient to (epsilon, delta) and back.

With objective perturbation ``b ~ N(0, sigma^2 I)`` a model whose remaining-objective gradient is at most ``residual``
cannot be told from a retrained one, up to (epsilon, delta): Guo et al. (2020), Theorem 3. ``gaussian_*`` are the exact
trade-off of two shifted Gaussians (Balle & Wang 2018), under a stronger assumption that their docstrings state.

The classical formula holds for epsilon up to about 1 (Balle & Wang 2018, section 2); ``certified_epsilon`` is what a
certificate reports.

Differs from the reference: D8 epsilon divides by sigma; the original divides by sigma^2. D14 an epsilon for which the
classical formula is too small is replaced by the Gaussian tail bound (the original uses the formula everywhere).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fmu_jax.data import is_traced
from fmu_jax.objective import Scalar


def check_positive(**numbers) -> None:
    """Raises ValueError unless each number is positive and finite; tracers pass."""
    for name, number in numbers.items():
        if not is_traced(number) and not np.all((np.asarray(number) > 0) & np.isfinite(number)):
            raise ValueError(f"`{name}` must be positive and finite, got {number}")


def check_norm(residual) -> None:
    """Raises ValueError for a negative or NaN residual norm; infinity and tracers pass."""
    if not is_traced(residual) and not np.all(np.asarray(residual) >= 0):
        raise ValueError(f"`residual` is a norm and must be >= 0, got {residual}")


def check_probability(**numbers) -> None:
    """Raises ValueError unless each number lies strictly between 0 and 1; tracers pass."""
    for name, number in numbers.items():
        if not is_traced(number) and not np.all((np.asarray(number) > 0) & (np.asarray(number) < 1)):
            raise ValueError(f"`{name}` must lie strictly between 0 and 1, got {number}")


def epsilon_from(residual: Scalar, sigma: Scalar, delta: Scalar) -> Array:
    """``epsilon = (residual / sigma) sqrt(2 ln(1.5 / delta))`` (Guo et al. 2020, Theorem 3; D8).

    The classical formula: too small for epsilons well above 1, where ``certified_epsilon`` takes over.

    Args:
      residual: norm of the remaining objective's gradient, sum form, >= 0.
      sigma: standard deviation of the objective perturbation, > 0.
      delta: failure probability, in (0, 1).

    Returns:
      The scalar epsilon. Like its inverses below it broadcasts, and raises ValueError for a concrete number that is
      out of range.

    >>> round(float(epsilon_from(0.1, 1.0, 1e-5)), 4)
    0.4882
    """
    check_positive(sigma=sigma)
    check_probability(delta=delta)
    check_norm(residual)
    return residual / sigma * jnp.sqrt(2 * jnp.log(1.5 / delta))


def certified_epsilon(residual: Scalar, sigma: Scalar, delta: Scalar) -> Array:
    """The larger of ``epsilon_from`` and the Gaussian tail bound, so that delta is kept at every epsilon (D14).

    The privacy loss between two Gaussians ``mu = residual / sigma`` apart is ``N(mu^2 / 2, mu^2)``; it exceeds
    ``mu^2 / 2 + mu z`` with probability delta where ``z`` is the upper delta quantile of the standard normal.
    Arguments and errors as for ``epsilon_from``.
    """
    classical = epsilon_from(residual, sigma, delta)
    mu = jnp.asarray(residual / sigma)
    upper = -jax.scipy.special.ndtri(jnp.asarray(delta).astype(mu.dtype))
    return jnp.maximum(classical, mu * (mu / 2 + upper))


def residual_from(epsilon: Scalar, sigma: Scalar, delta: Scalar) -> Array:
    """The largest residual that ``epsilon`` admits at a noise level: the inverse of ``certified_epsilon``.

    It is proportional to ``sigma``, so the noise level at which a residual ``r`` costs ``epsilon`` is
    ``r / residual_from(epsilon, 1.0, delta)``, sound at every epsilon. Arguments and errors as for ``epsilon_from``.

    >>> residual = residual_from(3.0, 0.5, 1e-5)
    >>> round(float(certified_epsilon(residual, 0.5, 1e-5)), 9)
    3.0
    """
    check_positive(sigma=sigma, epsilon=epsilon)
    check_probability(delta=delta)
    epsilon = jnp.asarray(epsilon)
    classical = epsilon / jnp.sqrt(2 * jnp.log(1.5 / delta))
    upper = -jax.scipy.special.ndtri(jnp.asarray(delta).astype(classical.dtype))
    return sigma * jnp.minimum(classical, 2 * epsilon / (jnp.sqrt(upper**2 + 2 * epsilon) + upper))


def sigma_from(residual: Scalar, epsilon: Scalar, delta: Scalar) -> Array:
    """Noise level at which a residual costs ``epsilon``: the inverse of ``epsilon_from`` in sigma.

    Sound where epsilon is at most 1. Arguments and errors as for ``epsilon_from``.
    """
    check_positive(epsilon=epsilon)
    check_probability(delta=delta)
    return residual / epsilon * jnp.sqrt(2 * jnp.log(1.5 / delta))


def delta_from(residual: Scalar, sigma: Scalar, epsilon: Scalar) -> Array:
    """Failure probability at a given epsilon: the inverse of ``epsilon_from`` in delta, at most 1.

    Sound where epsilon is at most 1. Arguments and errors as for ``epsilon_from``.
    """
    check_positive(sigma=sigma, epsilon=epsilon)
    residual = jnp.asarray(residual)
    ratio = epsilon * sigma / jnp.where(residual > 0, residual, 1)
    return jnp.where(residual > 0, jnp.minimum(1.5 * jnp.exp(-(ratio**2) / 2), 1.0), 0.0)


def gaussian_delta(residual: Scalar, sigma: Scalar, epsilon: Scalar) -> Array:
    """Exact delta of two Gaussians of scale ``sigma`` whose means are ``residual`` apart.

    It assumes that the residual gradient does not depend on the noise draw, so that retrained and unlearned models are
    one Gaussian shifted; ``delta_from`` does not assume it. ``mu = residual / sigma``,
    ``delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)``. Source: Balle & Wang (2018), Theorem 8.
    """
    check_positive(sigma=sigma)
    mu = jnp.asarray(residual / sigma)
    safe = jnp.where(mu > 0, mu, 1)
    first = jax.scipy.special.log_ndtr(safe / 2 - epsilon / safe)
    second = epsilon + jax.scipy.special.log_ndtr(-safe / 2 - epsilon / safe)
    return jnp.where(mu > 0, jnp.maximum(-jnp.exp(first) * jnp.expm1(second - first), 0), 0)


def gaussian_epsilon(residual: Scalar, sigma: Scalar, delta: Scalar) -> Array:
    """Exact epsilon of the Gaussian trade-off at ``delta``: the inverse of ``gaussian_delta``, by bisection, >= 0.

    Same assumption as ``gaussian_delta``. Source: Balle & Wang (2018), Theorem 8.
    """
    check_positive(sigma=sigma)
    check_probability(delta=delta)
    return _bisect(residual, sigma, delta)


@jax.jit
def _bisect(residual, sigma, delta):
    mu, delta = jnp.broadcast_arrays(jnp.asarray(residual / sigma), jnp.asarray(delta))
    # The privacy loss is N(mu^2/2, mu^2), whose Gaussian tail gives an epsilon that is surely enough.
    low, high = jnp.zeros_like(mu), mu * (mu / 2 + jnp.sqrt(2 * jnp.log(1 / delta)) + 1)

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        above = gaussian_delta(residual, sigma, middle) > delta
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    found = jax.lax.fori_loop(0, 100, halve, (low, high))[1]
    return jnp.where(gaussian_delta(residual, sigma, 0.0) > delta, found, 0)
