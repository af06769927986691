"""`fit` against an independent optimum, on the grid of the real data it must converge on, and when it cannot."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from fmu_jax import NotConvergedError, Objective, datasets, fit, fitting, make_data, sample_noise
from fmu_jax.penalties import PENALTIES
from tests import oracles
from tests.placing import put

PROBLEM = oracles.random_problem(5, 60, 4, already_removed=6)
NOISE = np.random.default_rng(6).normal(size=4)
GROUPS = [("compas", "race"), ("compas", "gender"), ("adult", "race")]
GROUPS += [pytest.param(("adult", "gender"), marks=pytest.mark.slow)]  # The same rows as for race, for seconds.


def rows(problem=PROBLEM):
    return make_data(problem.x, problem.y, problem.s, problem.w)


def as_numpy(data):
    """x, y, s, w as the oracles take them."""
    return tuple(np.asarray(field) for field in jax.tree.leaves(data))


def linear_predict(params, x):
    return x @ params


#: The solvers see no more of a penalty than its gradient; one of either form weekly.
FORMS = [pytest.param("equalized_odds", marks=pytest.mark.weekly), "individual"]


@pytest.fixture(scope="module", params=GROUPS, ids="-".join)
def real(request):
    name, group = request.param
    return datasets.load(name, group=group, seed=0).train


@pytest.mark.parametrize(("penalty", "reweigh", "noisy"), list(itertools.product(PENALTIES, *2 * [(False, True)])))
def test_minimiser_equals_the_independent_one(penalty, reweigh, noisy):
    noise = float(noisy) * NOISE
    objective = Objective(l2=0.01, fairness=2.0, penalty=penalty, reweigh=reweigh)
    result = fit(objective, rows(), noise=put(noise))
    expected = oracles.minimise(PROBLEM.x, PROBLEM.y, PROBLEM.s, PROBLEM.w, 0.01, 2.0, penalty, noise, reweigh)
    np.testing.assert_allclose(result.params, expected, atol=1e-8)
    assert bool(result.converged)


def grid(data, fairnesses, *, whole=True):
    """l2, fairness and noise of every problem that `fit` must solve, or each two of them together."""
    unit = np.asarray(sample_noise(data.x[0], key=jax.random.key(1), sigma=1.0))
    for at in itertools.product(*map(enumerate, ((1e-1, 1e-4, 1e-6), fairnesses, (0.0, 1.0, 10.0)))):
        places, (l2, fairness, sigma) = zip(*at, strict=True)
        if whole or sum(places) % 3 == 0:
            yield l2, fairness, put(sigma * unit)


def mean_gap(x, y, s):
    """Mean over pairs of groups of 1[same label] (x_a - x_b), its sums correctly rounded.

    Float64 sums of 37,000 rows are off by 1e-13; times fairness = 1e3 and |theta| = 400 that would be seen.
    """
    gap = np.zeros(x.shape[1])
    for label in (0, 1):
        cell = [(s == g) & (y == label) for g in (0, 1)]
        sums = [np.array([math.fsum(column) for column in x[rows].T]) / (s == g).sum() for g, rows in enumerate(cell)]
        gap += cell[1].sum() / (s == 1).sum() * sums[0] - cell[0].sum() / (s == 0).sum() * sums[1]
    return gap


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.weekly)])
def test_converges_on_the_grid_of_every_bundled_data_set(real, whole):
    x, y, s, _ = as_numpy(real)
    gap = mean_gap(x, y, s)
    for l2, fairness, noise in grid(real, (0.0, 1.0, 1e3), whole=whole):
        result = fit(Objective(l2=l2, fairness=fairness), real, noise=noise)
        theta = np.asarray(result.params)
        grad = (expit(x @ theta) - y) @ x / len(y) + l2 * theta + 2 * fairness * (gap @ theta) * gap + noise / len(y)
        assert np.linalg.norm(grad) <= 1e-10, (l2, fairness, noise)
        assert abs(np.linalg.norm(grad) - float(result.grad_norm)) < 5e-11


def check_compas(*, solver="auto", **options):
    """The same on COMPAS with the oracle's gradient, for any penalty."""
    data = datasets.load("compas", group="race", seed=0).train
    for l2, fairness, noise in grid(data, (1.0, 1e3)):
        result = fit(Objective(l2=l2, fairness=fairness, **options), data, noise=noise, solver=solver)
        tail = (options.get("penalty", "equalized_odds"), noise, options.get("reweigh", False))
        grad = oracles.gradient(result.params, *as_numpy(data), l2, fairness, *tail, fast=True)
        assert np.linalg.norm(grad) / len(data.y) <= 1e-10, (l2, fairness, noise)


