"""Hessian-free removal and trust-region Newton against NumPy: recursions, retrained paths, biased deletions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from fmu_jax import NotConvergedError, Objective, make_data, releases, remove
from fmu_jax.removal import recollect
from tests import oracles
from tests.placing import put

X, Y, S, W, REMOVED, W_LEFT = oracles.random_problem(7, 40, 3, remove=0.1, already_removed=3)
DATA, ROWS = make_data(X, Y, S, W), np.flatnonzero(REMOVED)
L2, STEPS, SIZE, BATCH, KEY = 0.05, 30, 0.4, 16, jax.random.key(4)
PLAIN = Objective(l2=L2)
FAIR = Objective(l2=0.01, fairness=2.0)
TAIL = (0.01, 2.0, "equalized_odds")


def walked(weight):
    """Gradient descent on the rows of ``weight``, each step divided by the number of rows that all of ``W`` has."""
    x, visited = np.zeros(3), []
    for t in range(STEPS):
        drawn = np.asarray(jax.random.randint(jax.random.fold_in(KEY, t), (BATCH,), 0, 40))
        visited.append((x, drawn))
        om = weight[drawn]
        scores = X[drawn] @ x
        total = X[drawn].T @ (om * (1 / (1 + np.exp(-scores)) - Y[drawn])) + om.sum() * L2 * x
        x = x - SIZE / W[drawn].sum() * total
    return x, visited


@pytest.fixture(scope="module")
def kept():
    return recollect(PLAIN, jnp.zeros(3), DATA, steps=STEPS, step_size=SIZE, batch=BATCH, key=KEY)


def test_vectors_follow_the_recursion(kept):
    """One row at a time, with its Hessians written out."""
    end, visited = walked(W)
    np.testing.assert_allclose(kept.params, end, atol=1e-12)
    for row in (*ROWS[:2], int(np.flatnonzero(W == 0)[0])):
        a = np.zeros(3)
        for x, drawn in visited:
            share, p = SIZE / W[drawn].sum(), 1 / (1 + np.exp(-X[drawn] @ x))
            bend = X[drawn].T @ ((W[drawn] * p * (1 - p))[:, None] * X[drawn]) + W[drawn].sum() * L2 * np.eye(3)
            own = W[row] * (X[row] * (1 / (1 + np.exp(-X[row] @ x)) - Y[row]) + L2 * x)
            a = a - share * bend @ a + share * (drawn == row).sum() * own
        np.testing.assert_allclose(kept.vectors[row], a, atol=1e-12)


def test_the_sum_of_vectors_ends_near_the_same_path_without_the_rows(kept):
    found = remove(PLAIN, kept.params, DATA, ROWS, method="hessian_free", vectors=kept.vectors)
    np.testing.assert_allclose(found.params, kept.params + np.asarray(kept.vectors)[ROWS].sum(axis=0), atol=1e-12)
    without = walked(W_LEFT)[0]
    apart = np.linalg.norm(kept.params - without)
    assert np.linalg.norm(found.params - without) < 0.25 * apart
    one = remove(PLAIN, kept.params, DATA, ROWS[:1], method="hessian_free", vectors=kept.vectors)
    both = remove(PLAIN, one.params, one.data, ROWS[1:], method="hessian_free", vectors=kept.vectors)
    np.testing.assert_allclose(both.params, found.params, atol=1e-12)  # One request after another.


def test_from_the_minimiser_it_is_the_influence_step():
    best = put(oracles.minimise(X, Y, S, W, L2))
    still = recollect(PLAIN, best, DATA, steps=400, step_size=1.0)
    np.testing.assert_allclose(still.params, best, atol=1e-9)
    found = remove(PLAIN, best, DATA, ROWS, method="hessian_free", vectors=still.vectors)
    np.testing.assert_allclose(found.params, remove(PLAIN, best, DATA, ROWS, method="influence").params, atol=1e-7)
    assert np.isfinite(releases.distance_to_retrained(PLAIN, found))


def test_vectors_of_any_model_and_what_is_refused(kept):
    model = linen.Dense(1, param_dtype=jnp.float64)
    deep = Objective(l2=L2, predict=lambda p, x: jnp.tanh(model.apply(p, x)[:, 0]))
    init = model.init(KEY, DATA.x)
    many = recollect(deep, init, DATA, steps=2, step_size=SIZE)
    found = remove(deep, many.params, DATA, ROWS, method="hessian_free", vectors=many.vectors)
    assert jax.tree.structure(found.params) == jax.tree.structure(init)
    options = {"method": "hessian_free", "vectors": kept.vectors}
    with pytest.raises(ValueError, match="cannot honour the penalty"):
        remove(FAIR, kept.params, DATA, ROWS, **options)
    with pytest.raises(ValueError, match=r"of these 40 rows, of shapes \(40, 3\)"):
        remove(PLAIN, kept.params, DATA, ROWS, method="hessian_free", vectors=kept.vectors[1:])
    with pytest.raises(ValueError, match="without perturbation"):
        remove(PLAIN, kept.params, DATA, ROWS, noise=jnp.ones(3), **options)
    with pytest.raises(ValueError, match="needs `vectors`"):
        remove(PLAIN, kept.params, DATA, ROWS, method="hessian_free")
    for other, said in ((FAIR, "penalty"), (dataclasses.replace(PLAIN, reweigh=True), "reweighing")):
        with pytest.raises(ValueError, match=f"`recollect` cannot honour the {said}"):
            recollect(other, jnp.zeros(3), DATA, steps=1, step_size=1.0)
    with pytest.raises(ValueError, match="`steps` must be a whole number"):
        recollect(PLAIN, jnp.zeros(3), DATA, steps=0, step_size=1.0)
    with pytest.raises(ValueError, match="need `key`"):
        recollect(PLAIN, jnp.zeros(3), DATA, steps=1, step_size=1.0, batch=2)


def search(start, left, first, count):
    """The trust region of the fair objective, written out."""
    theta, radius, taken = start, first, 0
    for _ in range(count):
        grad = oracles.gradient(theta, X, Y, S, left, *TAIL)
        bend = oracles.hessian(theta, X, Y, S, left, *TAIL)
        full = -np.linalg.solve(bend, grad)
        p = full * min(1.0, radius / np.linalg.norm(full))
        promised = -(grad @ p + p @ bend @ p / 2)
        fallen = oracles.objective(theta, X, Y, S, left, *TAIL) - oracles.objective(theta + p, X, Y, S, left, *TAIL)
        if fallen > 0.1 * promised:
            theta, taken = theta + p, taken + 1
        if fallen < 0.25 * promised:
            radius = np.linalg.norm(p) / 4
        elif fallen > 0.75 * promised and np.linalg.norm(p) < np.linalg.norm(full):
            radius *= 2
    return theta, taken


@pytest.mark.parametrize("first", [0.05, 100.0])
def test_trust_region_steps_are_those_of_numpy(first):
    start = np.array([6.0, -5.0, 4.0])  # So far that Newton overshoots and steps are refused.
    expected, taken = search(start, W_LEFT, first, 5)
    assert taken < 5 or first < 1
    found = remove(FAIR, put(start), DATA, ROWS, method="trust_region", radius=first, max_steps=5, throw=False)
    np.testing.assert_allclose(found.params, expected, atol=1e-9)


def test_trust_region_ends_at_the_retrained_model_where_newton_flies_off():
    start = jnp.array([6.0, -5.0, 4.0])
    best = oracles.minimise(X, Y, S, W_LEFT, *TAIL)
    found = remove(FAIR, start, DATA, ROWS, method="trust_region")
    np.testing.assert_allclose(found.params, best, atol=1e-8)
    assert float(releases.distance_to_retrained(FAIR, found)) < 1e-8
    astray = remove(FAIR, start, DATA, ROWS, method="fair_newton", steps=3)
    assert not np.linalg.norm(astray.params - best) < 1
    with pytest.raises(NotConvergedError, match="raise `max_steps`"):
        remove(FAIR, start, DATA, ROWS, method="trust_region", max_steps=1)
    with pytest.raises(ValueError, match="radius"):
        remove(FAIR, start, DATA, ROWS, method="trust_region", radius=0.0)


@pytest.mark.slow
def test_row_distances_bound_the_truth_for_every_row():
    """Each row left out, retrained in NumPy."""
    best = oracles.minimise(X, Y, S, W, *TAIL)
    found = releases.row_distances(FAIR, put(best), DATA, batch_size=8)
    assert found.shape == (int(W.sum()),)
    for bound, row in zip(found, np.flatnonzero(W), strict=True):
        left = W.copy()
        left[row] = 0
        step = oracles.newton_step_fair(best, X, Y, S, left, *TAIL)
        truth = np.linalg.norm(step - oracles.minimise(X, Y, S, left, *TAIL))
        assert truth <= bound <= 20 * truth + 1e-9
    np.testing.assert_allclose(releases.row_distances(FAIR, put(best), DATA, ROWS[:2]), found[np.isin(
        np.flatnonzero(W), ROWS[:2])], rtol=1e-6)  # fmt: skip
    with pytest.raises(ValueError, match="only the linear model"):
        releases.row_distances(Objective(l2=0.1, predict=lambda p, x: x @ p), jnp.zeros(3), DATA)
