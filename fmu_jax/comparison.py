"""All removal methods on the same rows: what each leaves, how far that is from retraining, and how long it takes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fmu_jax.audit.draws import NO_REMOVAL
from fmu_jax.certificates import certify
from fmu_jax.data import Data
from fmu_jax.heads import certify_head, predict_head, remove_head, with_features
from fmu_jax.intervals import fairness_interval
from fmu_jax.metrics import columns, group_metrics, metrics_of_classes
from fmu_jax.objective import Objective, Params, predict_labels
from fmu_jax.removal import METHODS, Ensemble, Removal
from fmu_jax.removal.methods import ENSEMBLES
from fmu_jax.showing import one_line
from fmu_jax.thresholds import fit_thresholds, predict_with_thresholds
from fmu_jax.timing import timed

EVERY = ("retrain", NO_REMOVAL, *(name for name in METHODS if name != "retrain"))
"""Every removal method and no removal, retraining first: the others are compared with it."""
CERTIFIED = (
    "residual_norm", "row_bound", "gram_bound", "paper_data_dependent", "paper_worst_case", "epsilon",
    "distance_bound", "local_distance_bound",
)  # fmt: skip
"""Fields of a certificate that experiments show."""


class Outcome(NamedTuple):
    """What one method left.

    Attributes:
      method: Its name.
      params: Parameters after it; of ``sharded`` a model for each shard.
      remaining: The rows with the forgotten ones at weight zero; of ``no_removal`` all rows.
      removal: The ``Removal``; None for ``no_removal``.
      distance: Euclidean distance to the parameters that the first method left; None where their shapes differ.
      seconds: Duration of the removal by the caller's clock, without compilation; None without a clock.
    """

    method: str
    params: Any
    remaining: Data
    removal: Removal | None
    distance: float | None
    seconds: float | None

    __repr__ = one_line()


def compare(
    objective: Objective,
    params: Params,
    data: Data,
    forget: Any,
    *,
    methods: Sequence[str] = EVERY,
    noise: Params | None = None,
    ensemble: Ensemble | None = None,
    clock: Callable[[], float] | None = None,
) -> dict[str, Outcome]:
    """Forgets the same rows by several methods, also by those that cannot honour the fairness intervention.

    Args:
      objective: Objective on which ``params`` was trained.
      params: Parameters of a linear model, or of a head for each class (``heads.fit_head``).
      data: Rows on which it was trained.
      forget: Rows to remove, as for ``remove``.
      methods: Names of removal methods, or ``no_removal``. All are compared with the first.
      noise: The perturbation with which ``params`` was trained.
      ensemble: The model of the method ``sharded``, from ``removal.fit_ensemble``; needed by that method only.
      clock: Such as ``time.perf_counter``; every removal is then done twice, and the second, compiled, is timed.

    Returns:
      The ``Outcome`` of each method, in order.

    Raises:
      ValueError: ``sharded`` without an ensemble, or as ``remove``.
      NotConvergedError: As ``remove``.

    >>> from fmu_jax import datasets, fit
    >>> data, objective = datasets.synthetic(200, 3, seed=0).train, Objective(l2=1e-2, fairness=1.0)
    >>> found = compare(objective, fit(objective, data).params, data, [3, 14], methods=("retrain", "fair_newton"))
    >>> found["retrain"].distance, found["fair_newton"].distance < 1e-3
    (0.0, True)
    """
    if ensemble is None and (needing := ENSEMBLES.intersection(methods)):
        raise ValueError(f"method {min(needing)!r} needs `ensemble`; make it with removal.fit_ensemble")
    found: dict[str, Outcome] = {}
    first = None
    for method in methods:
        removal, seconds, left = None, None, params
        if method != NO_REMOVAL:
            options: dict[str, Any] = {"noise": noise, "method": method, "allow_unfair": True}
            before = params
            if method in ENSEMBLES and ensemble is not None:
                before, options = ensemble.params, options | {"noise": None, "shard": ensemble.shard}
            call = partial(remove_head, objective, before, data, forget, **options)
            removal, seconds = (call(), None) if clock is None else timed(call, clock)
            left = removal.params
        first = left if first is None else first
        remaining = data if removal is None else removal.data
        found[method] = Outcome(method, left, remaining, removal, distance(left, first), seconds)
    return found


def measure(objective: Objective, outcome: Outcome, data: Data) -> dict[str, float]:
    """Accuracy and fairness of the labels that an outcome predicts, as plain numbers by name.

    Args:
      objective: Objective of the training.
      outcome: Outcome from ``compare``.
      data: Rows to predict; of many classes (``heads.one_vs_rest``) the gaps are means over the classes.
    """
    if data.y.ndim == 2:
        return metrics_of_classes(predict_head(outcome.params, data.x), data)
    predict = METHODS[outcome.method].predict if outcome.method in METHODS else predict_labels
    return columns(group_metrics(predict(objective, outcome.params, data.x), data))


def changes(outcomes: Mapping[str, Outcome], train: Data, test: Data, *, thresholds: bool) -> list[dict[str, Any]]:
    """What predictions of a linear model lose where a method is used in place of the first, as rows.

    Shards answer by their mean log-odds here, so that thresholds apply to them too.

    Args:
      outcomes: Outcomes from ``compare``, retraining first.
      train: Rows on which the model was trained.
      test: Rows to predict.
      thresholds: Whether every group has a threshold of its own, refitted on what remains (``fmu_jax.thresholds``).

    Returns:
      A row of plain numbers for each method: ``method``, ``distance``, ``disagreement`` (share of predictions that
      differ), ``odds_gap_change``, ``parity_gap_change`` (with their sign), and ``metrics.columns``.
    """
    table, first = [], None
    for method, outcome in outcomes.items():
        params = outcome.params.mean(axis=0) if method in ENSEMBLES else outcome.params
        limits = jnp.zeros(train.groups, params.dtype)
        if thresholds:
            limits = fit_thresholds(train.x @ params, outcome.remaining)
        labels = predict_with_thresholds(test.x @ params, test.group, limits)
        found = group_metrics(labels, test)
        first = first or (labels, found)
        differs = (labels != first[0]).astype(test.weight.dtype)
        row = {"method": method, "distance": outcome.distance}
        row |= {"disagreement": float(jnp.average(differs, weights=test.weight))}
        row |= {"odds_gap_change": float(found.equalized_odds_mean - first[1].equalized_odds_mean)}
        row |= {"parity_gap_change": float(found.demographic_parity - first[1].demographic_parity)}
        table.append(row | columns(found))
    return table


def certificate_columns(
    objective: Objective, before: Params, outcome: Outcome, test: Data, *, sigma: float, delta: float,
    noise: Params | None = None, names: Sequence[str] = CERTIFIED,
) -> dict[str, Any]:  # fmt: skip
    """A removal's certificate, and the interval in which the retrained model's odds gap lies, as plain numbers by name.

    Args:
      objective: Objective of the training.
      before: Parameters before the removal.
      outcome: Outcome of a method that removes rows.
      test: Rows of the interval. It is about labels alone, so they may be grouped by other attributes than those rows
        on which the model was trained.
      sigma: Standard deviation of the perturbation; without any there is no certificate, and there are no columns.
      delta: Failure probability, in (0, 1).
      noise: The perturbation with which ``before`` was trained.
      names: Fields of the certificate.

    Returns:
      Those fields, ``undecided`` (rows whose label may change), ``odds_low`` and ``odds_high``.

    Raises:
      ValueError: Nothing was removed, or as ``certify``.
    """
    if outcome.removal is None:
        raise ValueError(f"method {outcome.method!r} removes nothing that could be certified")
    if sigma == 0:
        return {}
    found = certify(objective, before, outcome.removal, sigma=sigma, delta=delta, noise=noise)
    interval = fairness_interval(objective, outcome.removal, test, noise=noise)
    low, high = interval.equalized_odds_mean.tolist()
    row = {name: float(getattr(found, name)) for name in names}
    return row | {"undecided": int(interval.undecided), "odds_low": low, "odds_high": high}


def head_columns(
    objective: Objective, before: Array, outcome: Outcome, price: tuple[float, float], *, sigma: float, delta: float,
    noise: Array | None = None,
) -> dict[str, float]:  # fmt: skip
    """The certificate of a head, and of the head with its features, as plain numbers by name.

    Args:
      objective: Objective of the training.
      before: The head before the removal.
      outcome: Outcome of a method; of ``no_removal`` there are no columns.
      price: The extractor's (epsilon, delta) for one row; zeros for features from other rows.
      sigma: Standard deviation of the perturbation; without any there is no certificate, and there are no columns.
      delta: Failure probability of the head, in (0, 1).
      noise: The perturbation with which ``before`` was trained.

    Returns:
      ``residual_norm``, ``local_distance_bound`` and ``head_epsilon`` of the head, ``extractor_epsilon``, and
      ``total_epsilon`` and ``total_delta`` of both (``heads.with_features``).

    Raises:
      ValueError: As ``certify_head`` and ``with_features``.
    """
    if outcome.removal is None or sigma == 0:
        return {}
    epsilon, more = price
    head = certify_head(objective, before, outcome.removal, sigma=sigma, delta=delta, noise=noise)
    whole = with_features(head, epsilon=epsilon, delta=more, rows=int(outcome.removal.forgotten.sum()))
    row = {"residual_norm": head.residual_norm, "head_epsilon": head.epsilon, "total_epsilon": whole.epsilon}
    row |= {"total_delta": whole.delta, "extractor_epsilon": epsilon, "local_distance_bound": head.local_distance_bound}
    return {name: float(value) for name, value in row.items()}


def distance(first: Any, second: Any) -> float | None:
    """Euclidean distance of two arrays of parameters; None where they have different shapes."""
    first, second = np.asarray(first), np.asarray(second)
    return float(np.linalg.norm(first - second)) if first.shape == second.shape else None