@pytest.mark.parametrize("penalty", list(PENALTIES))
def test_every_penalty_converges_on_compas(penalty):
    check_compas(penalty=penalty)


def test_reweighing_converges_on_compas():
    check_compas(reweigh=True)


@pytest.mark.parametrize("penalty", FORMS)
def test_newton_cg_finds_the_same_minimiser(penalty):
    result = fit(Objective(l2=1e-3, fairness=2.0, penalty=penalty), rows(), noise=put(NOISE), solver="cg")
    expected = oracles.minimise(PROBLEM.x, PROBLEM.y, PROBLEM.s, PROBLEM.w, 1e-3, 2.0, penalty, NOISE)
    np.testing.assert_allclose(result.params, expected, atol=1e-7)


def test_newton_cg_converges_on_compas():
    check_compas(solver="cg")


def test_many_features_are_solved_matrix_free_by_default():
    few, many = jnp.zeros(fitting.DENSE_LIMIT), jnp.zeros(fitting.DENSE_LIMIT + 1)
    assert fitting.use_dense(Objective(l2=1e-3), few, "auto")
    assert not fitting.use_dense(Objective(l2=1e-3), many, "auto")


def test_unknown_solver():
    with pytest.raises(ValueError, match="unknown solver 'lu'; known: auto, dense, cg"):
        fit(Objective(l2=1e-3), rows(), solver="lu")


