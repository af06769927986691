"""The exact residuals that the bounds of a stream bound, at the cost of a pass over all rows."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmu_jax import linalg
from fmu_jax import objective as objectives
from fmu_jax.data import Data, as_data, check_data, without
from fmu_jax.objective import Objective


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


@jax.jit
def _norms(objective, data, noise, requests, params, done):
    turn = jnp.full(data.weight.shape, len(requests)).at[requests].set(jnp.arange(len(requests)))

    def one(at):
        model, last = at
        return linalg.norm(objectives.gradient(objective, model, without(data, turn <= last), noise))

    return jax.lax.map(one, (params, done))
