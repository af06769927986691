"""Published noise: distances never below the truth, epsilons equal to closed forms, nothing but a descent certified."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from fmu_jax import Data, Objective, certify, distances, fit, make_data, remove, sample_noise
from fmu_jax.output_perturbation import certify_descent, neel_epsilon, neel_sigma, publish_sigma_from
from fmu_jax.penalties import PENALTIES, Penalty
from fmu_jax.privacy import gaussian_epsilon
from tests import oracles
from tests.placing import put

N, D, EACH = 60, 5, 100
L2, FAIRNESS, PENALTY = 0.01, 2.0, "equalized_odds"
PROBLEM = oracles.random_problem(21, N, D, already_removed=3)
NOISE = put(np.random.default_rng(22).normal(size=D))
OBJECTIVE = Objective(l2=L2, fairness=FAIRNESS)
DATA = make_data(PROBLEM.x, PROBLEM.y, PROBLEM.s, PROBLEM.w)
TAIL = (L2, FAIRNESS, PENALTY, np.asarray(NOISE))
BEFORE = put(oracles.minimise(PROBLEM.x, PROBLEM.y, PROBLEM.s, PROBLEM.w, *TAIL))
BEST = oracles.minimise(PROBLEM.x, PROBLEM.y, PROBLEM.s, PROBLEM.w_remaining, *TAIL)
NUMBERS = {"publish_sigma": 0.3, "delta": 1e-5}


class Problems(NamedTuple):
    """Stacked random problems."""

    data: Data
    forget: jax.Array
    l2: jax.Array
    fairness: jax.Array
    match: jax.Array
    noise: jax.Array
    before: jax.Array
    stretch: jax.Array


def random_problems(seed, count, n, d, dtype=jnp.float64):
    """l2 in 1e-6..1e-1, fairness up to 100, columns scaled by up to 1000, all label matches, far and near starts."""
    rng = np.random.default_rng(seed)
    drawn = [oracles.random_problem(1000 * seed + k, n, d, rng.choice([0.03, 0.2])) for k in range(count)]
    x, y, s, w, removed, _ = (np.stack(field) for field in zip(*drawn, strict=True))
    x[:, :, :-1] *= 10.0 ** rng.uniform(-3, 0, (count, 1, d - 1))
    return Problems(
        data=Data(*(put(np.asarray(a, kind)) for a, kind in ((x, dtype), (y, np.int32), (s, np.int32), (w, dtype)))),
        forget=put(removed),
        l2=jnp.asarray(10.0 ** rng.uniform(-6, -1, count), dtype),
        fairness=jnp.asarray(10.0 ** rng.uniform(-2, 2, count) * (rng.random(count) < 0.8), dtype),
        match=jnp.asarray([PENALTIES[name].match for name in rng.choice(list(PENALTIES), count)], dtype),
        noise=jnp.asarray(rng.normal(size=(count, d)) * rng.choice([0.0, 1.0], (count, 1)), dtype),
        before=jnp.asarray(rng.normal(size=(count, d)) * rng.choice([0.01, 3.0], (count, 1)), dtype),
        stretch=jnp.asarray(rng.uniform(0.05, 1.2, count), dtype),
    )


def objective_of(p, pairwise):
    return Objective(l2=p.l2, fairness=p.fairness, penalty=Penalty(p.match, pairwise), reweigh=pairwise)


def descend_and_certify(problems, pairwise, steps, own_step):
    """Last iterates and certificates; ``own_step`` passes a step size of up to 1.2 times a stable one."""

    @jax.jit
    @jax.vmap
    def one(p):
        objective, squares = objective_of(p, pairwise), jnp.sum(p.data.x**2)
        size = p.stretch * 2 / (squares * (1 + 4 * p.fairness) + N * p.l2) if own_step else None
        options = {"noise": p.noise, "steps": steps, "step_size": size}
        removal = remove(objective, p.before, p.data, p.forget, method="descent", **options)
        return removal.params, certify_descent(objective, p.before, removal, publish_sigma=1.0, delta=1e-5, **options)

    params, certificate = one(problems)
    return np.asarray(params, np.float64), jax.tree.map(np.asarray, certificate)


def optima(problems, pairwise):
    """Retrained optima in float64, and how far each may be from the exact one, by NumPy's gradient."""
    problems = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, problems)
    left = jnp.where(problems.forget, 0, problems.data.weight)

    @jax.jit
    @jax.vmap
    def one(p, weight):
        data = p.data._replace(weight=weight)
        return fit(objective_of(p, pairwise), data, noise=p.noise, tolerance=0.0, throw=False).params

    best = np.asarray(one(problems, left))
    slack = [
        residual(theta, jax.tree.map(lambda leaf, k=k: np.asarray(leaf)[k], problems), pairwise)
        for k, theta in enumerate(best)
    ]
    return best, np.array(slack) / np.asarray(left.sum(axis=1) * problems.l2)


