"""What a guarantee over a whole series costs in accuracy and fairness, as rows: by releases, or by noise in training.

For an operator who chooses a guarantee, on rows at hand, before the first request.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmu_jax.data import Data
from fmu_jax.metrics import means, metrics_of_models
from fmu_jax.objective import Objective
from fmu_jax.releases import release_many, scale_for
from fmu_jax.removal import remove
from fmu_jax.stream.series import Batches, published_after, refreshes_of, serve_for_releases, serve_perturbed
from fmu_jax.timing import timed


def release_costs(
    objective: Objective, data: Data, test: Data, batches: Batches, rehearsed: Batches, *, kind: str,
    mus: Sequence[float], lengths: Sequence[int], slack: float, draws: int, key: Array,
    clock: Callable[[], float],
) -> list[dict[str, Any]]:  # fmt: skip
    """Accuracy and fairness of the last release of series of several lengths and guarantees.

    Args:
      objective: Linear.
      data: The rows, all of which are trained on first.
      test: Rows for accuracy and fairness.
      batches: Rows to delete, as for ``serve_for_releases``, as ``rehearsed``, ``kind`` and ``slack``.
      rehearsed: Other rows, for the rehearsal.
      kind: Kind of the noise's shape.
      mus: Gaussian-DP parameters of whole series.
      lengths: Numbers of releases in a series.
      slack: How many times what the rehearsal certified is admitted.
      draws: Number of noise draws to average over.
      key: PRNG key of all draws.
      clock: Such as ``time.perf_counter``.

    Returns:
      A row of plain numbers for each length and ``mu``: ``releases``, ``mu``, ``scale`` of the noise, ``admitted``,
      certified and true ``distance``, ``refreshes``, milliseconds of a batch and of drawing a release (``ms``,
      ``publish_ms``), and the columns of ``spread``.

    Raises:
      ValueError: As ``serve_for_releases``.
    """
    series = serve_for_releases(objective, data, batches, rehearsed, kind=kind, slack=slack, clock=clock)
    table = []
    for length in lengths:
        at = published_after(objective, series, length)
        about = {"releases": length, "admitted": series.admitted, "distance": at.distance, "ms": 1e3 * at.seconds}
        about |= {"true_distance": at.true_distance, "refreshes": at.refreshes}
        keys = jax.random.split(jax.random.fold_in(key, length), draws)
        for mu in mus:
            scale = scale_for(series.admitted, mu=mu, releases=length)
            options = {"scale": scale, "admitted": series.admitted, "shape": at.shape, "keys": keys}
            models, seconds = timed(partial(release_many, at.params, at.distance, **options), clock)
            row = {"mu": mu, "scale": float(scale), "publish_ms": 1e3 * seconds / draws}
            table.append(about | row | spread(objective, models, test))
    return table


def perturbation_costs(
    objective: Objective, data: Data, test: Data, batches: Batches, rehearsed: Batches, *, mu: float, delta: float,
    lengths: Sequence[int], slack: float, keys: Array,
) -> list[dict[str, Any]]:  # fmt: skip
    """The same of the paper's noise in training, whose epsilon is that of each model alone.

    Args:
      objective: As for ``release_costs``, as ``data``, ``test``, ``batches``, ``rehearsed`` and ``lengths``.
      data: The rows.
      test: Rows for accuracy and fairness.
      batches: Rows to delete.
      rehearsed: Other rows, for the rehearsal.
      mu: As for ``serve_perturbed``, as ``delta``, ``slack`` and ``keys``.
      delta: Failure probability.
      lengths: Numbers of models in a series.
      slack: How many times the residual that the rehearsal certified is admitted.
      keys: ``(k,)`` PRNG keys, one for each draw of the noise.

    Returns:
      A row for each length: ``releases``, ``mu``, ``epsilon``, ``scale``, ``refreshes`` (a mean), and the columns of
      ``spread``.

    Raises:
      ValueError: As ``serve_perturbed``.
    """
    options = {"mu": mu, "delta": delta, "slack": slack, "keys": keys}
    found, table = serve_perturbed(objective, data, batches, rehearsed, **options), []
    for length in lengths:
        models = jnp.stack([served[length - 1].state.params for served in found.draws])
        row = {"releases": length, "mu": mu, "epsilon": found.epsilon, "scale": found.sigma}
        row |= {"refreshes": float(np.mean([refreshes_of(served[:length]) for served in found.draws]))}
        table.append(row | spread(objective, models, test))
    return table


def retraining_costs(
    objective: Objective, before: Float[Array, " d"], data: Data, test: Data, batches: Batches, *,
    lengths: Sequence[int], clock: Callable[[], float],
) -> list[dict[str, Any]]:  # fmt: skip
    """The same of the model that is retrained, without noise, when some batches are deleted.

    Args:
      objective: As for ``release_costs``, as ``data``, ``test``, ``batches``, ``lengths`` and ``clock``.
      before: Parameters of the model that was trained on all rows.
      data: The rows.
      test: Rows for accuracy and fairness.
      batches: Rows to delete.
      lengths: Numbers of batches.
      clock: Such as ``time.perf_counter``.

    Returns:
      A row for each length: milliseconds of the retraining, compilation included (``ms``), ``method``, ``releases``,
      and the columns of ``spread``.
    """
    table = []
    for length in lengths:
        begin = clock()
        found = remove(objective, before, data, np.concatenate(batches[:length]), method="retrain")
        jax.block_until_ready(found.params)
        row = {"ms": 1e3 * (clock() - begin), "method": "retrain", "releases": length}
        table.append(row | spread(objective, found.params[None], test))
    return table


def spread(objective: Objective, models: Float[Array, "models d"], test: Data) -> dict[str, float]:
    """Mean ``accuracy`` and ``equalized_odds_mean`` of many models, and ``accuracy_spread``, its standard deviation."""
    metrics = metrics_of_models(objective, models, test)
    return means(metrics, ("accuracy", "equalized_odds_mean")) | {"accuracy_spread": float(metrics.accuracy.std())}


def series_costs(
    objective: Objective, before: Float[Array, " d"], data: Data, test: Data, batches: Batches, rehearsed: Batches, *,
    kinds: Sequence[str], mus: Sequence[float], lengths: Sequence[int], slack: float, draws: int, delta: float,
    perturbations: int, key: Array, clock: Callable[[], float],
) -> list[dict[str, Any]]:  # fmt: skip
    """All three side by side: retraining, releases with every shape of noise, and noise in training.

    Args:
      objective: As for ``release_costs``, as ``data``, ``test``, ``batches``, ``rehearsed``, ``mus``, ``lengths``,
        ``slack``, ``draws``, ``key`` and ``clock``.
      before: Parameters of the model that was trained on all rows.
      data: The rows.
      test: Rows for accuracy and fairness.
      batches: Rows to delete.
      rehearsed: Other rows, for the rehearsal.
      kinds: Kinds of the noise's shape.
      mus: Gaussian-DP parameters of whole series.
      lengths: Numbers of releases in a series.
      slack: How many times what the rehearsal certified is admitted.
      draws: Number of noise draws to average over.
      delta: Failure probability of the noise in training.
      perturbations: Number of draws of that noise to average over.
      key: PRNG key of all draws.
      clock: Such as ``time.perf_counter``.

    Returns:
      The rows of each, with ``method`` and ``shape``.

    Raises:
      ValueError: As ``release_costs``.
    """
    rows, options = (objective, data, test, batches, rehearsed), {"lengths": lengths, "slack": slack}
    table = retraining_costs(objective, before, data, test, batches, lengths=lengths, clock=clock)
    for kind in kinds:
        found = release_costs(*rows, kind=kind, mus=mus, draws=draws, key=key, clock=clock, **options)
        table += [{"method": "release", "shape": kind} | row for row in found]
    for mu in mus:
        found = perturbation_costs(*rows, mu=mu, delta=delta, keys=jax.random.split(key, perturbations), **options)
        table += [{"method": "objective_noise"} | row for row in found]
    return table
