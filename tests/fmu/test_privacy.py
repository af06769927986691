"""(epsilon, delta) conversions: equal to the oracles, inverse to each other, in the order theory says."""

import jax
import numpy as np
import pytest

from fmu_jax import privacy
from tests import oracles
from tests.placing import put


@pytest.mark.parametrize("r", [1e-3, 0.5, 20.0])
@pytest.mark.parametrize("sigma", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("delta", [1e-8, 1e-2])
def test_epsilon_equals_the_oracle(r, sigma, delta):
    epsilon = float(privacy.epsilon_from(r, sigma, delta))
    assert epsilon == pytest.approx(oracles.epsilon_from(r, sigma, delta), rel=1e-12)


@pytest.mark.parametrize("delta", [1e-9, 1e-5, 0.3, 0.9])
def test_residual_from_inverts_the_certified_epsilon(delta):
    for epsilon in (1e-4, 0.5, 1.0, 3.0, 50.0):
        residual = privacy.residual_from(epsilon, 0.3, delta)
        assert float(privacy.certified_epsilon(residual, 0.3, delta)) == pytest.approx(epsilon, rel=1e-9)
        assert float(privacy.certified_epsilon(1.001 * residual, 0.3, delta)) > epsilon


@pytest.mark.parametrize("mu", [1e-3, 0.1, 1.0, 5.0])
def test_gaussian_trade_off_equals_scipy(mu):
    for epsilon in (0.0, 0.01, 1.0, 8.0):
        found = float(privacy.gaussian_delta(2 * mu, 2.0, epsilon))
        assert found == pytest.approx(oracles.gaussian_delta(epsilon, mu), rel=1e-9, abs=1e-300)
    for delta in (1e-10, 1e-5, 0.1):
        found = float(privacy.gaussian_epsilon(2 * mu, 2.0, delta))
        assert found == pytest.approx(oracles.gaussian_epsilon(delta, mu), rel=1e-8, abs=1e-12)


def test_gaussian_trade_off_never_asks_more_than_the_classical_bound():
    """The classical Gaussian mechanism (epsilon <= 1) has a smaller constant, 1.25, than epsilon_from."""
    sizes, deltas = np.meshgrid(np.logspace(-4, 0, 20), np.logspace(-9, -1, 20))
    classical = np.asarray(privacy.epsilon_from(sizes, 1.0, deltas))
    exact = np.asarray(jax.jit(privacy.gaussian_epsilon)(put(sizes), 1.0, put(deltas)))
    assert (classical <= 1).sum() > 100
    assert (exact <= classical)[classical <= 1].all()


def test_no_residual_costs_nothing():
    assert float(privacy.gaussian_delta(0.0, 1.0, 0.5)) == 0.0
    assert float(privacy.gaussian_epsilon(0.0, 1.0, 1e-5)) == 0.0
    assert float(privacy.epsilon_from(0.0, 1.0, 1e-5)) == 0.0
