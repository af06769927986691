"""Planning a series of releases: its cost, the admitted distance from retraining, and the noise that follows."""

import dataclasses
import math
from typing import NamedTuple

import jax
import numpy as np

from fmu_jax import Data, datasets, privacy, stream
from fmu_jax.deletion import guarantee, model
from fmu_jax.deletion.model import Settings

SERIES = (1, 10, 100, 1000)
"""For how many planned releases `Trained` tells the noise and the accuracy."""
_DRAWS = 100
_MARGIN = 16.0
"""How much further than the fresh model a later retrained one may be; its rounding errors differ a little."""


class Plan(NamedTuple):
    """The number of planned releases, and what they may cost together.

    Attributes:
      mu: Gaussian-DP parameter of the series, > 0; or
      epsilon: Its epsilon at `delta`, > 0; 1 where neither is given.
      delta: Failure probability, in (0, 1), at which epsilons are given.
      releases: How many requests may be served by unlearning, at least 1. Later ones retrain, at no further cost.
      planned: Share of the people, in (0, 1], whose deletion an unlearned model should withstand before it is
        retrained; it sets the admitted distance.
      admitted: In its place, the admitted distance itself, > 0: the smaller, the less noise and the more retraining.
    """

    mu: float | None = None
    epsilon: float | None = None
    delta: float = 1e-5
    releases: int = 100
    planned: float = 0.01
    admitted: float | None = None


def mu(plan: Plan) -> float:
    """The Gaussian-DP parameter of the planned series."""
    if plan.mu is not None and plan.epsilon is not None:
        raise ValueError("`mu` and `epsilon` say the same in two ways; give one of them")
    if plan.mu is not None:
        privacy.check_positive(mu=plan.mu)
        return plan.mu
    return float(privacy.gaussian_mu(1.0 if plan.epsilon is None else plan.epsilon, plan.delta))


def planned(
    settings: Settings, state: stream.State, data: Data, plan: Plan, seed: int
) -> tuple[int, stream.State, float]:
    """Streams a random deletion of the planned share: how many people, the state after it, its certified distance."""
    cell = 2 * np.asarray(data.group) + np.asarray(data.y)
    pool = np.setdiff1d(np.arange(len(cell)), np.unique(cell, return_index=True)[1])  # One of each cell stays.
    if not len(pool):
        raise ValueError(f"{len(cell)} people are too few to train on and to delete from")
    count = min(max(1, round(plan.planned * len(cell))), len(pool))
    chosen = np.random.default_rng(seed).choice(pool, count, replace=False)
    x = np.array(data.x)
    after = model.delete(state, model.stacked(jax.tree.map(lambda leaf: leaf[chosen], data)))
    x[chosen] = 0
    return count, after, guarantee.distance(after, guarantee.shape_of(x, settings.l2))


def admitting(settings: Settings, state: stream.State, data: Data, plan: Plan, far: float) -> Settings:
    """The settings with the admitted distance, a power of two that hardly depends on single people, and its noise."""
    shape = guarantee.shape_of(np.asarray(data.x), settings.l2)
    least = _MARGIN * guarantee.distance(state, shape) / guarantee.RETRAINED
    wanted = max(far, least) if plan.admitted is None else plan.admitted
    if not (least <= wanted < math.inf):
        raise ValueError(
            f"the admitted distance {wanted:.3g} is out of reach: at least {least:.3g} is needed, or rounding "
            "passes it; use a larger `l2`"
            + (", or plan for fewer people with a smaller `planned`" if plan.admitted is None else " or `admitted`")
        )
    admitted = 2.0 ** math.ceil(math.log2(wanted)) if plan.admitted is None else wanted
    scale = guarantee.scale_for(settings.mu, settings.releases, admitted)
    settings = dataclasses.replace(settings, admitted=admitted, scale=scale)
    guarantee.publish(settings, state.params, 0.0, 1, shape)  # Refuses noise that would drown in rounding.
    return settings


def released_accuracy(settings: Settings, number: int, params: jax.Array, split: datasets.Split) -> tuple[float, float]:
    """The scale of the noise for a series of so many releases, and the accuracy of a release on average."""
    scale = guarantee.scale_for(settings.mu, number, settings.admitted)
    root = np.linalg.cholesky(guarantee.shape_of(np.asarray(split.train.x), settings.l2))
    noise = np.linalg.solve(root.T, np.random.default_rng().normal(size=(len(root), _DRAWS)))
    labels = np.asarray(split.test.x) @ (np.asarray(params)[:, None] + scale * noise) > 0
    return scale, float((labels == (np.asarray(split.test.y) == 1)[:, None]).mean())
