"""Removal from networks: chosen damping, indefinite Hessians, named parts, and why there is no certificate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax.flatten_util import ravel_pytree

from fmu_jax import (
    FitResult,
    NotConvergedError,
    Objective,
    certify,
    fairness_interval,
    fit,
    make_data,
    output_perturbation,
    remove,
    stream,
    subsets,
)
from fmu_jax import objective as objectives
from fmu_jax.removal.newton import CONDITION
from tests import oracles
from tests.fmu.test_compilation import counted
from tests.placing import drawn_like, put

X, Y, S, W, REMOVED, W_LEFT = oracles.random_problem(7, 90, 4, remove=0.1, already_removed=5)
ROWS = np.flatnonzero(REMOVED)
DATA, LEFT = make_data(X, Y, S, W), make_data(X, Y, S, W_LEFT)


class Mlp(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = jnp.tanh(linen.Dense(3, param_dtype=jnp.float64)(x))
        return linen.Dense(1, param_dtype=jnp.float64)(x)[:, 0]


MODEL = Mlp()
OBJECTIVE = Objective(l2=0.01, fairness=2.0, predict=MODEL.apply)
PARAMS, NOISE = (drawn_like(MODEL.init, DATA.x, seed) for seed in (0, 5))
FLAT, UNRAVEL = ravel_pytree(PARAMS)


@pytest.fixture
def optax_promotion():
    """optax's L-BFGS adds int32 to int64 under x64, so strict promotion cannot be asked of it."""
    with jax.numpy_dtype_promotion("standard"):
        yield


fits = pytest.mark.usefixtures("optax_promotion")


@jax.jit
def derivatives(weight):
    def value(at):
        return objectives.value(OBJECTIVE, UNRAVEL(at), DATA._replace(weight=weight), NOISE)

    return jax.hessian(value)(FLAT), jax.grad(value)(FLAT)


def dense(data, inside=slice(None)):
    """Hessian and gradient of ``F`` by plain differentiation of the flat vector, on the parameters ``inside``."""
    hessian, gradient = map(np.asarray, derivatives(data.weight))
    return hessian[inside][:, inside], gradient[inside]


def members(name):
    """Which entries of the flat vector a name stands for."""
    paths = subsets.names(PARAMS)
    sizes = [leaf.size for leaf in jax.tree.leaves(PARAMS)]
    return np.concatenate([np.full(size, name in path) for path, size in zip(paths, sizes, strict=True)])


def test_the_hessian_of_the_network_is_indefinite():
    assert np.linalg.eigvalsh(dense(LEFT)[0])[0] < -0.01 * len(ROWS)


@pytest.mark.parametrize(
    ("method", "solver"),
    # Which rows bend is decided before the solver is.
    [("fair_newton", "cg"), ("influence", "dense")]
    + [pytest.param(*each, marks=pytest.mark.weekly) for each in (("fair_newton", "dense"), ("influence", "cg"))],
)
def test_chosen_damping_is_that_of_the_dense_eigenvalues(method, solver):
    rows = LEFT if method == "fair_newton" else DATA
    hess, grad = dense(rows)[0], dense(LEFT)[1]
    n = float(rows.weight.sum())
    low, *_, high = np.linalg.eigvalsh(hess / n)
    damping = (max(high, -low) - CONDITION * low) / (CONDITION - 1)
    options = {"method": method, "solver": solver, "noise": NOISE, "tolerance": 1e-12}
    removal = remove(OBJECTIVE, PARAMS, DATA, ROWS, **options)
    assert float(removal.damping) == pytest.approx(damping, rel=1e-6)
    # At condition 1e4 the step turns by 1e-4 relative for 1e-8 in the damping; so with the damping that was chosen.
    damped = hess + n * float(removal.damping) * np.eye(FLAT.size)
    np.testing.assert_allclose(ravel_pytree(removal.params)[0], FLAT - np.linalg.solve(damped, grad), rtol=1e-6)
    assert bool(removal.converged)
    if solver == "cg":
        assert 0 < float(removal.curvature) <= np.linalg.eigvalsh(damped / n)[-1]


def test_the_linear_model_is_not_damped():
    objective = Objective(l2=0.01, fairness=2.0)
    for solver in ("dense", "cg"):
        assert float(remove(objective, jnp.zeros(4), DATA, ROWS, solver=solver).damping) == 0


def test_a_well_conditioned_network_is_not_damped():
    """The Gauss-Newton matrix with a heavy ridge: positive definite, and well conditioned."""
    removal = remove(Objective(l2=0.1, predict=MODEL.apply), PARAMS, DATA, ROWS, gauss_newton=True)
    assert float(removal.damping) == 0


