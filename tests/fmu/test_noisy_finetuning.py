"""Noisy fine-tuning: both accountants against closed forms, published numbers and draws; conditions; any model."""

import dataclasses
import inspect
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from flax import linen, nnx

from fmu_jax import Objective, audit, heads, make_data, privacy, releases, removal, remove
from fmu_jax import noisy_finetuning as tuning
from fmu_jax import objective as objectives
from fmu_jax.contraction import contraction
from fmu_jax.noisy_finetuning import mixing, schedule
from tests import oracles
from tests.placing import drawn_like, put

X, Y, S, W, REMOVED, _ = oracles.random_problem(3, 60, 4, remove=0.1, already_removed=5)
DATA, ROWS = make_data(X, Y, S, W), np.flatnonzero(REMOVED)
PLAN = tuning.Schedule(start_clip=0.5, noise=0.8, steps=3, step_size=0.1, gradient_clip=1.0, decay=1.0)
LINEAR = Objective(l2=0.01, fairness=1.0)
START = put(np.random.default_rng(0).normal(size=4))


def call(params: Any = START, data=DATA, rows=ROWS, objective: Any = LINEAR, **options):
    return tuning.finetune(objective, params, data, rows, **{"schedule": PLAN, "key": jax.random.key(1)} | options)


# ------------------------------------------------------------------------------------------------ the accountants
@pytest.mark.parametrize("contraction", [1.0, 0.7, 0.0])
@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_iteration_is_the_optimum_of_the_shifts(contraction, drift):
    """The theorem's programme, solved by another's solver: least sum of b^2 with shifts z >= 0 that end at zero."""
    import scipy.optimize

    distance, noise, count = 1.3, 0.6, 5

    def shifts(b):
        z, all_z = distance, []
        for part in b:
            z = contraction * z + drift - part
            all_z.append(z)
        return np.array(all_z)

    # By exact derivatives: by differences the solver does not always get to its tolerance.
    slopes = np.stack([shifts(unit) - shifts(np.zeros(count)) for unit in np.eye(count)], axis=1)
    constraints = [
        {"type": "eq", "fun": lambda b: shifts(b)[-1], "jac": lambda b: slopes[-1]},
        {"type": "ineq", "fun": lambda b: shifts(b)[:-1], "jac": lambda b: slopes[:-1]},
    ]
    start = np.full(count, drift) + np.eye(count)[0] * contraction * distance
    found = scipy.optimize.minimize(lambda b: b @ b, start, jac=lambda b: 2 * b, constraints=constraints, tol=1e-12)
    assert found.success
    mine = tuning.iteration_mu(distance, noise, count, contraction=contraction, drift=drift)
    assert mine == pytest.approx(math.sqrt(found.fun) / noise, rel=1e-5)


def test_iteration_is_exact_for_a_shrinking_gaussian():
    """Without a gradient the end is Gaussian: mean a^T x_0, variance sigma^2 (1 + a^2 + ..)."""
    a, noise, count = 0.8, 0.5, 7
    spread = noise * math.sqrt(sum(a ** (2 * k) for k in range(count)))
    assert tuning.iteration_mu(2.0, noise, count, contraction=a) == pytest.approx(2.0 * a**count / spread, rel=1e-12)


def test_a_diameter_forgets_all_but_the_last_steps():
    whole = tuning.iteration_mu(100.0, 1.0, 50, drift=0.1)
    clipped = tuning.iteration_mu(100.0, 1.0, 50, drift=0.1, diameter=2.0)
    byhand = min((2.0 + 0.1 * (k - 1)) / math.sqrt(k) for k in range(1, 51))
    assert clipped == pytest.approx(byhand, rel=1e-9)
    assert clipped < whole


def test_contraction_against_two_exact_worlds():
    """One step is a Gaussian; for several, two worlds that start at the ends and are pushed back to them."""
    epsilon = np.array([0.0, 0.5, 2.0])
    exact = [float(privacy.gaussian_delta(2.0, 1.0, e)) for e in epsilon]
    np.testing.assert_allclose(tuning.contraction_delta(2.0, 1.0, 1, epsilon), exact, atol=1e-10)
    # A chain on {-1, 1}: the sign of a Gaussian step from either end; its last Gaussian step by the same share.
    share = scipy.stats.norm.cdf(1.0)
    for count in (2, 3):
        apart = (2 * share - 1) ** (count - 1)
        ahead = (1 + apart) / 2

        def density(x, weight):
            return weight * scipy.stats.norm.pdf(x - 1) + (1 - weight) * scipy.stats.norm.pdf(x + 1)

        x = np.linspace(-12, 12, 200_001)
        for e, bound in zip(epsilon, tuning.contraction_delta(2.0, 1.0, count, epsilon), strict=True):
            gap = np.maximum(density(x, ahead) - np.exp(e) * density(x, 1 - ahead), 0)
            assert np.trapezoid(gap, x) <= bound + 1e-9
    assert np.trapezoid(np.abs(density(x, ahead) - density(x, 1 - ahead)), x) / 2 == pytest.approx(
        float(tuning.contraction_delta(2.0, 1.0, 3, 0.0)), abs=1e-6
    )