def residual(theta, p, pairwise):
    """|grad F'| in NumPy, the penalty by its definition over all pairs of rows."""
    left = np.where(p.forget, 0, p.data.weight)
    om = oracles.loss_weights(p.data.y, p.data.group, left, pairwise)
    x, y, n = p.data.x, p.data.y, left.sum()
    a, b = (np.flatnonzero((left == 1) & (p.data.group == g)) for g in (0, 1))
    pairs = p.match[np.ix_(y[a], y[b])][:, :, None] / (len(a) * len(b))
    gaps = x[a][:, None] - x[b][None]
    if pairwise:
        by_penalty = 2 * (pairs * gaps * (gaps @ theta)[:, :, None]).sum((0, 1))
    else:
        c = (pairs * gaps).sum((0, 1))
        by_penalty = 2 * c * (c @ theta)
    total = x.T @ (om * (expit(x @ theta) - y)) + n * p.l2 * theta + n * p.fairness * by_penalty + p.noise
    return np.linalg.norm(total)


@pytest.mark.parametrize(
    ("pairwise", "steps", "own_step"),
    [
        (False, 1, False),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ((False, 60, True), (True, 60, False))),
    ],
    ids=str,
)
def test_no_distance_is_ever_below_the_truth(pairwise, steps, own_step):
    problems = random_problems(steps + pairwise, EACH, N, D)
    params, c = descend_and_certify(problems, pairwise, steps, own_step)
    best, slack = optima(problems, pairwise)
    truth = np.linalg.norm(params - best, axis=1)
    assert np.isfinite(c.distance).all()
    for bound in (c.distance, c.a_priori_distance, c.distance_bound, c.local_distance_bound):
        assert (truth <= bound + slack).all()
    assert np.median(c.rounding_slack / truth) < 1e-12
    assert np.median(slack / truth) < 1e-6
    # Not vacuous, however bad the start and the condition: each bound is within twice the truth somewhere.
    if steps > 1:
        for bound in (c.a_priori_distance, c.distance_bound, c.local_distance_bound):
            assert (bound < 2 * truth).mean() > 0.02


@pytest.mark.slow
def test_in_float32_no_distance_is_below_the_truth_either():
    """Truth: the float64 optimum of the same float32 rows, noise and objective."""
    problems = random_problems(3, EACH, N, D, jnp.float32)._replace(l2=jnp.full(EACH, 1e-2, jnp.float32))
    params, c = descend_and_certify(problems, False, 300, False)
    assert c.dtype == "float32"
    assert c.distance.dtype == np.float32
    best, slack = optima(problems, False)
    truth = np.linalg.norm(params - best, axis=1)
    for bound in (c.a_priori_distance, c.distance_bound, c.local_distance_bound):
        assert (truth <= bound + slack).all()
    assert np.median(c.rounding_slack) < 1e-3


@pytest.mark.slow
def test_slack_covers_the_rounding_of_the_last_step():
    """Truth: the same step in NumPy float64, from the float32 start; the slack widens every bound."""
    objective = Objective(l2=1.0, fairness=FAIRNESS)
    slacks = []
    for seed in range(5):
        p = oracles.random_problem(40 + seed, 3000, D)
        x = p.x.astype(np.float32)
        before = jnp.array(np.random.default_rng(seed).normal(size=D), jnp.float32)
        removal = remove(objective, before, make_data(x, p.y, p.s, p.w), p.removed, method="descent", steps=100)
        c = certify_descent(objective, before, removal, publish_sigma=1.0, delta=1e-5, steps=100)
        problem = (x.astype(float), p.y, p.s, p.w_remaining, 1.0, FAIRNESS, PENALTY, None, False, True)
        quadratic = oracles.hessian(np.full(D, 1e9), *problem)
        big = np.linalg.eigvalsh(quadratic + x.T.astype(float) @ (p.w_remaining[:, None] / 4 * x))[-1]
        start = np.asarray(removal.start, float)
        exact = start - 2 / (big + p.w_remaining.sum()) * oracles.gradient(start, *problem)
        assert 0 < np.linalg.norm(exact - np.asarray(removal.params)) <= float(c.rounding_slack) < 1e-2
        region = distances.retrained_region(objective, removal)
        assert float(c.distance_bound) == pytest.approx(float(region.distance + c.rounding_slack), rel=1e-2)
        local = float(region.radius) * np.linalg.norm(region.dual, 2) + float(c.rounding_slack)
        assert float(c.local_distance_bound) == pytest.approx(local, rel=1e-2)
        slacks.append(float(c.rounding_slack / c.distance_bound))
    assert min(slacks) > 0.1