def test_negative_curvature_is_named_and_not_stepped_along_silently():
    with pytest.raises(NotConvergedError, match=r"at curvature -0\.\d+: with damping=0 the Hessian is not positive"):
        remove(OBJECTIVE, PARAMS, DATA, ROWS, damping=0.0, noise=NOISE)
    removal = remove(OBJECTIVE, PARAMS, DATA, ROWS, damping=0.0, noise=NOISE, throw=False)
    assert not bool(removal.converged)
    assert np.linalg.eigvalsh(dense(LEFT)[0])[0] / float(LEFT.weight.sum()) <= float(removal.curvature) < 0
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(removal.params))


def test_the_dense_solver_reports_an_indefinite_hessian_too():
    with pytest.raises(NotConvergedError):
        remove(OBJECTIVE, PARAMS, DATA, ROWS, damping=0.0, noise=NOISE, solver="dense")


@pytest.mark.slow
@fits
def test_from_a_trained_network_the_step_comes_near_what_descent_from_it_finds():
    trained = fit(OBJECTIVE, DATA, init=PARAMS, tolerance=1e-8).params
    after = fit(OBJECTIVE, LEFT, init=trained, tolerance=1e-8).params  # the nearest minimiser, not a retrained model
    removal = remove(OBJECTIVE, trained, DATA, ROWS)
    before, end = (ravel_pytree(tree)[0] - ravel_pytree(after)[0] for tree in (trained, removal.params))
    assert np.linalg.norm(end) < 0.5 * np.linalg.norm(before)


@pytest.mark.parametrize(
    ("name", "damping", "method"),
    # What is part of what and which rows bend do not meet in the code.
    [
        ("Dense_1", 0.0, "fair_newton"),
        ("Dense_0", 0.5, "influence"),
        ("params", 0.5, "fair_newton"),
    ],
)
def test_a_part_moves_by_its_own_block_of_the_hessian(method, name, damping):
    inside = members(name)
    hess, grad = dense(LEFT if method == "fair_newton" else DATA, inside)[0], dense(LEFT, inside)[1]
    n = float((LEFT if method == "fair_newton" else DATA).weight.sum())
    expected = np.array(FLAT)
    expected[inside] -= np.linalg.solve(hess + n * damping * np.eye(inside.sum()), grad)
    options = {"method": method, "only": name, "damping": damping, "noise": NOISE, "tolerance": 1e-12}
    for solver in ("dense", "cg"):
        removal = remove(OBJECTIVE, PARAMS, DATA, ROWS, solver=solver, **options)
        np.testing.assert_allclose(ravel_pytree(removal.params)[0], expected, atol=1e-8)
        np.testing.assert_array_equal(ravel_pytree(removal.params)[0][~inside], FLAT[~inside])
        assert jax.tree.structure(removal.params) == jax.tree.structure(removal.start) == jax.tree.structure(PARAMS)


@pytest.mark.slow
@fits
def test_the_last_layer_is_the_linear_model_on_its_features():
    """Its objective is convex: fit, unlearned and retrained as the linear model on the hidden units and a constant."""
    hidden = jnp.tanh(DATA.x @ PARAMS["params"]["Dense_0"]["kernel"] + PARAMS["params"]["Dense_0"]["bias"][None])
    rows = make_data(np.column_stack([hidden, np.ones(len(Y))]), Y, S, W)
    linear = Objective(l2=0.01, fairness=2.0)

    def head(params):
        last = params["params"]["Dense_1"]
        return np.concatenate([last["kernel"][:, 0], last["bias"]])

    expected = fit(linear, rows)
    trained = fit(OBJECTIVE, DATA, init=PARAMS, only="Dense_1", tolerance=1e-9)
    np.testing.assert_allclose(head(trained.params), expected.params, atol=1e-6)
    for method, options in (("fair_newton", {}), ("influence", {}), ("retrain", {"init": PARAMS, "tolerance": 1e-9})):
        found = remove(OBJECTIVE, trained.params, DATA, ROWS, method=method, only="Dense_1", **options)
        unlearned = remove(linear, expected.params, rows, ROWS, method=method)
        np.testing.assert_allclose(head(found.params), unlearned.params, atol=1e-5)
        assert float(found.damping) == 0


@pytest.mark.slow
@fits
def test_a_part_with_noise_is_that_of_the_whole():
    whole = fit(OBJECTIVE, DATA, init=PARAMS, noise=NOISE, only="params", tolerance=1e-6)
    plain = fit(OBJECTIVE, DATA, init=PARAMS, noise=NOISE, tolerance=1e-6)
    np.testing.assert_allclose(ravel_pytree(whole.params)[0], ravel_pytree(plain.params)[0], atol=1e-5)


