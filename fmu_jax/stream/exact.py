"""The exact residuals that the bounds of a stream bound, at the cost of a pass over all rows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmu_jax import linalg, privacy
from fmu_jax import objective as objectives
from fmu_jax.data import Data, as_data, check_data, without
from fmu_jax.objective import Objective, Scalar
from fmu_jax.stream.serving import Served


def exact_residuals(
    objective: Objective,
    data: Data,
    requests: Any,
    params: Float[Array, "k d"],
    done: Any,
    *,
    noise: Float[Array, " d"] | None = None,
) -> Float[Array, " k"]:
    """Norms of the remaining objective's gradient at models of a stream: ``Served.residual_bound`` bounds them.

    Args:
      objective: Objective of the training.
      data: The rows before the first request.
      requests: Row indices ``(requests,)`` in the order in which they were deleted.
      params: Models, each after one of the requests.
      done: The number of the last request before each, counted from 0, ``(k,)``.
      noise: The perturbation that was trained with.

    Returns:
      The norms; each takes a pass over all rows.

    Raises:
      ValueError: Bad rows.

    >>> from fmu_jax import datasets, fit
    >>> data, objective = datasets.synthetic(200, 3, seed=0).train, Objective(l2=1e-2)
    >>> params = fit(objective, data).params
    >>> exact_residuals(objective, data, [3, 14], jnp.stack([params, params]), [0, 1]).shape
    (2,)
    """
    data = as_data(data)
    check_data(data)
    return _norms(objective, data, noise, jnp.asarray(requests), jnp.asarray(params), jnp.asarray(done))


def epsilon_curve(
    objective: Objective, data: Data, requests: Any, served: Served, *, points: int, sigma: Scalar, delta: Scalar,
    noise: Float[Array, " d"] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """What the published models of a stream have spent, certified and exact, against the requests served.

    Args:
      objective: Objective of the training.
      data: The rows before the first request.
      requests: Row indices ``(k,)`` in the order in which they were deleted.
      served: What ``serve`` returned for them.
      points: Number of models, evenly spaced from the first to the last; each takes a pass over all rows.
      sigma: Standard deviation of the perturbation, > 0.
      delta: Failure probability, in (0, 1).
      noise: The perturbation that was trained with.

    Returns:
      A row of plain numbers for each of these models: ``request`` (how many were served, counted from 1), ``share`` (of
      the rows of weight one), ``epsilon`` and ``residual_bound`` as certified, ``exact_epsilon`` and ``residual_norm``
      from the exact residual, and ``refreshes`` so far.

    Raises:
      ValueError: As ``exact_residuals``, or a number out of range.
    """
    at = np.unique(np.linspace(0, len(requests) - 1, points).astype(int))
    exact = exact_residuals(objective, data, requests, served.params[at], at, noise=noise)
    columns = {
        "request": at + 1,
        "share": (at + 1) / int((data.weight > 0).sum()),
        "epsilon": served.epsilon[at],
        "exact_epsilon": privacy.certified_epsilon(exact, sigma, delta),
        "residual_bound": served.residual_bound[at],
        "residual_norm": exact,
        "refreshes": np.cumsum(np.asarray(served.refreshed))[at],
    }
    values = zip(*(np.asarray(column).tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]


@jax.jit
def _norms(objective, data, noise, requests, params, done):
    turn = jnp.full(data.weight.shape, len(requests)).at[requests].set(jnp.arange(len(requests)))

    def one(at):
        model, last = at
        return linalg.norm(objectives.gradient(objective, model, without(data, turn <= last), noise))

    return jax.lax.map(one, (params, done))