def test_contraction_mu_covers_the_curve_and_not_much_more():
    mu, failure = mixing.contraction_mu(2.0, 1.0, 4)
    fine = np.linspace(0, 8, 3001)
    most = np.array([float(privacy.gaussian_delta(mu, 1.0, e)) for e in fine[::100]])
    curve = tuning.contraction_delta(2.0, 1.0, 4, fine[::100])
    assert np.all(curve <= most + failure)
    assert mu < 0.6 < 2.0 == 2.0 / 1.0
    assert mixing.contraction_mu(2.0, 1.0, 1)[0] == pytest.approx(2.0, rel=0.02)


def test_epsilon_is_the_least_that_either_theorem_gives():
    """By the curve where the model is clipped, also at deltas that its Gaussian leaves out, or where no Gaussian is."""
    plan = dataclasses.replace(PLAN, gradient_clip=math.inf, model_clip=0.6, noise=1.0)
    found = tuning.guarantee(plan, size=1, dtype=float)
    by_mu = float(privacy.gaussian_epsilon(found.mu, 1.0, 1e-5 - found.failure))
    exact = found.epsilon(1e-5)
    assert exact < by_mu
    for epsilon, holds in ((exact, True), (exact * (1 - 1e-6), False)):
        assert (tuning.contraction_delta(1.2, 1.0, plan.steps, epsilon) <= 1e-5) == holds
    assert exact < found.epsilon(found.failure / 2) < math.inf
    assert found._replace(mu=math.inf).epsilon(1e-5) == exact
    assert found._replace(mu=0.01).epsilon(1e-5) == pytest.approx(
        float(privacy.gaussian_epsilon(0.01, 1.0, 1e-5)), rel=1e-3
    )
    assert float(call(schedule=plan, delta=1e-5).epsilon) == pytest.approx(exact, rel=1e-6)
    without = tuning.guarantee(PLAN, size=1, dtype=float)
    with pytest.raises(ValueError, match="`delta` must be above the guarantee's own failure"):
        without.epsilon(without.failure)
    with pytest.raises(ValueError, match="`delta` must be above the guarantee's own failure"):
        call(delta=1e-16)
    assert tuning.contraction_epsilon(2.0, 1.0, 1, 1e-5) == pytest.approx(
        float(privacy.gaussian_epsilon(2.0, 1.0, 1e-5)), rel=1e-6
    )


@pytest.mark.parametrize(
    "change", [{}, {"model_clip": 1.0}, {"gradient_clip": math.inf, "model_clip": 1.0, "steps": 4}]
)
def test_noise_for_is_the_least(change):
    plan = tuning.noise_for(dataclasses.replace(PLAN, **change), mu=0.7, size=30)
    less = dataclasses.replace(plan, noise=plan.noise * 0.999)
    assert tuning.guarantee(plan, size=30).mu <= 0.7 < tuning.guarantee(less, size=30).mu


def test_float32_costs_a_margin_that_grows_with_the_model():
    exact, small, large = (
        tuning.guarantee(PLAN, size=n, dtype=t).mu for n, t in ((9, float), (9, jnp.float32), (10**6, jnp.float32))
    )
    assert exact < small < large < 1.05 * exact


@pytest.mark.slow
@pytest.mark.parametrize("route", ["iteration", "contraction"])
def test_a_million_draws_never_beat_the_accountant(route):
    """One dimension, the worst gradient: it always pulls the worlds apart, from both ends of the ball."""
    plan = (
        PLAN if route == "iteration" else dataclasses.replace(PLAN, gradient_clip=math.inf, model_clip=0.6, noise=1.0)
    )
    promise = tuning.guarantee(plan, size=1, dtype=float)
    assert promise.route == route
    draws, rng = 1_000_000, np.random.default_rng(0)
    ends = []
    for sign in (1, -1):
        x = np.full(draws, sign * plan.start_clip)
        for _ in range(plan.steps):
            grad = -np.sign(x) * min(plan.gradient_clip, 1e9)
            x = np.clip(x - plan.step_size * (grad + plan.decay * x), -plan.model_clip, plan.model_clip)
            x += plan.noise * rng.normal(size=draws)
        ends.append(x)
    for cut in np.quantile(ends[1], np.linspace(0.001, 0.999, 41)):
        alarms, hits = (np.mean(x > cut) for x in (ends[1], ends[0]))
        error = 4 * math.sqrt(0.25 / draws)
        assert 1 - hits >= float(releases.trade_off(promise.mu, min(alarms + error, 0.9999))) - error - promise.failure
    found = audit.empirical_mu(ends[0][:, None], ends[1][:, None], key=jax.random.key(0))
    assert 0.5 * promise.mu < float(found.mu) <= promise.mu


# --------------------------------------------------------------------------------------------------- the mechanism
def test_steps_against_numpy():
    """One step without noise that matters: clipped start, clipped gradient, decay, in that order."""
    plan = dataclasses.replace(PLAN, steps=1, noise=1e-7, start_clip=0.4, gradient_clip=0.2)
    made = call(schedule=plan, center=jnp.full(4, 0.1))
    left = W.copy()
    left[ROWS] = 0
    x = np.asarray(START) - 0.1
    x *= min(1, 0.4 / np.linalg.norm(x))
    grad = oracles.gradient(x + 0.1, X, Y, S, left, 0.01, 1.0, "equalized_odds") / left.sum()
    grad *= min(1, 0.2 / np.linalg.norm(grad))
    np.testing.assert_allclose(made.params, x - 0.1 * (grad + x) + 0.1, atol=1e-6)


