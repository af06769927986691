"""Certificates: never below the truth on thousands of random problems, equal to the oracles, honest in float32."""

import dataclasses
import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax import Data, Objective, certificates, certify, distances, fit, make_data, remove
from fmu_jax.penalties import PENALTIES
from fmu_jax.removal import fit_shards, make_shards
from tests import oracles
from tests.placing import put

SHAPES = ((40, 4), (150, 9))
SETTINGS = [
    pytest.param(
        shape,
        penalty,
        reweigh,
        marks=pytest.mark.weekly
        if shape == SHAPES[1] or (k % 2 == 0) == reweigh
        else [pytest.mark.slow] * (penalty == "demographic_parity"),
    )
    for shape, (k, penalty), reweigh in itertools.product(SHAPES, enumerate(PENALTIES), (False, True))
]
EACH = 130  # problems a setting: 2 shapes x 4 penalties x reweighing or not x 130 = 2080
METHODS = (
    {"method": "fair_newton"},
    {"method": "fair_newton", "steps": 2},
    {"method": "influence"},
    {"method": "newton"},
    {"method": "descent", "steps": 3},
)
REMOVE = {"throw": False, "allow_unfair": True}


class Problems(NamedTuple):
    """Stacked random problems; every field has a leading axis."""

    data: Data
    forget: jax.Array
    l2: jax.Array
    fairness: jax.Array
    noise: jax.Array
    max_steps: jax.Array


def random_problems(seed, count, n, d, dtype=jnp.float64):
    """l2 in 1e-5..1e-1, fairness 0 or up to 100, noise or none, forget sets at random or of one group, 0-6 steps."""
    rng = np.random.default_rng(seed)
    drawn = [
        oracles.random_problem(
            1000 * seed + k, n, d, rng.choice([0.03, 0.1, 0.2]), rng.choice([None, 0, 1]), int(rng.integers(0, 4))
        )
        for k in range(count)
    ]
    x, y, s, w, removed, _ = (np.stack(field) for field in zip(*drawn, strict=True))
    fairness = 10.0 ** rng.uniform(-2, 2, count) * (rng.random(count) < 0.8)
    noise = rng.normal(size=(count, d)) * rng.choice([0.0, 1.0], (count, 1))
    return Problems(
        data=Data(*(put(np.asarray(a, kind)) for a, kind in ((x, dtype), (y, np.int32), (s, np.int32), (w, dtype)))),
        forget=put(removed),
        l2=put(np.asarray(10.0 ** rng.uniform(-5, -1, count), dtype)),
        fairness=put(np.asarray(fairness, dtype)),
        noise=put(np.asarray(noise, dtype)),
        max_steps=put(rng.integers(0, 7, count).astype(np.int32)),
    )


@functools.cache
def settled(n, d, penalty, reweigh):
    """Problems of one setting, trained (perhaps not to the end), with the retrained optimum of what remains."""
    seed = 100 * n + 10 * list(PENALTIES).index(penalty) + reweigh
    problems, kind = random_problems(seed, EACH, n, d), objective_of(penalty, reweigh)
    before = train(kind, problems, problems.data.weight, problems.max_steps)
    return problems, before, train(kind, problems, remaining_weight(problems), put(np.full(EACH, 200, np.int32)))


def objective_of(penalty, reweigh):
    """An argument of the programs below: penalties of one form share them."""
    return Objective(l2=0.0, penalty=penalty, reweigh=reweigh)


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0, 0, 0))
def train(kind, p, weight, max_steps):
    objective = dataclasses.replace(kind, l2=p.l2, fairness=p.fairness)
    return fit(objective, p.data._replace(weight=weight), noise=p.noise, max_steps=max_steps, throw=False).params


def remaining_weight(problems):
    return put(np.where(problems.forget, 0, problems.data.weight))


def certify_all(problems, before, penalty, reweigh, **options):
    """Parameters and certificates of one removal method on every problem."""
    params, certificate = certified(tuple(options.items()), objective_of(penalty, reweigh), problems, before)
    return np.asarray(params), jax.tree.map(np.asarray, certificate)