def test_on_a_quadratic_the_a_priori_distance_is_exact():
    """Rows of zeros leave only the ridge and the noise: F = n l2 |theta|^2 / 2 + b.theta, minimal at -b / (n l2)."""
    data = DATA._replace(x=jnp.zeros_like(DATA.x))
    left = float(PROBLEM.w_remaining.sum())
    # Three times the inverse of the curvature steps over the optimum and away from it, twice as far each time.
    for steps, size, rate in ((1, 0.25, 0.75), (7, 0.25, 0.75), (7, 3.0, 2.0)):
        options = {"noise": NOISE, "steps": steps, "step_size": size / (left * L2)}
        removal = remove(OBJECTIVE, BEFORE, data, PROBLEM.removed, method="descent", **options)
        c = certify_descent(OBJECTIVE, BEFORE, removal, **NUMBERS, **options)
        start = np.linalg.norm(np.asarray(BEFORE) + np.asarray(NOISE) / (left * L2))
        assert float(c.contraction) == pytest.approx(rate, rel=1e-12)
        assert float(c.a_priori_distance) == pytest.approx(rate**steps * start, rel=1e-9)
        truth = float(jnp.linalg.norm(removal.params + NOISE / (left * L2)))
        assert truth == pytest.approx(float(c.a_priori_distance), rel=1e-9)
        assert truth == pytest.approx(float(c.distance_bound), rel=1e-9)


def descended(steps=20, **options):
    options = {"noise": NOISE, "steps": steps} | options
    return remove(OBJECTIVE, BEFORE, DATA, PROBLEM.removed, method="descent", **options)


def test_certificate_equals_its_formulas():
    removal = descended()
    c = certify_descent(OBJECTIVE, BEFORE, removal, **NUMBERS, steps=20, noise=NOISE)
    problem = (PROBLEM.x, PROBLEM.y, PROBLEM.s, PROBLEM.w_remaining, *TAIL)
    quadratic = oracles.hessian(np.full(D, 1e9), *problem)
    m = PROBLEM.w_remaining.sum() * L2
    big = np.linalg.eigvalsh(quadratic + PROBLEM.x.T @ (PROBLEM.w_remaining[:, None] / 4 * PROBLEM.x))[-1]
    rate = (big - m) / (big + m)
    assert float(c.contraction) == pytest.approx(rate, rel=1e-9)
    start = oracles.residual_norm(np.asarray(BEFORE), *problem)
    assert float(c.a_priori_distance) == pytest.approx(rate**20 * start / m, rel=1e-8)
    assert float(c.distance_bound) == pytest.approx(oracles.residual_norm(removal.params, *problem) / m, rel=1e-8)
    local = certify(OBJECTIVE, BEFORE, removal, sigma=1.0, delta=1e-5, noise=NOISE).local_distance_bound
    assert float(c.local_distance_bound) == pytest.approx(float(local), rel=1e-8)
    assert float(c.distance) == min(c.a_priori_distance, c.distance_bound, c.local_distance_bound)
    for epsilon, distance in ((c.epsilon, c.distance), (c.a_priori_epsilon, c.a_priori_distance)):
        assert float(epsilon) == pytest.approx(oracles.gaussian_epsilon(1e-5, float(distance) / 0.3), rel=1e-8)
    rho = (float(c.a_priori_distance) / 0.3) ** 2 / 2
    assert float(c.neel_epsilon) == pytest.approx(rho + 2 * np.sqrt(rho * np.log(1e5)), rel=1e-12)
    assert (float(c.publish_sigma), float(c.delta), c.dtype) == (0.3, 1e-5, "float64")
    # The true distance lies below, and the bound from curvature is the tightest of the three here.
    truth = np.linalg.norm(removal.params - BEST)
    assert truth <= c.local_distance_bound < min(float(c.distance_bound), float(c.a_priori_distance))


