"""The cost of a series of releases, what is left of it, and the noise for it: Gaussian DP, rounded to the safe side.

Concrete numbers are computed with in float64 on the host, traced ones in their dtype (see ``tails``). What the numbers
guarantee, and when, stands in ``fmu_jax.releases``.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array

from fmu_jax.objective import Scalar
from fmu_jax.privacy import check_norm, check_positive, check_probability, gaussian_mu
from fmu_jax.tails import outward, round_up, unit_of
from fmu_jax.tracing import is_traced


def trade_off(mu: Scalar, alpha: Scalar) -> Array:
    """The least share of misses of any test between the two worlds at a share ``alpha`` of false alarms, rounded down.

    ``Phi(Phi^-1(1 - alpha) - mu)``; it broadcasts. Source: Dong, Roth & Su (2022), Definition 2.6.

    Args:
      mu: Gaussian-DP parameter, >= 0.
      alpha: Share of false alarms in (0, 1).

    Raises:
      ValueError: A concrete number out of range.

    >>> round(float(trade_off(1.0, 0.05)), 4)
    0.7405
    """
    check_norm(mu=mu)
    check_probability(alpha=alpha)
    return outward(_trade_off, mu, alpha, up=False)


def compose(mus: Any) -> Array:
    """The Gaussian-DP parameter of a series: ``sqrt(sum mu_i^2)``, rounded up.

    It holds for adaptive releases whose ``mu_i`` were fixed beforehand (Dong, Roth & Su 2022, Corollary 3.3), not for
    parameters that were chosen in view of what was published.

    Args:
      mus: Gaussian-DP parameters of the releases, ``(k,)``, or a sequence of numbers.

    Returns:
      The scalar; zero for none.

    Raises:
      ValueError: A negative number or NaN.

    >>> round(float(compose([0.3, 0.4])), 6)
    0.5
    """
    mus = _stacked(mus)
    check_norm(mus=mus)
    return outward(_compose, mus)


def scale_for(
    admitted: Scalar,
    *,
    mu: Scalar | None = None,
    epsilon: Scalar | None = None,
    delta: Scalar | None = None,
    releases: Scalar = 1,
) -> Array:
    """The standard deviation with which ``releases`` releases, each at most ``admitted`` off, keep one guarantee.

    ``admitted sqrt(releases) / mu``, rounded up; the guarantee is of the whole series, ``mu``, or an (epsilon, delta).

    Args:
      admitted: The largest distance that will be published, in the norm of the noise's shape, >= 0.
      mu: Gaussian-DP parameter of the series, > 0.
      epsilon: In its place, with ``delta``: > 0.
      delta: Failure probability in (0, 1).
      releases: How many are planned, at least 1.

    Returns:
      The scalar ``s``.

    Raises:
      ValueError: A number out of range, or neither or both of ``mu`` and (``epsilon``, ``delta``).

    >>> round(float(scale_for(0.01, mu=0.5)), 4), round(float(scale_for(0.01, epsilon=1.0, delta=1e-5, releases=4)), 4)
    (0.02, 0.0746)
    """
    check_norm(admitted=admitted)
    if (mu is None) == (epsilon is None) or (epsilon is None) != (delta is None):
        raise ValueError("give either `mu`, or `epsilon` and `delta` together")
    if not is_traced(releases) and not _is_count(releases):
        raise ValueError(f"`releases` must be a whole number of at least 1, got {releases!r}")
    if mu is None:
        mu = gaussian_mu(epsilon, delta)
    check_positive(mu=mu)
    return outward(_scale, admitted, mu, releases)


def budget(mu: Scalar, spent: Any) -> Array:
    """The rest of a series' Gaussian-DP parameter: ``sqrt(mu^2 - sum mu_i^2)``, rounded down; 0 if overdrawn.

    The next ``k`` releases cost no more if each has ``mu_i <= budget / sqrt(k)``.

    Args:
      mu: Gaussian-DP parameter of the whole series, fixed beforehand, >= 0.
      spent: Gaussian-DP parameters of the releases so far, ``(k,)``, or a sequence of numbers.

    Returns:
      The scalar.

    Raises:
      ValueError: A negative number or NaN.

    >>> round(float(budget(0.5, [0.3])), 6), float(budget(0.5, [0.3, 0.5]))
    (0.4, 0.0)
    """
    spent = _stacked(spent)
    check_norm(mu=mu)
    check_norm(spent=spent)
    return outward(_budget, mu, spent, up=False)


def _is_count(number) -> bool:
    number = np.asarray(number)
    return number.ndim == 0 and number.dtype.kind in "iuf" and bool(1 <= number < np.inf and number % 1 == 0)


def _stacked(mus):
    if isinstance(mus, list | tuple):
        return jnp.stack([jnp.asarray(mu) for mu in mus]) if is_traced(mus) else np.array([float(mu) for mu in mus])
    return mus


def _trade_off(xp, mu, alpha):
    normal = scipy.special if xp is np else jax.scipy.special
    unit = unit_of(xp, mu)
    at = -normal.ndtri(alpha) - mu
    at = at - 32 * unit * (mu + xp.abs(at) + 1)
    # Near -oo the logarithm of Phi is off by a few units of at^2.
    return xp.maximum(normal.ndtr(at) * (1 - 64 * unit * (1 + at * at)), 0)


def _compose(xp, mus):
    return round_up(xp, xp.sqrt(xp.sum(mus * mus)), mus.size + 8, xp.any(mus > 0))


def _scale(xp, admitted, mu, releases):
    return round_up(xp, admitted / mu * xp.sqrt(releases), 16, admitted > 0)


def _budget(xp, mu, spent):
    used = round_up(xp, xp.sum(spent * spent), spent.size + 8, xp.any(spent > 0))
    left = mu * mu * (1 - 4 * unit_of(xp, mu)) - used
    # Of an infinite budget nothing is known to be left once something infinite is spent.
    return xp.where(left > 0, xp.sqrt(xp.where(left > 0, left, 0)) * (1 - 4 * unit_of(xp, mu)), 0)