@pytest.mark.parametrize("batch", [None, 8])
def test_forgotten_rows_are_never_read(batch):
    plan = dataclasses.replace(PLAN, batch=batch)
    other = DATA._replace(x=DATA.x.at[ROWS].set(7.0), y=DATA.y.at[ROWS].set(1 - DATA.y[ROWS]))
    first, second = (call(data=data, schedule=plan).params for data in (DATA, other))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, call(schedule=plan, rows=ROWS[:1]).params)


def test_the_noise_has_the_scale_and_lies_on_the_grid():
    plan = tuning.Schedule(start_clip=0.3, noise=2.0)
    made = call(params=jnp.ones(20_000), objective=lambda p, rows, weight: p.sum(), schedule=plan)
    assert np.std(made.params) == pytest.approx(2.0, rel=0.03)
    assert np.mean(made.params) == pytest.approx(0.3 / math.sqrt(20_000), abs=0.06)
    spacing = 2.0 / 256
    np.testing.assert_array_equal(np.asarray(made.params) / spacing, np.round(np.asarray(made.params) / spacing))


@pytest.mark.parametrize("route", ["output", "iteration"])
def test_only_the_published_state_is_rounded_to_the_grid(route):
    """By its definition in float64: rounded at every step, many would end more than half a grid away."""
    count, size, noise = 12, 300, 1.5
    plan = tuning.Schedule(start_clip=0.3, noise=noise, steps=count)
    if route == "iteration":
        plan = dataclasses.replace(plan, step_size=0.5, gradient_clip=1e-9, decay=0.6)
    start, key = put(np.linspace(-1, 1, size)), jax.random.key(5)
    made = call(params=start, objective=lambda p, rows, weight: p.sum(), schedule=plan, key=key)
    x = 0.3 * np.asarray(start) / np.linalg.norm(start)
    for t in range(count):
        x = (1 - plan.step_size * plan.decay) * x
        draw = jax.random.normal(jax.random.split(jax.random.fold_in(key, t))[1], (4, size), float)
        x += noise * np.asarray(draw).sum(axis=0) / 2
    np.testing.assert_allclose(made.params, x, rtol=0, atol=0.5 * 2.0**-8 + 1e-6)


def test_a_gradient_that_is_not_finite_counts_as_zero():
    made = call(objective=lambda p, rows, weight: jnp.sum(jnp.log(p * 0)))
    assert np.all(np.isfinite(made.params))


def test_the_guarantee_is_that_of_the_schedule_and_composes():
    made = call(delta=1e-4)
    promise = tuning.guarantee(PLAN, size=4, dtype=float)
    assert float(made.mu) == promise.mu
    assert float(made.epsilon) == pytest.approx(promise.epsilon(1e-4), rel=1e-9)
    assert float(releases.compose([made.mu, 0.3])) == pytest.approx(math.hypot(promise.mu, 0.3))
    later = tuning.finetune(LINEAR, made.params, made.data, [int(np.flatnonzero(made.data.weight)[0])], schedule=PLAN,
                            key=jax.random.key(2))  # fmt: skip
    assert float(later.data.weight.sum()) == float(made.data.weight.sum()) - 1


def test_keys_and_seeds_map():
    many = jax.jit(jax.vmap(lambda key: call(key=key)))(jax.random.split(jax.random.key(1), 3))
    assert many.params.shape == (3, 4)
    assert len({tuple(row) for row in np.asarray(many.params).tolist()}) == 3
    alone = call(key=jax.random.split(jax.random.key(1), 3)[1])
    np.testing.assert_allclose(many.params[1], alone.params, atol=1e-12)
    np.testing.assert_array_equal(alone.params, call(key=jax.random.split(jax.random.key(1), 3)[1]).params)


def test_requests_and_models_map():
    masks = jnp.stack([put(REMOVED), jnp.zeros_like(put(REMOVED)).at[ROWS[0]].set(True)])
    starts = jnp.stack([START, -START])
    many = jax.jit(jax.vmap(lambda params, mask: call(params, rows=mask)))(starts, masks)
    for k, rows in enumerate((ROWS, ROWS[:1])):
        alone = call(starts[k], rows=rows)
        np.testing.assert_allclose(many.params[k], alone.params, atol=1e-12)
        np.testing.assert_array_equal(many.data.weight[k], alone.data.weight)
        assert float(many.mu[k]) == float(alone.mu)


