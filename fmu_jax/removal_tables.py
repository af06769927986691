"""What removals leave, as tables of plain rows: many deletions, methods, groupings, levels of noise, from one model."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, PRNGKeyArray

from fmu_jax.certificates import certify
from fmu_jax.comparison import EVERY, certificate_columns, compare, head_columns, measure
from fmu_jax.data import Data
from fmu_jax.fitting import fit
from fmu_jax.forget_sets import count_rows, draw_rows, group_to_forget, subset_rows
from fmu_jax.heads import fit_head
from fmu_jax.metrics import measure_groupings
from fmu_jax.objective import Objective, Params
from fmu_jax.privacy import certified_epsilon, gaussian_epsilon
from fmu_jax.removal import fit_ensemble, remove

BOUNDS = ("residual_norm", "row_bound", "gram_bound", "paper_data_dependent", "paper_worst_case")
"""Bounds on the residual in ``bounds_table``."""
OF_HEADS = ("retrain", "no_removal", "fair_newton", "newton", "influence")
"""The methods of ``heads_table``."""
OF_GROUPINGS = ("retrain", "no_removal", "fair_newton", "newton")
"""The methods of ``groupings_table``."""
OF_GROUPS = ("residual_norm", "row_bound", "gram_bound", "epsilon", "distance_bound", "local_distance_bound")
"""Fields of the certificates in ``groupings_table``."""
NOTHING = "nothing"
"""What ``groupings_table`` says is penalised where nothing is."""
Row = dict[str, Any]


def removal_table(
    objective: Objective, params: Params, train: Data, test: Data, *, noise: Array, sigma: float, delta: float,
    subsets: Sequence[Any], fractions: Sequence[float], of_subset: bool, shards: int, seed: int, key: PRNGKeyArray,
    clock: Callable[[], float] | None = None,
) -> list[Row]:  # fmt: skip
    """Every method on rows from every subset.

    Args:
      objective: Objective on which ``params`` was trained.
      params: Parameters of a linear model.
      train: Rows on which it was trained.
      test: Rows to measure on.
      noise: The perturbation with which it was trained.
      sigma: Standard deviation of the perturbation.
      delta: Failure probability of the certificates, in (0, 1).
      subsets: Subsets from which rows are forgotten, as for ``forget_sets.draw_rows``.
      fractions: Shares to forget; one that a subset cannot give is left out.
      of_subset: Whether the shares are of the subset or of all rows.
      shards: Number of shards of the method ``sharded``.
      seed: Seed of the draws of rows.
      key: PRNG key of the shards.
      clock: As for ``compare``.

    Returns:
      A row for each subset, fraction and method.
    """
    ensemble, table = fit_ensemble(objective, train, shards, key=key), []
    for subset, fraction in itertools.product(subsets, fractions):
        whole = len(subset_rows(train, subset if of_subset else "random"))
        forget = draw_rows(train, round(fraction * whole), subset=subset, seed=seed)
        if forget is None:
            continue
        about = {"subset": subset, "fraction": fraction, "rows_removed": len(forget)}
        about |= {"train_rows": count_rows(train), "features": train.x.shape[1]}
        options: dict[str, Any] = {"methods": EVERY, "noise": noise, "ensemble": ensemble, "clock": clock}
        for method, outcome in compare(objective, params, train, forget, **options).items():
            row = about | {"method": method, "distance": outcome.distance}
            row |= {"time_ms": 1e3 * outcome.seconds} if outcome.seconds is not None else {}
            row |= measure(objective, outcome, test)
            if method == "fair_newton":
                level = {"sigma": sigma, "delta": delta, "noise": noise}
                row |= certificate_columns(objective, params, outcome, test, **level)
            table.append(row)
    return table


def bounds_table(
    objective: Objective, params: Params, train: Data, *, noise: Array, sigma: float, deltas: Sequence[float],
    fractions: Sequence[float], seed: int,
) -> list[Row]:  # fmt: skip
    """Every bound on the residual of fair Newton removals of random rows, and the epsilon that follows from each.

    Args:
      objective: Objective on which ``params`` was trained.
      params: Parameters of a linear model.
      train: Rows on which it was trained.
      noise: The perturbation with which it was trained.
      sigma: Its standard deviation, > 0.
      deltas: Failure probabilities, in (0, 1).
      fractions: Shares of the rows to forget; one that cannot be forgotten is left out.
      seed: Seed of the draws of rows.

    Returns:
      A row for each fraction and delta.
    """
    table = []
    for fraction in fractions:
        count = round(fraction * count_rows(train))
        forget = draw_rows(train, count, seed=seed)
        if forget is None:
            continue
        removal = remove(objective, params, train, forget, noise=noise)
        for delta in deltas:
            found = certify(objective, params, removal, sigma=sigma, delta=delta, noise=noise)
            row: Row = {"fraction": fraction, "rows_removed": count, "delta": delta}
            row |= {name: float(getattr(found, name)) for name in BOUNDS}
            row |= {f"epsilon_{name}": float(certified_epsilon(row[name], sigma, delta)) for name in BOUNDS}
            exact = float(gaussian_epsilon(row["residual_norm"], sigma, delta))
            table.append(row | {"epsilon_gaussian": exact})
    return table


def heads_table(
    objective: Objective, train: Data, test: Data, price: tuple[float, float], *, noise: Array, sigma: float,
    delta: float, counts: Sequence[int], seed: int,
) -> list[Row]:  # fmt: skip
    """One head, or one for each class, and every removal of random rows from it.

    Args:
      objective: Objective of the training.
      train: Features and labels, of many classes as ``heads.one_vs_rest`` makes them.
      test: Rows to measure on.
      price: The extractor's (epsilon, delta) for one row; zeros for features from other rows.
      noise: The perturbation of the training.
      sigma: Its standard deviation.
      delta: Failure probability of the head, in (0, 1).
      counts: Numbers of rows to forget; one that would empty a class is left out.
      seed: Seed of the draws of rows.

    Returns:
      A row for each count and method.
    """
    before, table = fit_head(objective, train, noise=noise).params, []
    for count in counts:
        rows = draw_rows(train, count, seed=seed)
        if rows is None:
            continue
        found = compare(objective, before, train, rows, methods=OF_HEADS, noise=noise)
        for method, outcome in found.items():
            row = {"rows_removed": count, "train_rows": len(train.weight), "method": method}
            row |= {"distance": outcome.distance} | measure(objective, outcome, test)
            level = {"sigma": sigma, "delta": delta, "noise": noise}
            table.append(row | head_columns(objective, before, outcome, price, **level))
    return table


def groupings_table(
    objectives: Mapping[str, Objective], trains: Mapping[str, Data], tests: Mapping[str, Data], *,
    noise: Array, sigma: float, delta: float, fractions: Sequence[float], seed: int,
) -> list[Row]:  # fmt: skip
    """Models with penalties on attributes and on their intersections, and removals from one intersection.

    Args:
      objectives: The objectives by the name of their penalty.
      trains: The same training rows by attribute, grouped by it, and last grouped by all of them.
      tests: Test rows in the same way.
      noise: The perturbation of every training.
      sigma: Its standard deviation.
      delta: Failure probability of the certificates, in (0, 1).
      fractions: Shares of the rows to forget, all from the smallest intersection that keeps half of its rows.
      seed: Seed of the draws of rows.

    Returns:
      A row for each penalty, penalised grouping, fraction and method.
    """
    *_, (_, whole), (_, test) = *trains.items(), list(tests.items())[-1]
    source = group_to_forget(whole, round(max(fractions) * len(whole.y)))
    pool, table = np.flatnonzero(np.asarray(whole.group) == source), []
    for name, penalised in itertools.product(objectives, (NOTHING, *trains)):
        objective = objectives[name]
        if penalised == NOTHING:
            objective = dataclasses.replace(objective, fairness=0.0)
        train = trains.get(penalised, whole)
        params = fit(objective, train, noise=noise).params
        for fraction in fractions:
            count = round(fraction * len(train.y))
            forget = np.random.default_rng([seed, count]).choice(pool, count, replace=False)
            found = compare(objective, params, train, forget, methods=OF_GROUPINGS, noise=noise)
            for method, outcome in found.items():
                row = {"penalty": name, "penalised": penalised, "fraction": fraction, "rows_removed": count}
                row |= {"method": method, "distance": outcome.distance}
                row |= measure_groupings(objective, outcome.params, tests)
                if method == "fair_newton":
                    level = {"sigma": sigma, "delta": delta, "noise": noise, "names": OF_GROUPS}
                    row |= certificate_columns(objective, params, outcome, test, **level)
                table.append(row)
    return table