def test_more_steps_come_closer():
    distances = []
    for steps in (1, 20, 300):
        c = certify_descent(OBJECTIVE, BEFORE, descended(steps), **NUMBERS, steps=steps, noise=NOISE)
        distances.append((float(c.distance), float(c.a_priori_distance), float(c.neel_epsilon)))
    assert (np.diff(np.array(distances), axis=0) < 0).all()
    assert distances[-1][0] < 1e-3 * distances[0][0]


def test_published_noise_changes_nothing_in_the_certificate():
    quiet = certify_descent(OBJECTIVE, BEFORE, descended(), **NUMBERS, steps=20, noise=NOISE)
    for seed in range(20):
        noisy = descended(publish_sigma=0.3, key=jax.random.key(seed))
        c = certify_descent(OBJECTIVE, BEFORE, noisy, **NUMBERS, steps=20, noise=NOISE)
        assert dataclasses.asdict(c) == dataclasses.asdict(quiet)


def test_under_jit_it_is_the_same_and_another_method_costs_everything():
    @jax.jit
    def one(removal, publish_sigma):
        return certify_descent(
            OBJECTIVE, BEFORE, removal, publish_sigma=publish_sigma, delta=1e-5, steps=20, noise=NOISE
        )

    eager = certify_descent(OBJECTIVE, BEFORE, descended(), **NUMBERS, steps=20, noise=NOISE)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), one(descended(), 0.3), eager)
    newton = remove(OBJECTIVE, BEFORE, DATA, PROBLEM.removed, noise=NOISE)
    for wrong, sigma in ((newton, 0.3), (descended(publish_sigma=0.3, key=jax.random.key(0)), 0.001)):
        c = one(wrong, sigma)
        assert np.isinf([c.epsilon, c.a_priori_epsilon, c.neel_epsilon, c.distance, c.local_distance_bound]).all()


@pytest.mark.parametrize(
    ("made", "told", "message"),
    [
        ({"steps": 20}, {"steps": 21}, "is not that of 21 steps of descent"),
        ({"steps": 20}, {"noise": None}, "is not that of 20 steps"),
        ({"steps": 20, "step_size": 0.01}, {}, "is not that of 20 steps"),
        ({"steps": 20}, {"step_size": 0.01}, "is not that of 20 steps"),
        ({"method": "retrain"}, {}, "pass the removal by method 'descent'"),
        ({"method": "fair_newton"}, {}, "is not that of 20 steps"),
        # One step starts where a Newton step starts, but solves nothing.
        ({"method": "fair_newton"}, {"steps": 1}, "is not that of 1 steps"),
        ({"steps": 20, "publish_sigma": 3.0}, {}, "noise of publish_sigma=0.3 cannot explain"),
        ({"steps": 20, "publish_sigma": 0.3}, {"publish_sigma": 300.0}, "publish_sigma=300.0 cannot explain"),
    ],
)
def test_what_is_not_this_descent_is_refused(made, told, message):
    options = {"method": "descent", "noise": NOISE} | made
    if "publish_sigma" in options:
        options["key"] = jax.random.key(5)
    removal = remove(OBJECTIVE, BEFORE, DATA, PROBLEM.removed, **options)
    with pytest.raises(ValueError, match=message):
        certify_descent(OBJECTIVE, BEFORE, removal, **NUMBERS | {"steps": 20, "noise": NOISE} | told)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"publish_sigma": 0.0}, "`publish_sigma` must be positive and finite, got 0.0"),
        ({"publish_sigma": float("inf")}, "`publish_sigma` must be positive and finite"),
        ({"delta": 0.0}, "`delta` must lie strictly between 0 and 1, got 0.0"),
        ({"delta": float("nan")}, "`delta` must lie strictly between 0 and 1"),
        ({"steps": 0}, "`steps` must be a whole number of at least 1, got 0"),
        ({"step_size": -0.1}, "`step_size` must be positive and finite, got -0.1"),
        ({"noise": jnp.zeros(D + 1)}, "`noise` must have shape"),
    ],
)
def test_impossible_numbers_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        certify_descent(OBJECTIVE, BEFORE, descended(), **NUMBERS | {"steps": 20, "noise": NOISE} | numbers)


