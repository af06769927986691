"""Bounds on a probability from counts of draws: in float64, for every possible count at once, eagerly."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from pags_jax.chunks import check_counts
from pags_jax.images import check_array, is_traced


def lower_bounds(samples: int, alpha: float) -> Float[np.ndarray, " counts"]:
    """Clopper and Pearson's lower bounds on a probability, for each count from 0 to ``samples``, at ``1 - alpha``.

    >>> lower_bounds(2, 0.05).round(4).tolist()
    [0.0, 0.0253, 0.2236]
    """
    check_counts(samples=samples)
    check_alpha(alpha)
    counts = np.arange(1, samples + 1, dtype=np.float64)
    return np.append(0.0, stats.beta.ppf(alpha, counts, samples - counts + 1) * (1 - 1e-12))


def least_wins(samples: int, alpha: float) -> Int[np.ndarray, " throws"]:
    """For each number of throws, up to ``samples``, the fewest heads that a fair coin shows with at most ``alpha / 2``.

    A two-sided binomial test rejects that the coin is fair at that many heads, or tails, and more.

    >>> least_wins(10, 0.05)[10].item()
    9
    """
    check_counts(samples=samples)
    check_alpha(alpha)
    throws = np.arange(1, samples + 1)
    # isf(q) is the least k with P(X > k) <= q.
    return np.append(1, stats.binom.isf(alpha / 2, throws, 0.5) + 1).astype(np.int32)


def check_alpha(alpha: Any) -> None:
    """Raises ValueError unless ``alpha`` is one number between 0 and 1 that can be seen."""
    check_array("`alpha`", alpha, "a number", jnp.floating, jnp.integer)
    if is_traced(alpha) or jnp.ndim(alpha) != 0 or not 0 < float(alpha) < 1:
        raise ValueError(f"`alpha` must be one number between 0 and 1, not traced, got {alpha}")
