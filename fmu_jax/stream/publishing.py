"""A stream in which every published model is a release; it is refreshed if its certified distance exceeds the admitted.

The guarantee is that of ``fmu_jax.releases``: it needs no perturbation of training, holds for the whole series, and a
refresh costs nothing, whatever it depended on.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from fmu_jax.data import Data, rows_at, without
from fmu_jax.fitting import NotConvergedError
from fmu_jax.objective import Scalar
from fmu_jax.privacy import check_norm, check_probability, gaussian_epsilon
from fmu_jax.releases.publishing import Release, add_noise, as_scale, as_shape, mu_of
from fmu_jax.stream import factor
from fmu_jax.stream.serving import check_requests
from fmu_jax.stream.state import State, refresh, without_rows
from fmu_jax.tracing import when_concrete


@jax.default_matmul_precision("highest")
def distance_to_retrained(state: State, *, shape: Array | None = None) -> Float[Array, ""]:
    """Certified bound on ``|theta - theta'|_A`` of the current model to the retrained one: O(d^3), no row needed.

    Args:
      state: The state.
      shape: ``A``, ``(d, d)`` positive definite; None is the identity.

    Returns:
      The scalar, rounding included; infinite where nothing is known.
    """
    if shape is not None:
        shape = as_shape(shape, state.params.shape[0], state.params.dtype)
    return _distance(state, shape)


@jax.jit
def _distance(state: State, shape) -> Float[Array, ""]:
    return factor.distance(state, factor.factorise(state, shape), jnp.ones((), state.params.dtype))


@jax.default_matmul_precision("highest")
def serve_releases(
    state: State,
    data: Data,
    rows: Any,
    *,
    key: Array,
    scale: Scalar,
    admitted: Scalar,
    shape: Array | None = None,
    delta: Scalar = 1e-5,
) -> tuple[State, Data, Release, Bool[Array, " k"]]:
    """Serves deletion requests one by one in a single ``lax.scan``, and releases a model after each.

    Args:
      state: State from ``start``; its noise may be None, its budget is not read.
      data: The remaining rows, as for ``refresh``.
      rows: Indices of the rows to delete, ``(k,)``, in the order of the requests.
      key: PRNG key, required; secret, and never used twice.
      scale: Standard deviation of each release's noise: ``releases.scale_for(admitted, mu=, releases=k)``.
      admitted: The largest distance that may be published; beyond it the model is refreshed.
      shape: ``A``, as for ``releases.release``.
      delta: Failure probability at which ``epsilon`` of each release is given.

    Returns:
      The state after the last request, what then remains of ``data``, the ``Release`` after each request (fields with a
      leading axis of length ``k``), and whether it is of a refreshed model. The series costs ``compose(release.mu)``.

    Raises:
      ValueError: As ``take``, ``data`` are not the rows that the state holds, or a number out of range.
      NotConvergedError: A refresh did not bring the distance within the admitted one.
    """
    check_norm(admitted=admitted)
    check_probability(delta=delta)
    data, rows = check_requests(state, data, rows)
    dtype = state.params.dtype
    if shape is not None:
        shape = as_shape(shape, state.params.shape[0], dtype)
    scale = as_scale(scale, dtype)
    mu = mu_of(admitted, scale)
    after, params, spacing, refreshed, certified, sound = _serve(state, data, rows, key, scale, admitted, shape)
    _check_served(certified, sound, admitted, scale)
    fine = certified & sound
    mu, epsilon = (jnp.where(fine, number, jnp.inf) for number in (mu, gaussian_epsilon(mu, 1.0, delta)))
    deltas, scales = (jnp.broadcast_to(jnp.asarray(number), fine.shape) for number in (delta, scale))
    left = data._replace(weight=data.weight.at[rows].set(0))
    return after, left, Release(params, mu, epsilon, deltas, scales, spacing), refreshed


@when_concrete
def _check_served(certified, sound, admitted, scale) -> None:
    if not np.all(certified):
        raise NotConvergedError(
            f"{int(np.sum(~np.asarray(certified)))} refreshed models are not certified within the admitted distance "
            f"{float(admitted):.3g}; use float64 or a larger `admitted`"
        )
    if not np.all(sound):
        raise ValueError(
            f"noise of `scale` {float(scale):.3g} would drown in the rounding of {scale.dtype} parameters, or `shape` "
            "is not positive definite beyond rounding; use float64, a larger scale, or add a ridge to the shape"
        )


@jax.jit
def _serve(state: State, data: Data, rows, key, scale, admitted, shape):
    turn = jnp.full(data.weight.shape, rows.shape[0], jnp.int32)
    turn = turn.at[rows].set(jnp.arange(rows.shape[0], dtype=jnp.int32))
    # An admitted distance that was rounded up admits no more.
    most = jnp.asarray(admitted).astype(scale.dtype) * (1 - 4 * jnp.finfo(scale.dtype).eps)

    def request(carry, at):
        (state, held), (t, row) = carry, at
        state, q = without_rows(state, jax.tree.map(lambda leaf: leaf[None], row))
        held, omega = factor.renewed(state, q, held, shape)
        distance = factor.distance(state, held, omega)
        stale = ~(distance <= most)

        def renew(state, _):
            state = refresh(state, without(data, turn <= t))
            own = factor.factorise(state, shape)
            return (state, own), factor.distance(state, own, jnp.ones_like(omega))

        carry, distance = jax.lax.cond(stale, renew, lambda *now: (now, distance), state, held)
        return carry, (carry[0].params, stale, distance <= most)

    start = state, factor.factorise(state, shape)
    requests = jnp.arange(rows.shape[0], dtype=jnp.int32), rows_at(data, rows)
    (after, _), (params, stale, fine) = jax.lax.scan(request, start, requests)
    # No request reads what was published, so the noise is drawn side by side.
    keys = jax.random.split(key, rows.shape[0])
    noisy, spacing, sound = jax.vmap(add_noise, in_axes=(0, 0, None, None))(params, keys, scale, shape)
    shown = jnp.where((fine & sound)[:, None], noisy, jnp.nan)
    return after, shown, spacing, stale, fine, sound
