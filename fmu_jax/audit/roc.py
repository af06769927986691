"""Areas under and points on the receiver operating characteristic, ties counted as halves."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmu_jax.arrays import as_floats, as_mask, as_numbers, check_ordered, dtype_as_float
from fmu_jax.objective import Scalar
from fmu_jax.tracing import is_traced


def auc(scores: Any, positive: Any) -> Float[Array, ""]:
    """Probability that a positive scores higher than a negative, a tie counting 1/2 (Mann & Whitney 1947).

    Args:
      scores: ``(n,)`` booleans, integers or floats of any width; infinite ones are the highest or the lowest.
      positive: ``(n,)`` boolean, or 0 and 1.

    Returns:
      The area in [0, 1], of the scores' dtype (the default float for whole numbers); 1/2 where there is no positive or
      no negative. Scores are compared in the precision that they come in, and counts never overflow. O(n log n); jit-
      and vmap-able; under tracing a NaN among the scores makes it NaN.

    Raises:
      ValueError: A score is NaN, or one of the two is no vector of such entries, or they differ in length.

    >>> float(auc(jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([False, False, True, True])))
    0.75
    """
    scores, positive = _checked(scores, positive)
    dtype = dtype_as_float(scores)
    defined = True
    if is_traced(scores):
        defined = ~jnp.isnan(scores).any() if jnp.issubdtype(scores.dtype, jnp.floating) else True
        scores = scores.astype(jnp.int32) if scores.dtype == bool else scores
    else:  # Ranks keep the order and the ties of 64-bit numbers also where JAX has 32 bits.
        scores = jnp.asarray(np.unique(np.asarray(scores), return_inverse=True)[1].astype(np.int32))
    return _area(scores, positive, defined, dtype)


@partial(jax.jit, static_argnames="dtype")
def _area(scores, positive, defined, dtype):
    count = jnp.sum(positive, dtype=jnp.int32)
    others = scores.shape[0] - count
    highest = jnp.inf if jnp.issubdtype(scores.dtype, jnp.floating) else jnp.iinfo(scores.dtype).max
    negatives = jnp.sort(jnp.where(positive, jnp.asarray(highest, scores.dtype), scores))
    below, upto = (
        jnp.minimum(jnp.searchsorted(negatives, scores, side=side), others).astype(dtype) for side in ("left", "right")
    )
    # A mean of shares, each at most 1: sums of ranks would pass 2^24, beyond which float32 counts no more.
    share = (below + upto) / (2 * jnp.maximum(others, 1).astype(dtype))
    area = jnp.sum(jnp.where(positive, share, 0)) / jnp.maximum(count, 1).astype(dtype)
    return jnp.where(defined, jnp.where((count > 0) & (others > 0), area, 0.5), jnp.nan)


def _checked(scores, positive):
    scores, positive = as_numbers(scores, "scores"), as_mask(positive, "positive")
    if scores.ndim != 1 or scores.shape != positive.shape:
        raise ValueError(f"`scores` and `positive` must be vectors of one length, got {scores.shape}, {positive.shape}")
    check_ordered(scores=scores)
    return scores, positive


def true_positive_rate(scores: Any, positive: Any, *, false_positive_rate: Scalar) -> Float[Array, ""]:
    """Share of positives found at a given share of false alarms, interpolated on the ROC curve as among ties.

    Args:
      scores: ``(n,)``.
      positive: ``(n,)``, with at least one positive and one negative.
      false_positive_rate: False positive rate in [0, 1).

    Returns:
      The rate in [0, 1]; jit- and vmap-able.

    Raises:
      ValueError: As ``auc``.
    """
    scores, positive = _checked(scores, positive)
    scores = as_floats(scores, "scores")
    negatives = jnp.sum(~positive).astype(scores.dtype)
    positives = jnp.sum(positive).astype(scores.dtype)
    ordered = jnp.sort(jnp.where(positive, -jnp.inf, scores), descending=True)
    allowed = jnp.asarray(false_positive_rate).astype(scores.dtype) * negatives
    threshold = ordered[jnp.floor(allowed).astype(jnp.int32)]
    # From the point before the threshold's ties to the point after them.
    above, at = scores > threshold, scores == threshold
    false_above, false_at = jnp.sum(above & ~positive), jnp.sum(at & ~positive)
    true_above, true_at = jnp.sum(above & positive), jnp.sum(at & positive)
    part = (allowed - false_above.astype(scores.dtype)) / false_at.astype(scores.dtype)
    return (true_above.astype(scores.dtype) + part * true_at.astype(scores.dtype)) / positives