class Mlp(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = jnp.tanh(linen.Dense(3, param_dtype=jnp.float64)(x))
        return linen.Dense(1, param_dtype=jnp.float64)(x)[:, 0]


MODEL = Mlp()
DEEP = Objective(l2=0.01, fairness=1.0, predict=MODEL.apply)
PARAMS = drawn_like(MODEL.init, DATA.x)


def test_linen_and_nnx_models():
    assert jax.tree.structure(call(params=PARAMS, objective=DEEP).params) == jax.tree.structure(PARAMS)
    graph, state = nnx.split(nnx.Linear(4, 1, rngs=nnx.Rngs(0), param_dtype=jnp.float64))
    objective = Objective(l2=0.01, predict=lambda state, x: nnx.merge(graph, state)(x)[:, 0])
    made = call(params=state, objective=objective)
    assert jax.tree.structure(made.params) == jax.tree.structure(state)


@pytest.mark.parametrize(("kind", "shape"), [("classes", (4, 3)), ("numbers", (4,)), ("whole features", (3, 2))])
def test_a_loss_of_your_own_takes_labels_of_any_kind(kind, shape):
    """Against NumPy: one step of three classes, of regression and of a table with two labels a row."""
    rng = np.random.default_rng(2)
    n, left = len(Y), W.copy()
    left[ROWS] = 0
    x = rng.integers(0, 3, n) if kind == "whole features" else X
    y = {"classes": rng.integers(0, 3, n), "numbers": rng.normal(size=n)}.get(kind, rng.normal(size=(n, 2)))
    start = 0.1 * rng.normal(size=shape)

    def loss(p, rows, weight):
        out = p[rows.x] if kind == "whole features" else rows.x @ p
        if kind == "classes":
            each = jax.nn.logsumexp(out, axis=1) - jnp.take_along_axis(out, rows.y[:, None], axis=1)[:, 0]
        else:
            each = jnp.square(out - rows.y).reshape(len(out), -1).sum(axis=1)
        return jnp.dot(weight, each) / weight.sum()

    if kind == "classes":
        scores = x @ start
        share = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        grad = x.T @ (left[:, None] * (share - np.eye(3)[y])) / left.sum()
    elif kind == "whole features":
        grad = np.stack([(2 * (start[x] - y) * left[:, None])[x == k].sum(axis=0) for k in range(3)]) / left.sum()
    else:
        grad = 2 * x.T @ ((x @ start - y).T * left).T / left.sum()
    plan = tuning.Schedule(start_clip=9.0, noise=1e-7, step_size=0.1, gradient_clip=50.0)
    data = DATA._replace(x=put(x), y=put(y), group=put(np.zeros(n, np.int32)))
    made = call(params=put(start), objective=loss, data=data, schedule=plan)
    np.testing.assert_allclose(made.params, start - 0.1 * grad, atol=1e-6)
    batched = dataclasses.replace(plan, batch=7, steps=3)
    other = data._replace(y=data.y.at[ROWS].set(1))
    models = [call(params=put(start), objective=loss, data=rows, schedule=batched).params for rows in (data, other)]
    np.testing.assert_array_equal(*models)
    assert not np.array_equal(models[0], made.params)
    with pytest.raises(ValueError, match=r"labels are neither 0 nor 1|only 0 and 1|must have shape"):
        call(params=put(start), data=data._replace(y=put(2.0 * y)))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"y": jnp.zeros(3)}, "`y` must have one entry for each of the 60 rows"),
        ({"weight": jnp.full(60, 0.5)}, "zeros and ones"),
        ({"y": jnp.full(60, jnp.nan)}, "`y` holds numbers that are not finite"),
        ({"y": ["a"] * 60}, "`y` must hold numbers"),
    ],
)
def test_rows_that_no_loss_of_your_own_can_read(change, match):
    with pytest.raises(ValueError, match=match):
        call(objective=lambda p, rows, weight: p.sum(), data=DATA._replace(**change))


def test_blocks_cost_what_all_at_once_costs():
    made = tuning.finetune_blocks(DEEP, PARAMS, DATA, ROWS, blocks=["Dense_0", "Dense_1"], start_clip=0.3, noise=1.2,
                                  repair_steps=2, key=jax.random.key(0))  # fmt: skip
    assert float(made.mu) == pytest.approx(math.sqrt(2) * 0.5, rel=1e-9)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), made.params, PARAMS)
    assert min(jax.tree.leaves(moved)) > 1e-3
    with pytest.raises(ValueError, match="are in none"):
        tuning.finetune_blocks(
            DEEP, PARAMS, DATA, ROWS, blocks=["Dense_0"], start_clip=1, noise=1, key=jax.random.key(0)
        )
    with pytest.raises(ValueError, match="are in two"):
        tuning.finetune_blocks(DEEP, PARAMS, DATA, ROWS, blocks=["Dense_0", ["Dense_0", "Dense_1"]], start_clip=1,
                               noise=1, key=jax.random.key(0))  # fmt: skip


@pytest.mark.parametrize(("route", "gradients"), [("output", 0), ("gradient", 2 * 256), ("model", 3 * 256)])
def test_a_route_has_the_least_noise_that_keeps_its_guarantee(route, gradients):
    center = jax.tree.map(jnp.zeros_like, PARAMS)
    options = {"key": jax.random.key(0), "center": center}
    made = tuning.finetune_by(route, DEEP, PARAMS, DATA, ROWS, mu=0.8, clip=0.3, steps=2, **options)
    size = sum(leaf.size for leaf in jax.tree.leaves(PARAMS))
    plan = tuning.noise_for(tuning.schedule_of(route, clip=0.3, steps=2), mu=0.8, size=size, dtype=float)
    assert (made.noise, made.gradients) == (plan.noise, gradients)
    assert 0.79 < float(made.model.mu) <= 0.8
    by_hand = tuning.finetune(DEEP, PARAMS, DATA, ROWS, schedule=plan, **options)
    for one, other in zip(jax.tree.leaves(made.model.params), jax.tree.leaves(by_hand.params), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("route", tuning.ROUTES)
@pytest.mark.parametrize("mu", [0.5, 0.7])
def test_no_route_exceeds_the_guarantee_where_parameters_are_narrower_than_rows(route, mu):
    """Linen's parameters are float32 by default; the reported mu is that of their dtype and at most what was asked."""
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), PARAMS)
    options = {"mu": mu, "clip": 0.3, "steps": 2, "repair_steps": 2, "key": jax.random.key(0), "center": narrow}
    made = tuning.finetune_by(route, Objective(l2=0.01, predict=narrow_scores), narrow, DATA, ROWS, **options)
    assert {leaf.dtype for leaf in jax.tree.leaves(made.model.params)} == {jnp.dtype(jnp.float32)}
    assert 0.99 * mu < float(made.model.mu) <= mu
    assert made.model.data.x.dtype == DATA.x.dtype


