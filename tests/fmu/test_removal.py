"""One battery over all removal methods, each against its literal NumPy oracle; matrix-free = dense; refusals."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax.flatten_util import ravel_pytree

from fmu_jax import NotConvergedError, Objective, make_data, remove
from fmu_jax import objective as objectives
from fmu_jax.removal import METHODS, fit_shards, make_shards, predict_shards
from fmu_jax.removal.descent import default_step_size
from tests import oracles
from tests.placing import put

N, D, L2, FAIRNESS, PENALTY = 90, 4, 0.01, 2.0, "equalized_odds"
PROBLEM = oracles.random_problem(7, N, D, remove=0.1, already_removed=5)
X, Y, S, W, REMOVED, W_LEFT = PROBLEM
ROWS = np.flatnonzero(REMOVED)
NOISE = np.random.default_rng(8).normal(size=D)
DATA = make_data(X, Y, S, W)
OBJECTIVE = Objective(l2=L2, fairness=FAIRNESS, penalty=PENALTY)
BEST = oracles.minimise(X, Y, S, W, L2, FAIRNESS, PENALTY, NOISE)
# Not the optimum, so that a method that assumes it to be one is seen to differ.
START = BEST + 0.1
SHARD = np.asarray(make_shards(N, 3, key=jax.random.key(2)))
CODES = np.concatenate([np.full(len(rows), code) for code, rows in enumerate(SHARD)])[np.argsort(SHARD.ravel())]
TAIL = (L2, FAIRNESS, PENALTY, NOISE)


class Case(NamedTuple):
    """A method, its options and what NumPy says it does to the parameters it is given."""

    method: str
    options: dict
    expected: object
    exact: bool = False


def descended(theta):
    return oracles.descent_literal(theta, X, Y, S, W_LEFT, L2, FAIRNESS, PENALTY, 3, 0.02, NOISE)


def resharded(_):
    return oracles.sharded_literal(X, Y, CODES, W_LEFT, L2)


def projected(theta):
    """The plain Newton step projected on the span of the forgotten rows."""
    step = oracles.newton_step_guo(theta, X, Y, REMOVED, W, L2) - theta
    return theta + np.linalg.pinv(X[REMOVED]) @ X[REMOVED] @ step


def fair_newton_twice(theta):
    once = oracles.newton_step_fair(theta, X, Y, S, W_LEFT, *TAIL)
    return oracles.newton_step_fair(once, X, Y, S, W_LEFT, *TAIL)


CASES = {
    "retrain": Case("retrain", {}, lambda _: oracles.minimise(X, Y, S, W_LEFT, *TAIL), exact=True),
    "fair_newton": Case("fair_newton", {}, lambda t: oracles.newton_step_fair(t, X, Y, S, W_LEFT, *TAIL)),
    "two steps": Case("fair_newton", {"steps": 2}, fair_newton_twice),
    "influence": Case("influence", {}, lambda t: oracles.influence_step(t, X, Y, S, W, W_LEFT, *TAIL)),
    "newton": Case("newton", {}, lambda t: oracles.newton_step_guo(t, X, Y, REMOVED, W, L2)),
    "projective": Case("projective", {}, projected),
    "descent": Case("descent", {"steps": 3, "step_size": 0.02}, descended),
    "sharded": Case("sharded", {"shard": put(SHARD)}, resharded, exact=True),
}
everywhere = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def start_of(case, data=DATA):
    return fit_shards(OBJECTIVE, data, put(SHARD)).params if case.method == "sharded" else put(START)


def run(case, forget, params=None, data=DATA):
    noise = None if case.method == "sharded" else put(NOISE)
    params = start_of(case) if params is None else params
    options = {"method": case.method, "noise": noise, "allow_unfair": True} | case.options
    return remove(OBJECTIVE, params, data, forget, **options)


def test_the_battery_covers_every_method():
    assert {case.method for case in CASES.values()} == set(METHODS)


@everywhere
def test_equals_its_oracle(case):
    removal = run(case, ROWS)
    np.testing.assert_allclose(removal.params, case.expected(START), atol=1e-9)
    assert bool(removal.converged)


@everywhere
def test_shapes_dtypes_and_what_remains(case):
    params, removal = start_of(case), run(case, ROWS)
    assert removal.params.shape == removal.start.shape == params.shape
    assert removal.params.dtype == params.dtype
    np.testing.assert_array_equal(removal.forgotten, REMOVED)
    np.testing.assert_array_equal(removal.data.weight, W_LEFT)
    assert removal.converged.shape == removal.residual.shape == removal.steps.shape == ()
    if "steps" not in case.options:  # else it is the point before the last step
        np.testing.assert_array_equal(removal.start, params)


@everywhere
def test_indices_are_as_good_as_a_mask(case):
    by_index, by_mask = run(case, ROWS[::-1]), run(case, REMOVED)
    np.testing.assert_array_equal(by_index.params, by_mask.params)


@everywhere
def test_jit_and_vmap_equal_eager(case):
    params = start_of(case)
    other = np.roll(REMOVED & (W == 1), 1) & (W == 1)
    masks = jnp.array([REMOVED, other])
    expected = [run(case, mask, params).params for mask in masks]

    @jax.jit
    def traced(masks):
        return run(case, masks[0], params).params, jax.vmap(lambda mask: run(case, mask, params).params)(masks)

    jitted, batched = traced(masks)
    np.testing.assert_allclose(jitted, expected[0], atol=1e-11)
    np.testing.assert_allclose(batched, np.stack(expected), atol=1e-11 if not case.exact else 1e-8)


@everywhere
def test_forgetting_nothing_changes_nothing(case):
    params = start_of(case) if case.method == "sharded" else put(BEST)
    removal = run(case, [], params)
    np.testing.assert_allclose(removal.params, params, atol=1e-8 if case.method == "retrain" else 1e-11)
    np.testing.assert_array_equal(removal.data.weight, W)


@everywhere
def test_a_row_forgotten_before_plays_no_part(case):
    """Whatever stands in a row of weight zero, the result is the same."""
    params = start_of(case)
    gone = put(W == 0)
    changed = DATA._replace(x=jnp.where(gone[:, None], 7.0, DATA.x), y=jnp.where(gone, 1 - DATA.y, DATA.y))
    np.testing.assert_allclose(run(case, ROWS, params, changed).params, run(case, ROWS, params).params, atol=1e-12)


@pytest.mark.parametrize(
    ("method", "options"),
    # Each two of the three at all their values; the product weekly.
    [
        pytest.param(method, options, marks=[] if (k in (0, 3)) == (method != "influence") else pytest.mark.weekly)
        for method in ("fair_newton", "influence", "newton")
        for k, options in enumerate(
            ({}, {"damping": 0.3}, {"gauss_newton": True}, {"gauss_newton": True, "damping": 0.3})
        )
    ],
    ids=str,
)
def test_matrix_free_equals_dense(method, options):
    dense = {"damping": options.get("damping", 0.0), "solver": "dense"}
    tail = {"method": method, "noise": put(NOISE), "allow_unfair": True}
    expected = remove(OBJECTIVE, put(START), DATA, ROWS, **dense, **tail)
    found = remove(OBJECTIVE, put(START), DATA, ROWS, solver="cg", tolerance=1e-12, **options, **tail)
    np.testing.assert_allclose(found.params, expected.params, atol=1e-8)


@pytest.mark.parametrize(("method", "weight"), [("fair_newton", W_LEFT), ("influence", W)])
def test_damping_adds_rows_times_damping_to_the_hessian(method, weight):
    hess = oracles.hessian(START, X, Y, S, weight, *TAIL) + weight.sum() * 0.3 * np.eye(D)
    expected = START - np.linalg.solve(hess, oracles.gradient(START, X, Y, S, W_LEFT, *TAIL))
    found = remove(OBJECTIVE, put(START), DATA, ROWS, method=method, noise=put(NOISE), damping=0.3)
    np.testing.assert_allclose(found.params, expected, atol=1e-10)


@pytest.mark.parametrize(
    ("penalty", "reweigh"), [("demographic_parity", False), ("equal_opportunity", True), ("individual", True)]
)
def test_other_penalties_and_reweighing_equal_the_oracles(penalty, reweigh):
    objective = Objective(l2=L2, fairness=FAIRNESS, penalty=penalty, reweigh=reweigh)
    tail = (L2, FAIRNESS, penalty, NOISE, reweigh)
    for method, expected in (
        ("fair_newton", oracles.newton_step_fair(START, X, Y, S, W_LEFT, *tail)),
        ("influence", oracles.influence_step(START, X, Y, S, W, W_LEFT, *tail)),
    ):
        found = remove(objective, put(START), DATA, ROWS, method=method, noise=put(NOISE))
        np.testing.assert_allclose(found.params, expected, atol=1e-9)


class Mlp(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = jnp.tanh(linen.Dense(3, param_dtype=jnp.float64)(x))
        return linen.Dense(1, param_dtype=jnp.float64)(x)[:, 0]


@functools.cache
def network():
    return jax.jit(Mlp().init)(jax.random.key(0), DATA.x)


@pytest.mark.parametrize("method", ["fair_newton", "influence"])
def test_on_a_network_the_dense_solver_equals_conjugate_gradients(method):
    objective = Objective(l2=L2, fairness=FAIRNESS, predict=Mlp().apply)
    params = network()
    found = {
        solver: remove(objective, params, DATA, ROWS, method=method, solver=solver, damping=1.0, tolerance=1e-12)
        for solver in ("dense", "cg")
    }
    dense, free = (ravel_pytree(found[solver].params)[0] for solver in ("dense", "cg"))
    np.testing.assert_allclose(free, dense, atol=1e-8)
    flat, unravel = ravel_pytree(params)
    left = make_data(X, Y, S, W_LEFT)
    rows = left if method == "fair_newton" else DATA
    hess = jax.jit(jax.hessian(lambda v: objectives.value(objective, unravel(v), rows)))(flat)
    grad = jax.jit(jax.grad(lambda v: objectives.value(objective, unravel(v), left)))(flat)
    expected = flat - np.linalg.solve(hess + rows.weight.sum() * np.eye(len(flat)), grad)
    np.testing.assert_allclose(dense, expected, atol=1e-9)


def test_gauss_newton_on_a_network_needs_no_damping():
    objective = Objective(l2=L2, fairness=FAIRNESS, predict=Mlp().apply)
    removal = remove(objective, network(), DATA, ROWS, gauss_newton=True)
    assert bool(removal.converged)


def test_forgetting_in_two_rounds_retrains_like_the_union():
    first, second = ROWS[:4], ROWS[4:]
    retrain = {"method": "retrain", "noise": put(NOISE)}
    once = remove(OBJECTIVE, put(START), DATA, first, **retrain)
    twice = remove(OBJECTIVE, once.params, once.data, second, **retrain)
    union = remove(OBJECTIVE, put(START), DATA, ROWS, **retrain)
    np.testing.assert_array_equal(twice.data.weight, union.data.weight)
    np.testing.assert_allclose(twice.params, union.params, atol=1e-12)


def test_without_fairness_and_from_the_optimum_newton_is_fair_newton():
    objective = Objective(l2=L2)
    best = put(oracles.minimise(X, Y, S, W, L2, noise=NOISE))
    fair, plain = (remove(objective, best, DATA, ROWS, method=m, noise=put(NOISE)) for m in ("fair_newton", "newton"))
    np.testing.assert_allclose(fair.params, plain.params, atol=1e-10)
    # Away from it only fair_newton uses the true gradient.
    fair, plain = (
        remove(objective, best + 0.1, DATA, ROWS, method=m, noise=put(NOISE)) for m in ("fair_newton", "newton")
    )
    assert float(jnp.abs(fair.params - plain.params).max()) > 0.05


def test_newton_keeps_the_reweighing_weights_of_before():
    objective = Objective(l2=L2, reweigh=True)
    om = oracles.loss_weights(Y, S, W, reweigh=True)
    p = 1 / (1 + np.exp(-X @ START))
    hess = X.T @ (np.where(REMOVED, 0, om * p * (1 - p))[:, None] * X) + W_LEFT.sum() * L2 * np.eye(D)
    lost = X.T @ np.where(REMOVED, om * (p - Y), 0) + (W - W_LEFT).sum() * L2 * START
    found = remove(objective, put(START), DATA, ROWS, method="newton", allow_unfair=True)
    np.testing.assert_allclose(found.params, START + np.linalg.solve(hess, lost), atol=1e-10)


@pytest.mark.parametrize("count", [1, 2, 3, len(ROWS)])
def test_projective_is_the_published_algorithm_where_the_ridge_does_not_matter(count):
    """Its leave-k-out predictions through the n by n hat matrix, and the least-norm step that attains them."""
    removed = np.isin(np.arange(N), ROWS[:count])
    expected = oracles.projective_literal(START, X, Y, removed, 1e-9, W)
    found = remove(Objective(l2=1e-9), put(START), DATA, removed, method="projective")
    np.testing.assert_allclose(found.params, expected, atol=1e-6)
    assert np.linalg.norm(expected - START) > 1e-3


def test_projective_moves_only_in_the_span_of_the_forgotten_rows():
    found = remove(OBJECTIVE, put(START), DATA, ROWS[:2], method="projective", allow_unfair=True)
    moved = np.asarray(found.params) - START
    outside = moved - np.linalg.pinv(X[ROWS[:2]]) @ X[ROWS[:2]] @ moved
    assert np.linalg.norm(outside) < 1e-10 * np.linalg.norm(moved)


def test_untouched_shards_are_kept_bit_for_bit():
    params = fit_shards(OBJECTIVE, DATA, put(SHARD)).params
    rows = [row for row in SHARD[1] if row < N and W[row] == 1][:2]
    removal = remove(OBJECTIVE, params, DATA, rows, method="sharded", shard=put(SHARD), allow_unfair=True)
    np.testing.assert_array_equal(removal.params[jnp.array([0, 2])], params[jnp.array([0, 2])])
    assert bool((removal.params[1] != params[1]).all())


@pytest.mark.parametrize("name", ["retrain", "sharded"])
def test_retraining_does_not_read_the_parameters_that_saw_the_forgotten_rows(name):
    case = CASES[name]
    start = start_of(case)
    every_shard = [int(rows[W[rows] == 1][0]) for rows in SHARD]
    known, garbage = (run(case, every_shard, params).params for params in (start, jnp.full_like(start, 1e6)))
    np.testing.assert_array_equal(known, garbage)


def test_a_shard_that_loses_every_row_becomes_the_zero_model():
    params = fit_shards(OBJECTIVE, DATA, put(SHARD)).params
    rows = [row for row in SHARD[1] if row < N and W[row] == 1]
    removal = remove(OBJECTIVE, params, DATA, rows, method="sharded", shard=put(SHARD), allow_unfair=True)
    np.testing.assert_array_equal(removal.params[1], np.zeros(D))
    assert bool(removal.converged)


@pytest.mark.parametrize("how", ["vote", "mean"])
def test_shards_vote_or_average(how):
    params = np.random.default_rng(0).normal(size=(4, D))  # an even number, so that votes can tie
    scores = oracles.sharded_scores(params, X, how)
    expected = scores > (0.5 if how == "vote" else 0)
    np.testing.assert_array_equal(predict_shards(put(params), DATA.x, aggregate=how), expected)


def test_shards_share_the_rows_out_evenly():
    shard = make_shards(11, 4, key=jax.random.key(0))
    assert shard.shape == (4, 3)
    assert sorted(shard.ravel().tolist()) == [*range(11), 11]
    assert (shard != make_shards(11, 4, key=jax.random.key(1))).any()


def test_descent_publishes_noise_of_the_scale_asked_for():
    quiet = run(CASES["descent"], ROWS).params
    options = {"method": "descent", "noise": put(NOISE), "steps": 3, "step_size": 0.02, "publish_sigma": 0.5}
    draws = jax.vmap(lambda key: remove(OBJECTIVE, put(START), DATA, put(REMOVED), key=key, **options).params)(
        jax.random.split(jax.random.key(0), 400)
    )
    assert float((draws - quiet[None]).std()) == pytest.approx(0.5, rel=0.1)
    with pytest.raises(ValueError, match="needs `key`"):
        remove(OBJECTIVE, put(START), DATA, ROWS, **options)


def test_descent_contracts_at_the_rate_of_its_default_step():
    """Gradient descent with step 2/(M + m) contracts distances to the minimiser by (M - m)/(M + m) a step."""
    objective = Objective(l2=0.1, fairness=0.5)
    target = oracles.minimise(X, Y, S, W_LEFT, 0.1, 0.5, PENALTY)
    quadratic = oracles.hessian(np.full(D, 1e9), X, Y, S, W_LEFT, 0.1, 0.5, PENALTY)
    m, big = np.linalg.eigvalsh(quadratic)[0], np.linalg.eigvalsh(quadratic + X.T @ (W_LEFT[:, None] / 4 * X))[-1]
    step = jax.jit(default_step_size)(objective, make_data(X, Y, S, W_LEFT))
    assert float(step) == pytest.approx(2 / (big + m), rel=1e-4)
    found = remove(objective, put(target + 1), DATA, ROWS, method="descent", steps=20)
    assert np.linalg.norm(found.params - target) <= ((big - m) / (big + m)) ** 20 * np.linalg.norm(np.ones(D))


@pytest.mark.parametrize(
    ("forget", "message"),
    [
        ([N], f"row {N}, but rows are numbered 0 to {N - 1}"),
        ([-1], "row -1"),
        ([ROWS[0], ROWS[1], ROWS[0]], f"row {ROWS[0]} more than once"),
        ([0.0, 1.0], "row indices or a boolean mask"),
        (np.zeros(N - 1, bool), rf"must have shape \({N},\)"),
        ([int(np.flatnonzero(W == 0)[0])], "was removed before"),
        (W == 1, f"all {int(W.sum())} remaining rows"),
        ((W == 1) & (S == 0), "group 0 has no rows in what remains"),
        ((W == 1) & (S == 1), "group 1 has no rows in what remains"),
        ((W == 1) & (Y == 1), "no row with label 1 is left in what remains"),
    ],
)
def test_impossible_forget_sets_are_refused(forget, message):
    with pytest.raises(ValueError, match=message):
        remove(OBJECTIVE, put(START), DATA, forget)


@pytest.mark.parametrize("method", ["newton", "projective", "sharded"])
@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (OBJECTIVE, "penalty 'equalized_odds'"),
        (Objective(l2=L2, reweigh=True), "reweighing"),
        (Objective(l2=L2, fairness=1.0, penalty="individual"), "penalty 'individual'"),
    ],
)
def test_a_baseline_refuses_what_it_cannot_honour(method, objective, message):
    options = CASES[method].options
    with pytest.raises(ValueError, match=rf"method '{method}' cannot honour the {message}.*allow_unfair=True"):
        remove(objective, start_of(CASES[method]), DATA, ROWS, method=method, **options)


@pytest.mark.parametrize("method", ["newton", "projective", "sharded"])
def test_a_baseline_runs_on_a_plain_objective(method):
    case = CASES[method]
    remove(Objective(l2=L2), start_of(case), DATA, ROWS, method=method, **case.options)


MLP_OBJECTIVE = Objective(l2=L2, predict=Mlp().apply)


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        (OBJECTIVE, {"method": "fairnewton"}, r"unknown method 'fairnewton'; known: retrain, fair_newton"),
        (OBJECTIVE, {"step": 2}, r"method 'fair_newton' takes no option 'step'; it takes: steps, solver"),
        (OBJECTIVE, {"method": "retrain", "steps": 2}, "method 'retrain' takes no option 'steps'"),
        (OBJECTIVE, {"steps": 0}, "`steps` must be a whole number of at least 1, got 0"),
        (OBJECTIVE, {"solver": "lu"}, "unknown solver 'lu'; known: auto, dense, cg"),
        (OBJECTIVE, {"method": "sharded", "allow_unfair": True}, "needs `shard`"),
        (OBJECTIVE, {"noise": jnp.zeros(D + 1)}, "`noise` must have shape"),
        (MLP_OBJECTIVE, {"method": "projective"}, "linear model only"),
        (MLP_OBJECTIVE, {"method": "descent"}, "`step_size` is required"),
    ],
)
def test_wrong_options_are_refused(objective, options, message):
    params = put(START) if objective.linear else network()
    with pytest.raises(ValueError, match=message):
        remove(objective, params, DATA, ROWS, **options)


def test_wrong_parameters_are_refused():
    with pytest.raises(ValueError, match="`params` must have shape"):
        remove(OBJECTIVE, jnp.zeros(D + 1), DATA, ROWS)
    with pytest.raises(ValueError, match="takes no noise"):
        remove(
            Objective(l2=L2), start_of(CASES["sharded"]), DATA, ROWS, method="sharded",
            shard=put(SHARD), noise=jnp.zeros(D),
        )  # fmt: skip


def test_gauss_newton_with_the_dense_solver_is_honoured_or_refused():
    """Asking for both must not silently give the Hessian of a network."""
    params = network()
    both, free = (
        remove(MLP_OBJECTIVE, params, DATA, ROWS, solver=solver, gauss_newton=True, tolerance=1e-12).params
        for solver in ("dense", "cg")
    )
    np.testing.assert_allclose(ravel_pytree(both)[0], ravel_pytree(free)[0], atol=1e-7)


@pytest.mark.parametrize("options", [{"solver": "cg", "max_steps": 1}, {"method": "retrain", "max_steps": 1}])
def test_stopping_early_raises_or_is_said(options):
    method = options.get("method", "fair_newton")
    with pytest.raises(NotConvergedError, match=f"method '{method}' stopped after 1 steps at residual"):
        remove(OBJECTIVE, put(START), DATA, ROWS, **options)
    removal = remove(OBJECTIVE, put(START), DATA, ROWS, throw=False, **options)
    assert not bool(removal.converged)


def test_a_singular_system_is_not_reported_as_solved():
    twin = DATA._replace(x=DATA.x.at[:, 0].set(DATA.x[:, 1]))
    with pytest.raises(NotConvergedError):
        remove(Objective(l2=0.0), jnp.zeros(D), twin, ROWS)
