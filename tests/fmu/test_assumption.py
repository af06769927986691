"""What objective perturbation does not cover: its epsilon takes the residual as independent of the secret noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fmu_jax
from fmu_jax import objective as objectives
from fmu_jax import releases, stream
from fmu_jax.audit.binomial import clopper_pearson
from tests.placing import put

DELTA, BUDGET = 1e-5, 1.0


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_a_refresh_on_a_budget_leaves_a_gap_that_no_epsilon_covers_and_a_release_does():
    """One parameter, 40 rows, four removed: every published epsilon is within the budget, and delta is 1/40."""
    rng = np.random.default_rng(0)
    y = (rng.random(40) < 0.35).astype(int)
    data = fmu_jax.make_data(np.ones((40, 1)), y, np.arange(40) % 2)
    objective = fmu_jax.Objective(l2=1e-2)
    gone = put(np.flatnonzero(y)[:4])
    left = data._replace(weight=data.weight.at[gone].set(0))

    def serve(noise):
        fitted = fmu_jax.fit(objective, data, noise=noise, throw=False)
        state = stream.start(objective, fitted, data, noise=noise, sigma=1.0, delta=DELTA, budget=BUDGET)
        state = stream.delete(state, jax.tree.map(lambda leaf: leaf[gone], data))
        stale = stream.needs_refresh(state)
        state = jax.lax.cond(stale, lambda s: stream.refresh(s, left), lambda s: s, state)
        # What an attacker computes: the noise of the retrained model that would be this one.
        return -objectives.gradient(objective, state.params, left)[0], state.epsilon, stale

    noise = jax.random.normal(jax.random.key(2), (16_000, 1))
    found, epsilon, stale = jax.jit(lambda b: jax.lax.map(serve, b, batch_size=2000))(noise)
    assert (epsilon <= BUDGET).all()
    assert 0.5 < stale.mean() < 0.99
    # The widest gap of one half, away from the tails, counted on the other half.
    first, second = np.sort(found[:8000]), np.asarray(found[8000:])
    at = 100 + np.argmax(np.diff(first)[100:-100])
    low, high = first[at], first[at + 1]
    retrained = np.asarray(jax.random.normal(jax.random.key(5), (8000,)))
    inside = [int(((part > low) & (part < high)).sum()) for part in (retrained, second)]
    least, most = clopper_pearson(np.array(inside), 8000, confidence=0.99)
    assert float(least[0]) > DELTA + np.exp(BUDGET) * float(most[1])
    assert float(least[0]) > 0.02

    # The same pairs published with fresh noise: every event has the shares that the curve allows.
    exact = noise[:, 0]
    distance = float(jnp.max(jnp.abs(found - exact)))
    scale = float(releases.scale_for(distance, epsilon=BUDGET, delta=DELTA))
    keys = jax.random.split(jax.random.key(6), 32_000).reshape(2, -1)

    def publish(key, value):
        return releases.release(value[None], distance, key=key, scale=scale).params[0]

    noisy, fresh = (jax.jit(jax.vmap(publish))(*part) for part in ((keys[0], found), (keys[1], exact)))
    edges = np.quantile(np.asarray(fresh), np.linspace(0, 1, 41)[1:-1])
    counts = [np.bincount(np.digitize(np.asarray(part), edges), minlength=40) for part in (noisy, fresh)]
    for one, other in (counts, counts[::-1]):
        lower, _ = clopper_pearson(one, 16_000, confidence=0.9999)
        _, upper = clopper_pearson(other, 16_000, confidence=0.9999)
        assert (np.asarray(lower) <= np.exp(BUDGET) * np.asarray(upper) + DELTA).all()


def test_parameters_on_a_grid_give_the_removal_away_and_a_release_does_not():
    """Rounded to four decimals unlearned models lie on a grid, retrained ones do not; all releases lie on one."""
    data = fmu_jax.datasets.synthetic(200, 3, seed=0).train
    objective = fmu_jax.Objective(l2=1e-2, fairness=1.0)
    before = fmu_jax.fit(objective, data).params
    removal = fmu_jax.remove(objective, before, data, [3, 14, 15])
    rounded = removal._replace(params=jnp.round(removal.params, 4))
    exact = fmu_jax.remove(objective, before, data, [3, 14, 15], method="retrain", init=before).params
    assert jnp.all(jnp.abs(rounded.params * 1e4 - jnp.round(rounded.params * 1e4)) < 1e-6)
    assert not jnp.all(jnp.abs(exact * 1e4 - jnp.round(exact * 1e4)) < 1e-6)
    distance = releases.distance_to_retrained(objective, rounded)
    assert jnp.linalg.norm(rounded.params - exact) <= distance
    for params, key in ((rounded.params, 0), (exact, 1)):
        published = releases.release(params, distance, key=jax.random.key(key), scale=0.1)
        assert (published.params == jnp.round(published.params / published.spacing) * published.spacing).all()
        assert published.spacing == 2.0**-12
