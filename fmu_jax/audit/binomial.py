"""Exact confidence bounds of a probability from counts."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmu_jax.data import is_traced
from fmu_jax.objective import Scalar
from fmu_jax.privacy import check_probability

#: Halvings of [0, 1]: beyond these a double no longer moves.
_HALVINGS = 64


def clopper_pearson(successes, trials, *, confidence: Scalar) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Clopper-Pearson interval of a probability: it covers with at least ``confidence``, whatever the probability.

    The lower end solves ``P(Binomial(n, p) >= k) = (1 - confidence) / 2`` and the upper end
    ``P(Binomial(n, p) <= k) = (1 - confidence) / 2``; both tails are regularised incomplete beta functions. Each end
    alone is a one-sided bound at ``(1 + confidence) / 2``.

    Args:
      successes: numbers ``k`` of successes, any shape.
      trials: numbers ``n`` of trials, >= 1, of a shape that broadcasts with ``successes``.
      confidence: in (0, 1).

    Returns:
      Lower and upper ends, in the default float; found by bisection and rounded outwards.

    Raises:
      ValueError: counts outside ``0 <= k <= n``, ``n < 1``, or ``confidence`` out of range.

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
    return _interval(jnp.asarray(successes), jnp.asarray(trials), confidence)


@jax.jit
def _interval(successes, trials, confidence):
    dtype = jnp.result_type(float)
    k, n = jnp.broadcast_arrays(successes.astype(dtype), trials.astype(dtype))
    tail = jnp.asarray((1 - confidence) / 2).astype(dtype)
    low = _beta_quantile(tail, jnp.maximum(k, 1), n - k + 1)[0]
    high = _beta_quantile(1 - tail, k + 1, jnp.maximum(n - k, 1))[1]
    return jnp.where(k > 0, low, 0), jnp.where(k < n, high, 1)


def _beta_quantile(probability, a, b):
    """A bracket of the quantile of Beta(a, b), by bisection."""

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        below = jax.scipy.special.betainc(a, b, middle) < probability
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    return jax.lax.fori_loop(0, _HALVINGS, halve, (jnp.zeros_like(a), jnp.ones_like(a)))
