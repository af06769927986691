r"""Series of releases in two worlds, and whether the likelihood ratio between them beats the certified curve.

A setting publishes a series that claims ``mu`` = 1, in either world: the deleted rows unlearned, or retrained without
them. ``ratios`` tests by the likelihood ratio, the best that an adversary can do who knows everything but the noise of
the releases, the perturbation of training included. `SETTINGS`:

- ``one parameter``: a single release;
- ``21 columns``: a stream of three requests with refreshes, noise shaped by what both worlds share;
- ``adaptive``: ten releases; the requester picks each next row by the last published model, and the model is solved
  anew where its certified distance exceeds the admitted one;
- ``stream``: one parameter, 40 rows, four deleted; training is perturbed, so that in some draws a refresh starts and in
  others not: the counterexample to a guarantee of noise in training, published as releases.

`VARIANTS`: ``honest`` is the mechanism; ``admitted`` replaces unlearned models by ones exactly the admitted distance
away, the worst that is covered, where the curve must be attained; ``half noise`` does so with half the noise, and must
beat the curve, or an audit by these settings could not fail. `curve` measures one.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fmu_jax import stream
from fmu_jax.audit.binomial import clopper_pearson
from fmu_jax.batches import map_in_batches
from fmu_jax.data import make_data
from fmu_jax.datasets import synthetic
from fmu_jax.fitting import fit
from fmu_jax.objective import Objective
from fmu_jax.releases import distance_to_retrained, scale_for, trade_off
from fmu_jax.releases.publishing import add_noise
from fmu_jax.removal import remove

MU, CHUNK = 1.0, 10_000
"""What a series claims, and how many series a call of ``ratios`` draws."""
VARIANTS = ("honest", "admitted", "half noise")
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
    """Ratios of a series of releases of fixed models.

    Args:
      unlearned: Models of the one world, ``(k, d)``.
      exact: Models of the other world, ``(k, d)``.
      scale: Standard deviation of the noise.
      shape: As for ``releases.release``.

    Returns:
      A function of a key and of the world that draws the series: its log-likelihood ratio.
    """
    return lambda key, world: _of_series()(key, unlearned if world else exact, unlearned, exact, scale, shape)


@cache
def _of_series():
    @jax.jit
    def ratios(key, centre, unlearned, exact, scale, shape):
        def one(key):
            keys = jax.random.split(key, len(exact))
            published = jax.vmap(lambda key, at: add_noise(at, key, scale, shape)[0])(keys, centre)
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
    return World(series(unlearned, exact, noise(variant) * scale_for(admitted, mu=MU), None), 0.0)


def wide(variant: str) -> World:
    """A stream of three requests at 21 columns, with refreshes and shaped noise."""
    unlearned, exact, admitted, shape, refreshed = _of_stream()
    if variant != "honest":
        unlearned = shifted(exact, admitted, shape)
    scale = noise(variant) * scale_for(admitted, mu=MU, releases=3)
    return World(series(unlearned, exact, scale, shape), refreshed)


@cache
def _of_stream():
    """Unlearned and exact models, the admitted distance, the shape, and the share of requests that refreshed."""
    data = synthetic(500, 20, seed=0).train
    objective = Objective(l2=1e-2, fairness=1.0)
    fitted = fit(objective, data)
    gone = np.flatnonzero(np.asarray((data.y == 1) & (data.group == 0)))[:6]
    shape = data.x.T @ data.x / 4 + len(data.x) * objective.l2 * jnp.eye(data.x.shape[1])
    state = stream.start(objective, fitted, data, noise=None, sigma=1.0, delta=1e-5, budget=1.0)
    other = stream.delete(state, jax.tree.map(lambda leaf: leaf[gone[3:5]], data))
    admitted = 1.1 * float(stream.distance_to_retrained(other, shape=shape))
    left, unlearned, exact, refreshed = data, [], [], 0
    for row in gone[:3].tolist():
        taken, left = stream.take(left, [row])
        state = stream.delete(state, taken)
        if not stream.distance_to_retrained(state, shape=shape) <= admitted:
            state, refreshed = stream.refresh(state, left), refreshed + 1
        unlearned.append(state.params)
        exact.append(fit(objective, left, init=state.params).params)
    return jnp.stack(unlearned), jnp.stack(exact), admitted, shape, refreshed / 3


def perturbed(variant: str) -> World:
    """One parameter, 40 rows, noise in training that the adversary knows; refreshed where the distance says so."""
    ratios, admitted, refreshed = _of_perturbed()
    scale, off = noise(variant) * scale_for(admitted, mu=MU), variant != "honest"
    return World(lambda key, world: ratios(key, world, off, scale), refreshed)


@cache
def _of_perturbed():
    """Ratios by key, world, whether the admitted distance away, and scale; that distance; the share refreshed."""
    y = (np.random.default_rng(0).random(40) < 0.35).astype(int)
    data = make_data(np.ones((40, 1)), y, np.arange(40) % 2)
    objective = Objective(l2=1e-2)
    gone = jnp.asarray(np.flatnonzero(y)[:4])
    left = data._replace(weight=data.weight.at[gone].set(0))

    def models(b):
        """The unlearned model before any refresh, its distance, and the retrained one, under one perturbation."""
        fitted = fit(objective, data, noise=b, throw=False)
        state = stream.start(objective, fitted, data, noise=b, sigma=1.0, delta=1e-5, budget=1.0)
        state = stream.delete(state, jax.tree.map(lambda leaf: leaf[gone], data))
        exact = fit(objective, left, noise=b, init=state.params, throw=False).params
        return state.params, stream.distance_to_retrained(state), exact

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
            published = add_noise(centre, for_noise, scale, None)[0]
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
    scale = noise(variant) * scale_for(admitted, mu=MU, releases=LENGTH)
    return World(lambda key, world: ratios(key, unlearned if world else exact, unlearned, exact, scale), refreshed)


@cache
def _of_adaptive():
    """Ratios by key, centres and models of every set of deleted rows; the models; the distance; the share refreshed."""
    kinds = [(value, label) for value in (-1.0, 0.2, 1.0) for label in (0, 1)]
    copies = 14
    x = np.array([[value, 1.0] for value, _ in kinds for _ in range(copies)])
    y = np.array([label for _, label in kinds for _ in range(copies)])
    data = make_data(x, y, np.arange(len(y)) % 2)
    objective = Objective(l2=1e-2, fairness=1.0)
    before = fit(objective, data).params
    sets = np.array(deletions(len(kinds), LENGTH))
    number = np.full([LENGTH + 1] * len(kinds), -1, np.int32)
    number[tuple(sets.T)] = np.arange(len(sets))

    def models(taken):
        gone = (jnp.arange(copies)[None] < taken[:, None]).ravel()
        removal = remove(objective, before, data, gone, throw=False)
        exact = fit(objective, removal.data, init=removal.params, throw=False).params
        return removal.params, distance_to_retrained(objective, removal), exact

    unlearned, distance, exact = map_in_batches(models, jnp.asarray(sets), batch_size=64)
    full = sets.sum(axis=1) == LENGTH
    admitted = float(np.quantile(np.asarray(distance)[full], 0.5))
    again = distance > admitted
    unlearned = jnp.where(again[:, None], exact, unlearned)
    place = jnp.asarray((LENGTH + 1) ** np.arange(len(kinds))[::-1])
    number, features = jnp.asarray(number.ravel()), jnp.asarray([[value, 1.0] for value, _ in kinds])
    sign = jnp.asarray([2.0 * label - 1 for _, label in kinds])

    @jax.jit
    def ratios(key, centre, unlearned, exact, scale):
        def one(key):
            def request(carry, key):
                taken, published, ratio = carry
                taken = taken.at[jnp.argmin(sign * (features @ published))].add(1)
                at = number[taken @ place]
                published = add_noise(centre[at], key, scale, None)[0]
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


SETTINGS = {"one parameter": single, "21 columns": wide, "adaptive": adaptive, "stream": perturbed}
"""By name: ``setting(variant) -> World``."""


class Curve(NamedTuple):
    """Empirical trade-off of one setting beside the certified one, at each threshold of the likelihood ratio.

    Attributes:
      draws: Series of each world.
      alpha: Share of false alarms.
      misses: Share of misses.
      misses_at_most: Upper bounds of the misses.
      certified: The fewest misses that the guarantee allows at ``alpha``.
      beaten: Where even the bounds, which all hold at once at 99.9 %, lie below the certified curve.
    """

    draws: int
    alpha: np.ndarray
    misses: np.ndarray
    misses_at_most: np.ndarray
    certified: np.ndarray
    beaten: np.ndarray


def curve(world: World, draws: int, *, key: jax.Array, thresholds: int = 41) -> Curve:
    """Misses against false alarms of a setting.

    Args:
      world: Such as ``SETTINGS["adaptive"]("honest")``.
      draws: Series of each world, rounded up to chunks of `CHUNK`.
      key: Draws the noise.
      thresholds: Number of thresholds of the ratio, which are quantiles of draws of their own.
    """
    for_pilot, for_draws = jax.random.split(key)
    cuts = np.quantile(np.asarray(world.ratios(for_pilot, False)), np.linspace(0.001, 0.999, thresholds))
    chunks = -(-draws // CHUNK)
    count = chunks * CHUNK
    above = np.zeros((2, thresholds), int)
    for unlearned in (False, True):
        for part in jax.random.split(jax.random.fold_in(for_draws, unlearned), chunks):
            ordered = np.sort(np.asarray(world.ratios(part, unlearned)))
            above[int(unlearned)] += CHUNK - np.searchsorted(ordered, cuts, side="right")
    false, missed = above[0], count - above[1]
    confidence = 1 - 1e-3 / thresholds
    # The curve falls, so at the largest plausible share of false alarms it allows the fewest misses.
    most_false, most_missed = (np.asarray(clopper_pearson(k, count, confidence=confidence)[1]) for k in (false, missed))
    allowed = np.asarray(trade_off(MU, np.clip(most_false, 1e-300, 1 - 1e-16)))
    certified = np.asarray(trade_off(MU, np.clip(false / count, 1e-12, 1 - 1e-12)))
    return Curve(count, false / count, missed / count, most_missed, certified, most_missed < allowed)
