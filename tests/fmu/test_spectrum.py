"""Lanczos against dense eigenvalues, on matrices and on the Hessians of small networks; the damping it asks for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen
from jax.flatten_util import ravel_pytree

from fmu_jax import Objective, make_data
from fmu_jax import objective as objectives
from fmu_jax.spectrum import Extremes, damping_for, extreme_eigenvalues
from tests import oracles
from tests.placing import put

RNG = np.random.default_rng(0)
X, Y, S, W, _, _ = oracles.random_problem(7, 60, 4, already_removed=5)
DATA = make_data(X, Y, S, W)


class Mlp(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = jnp.tanh(linen.Dense(4, param_dtype=jnp.float64)(x))
        return linen.Dense(1, param_dtype=jnp.float64)(x)[:, 0]


def symmetric(values, seed=0):
    """A dense matrix with these eigenvalues."""
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))[0]
    return (q * np.asarray(values)) @ q.T


@functools.partial(jax.jit, static_argnums=2)
def lanczos(matrix, start, steps):
    return extreme_eigenvalues(lambda v: matrix @ v, start, steps=steps)


def found(matrix, steps=64, start=None):
    start = RNG.normal(size=len(matrix)) if start is None else start
    return lanczos(put(matrix), put(np.asarray(start)), steps)


@pytest.mark.parametrize("fairness", [pytest.param(0.0, marks=pytest.mark.weekly), 2.0])
@pytest.mark.parametrize("product", ["hessian", "gauss_newton"])
def test_equals_the_dense_eigenvalues_of_a_network(fairness, product):
    objective = Objective(l2=0.01, fairness=fairness, predict=Mlp().apply)
    params = jax.jit(Mlp().init)(jax.random.key(0), DATA.x)
    flat, unravel = ravel_pytree(params)
    if product == "hessian":
        dense = jax.jit(jax.hessian(lambda v: objectives.value(objective, unravel(v), DATA)))(flat)
        times = objectives.hessian_vector_product
    else:
        times = objectives.gauss_newton_vector_product
        every = jax.vmap(lambda v: ravel_pytree(times(objective, params, DATA, unravel(v)))[0])
        dense = jax.jit(every)(np.eye(flat.size))
    start = optax.tree.random_like(jax.random.key(1), params)
    extremes = jax.jit(lambda p: extreme_eigenvalues(lambda v: times(objective, p, DATA, v), start, steps=64))(params)
    values = np.linalg.eigvalsh(np.asarray(dense))
    np.testing.assert_allclose(extremes.smallest, values[0], atol=1e-8 * values[-1])
    np.testing.assert_allclose(extremes.largest, values[-1], rtol=1e-8)
    assert float(extremes.smallest_error) < 1e-6 * values[-1]
    if product == "hessian":
        assert values[0] < 0 < values[-1]  # else it would show nothing


@pytest.mark.parametrize("steps", [3, 8, 20])
def test_too_few_steps_stay_inside_and_within_the_stated_error(steps):
    values = np.concatenate([[-3.0], np.linspace(0, 1, 58), [7.0]])
    extremes = found(symmetric(values), steps)
    assert -3 - 1e-12 <= extremes.smallest <= extremes.largest <= 7 + 1e-12
    assert int(extremes.steps) == steps
    for value, error in ((extremes.smallest, extremes.smallest_error), (extremes.largest, extremes.largest_error)):
        assert np.abs(values - float(value)).min() <= float(error) + 1e-12


def test_many_steps_do_not_lose_orthogonality():
    """Without reorthogonalisation the space is not exhausted after as many steps as dimensions."""
    values = np.concatenate([[-1e-3], np.geomspace(1e-6, 1, 78), [1e3]])
    extremes = found(symmetric(values), 80)
    np.testing.assert_allclose([extremes.smallest, extremes.largest], [-1e-3, 1e3], rtol=1e-7)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
@pytest.mark.parametrize(
    ("values", "distinct"), [([2.0] * 9, 1), ([-1.0] * 4 + [5.0] * 5, 2), ([0.0] * 9, 1), ([3.0], 1), ([-2.0], 1)]
)
def test_an_exhausted_space_ends_it_without_nan(wrap, values, distinct):
    matrix = put(symmetric(values))
    extremes = wrap(lambda v: extreme_eigenvalues(lambda u: matrix @ u, v))(put(RNG.normal(size=len(values))))
    np.testing.assert_allclose([extremes.smallest, extremes.largest], [min(values), max(values)], atol=1e-12)
    assert int(extremes.steps) == distinct
    assert float(extremes.smallest_error) < 1e-10


def test_a_start_of_zeros_or_of_extreme_length_is_a_start():
    matrix = symmetric([-1.0, 2.0, 3.0])
    for start in (np.zeros(3), np.array([1e-250, 2e-250, 0.0]), np.array([1e250, -2e250, 1e249])):
        extremes = found(matrix, start=start)
        np.testing.assert_allclose([extremes.smallest, extremes.largest], [-1, 3], rtol=1e-9)


def test_a_start_sees_its_own_invariant_space_only():
    extremes = found(np.diag([-5.0, 1.0, 2.0]), start=[0.0, 1.0, 1.0])
    np.testing.assert_allclose([extremes.smallest, extremes.largest], [1, 2], rtol=1e-12)


def test_float32_stays_float32():
    extremes = extreme_eigenvalues(lambda v: jnp.arange(1.0, 6, dtype=jnp.float32) * v, jnp.ones(5, jnp.float32))
    assert extremes.smallest.dtype == jnp.float32
    np.testing.assert_allclose([extremes.smallest, extremes.largest], [1, 5], rtol=1e-5)


def test_nan_is_passed_on():
    assert np.isnan(damping_for(found(np.full((3, 3), np.nan))))


@pytest.mark.parametrize("condition", [10.0, 1e4])
@pytest.mark.parametrize(
    "values", [[-3.0, 0, 1], [-3.0, -2, -1], [1e-9, 1, 2], [-1e-9, 1, 2], [0.0, 0, 5], [-7.0, 0, 1]]
)
def test_damping_makes_the_condition_number_what_was_asked(values, condition):
    matrix = symmetric(values)
    damping = float(damping_for(found(matrix), condition=condition))
    damped = np.linalg.eigvalsh(matrix + damping * np.eye(3))
    assert damping > 0
    assert damped[0] > 0
    assert damped[-1] / damped[0] <= condition * (1 + 1e-6)


def test_damping_is_the_least_that_does_it_and_zero_where_none_is_needed():
    damping = float(damping_for(found(symmetric([-1.0, 0.5, 9.0])), condition=100.0))
    assert (9 + damping) / (-1 + damping) == pytest.approx(100)
    assert float(damping_for(found(symmetric([0.1, 0.5, 9.0])), condition=100.0)) == 0


def test_damping_allows_for_what_lanczos_does_not_know():
    exact, vague = (damping_for(Extremes(*map(jnp.asarray, (-1.0, 9.0, error, 0.0, 3)))) for error in (0.0, 0.5))
    assert float(vague) == pytest.approx(float(exact) + 0.5, rel=1e-3)


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="`steps` must be a whole number of at least 1, got 0"):
        found(np.eye(2), 0)
    with pytest.raises(ValueError, match="`condition` must be above 1, got 1"):
        damping_for(found(np.eye(2)), condition=1.0)
    with pytest.raises(ValueError, match="holds no number"):
        extreme_eigenvalues(lambda v: v, jnp.zeros(0))