def test_arrays_bound_to_the_model_are_traced():
    def predict(scale, params, x):
        return scale * (x @ params)

    def found(scale):
        return Objective(l2=0.01, predict=jax.tree_util.Partial(predict, put(scale)))

    value = jax.jit(objectives.value)
    for scale in (1.0, 3.0):
        expected = value(Objective(l2=0.01), scale * jnp.ones(4), DATA)
        ridge = 0.01 / 2 * W.sum() * 4 * (1 - scale**2)
        np.testing.assert_allclose(value(found(scale), jnp.ones(4), DATA), expected + ridge)
    with counted() as seen:
        value(found(7.0), jnp.ones(4), DATA)
    assert not seen


def test_another_forget_set_or_model_compiles_nothing():
    options = {"only": "Dense_1", "throw": False}
    remove(OBJECTIVE, PARAMS, DATA, ROWS, **options)
    other = jax.tree.map(lambda leaf: 1.1 * leaf, PARAMS)
    remove(OBJECTIVE, other, DATA, ROWS[:3], **options)
    with counted() as seen:
        remove(OBJECTIVE, PARAMS, DATA, ROWS[2:], **options)
        remove(OBJECTIVE, other, DATA, ROWS[:5], **options)
    assert not seen


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Dense_1", {"params/Dense_1/bias", "params/Dense_1/kernel"}),
        ("params/Dense_1", {"params/Dense_1/bias", "params/Dense_1/kernel"}),
        (("Dense_0/bias", "Dense_1/bias"), {"params/Dense_0/bias", "params/Dense_1/bias"}),
        ("kernel", {"params/Dense_0/kernel", "params/Dense_1/kernel"}),
    ],
)
def test_names_stand_for_whole_components(name, expected):
    part, rest = subsets.select(PARAMS, name)
    assert set(part) == expected
    assert set(part) | set(rest) == set(subsets.names(PARAMS))
    assert not set(part) & set(rest)
    merged = subsets.restrict(OBJECTIVE, PARAMS, name).merge(part)
    jax.tree.map(np.testing.assert_array_equal, merged, PARAMS)


@pytest.mark.parametrize("name", ["Dense", "Dense_2", "", ("Dense_1", "head")])
def test_an_unknown_name_is_refused_with_those_known(name):
    wrong = name[-1] if isinstance(name, tuple) else name
    with pytest.raises(ValueError, match=rf"names '{wrong}', .*known: params/Dense_0/bias, .*params/Dense_1/kernel"):
        remove(OBJECTIVE, PARAMS, DATA, ROWS, only=name)


def test_names_are_for_models_that_have_some():
    with pytest.raises(ValueError, match="the linear model is one vector"):
        remove(Objective(l2=0.01), jnp.zeros(4), DATA, ROWS, only="Dense_1")
    with pytest.raises(ValueError, match="`only` is empty; name some of params/Dense_0"):
        fit(OBJECTIVE, DATA, init=PARAMS, only=())
    with pytest.raises(ValueError, match="`damping` must be >= 0, or None to have it chosen; got 'auto'"):
        remove(OBJECTIVE, PARAMS, DATA, ROWS, damping="auto")


@pytest.mark.parametrize("only", [None, "Dense_1"])
def test_no_certificate_is_issued_and_the_error_says_why(only):
    removal = remove(OBJECTIVE, PARAMS, DATA, ROWS, noise=NOISE, only=only)
    why = "not convex"
    with pytest.raises(ValueError, match=f"{why}.*a linear head on frozen features"):
        certify(OBJECTIVE, PARAMS, removal, sigma=1.0, delta=1e-5, noise=NOISE)
    with pytest.raises(ValueError, match=why):
        fairness_interval(OBJECTIVE, removal, DATA, noise=NOISE)
    with pytest.raises(ValueError, match="linear"):
        output_perturbation.certify_descent(OBJECTIVE, PARAMS, removal, publish_sigma=1.0, delta=1e-5)
    fitted = FitResult(PARAMS, jnp.ones((), bool), jnp.zeros(()), jnp.ones((), jnp.int32))
    with pytest.raises(ValueError, match="linear"):
        stream.start(OBJECTIVE, fitted, DATA, noise=NOISE, sigma=1.0, delta=1e-5, budget=1.0)


def test_a_model_with_a_column_of_scores_is_told_to_take_it():
    objective = Objective(l2=0.01, predict=lambda params, x: MODEL.apply(params, x)[:, None])
    with pytest.raises(ValueError, match=r"one score a row, .* take \[:, 0\]"):
        remove(objective, PARAMS, DATA, ROWS)
