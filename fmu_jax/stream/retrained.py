"""Bounds on the retrained model and on its group rates, from a state alone."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmu_jax.data import Data, as_data, check_data
from fmu_jax.distances import Region, convex_distance, local_radius
from fmu_jax.fitting import check_params, fit
from fmu_jax.intervals import FairnessInterval, interval_in_region
from fmu_jax.metrics import measure
from fmu_jax.objective import Objective
from fmu_jax.rounding import norm_bound, roundings
from fmu_jax.stream.factor import factorise, quadratic, remaining
from fmu_jax.stream.state import State


def retrained_region(state: State) -> Region:
    r"""Where the exactly retrained parameters can lie, from the bound alone, as ``distances.retrained_region``.

    Along ``D`` no row's curvature shrinks by more than ``exp(-|x_i.D|) >= exp(-t)``, ``t = max|x_i| |D|``, so
    ``H'(theta) >= e^-t H'(a)``, and both of that function's bounds follow from the moments, at a cost of O(d^3).

    Returns:
      The ``Region``; it holds for every retrained model of the same noise.
    """
    return _region(state)


@jax.jit
def _region(state: State) -> Region:
    q, dtype, n = quadratic(state), state.anchor.dtype, remaining(state)
    # Rows and parameters are rounded, and so is their product.
    shift = state.row_norm * norm_bound(state.params - state.anchor) * (1 + roundings(state.anchor.size + 16, dtype))
    own = factorise(state, None)
    growth = jnp.exp(shift / 2) * (1 + roundings(16, dtype))
    wide = own.wide * growth
    radius = local_radius(state.residual_bound * wide, state.row_norm * wide * (1 + roundings(16, dtype)))
    distance = convex_distance(state.residual_bound, n, state.objective.l2)
    return Region(state.residual_bound, q.gradient_error, distance, radius, own.dual * growth)


@jax.default_matmul_precision("highest")
def fairness_interval(state: State, data: Data) -> FairnessInterval:
    """Interval of every group rate on ``data`` of the model that retraining on what remains would give.

    Args:
      state: The state.
      data: Rows to predict, of the test set for instance.

    Returns:
      A ``FairnessInterval``, as ``fmu_jax.fairness_interval`` but without a pass over the training rows.
    """
    data = as_data(data)
    check_data(data)
    check_params(state.objective, state.params, data, state.noise)
    return interval_in_region(state.objective, state.params, retrained_region(state), data)


def beside_retrained(
    objective: Objective, params: Float[Array, " d"], left: Data, test: Data, *, noise: Float[Array, " d"] | None
) -> dict[str, float]:
    """Distance of a streamed model to the retrained one, and accuracy and odds gap of both.

    Args:
      objective: Linear.
      params: Parameters of the streamed model.
      left: Rows on which the other is trained.
      test: Rows for accuracy and fairness.
      noise: Perturbation of the objective, the same as of the stream.

    Returns:
      ``distance``, and ``streamed_accuracy``, ``streamed_odds``, ``retrained_accuracy`` and ``retrained_odds``.
    """
    models = {"streamed": params, "retrained": fit(objective, left, noise=noise).params}
    found = {"distance": float(jnp.linalg.norm(models["streamed"] - models["retrained"]))}
    for name, model in models.items():
        measured = measure(objective, model, test)
        found |= {f"{name}_accuracy": measured["accuracy"], f"{name}_odds": measured["equalized_odds_mean"]}
    return found
