r"""Shadow models: one experiment that feeds every attack on single examples.

Planted rows come in twins, the same row with either label (``plant``). Each pair ``j`` of shadow models draws a
perturbation ``b_j``, a random subset of the real rows and one row of each twin. Its first model is trained on the
subset and the drawn rows, its second on the subset and the other rows; then each method unlearns *all* planted rows
that its model was trained on.

Whatever a model was trained on, the exactly retrained one is the same for both models of a pair: it depends on ``b_j``
and the subset alone. So retraining is at chance level exactly, not up to sampling, and differences between methods
are not drowned by differences between draws: common random numbers and antithetic variates. Every model by itself has
the distribution that independent draws would give it, so that averages over models estimate the same quantities; only
comparisons *within* a pair are not those of independent models, and ``lira`` leaves them out.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fmu_jax.audit.draws import AUDITED, check_audit, unlearn
from fmu_jax.batches import map_in_batches
from fmu_jax.data import Data, as_data, check_data
from fmu_jax.fitting import NotConvergedError, fit
from fmu_jax.objective import Objective, Scalar, sample_noise
from fmu_jax.removal import fit_shards, make_shards, remove
from fmu_jax.removal.methods import ENSEMBLES
from fmu_jax.showing import one_line
from fmu_jax.tracing import is_traced, when_concrete


def plant(data: Data, positions: int, *, key: Array) -> Data:
    """Makes rows that a model must memorise: rare features, and one of two contradicting labels.

    Each position is a real row, drawn at random, plus a unit step along one of the directions in which the real rows
    vary least (the last eigenvectors of ``X'X``, taken in turn, either sign), scaled to the largest norm of a real row
    before the bias. It occurs twice, with label 0 and with label 1: row ``i`` and row ``positions + i`` are twins.

    Args:
      data: Real rows whose last column is the bias.
      positions: Number of twins.
      key: PRNG key, required.

    Returns:
      ``2 positions`` rows.

    Raises:
      ValueError: ``positions`` below 1 or beyond the number of rows, or no bias column.
    """
    data = as_data(data)
    check_data(data)
    n = data.x.shape[0]
    if not 1 <= positions <= n:
        raise ValueError(f"`positions` must be between 1 and the number of rows {n}, got {positions}")
    _check_bias(data)
    for_row, for_sign = jax.random.split(key)
    features = data.x[:, :-1]
    rows = jax.random.permutation(for_row, n)[:positions]
    sign = jax.random.rademacher(for_sign, (positions,), features.dtype)
    rare = jnp.linalg.eigh(features.T @ features)[1].T[jnp.arange(positions) % features.shape[1]]
    moved = features[rows] + sign[:, None] * rare
    moved *= jnp.max(jnp.linalg.norm(features, axis=1)) / jnp.linalg.norm(moved, axis=1, keepdims=True)
    x = jnp.concatenate([moved, jnp.ones((positions, 1), moved.dtype)], axis=1)
    label = jnp.repeat(jnp.arange(2, dtype=jnp.int32), positions)
    return Data(
        jnp.tile(x, (2, 1)), label, jnp.tile(data.group[rows], 2), jnp.ones(2 * positions, x.dtype), data.groups
    )


@when_concrete
def _check_bias(data):
    if data.x.shape[1] < 2 or not jnp.all(data.x[:, -1] == 1):
        raise ValueError("planted rows need features whose last column is the bias, the constant 1")


class ShadowModels(NamedTuple):
    """The shadow models' margins on the planted rows; margins are ``(2 y - 1) log-odds``, large where the label is fit.

    Attributes:
      member: Which planted rows a model was trained on, ``(pairs, 2, rows)``; the second model of a pair holds those
        that the first does not.
      margins: By method, of the unlearned models, ``(pairs, 2, rows)``.
      oracle: By method, of the model retrained without any planted row, ``(pairs, rows)``.
      converged: Every solver inside reached its tolerance.
    """

    member: Bool[Array, "pairs 2 rows"]
    margins: dict[str, Float[Array, "pairs 2 rows"]]
    oracle: dict[str, Float[Array, "pairs rows"]]
    converged: Bool[Array, ""]

    __repr__ = one_line()


def by_membership(values: Float[Array, "pairs 2 rows"], member: Bool[Array, "pairs 2 rows"]) -> tuple[Array, Array]:
    """Splits values of the two models of each pair into those of members and of non-members, ``(pairs, rows)`` each."""
    first, second, inside = values[:, 0], values[:, 1], member[:, 0]
    return jnp.where(inside, first, second), jnp.where(inside, second, first)


@jax.default_matmul_precision("highest")
def shadow_models(
    objective: Objective,
    data: Data,
    planted: Data,
    *,
    key: Array,
    sigma: Scalar,
    pairs: int,
    methods: Sequence[str] = AUDITED,
    share: float = 0.5,
    shards: int = 5,
    batch_size: int = 8,
) -> ShadowModels:
    """Trains pairs of shadow models with planted rows, unlearns the planted rows by every method.

    Methods that cannot honour a fairness intervention run all the same. ``sharded`` trains its own models, without
    perturbation, and has its own retrained models as oracle; its margin is the mean over its shards.

    Args:
      objective: Objective for the linear model.
      data: Real rows.
      planted: ``2 m`` rows, from ``plant`` or your own; of rows ``i`` and ``m + i`` each model is trained on one.
      key: PRNG key, required.
      sigma: Standard deviation of the perturbation, > 0.
      pairs: Number of pairs of shadow models.
      methods: Names of methods in ``AUDITED``.
      share: Share of the real rows that each pair is trained on, in (0, 1].
      shards: Shards of the ``sharded`` method.
      batch_size: Pairs that are computed at once.

    Returns:
      The ``ShadowModels``.

    Raises:
      ValueError: Bad rows, an odd number of planted rows, an unknown method, or a number out of range.
      NotConvergedError: Some model did not reach the tolerance of ``fit``, or a method failed on it.
    """
    check_audit(objective, methods, AUDITED, sigma=sigma, pairs=pairs, shards=shards, batch_size=batch_size)
    if not 0 < share <= 1:
        raise ValueError(f"`share` must lie in (0, 1], got {share}")
    if planted.x.shape[0] < 2 or planted.x.shape[0] % 2:
        raise ValueError(f"`planted` must hold two halves of equal size, see plant; got {planted.x.shape[0]} rows")
    if planted.groups != data.groups:
        raise ValueError(f"`planted` rows are of {planted.groups} groups and `data` of {data.groups}; pass `groups`")
    rows = jax.tree.map(lambda *parts: jnp.concatenate(parts), data, planted)
    check_data(rows)
    start = fit(objective, data).params
    for_shards, for_pairs = jax.random.split(key)
    shard = make_shards(rows.x.shape[0], shards, key=for_shards)
    keys = jax.random.split(for_pairs, pairs)
    subset_size = round(share * data.x.shape[0])
    shadow = _train(
        objective, rows, start, shard, keys, sigma, subset_size, planted.x.shape[0], tuple(methods), batch_size
    )
    if not is_traced(shadow.converged) and not shadow.converged:
        raise NotConvergedError("some shadow models did not converge; raise `l2` or `share`, or use float64")
    return shadow


@partial(jax.jit, static_argnames=("count", "methods", "batch_size"))
def _train(objective, rows, start, shard, keys, sigma, subset_size, count, methods, batch_size) -> ShadowModels:
    n = rows.x.shape[0] - count

    def pair(key):
        for_noise, for_subset, for_label = jax.random.split(key, 3)
        noise = sample_noise(start, key=for_noise, sigma=sigma)
        subset = jnp.where(jax.random.permutation(for_subset, n) < subset_size, rows.weight[:n], 0)
        upper = jax.random.bernoulli(for_label, 0.5, (count // 2,))
        member = jnp.stack([jnp.concatenate([upper, ~upper]), jnp.concatenate([~upper, upper])])
        return _pair(objective, rows, start, shard, noise, subset, member, methods)

    shadow = map_in_batches(pair, keys, batch_size=batch_size)
    return shadow._replace(converged=jnp.all(shadow.converged))


def _pair(objective, rows, start, shard, noise, subset, member, methods) -> ShadowModels:
    """Both models of one pair; ``subset`` are the weights of the real rows."""
    n, ensembled = subset.shape[0], ENSEMBLES.intersection(methods)
    x, sign = rows.x[n:], (2 * rows.y[n:] - 1).astype(subset.dtype)

    def weighted(planted):
        return rows._replace(weight=jnp.concatenate([subset, planted.astype(subset.dtype)]))

    def train(planted):
        shards = fit_shards(objective, weighted(planted), shard) if ensembled else None
        return fit(objective, weighted(planted), noise=noise, init=start), shards

    def margins(params):
        return sign * (x @ (params if params.ndim == 1 else params.mean(axis=0)))

    # Both models of the pair and, third, the one that is retrained without any planted row.
    trained, shards = jax.vmap(train)(jnp.concatenate([member, jnp.zeros_like(member[:1])]))
    retrained = trained.params[2]

    def one(planted, params, ensemble):
        full, forget = weighted(planted), jnp.concatenate([jnp.zeros(n, bool), planted])
        values, converged = {}, jnp.ones((), bool)
        for method in methods:
            if method == "retrain":  # Which rows were planted makes no difference to it, so it is solved once.
                after, fine = retrained, trained.converged[2]
            elif method in ensembled:
                removal = remove(objective, ensemble, full, forget, method=method, shard=shard, allow_unfair=True)
                after, fine = removal.params, removal.converged
            else:
                after, fine = unlearn(objective, params, full, forget, method=method, noise=noise, init=start)
            values[method], converged = margins(after), converged & fine
        return values, converged

    ensembles = None if shards is None else shards.params
    values, converged = jax.vmap(one)(member, *jax.tree.map(lambda leaf: leaf[:2], (trained.params, ensembles)))
    refitted = retrained if ensembles is None else ensembles[2]
    oracle = {method: margins(refitted if method in ensembled else retrained) for method in methods}
    converged = [jnp.all(part.converged) for part in (trained, shards) if part is not None] + [jnp.all(converged)]
    return ShadowModels(member, values, oracle, jnp.all(jnp.stack(converged)))
