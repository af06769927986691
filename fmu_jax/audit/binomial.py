"""Exact confidence bounds of a probability from counts."""

import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import beta
from jaxtyping import Array, Float

from fmu_jax.objective import Scalar
from fmu_jax.privacy import check_probability
from fmu_jax.tails import beta_cdf_bound, beta_front, bisect, outward, unit_of
from fmu_jax.tracing import is_traced

#: Halvings of the log-odds: beyond these a double no longer moves.
_HALVINGS = 64


def clopper_pearson(successes, trials, *, confidence: Scalar) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Clopper-Pearson interval of a probability: it covers with at least ``confidence``, whatever the probability.

    The lower end solves ``P(Binomial(n, p) >= k) = (1 - confidence) / 2`` and the upper end
    ``P(Binomial(n, p) <= k) = (1 - confidence) / 2``; both tails are regularised incomplete beta functions. Each end
    alone is a one-sided bound at ``(1 + confidence) / 2``.

    Args:
      successes: Numbers ``k`` of successes, any shape.
      trials: Numbers ``n`` of trials, >= 1, of a shape that broadcasts with ``successes``.
      confidence: Confidence in (0, 1).

    Returns:
      Lower and upper ends, at or outside the exact ones: computed in float64 on the host, or under a trace in the
      dtype at hand (see ``tails``), by bisection.

    Raises:
      ValueError: Counts outside ``0 <= k <= n``, ``n < 1``, or ``confidence`` out of range.

    >>> low, high = clopper_pearson(0, 100, confidence=0.95)
    >>> float(low), round(float(high), 5)
    (0.0, 0.03622)

    Source: Clopper & Pearson (1934).
    """
    check_probability(confidence=confidence)
    if not is_traced(successes, trials):
        k, n = np.broadcast_arrays(successes, trials)
        if not np.all((k >= 0) & (k <= n) & (n >= 1)):
            raise ValueError(f"counts must satisfy 0 <= successes <= trials and trials >= 1, got {k} of {n}")
    # In whole numbers: rows that were missed by one in 10^9 are not lost in float32.
    counts = successes, trials - successes, confidence
    return outward(_lower, *counts, up=False, slopes=_slopes_of_lower), outward(
        _upper, *counts, slopes=_slopes_of_upper
    )


def _lower(xp, successes, failures, confidence):
    return _ends(xp, successes, failures, confidence)[0] * (1 - 8 * unit_of(xp, confidence))


def _upper(xp, successes, failures, confidence):
    above = _ends(xp, failures, successes, confidence)[1]
    return xp.minimum(above * (1 + 8 * unit_of(xp, confidence)), 1)


def _slopes_of_lower(value, successes, failures, confidence):
    del confidence
    density = beta.pdf(value, jnp.maximum(successes, 1), failures + 1)
    return 0, 0, jnp.where(successes > 0, -1 / (2 * jnp.where(successes > 0, density, 1)), 0)


def _slopes_of_upper(value, successes, failures, confidence):
    counts, by_confidence = (0, 0), _slopes_of_lower(1 - value, failures, successes, confidence)[2]
    return *counts, -by_confidence


def _ends(xp, k, m, confidence):
    """The largest ``p`` at which ``k`` or more of ``k + m`` are surely as rare as the tail, and ``1 - p``."""
    k, m, confidence = xp.broadcast_arrays(k, m, confidence)
    tail = (1 - confidence) / 2 - unit_of(xp, k)
    # In the log-odds p and 1 - p keep their digits at both ends.
    far = xp.full_like(k, 700.0 if k.dtype == np.float64 else 86.0)
    a, b = xp.maximum(k, 1), m + 1
    front = beta_front(xp, a, b)

    def rare(odds):
        below, above = 1 / (1 + xp.exp(-odds)), 1 / (1 + xp.exp(odds))
        return beta_cdf_bound(xp, a, b, below, above, front) <= tail

    odds = bisect(xp, rare, -far, far, steps=_HALVINGS)
    found = (k > 0) & (odds > -far)
    return xp.where(found, 1 / (1 + xp.exp(-odds)), 0), xp.where(found, 1 / (1 + xp.exp(odds)), 1)