def narrow_scores(params, x):
    first, last = params["params"]["Dense_0"], params["params"]["Dense_1"]
    hidden = jnp.tanh(x.astype(jnp.float32) @ first["kernel"] + first["bias"][None])
    return (hidden @ last["kernel"] + last["bias"][None])[:, 0].astype(x.dtype)


@pytest.mark.parametrize("params", [{"w": START}, START, {"params": START}])
def test_layers_are_those_of_linen_variables(params):
    with pytest.raises(ValueError, match="name its blocks to `finetune_blocks`"):
        tuning.finetune_by("blocks", LINEAR, params, DATA, ROWS, mu=1.0, clip=0.3, key=jax.random.key(0), center=params)


def test_blocks_compose_their_guarantees():
    """By hand: squares of mu and failures add; the least noise keeps mu, and no delta below their failures has one."""
    plan = tuning.Schedule(start_clip=0.3, noise=1.2)
    each = [tuning.guarantee(plan, size=size, dtype=jnp.float32) for size in (5, 7)]
    both = tuning.guarantee_of_blocks(plan, sizes=(5, 7), dtype=jnp.float32)
    assert both.mu == pytest.approx(math.hypot(each[0].mu, each[1].mu), rel=1e-12)
    assert both.failure == pytest.approx(2 * each[0].failure, rel=1e-12)
    names = ["Dense_0", "Dense_1"]
    noise = tuning.noise_for_blocks(PARAMS, names, start_clip=0.3, mu=0.8)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(PARAMS["params"][name])) for name in names]
    for share, keeps in ((1.0, True), (0.999, False)):
        less = dataclasses.replace(plan, noise=share * noise)
        assert (tuning.guarantee_of_blocks(less, sizes=sizes, dtype=float).mu <= 0.8) == keeps
    with pytest.raises(ValueError, match="`delta` must be above the guarantee's own failure"):
        tuning.finetune_blocks(DEEP, PARAMS, DATA, ROWS, blocks=names, start_clip=0.3, noise=1.2, delta=1e-16,
                               key=jax.random.key(0))  # fmt: skip


def test_all_combinations_have_noise_of_their_own():
    centers = {"zero": jax.tree.map(jnp.zeros_like, PARAMS), "trained": PARAMS}
    lists = {"centers": centers, "routes": ("output",), "clips": (0.3,), "mus": (0.5, 1.0)}
    key = jax.random.key(4)
    made = tuning.finetune_by_all(DEEP, PARAMS, DATA, ROWS, key=key, **lists)
    assert [(row["start"], row["mu"]) for row, _ in made] == [(c, m) for c in centers for m in (0.5, 1.0)]
    for index, (row, params) in enumerate(made):
        own = {"key": jax.random.fold_in(key, index), "center": centers[row["start"]], "mu": row["mu"], "clip": 0.3}
        found = tuning.finetune_by("output", DEEP, PARAMS, DATA, ROWS, **own)
        assert (row["noise"], row["certified_mu"]) == (found.noise, float(found.model.mu))
        for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(found.model.params), strict=True):
            np.testing.assert_array_equal(one, other)


def test_blocks_are_a_route_too():
    options = {"key": jax.random.key(0), "center": jax.tree.map(jnp.zeros_like, PARAMS), "repair_steps": 2}
    made = tuning.finetune_by("blocks", DEEP, PARAMS, DATA, ROWS, mu=0.8, clip=0.3, **options)
    assert 0.79 < float(made.model.mu) <= 0.8
    assert made.gradients == 2 * int((np.asarray(W) > 0).sum() - len(ROWS))
    with pytest.raises(ValueError, match="unknown route 'both'"):
        tuning.schedule_of("both", clip=0.3)


def test_an_audit_gets_the_certified_network_its_repair_and_a_fake():
    center = jax.tree.map(jnp.zeros_like, PARAMS)
    methods = audit.noisy_methods(DEEP, center, mu=0.5, dtype=float, clip=0.3, repair_steps=2)
    assert tuple(methods) == audit.network_tables.NOISY
    key, size = jax.random.key(3), sum(leaf.size for leaf in jax.tree.leaves(PARAMS))
    plan = tuning.noise_for(tuning.Schedule(start_clip=0.3, noise=1.0), mu=0.5, size=size, dtype=float)
    noisy = tuning.finetune(DEEP, PARAMS, DATA, ROWS, schedule=plan, key=key, center=center).params
    repaired = remove(DEEP, noisy, DATA, ROWS, method="finetune", steps=2).params
    half = {"blocks": ["Dense_0", "Dense_1"], "start_clip": 0.3 / math.sqrt(2), "noise": plan.noise}
    blocks = tuning.finetune_blocks(DEEP, PARAMS, DATA, ROWS, key=key, center=center, **half).params
    for name, wanted in (("noisy", noisy), ("noisy_repaired", repaired), ("noisy_blocks", blocks)):
        made = methods[name](PARAMS, DATA, ROWS, key)
        for one, other in zip(jax.tree.leaves(made), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    fake = methods["fake"](PARAMS, DATA, ROWS, key)  # Nearly the trained network, which it does not clip.
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), fake, PARAMS)
    assert 0 < max(jax.tree.leaves(moved)) < 0.01 * plan.noise


