"""Sharded training and removal (SISA): each shard has a model, and only shards that lost a row are retrained.

The removal is exact by construction and needs no certificate. In return, each model of the ensemble is trained on only
n/S rows, and a fairness penalty that couples rows of different shards cannot be honoured.

Differs from the reference: D7 shards are drawn at random from a key and their number and aggregation are free (the
original splits in file order, five shards, a vote of at least three), and only touched shards are retrained.
Source: Bourtoule et al. (2021), "Machine unlearning".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fmu_jax import objective as objectives
from fmu_jax.data import Data, as_data, check_data
from fmu_jax.fitting import FitResult, NotConvergedError, minimise, use_dense
from fmu_jax.objective import Objective
from fmu_jax.removal.update import Update
from fmu_jax.showing import one_line
from fmu_jax.tracing import is_traced


def make_shards(n: int, shards: int, *, key: Array) -> Int[Array, "shards size"]:
    """Deals ``n`` rows at random into shards of equal size.

    Args:
      n: Number of rows.
      shards: Number of shards, 1 to ``n``.
      key: PRNG key, required.

    Returns:
      Row indices ``(shards, ceil(n / shards))`` int32; ``n`` marks padding.

    Raises:
      ValueError: ``shards`` is out of range.

    >>> rows = make_shards(5, 2, key=jax.random.key(0))
    >>> rows.shape, sorted(rows.ravel().tolist())
    ((2, 3), [0, 1, 2, 3, 4, 5])
    """
    if not 1 <= shards <= n:
        raise ValueError(f"`shards` must be between 1 and the number of rows {n}, got {shards}")
    size = -(-n // shards)
    rows = jnp.concatenate([jax.random.permutation(key, n), jnp.full(shards * size - n, n)])
    # Deal like cards, so that padding spreads over the shards.
    return rows.reshape(size, shards).T.astype(jnp.int32)


@jax.default_matmul_precision("highest")
def fit_shards(objective: Objective, data: Data, shard: Int[Array, "shards size"]) -> FitResult:
    """Trains one linear model a shard on the plain objective (no fairness intervention, no perturbation).

    Args:
      objective: Its ``l2`` is used; its fairness intervention cannot be honoured by shards and is left out.
      data: ``n`` rows.
      shard: Shard from ``make_shards``.

    Returns:
      A ``FitResult`` whose fields have a leading axis of length ``shards``; ``params`` is ``(shards, d)``.

    Raises:
      ValueError: Bad rows, a model that is not linear, or a ``shard`` that is no assignment of these rows.
      NotConvergedError: A shard did not reach the tolerance of ``fit``.
    """
    data = as_data(data)
    check_data(data)
    check_shards(objective, data, shard)
    start = jnp.zeros((shard.shape[0], data.x.shape[1]), data.x.dtype)
    result = _refit(objectives.plain(objective), start, data, shard, jnp.ones(shard.shape[0], bool))
    if not is_traced(result.converged) and not jnp.all(result.converged):
        worst = float(jnp.max(result.grad_norm))
        raise NotConvergedError(f"a shard stopped at mean-form gradient norm {worst:.3g}; raise `l2` or use float64")
    return result


class Ensemble(NamedTuple):
    """A trained sharded model.

    Attributes:
      shard: The assignment of rows to shards, from ``make_shards``.
      params: One linear model a shard, from ``fit_shards``.
    """

    shard: Int[Array, "shards size"]
    params: Float[Array, "shards d"]

    __repr__ = one_line()


def fit_ensemble(objective: Objective, data: Data, shards: int, *, key: Array) -> Ensemble:
    """``make_shards`` and ``fit_shards``: deals the rows at random among shards, and trains a model on each.

    Args:
      objective: As for ``fit_shards``, as ``data``.
      data: ``n`` rows.
      shards: Number of shards, 1 to ``n``.
      key: PRNG key of the deal, required.

    Raises:
      ValueError, NotConvergedError: As those two.
    """
    shard = make_shards(len(data.y), shards, key=key)
    return Ensemble(shard, fit_shards(objective, data, shard).params)


def check_shards(objective: Objective, data: Data, shard, params=None) -> None:
    """Raises ValueError unless ``shard`` assigns each row once and ``params`` holds a linear model for each shard."""
    if not objective.linear:
        raise ValueError("shards are defined for the linear model only")
    n, d = data.x.shape
    if params is not None and jnp.shape(params) != (shard.shape[0], d):
        raise ValueError(
            f"`params` must have shape {(shard.shape[0], d)}, a model for each shard, as fit_shards returns them; got "
            f"{jnp.shape(params)}"
        )
    if not is_traced(shard):
        dealt = np.sort(np.asarray(shard).ravel())
        if not np.array_equal(dealt[:n], np.arange(n)) or np.any(dealt[n:] != n):
            raise ValueError(f"`shard` must hold each of the {n} rows once; make it with make_shards({n}, ...)")


def sharded(
    objective: Objective, params, data: Data, remaining: Data, *, shard: Int[Array, "shards size"], noise=None
) -> Update:
    """Retrains, from zero, every shard that lost a row.

    Args:
      objective: Its ``l2`` is used.
      params: ``(shards, d)`` from ``fit_shards``.
      data: The rows before removal.
      remaining: The same rows with the forgotten ones at weight zero.
      shard: The assignment that ``params`` was trained with.
      noise: Must be None; retraining needs none.

    Returns:
      The ``Update``; ``params`` is ``(shards, d)``, use ``predict_shards``.
    """
    if noise is not None:
        raise ValueError("method 'sharded' retrains exactly and takes no noise; fit the shards without it")
    lost = (data.weight > 0) & ~(remaining.weight > 0)
    touched = jnp.any(lost.at[shard].get(mode="fill", fill_value=False), axis=1)
    result = _refit(objectives.plain(objective), params, remaining, shard, touched)
    return Update(result.params, params, jnp.all(result.converged), jnp.max(result.grad_norm), jnp.sum(result.steps))


@jax.jit
def _refit(objective, params, data, shard, touched) -> FitResult:
    tolerance = 1e-10 if data.x.dtype == jnp.float64 else 1e-5

    def one(args):
        rows, old, again = args
        part = jax.tree.map(lambda leaf: leaf.at[rows].get(mode="fill", fill_value=0), data)

        def refit(old):
            return minimise(
                objective, jnp.zeros_like(old), part, None, tolerance, 200, use_dense(objective, old, "auto")
            )

        def keep(old):
            zero = jnp.zeros((), jnp.int32)
            return FitResult(old, jnp.ones((), bool), jnp.zeros((), old.dtype), zero)

        alive = jnp.any(part.weight > 0)
        return jax.lax.cond(again & alive, refit, keep, jnp.where(alive | ~again, old, jnp.zeros_like(old)))

    # A scan, not a vmap: an untouched shard then costs nothing.
    return jax.lax.map(one, (shard, params, touched))


def predict_shards(
    params: Float[Array, "shards d"], x: Float[Array, "n d"], *, aggregate: str = "vote"
) -> Int[Array, " n"]:
    """Labels predicted by the ensemble.

    Args:
      params: One linear model a shard.
      x: ``(n, d)`` features.
      aggregate: ``vote`` (more than half of the shards say 1) or ``mean`` (the mean log-odds are positive).

    Returns:
      ``(n,)`` int32.

    Raises:
      ValueError: Unknown ``aggregate``.
    """
    scores = x @ params.T
    if aggregate == "vote":
        return (2 * jnp.sum(scores > 0, axis=1) > params.shape[0]).astype(jnp.int32)
    if aggregate == "mean":
        return (jnp.mean(scores, axis=1) > 0).astype(jnp.int32)
    raise ValueError(f"unknown aggregate {aggregate!r}; known: vote, mean")