def test_only_the_linear_model_is_certified():
    general = dataclasses.replace(OBJECTIVE, predict=lambda params, x: x @ params)
    with pytest.raises(ValueError, match="not linear"):
        certify_descent(general, BEFORE, descended(), **NUMBERS, steps=20, noise=NOISE)


def test_without_a_ridge_only_the_curvature_speaks():
    objective = Objective(l2=0.0)
    removal = remove(objective, BEFORE, DATA, PROBLEM.removed, method="descent", steps=500)
    c = certify_descent(objective, BEFORE, removal, **NUMBERS, steps=500)
    assert np.isinf([c.a_priori_distance, c.distance_bound]).all()
    left = DATA._replace(weight=put(PROBLEM.w_remaining))
    truth = float(jnp.linalg.norm(removal.params - fit(objective, left, tolerance=1e-13).params))
    assert truth <= float(c.local_distance_bound) == float(c.distance) < 10 * truth


@pytest.mark.parametrize("epsilon", [1e-3, 0.1, 1.0, 20.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-5, 0.1, 0.9])
def test_sigmas_invert_their_epsilons(epsilon, delta):
    exact, neel = float(publish_sigma_from(0.7, epsilon, delta)), float(neel_sigma(0.7, epsilon, delta))
    assert oracles.gaussian_delta(epsilon, 0.7 / exact) == pytest.approx(delta, rel=1e-9)
    assert float(gaussian_epsilon(0.7, exact, delta)) == pytest.approx(epsilon, rel=1e-6)
    assert float(neel_epsilon(0.7, neel, delta)) == pytest.approx(epsilon, rel=1e-9)
    left = np.log(1 / delta)
    assert neel == pytest.approx(0.7 / (np.sqrt(2) * (np.sqrt(left + epsilon) - np.sqrt(left))), rel=1e-6)
    # Their conversion is sound, and asks for more noise than the exact trade-off.
    assert exact < neel


def test_sigmas_broadcast_and_refuse_impossible_numbers():
    distances, epsilons = jnp.array([[0.0], [1.0], [jnp.inf]]), jnp.array([[0.5, 2.0]])
    for inverse in (publish_sigma_from, neel_sigma):
        found = np.asarray(jax.jit(inverse)(distances, epsilons, 1e-5))
        assert found.shape == (3, 2)
        assert (found[0] == 0).all()
        assert np.isinf(found[2]).all()
        assert found[1, 0] > found[1, 1]
        for bad, message in (
            ((-1.0, 1.0, 0.1), "norm"),
            ((1.0, 0.0, 0.1), "`epsilon` must be positive"),
            ((1.0, 1.0, 1.0), "`delta` must lie"),
        ):
            with pytest.raises(ValueError, match=message):
                inverse(*bad)
    with pytest.raises(ValueError, match="`publish_sigma` must be positive"):
        neel_epsilon(1.0, -1.0, 0.1)


def test_published_models_are_as_indistinguishable_as_certified():
    """The best test between the two published Gaussians, by Monte Carlo: P(A) - e^epsilon Q(A) <= delta.

    With the true distance in place of the bound the inequality is an equality, so the test could fail.
    """
    removal, delta, draws = descended(), 0.05, 200_000
    truth = float(np.linalg.norm(removal.params - BEST))
    c = certify_descent(OBJECTIVE, BEFORE, removal, publish_sigma=0.2, delta=delta, steps=20, noise=NOISE)

    def advantage(epsilon, sigma):
        like = jnp.zeros((draws, D))
        noise = [np.asarray(sample_noise(like, key=jax.random.key(k), sigma=sigma)) for k in (1, 2)]
        unlearned, retrained = np.asarray(removal.params) + noise[0], BEST + noise[1]
        direction = (np.asarray(removal.params) - BEST) / truth

        def says_unlearned(published):
            loss = (truth * ((published - BEST) @ direction) - truth**2 / 2) / sigma**2
            return np.mean(loss > epsilon)

        return says_unlearned(unlearned) - np.exp(epsilon) * says_unlearned(retrained)

    error = 5 * (1 + np.exp(float(c.epsilon))) / np.sqrt(draws)
    assert advantage(float(c.epsilon), 0.2) <= delta + error
    sigma = float(publish_sigma_from(truth, 0.5, delta))
    assert advantage(0.5, sigma) == pytest.approx(delta, abs=5 * (1 + np.exp(0.5)) / np.sqrt(draws))
    # A third less noise would be noticed.
    assert advantage(0.5, sigma / 1.5) > delta + 0.02
