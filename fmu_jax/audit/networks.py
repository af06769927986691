"""Shadow networks: the experiment of ``shadow`` for any model that a function trains, for U-LiRA and KLoM.

Planted rows come in twins, real rows with either label (``twins``). Each pair of networks draws a random half of the
rows, a key of its own for the initial parameters, and one row of each twin for its first network, the others for its
second. Each method unlearns all planted rows of its network. The oracle is trained with the same key on the same half
without planted rows, so that retraining is at chance exactly, as in ``shadow``.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fmu_jax.audit.draws import NO_REMOVAL
from fmu_jax.batches import map_in_batches
from fmu_jax.data import Data, check_data
from fmu_jax.metrics import GroupMetrics, group_metrics
from fmu_jax.objective import Objective, Params, logits
from fmu_jax.removal import remove
from fmu_jax.showing import one_line


class ShadowNetworks(NamedTuple):
    """The networks' margins on the planted rows; margins are ``(2 y - 1) log-odds``.

    Attributes:
      member: Which planted rows a network was trained on, ``(pairs, 2, rows)``.
      margins: By method, ``(pairs, 2, rows)``; ``retrain`` and ``no_removal`` are always there.
      oracle: Margins of the network retrained without any planted row, ``(pairs, rows)``.
      metrics: By method, accuracy and fairness on the test rows, each with leading axes ``(pairs, 2)``.
      converged: By method, whether its solver reached its tolerance, ``(pairs, 2)``; nothing is left out for it.
    """

    member: Bool[Array, "pairs 2 rows"]
    margins: dict[str, Float[Array, "pairs 2 rows"]]
    oracle: Float[Array, "pairs rows"]
    metrics: dict[str, GroupMetrics]
    converged: dict[str, Bool[Array, "pairs 2"]]

    __repr__ = one_line()


def twins(data: Data, positions: int, *, key: Array) -> Data:
    """Real rows with either label: row ``i`` has label 0, row ``positions + i`` the same features and label 1.

    Args:
      data: Rows that no network is trained on otherwise, of any shape.
      positions: Number of twins.
      key: PRNG key, required.

    Returns:
      ``2 positions`` rows.

    Raises:
      ValueError: ``positions`` is below 1 or beyond the number of rows.
    """
    n = data.x.shape[0]
    if not 1 <= positions <= n:
        raise ValueError(f"`positions` must be between 1 and the number of rows {n}, got {positions}")
    rows = jax.random.permutation(key, n)[:positions]
    x, group = (jnp.concatenate([leaf[rows]] * 2) for leaf in (data.x, data.group))
    label = jnp.repeat(jnp.arange(2, dtype=jnp.int32), positions)
    return Data(x, label, group, jnp.ones(2 * positions, x.dtype), data.groups)


def shadow_networks(
    objective: Objective,
    data: Data,
    planted: Data,
    test: Data,
    *,
    train: Callable[[Data, Array], Params],
    methods: Mapping[str, Mapping[str, Any] | Callable[..., Params]],
    key: Array,
    pairs: int,
    share: float = 0.5,
    batch_size: int = 4,
) -> ShadowNetworks:
    """Trains pairs of networks with planted rows and unlearns those by every method.

    Args:
      objective: What the methods take the networks to minimise.
      data: Real rows.
      planted: ``2 m`` rows, from ``twins``.
      test: Rows for accuracy and fairness.
      train: ``train(rows, key) -> params``, pure; rows of weight zero must play no part. Compiled once for a function
        object.
      methods: By name, the options of ``remove``, hashable: ``{"last layer": {"method": "fair_newton", "only":
        "Dense_1"}}``; or a function ``(params, data, forget, key) -> params``, pure, for methods that draw noise.
      key: PRNG key, required.
      pairs: Number of pairs.
      share: Share of the real rows that each pair is trained on, in (0, 1].
      batch_size: Pairs computed at once.

    Returns:
      The ``ShadowNetworks``.

    Raises:
      ValueError: Bad rows, an odd number of planted rows, or a number out of range.
    """
    if not 0 < share <= 1:
        raise ValueError(f"`share` must lie in (0, 1], got {share}")
    if planted.x.shape[0] < 2 or planted.x.shape[0] % 2:
        raise ValueError(f"`planted` must hold two halves of equal size, see twins; got {planted.x.shape[0]} rows")
    if pairs < 1 or batch_size < 1:
        raise ValueError(f"`pairs` and `batch_size` must be at least 1, got {pairs} and {batch_size}")
    taken = {NO_REMOVAL, "retrain"} & set(methods)
    if taken:
        raise ValueError(f"the names {sorted(taken)} are taken: both are always measured")
    rows = jax.tree.map(lambda *parts: jnp.concatenate(parts), data, planted)
    check_data(rows)
    listed = tuple((name, how if callable(how) else tuple(sorted(how.items()))) for name, how in methods.items())
    keys, subset_size = jax.random.split(key, pairs), round(share * data.x.shape[0])
    return _train(objective, rows, test, keys, subset_size, train, listed, planted.x.shape[0], batch_size)


@partial(jax.jit, static_argnames=("train", "methods", "count", "batch_size"))
def _train(objective, rows, test, keys, subset_size, train, methods, count, batch_size) -> ShadowNetworks:
    n = rows.x.shape[0] - count
    x, sign = rows.x[n:], (2 * rows.y[n:] - 1).astype(rows.weight.dtype)

    def judged(params):
        return sign * logits(objective, params, x), group_metrics(logits(objective, params, test.x) > 0, test)

    def pair(key):
        for_train, for_subset, for_label = jax.random.split(key, 3)
        for_noise = jax.random.fold_in(key, 3)
        subset = jnp.where(jax.random.permutation(for_subset, n) < subset_size, rows.weight[:n], 0)
        upper = jax.random.bernoulli(for_label, 0.5, (count // 2,))
        member = jnp.stack([jnp.concatenate([upper, ~upper]), jnp.concatenate([~upper, upper])])

        def weighted(inside):
            return rows._replace(weight=jnp.concatenate([subset, inside.astype(subset.dtype)]))

        without = train(weighted(jnp.zeros(count, bool)), for_train)

        def one(inside, which):
            full, forget = weighted(inside), jnp.concatenate([jnp.zeros(n, bool), inside])
            trained, fine = train(full, for_train), jnp.ones((), bool)
            ends = {"retrain": (without, fine), NO_REMOVAL: (trained, fine)}
            for index, (name, options) in enumerate(methods):
                if callable(options):
                    own = jax.random.fold_in(jax.random.fold_in(for_noise, index), which)
                    ends[name] = options(trained, full, forget, own), fine
                    continue
                removal = remove(objective, trained, full, forget, throw=False, allow_unfair=True, **dict(options))
                ends[name] = removal.params, removal.converged
            return {name: (*judged(params), fine) for name, (params, fine) in ends.items()}

        found = jax.vmap(one)(member, jnp.arange(2, dtype=jnp.int32))
        return ShadowNetworks(
            member,
            margins={name: margins for name, (margins, _, _) in found.items()},
            oracle=judged(without)[0],
            metrics={name: judgement for name, (_, judgement, _) in found.items()},
            converged={name: fine for name, (_, _, fine) in found.items()},
        )

    return map_in_batches(pair, keys, batch_size=batch_size)