def test_methods_without_a_certificate_are_methods_of_remove():
    methods = audit.uncertified_methods(50)
    assert {options["method"] for options in methods.values()} <= {*removal.METHODS, *removal.BASELINES}
    assert methods["descent"]["step_size"] == 0.01


@pytest.mark.parametrize("steps", [1, 5])
def test_a_clip_of_the_model_holds_where_nothing_moves(steps):
    plan = tuning.Schedule(start_clip=100.0, noise=0.01, steps=steps, model_clip=0.1)
    ends = [call(params=sign * 50 * jnp.ones(4), schedule=plan).params for sign in (1, -1)]
    for end in ends:  # The last noise, of length 0.02, is all that lies outside of the clip.
        assert float(jnp.linalg.norm(end)) < 0.1 + 0.1
    whole = tuning.guarantee(plan, size=4, dtype=float)
    far = float(jnp.linalg.norm(ends[0] - ends[1]))  # The same noise in both, so this is what it has to hide.
    assert far / plan.noise <= whole.by_iteration * 1.0001 if steps == 1 else far <= 0.2 * 1.0001


@pytest.mark.parametrize("batch", [2, None])
def test_a_trace_that_forgets_all_rows_reads_none(batch):
    plan = dataclasses.replace(PLAN, batch=batch)
    found = jax.jit(lambda mask: call(rows=mask, schedule=plan))(DATA.weight > 0)
    assert np.all(np.isnan(found.params))
    assert np.isinf(found.mu)
    assert np.isinf(found.epsilon)
    assert found.failure == 1


@pytest.mark.parametrize("bad", ["params", "center"])
def test_a_trace_of_broken_models_is_no_certificate(bad):
    models = {"params": START, "center": jnp.zeros(4)}
    found = jax.jit(lambda broken: call(**models | {bad: broken}))(START.at[0].set(jnp.nan))
    assert np.all(np.isnan(found.params))
    assert np.isinf(found.mu)
    assert found.failure == 1


@pytest.mark.parametrize(
    "change",
    [
        {"step_size": 1e-39, "decay": 1e38},  # float32 computes with a step size of zero, which contracts nothing
        {"step_size": 1e38, "decay": 1e-39},
        {"step_size": 2e-38, "decay": 4e37, "start_clip": 10.0},  # decay times the model overflows, and jumps to zero
        {"start_clip": 1e38},
    ],
)
def test_numbers_beyond_the_dtype_guarantee_nothing(change):
    plan = dataclasses.replace(PLAN, **change)
    assert np.isinf(tuning.guarantee(plan, size=4).mu)
    assert np.isfinite(tuning.guarantee(plan, size=4, dtype=float).mu)
    with pytest.raises(ValueError, match="guarantees nothing in float32"):
        call(params=START.astype(jnp.float32), schedule=plan)


# ---------------------------------------------------------------------------------------------------- what is refused
def test_a_guarantee_of_no_blocks_is_refused():
    with pytest.raises(ValueError, match="`sizes` holds no block"):
        tuning.guarantee_of_blocks(PLAN, sizes=[])


@pytest.mark.parametrize("steps", [math.inf, math.nan, None, "all", 1 + 1j, 2.5, np.ones(2)])
def test_what_is_no_count(steps):
    with pytest.raises(ValueError, match="`steps` must be a whole number of at least 1"):
        schedule.check_counts(steps=steps)


def test_counts_may_be_whole_floats():
    plan, same = dataclasses.replace(PLAN, batch=4), dataclasses.replace(PLAN, batch=4)
    object.__setattr__(plan, "batch", 4.0)  # What the type of the field refuses in tests, but not to users.
    np.testing.assert_array_equal(call(schedule=plan).params, call(schedule=same).params)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"noise": 0.0}, "noise"),
        ({"start_clip": -1.0}, "start_clip"),
        ({"steps": 0}, "steps"),
        ({"decay": 11.0}, "at most 1"),
        ({"gradient_clip": math.inf}, "steps of no bound"),
        ({"model_clip": 0.0}, "model_clip"),
        ({"batch": 0}, "batch"),
        ({"steps": True}, "`steps` must be a whole number"),
        ({"batch": True}, "`batch` must be a whole number"),
        ({"gradient_clip": None}, "`gradient_clip` must be one real number"),
        ({"model_clip": "none"}, "`model_clip` must be one real number"),
        ({"noise": np.ones(2)}, "`noise` must be one real number"),
        ({"start_clip": True}, "`start_clip` must be one real number"),
    ],
)
def test_a_schedule_out_of_range(options, match):
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(PLAN, **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"params": START.at[0].set(jnp.nan)}, "not finite"),
        ({"params": {"a": START, "n": jnp.arange(2)}}, "one floating type"),
        ({"center": jnp.zeros(3)}, "same structure"),
        ({"delta": 1.0}, "delta"),
        ({"rows": [0, 0]}, "forget"),
    ],
)
def test_bad_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        call(**options)