@functools.partial(jax.jit, static_argnums=0)
def certified(options, kind, problems, before):
    @jax.vmap
    def one(p, before):
        objective = dataclasses.replace(kind, l2=p.l2, fairness=p.fairness)
        removal = remove(objective, before, p.data, p.forget, noise=p.noise, **REMOVE, **dict(options))
        return removal.params, certify(objective, before, removal, sigma=1.0, delta=1e-5, noise=p.noise)

    return one(problems, before)


def gradient_norms(problems, params, penalty, reweigh):
    """|grad F'| of every problem in NumPy float64, whatever the dtype of the problem."""
    norms = []
    for k in range(len(params)):
        p = jax.tree.map(lambda leaf, k=k: np.asarray(leaf)[k], problems)
        weight = np.where(p.forget, 0, p.data.weight).astype(float)
        tail = (float(p.l2), float(p.fairness), penalty, p.noise.astype(float), reweigh)
        norms.append(
            oracles.residual_norm(
                params[k].astype(float), p.data.x.astype(float), p.data.y, p.data.group, weight, *tail, fast=True
            )
        )
    return np.array(norms)


@pytest.mark.parametrize(("shape", "penalty", "reweigh"), SETTINGS, ids=str)
def test_no_bound_is_ever_below_the_truth(shape, penalty, reweigh):
    problems, before, best = settled(*shape, penalty, reweigh)
    kept = np.asarray(remaining_weight(problems).sum(axis=1))
    convexity = kept * np.asarray(problems.l2)
    # By strong convexity the optimum itself is known to this much.
    slack = gradient_norms(problems, np.asarray(best), penalty, reweigh) / convexity
    # Compiling every method for every setting would take minutes, so the others take turns.
    turn = 1 + (list(PENALTIES).index(penalty) + 2 * reweigh) % 4
    chosen = METHODS[:1] if shape == SHAPES[1] else (METHODS[0], METHODS[turn])
    for options in chosen:
        params, c = certify_all(problems, before, penalty, reweigh, **options)
        exact = gradient_norms(problems, params, penalty, reweigh)
        distance = np.linalg.norm(params - best, axis=1)
        assert np.isfinite(exact).all()
        assert (exact <= c.residual_norm).all()
        assert (c.residual_norm <= exact + 3 * c.rounding_margin).all()
        assert (exact <= c.row_bound).all()
        assert (c.residual_norm <= c.row_bound * (1 + 1e-9)).all()
        assert (c.row_bound <= c.gram_bound * (1 + 1e-9)).all()
        assert np.median(c.rounding_margin / kept) < 1e-12
        assert (distance <= c.distance_bound + slack).all()
        assert (distance <= c.local_distance_bound + slack).all()
        # Not vacuous: the local bound speaks of most Newton steps, and starts were indeed unconverged.
        if options is METHODS[0]:
            assert np.isfinite(c.local_distance_bound).mean() > 0.5
            assert (gradient_norms(problems, np.asarray(before), penalty, reweigh) > 1e-3 * kept).mean() > 0.3


PROBLEM = oracles.random_problem(11, 60, 4, already_removed=4)
NOISE = np.random.default_rng(12).normal(size=4)


def one_removal(penalty="equalized_odds", reweigh=False, noise=NOISE, l2=0.01, **options):
    """A removal from the exact optimum: objective, before, removal, and the row weights of what remains."""
    x, y, s, w, removed, left = PROBLEM
    objective = Objective(l2=l2, fairness=2.0, penalty=penalty, reweigh=reweigh)
    before = put(oracles.minimise(x, y, s, w, l2, 2.0, penalty, noise, reweigh))
    noise = None if noise is None else put(noise)
    removal = remove(objective, before, make_data(x, y, s, w), removed, noise=noise, **options)
    return objective, before, removal, oracles.loss_weights(y, s, left, reweigh)


