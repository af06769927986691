"""A lower confidence bound on the Gaussian-DP parameter: one number for a whole trade-off curve, without a delta.

If two samples are ``mu``-Gaussian-DP, then for every region ``S``, with ``P`` the probability under one and ``Q`` under
the other, in either order (Dong, Roth & Su 2022, section 2),

    P(S) <= Phi(Phi^-1(Q(S)) + mu),   so   mu >= Phi^-1(P(S)) - Phi^-1(Q(S)).

Regions are chosen and evaluated as in ``epsilon``. Between two shifted Gaussians every half-line attains the bound, so
it is found where there are many samples, and not in the tails, which decide an epsilon at a small delta.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import scipy.special
from jax.tree_util import Partial
from jaxtyping import Array, Float

from fmu_jax.audit.epsilon import check_samples, largest_gains
from fmu_jax.objective import Scalar
from fmu_jax.privacy import check_probability
from fmu_jax.showing import one_line
from fmu_jax.tails import outward, unit_of


class EmpiricalMu(NamedTuple):
    """Lower bounds on ``mu``, each >= 0, all of which hold at once with the asked confidence.

    Attributes:
      mu: The largest.
      by_test: Each by the name of its statistic, a key of ``DISTINGUISHERS``.
    """

    mu: Float[Array, ""]
    by_test: dict[str, Float[Array, ""]]

    __repr__ = one_line(values=4)


@jax.default_matmul_precision("highest")
def empirical_mu(unlearned: Any, retrained: Any, *, confidence: Scalar = 0.95, key: Array) -> EmpiricalMu:
    """Bounds from below the ``mu`` at which two samples of releases are Gaussian-DP.

    Args:
      unlearned: ``(n, d)`` published parameters after unlearning, an independent draw of the noise a row; a series of
        releases is one row, side by side.
      retrained: ``(n, d)`` published parameters after retraining.
      confidence: Confidence with which the bound holds, in (0, 1).
      key: PRNG key, required; splits the rows into the two halves.

    Returns:
      An ``EmpiricalMu``; never NaN.

    Raises:
      ValueError: As ``empirical_epsilon``.

    >>> normal = jax.random.normal(jax.random.key(0), (2, 4000, 2))
    >>> found = empirical_mu(normal[0].at[:, 0].add(1.0), normal[1], key=jax.random.key(1))
    >>> bool(0.7 < found.mu <= 1)
    True

    Source: Nasr et al. (2023), "Tight auditing of differentially private machine learning", section 4.
    """
    check_probability(confidence=confidence)
    bounds = largest_gains(Partial(_separation), *check_samples(unlearned, retrained), confidence, key)
    return EmpiricalMu(jnp.max(jnp.stack(list(bounds.values()))), bounds)


def _separation(p, q):
    return outward(_rounded_separation, p, q, up=False)


def _rounded_separation(xp, p, q):
    """``Phi^-1(p) - Phi^-1(q)``, rounded down; minus infinity where ``p`` is 0 or ``q`` is 1."""
    special, unit = jax.scipy.special if xp is jnp else scipy.special, unit_of(xp, p)
    inside = (p > 0) & (q < 1)
    # A lower end is never 1 and an upper end never 0; what rounding made so says nothing.
    inside &= (p < 1) & (q > 0)
    high, low = (special.ndtri(xp.where(inside, share, 0.5)) for share in (p, q))
    return xp.where(inside, high - low - 32 * unit * (2 + xp.abs(high) + xp.abs(low)), -xp.inf)
