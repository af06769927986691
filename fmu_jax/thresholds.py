"""Post-processing for fairness: one decision threshold a group (Hardt, Price & Srebro 2016).

The thresholds are a function of the scores of the rows at hand, so after a removal they are refitted on what remains.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fmu_jax.arrays import as_codes, as_floats
from fmu_jax.data import Data, as_data, is_traced

RATES = ("selection_rate", "true_positive_rate")


def fit_thresholds(scores: Any, data: Data, *, rate: str = "true_positive_rate") -> Float[Array, " groups"]:
    """Thresholds at which all groups have the rate that the threshold zero gives all rows together.

    With ``selection_rate`` that is demographic parity, with ``true_positive_rate`` equal opportunity, each up to one
    row or one tie of equal scores (thresholds are deterministic; no randomised decisions). A group without rows to
    count keeps the threshold zero.

    Args:
      scores: ``(n,)`` log-odds.
      data: The rows to fit on; rows of weight zero do not count.
      rate: One of ``RATES``.

    Returns:
      ``(groups,)``: a row of group g is predicted 1 when its score is above ``thresholds[g]``.

    Raises:
      ValueError: Unknown ``rate``; or scores that are NaN or infinite, no numbers, or not one a row.

    >>> from fmu_jax.data import make_data
    >>> data = make_data(jnp.zeros((6, 1)), y=[0, 1, 1, 0, 1, 1], group=[0, 0, 0, 1, 1, 1])
    >>> fit_thresholds(jnp.array([-1.0, 1.0, 3.0, -5.0, -4.0, -2.0]), data).tolist()
    [2.0, -3.0]
    """
    if rate not in RATES:
        raise ValueError(f"unknown rate {rate!r}; known: {', '.join(RATES)}")
    data = as_data(data)
    return _fit(_scores(scores, data.weight.shape), data, rate)


def _scores(scores, shape):
    scores = as_floats(scores, "scores", finite=True)
    if scores.shape != shape:
        raise ValueError(f"`scores` must have shape {shape}, one log-odds a row; got {scores.shape}")
    return scores


@partial(jax.jit, static_argnames="rate")
def _fit(scores, data, rate):
    counted = (data.weight > 0) & ((data.y == 1) if rate == "true_positive_rate" else True)
    chosen, total = (jnp.sum(rows).astype(scores.dtype) for rows in (counted & (scores > 0), counted))
    target = chosen / jnp.maximum(total, 1)
    return _upper_quantiles(scores, [counted & (data.group == g) for g in range(data.groups)], target)


def _upper_quantiles(scores, members, share):
    """For each set of rows the threshold above which a given share of its scores lies, rounded to whole rows."""
    total = jnp.stack([jnp.sum(rows) for rows in members])
    chosen = jnp.round(share * total.astype(scores.dtype)).astype(total.dtype)
    keys = _keys(scores)
    last = _largest(keys, members, jnp.maximum(chosen, 1))
    found = []
    for rows, key, k, n in zip(members, last, chosen, total, strict=True):
        above, less = (
            jnp.max(scores, where=part, initial=-jnp.inf) for part in (rows & (keys <= key), rows & (keys < key))
        )
        below = jnp.where(jnp.sum(rows & (keys >= key)) > k, above, less)
        middle = jnp.where(k < n, (above + below) / 2, -jnp.inf)
        found.append(jnp.where(n > 0, jnp.where(k > 0, middle, above), 0))
    return jnp.stack(found)


def _keys(scores):
    """Whole numbers without sign in the order of the scores, equal for equal scores."""
    kind = jnp.uint64 if scores.dtype == jnp.float64 else jnp.uint32
    bits = jax.lax.bitcast_convert_type(jnp.where(scores == 0, 0, scores), kind)  # Of zeros of both signs, one.
    top = jnp.asarray(1 << (8 * scores.dtype.itemsize - 1), kind)
    return jnp.where(bits >= top, ~bits, bits | top)


def _largest(keys, members, k):
    """The ``k``-th largest key of each set of rows, bit by bit: rows are counted where they lie, and nothing sorted."""
    width = 8 * keys.dtype.itemsize

    def decide(i, found):
        trial = found | jax.lax.shift_left(jnp.ones_like(found), (width - 1 - i).astype(keys.dtype))
        enough = jnp.stack([jnp.sum(rows & (keys >= at)) for rows, at in zip(members, trial, strict=True)]) >= k
        return jnp.where(enough, trial, found)

    return jax.lax.fori_loop(0, width, decide, jnp.zeros(len(members), keys.dtype))


def predict_with_thresholds(scores: Any, group: Any, thresholds: Any) -> Int[Array, " n"]:
    """Predicted labels ``(n,)`` int32: 1 where a row's score is above its group's threshold.

    Args:
      scores: ``(n,)`` log-odds.
      group: ``(n,)`` group codes.
      thresholds: ``(groups,)``, from ``fit_thresholds``.

    Raises:
      ValueError: Scores as for ``fit_thresholds``, or group codes for which there is no threshold.
    """
    group, thresholds = as_codes(group, "group"), as_floats(thresholds, "thresholds")
    scores = _scores(scores, group.shape)
    if thresholds.ndim != 1 or (not is_traced(thresholds) and np.isnan(np.asarray(thresholds)).any()):
        raise ValueError(f"`thresholds` must be numbers of shape (groups,), got {thresholds!s}")
    if not is_traced(group):
        codes, last = np.asarray(group), thresholds.shape[0] - 1
        if not np.all((codes >= 0) & (codes <= last)):
            raise ValueError(f"`group` must hold codes 0 to {last}, one for each threshold; got {np.unique(codes)}")
    return (scores > thresholds[group]).astype(jnp.int32)