@pytest.mark.parametrize(("penalty", "reweigh"), [(name, name != "demographic_parity") for name in PENALTIES])
def test_equal_to_the_oracles_after_one_fair_newton_step(penalty, reweigh):
    objective, before, removal, om = one_removal(penalty, reweigh)
    c = certify(objective, before, removal, sigma=0.7, delta=1e-4, noise=put(NOISE))
    x, y, s, w, _, left = PROBLEM
    tail = (0.01, 2.0, penalty, NOISE, reweigh)
    r = oracles.residual_norm(removal.params, x, y, s, left, *tail)
    n_b = int(((s == 1) & (w == 1)).sum())
    move = (np.asarray(before), np.asarray(removal.params), x)
    for found, expected in (
        (c.residual_norm, r),
        (c.row_bound, oracles.row_bound(*move, om)),
        (c.gram_bound, oracles.gram_bound(*move, om)),
        (c.paper_data_dependent, oracles.paper_data_dependent(*move, left)),
        (c.paper_worst_case, oracles.paper_worst_case(move[0], 0.01, w.sum(), n_b)),
        (c.epsilon, oracles.epsilon_from(r, 0.7, 1e-4)),
        (c.distance_bound, r / (left.sum() * 0.01)),
        (c.sigma, 0.7),
        (c.delta, 1e-4),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-7)
    assert c.dtype == "float64"
    region = distances.retrained_region(objective, removal, noise=put(NOISE))
    radius = oracles.local_radius(removal.params, x, y, s, left, *tail)
    np.testing.assert_allclose(region.radius, radius, rtol=1e-6)
    hess = oracles.hessian(removal.params, x, y, s, left, *tail)
    np.testing.assert_allclose(c.local_distance_bound, radius / np.sqrt(np.linalg.eigvalsh(hess)[0]), rtol=1e-6)
    margins = np.minimum(
        oracles.global_margins(removal.params, x, y, s, left, *tail),
        oracles.local_margins(removal.params, x, y, s, left, *tail),
    )
    np.testing.assert_allclose(distances.prediction_margins(region, removal.data.x), margins, rtol=1e-6)


def test_two_steps_leave_the_last_step_to_be_bounded():
    objective, before, removal, om = one_removal(steps=2)
    c = certify(objective, before, removal, sigma=1.0, delta=1e-4, noise=put(NOISE))
    first = one_removal()[2].params
    last = (np.asarray(first), np.asarray(removal.params), PROBLEM.x)
    np.testing.assert_allclose(c.row_bound, oracles.row_bound(*last, om), rtol=1e-3)
    # The papers' figures know of no second step: they speak of the whole way.
    whole = (np.asarray(before), np.asarray(removal.params), PROBLEM.x)
    np.testing.assert_allclose(c.paper_data_dependent, oracles.paper_data_dependent(*whole, om), rtol=1e-9)


def test_removing_nothing_from_the_optimum_costs_nothing():
    objective, before, removal, _ = one_removal()
    data = removal.data._replace(weight=put(PROBLEM.w))
    nothing = remove(objective, before, data, [], noise=put(NOISE))
    c = certify(objective, before, nothing, sigma=1.0, delta=1e-5, noise=put(NOISE))
    assert float(c.residual_norm) < 1e-9
    assert float(c.epsilon) < 1e-8


@pytest.mark.parametrize("noise", [None, np.zeros(4)])
def test_without_noise_epsilon_is_infinite(noise):
    objective, before, removal, _ = one_removal(noise=noise)
    noise = None if noise is None else put(noise)
    assert np.isinf(certify(objective, before, removal, sigma=1.0, delta=1e-5, noise=noise).epsilon)