@pytest.mark.parametrize(("mu", "dtype"), [(1e-300, jnp.float32), (1e-300, float), (1e-12, jnp.float32)])
def test_a_mu_that_no_noise_keeps_is_named(mu, dtype):
    with pytest.raises(ValueError, match=f"no noise keeps `mu` {mu:.3g} in float.*raise `mu`"):
        tuning.noise_for(PLAN, mu=mu, size=10, dtype=dtype)


def test_noise_that_the_dtype_cannot_hold():
    small = 1e6 * START.astype(jnp.float32)
    data = DATA._replace(x=DATA.x.astype(jnp.float32), weight=DATA.weight.astype(jnp.float32))
    with pytest.raises(ValueError, match="float64"):
        call(params=small, data=data, schedule=tuning.Schedule(start_clip=1e6, noise=1e-3))


# ------------------------------------------------------------------------------------------------------- baselines
@pytest.mark.parametrize("method", ["finetune", "gradient_ascent", "scrub"])
def test_baselines_run_on_any_model_and_do_what_they_say(method):
    def mean_loss(params, weight):
        scores = put(MODEL.apply(params, DATA.x))
        losses = jax.nn.softplus(scores) - DATA.y.astype(float) * scores
        return float(jnp.dot(weight, losses) / weight.sum())

    trained = remove(DEEP, PARAMS, DATA, [], method="finetune", steps=60).params
    gone = jnp.asarray(REMOVED, float)
    extra = {"finetune": {}, "gradient_ascent": {"ascent": 1.0}, "scrub": {"ascent_steps": 20}}[method]
    removal = remove(DEEP, trained, DATA, ROWS, method=method, steps=20, **extra)
    assert bool(removal.converged)
    if method == "finetune":
        assert mean_loss(removal.params, removal.data.weight) <= mean_loss(trained, removal.data.weight) + 1e-3
    else:
        plain = remove(DEEP, trained, DATA, ROWS, method="finetune", steps=20).params
        assert mean_loss(removal.params, gone) > mean_loss(plain, gone)
    with pytest.raises(ValueError, match="learning_rate"):
        remove(DEEP, trained, DATA, ROWS, method=method, learning_rate=0.0)


def test_scrub_is_adam_on_its_objective():
    """Two steps, the second of which no longer starts where both models agree."""
    gone, left = put(W * REMOVED), put(W * ~REMOVED)
    before = put(MODEL.apply(PARAMS, DATA.x))

    def value(params):
        scores = put(MODEL.apply(params, DATA.x))
        p, q = jax.nn.sigmoid(before), jax.nn.sigmoid(scores)
        apart = p * jnp.log(p / q) + (1 - p) * jnp.log((1 - p) / (1 - q))
        fair = objectives.value(DEEP, params, DATA._replace(weight=left)) / left.sum()
        return fair + 3.0 * jnp.dot(left, apart) / left.sum() - jnp.dot(gone, apart) / gone.sum()

    optimizer, params, slope = optax.adam(0.01), PARAMS, jax.jit(jax.grad(value))
    state = optimizer.init(params)
    for _ in range(2):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(slope(params), state)
        params = jax.tree.map(jnp.add, params, updates)
    found = remove(DEEP, PARAMS, DATA, ROWS, method="scrub", steps=2, ascent_steps=2, distillation=3.0).params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-8), found, params)


# --------------------------------------------------------------------------------- the linear model, by other theories
@pytest.mark.parametrize("rewound", [0, 10, 25])
def test_rewinding_ends_within_its_bound(rewound):
    """The model that all steps on what remains reach, by NumPy, is within the bound, and the bound says something."""
    left = W.copy()
    left[ROWS] = 0

    def trained(split):
        theta = np.zeros(4)
        for t in range(25):
            weight = W if t < split else left
            theta = theta - 0.3 * oracles.gradient(theta, X, Y, S, weight, 0.01, 1.0, "equalized_odds") / weight.sum()
        return theta

    found = tuning.rewind(LINEAR, jnp.zeros(4), DATA, ROWS, steps=25, rewound=rewound, step_size=0.3)
    np.testing.assert_allclose(found.params, trained(25 - rewound), atol=1e-10)
    apart = np.linalg.norm(trained(25 - rewound) - trained(0))
    assert apart <= float(found.distance) <= 4 * apart + 1e-10


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"init": jnp.zeros(4).at[0].set(jnp.nan)}, "`init` holds a number that is not finite"),
        ({"init": jnp.zeros(4, jnp.int32)}, "`init` must have the dtype of the features"),
        ({"init": None}, "`init` must be an array"),
        ({"rewound": True}, "`rewound` must be a whole number"),
        ({"step_size": 1e-320}, "too small for the dtype"),
    ],
)
def test_what_cannot_be_rewound(options, match):
    given = {"init": jnp.zeros(4), "steps": 4, "rewound": 2, "step_size": 0.1} | options
    rewind = inspect.unwrap(tuning.rewind)  # Without the checks of types, which users do not have.
    with pytest.raises(ValueError, match=match):
        rewind(LINEAR, given.pop("init"), DATA, ROWS, **given)


