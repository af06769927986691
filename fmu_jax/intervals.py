"""Intervals for the group rates of the retrained model, without retraining.

A row whose score under the unlearned model is farther from zero than retraining could move it keeps its predicted
label. The others are undecided. Counting both, by group and label, gives an interval for every group rate of the
*retrained* model; the paper's Theorem 2 (fairness after unlearning stays near that of retraining) becomes a number.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fmu_jax.arrays import as_mask
from fmu_jax.data import Data, as_data, cell_counts, check_data
from fmu_jax.distances import Region, prediction_margins, retrained_region
from fmu_jax.fitting import check_params
from fmu_jax.objective import Objective, logits
from fmu_jax.removal import Removal
from fmu_jax.rounding import roundings
from fmu_jax.showing import one_line


class FairnessInterval(NamedTuple):
    """Each rate as ``(lowest, highest)``, shape ``(2,)``, that the retrained model can have; gaps are the worst ones.

    Attributes:
      accuracy: Share of rows predicted right.
      selection_rate: Share predicted 1, ``(groups, 2)`` indexed [group, end].
      demographic_parity, equal_opportunity, equalized_odds, equalized_odds_mean: As in ``GroupMetrics``.
      undecided: Number of rows whose predicted label retraining could change, int32.
    """

    accuracy: Float[Array, "2"]
    selection_rate: Float[Array, "groups 2"]
    demographic_parity: Float[Array, "2"]
    equal_opportunity: Float[Array, "2"]
    equalized_odds: Float[Array, "2"]
    equalized_odds_mean: Float[Array, "2"]
    undecided: Int[Array, ""]

    __repr__ = one_line(values=16)


@jax.default_matmul_precision("highest")
def fairness_interval(objective: Objective, removal: Removal, data: Data, *, noise=None) -> FairnessInterval:
    """Interval of every group rate of the retrained model on ``data``.

    Args:
      objective: Objective for the linear model.
      removal: Removal from ``remove``.
      data: Rows to predict, of the test set or of what remains.
      noise: The perturbation of the training objective.

    Returns:
      A ``FairnessInterval``. Every rate of the retrained model lies inside. Upper ends, and both ends of accuracy and
      selection rates, are attained by some labelling of the undecided rows; the lower end of a gap is attained up to
      one row, as whole rows cannot always make two rates meet.

    Raises:
      ValueError: A model that is not one linear model, or rows, noise or parameters that do not fit it.
    """
    data = as_data(data)
    check_data(data)
    check_params(objective, removal.params, data, noise)
    return interval_in_region(objective, removal.params, retrained_region(objective, removal, noise=noise), data)


@jax.jit
def interval_in_region(objective: Objective, params, region: Region, data: Data) -> FairnessInterval:
    """Interval of every group rate of any parameters in ``region`` around ``params``; see ``fairness_interval``."""
    scores = logits(objective, params, data.x)
    # The scores are rounded too.
    off = roundings(params.shape[0] + 2, data.x.dtype) * jnp.sum(jnp.abs(data.x * params[None]), axis=1)
    return rate_intervals(scores > 0, jnp.abs(scores) > prediction_margins(region, data.x) + off, data)


def rate_intervals(positive: Any, decided: Any, data: Data) -> FairnessInterval:
    """Intervals of the group rates when undecided rows may be predicted either way.

    Args:
      positive: ``(n,)`` boolean, the predicted label is 1.
      decided: ``(n,)`` boolean, the prediction cannot change.
      data: The rows; ``x`` is not read.

    Returns:
      A ``FairnessInterval``.

    Raises:
      ValueError: ``positive`` or ``decided`` is not boolean, or not of shape ``(n,)``.
    """
    data, positive, decided = as_data(data), as_mask(positive, "positive"), as_mask(decided, "decided")
    for name, rows in (("positive", positive), ("decided", decided)):
        if rows.shape != data.weight.shape:
            raise ValueError(f"`{name}` must have shape {data.weight.shape}, one entry a row; got {rows.shape}")
    return _rate_intervals(positive, decided, data)


@jax.jit
def _rate_intervals(positive, decided, data) -> FairnessInterval:
    dtype = data.x.dtype
    total = cell_counts(data).astype(dtype)
    sure = cell_counts(data._replace(weight=jnp.where(decided & positive, data.weight, 0))).astype(dtype)
    open_ = cell_counts(data._replace(weight=jnp.where(decided, 0, data.weight)))
    # Fewest and most rows predicted 1, by (end, group, label).
    chosen = jnp.stack([sure, sure + open_.astype(dtype)])
    right = chosen[:, :, 1].sum(axis=1) + total[:, 0].sum() - chosen[::-1, :, 0].sum(axis=1)
    selection = chosen.sum(axis=2) / total.sum(axis=1)[None]
    rate = chosen / total[None]
    by_label = jnp.stack([_gap(rate[:, :, label]) for label in (0, 1)])
    return FairnessInterval(
        accuracy=right / total.sum(),
        selection_rate=selection.T,
        demographic_parity=_gap(selection),
        equal_opportunity=by_label[1],
        equalized_odds=by_label.max(axis=0),
        equalized_odds_mean=by_label.mean(axis=0),
        undecided=open_.sum(),
    )


def _gap(rate: Float[Array, "2 groups"]) -> Float[Array, "2"]:
    """Interval of the worst gap ``max_g r_g - min_h r_h`` for rates in boxes ``rate[end, group]``.

    It is least with every rate as near as can be to the rest, and largest with one high and *another* low.
    """
    low, high = rate
    # A group is as far from itself as nothing: zero is never more than the largest gap.
    apart = (high[:, None] - low[None]) * (1 - np.eye(low.shape[0], dtype=low.dtype))
    return jnp.stack([jnp.maximum(low.max() - high.min(), 0), apart.max()])
