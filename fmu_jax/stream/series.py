"""Series of published models whose guarantee is fixed beforehand: by releases, or by the paper's noise in training.

What must be fixed before the first request is how far a published model may be from the retrained one. A *rehearsal*,
deletions of other rows of the same number, tells how far a stream gets without a refresh; ``slack`` times that is
*admitted*, and the stream is refreshed whenever it is further. So a refresh lasts about as long as the rehearsal, and
nothing is fitted to the deletions that the noise hides.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmu_jax import privacy
from fmu_jax.data import Data
from fmu_jax.fitting import fit
from fmu_jax.objective import Objective, sample_noise
from fmu_jax.releases.publishing import noise_shape
from fmu_jax.stream.publishing import distance_to_retrained
from fmu_jax.stream.serving import Batch, serve_batches
from fmu_jax.stream.state import State, needs_refresh, refresh, start

Batches = Any
"""Row indices, a sequence of sequences."""


class Series(NamedTuple):
    """A stream served for releases.

    Attributes:
      admitted: Distance from the retrained model that no state exceeds, in the norm of the noise's shape.
      batches: What each batch left, in order.
      kind: Kind of the noise's shape, see ``releases.noise_shape``.
    """

    admitted: float
    batches: list[Batch]
    kind: str


class Published(NamedTuple):
    """What is released after some batches of a series.

    Attributes:
      params: Before noise.
      shape: Shape of the noise, None for the identity.
      distance: Certified, from the retrained parameters.
      true_distance: The real one, which an operator need not know.
      refreshes: So far.
      seconds: Seconds of a batch, in the median.
    """

    params: Float[Array, " d"]
    shape: Float[Array, "d d"] | None
    distance: float
    true_distance: float
    refreshes: int
    seconds: float


class Perturbed(NamedTuple):
    """Streams served under the paper's noise in training, a list of batches for each draw of it.

    Attributes:
      epsilon: Budget of each single model, whatever the number of models.
      sigma: Standard deviation of the noise.
      draws: What each batch left, by draw.
    """

    epsilon: float
    sigma: float
    draws: list[list[Batch]]


def serve_for_releases(
    objective: Objective, data: Data, batches: Batches, rehearsed: Batches, *, kind: str, slack: float,
    clock: Callable[[], float] = lambda: 0.0,
) -> Series:  # fmt: skip
    """Serves deletions so that every state is within the admitted distance of the retrained model.

    Args:
      objective: Linear.
      data: The rows, all of which are trained on first.
      batches: Rows to delete.
      rehearsed: Other rows, for the rehearsal.
      kind: Kind of the noise's shape, see ``releases.noise_shape``.
      slack: How many times what the rehearsal certified is admitted, above 0.
      clock: Such as ``time.perf_counter``.

    Raises:
      ValueError: Another kind, a slack that is none, or as ``serve_batches``.
    """
    _check_slack(slack)
    state = _begin(objective, data, None, 1.0, 1.0, 0.5)  # Noise, budget and delta are no part of a distance.

    def distance(state: State, data: Data) -> float:
        return float(distance_to_retrained(state, shape=noise_shape(objective, data, kind)))

    last = serve_batches(state, data, rehearsed, stale=lambda *at: False)[-1]
    admitted = slack * distance(last.state, last.data)
    served = serve_batches(state, data, batches, stale=lambda *at: not distance(*at) <= admitted, clock=clock)
    return Series(admitted, served, kind)


def published_after(objective: Objective, series: Series, batches: int) -> Published:
    """What is released after the first ``batches`` of a series.

    Args:
      objective: Objective of the series.
      series: Series from ``serve_for_releases``.
      batches: Number of batches, at least 1.
    """
    state, data, *_ = series.batches[batches - 1]
    shape = noise_shape(objective, data, series.kind)
    apart = state.params - refresh(state, data).params
    return Published(
        params=state.params,
        shape=shape,
        distance=float(distance_to_retrained(state, shape=shape)),
        true_distance=float(jnp.sqrt(apart @ (apart if shape is None else shape @ apart))),
        refreshes=refreshes_of(series.batches[:batches]),
        seconds=float(np.median([batch.seconds for batch in series.batches[:batches]])),
    )


def serve_perturbed(
    objective: Objective, data: Data, batches: Batches, rehearsed: Batches, *, mu: float, delta: float, slack: float,
    keys: Array,
) -> Perturbed:  # fmt: skip
    """Serves deletions under the paper's noise in training, refreshed where a model's epsilon passes its budget.

    The budget is the epsilon that ``mu``-Gaussian-DP has at ``delta``; sigma is as large as admits ``slack`` times the
    residual that the rehearsal certified.

    Args:
      objective: Linear.
      data: The rows, all of which are trained on first.
      batches: Rows to delete.
      rehearsed: Other rows, for the rehearsal.
      mu: Gaussian-DP parameter of the guarantee, above 0.
      delta: Failure probability in (0, 1).
      slack: Above 0.
      keys: ``(k,)`` PRNG keys, one for each draw of the noise.

    Raises:
      ValueError: A slack that is none, or as ``serve_batches``.
    """
    _check_slack(slack)
    epsilon = float(privacy.gaussian_epsilon(mu, 1.0, delta))
    plain = _begin(objective, data, None, 1.0, epsilon, delta)
    last = serve_batches(plain, data, rehearsed, stale=lambda *at: False)[-1]
    sigma = slack * float(last.state.residual_bound) / float(privacy.residual_from(epsilon, 1.0, delta))
    init, draws = fit(objective, data).params, []
    for key in keys:
        noise = sample_noise(init, key=key, sigma=sigma)
        state = _begin(objective, data, noise, sigma, epsilon, delta, init=init)
        draws.append(serve_batches(state, data, batches, stale=lambda state, data: bool(needs_refresh(state))))
    return Perturbed(epsilon, sigma, draws)


def refreshes_of(batches: list[Batch]) -> int:
    """How many of these batches ended in a refresh."""
    return sum(batch.refreshed for batch in batches)


def _begin(objective, data, noise, sigma, budget, delta, init=None) -> State:
    fitted = fit(objective, data, noise=noise, init=init)
    return start(objective, fitted, data, noise=noise, sigma=sigma, delta=delta, budget=budget)


def _check_slack(slack: float) -> None:
    if not 0 < slack < np.inf:
        raise ValueError(f"`slack` must be a finite number above 0, got {slack}")
