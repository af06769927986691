"""Noise that certifies a removal at a given epsilon, put together again from the pieces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax import Objective, calibration, certify, datasets, fit, forget_sets, privacy, remove, sample_noise, stream
from fmu_jax import objective as objectives
from tests.placing import put


@pytest.fixture(scope="module")
def problem():
    data = datasets.synthetic(400, 3, seed=0).train
    return Objective(l2=1e-2, fairness=1.0), data, forget_sets.draw_rows(data, 20, seed=0)


@pytest.mark.slow
def test_the_noise_certifies_what_was_asked_for_and_little_less_does_not(problem):
    objective, data, forget = problem
    direction = sample_noise(jnp.zeros(4), key=jax.random.key(0), sigma=1.0)
    found = calibration.calibrate_noise(objective, data, forget, direction, epsilon=0.5, delta=1e-5)
    assert found.converged
    np.testing.assert_allclose(found.epsilon, 0.5, rtol=0.01)

    @jax.jit
    def certified(sigma):
        noise = sigma * direction
        params = fit(objective, data, noise=noise, throw=False).params
        removal = remove(objective, params, data, forget, noise=noise, throw=False)
        return certify(objective, params, removal, sigma=sigma, delta=1e-5, noise=noise).epsilon

    np.testing.assert_allclose(certified(found.sigma), found.epsilon, rtol=1e-3)
    assert certified(1.05 * found.sigma) < 0.5 < certified(0.95 * found.sigma)
    noise = found.sigma * direction
    retrained = remove(objective, found.params, data, forget, noise=noise, method="retrain").params
    assert 0 < jnp.linalg.norm(found.params - retrained) <= found.distance


def test_no_noise_is_not_success(problem):
    objective, data, forget = problem
    direction = jnp.ones(4)
    given = {"epsilon": 0.5, "delta": 1e-5, "max_steps": 1, "tolerance": 0.0}
    found = calibration.calibrate_noise(objective, data, forget, direction, **given)
    assert not found.converged
    with pytest.raises(ValueError, match="epsilon"):
        calibration.calibrate_noise(objective, data, forget, direction, epsilon=0.0, delta=1e-5)
    with pytest.raises(ValueError, match="delta"):
        calibration.calibrate_noise(objective, data, forget, direction, epsilon=1.0, delta=2.0)


@pytest.mark.slow
def test_the_curve_of_a_stream_has_its_bounds_and_exact_residuals(problem):
    objective, data, order = problem
    noise, level = jnp.linspace(-1, 1, 4), {"sigma": 1.0, "delta": 1e-5}
    state = stream.start(objective, fit(objective, data, noise=noise), data, noise=noise, budget=0.05, **level)
    _, _, served = stream.serve(state, data, order)
    table = stream.epsilon_curve(objective, data, order, served, points=4, noise=noise, **level)
    assert [row["request"] for row in table] == [1, 7, 13, 20]
    exact = stream.exact_residuals(objective, data, order, served.params, np.arange(20), noise=noise)
    for row in table:
        at = row["request"] - 1
        assert row["share"] == pytest.approx((at + 1) / float(data.weight.sum()))
        assert row["residual_norm"] == pytest.approx(float(exact[at]), rel=1e-9)
        assert row["exact_epsilon"] == pytest.approx(float(privacy.certified_epsilon(exact[at], 1.0, 1e-5)), rel=1e-9)
        assert (row["epsilon"], row["residual_bound"]) == (served.epsilon[at], served.residual_bound[at])
        assert row["exact_epsilon"] <= row["epsilon"] <= 0.05
        assert row["refreshes"] == served.refreshed[: at + 1].sum()


def test_exact_residuals_are_gradients_of_what_remains(problem):
    objective, data, order = problem
    noise = jnp.linspace(-1, 1, 4)
    params = put(np.random.default_rng(0).normal(size=(2, 4)))
    got = stream.exact_residuals(objective, data, order, params, [3, 19], noise=noise)
    for norm, model, last in zip(got, params, (3, 19), strict=True):
        remaining = data._replace(weight=data.weight.at[order[: last + 1]].set(0))
        expected = np.linalg.norm(objectives.gradient(objective, model, remaining, noise))
        np.testing.assert_allclose(norm, expected, rtol=1e-12)
