"""Serves deletion requests: checks what may be deleted, and runs whole sequences in one scan."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from fmu_jax.arrays import as_codes, as_numbers
from fmu_jax.data import Data, as_data, cell_counts, rows_at, without
from fmu_jax.fitting import NotConvergedError
from fmu_jax.removal.methods import check_forget
from fmu_jax.showing import one_line
from fmu_jax.stream.state import State, check_counts, check_held, delete, needs_refresh, refresh
from fmu_jax.tracing import eager_only, is_traced


@eager_only
def take(data: Data, forget: Any) -> tuple[Data, Data]:
    """Picks rows to delete, and refuses those that a stream of deletions must never get.

    Args:
      data: The ``n`` remaining rows, deleted ones at weight zero.
      forget: Row indices ``(k,)``, or a boolean mask ``(n,)``.

    Returns:
      The rows to delete, ``(k, d)``, in their order in ``data``, and what remains: the same arrays, weight zero for
      the deleted.

    Raises:
      ValueError: A row is out of range, repeated, deleted before, or the last of its cell.
      TypeError: Something is traced.
    """
    data = as_data(data)
    mask = check_forget(data, forget)
    remaining = without(data, mask)
    check_counts(cell_counts(data), cell_counts(remaining))
    chosen = np.flatnonzero(np.asarray(mask))
    return rows_at(data, chosen), remaining


class Served(NamedTuple):
    """What ``serve`` returns for each of ``k`` requests.

    Attributes:
      params: The published model after it, ``(k, d)``.
      residual_bound, epsilon: Residual bound and epsilon of that model, ``(k,)``.
      refreshed: Whether it is from a refresh, ``(k,)`` bool.
    """

    params: Float[Array, "k d"]
    residual_bound: Float[Array, " k"]
    epsilon: Float[Array, " k"]
    refreshed: Bool[Array, " k"]

    __repr__ = one_line()


@jax.default_matmul_precision("highest")
def serve(state: State, data: Data, rows: Any) -> tuple[State, Data, Served]:
    """Serves deletion requests one by one in a single ``lax.scan``, refreshing whenever the bound passes the budget.

    Args:
      state: The state.
      data: The remaining rows, as for ``refresh``.
      rows: Indices of the rows to delete, ``(k,)``, in the order of the requests.

    Returns:
      The state after the last request, what then remains of ``data``, and what was published after each request.

    Raises:
      ValueError: As ``take``, or ``data`` are not the rows that the state holds.
      NotConvergedError: A refresh did not bring the bound within the budget.
    """
    data, rows = check_requests(state, data, rows)
    after, served = _serve(state, data, rows)
    if not is_traced(served) and np.any(~(np.asarray(served.epsilon) <= np.asarray(state.budget))):
        raise NotConvergedError(
            f"a refreshed model has epsilon {float(np.max(served.epsilon)):.3g}, above the budget "
            f"{float(state.budget):.3g}; use float64, or a larger sigma or budget"
        )
    return after, data._replace(weight=_zero_at(data.weight, rows)), served


@jax.jit
def _zero_at(weight, rows):
    return weight.at[rows].set(0)


def check_requests(state: State, data: Any, rows: Any) -> tuple[Data, Array]:
    """Data and indices, ready to be served; ValueError as ``serve``."""
    data, rows = as_data(data), as_numbers(rows, "rows")
    if rows.dtype == bool:
        raise ValueError("`rows` must be indices, a request each, and is a mask; pass np.flatnonzero(rows)")
    if not is_traced(state, data, rows):
        check_held(state, data)
        take(data, rows)
    return data, as_codes(rows, "rows")


@jax.jit
def _serve(state: State, data: Data, rows) -> tuple[State, Served]:
    # Row i is gone from request turn[i] on, so no copy of the weights is carried.
    turn = jnp.full(data.weight.shape, rows.shape[0], jnp.int32)
    turn = turn.at[rows].set(jnp.arange(rows.shape[0], dtype=jnp.int32))

    def request(state, at):
        t, row = at
        state = delete(state, row)
        stale = needs_refresh(state)
        state = jax.lax.cond(
            stale,
            lambda s: refresh(s, without(data, turn <= t)),
            lambda s: s,
            state,
        )
        return state, Served(state.params, state.residual_bound, state.epsilon, stale)

    return jax.lax.scan(request, state, (jnp.arange(rows.shape[0], dtype=jnp.int32), rows_at(data, rows)))


class Batch(NamedTuple):
    """What a stream is after one batch of deletions.

    Attributes:
      state: The stream.
      data: The remaining rows.
      refreshed: Whether it was solved anew.
      seconds: Time that this took, by the caller's clock.
    """

    state: State
    data: Data
    refreshed: bool
    seconds: float


def serve_batches(
    state: State,
    data: Data,
    batches: Any,
    *,
    stale: Callable[[State, Data], bool],
    clock: Callable[[], float] = lambda: 0.0,
) -> list[Batch]:
    """Serves deletions batch by batch, and refreshes the state wherever ``stale`` says that it must not be used.

    Args:
      state: State of a stream at the rows of ``data``.
      data: The rows.
      batches: Row indices, a sequence of sequences; no row twice.
      stale: Whether a state must be solved anew, given the remaining rows too.
      clock: Such as ``time.perf_counter``; checks of a batch are not in its time.

    Returns:
      What each batch left, in order.

    Raises:
      ValueError: As ``take``.
    """
    found = []
    for batch in batches:
        rows, data = take(data, batch)
        begin = clock()
        state = delete(state, rows)
        renewed = bool(stale(state, data))
        if renewed:
            state = refresh(state, data)
        jax.block_until_ready(state.params)
        found.append(Batch(state, data, renewed, clock() - begin))
    return found
