"""Accuracy and group fairness of predicted labels.

Gaps are absolute differences between groups. With more than two groups the gap is the worst over all pairs, highest
rate minus lowest, as in fairlearn; the mean gap is that over all pairs. Between two groups the ratio keeps its
direction, as in AIF360, which the paper's code uses; among more it is the lowest rate over the highest.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmu_jax.arrays import as_codes, as_numbers
from fmu_jax.cells import counts
from fmu_jax.data import Data, as_data, cell_counts, check_values
from fmu_jax.objective import Objective, logits, predict_labels
from fmu_jax.penalties import coefficients, gaps, pairs_of
from fmu_jax.showing import one_line
from fmu_jax.tracing import is_traced


class GroupMetrics(NamedTuple):
    """Metrics of predicted labels; scalars unless stated otherwise, NaN where a group or label to divide by has no
    rows.

    Attributes:
      accuracy: Share of rows predicted right.
      balanced_accuracy: Mean of true positive and true negative rate.
      group_accuracy: Accuracy by group, ``(groups,)``.
      selection_rate: Share predicted 1, by group, ``(groups,)``.
      demographic_parity: Worst gap of the selection rates, ``max_{g, h} |selection_rate_g - selection_rate_h|``.
      equal_opportunity: Worst gap of the true positive rates.
      equalized_odds: The larger of the worst gaps of true and of false positive rates.
      equalized_odds_mean: The mean of these two (AEOD between two groups, the paper's measure).
      demographic_parity_mean_gap: Mean gap of the selection rates over all pairs of groups.
      equal_opportunity_mean_gap: The same of the true positive rates.
      equalized_odds_mean_gap: Mean gap over all pairs and both rates. All three mean gaps are at most the worst ones,
        and equal to ``demographic_parity``, ``equal_opportunity``, ``equalized_odds_mean`` where there are two groups.
      disparate_impact: ``selection_rate_0 / selection_rate_1``; among more than two groups the lowest selection rate
        over the highest. 1 is parity.
    """

    accuracy: Float[Array, "..."]
    balanced_accuracy: Float[Array, "..."]
    group_accuracy: Float[Array, "... groups"]
    selection_rate: Float[Array, "... groups"]
    demographic_parity: Float[Array, "..."]
    equal_opportunity: Float[Array, "..."]
    equalized_odds: Float[Array, "..."]
    equalized_odds_mean: Float[Array, "..."]
    demographic_parity_mean_gap: Float[Array, "..."]
    equal_opportunity_mean_gap: Float[Array, "..."]
    equalized_odds_mean_gap: Float[Array, "..."]
    disparate_impact: Float[Array, "..."]

    __repr__ = one_line(values=16)


PENALISED = ("equalized_odds_mean", "demographic_parity", "equal_opportunity")
"""The measures of labels that penalties are about."""


def gap_of(penalty: str) -> str:
    """The measure of labels that a penalty is about: one of its name, or else the average odds gap.

    >>> gap_of("demographic_parity"), gap_of("individual")
    ('demographic_parity', 'equalized_odds_mean')
    """
    return penalty if penalty in PENALISED else PENALISED[0]


def group_metrics(prediction: Any, data: Data) -> GroupMetrics:
    """Metrics of predicted labels over the rows of weight one; jit- and vmap-able (``in_axes=(0, None)``).

    Args:
      prediction: ``(n,)`` predicted labels, 0 or 1: an array or a list, bool or int.
      data: ``n`` rows; ``x`` is not read.

    Returns:
      ``GroupMetrics``.

    Raises:
      ValueError: ``prediction`` is not of shape ``(n,)``, or holds scores, text, or codes other than 0 and 1; or the
        data's labels, groups or weights are none.

    >>> from fmu_jax.data import make_data
    >>> data = make_data(jnp.zeros((4, 1)), y=[0, 1, 0, 1], group=[0, 0, 1, 1])
    >>> float(group_metrics(jnp.array([0, 1, 1, 1]), data).demographic_parity)
    0.5
    """
    data, prediction = as_data(data), as_numbers(prediction, "prediction")
    check_values(data._replace(x=data.weight))
    if prediction.shape != data.y.shape:
        raise ValueError(f"`prediction` must have shape {data.y.shape}, one label a row; got {prediction.shape}")
    if not jnp.issubdtype(prediction.dtype, jnp.integer) and prediction.dtype != jnp.bool_:
        raise ValueError(f"`prediction` must hold labels 0 and 1, got {prediction.dtype}; compare scores with 0 first")
    result, other = _metrics(as_codes(prediction, "prediction", rule="labels 0 and 1"), data)
    if not is_traced(other) and other:
        raise ValueError(f"`prediction` must hold labels 0 and 1, got {int(other)} other entries; recode them")
    return result


def columns(metrics: GroupMetrics) -> dict[str, float]:
    """Metrics of one model as plain numbers by name; vectors become a column a group, such as ``selection_rate_0``."""
    found = {}
    for name, value in metrics._asdict().items():
        groups = jnp.asarray(value).tolist()
        found |= {f"{name}_{g}": v for g, v in enumerate(groups)} if isinstance(groups, list) else {name: groups}
    return found


def measure(objective: Objective, params: Any, data: Data) -> dict[str, float]:
    """``group_metrics`` of the labels that a model predicts, as plain numbers by name; see ``columns``.

    Args:
      objective: Says what is predicted.
      params: Parameters of one model.
      data: ``n`` rows to predict.
    """
    return columns(group_metrics(predict_labels(objective, params, data.x), data))


def means(metrics: GroupMetrics, names: Sequence[str]) -> dict[str, float]:
    """Means of some metrics over the models or classes on their leading axes, as plain numbers by name."""
    return {name: float(getattr(metrics, name).mean()) for name in names}


@jax.jit
def metrics_of_models(objective: Objective, models: Float[Array, "models d"], data: Data) -> GroupMetrics:
    """``group_metrics`` of the labels that each of many linear models predicts, by one program.

    Args:
      objective: Says what is predicted.
      models: Parameters, ``(models, d)``.
      data: ``n`` rows to predict; they are not checked, as nothing under ``jit`` is.

    Returns:
      ``GroupMetrics`` with a leading axis of models.
    """
    return jax.lax.map(lambda params: group_metrics(predict_labels(objective, params, data.x), data), models)


def metrics_of_classes(label: Any, data: Data) -> dict[str, float]:
    """Accuracy of a classifier of many classes, and the means over the classes, each against the rest, of the gaps.

    Args:
      label: ``(n,)`` predicted classes, 0 to classes - 1.
      data: ``n`` rows whose labels are ``(classes, n)``, as ``heads.one_vs_rest`` makes them; weights count.

    Returns:
      Plain numbers by name.

    Raises:
      ValueError: A class out of range, or another number of rows.
    """
    label, classes = as_codes(label, "label"), len(data.y)
    if label.shape != data.group.shape:
        raise ValueError(f"`label` must be of shape {data.group.shape}, got {label.shape}")
    if label.size and not 0 <= int(label.min()) <= int(label.max()) < classes:
        raise ValueError(
            f"`label` must hold classes from 0 to {classes - 1}, got {int(label.min())}..{int(label.max())}"
        )
    of_class = jax.vmap(lambda c, y: group_metrics((label == c).astype(jnp.int32), data._replace(y=y)))
    each = of_class(jnp.arange(len(data.y), dtype=label.dtype), data.y)
    names = ("equalized_odds", "equalized_odds_mean", "demographic_parity", "equal_opportunity")
    right = jnp.average(data.y[label, jnp.arange(len(label))].astype(data.weight.dtype), weights=data.weight)
    return {"accuracy": float(right)} | means(each, names)


def score_gaps(objective: Objective, scores: Float[Array, " n"], data: Data) -> Float[Array, " pairs"]:
    """The gap that the penalty squares, for each pair of groups, in standard deviations of the scores.

    Args:
      objective: Whose penalty is meant.
      scores: ``(n,)`` of the rows.
      data: ``n`` rows; all count for the standard deviation.

    Returns:
      ``(pairs,)``, without unit.
    """
    alpha, _ = coefficients(objective.penalty, counts(data))
    return jnp.abs(gaps(alpha, scores, data) / jnp.std(scores))


def measure_gaps(objective: Objective, params: Any, data: Data) -> dict[str, float]:
    """``measure``, and the worst and the mean of ``score_gaps``: ``score_gap`` and ``score_gap_mean``.

    Args:
      objective: Says what is predicted, and which gap its penalty squares.
      params: Parameters of one model.
      data: ``n`` rows to predict.
    """
    scores = logits(objective, params, data.x)
    gap = score_gaps(objective, scores, data)
    found = columns(group_metrics(scores > 0, data))
    return found | {"score_gap": float(gap.max()), "score_gap_mean": float(gap.mean())}


def measure_groupings(objective: Objective, params: Any, tests: Mapping[str, Data]) -> dict[str, float]:
    """``measure_gaps`` between the intersections of attributes, and as ``NAME_GAP`` the gaps of each attribute alone.

    Args:
      objective: Says what is predicted, and which gap its penalty squares.
      params: Parameters of one model.
      tests: The same rows by attribute, grouped by it, and last grouped by all of them.
    """
    found = {name: measure_gaps(objective, params, data) for name, data in tests.items()}
    *alone, whole = found
    return found[whole] | {f"{name}_{gap}": found[name][gap] for name in alone for gap in (*PENALISED, "score_gap")}


@jax.jit
def _metrics(prediction, data):
    """The metrics, and how many predictions are neither 0 nor 1."""
    other = jnp.sum((prediction != 0) & (prediction != 1), dtype=jnp.int32)
    chosen = cell_counts(data._replace(weight=jnp.where(prediction.astype(bool), data.weight, 0))).astype(data.x.dtype)
    total = cell_counts(data).astype(data.x.dtype)
    right = jnp.stack([total[:, 0] - chosen[:, 0], chosen[:, 1]], axis=1)
    by_label = right.sum(axis=0) / total.sum(axis=0)
    rate = chosen / total
    gap, mean_gap = worst_gap(rate), _mean_gap(rate)
    selection = chosen.sum(axis=1) / total.sum(axis=1)
    result = GroupMetrics(
        accuracy=right.sum() / total.sum(),
        balanced_accuracy=by_label.mean(),
        group_accuracy=right.sum(axis=1) / total.sum(axis=1),
        selection_rate=selection,
        demographic_parity=worst_gap(selection),
        equal_opportunity=gap[1],
        equalized_odds=gap.max(),
        equalized_odds_mean=gap.mean(),
        demographic_parity_mean_gap=_mean_gap(selection),
        equal_opportunity_mean_gap=mean_gap[1],
        equalized_odds_mean_gap=mean_gap.mean(),
        disparate_impact=selection[0] / selection[1] if data.groups == 2 else selection.min() / selection.max(),
    )
    return result, other


def worst_gap(rate: Float[Array, "groups *k"]) -> Float[Array, "*k"]:
    """Largest difference between any two groups."""
    return rate.max(axis=0) - rate.min(axis=0)


def _mean_gap(rate: Float[Array, "groups *k"]) -> Float[Array, "*k"]:
    """Mean over all pairs of groups of the absolute difference."""
    first, second = pairs_of(rate.shape[0])
    return jnp.abs(rate[first] - rate[second]).mean(axis=0)