def test_heads_of_classes_are_refused_by_name():
    data = heads.one_vs_rest(X, np.arange(len(Y)) % 3, S, classes=3)
    plan = {"admitted": 1.0, "key": jax.random.key(0), "noise": 0.5, "steps": 2, "step_size": 0.3}
    with pytest.raises(ValueError, match=r"one linear model, \(4,\), with one label a row.*\(3, 4\)"):
        tuning.langevin(LINEAR, jnp.zeros((3, 4)), data, ROWS, **plan)
    for init, rows in ((jnp.zeros((3, 4)), DATA), (jnp.zeros(5), DATA)):
        with pytest.raises(ValueError, match="one linear model"):
            tuning.rewind(LINEAR, init, rows, ROWS, steps=5, rewound=2, step_size=0.1)


@pytest.mark.slow
def test_langevin_rounds_its_mu_up():
    """In float32 the reported mu is no less than that of the noise as it is drawn."""
    data = DATA._replace(x=DATA.x.astype(jnp.float32), weight=DATA.weight.astype(jnp.float32))
    objective = Objective(l2=0.05, fairness=1.0)
    removal = remove(objective, jnp.zeros(4, jnp.float32), data, ROWS, method="retrain", tolerance=1e-4)
    distance, options = 0.5, {"admitted": 0.5, "steps": 3, "step_size": 0.3, "rounding": 1e-4}
    for k in range(5):
        noise = 0.4 * 1.13**k
        plan = {"key": jax.random.key(0), "noise": noise} | options
        made = tuning.langevin(objective, removal.params, removal.data, [], **plan)
        rate = float(contraction(objective, removal.data, jnp.float32(0.3) / removal.data.weight.sum())[2])
        wanted = tuning.iteration_mu(distance, float(np.float32(noise)), 3, contraction=rate, drift=2e-4)
        assert wanted <= float(made.mu) <= wanted * (1 + 1e-6)


def test_langevin_rounds_only_what_it_publishes_to_the_grid():
    """By its definition in NumPy, half a grid at most from the end; states on the grid would drift farther."""
    removal = remove(LINEAR, START, DATA, ROWS)
    count = 40
    published = steps_of(removal, jax.random.key(3), noise=0.9, count=count)
    left = W.copy()
    left[ROWS] = 0
    x = np.asarray(removal.params)
    for t in range(count):
        x = x - 0.3 * oracles.gradient(x, X, Y, S, left, 0.01, 1.0, "equalized_odds") / left.sum()
        x += (
            0.9 * np.asarray(jax.random.normal(jax.random.fold_in(jax.random.key(3), t), (4, 4), float)).sum(axis=0) / 2
        )
    np.testing.assert_allclose(published, x, rtol=0, atol=0.5 * 2.0**-9 + 1e-9)


@pytest.mark.slow
def test_langevin_agrees_with_the_clipped_theory_and_beats_it():
    """Without drift both theorems are one; and a certified distance below the clip's diameter needs less noise."""
    fitted = remove(LINEAR, START, DATA, [], method="retrain").params
    removal, plan = remove(LINEAR, fitted, DATA, ROWS), {"key": jax.random.key(0), "noise": 0.5}
    distance = releases.distance_to_retrained(LINEAR, removal)
    with pytest.raises(ValueError, match="not within `admitted` 1e-09; plan with a larger one"):
        tuning.langevin(LINEAR, fitted, DATA, ROWS, admitted=1e-9, **plan, steps=5, step_size=0.3)
    made = tuning.langevin(LINEAR, fitted, DATA, ROWS, admitted=1.0, **plan, steps=5, step_size=0.3)
    assert float(distance) < 1.0
    assert float(made.mu) < 2.0
    alone = tuning.langevin(LINEAR, fitted, DATA, ROWS, admitted=1.0, **plan, steps=1, step_size=1e-6)
    assert float(alone.mu) == pytest.approx(1.0 / 0.5, rel=1e-5)
    many = jax.vmap(lambda key: steps_of(removal, key))(jax.random.split(jax.random.key(0), 500))
    middle = steps_of(removal, jax.random.key(0), noise=1e-6)
    assert np.linalg.norm(many.mean(axis=0) - middle) < 0.2
    assert float(many.std(axis=0).max()) <= 1.15 * float(made.scale)


def steps_of(removal, key, noise=0.5, count=5):
    from fmu_jax.noisy_finetuning import convex

    return convex._noisy(LINEAR, removal.params, removal.data, key, put(noise), jnp.asarray(0.3), count)[0]


def test_networks_and_wild_steps_have_no_convex_bound():
    with pytest.raises(ValueError, match="no bound"):
        tuning.rewind(DEEP, jnp.zeros(4), DATA, ROWS, steps=5, rewound=2, step_size=0.1)
    with pytest.raises(ValueError, match="does not contract"):
        tuning.rewind(LINEAR, jnp.zeros(4), DATA, ROWS, steps=5, rewound=2, step_size=1e3)
    with pytest.raises(ValueError, match="rewound"):
        tuning.rewind(LINEAR, jnp.zeros(4), DATA, ROWS, steps=5, rewound=6, step_size=0.1)
    with pytest.raises(ValueError, match="`steps` must be a whole number"):
        tuning.rewind(LINEAR, jnp.zeros(4), DATA, ROWS, steps=True, rewound=1, step_size=0.1)
    with pytest.raises(ValueError, match=r"`steps` must be a whole number of at least 1, got 2\.5"):
        schedule.check_counts(steps=2.5)  # Annotations refuse it in tests before the functions do.
    with pytest.raises(ValueError, match="`steps` must be at most 10000000, got 10000001"):
        tuning.Schedule(start_clip=1.0, noise=1.0, steps=10_000_001)
