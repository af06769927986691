"""Areas under and points on the receiver operating characteristic, ties counted as halves."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fmu_jax.objective import Scalar


def auc(scores: Float[Array, " n"], positive: Bool[Array, " n"]) -> Float[Array, ""]:
    """Probability that a positive scores higher than a negative, a tie counting 1/2 (Mann & Whitney 1947).

    Args:
      scores: ``(n,)``.
      positive: ``(n,)``.

    Returns:
      The area in [0, 1]; 1/2 where there is no positive or no negative. O(n log n); jit- and vmap-able.

    >>> float(auc(jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([False, False, True, True])))
    0.75
    """
    ordered = jnp.sort(scores)
    below, upto = (jnp.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
    # Twice the average rank among ties, less one, is a whole number.
    ranks = jnp.sum(jnp.where(positive, (below + upto).astype(scores.dtype), 0))
    count = jnp.sum(positive).astype(scores.dtype)
    others = scores.shape[0] - count
    area = (ranks - count**2) / (2 * jnp.maximum(count * others, 1))
    return jnp.where((count > 0) & (others > 0), area, 0.5)


def true_positive_rate(
    scores: Float[Array, " n"], positive: Bool[Array, " n"], *, false_positive_rate: Scalar
) -> Float[Array, ""]:
    """Share of positives found at a given share of false alarms, interpolated on the ROC curve as among ties.

    Args:
      scores: ``(n,)``.
      positive: ``(n,)``, with at least one positive and one negative.
      false_positive_rate: in [0, 1).

    Returns:
      The rate in [0, 1]; jit- and vmap-able.
    """
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
