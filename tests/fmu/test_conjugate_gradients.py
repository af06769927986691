"""Conjugate gradients against NumPy's solver, and what it says when it fails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax.conjugate_gradients import conjugate_gradients
from tests.placing import put

RNG = np.random.default_rng(0)
FACTOR = RNG.normal(size=(12, 12))
MATRIX, RHS = FACTOR @ FACTOR.T + np.eye(12), RNG.normal(size=12)


def times(matrix):
    return lambda v: put(matrix) @ v


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_solves_a_positive_system(wrap):
    result = wrap(lambda b: conjugate_gradients(times(MATRIX), b, tolerance=1e-12))(put(RHS))
    np.testing.assert_allclose(result.solution, np.linalg.solve(MATRIX, RHS), rtol=1e-9)
    assert bool(result.converged)
    assert not bool(result.indefinite)
    true = np.linalg.norm(RHS - MATRIX @ result.solution) / np.linalg.norm(RHS)
    assert true < 1e-11
    assert float(result.residual_norm) < 1e-11


def test_solves_on_a_pytree_like_on_the_flat_vector():
    def split(v):
        return {"a": v[:6].reshape(2, 3), "b": v[6:]}

    def operator(tree):
        return split(put(MATRIX) @ jnp.concatenate([tree["a"].ravel(), tree["b"]]))

    result = conjugate_gradients(operator, split(put(RHS)), tolerance=1e-12)
    expected = split(np.linalg.solve(MATRIX, RHS))
    for name in ("a", "b"):
        np.testing.assert_allclose(result.solution[name], expected[name], rtol=1e-9)


def test_as_many_steps_as_distinct_eigenvalues():
    result = conjugate_gradients(times(np.diag([1.0, 1, 5, 5, 9])), jnp.arange(1.0, 6))
    assert int(result.steps) == 3


def test_indefinite_is_reported():
    result = conjugate_gradients(times(np.diag([1.0, -1.0])), jnp.array([1.0, 2.0]))
    assert bool(result.indefinite)
    assert not bool(result.converged)
    assert bool(jnp.isfinite(result.solution).all())


def test_nan_is_reported_as_failure():
    result = conjugate_gradients(lambda v: v * jnp.nan, jnp.ones(3))
    assert not bool(result.converged)


def test_too_few_steps_are_reported_with_the_true_residual():
    result = conjugate_gradients(times(MATRIX), put(RHS), max_steps=2)
    assert int(result.steps) == 2
    assert not bool(result.converged)
    assert not bool(result.indefinite)
    true = np.linalg.norm(RHS - MATRIX @ result.solution) / np.linalg.norm(RHS)
    assert float(result.residual_norm) == pytest.approx(true)


def test_zero_right_hand_side_has_solution_zero():
    result = conjugate_gradients(times(MATRIX), jnp.zeros(12))
    assert bool(result.converged)
    assert int(result.steps) == 0
    assert float(result.residual_norm) == 0
    np.testing.assert_array_equal(result.solution, np.zeros(12))