@pytest.fixture
def optax_promotion():
    """optax's L-BFGS adds int32 to int64 under x64, so strict promotion cannot be asked of it."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("penalty", FORMS)
def test_lbfgs_agrees_with_newton(penalty):
    linear = fit(Objective(l2=0.01, fairness=2.0, penalty=penalty), rows(), noise=put(NOISE))
    general = fit(
        Objective(l2=0.01, fairness=2.0, penalty=penalty, predict=linear_predict),
        rows(),
        noise=put(NOISE),
        init=jnp.zeros(4),
        tolerance=1e-9,
    )
    np.testing.assert_allclose(general.params, linear.params, atol=1e-6)
    assert float(general.grad_norm) <= 1e-9


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("predict", [None, linear_predict])
def test_stopping_early_raises_or_is_said(predict):
    objective = Objective(l2=0.01, fairness=1.0, predict=predict)
    with pytest.raises(NotConvergedError, match=r"after 1 steps the mean-form gradient norm is .*tolerance=1e-10"):
        fit(objective, rows(), init=jnp.zeros(4), max_steps=1)
    result = fit(objective, rows(), init=jnp.zeros(4), max_steps=1, throw=False)
    assert not bool(result.converged)
    assert int(result.steps) == 1
    grad = oracles.gradient(result.params, PROBLEM.x, PROBLEM.y, PROBLEM.s, PROBLEM.w, 0.01, 1.0, "equalized_odds")
    assert float(result.grad_norm) == pytest.approx(np.linalg.norm(grad) / PROBLEM.w.sum())


def test_no_step_is_taken_from_the_minimiser():
    objective = Objective(l2=0.01, fairness=1.0)
    best = fit(objective, rows()).params
    again = fit(objective, rows(), init=best)
    assert int(again.steps) == 0
    np.testing.assert_array_equal(again.params, best)


def test_a_far_start_reaches_the_same_minimiser():
    objective = Objective(l2=0.01, fairness=1.0)
    far = fit(objective, rows(), init=jnp.array([300.0, -500.0, 100.0, 800.0]))
    np.testing.assert_allclose(far.params, fit(objective, rows()).params, atol=1e-7)


def test_works_under_jit_and_vmap():
    def solve(l2, fairness):
        return fit(Objective(l2=l2, fairness=fairness), rows()).params

    l2s, fairnesses = jnp.array([1e-1, 1e-2, 1e-3]), jnp.array([0.0, 1.0, 30.0])
    expected = np.stack([solve(float(l2), float(gamma)) for l2, gamma in zip(l2s, fairnesses, strict=True)])
    np.testing.assert_allclose(jax.vmap(solve)(l2s, fairnesses), expected, atol=1e-8)
    np.testing.assert_allclose(jax.jit(solve)(l2s[1], fairnesses[1]), expected[1], atol=1e-10)


@pytest.mark.parametrize("penalty", list(PENALTIES))
def test_float32_converges_to_its_own_tolerance(penalty):
    data = make_data(PROBLEM.x.astype(np.float32), PROBLEM.y, PROBLEM.s, PROBLEM.w)
    result = fit(Objective(l2=1e-3, fairness=2.0, penalty=penalty), data)
    assert result.params.dtype == jnp.float32
    grad = oracles.gradient(result.params, np.float64(data.x), PROBLEM.y, PROBLEM.s, PROBLEM.w, 1e-3, 2.0, penalty)
    assert np.linalg.norm(grad) / PROBLEM.w.sum() < 1.1e-5


@pytest.mark.parametrize("name", ["compas", "adult"])
def test_float32_converges_on_real_data(name):
    real = datasets.load(name, group="race", seed=0).train
    data = real._replace(x=real.x.astype(jnp.float32), weight=real.weight.astype(jnp.float32))
    assert fit(Objective(l2=1e-4, fairness=1.0), data).params.dtype == jnp.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": jnp.zeros(3)}, r"`params` must have shape \(4,\).*got \(3,\)"),
        ({"noise": jnp.zeros(5)}, r"`noise` must have shape \(4,\).*got \(5,\)"),
        ({"init": jnp.zeros(4, jnp.float32)}, "dtype of the features, float64; got float32"),
        ({"noise": jnp.zeros(4, jnp.float32)}, "dtype of the features, float64; got float32, float64"),
    ],
)
def test_wrong_parameters_or_noise_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fit(Objective(l2=0.1), rows(), **options)


def test_other_models_need_initial_parameters_and_noise_like_them():
    objective = Objective(l2=0.1, predict=linear_predict)
    with pytest.raises(ValueError, match="`init` is required"):
        fit(objective, rows())
    with pytest.raises(ValueError, match="same structure and shapes"):
        fit(objective, rows(), init=jnp.zeros(4), noise={"a": jnp.zeros(4)})


def test_rows_are_checked():
    with pytest.raises(ValueError, match="group 1 has no rows in the data"):
        fit(Objective(l2=0.1), rows()._replace(weight=jnp.asarray(PROBLEM.s == 0, jnp.float64)))
    with pytest.raises(ValueError, match="1 features are NaN"):
        fit(Objective(l2=0.1), rows()._replace(x=rows().x.at[3, 1].set(jnp.nan)))


@pytest.mark.parametrize("group", ["race", "gender"])
def test_convergence_is_not_claimed_by_cancellation(group):
    """A heavy penalty, hardly any ridge, loud noise: the gradient is checked through scores in extended precision."""
    data = datasets.load("adult", group=group, seed=0).train
    x, y, s, _ = (np.asarray(part, np.longdouble) for part in as_numpy(data))
    noise = 10 * np.random.default_rng(3).normal(size=x.shape[1])
    objective = Objective(l2=1e-6, fairness=1e3, penalty="demographic_parity")
    result = fit(objective, data, noise=put(noise))
    theta = np.asarray(result.params, np.longdouble)
    c = x[s == 0].mean(axis=0) - x[s == 1].mean(axis=0)
    p = 1 / (1 + np.exp(-(x @ theta)))
    grad = ((p - y) @ x + noise) / len(y) + 1e-6 * theta + 2e3 * (c @ theta) * c
    assert np.linalg.norm(grad.astype(float)) <= 1e-10
    assert abs(np.linalg.norm(grad.astype(float)) - float(result.grad_norm)) < 3e-11


def test_nan_noise_is_refused():
    with pytest.raises(ValueError, match="NaN or infinite"):
        fit(Objective(l2=1e-3), rows(), noise=jnp.full(4, jnp.nan))
