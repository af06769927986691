"""Settings in which series of releases are published, and the likelihood ratio that tells their worlds apart.

See ``scripts.fmu.release_curves``, whose experiment they are for. Models and programs are made once for all variants.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from scripts.harness.lazy import fmu_jax, jax, jnp

MU, CHUNK = 1.0, 10_000
#: Releases of an adaptive series.
LENGTH = 10


class World(NamedTuple):
    """A setting: likelihood ratios (logarithms) of a chunk of series by key and world, and the share refreshed."""

    ratios: Callable[[jax.Array, bool], jax.Array]
    refreshed: float


def noise(variant: str) -> float:
    """Share of the noise that the guarantee asks for."""
    return 0.5 if variant == "half noise" else 1.0


def shifted(exact: jax.Array, admitted: float, shape: jax.Array | None = None) -> jax.Array:
    """Parameters exactly ``admitted`` away from each of ``(..., d)``, in the norm of the shape."""
    off = jnp.ones(exact.shape[-1])
    return exact + admitted * off / jnp.sqrt(off @ (off if shape is None else shape @ off))


def series(unlearned, exact, scale, shape) -> Callable[[jax.Array, bool], jax.Array]:
    """Ratios of releases of fixed models, ``(k, d)`` in either world."""
    return lambda key, world: _of_series()(key, unlearned if world else exact, unlearned, exact, scale, shape)


@cache
def _of_series():
    @jax.jit
    def ratios(key, centre, unlearned, exact, scale, shape):
        def one(key):
            keys = jax.random.split(key, len(exact))
            published = jax.vmap(lambda key, at: fmu_jax.releases.publishing.add_noise(at, key, scale, shape)[0])(
                keys, centre
            )
            return (square(published - exact, shape) - square(published - unlearned, shape)).sum() / (2 * scale**2)

        return jax.lax.map(one, jax.random.split(key, CHUNK), batch_size=1000)

    return ratios


def square(v, shape):
    """``|v|_A^2`` of each vector."""
    return jnp.sum(v * (v if shape is None else v @ shape), axis=-1)


def single(variant: str) -> World:
    """One release of one parameter; honest is half the admitted distance away."""
    admitted, exact = 0.1, jnp.array([[0.3]])
    unlearned = shifted(exact, admitted * (0.5 if variant == "honest" else 1.0))
    return World(series(unlearned, exact, noise(variant) * fmu_jax.releases.scale_for(admitted, mu=MU), None), 0.0)


def wide(variant: str) -> World:
    """A stream of three requests at 21 columns, with refreshes and shaped noise."""
    unlearned, exact, admitted, shape, refreshed = _of_stream()
    if variant != "honest":
        unlearned = shifted(exact, admitted, shape)
    scale = noise(variant) * fmu_jax.releases.scale_for(admitted, mu=MU, releases=3)
    return World(series(unlearned, exact, scale, shape), refreshed)


@cache
def _of_stream():
    """Unlearned and exact models, the admitted distance, the shape, and the share of requests that refreshed."""
    data = fmu_jax.datasets.synthetic(500, 20, seed=0).train
    objective = fmu_jax.Objective(l2=1e-2, fairness=1.0)
    fitted = fmu_jax.fit(objective, data)
    gone = np.flatnonzero(np.asarray((data.y == 1) & (data.group == 0)))[:6]
    shape = data.x.T @ data.x / 4 + len(data.x) * objective.l2 * jnp.eye(data.x.shape[1])
    state = fmu_jax.stream.start(objective, fitted, data, noise=None, sigma=1.0, delta=1e-5, budget=1.0)
    other = fmu_jax.stream.delete(state, jax.tree.map(lambda leaf: leaf[gone[3:5]], data))
    admitted = 1.1 * float(fmu_jax.stream.distance_to_retrained(other, shape=shape))
    left, unlearned, exact, refreshed = data, [], [], 0
    for row in gone[:3].tolist():
        taken, left = fmu_jax.stream.take(left, [row])
        state = fmu_jax.stream.delete(state, taken)
        if not fmu_jax.stream.distance_to_retrained(state, shape=shape) <= admitted:
            state, refreshed = fmu_jax.stream.refresh(state, left), refreshed + 1
        unlearned.append(state.params)
        exact.append(fmu_jax.fit(objective, left, init=state.params).params)
    return jnp.stack(unlearned), jnp.stack(exact), admitted, shape, refreshed / 3


def perturbed(variant: str) -> World:
    """One parameter, 40 rows, noise in training that the adversary knows; refreshed where the distance says so."""
    ratios, admitted, refreshed = _of_perturbed()
    scale, off = noise(variant) * fmu_jax.releases.scale_for(admitted, mu=MU), variant != "honest"
    return World(lambda key, world: ratios(key, world, off, scale), refreshed)


@cache
def _of_perturbed():
    """Ratios by key, world, whether the admitted distance away, and scale; that distance; the share refreshed."""
    y = (np.random.default_rng(0).random(40) < 0.35).astype(int)
    data = fmu_jax.make_data(np.ones((40, 1)), y, np.arange(40) % 2)
    objective = fmu_jax.Objective(l2=1e-2)
    gone = jnp.asarray(np.flatnonzero(y)[:4])
    left = data._replace(weight=data.weight.at[gone].set(0))

    def models(b):
        """The unlearned model before any refresh, its distance, and the retrained one, under one perturbation."""
        fitted = fmu_jax.fit(objective, data, noise=b, throw=False)
        state = fmu_jax.stream.start(objective, fitted, data, noise=b, sigma=1.0, delta=1e-5, budget=1.0)
        state = fmu_jax.stream.delete(state, jax.tree.map(lambda leaf: leaf[gone], data))
        exact = fmu_jax.fit(objective, left, noise=b, init=state.params, throw=False).params
        return state.params, fmu_jax.stream.distance_to_retrained(state), exact

    far = jax.vmap(models)(jax.random.normal(jax.random.key(9), (1000, 1)))[1]
    admitted = float(jnp.median(far))

    @jax.jit
    def ratios(key, world, off, scale):
        def one(key):
            for_b, for_noise = jax.random.split(key)
            unlearned, distance, exact = models(jax.random.normal(for_b, (1,)))
            unlearned = jnp.where(distance <= admitted, unlearned, exact)
            unlearned = jnp.where(off, shifted(exact, admitted), unlearned)
            centre = jnp.where(world, unlearned, exact)
            published = fmu_jax.releases.publishing.add_noise(centre, for_noise, scale, None)[0]
            return (square(published - exact, None) - square(published - unlearned, None)) / (2 * scale**2)

        return jax.lax.map(one, jax.random.split(key, CHUNK), batch_size=1000)

    return ratios, admitted, float((far > admitted).mean())


def adaptive(variant: str) -> World:
    """Ten releases, two parameters; rows are of six kinds, so that every set of deleted rows is solved beforehand.

    The requester deletes a row of the kind that the last published model fits worst.
    """
    ratios, unlearned, exact, admitted, refreshed = _of_adaptive()
    if variant != "honest":
        unlearned = shifted(exact, admitted)
    scale = noise(variant) * fmu_jax.releases.scale_for(admitted, mu=MU, releases=LENGTH)
    return World(lambda key, world: ratios(key, unlearned if world else exact, unlearned, exact, scale), refreshed)


@cache
def _of_adaptive():
    """Ratios by key, centres and models of every set of deleted rows; the models; the distance; the share refreshed."""
    kinds = [(value, label) for value in (-1.0, 0.2, 1.0) for label in (0, 1)]
    copies = 14
    x = np.array([[value, 1.0] for value, _ in kinds for _ in range(copies)])
    y = np.array([label for _, label in kinds for _ in range(copies)])
    data = fmu_jax.make_data(x, y, np.arange(len(y)) % 2)
    objective = fmu_jax.Objective(l2=1e-2, fairness=1.0)
    before = fmu_jax.fit(objective, data).params
    sets = np.array(deletions(len(kinds), LENGTH))
    number = np.full([LENGTH + 1] * len(kinds), -1, np.int32)
    number[tuple(sets.T)] = np.arange(len(sets))

    def models(taken):
        gone = (jnp.arange(copies)[None] < taken[:, None]).ravel()
        removal = fmu_jax.remove(objective, before, data, gone, throw=False)
        exact = fmu_jax.fit(objective, removal.data, init=removal.params, throw=False).params
        return removal.params, fmu_jax.releases.distance_to_retrained(objective, removal), exact

    unlearned, distance, exact = jax.lax.map(models, jnp.asarray(sets), batch_size=64)
    full = sets.sum(axis=1) == LENGTH
    admitted = float(np.quantile(np.asarray(distance)[full], 0.5))
    again = distance > admitted
    unlearned = jnp.where(again[:, None], exact, unlearned)
    place = jnp.asarray((LENGTH + 1) ** np.arange(len(kinds))[::-1])
    number, seen = jnp.asarray(number.ravel()), jnp.asarray([[value, 1.0] for value, _ in kinds])
    sign = jnp.asarray([2.0 * label - 1 for _, label in kinds])

    @jax.jit
    def ratios(key, centre, unlearned, exact, scale):
        def one(key):
            def request(carry, key):
                taken, published, ratio = carry
                taken = taken.at[jnp.argmin(sign * (seen @ published))].add(1)
                at = number[taken @ place]
                published = fmu_jax.releases.publishing.add_noise(centre[at], key, scale, None)[0]
                moved = square(published - exact[at], None) - square(published - unlearned[at], None)
                return (taken, published, ratio + moved / (2 * scale**2)), None

            start = (jnp.zeros(len(kinds), place.dtype), before, jnp.zeros(()))
            return jax.lax.scan(request, start, jax.random.split(key, LENGTH))[0][2]

        return jax.lax.map(one, jax.random.split(key, CHUNK), batch_size=1000)

    return ratios, unlearned, exact, admitted, float(np.asarray(again)[full].mean())


def deletions(kinds: int, most: int) -> list[tuple[int, ...]]:
    """How many rows of each kind can be gone, ``most`` at most together."""
    if not kinds:
        return [()]
    return [(k, *rest) for k in range(most + 1) for rest in deletions(kinds - 1, most - k)]


#: By name: ``setting(variant) -> World``.
SETTINGS = {"one parameter": single, "21 columns": wide, "adaptive": adaptive, "stream": perturbed}
