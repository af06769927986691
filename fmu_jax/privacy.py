"""From a residual gradient to (epsilon, delta) and back.

**A shift that is fixed beforehand.** ``gaussian_*`` are the exact trade-off of two Gaussians whose means are apart by
a shift that does not depend on the noise (Balle & Wang 2018). A release with fresh noise is such a pair: ``releases``.

**Objective perturbation.** With ``b ~ N(0, sigma^2 I)`` in training, a model whose remaining gradient is at most
``residual`` cannot be told from a retrained one, up to (epsilon, delta): Guo et al. (2020), Theorem 3, behind
``epsilon_from``, ``certified_epsilon`` and its inverse ``residual_from``. The theorem takes the residual ``u`` as a
fixed shift. In truth ``u = u(b)``, and with ``z = b - u(b)`` the privacy loss is

    (|z|^2 - |b|^2) / (2 sigma^2) - log |det(I - Du(b))|.

A smooth Newton step with ``|Du| << 1`` is hardly affected, but a jump in ``b`` is. A refresh that starts when a bound
passes a budget leaves a gap that retrained models reach and unlearned ones never do
(``tests/fmu/test_assumption.py``: 3 % of them, with every epsilon below 1), and rounded parameters lie on a grid. The
figures are the paper's, to compare with it; they are no guarantee of a series, nor of a stream with refreshes.

The classical formula holds for epsilon up to about 1 (Balle & Wang 2018, section 2); certificates report the other.

Differs from the reference: D8 epsilon divides by sigma; the original divides by sigma^2. D14 an epsilon for which the
classical formula is too small is replaced by the Gaussian tail bound (the original uses the formula everywhere).

Every function rounds to the safe side: what is claimed is never less than the truth of the numbers given. Concrete
numbers are computed with in float64 on the host, whatever their dtype; traced ones in theirs, with a margin for all
roundings (``tails``). Results have the arguments' dtype, float32 at least, and broadcast.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.scipy.stats import norm
from jaxtyping import Array

from fmu_jax.arrays import as_numbers
from fmu_jax.objective import Scalar
from fmu_jax.tails import bisect, gaussian_delta_bound, outward, round_up, unit_of
from fmu_jax.tracing import is_traced

#: Roundings in a closed form below, those of its logarithms, roots and quantiles included.
_FEW = 32
#: Halvings of an interval of epsilons or mus.
_HALVINGS = 80


def check_positive(**numbers) -> None:
    """Raises ValueError unless each number is positive and finite; tracers pass."""
    _check_each(numbers, lambda values: (values > 0) & np.isfinite(values), "must be positive and finite")


def check_norm(**numbers) -> None:
    """Raises ValueError for a negative or NaN number; infinity and tracers pass."""
    _check_each(numbers, lambda values: values >= 0, "is a norm and must be >= 0")


def check_not_negative(**numbers) -> None:
    """Raises ValueError unless each number is >= 0 and finite; tracers pass."""
    _check_each(numbers, lambda values: (values >= 0) & np.isfinite(values), "must be finite and >= 0")


def check_probability(**numbers) -> None:
    """Raises ValueError unless each number lies strictly between 0 and 1; tracers pass."""
    _check_each(numbers, lambda values: (values > 0) & (values < 1), "must lie strictly between 0 and 1")


def _check_each(numbers, sound, rule: str) -> None:
    for name, number in numbers.items():
        if not is_traced(number):
            values = np.asarray(as_numbers(np.asarray(number) if np.isscalar(number) else number, name))
            if not np.all(sound(values)):
                raise ValueError(f"`{name}` {rule}, got {number}")


def epsilon_from(residual: Scalar, sigma: Scalar, delta: Scalar) -> Array:
    """``epsilon = (residual / sigma) sqrt(2 ln(1.5 / delta))`` (Guo et al. 2020, Theorem 3; D8).

    The classical formula: too small for epsilons well above 1, where ``certified_epsilon`` takes over. Both assume a
    residual that does not depend on ``b``, see above.

    Args:
      residual: Norm of the remaining objective's gradient, sum form, >= 0.
      sigma: Standard deviation of the objective perturbation, > 0.
      delta: Failure probability, in (0, 1).

    Returns:
      The scalar epsilon. Like its inverses below it broadcasts, and raises ValueError for a concrete number that is
      out of range.

    >>> round(float(epsilon_from(0.1, 1.0, 1e-5)), 4)
    0.4882
    """
    _check(residual, sigma, delta)
    return outward(_classical, residual, sigma, delta)


def _check(residual, sigma, delta) -> None:
    check_positive(sigma=sigma)
    check_probability(delta=delta)
    check_norm(residual=residual)


def _classical(xp, residual, sigma, delta):
    bound = residual / sigma * xp.sqrt(2 * (math.log(1.5) - xp.log(delta)))
    return round_up(xp, bound, _FEW, residual > 0)


def certified_epsilon(residual: Scalar, sigma: Scalar, delta: Scalar) -> Array:
    """The larger of ``epsilon_from`` and the Gaussian tail bound, so that delta is kept at every epsilon (D14).

    The privacy loss between two Gaussians ``mu = residual / sigma`` apart is ``N(mu^2 / 2, mu^2)``; it exceeds
    ``mu^2 / 2 + mu z`` with probability delta where ``z`` is the upper delta quantile of the standard normal.
    Arguments and errors as for ``epsilon_from``.
    """
    _check(residual, sigma, delta)
    return outward(_certified, residual, sigma, delta)


def _certified(xp, residual, sigma, delta):
    mu, upper = residual / sigma, _upper_quantile(xp, delta)
    slack = _FEW * unit_of(xp, delta) * (mu + xp.abs(upper) + 1)
    classical, tail = _classical(xp, residual, sigma, delta), mu * (mu / 2 + upper + slack)
    tail = tail * (1 + _FEW * unit_of(xp, mu))
    # No maximum: where both are zero it has half the derivative of each.
    return xp.where(tail > classical, tail, classical)


def _upper_quantile(xp, delta):
    """The upper ``delta`` quantile of the standard normal."""
    return -(scipy.special.ndtri(delta) if xp is np else jax.scipy.special.ndtri(delta))


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
    return outward(_admitted, epsilon, sigma, delta, up=False)


def _admitted(xp, epsilon, sigma, delta):
    unit = unit_of(xp, delta)
    classical = epsilon / xp.sqrt(2 * (math.log(1.5) - xp.log(delta)))
    upper = _upper_quantile(xp, delta)
    upper = upper + _FEW * unit * (xp.abs(upper) + 1)
    root = xp.sqrt(upper**2 + 2 * epsilon)
    # The root of mu^2/2 + upper mu = epsilon, by the form that does not cancel.
    other = xp.where(upper > 0, 2 * epsilon / (root + xp.abs(upper)), root + xp.abs(upper))
    return sigma * xp.minimum(classical, other) * (1 - _FEW * unit)


def gaussian_delta(residual: Scalar, sigma: Scalar, epsilon: Scalar) -> Array:
    """Exact delta of two Gaussians of scale ``sigma`` whose means are ``residual`` apart.

    It is about a shift that does not depend on the noise, as that of a release is (``releases``); a residual gradient
    depends on the noise draw, so for objective perturbation this is no guarantee, nor are the conversions above.
    ``mu = residual / sigma``, ``delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)``.

    Args:
      residual: Distance of the means, >= 0.
      sigma: Standard deviation, > 0.
      epsilon: >= 0.

    Returns:
      The scalar delta, rounded up.

    Raises:
      ValueError: A concrete number out of range.

    Source: Balle & Wang (2018), Theorem 8.
    """
    check_positive(sigma=sigma)
    check_norm(residual=residual)
    check_not_negative(epsilon=epsilon)
    return outward(_delta, residual, sigma, epsilon, slopes=_slopes_of_delta)


def gaussian_epsilon(residual: Scalar, sigma: Scalar, delta: Scalar) -> Array:
    """Exact epsilon of the Gaussian trade-off at ``delta``: the inverse of ``gaussian_delta``, by bisection, >= 0.

    What it is about, its arguments and errors as for ``gaussian_delta``; it is rounded up. Source: Balle & Wang (2018),
    Theorem 8.
    """
    check_positive(sigma=sigma)
    check_norm(residual=residual)
    check_probability(delta=delta)
    return outward(_epsilon, residual, sigma, delta, slopes=_slopes_of_epsilon)


def gaussian_mu(epsilon: Scalar, delta: Scalar) -> Array:
    """The largest ``residual / sigma`` that ``gaussian_epsilon`` admits: the parameter of Gaussian DP, rounded down.

    Args:
      epsilon: > 0.
      delta: Failure probability in (0, 1).

    Returns:
      The scalar ``mu``.

    Raises:
      ValueError: A concrete number out of range.

    >>> mu = gaussian_mu(1.0, 1e-5)
    >>> round(float(mu), 4), round(float(gaussian_epsilon(mu, 1.0, 1e-5)), 6)
    (0.2681, 1.0)

    Source: Dong, Roth & Su (2022), Corollary 2.13.
    """
    check_positive(epsilon=epsilon)
    check_probability(delta=delta)
    return outward(_mu, epsilon, delta, up=False, slopes=_slopes_of_mu)


def _delta(xp, residual, sigma, epsilon):
    return gaussian_delta_bound(xp, residual / sigma, epsilon)


def _epsilon(xp, residual, sigma, delta):
    mu, delta = xp.broadcast_arrays(residual / sigma, delta * (1 - 4 * unit_of(xp, delta)))
    # The privacy loss is N(mu^2/2, mu^2), whose Gaussian tail gives an epsilon that is surely enough.
    enough = round_up(xp, mu * (mu / 2 + xp.sqrt(-2 * xp.log(delta))), _FEW)
    found = bisect(xp, lambda epsilon: gaussian_delta_bound(xp, mu, epsilon) <= delta, enough, 0 * mu, steps=_HALVINGS)
    found = xp.where(found >= 0, found, xp.inf)  # Of what is no number nothing is known.
    return xp.where(gaussian_delta_bound(xp, mu, 0 * mu) <= delta, 0, found)


def _mu(xp, epsilon, delta):
    epsilon, delta = xp.broadcast_arrays(epsilon, delta * (1 - 4 * unit_of(xp, delta)))
    # The same tail from the other side: mu^2/2 + mu t <= epsilon is surely small enough.
    tail = xp.sqrt(-2 * xp.log(delta))
    enough = 2 * epsilon / (xp.sqrt(tail**2 + 2 * epsilon) + tail) * (1 - _FEW * unit_of(xp, delta))
    # There delta >= Phi(mu/2) - e^epsilon Phi(-mu/2) is too large.
    most = xp.sqrt(8 * (epsilon + xp.log(2 / (1 - delta))))
    return bisect(xp, lambda mu: gaussian_delta_bound(xp, mu, epsilon) <= delta, enough, most, steps=_HALVINGS)


# With a = mu/2 - epsilon/mu and b = a - mu the differential of the trade-off is
# d(delta) = phi(a) d(mu) - e^epsilon Phi(b) d(epsilon), and phi(a) = e^epsilon phi(b).


def _exponents(mu, epsilon):
    """``a`` and ``b``."""
    apart = jnp.where(mu > 0, epsilon / jnp.where(mu > 0, mu, 1), jnp.where(epsilon > 0, jnp.inf, 0))
    return mu / 2 - apart, -mu / 2 - apart


def _slopes_of_delta(value, residual, sigma, epsilon):
    del value
    mu = residual / sigma
    a, b = _exponents(mu, epsilon)
    by_mu = norm.pdf(a)
    return by_mu / sigma, -by_mu * jnp.where(mu < jnp.inf, mu, 0) / sigma, -jnp.exp(epsilon + norm.logcdf(b))


def _slopes_of_epsilon(value, residual, sigma, delta):
    del delta
    mu = residual / sigma
    b = _exponents(mu, value)[1]
    by_mu = jnp.where(value > 0, jnp.exp(norm.logpdf(b) - norm.logcdf(b)), 0)
    return by_mu / sigma, -by_mu * mu / sigma, jnp.where(value > 0, -jnp.exp(-value - norm.logcdf(b)), 0)


def _slopes_of_mu(value, epsilon, delta):
    del delta
    a, b = _exponents(value, epsilon)
    return jnp.exp(norm.logcdf(b) - norm.logpdf(b)), 1 / norm.pdf(a)