def test_curvature_constant_is_the_largest_second_derivative_of_the_logistic_function():
    assert pytest.approx(oracles.max_sigma_second(), rel=1e-9) == certificates.LOGISTIC_CURVATURE
    third = jax.grad(jax.grad(jax.nn.sigmoid))
    assert abs(float(third(jnp.log(2 + 3**0.5)))) == pytest.approx(certificates.LOGISTIC_CURVATURE, rel=1e-12)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"sigma": 0.0}, "`sigma` must be positive and finite, got 0.0"),
        ({"sigma": -1.0}, "`sigma` must be positive"),
        ({"sigma": float("nan")}, "`sigma` must be positive"),
        ({"sigma": float("inf")}, "`sigma` must be positive and finite"),
        ({"delta": 0.0}, "`delta` must lie strictly between 0 and 1, got 0.0"),
        ({"delta": 1.0}, "`delta` must lie strictly between 0 and 1"),
        ({"delta": -0.1}, "`delta` must lie strictly between 0 and 1"),
        ({"delta": float("nan")}, "`delta` must lie strictly between 0 and 1"),
    ],
)
def test_impossible_numbers_are_refused(numbers, message):
    objective, before, removal, _ = one_removal()
    with pytest.raises(ValueError, match=message):
        certify(objective, before, removal, **{"sigma": 1.0, "delta": 1e-5} | numbers)


def test_what_has_no_certificate_is_refused():
    objective, before, removal, _ = one_removal()
    general = dataclasses.replace(objective, predict=lambda params, x: x @ params)
    with pytest.raises(ValueError, match="not linear"):
        certify(general, before, removal, sigma=1.0, delta=1e-5)
    with pytest.raises(ValueError, match="not linear"):
        distances.retrained_region(general, removal)
    plain, shard = Objective(l2=0.1), make_shards(60, 2, key=jax.random.key(0))
    data = removal.data
    shards = fit_shards(plain, data, shard).params
    gone = remove(plain, shards, data, [int(np.flatnonzero(data.weight)[0])], method="sharded", shard=shard)
    with pytest.raises(ValueError, match="shards are retrained exactly"):
        certify(plain, before, gone, sigma=1.0, delta=1e-5)
    with pytest.raises(ValueError, match="`noise` must have shape"):
        certify(objective, before, removal, sigma=1.0, delta=1e-5, noise=jnp.zeros(5))


MANY, LARGE = (60, SHAPES[1]), (6, (5000, 9))


@pytest.mark.parametrize(
    ("count", "shape", "penalty"),
    [  # Many with pairs of rows and new weights, large ones without: quick; the other way about: slow; all weekly.
        pytest.param(*size, penalty, marks=marks.get(penalty, pytest.mark.weekly))
        for size, marks in (
            (MANY, {"individual": [], "equalized_odds": pytest.mark.slow}),
            (LARGE, {"equal_opportunity": [], "individual": pytest.mark.slow}),
        )
        for penalty in PENALTIES
    ],
    ids=str,
)
def test_in_float32_the_residual_is_not_below_the_truth_either(penalty, count, shape):
    """Truth: NumPy float64 at the same float32 parameters, rows and noise. 264 problems in all."""
    problems = random_problems(7, count, *shape, dtype=jnp.float32)
    reweigh = penalty in ("demographic_parity", "individual")
    before = jax.random.normal(jax.random.key(1), (count, shape[1]), jnp.float32) * 3
    params, c = certify_all(problems, before, penalty, reweigh)
    assert c.dtype == "float32"
    assert c.residual_norm.dtype == params.dtype == np.float32
    exact = gradient_norms(problems, params, penalty, reweigh)
    assert (exact <= c.residual_norm).all()
    assert (exact <= c.row_bound).all()
    # The margin is needed: without it some norms would be below the truth.
    assert (exact > c.residual_norm - c.rounding_margin).any()
    # It is a worst case, but of the size that float32 gives sums of such terms.
    size = np.asarray(remaining_weight(problems).sum(axis=1)) * (1 + problems.fairness)
    assert (c.rounding_margin < 1e-4 * size * (1 + np.linalg.norm(params, axis=1))).all()
    assert np.median(c.rounding_margin / size) < 1e-3
