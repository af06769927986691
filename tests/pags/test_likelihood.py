"""Log-probabilities and their derivatives, sure and unsure, against float64 and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from pags_jax.likelihood import log_prob

LEADS = (-200.0, -40.0, -3.0, 0.0, 2.0, 10.0, 15.0, 18.0, 40.0, 80.0)


@pytest.mark.parametrize("shift", [-3000.0, 0.0, 3000.0])
def test_values_equal_the_log_softmax(shift):
    logits = shift + 5 * np.random.default_rng(0).normal(size=(50, 7))
    labels = np.arange(50) % 7
    expected = log_softmax(logits, axis=1)[np.arange(50), labels]
    np.testing.assert_allclose(log_prob(jnp.asarray(logits), jnp.asarray(labels)), expected, rtol=1e-11, atol=1e-12)


@jax.jit
def derivatives(logits):
    """Of the first class: the value, its gradient and its Hessian."""

    def of_first(f):
        return log_prob(f, jnp.array(0))

    return *jax.value_and_grad(of_first)(logits), jax.hessian(of_first)(logits)


@pytest.mark.parametrize("lead", LEADS)
def test_float32_derivatives_are_right_however_sure_the_model_is(lead):
    """p of three logits (lead, 0, 1): d log p_0 / d f = (q, -p_1, -p_2) with q = p_1 + p_2, and minus the Hessian
    is diag(p) - p p'."""
    logits = jnp.array([lead, 0.0, 1.0], jnp.float32)
    value, gradient, hessian = derivatives(logits)
    odds = np.exp(np.float64(-lead)) * np.array([1.0, np.e])
    p = odds / (1 + odds.sum())
    np.testing.assert_allclose(value, -np.log1p(odds.sum()), rtol=2e-6)
    np.testing.assert_allclose(gradient, [p.sum(), -p[0], -p[1]], rtol=2e-6, atol=1e-37)
    stay = 1 / (1 + odds.sum())
    by_lead = stay * p
    np.testing.assert_allclose(hessian[0], [-by_lead.sum(), *by_lead], rtol=1e-5, atol=1e-6 * min(1, odds.sum()))


def test_a_label_that_is_no_class_makes_nan_not_another_class():
    logits, labels = jnp.zeros((3, 4)), jnp.array([4, -1, 3])
    value, gradient = jax.value_and_grad(lambda f: log_prob(f, labels).sum())(logits)
    assert np.isnan(value)
    np.testing.assert_array_equal(np.isnan(gradient).all(axis=1), [True, True, False])
