"""Streaming removal: any sequence equals the one-shot step, every bound holds, nothing costs more with more rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax import Data, Objective, certify, datasets, fit, make_data, metrics, predict_labels, remove, stream
from fmu_jax.distances import prediction_margins
from fmu_jax.moments import BLOCK, assemble, minus, moments, none, plus
from fmu_jax.penalties import PENALTIES
from tests import oracles
from tests.placing import put

N, D = 90, 5
SETTINGS = [(penalty, reweigh) for penalty in PENALTIES for reweigh in (False, True)]
GUARANTEE = {"sigma": 1.0, "delta": 1e-5, "budget": 1.0}


@functools.cache
def problem(seed=0, remove=0.3, n=N, d=D) -> tuple[Data, np.ndarray, jax.Array]:
    """Rows, a forget set that empties no cell, and noise."""
    x, y, s, w, removed, _ = oracles.random_problem(seed, n, d, remove)
    noise = np.random.default_rng([seed, 1]).normal(size=d)
    return make_data(x, y, s, w), np.flatnonzero(removed), put(noise)


@functools.cache
def started(penalty="equalized_odds", reweigh=False, seed=0, l2=1e-2, fairness=1.0, remove=0.3):
    data, rows, noise = problem(seed, remove)
    objective = Objective(l2=l2, fairness=fairness, penalty=penalty, reweigh=reweigh)
    state = stream.start(objective, fit(objective, data, noise=noise), data, noise=noise, **GUARANTEE)
    return state, data, rows, noise, (l2, fairness, penalty, np.asarray(noise), reweigh)


def pick(data, rows):
    """By NumPy, which compiles nothing for another number of rows."""
    return jax.tree.map(lambda leaf: put(np.asarray(leaf)[np.asarray(rows, int)]), data)


def arrays(data):
    return tuple(np.asarray(field) for field in jax.tree.leaves(data))


def left(data, rows):
    weight = np.asarray(data.weight).copy()
    weight[rows] = 0.0
    return weight


@pytest.mark.parametrize(
    ("penalty", "reweigh"),
    [  # One without and one with pairs of rows and new weights; the others weekly.
        SETTINGS[0], *(pytest.param(*each, marks=pytest.mark.weekly) for each in SETTINGS[1:-1]),
        pytest.param(*SETTINGS[-1], marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_any_order_and_batching_equals_the_one_shot_step(penalty, reweigh):
    state, data, rows, noise, tail = started(penalty, reweigh)
    x, y, s, _ = arrays(data)
    anchor = np.asarray(state.anchor)
    expected = oracles.newton_step_fair(anchor, x, y, s, left(data, rows), *tail[:3], tail[3], tail[4])
    shuffled = np.random.default_rng(1).permutation(rows)
    for batches in ([rows], [[row] for row in shuffled], np.array_split(shuffled, 3)):
        end = state
        for batch in batches:
            end = stream.delete(end, pick(data, batch))
        np.testing.assert_allclose(end.params, expected, rtol=0, atol=1e-9)
        assert int(end.deleted) == len(rows)
    objective = Objective(l2=tail[0], fairness=tail[1], penalty=penalty, reweigh=reweigh)
    removal = remove(objective, state.anchor, data, rows, noise=noise)
    np.testing.assert_allclose(end.params, removal.params, rtol=0, atol=1e-9)
    certificate = certify(objective, state.anchor, removal, sigma=1.0, delta=1e-5, noise=noise)
    assert float(end.residual_bound) == pytest.approx(float(certificate.gram_bound), rel=1e-6)


@pytest.mark.parametrize(
    ("penalty", "reweigh"),
    [
        pytest.param(penalty, k % 2 == 1, marks=[pytest.mark.slow] * (penalty == "demographic_parity"))
        for k, penalty in enumerate(PENALTIES)
    ],
)
def test_every_state_is_certified(penalty, reweigh):
    for seed in range(2):
        for l2, fairness in ((1e-4, 10.0), (1e-2, 0.1)):
            state, data, rows, _, tail = started(penalty, reweigh, seed, l2, fairness)
            x, y, s, _ = arrays(data)
            gone = []
            for row in rows:
                state = stream.delete(state, pick(data, [row]))
                gone.append(row)
                exact = oracles.residual_norm(np.asarray(state.params), x, y, s, left(data, gone), *tail)
                assert exact <= float(state.residual_bound)
            assert l2 < 1e-2 or float(state.residual_bound) < 20 * exact  # a bound that says something
            assert float(state.epsilon) == pytest.approx(
                max(
                    oracles.epsilon_from(float(state.residual_bound), 1.0, 1e-5),
                    oracles.gaussian_epsilon(1e-5, float(state.residual_bound)),
                ),
                rel=0.2,  # the tail bound is an upper bound of the exact Gaussian curve
            )


@pytest.mark.parametrize(("penalty", "reweigh"), [("equalized_odds", False), ("individual", True)])
def test_the_retrained_model_lies_in_the_region(penalty, reweigh):
    tight = 0
    for seed in range(4):
        state, data, rows, _, tail = started(penalty, reweigh, seed, 1e-2, 1.0, 0.1)
        state = stream.delete(state, pick(data, rows))
        x, y, s, _ = arrays(data)
        retrained = oracles.minimise(x, y, s, left(data, rows), *tail, start=np.asarray(state.params))
        region = stream.retrained_region(state)
        step = retrained - np.asarray(state.params)
        assert np.linalg.norm(step) <= float(region.distance)
        hessian = oracles.hessian(np.asarray(state.params), x, y, s, left(data, rows), *tail)
        assert np.sqrt(step @ hessian @ step) <= float(region.radius)
        # What the state claims of the Hessian's norm is never below the truth.
        for row in x:
            assert np.sqrt(row @ np.linalg.solve(hessian, row)) <= np.linalg.norm(np.asarray(region.dual) @ row)
        margins = np.asarray(prediction_margins(region, data.x))
        assert (np.abs(x @ step) <= margins).all()
        tight += np.median(margins) < 50 * np.median(np.abs(x @ step))
        interval = stream.fairness_interval(state, data)
        labels = predict_labels(state.objective, put(retrained), data.x)
        for name, value in metrics.group_metrics(labels, data)._asdict().items():
            bounds = getattr(interval, name, None)
            if bounds is not None:
                assert (np.asarray(bounds)[..., 0] <= value + 1e-12).all(), name
                assert (value - 1e-12 <= np.asarray(bounds)[..., 1]).all(), name
    assert tight


def test_refresh_is_retraining():
    state, data, rows, _, tail = started()
    rows_data, remaining = stream.take(data, rows)
    stale = stream.delete(state, rows_data)._replace(budget=jnp.asarray(1e-9))
    assert stream.needs_refresh(stale)
    fresh = stream.refresh(stale, remaining)
    x, y, s, _ = arrays(data)
    np.testing.assert_allclose(fresh.params, oracles.minimise(x, y, s, left(data, rows), *tail), rtol=0, atol=1e-7)
    assert (int(fresh.refreshes), int(fresh.deleted)) == (1, len(rows))
    assert float(fresh.epsilon) < 1e-6 < float(stale.epsilon)
    np.testing.assert_array_equal(fresh.anchor, fresh.anchor)
    # From the new anchor on, the identity holds again.
    more = np.setdiff1d(np.arange(N), rows)[:3]
    again = stream.delete(fresh, pick(data, more))
    expected = oracles.newton_step_fair(
        np.asarray(fresh.anchor), x, y, s, left(data, [*rows, *more]), *tail[:3], tail[3], tail[4]
    )
    np.testing.assert_allclose(again.params, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("budget", [0.3, 100.0])
def test_serve_publishes_nothing_beyond_the_budget(budget):
    state, data, rows, _, tail = started(l2=1e-3)
    state = state._replace(budget=put(budget))
    end, remaining, served = stream.serve(state, data, rows)
    x, y, s, _ = arrays(data)
    anchor, gone = np.asarray(state.anchor), []
    assert bool(served.refreshed.any()) is (budget < 1)
    for t, row in enumerate(rows):
        gone.append(row)
        params = np.asarray(served.params[t])
        assert float(served.epsilon[t]) <= budget
        assert oracles.residual_norm(params, x, y, s, left(data, gone), *tail) <= float(served.residual_bound[t])
        if served.refreshed[t]:
            anchor = oracles.minimise(x, y, s, left(data, gone), *tail, start=params)
        step = oracles.newton_step_fair(anchor, x, y, s, left(data, gone), *tail[:3], tail[3], tail[4])
        np.testing.assert_allclose(params, step, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(end.params, served.params[-1])
    np.testing.assert_array_equal(remaining.weight, left(data, rows))
    assert int(end.refreshes) == int(served.refreshed.sum())
    assert int(end.deleted) == len(rows)


def test_scan_padding_and_single_rows():
    state, data, rows, *_ = started()
    one = jax.lax.scan(lambda s, row: (stream.delete(s, row), s.epsilon), state, pick(data, rows[:-2]))[0]
    padded = pick(data, [*rows[:-2], *np.setdiff1d(np.arange(N), rows)[:2]])
    padded = padded._replace(weight=padded.weight.at[-2:].set(0.0))
    both = stream.delete(state, padded)
    np.testing.assert_allclose(one.params, both.params, rtol=0, atol=1e-12)
    assert int(one.deleted) == int(both.deleted) == len(rows) - 2
    single = stream.delete(state, jax.tree.map(lambda leaf: leaf[rows[0]], data))
    np.testing.assert_array_equal(single.params, stream.delete(state, pick(data, rows[:1])).params)
    none = stream.delete(state, pick(data, []))
    np.testing.assert_allclose(none.params, state.params, rtol=0, atol=1e-12)


def shapes_in(jaxpr):
    """Shapes of everything that a jaxpr computes, inner ones included."""
    for equation in jaxpr.eqns:
        for variable in (*equation.invars, *equation.outvars):
            yield getattr(variable.aval, "shape", ())
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "jaxpr"):
                    yield from shapes_in(inner.jaxpr)
                elif hasattr(inner, "eqns"):
                    yield from shapes_in(inner)


def test_nothing_in_a_deletion_has_the_number_of_rows():
    state, data, *_ = started()
    row = pick(data, [0])
    found = set(shapes_in(jax.make_jaxpr(stream.delete)(state, row).jaxpr))
    assert {(1, D), (D, D)} <= found
    assert all(N not in shape for shape in found)
    assert all(N not in leaf.shape for leaf in jax.tree.leaves(state))


@jax.jit
def combined(objective, anchor, noise, whole, part, rest):
    return plus(part, rest), minus(whole, part), assemble(objective, anchor, noise, whole)


@pytest.mark.parametrize(("penalty", "reweigh"), SETTINGS)
def test_moments_are_additive_and_those_of_the_definition(penalty, reweigh):
    data, rows, noise = problem()
    objective, tail = Objective(l2=1e-2, fairness=1.0, penalty=penalty, reweigh=reweigh), (1e-2, 1.0, penalty)
    tail, anchor = (*tail, np.asarray(noise), reweigh), put(np.random.default_rng(2).normal(size=D))
    whole = moments(objective, anchor, data)
    # The rest as rows of weight zero: they count for nothing, and the program is that of all rows.
    part, rest = moments(objective, anchor, pick(data, rows)), data._replace(weight=put(left(data, rows)))
    rest = moments(objective, anchor, rest)
    more, less, found = combined(objective, anchor, noise, whole, part, rest)
    for same, expected in ((more, whole), (less, rest)):
        for a, b in zip(same[:-1], expected[:-1], strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    x, y, s, w = arrays(data)
    theta = np.asarray(anchor)
    np.testing.assert_allclose(found.gradient, oracles.gradient(theta, x, y, s, w, *tail), rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.hessian, oracles.hessian(theta, x, y, s, w, *tail), rtol=1e-11, atol=1e-11)
    om = oracles.loss_weights(y, s, w, reweigh)
    expected = sum(om[i] * np.linalg.norm(x[i]) * np.outer(x[i], x[i]) for i in range(N))
    np.testing.assert_allclose(found.reach, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("penalty", "reweigh"), [("equalized_odds", True), ("individual", False)])
def test_blocks_and_rounding_bounds(penalty, reweigh):
    """Float32 moments of more than one block, against float64: the claimed errors cover the true ones."""
    n = 2 * BLOCK + 77
    data = jax.tree.map(lambda leaf: np.asarray(leaf)[:n], datasets.synthetic(2 * n, 4, seed=3).train)
    narrow, wide = (
        jax.tree.map(put, data._replace(x=data.x.astype(np.float32).astype(dtype), weight=data.weight.astype(dtype)))
        for dtype in (np.float32, np.float64)
    )
    anchor = jnp.asarray([0.3, -2.0, 1.0, 0.5, -0.2], jnp.float32)
    high, noise = Objective(l2=1e-4, fairness=1.0, penalty=penalty, reweigh=reweigh), jnp.zeros(D)
    flat = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), high)
    found = moments(flat, anchor, narrow)
    x, y, s, w = arrays(wide)
    theta = np.asarray(anchor, np.float64)
    np.testing.assert_array_equal(found.counts, [[((s == g) & (y == c)).sum() for c in (0, 1)] for g in (0, 1)])
    sums = np.array([[x[(s == g) & (y == c)].sum(axis=0) for c in (0, 1)] for g in (0, 1)])
    assert 0 < np.linalg.norm(np.asarray(found.sums) - sums, axis=2).sum() <= float(found.errors.sums)
    assembled = jax.jit(assemble)
    quadratic = assembled(flat, anchor, noise.astype(jnp.float32), found)
    tail = (1e-4, 1.0, penalty, None, reweigh, True)
    gradient, hessian = oracles.gradient(theta, x, y, s, w, *tail), oracles.hessian(theta, x, y, s, w, *tail)
    assert 0 < np.linalg.norm(np.asarray(quadratic.gradient) - gradient) <= float(quadratic.gradient_error)
    assert 0 < np.linalg.norm(np.asarray(quadratic.hessian) - hessian) <= float(quadratic.hessian_error)
    om = oracles.loss_weights(y, s, w, reweigh)
    reach = x.T @ ((om * np.linalg.norm(x, axis=1))[:, None] * x)
    assert 0 < np.linalg.norm(np.asarray(quadratic.reach) - reach) <= float(quadratic.reach_error)
    # In float64 the same blocks agree with the definition itself.
    anchor = put(theta)
    exact = assembled(high, anchor, noise, moments(high, anchor, wide))
    np.testing.assert_allclose(exact.gradient, gradient, rtol=0, atol=1e-8)
    assert np.linalg.norm(exact.hessian - hessian) <= 1e-10 * np.linalg.norm(hessian)


def test_float32_bounds_cover_the_truth():
    data, rows, noise = problem()
    low = data._replace(x=put(np.float32(data.x)), weight=put(np.float32(data.weight)))
    objective = Objective(l2=1e-2, fairness=1.0)
    small = put(np.float32(noise))
    state = stream.start(objective, fit(objective, low, noise=small), low, noise=small, **GUARANTEE)
    x, y, s, _ = arrays(low)
    for k, row in enumerate(rows):
        state = stream.delete(state, pick(low, [row]))
        weight = left(data, rows[: k + 1])
        tail = (1e-2, 1.0, "equalized_odds", np.asarray(small, np.float64))
        exact = oracles.residual_norm(
            np.asarray(state.params, np.float64), x, y.astype(int), s.astype(int), weight, *tail
        )
        assert exact <= float(state.residual_bound)
    assert state.params.dtype == state.residual_bound.dtype == jnp.float32


def test_without_noise_nothing_is_indistinguishable():
    data, rows, _ = problem()
    objective = Objective(l2=1e-2, fairness=1.0)
    state = stream.start(objective, fit(objective, data), data, noise=None, **GUARANTEE)
    assert np.isinf(state.epsilon)
    assert stream.needs_refresh(state)
    assert np.isfinite(stream.delete(state, pick(data, rows)).residual_bound)


def test_what_must_not_be_deleted_is_refused():
    data, rows, _ = problem()
    _, remaining = stream.take(data, rows)
    for forget, said in (
        ([N], f"row {N}"),
        ([rows[0]], f"row {rows[0]} was removed before"),
        ([0 if 0 not in rows else 1] * 2, "more than once"),
    ):
        with pytest.raises(ValueError, match=said):
            stream.take(remaining, forget)
    cell = np.flatnonzero((np.asarray(data.group) == 1) & (np.asarray(data.y) == 1))
    with pytest.raises(ValueError, match="group 1 with label 1 leaves none"):
        stream.take(data, cell)
    kept, _ = stream.take(data, cell[1:])
    np.testing.assert_array_equal(kept.x, data.x[cell[1:]])


def test_bad_input_is_refused_and_the_state_untouched():
    state, data, rows, noise, _ = started()
    before = jax.tree.map(np.array, state)
    cell = np.flatnonzero((np.asarray(data.group) == 0) & (np.asarray(data.y) == 0))
    with pytest.raises(ValueError, match="group 0 with label 0 leaves none"):
        stream.delete(state, pick(data, cell))
    with pytest.raises(ValueError, match=f"{D} features of float64"):
        stream.delete(state, data._replace(x=data.x[:, 1:]))
    with pytest.raises(ValueError, match="pass what remains"):
        stream.refresh(stream.delete(state, pick(data, rows)), data)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.array, state), before)
    objective, fitted = state.objective, fit(state.objective, data, noise=noise)
    for changed in ({"sigma": 0.0}, {"delta": 1.0}, {"budget": -1.0}):
        with pytest.raises(ValueError, match=next(iter(changed))):
            stream.start(objective, fitted, data, noise=noise, **{**GUARANTEE, **changed})
    with pytest.raises(ValueError, match="did not converge"):
        rough = fit(objective, data, noise=noise, max_steps=1, throw=False)
        stream.start(objective, rough, data, noise=noise, **GUARANTEE)
    with pytest.raises(ValueError, match="linear model only"):
        net = Objective(l2=1e-2, predict=lambda params, x: x @ params)
        stream.start(net, fitted, data, noise=noise, **GUARANTEE)


def test_rows_that_the_state_does_not_hold_are_refused():
    """A second call with the rows of before would bring deleted rows back, and its bound would be false."""
    state, data, rows, *_ = started()
    after, remaining, _ = stream.serve(state, data, rows[:3])
    with pytest.raises(ValueError, match="pass what remains after the deletions"):
        stream.serve(after, data, rows[3:6])
    with pytest.raises(ValueError, match="removed"):
        stream.serve(after, remaining, rows[:1])
    stream.serve(after, remaining, rows[3:6])
    # As many rows of every cell, but others: one deleted row instead of one that remains.
    _, y, s, _ = arrays(data)
    swap = next(i for i in range(N) if i not in rows[:3] and (y[i], s[i]) == (y[rows[0]], s[rows[0]]))
    weight = remaining.weight.at[rows[0]].set(1.0).at[swap].set(0.0)
    for call in (stream.refresh, lambda state, data: stream.serve(state, data, [])):
        with pytest.raises(ValueError, match="not the same: their sums by cell are"):
            call(after, remaining._replace(weight=weight))
    same, _, none = stream.serve(after, remaining, [])
    np.testing.assert_array_equal(same.params, after.params)
    assert none.epsilon.shape == (0,)


def test_other_rows_of_the_same_sums_are_refused():
    """Two 0/1 rows exchanged for two others with the same sum: tables of categories hold many of those."""
    rng = np.random.default_rng(0)
    bits = np.concatenate([rng.integers(0, 2, (N - 4, 4)), [[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]])
    x = np.concatenate([bits, np.ones((N, 1))], axis=1).astype(float)
    y, group = np.arange(N) % 2, np.arange(N) // 2 % 2
    y[-4:], group[-4:] = 1, 0
    data = make_data(x, y, group, np.ones(N))
    objective = Objective(l2=1e-2, fairness=1.0)
    noise = put(np.full(D, 0.1))
    fitted = fit(objective, data, noise=noise)
    state = stream.start(objective, fitted, data, noise=noise, sigma=1.0, delta=1e-5, budget=10.0)
    state, remaining, _ = stream.serve(state, data, [0, N - 4, N - 3])
    stream.refresh(state, remaining)
    other = data._replace(weight=put(left(data, [0, N - 2, N - 1])))
    with pytest.raises(ValueError, match="not the same: their"):
        stream.refresh(state, other)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("y", 5, "labels are neither 0 nor 1 in the rows to delete"),
        ("group", -1, "group codes are neither 0 nor 1 in the rows to delete"),
        ("weight", 0.5, "weights are neither 0 nor 1 in the rows to delete"),
        ("x", np.nan, "features are NaN or infinite in the rows to delete"),
    ],
)
def test_rows_that_cannot_be_rows_are_not_deleted(field, value, message):
    state, data, rows, *_ = started()
    chosen = pick(data, rows[:2])
    bad = chosen._replace(**{field: jnp.full_like(getattr(chosen, field), value)})
    with pytest.raises(ValueError, match=message):
        stream.delete(state, bad)


def test_batches_are_deleted_as_one_by_one_and_refreshed_when_told():
    state, data, rows, *_ = started()
    asked = []

    def stale(state, data):
        asked.append(np.asarray(data.weight).copy())
        return len(asked) == 2

    first, second, third = stream.serve_batches(state, data, [rows[:3], rows[3:4], rows[4:7]], stale=stale)
    assert [batch.refreshed for batch in (first, second, third)] == [False, True, False]
    for batch, gone, seen in zip((first, second, third), (rows[:3], rows[:4], rows[:7]), asked, strict=True):
        np.testing.assert_array_equal(batch.data.weight, left(data, gone))
        np.testing.assert_array_equal(seen, left(data, gone))
    once = stream.delete(state, pick(data, rows[:3]))
    np.testing.assert_allclose(first.state.params, once.params, rtol=1e-12)
    anew = stream.refresh(stream.delete(once, pick(data, rows[3:4])), data._replace(weight=left(data, rows[:4])))
    np.testing.assert_allclose(second.state.params, anew.params, rtol=1e-12)
    for batches in ([rows[:2], rows[1:3]], [[N]], [[rows[0], rows[0]]]):
        with pytest.raises(ValueError, match="forget"):
            stream.serve_batches(state, data, batches, stale=lambda *at: False)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize(("reweigh", "groups"), [(False, 2), (True, 3)])
def test_moments_of_no_rows_have_the_shapes_of_any(penalty, reweigh, groups):
    objective = Objective(l2=1e-2, fairness=1.0, penalty=penalty, reweigh=reweigh)
    empty = none(objective, groups, 4)
    rows = make_data(np.ones((6, 4)), [0, 0, 0, 1, 1, 1], np.arange(6) % groups)
    expected = jax.eval_shape(moments, objective, jnp.zeros(4), rows)
    assert jax.tree.structure(empty) == jax.tree.structure(expected)
    described = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (empty, expected))
    assert described[0] == described[1]
    some = moments(objective, jnp.ones(4), rows)
    jax.tree.map(np.testing.assert_array_equal, plus(some, empty)._replace(errors=some.errors), some)
