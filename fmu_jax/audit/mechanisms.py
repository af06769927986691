"""Mechanisms that ``faults`` audits: a release and the paper's scheme, as they are and with planted faults.

A release: 160 rows, four deletion requests, a model published after each by ``stream.serve_releases`` with its
refreshes; the series claims ``mu`` = 1. The faults publish with the noise of the honest mechanism: nothing removed, 0.9
of the step, half of it, the step backwards; or one noise for the whole series. ``at_admitted`` are two worlds exactly
the admitted distance apart, the worst that the guarantee covers, and ``half_scale`` the same with half the noise. The
paper's scheme: objective perturbation, sigma 1, as it is, rounded to four decimals, and as a stream that refreshes on a
budget of epsilon 1 (one parameter, 40 rows; audited in ``z = -grad F'``, what a retrained model's noise would be).
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fmu_jax import stream
from fmu_jax.audit.draws import draw_models
from fmu_jax.audit.one_run import OneRun
from fmu_jax.audit.one_run import one_run as audit_one_run
from fmu_jax.audit.shadow import plant
from fmu_jax.data import make_data
from fmu_jax.datasets import synthetic
from fmu_jax.fitting import fit
from fmu_jax.objective import Objective, gradient, hessian
from fmu_jax.privacy import certified_epsilon
from fmu_jax.releases import distance_to_retrained, release, scale_for
from fmu_jax.removal import remove

STEPS = {"no_removal": 0.0, "step_0.9": 0.9, "half_step": 0.5, "wrong_sign": -1.0}
"""What a fault makes of the honest step."""
MU, DELTA, CANARIES = 1.0, 1e-5, 30


class Samples(NamedTuple):
    """Independent draws of both worlds, ``(models, d)``, of untouched models where there are some, and the claim."""

    unlearned: jax.Array
    retrained: jax.Array
    trained: jax.Array | None
    claim: float


def mechanism(fault: str) -> Callable[..., Samples]:
    """``draw(key, models)`` of a mechanism."""
    papers = {"smooth": partial(perturbed, None), "rounded": partial(perturbed, 4), "stream": budgeted}
    return papers[fault] if fault in papers else partial(_series().draw, fault)


class Series:
    """Four requests, each answered by a release; the models are the same for every draw, the noise is not."""

    def __init__(self):
        self.data = synthetic(200, 3, seed=0).train
        self.objective = Objective(l2=1e-2, fairness=1.0)
        self.fitted = fit(self.objective, self.data)
        pool = np.flatnonzero(np.asarray((self.data.y == 1) & (self.data.group == 0)))
        self.rows = jnp.asarray(pool[:4])
        self.state = stream.start(
            self.objective, self.fitted, self.data, noise=None, sigma=1.0, delta=DELTA, budget=1.0
        )
        # A rehearsal of other rows: so much is admitted that the third request or so starts a refresh.
        other = stream.delete(self.state, jax.tree.map(lambda leaf: leaf[pool[4:6]], self.data))
        self.admitted = 1.2 * float(stream.distance_to_retrained(other))
        self.scale = float(scale_for(self.admitted, mu=MU, releases=4))
        before, rows = self.fitted.params, self.rows
        removals = (remove(self.objective, before, self.data, rows[:t], method="retrain") for t in range(1, 5))
        self.exact = jnp.stack([removal.params for removal in removals])

    def draw(self, fault: str, key: jax.Array, models: int) -> Samples:
        """Releases of both worlds, side by side as one row a draw."""
        keys = [jax.random.split(part, models) for part in jax.random.split(key, 3)]
        scale = self.scale / 2 if fault == "half_scale" else self.scale
        trained = jnp.tile(self.fitted.params, (4, 1))
        before = self.publish(keys[2], trained, scale, fault)
        retrained = self.publish(keys[1], self.exact, scale, fault)
        if fault == "honest":
            return Samples(self.serve(scale, keys[0]), retrained, before, MU)
        if fault == "reused_noise":
            unlearned = self.unlearned()
        elif fault in ("at_admitted", "half_scale"):
            off = self.admitted * jnp.ones(self.exact.shape[1]) / self.exact.shape[1] ** 0.5
            unlearned, before = self.exact + off[None], None
        else:
            unlearned = self.fitted.params[None] + STEPS[fault] * (self.exact - self.fitted.params[None])
        return Samples(self.publish(keys[0], unlearned, scale, fault), retrained, before, MU)

    def serve(self, scale: float, keys: jax.Array) -> jax.Array:
        """The honest mechanism as a user calls it, refreshes included."""

        def one(key):
            return stream.serve_releases(
                self.state, self.data, self.rows, key=key, scale=scale, admitted=self.admitted
            )[2].params.ravel()

        return jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=500))(keys)

    def unlearned(self) -> jax.Array:
        """What the stream has before noise, after each request."""
        state, data, found = self.state, self.data, []
        for row in self.rows.tolist():
            rows, data = stream.take(data, [row])
            state = stream.delete(state, rows)
            if not stream.distance_to_retrained(state) <= self.admitted:
                state = stream.refresh(state, data)
            found.append(state.params)
        return jnp.stack(found)

    def publish(self, keys: jax.Array, params: jax.Array, scale: float, fault: str) -> jax.Array:
        """The four releases of every draw."""
        return _publish(scale, self.admitted, fault == "reused_noise")(keys, params)


@cache
def _series() -> Series:
    return Series()


@cache
def _publish(scale: float, admitted: float, reused: bool) -> Any:
    """One program for all faults of a scale."""

    def one(key, params):
        each = jnp.tile(key, 4) if reused else jax.random.split(key, 4)
        return jax.vmap(lambda key, at: release(at, admitted, key=key, scale=scale, admitted=admitted).params)(
            each, params
        ).ravel()

    return jax.jit(lambda keys, params: jax.lax.map(lambda key: one(key, params), keys, batch_size=500))


def one_run(fault: str, *, seed: int) -> OneRun:
    """One release of a model from which the canaries that were inside are unlearned; claims ``mu`` = 1.

    Scores are the coins' posterior means in a linear model of how far the release is from the model without canaries:
    each canary inside would have left minus the inverse Hessian times its gradient, and the noise is known.
    """
    rng = np.random.default_rng([seed, 7])
    real = synthetic(600, 30, seed=seed).train
    objective = Objective(l2=1e-2, fairness=1.0)
    planted = plant(real, CANARIES, key=jax.random.key(seed))
    planted = jax.tree.map(lambda leaf: leaf[:CANARIES], planted)
    inside = rng.random(CANARIES) < 0.5
    weight = jnp.concatenate([real.weight, jnp.asarray(inside, real.weight.dtype)])
    data = jax.tree.map(lambda *parts: jnp.concatenate(parts), real, planted)._replace(weight=weight)
    canary = jnp.arange(len(weight)) >= len(real.y)
    without = data._replace(weight=jnp.where(canary, 0, weight))
    reference = fit(objective, without).params
    before = fit(objective, data).params
    removal = remove(objective, before, data, canary & (weight > 0))
    distance = float(distance_to_retrained(objective, removal))
    admitted = 1.5 * distance
    params = removal.params
    if fault in STEPS:
        params = before + STEPS[fault] * (params - before)
    if fault in ("at_admitted", "half_scale"):
        # The worst that is covered: off by the admitted distance towards what the canaries inside would have left.
        away = before - reference
        params = reference + admitted * away / jnp.linalg.norm(away)
    scale = float(scale_for(admitted, mu=MU)) / (2 if fault == "half_scale" else 1)
    published = release(params, admitted, key=jax.random.key(seed + 1), scale=scale, admitted=admitted).params
    p = jax.nn.sigmoid(planted.x @ reference)
    gradients = planted.x * (p - planted.y)[:, None]
    left = -jnp.linalg.solve(hessian(objective, reference, without), gradients.T)
    ridge = 4 * scale**2 * jnp.eye(CANARIES)  # a coin has the variance 1/4
    scores = jnp.linalg.solve(left.T @ left + ridge, left.T @ (published - reference - left.sum(axis=1) / 2))
    return audit_one_run(scores, inside, delta=DELTA)


def perturbed(decimals: int | None, key: jax.Array, models: int) -> Samples:
    """The paper's scheme on the same rows; rounded after the removal, if asked."""
    data = synthetic(200, 3, seed=0).train
    objective, gone = Objective(l2=1e-2, fairness=1.0), [3, 14, 15]
    options = {"sigma": 1.0, "models": models, "methods": ("fair_newton",)}
    draws = draw_models(objective, data, gone, key=key, **options)
    claim = float(certified_epsilon(draws.residual["fair_newton"].max(), 1.0, DELTA))
    unlearned = draws.unlearned["fair_newton"]
    if decimals is not None:
        unlearned = jnp.round(unlearned, decimals)
        # Certified after rounding, which may have left a larger residual: off by d^1/2 half units of the last place.
        curvature = hessian(objective, jnp.zeros(data.x.shape[1]), data)
        off = jnp.linalg.norm(curvature, 2) * 0.5 * 10.0**-decimals * data.x.shape[1] ** 0.5
        claim = float(certified_epsilon(draws.residual["fair_newton"].max() + off, 1.0, DELTA))
    return Samples(unlearned, draws.retrained, None, claim)


def budgeted(key: jax.Array, models: int) -> Samples:
    """One parameter, 40 rows, four of them deleted by a stream that refreshes when its epsilon passes 1."""
    rng = np.random.default_rng(0)
    y = (rng.random(40) < 0.35).astype(int)
    data = make_data(np.ones((40, 1)), y, np.arange(40) % 2)
    objective = Objective(l2=1e-2)
    gone = jnp.asarray(np.flatnonzero(y)[:4])
    left = data._replace(weight=data.weight.at[gone].set(0))

    def serve(noise):
        fitted = fit(objective, data, noise=noise, throw=False)
        state = stream.start(objective, fitted, data, noise=noise, sigma=1.0, delta=DELTA, budget=1.0)
        state = stream.delete(state, jax.tree.map(lambda leaf: leaf[gone], data))
        state = jax.lax.cond(stream.needs_refresh(state), lambda s: stream.refresh(s, left), lambda s: s, state)
        return -gradient(objective, state.params, left)

    noise, fresh = jax.random.normal(key, (2, models, 1))
    found = jax.jit(lambda b: jax.lax.map(serve, b, batch_size=1000))(noise)
    return Samples(found, fresh, None, 1.0)
