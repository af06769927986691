"""Canaries in one network, for ``one_run``: rows with a wrong label, half of them trained on and deleted.

Where ``networks`` trains pairs of networks by the dozen, this trains one with canaries and one without. A canary's
score is how much larger its margin is under the unlearned network than under the one that was trained without any,
with the same key: the score uses nothing that depends on the coins but the published model.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fmu_jax.audit.draws import NO_REMOVAL
from fmu_jax.data import Data, check_data
from fmu_jax.objective import Objective, Params, logits
from fmu_jax.removal import remove
from fmu_jax.showing import one_line


class Canaries(NamedTuple):
    """Coins and scores, for ``one_run(canaries.scores[method], canaries.inside, delta=...)``.

    Attributes:
      inside: Which canaries were trained on and deleted, ``(canaries,)``.
      scores: By method, ``(canaries,)``; ``no_removal`` is always there.
    """

    inside: Bool[Array, " canaries"]
    scores: dict[str, Float[Array, " canaries"]]

    __repr__ = one_line()


def mislabelled(data: Data, count: int, *, key: Array) -> Data:
    """Rows with the other of two labels: a network can fit them only by memorising them.

    Args:
      data: Rows that no network is trained on otherwise, labels 0 and 1.
      count: Number of canaries.
      key: PRNG key, required.

    Returns:
      ``count`` rows.

    Raises:
      ValueError: ``count`` is below 2 or beyond the number of rows.
    """
    n = data.x.shape[0]
    if not 2 <= count <= n:
        raise ValueError(f"`count` must be between 2 and the number of rows {n}, got {count}")
    rows = jax.random.permutation(key, n)[:count]
    return data._replace(
        x=data.x[rows], y=1 - data.y[rows], group=data.group[rows], weight=jnp.ones(count, data.weight.dtype)
    )


def score_canaries(
    objective: Objective,
    data: Data,
    canaries: Data,
    *,
    train: Callable[[Data, Array], Params],
    methods: Mapping[str, Mapping[str, Any] | Callable[..., Params]],
    key: Array,
) -> Canaries:
    """Trains one network with a random half of the canaries, unlearns those by every method, and scores all.

    Args:
      objective: What the methods take the network to minimise.
      data: Real rows, all trained on.
      canaries: Canaries from ``mislabelled``.
      train: As for ``shadow_networks``.
      methods: As for ``shadow_networks``.
      key: PRNG key, required; its coins are the audit's secret.

    Returns:
      The ``Canaries``.

    Raises:
      ValueError: Bad rows.
    """
    rows = jax.tree.map(lambda *parts: jnp.concatenate(parts), data, canaries)
    check_data(rows)
    listed = tuple((name, how if callable(how) else tuple(sorted(how.items()))) for name, how in methods.items())
    return _score(objective, rows, key, train, listed, canaries.x.shape[0])


@partial(jax.jit, static_argnames=("train", "methods", "count"))
def _score(objective, rows, key, train, methods, count) -> Canaries:
    n = rows.x.shape[0] - count
    for_train, for_coins, for_noise = jax.random.split(key, 3)
    inside = jax.random.bernoulli(for_coins, 0.5, (count,))
    sign = (2 * rows.y[n:] - 1).astype(rows.weight.dtype)

    def weighted(chosen):
        return rows._replace(weight=jnp.concatenate([rows.weight[:n], chosen.astype(rows.weight.dtype)]))

    def margins(params):
        return sign * logits(objective, params, rows.x[n:])

    full, forget = weighted(inside), jnp.concatenate([jnp.zeros(n, bool), inside])
    trained, alone = train(full, for_train), margins(train(weighted(jnp.zeros(count, bool)), for_train))
    scores = {NO_REMOVAL: margins(trained) - alone}
    for index, (name, options) in enumerate(methods):
        if callable(options):
            params = options(trained, full, forget, jax.random.fold_in(for_noise, index))
        else:
            params = remove(objective, trained, full, forget, throw=False, allow_unfair=True, **dict(options)).params
        scores[name] = margins(params) - alone
    return Canaries(inside, scores)
