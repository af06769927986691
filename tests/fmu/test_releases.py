"""Releases: the guarantee against mpmath and dp-accounting, the noise against its law, distances against retraining."""

import collections
import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import scipy.stats

from fmu_jax import NotConvergedError, Objective, datasets, fit, heads, privacy, releases, remove, stream
from fmu_jax.audit.binomial import clopper_pearson
from fmu_jax.objective import value as value_of
from fmu_jax.stream import factor
from tests.fmu.test_tails import WAYS, call, delta_of
from tests.placing import put

mp.mp.dps = 60
PARAMS = jnp.array([0.3, -1.2, 2.0])
SHAPE = jnp.array([[4.0, 1.0, 0.0], [1.0, 9.0, -2.0], [0.0, -2.0, 1.0]])


@pytest.mark.parametrize("way", WAYS)
def test_the_accountant_is_rounded_to_the_safe_side(way):
    loose = 1 + 10 * WAYS[way][2]
    rng = np.random.default_rng(0)
    mus = 10 ** rng.uniform(-12, 2, (40, 7))
    found, (numbers,) = call(way, jax.vmap(releases.compose) if WAYS[way][1] else lambda m: jnp.stack(
        [releases.compose(row) for row in m]
    ), mus)  # fmt: skip
    for value, row in zip(found, numbers, strict=True):
        truth = mp.sqrt(sum(mp.mpf(m) ** 2 for m in row))
        assert truth <= mp.mpf(value) <= truth * loose
    left, (total, used) = call(way, lambda t, m: releases.budget(t, m), np.array(mus[0].sum()), mus[0])
    truth = mp.mpf(float(total)) ** 2 - sum(mp.mpf(m) ** 2 for m in used)
    assert truth / loose <= mp.mpf(float(left)) ** 2 <= truth
    admitted, mu = 10 ** rng.uniform(-9, 2, 40), 10 ** rng.uniform(-4, 1, 40)
    scale, (a, m) = call(way, lambda a, m: releases.scale_for(a, mu=m, releases=17), admitted, mu)
    for s, x, y in zip(scale, a, m, strict=True):
        assert mp.mpf(x) * mp.sqrt(17) / mp.mpf(y) <= mp.mpf(s) <= mp.mpf(x) * mp.sqrt(17) / mp.mpf(y) * loose
    alpha = np.where(rng.random(40) < 0.5, 10 ** rng.uniform(-30, -1, 40), 1 - 10 ** rng.uniform(-6, -1, 40))
    beta, (m, level) = call(way, releases.trade_off, 10 ** rng.uniform(-6, 1.2, 40), alpha)
    for b, x, y in zip(beta, m, level, strict=True):
        z = mp.findroot(lambda z: mp.log(mp.ncdf(-z) / mp.mpf(y)), float(scipy.stats.norm.isf(y)))  # noqa: B023 - called here
        truth = mp.ncdf(z - mp.mpf(x))
        assert truth * (1 - mp.mpf(40 * WAYS[way][2])) - mp.mpf(10) ** -37 <= mp.mpf(b) <= truth


def test_a_series_costs_what_an_independent_accountant_says():
    """dp-accounting's privacy loss distributions: pessimistic by their grid, which is 1e-4."""
    pytest.importorskip("dp_accounting")
    import dp_accounting
    from dp_accounting import pld

    for mus in ([0.05], [0.3, 0.4, 1.2], [0.1] * 50):
        accountant = pld.PLDAccountant()
        for mu, times in collections.Counter(mus).items():
            accountant.compose(dp_accounting.GaussianDpEvent(1 / mu), times)
        for delta in (1e-3, 1e-5, 1e-8):
            ours = float(privacy.gaussian_epsilon(releases.compose(mus), 1.0, delta))
            theirs = accountant.get_epsilon(delta)
            assert ours <= theirs + 1e-9
            assert ours == pytest.approx(theirs, rel=2e-3, abs=2e-3)
    scale = releases.scale_for(0.2, epsilon=1.0, delta=1e-6, releases=9)
    assert delta_of(releases.compose([0.2 / float(scale)] * 9), 1.0) <= 1e-6
    assert releases.compose([]) == 0
    assert releases.budget(0.5, []) == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [None, SHAPE])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_noise_has_the_stated_law_and_the_release_lies_on_the_grid(shape, dtype):
    keys, scale = jax.random.split(jax.random.key(0), 40_000), 0.25
    draw = jax.jit(jax.vmap(lambda key: releases.release(PARAMS.astype(dtype), 0.1, key=key, scale=scale, shape=shape)))
    found = draw(keys)
    assert found.params.dtype == dtype
    spacing = float(found.spacing[0])
    least = scale if shape is None else scale / np.sqrt(np.linalg.eigvalsh(SHAPE)[-1])
    assert least / 2048 < spacing <= least / 256
    off = np.asarray(found.params, np.float64)
    assert (off == np.round(off / spacing) * spacing).all()
    off = off - np.asarray(PARAMS.astype(dtype), np.float64)
    root = np.eye(3) if shape is None else np.linalg.cholesky(SHAPE)
    white = off @ root / scale  # A = L L', so L' xi / s is standard
    for column in white.T:
        assert scipy.stats.kstest(column, "norm").pvalue > 1e-4
    # 40,000 draws: a correlation is off by 0.005, a variance by 0.007.
    np.testing.assert_allclose(np.cov(white.T), np.eye(3), atol=0.03)
    assert float(found.mu[0]) == pytest.approx(0.4, rel=1e-6)


def test_no_test_beats_the_curve_and_half_the_noise_is_caught():
    """One-dimensional worlds a certified 0.5 apart: misses at every threshold, with 99.99 % confidence."""
    keys = jax.random.split(jax.random.key(1), 2 * 100_000).reshape(2, -1)

    def errors(scale):
        draw = jax.jit(jax.vmap(lambda key, at: releases.release(at, 0.5, key=key, scale=scale).params[0], (0, None)))
        near, far = (np.sort(np.asarray(draw(keys[i], jnp.array([0.5 * i])))) for i in range(2))
        cut = np.linspace(-1, 2, 31)
        false = len(near) - np.searchsorted(near, cut)
        missed = np.searchsorted(far, cut)
        n = len(near)
        # The smallest share of misses that the curve allows at the largest plausible share of false alarms.
        alpha = np.asarray(clopper_pearson(false, n, confidence=0.9999)[1])
        most = np.asarray(clopper_pearson(missed, n, confidence=0.9999)[1])
        return most, np.asarray(releases.trade_off(1.0, np.clip(alpha, 1e-300, 1 - 1e-16)))

    most, allowed = errors(0.5)
    assert (most >= allowed).all()
    assert (most <= allowed + 0.02).mean() > 0.9  # and the curve is attained
    most, allowed = errors(0.25)
    assert (most < allowed).any()


def test_what_is_not_admitted_is_not_published():
    options = {"key": jax.random.key(0), "scale": 0.1}
    with pytest.raises(ValueError, match=r"distance 0\.2 exceeds the admitted 0\.1"):
        releases.release(PARAMS, 0.2, admitted=0.1, **options)
    found = jax.jit(lambda distance: releases.release(PARAMS, distance, admitted=0.1, **options))(0.2)
    assert np.isnan(found.params).all()
    assert np.isinf(found.mu)
    assert np.isinf(found.epsilon)
    fine = jax.jit(lambda distance: releases.release(PARAMS, distance, admitted=0.1, **options))(0.05)
    # The guarantee is that of the admitted distance, not of the one at hand.
    assert float(fine.mu) == pytest.approx(1.0)
    assert float(fine.epsilon) == pytest.approx(float(privacy.gaussian_epsilon(1.0, 1.0, 1e-5)))
    exact = releases.release(PARAMS, 0.0, **options)
    assert exact.mu == exact.epsilon == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 0.0}, "`scale` must be positive"),
        ({"distance": -1.0}, "`distance` is a norm"),
        ({"distance": jnp.nan}, "`distance` is a norm"),
        ({"admitted": jnp.nan}, "`admitted` is a norm"),
        ({"delta": 0.0}, "`delta` must lie strictly"),
        ({"shape": jnp.ones((3, 3))}, "positive definite beyond rounding"),
        ({"shape": jnp.eye(2)}, r"must be a \(3, 3\) matrix"),
        ({"shape": jnp.eye(3).at[0, 1].set(1.0)}, "must be symmetric"),
        ({"params": jnp.arange(3)}, "must be floating"),
        ({"params": PARAMS.astype(jnp.float32), "scale": 1e-6}, "too small for float32"),
        ({"params": PARAMS.astype(jnp.float32), "scale": 1e-50}, "no number of float32"),
        ({"params": PARAMS.at[1].set(jnp.nan)}, "must be finite"),
        ({"scale": jnp.ones(3)}, "must be one number"),
        # The grid is that of the least standard deviation; the largest coordinate could not hold it.
        ({"shape": jnp.diag(jnp.array([1e15, 1e-15, 1.0]))}, "too small for float64"),
    ],
)
def test_bad_input_is_refused(change, message):
    options = {"params": PARAMS, "distance": 0.1, "scale": 0.1, "key": jax.random.key(0)} | change
    with pytest.raises(ValueError, match=message):
        releases.release(options.pop("params"), options.pop("distance"), **options)


@pytest.mark.parametrize(
    ("number", "value"),
    [
        ("distance", jnp.nan),
        ("distance", -0.1),
        ("distance", 0.3),
        ("scale", jnp.nan),
        ("scale", 0.0),
        ("scale", -0.1),
        ("scale", 1e-300),
        ("scale", jnp.inf),
        ("ridge", 1e200),
        ("ridge", -1.0),
        ("ridge", jnp.nan),
        ("size", 1e300),
        ("size", jnp.nan),
    ],
)
@pytest.mark.parametrize("fixed", [False, True])
def test_what_a_trace_cannot_refuse_has_no_guarantee_and_is_not_shown(number, value, fixed):
    given = {"distance": 0.1, "scale": 0.1, "ridge": 1.0, "size": 1.0} | {number: value}
    found = _traced(given, fixed)
    if fixed and (number, value) == ("distance", 0.3):
        assert float(found.mu) == pytest.approx(3.0)
        return
    assert found.mu == found.epsilon == jnp.inf
    assert np.isnan(found.params).all()


@functools.partial(jax.jit, static_argnums=1)
def _traced(given, fixed):
    shape, admitted = given["ridge"] * jnp.eye(3), None if fixed else 0.2
    options = {"key": jax.random.key(0), "scale": given["scale"], "shape": shape, "admitted": admitted}
    return releases.release(given["size"] * PARAMS, given["distance"], **options)


def test_a_number_that_is_none_costs_everything():
    for wrong in (jnp.nan, -1.0, jnp.inf):
        assert jax.jit(privacy.gaussian_delta)(wrong, 1.0, 0.5) == 1
        assert jax.jit(privacy.gaussian_epsilon)(wrong, 1.0, 1e-5) == jnp.inf
    assert releases.budget(jnp.inf, [jnp.inf]) == jax.jit(releases.budget)(jnp.inf, jnp.array([jnp.inf])) == 0
    assert jax.jit(lambda k: releases.scale_for(0.1, mu=1.0, releases=k))(4) == pytest.approx(0.2)


def test_plans_are_refused_where_they_say_nothing():
    for options in ({}, {"mu": 1.0, "epsilon": 1.0, "delta": 1e-5}, {"epsilon": 1.0}, {"mu": 1.0, "delta": 1e-5}):
        with pytest.raises(ValueError, match="either `mu`, or `epsilon` and `delta`"):
            releases.scale_for(0.1, **options)
    for count in (0, 1.5, jnp.nan, jnp.inf, "3", None):
        with pytest.raises(ValueError, match="whole number"):
            releases.scale_for(0.1, mu=1.0, releases=count)
    with pytest.raises(ValueError, match="`mus` is a norm"):
        releases.compose([0.1, -0.1])
    with pytest.raises(ValueError, match="`mu` must be positive"):
        releases.scale_for(0.1, mu=0.0)


def test_a_series_of_releases_scans_and_holds_the_retrained_model():
    """Five requests, each a release: every distance holds, none repeats its noise, the series keeps its budget."""
    data = datasets.synthetic(300, 3, seed=0).train
    objective = Objective(l2=1e-2, fairness=2.0)
    before = fit(objective, data).params
    admitted, total = 0.02, 0.5
    scale = releases.scale_for(admitted, mu=total, releases=5)
    shape = data.x.T @ data.x / 4 + 3.0 * jnp.eye(data.x.shape[1])

    def request(gone, key):
        gone = gone + 2
        forget = jnp.arange(data.x.shape[0]) < gone
        removal = remove(objective, before, data, forget)
        retrained = remove(objective, before, data, forget, method="retrain", init=before).params
        bound = releases.distance_to_retrained(objective, removal)
        wide = releases.distance_to_retrained(objective, removal, shape=shape)
        gap = removal.params - retrained
        published = releases.release(removal.params, bound, key=key, scale=scale, admitted=admitted)
        return gone, (published, bound, jnp.linalg.norm(gap), wide, jnp.sqrt(gap @ shape @ gap), removal.params)

    keys = jax.random.split(jax.random.key(3), 5)
    found, bound, gap, wide, shaped, exact = jax.jit(lambda: jax.lax.scan(request, 0, keys))()[1]
    assert (gap <= bound).all()
    assert (shaped <= wide).all()
    assert (wide <= 20 * shaped + 1e-9).all()
    assert float(releases.compose(found.mu)) == pytest.approx(total)
    assert len(np.unique(np.round(np.asarray(found.params - exact) / scale, 3))) == exact.size


@pytest.mark.slow
def test_a_head_of_many_classes_is_one_release():
    rng = np.random.default_rng(0)
    x = heads.as_rows(put(rng.normal(size=(150, 4))))
    labels = put(rng.integers(0, 3, 150))
    data = heads.one_vs_rest(x, labels, put(rng.integers(0, 3, 150)), classes=3, groups=3)
    objective = Objective(l2=1e-2, fairness=1.0, penalty="demographic_parity", reweigh=True)
    before = heads.fit_head(objective, data).params
    removal = heads.remove_head(objective, before, data, [3, 14, 15])
    exact = heads.fit_head(objective, removal.data).params
    for shape, root in ((None, np.eye(5)), (x.T @ x, np.linalg.cholesky(np.asarray(x.T @ x)))):
        bound = float(releases.distance_to_retrained(objective, removal, shape=shape))
        true = np.linalg.norm(np.asarray(removal.params - exact) @ root)
        assert true <= bound < 30 * true
        left = removal.data
        each = [removal._replace(params=removal.params[k], data=left._replace(y=left.y[k])) for k in range(3)]
        alone = [releases.distance_to_retrained(objective, one, shape=shape) for one in each]
        assert bound >= np.linalg.norm(alone) * (1 - 1e-9)
    published = releases.release(removal.params, bound, key=jax.random.key(0), scale=0.1, shape=x.T @ x)
    assert published.params.shape == (3, 5)
    assert float(published.mu) == pytest.approx(bound / 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("shaped", [False, True])
def test_a_stream_releases_every_model_and_refreshes_on_the_distance(shaped):
    """No perturbation in training; each model within the admitted distance of the retrained one, before the noise."""
    data = datasets.synthetic(400, 3, seed=1).train
    objective = Objective(l2=1e-2, fairness=1.0)
    fitted = fit(objective, data)
    state = stream.start(objective, fitted, data, noise=None, sigma=1.0, delta=1e-5, budget=1.0)
    rows = np.arange(0, 60, 2)
    shape = data.x.T @ data.x / 4 + 4.0 * jnp.eye(data.x.shape[1]) if shaped else None
    root = np.linalg.cholesky(shape) if shaped else np.eye(data.x.shape[1])
    once = stream.delete(state, jax.tree.map(lambda leaf: put(np.asarray(leaf)[rows]), data))
    admitted = 0.3 * float(stream.distance_to_retrained(once, shape=shape))
    scale = releases.scale_for(admitted, mu=1.0, releases=len(rows))
    options = {"key": jax.random.key(0), "scale": scale, "admitted": admitted, "shape": shape}
    after, _, served, refreshed = stream.serve_releases(state, data, rows, **options)
    assert 0 < int(refreshed.sum()) < len(rows) / 2
    assert float(releases.compose(served.mu)) == pytest.approx(1.0)
    assert served.params.shape == (len(rows), data.x.shape[1])
    assert int(after.deleted) == len(rows)
    for t in (0, 9, 29):
        gone = np.isin(np.arange(len(data.x)), rows[: t + 1])
        exact = remove(objective, fitted.params, data, gone, method="retrain", init=fitted.params).params
        # Ten standard deviations of four coordinates of noise, and the admitted distance.
        white = np.asarray(served.params[t] - exact) @ root / float(scale)
        assert np.linalg.norm(white) < 10 * 2 + admitted / float(scale)
    gap = np.asarray(after.params - exact) @ root
    assert np.linalg.norm(gap) <= float(stream.distance_to_retrained(after, shape=shape)) <= admitted
    with pytest.raises(ValueError, match="would drown in the rounding of float64"):
        stream.serve_releases(state, data, rows, **options | {"scale": scale * 1e-17})
    # What even a refresh cannot reach is said.
    with pytest.raises(NotConvergedError, match="not certified within the admitted distance 1e-20"):
        stream.serve_releases(state, data, rows, **options | {"admitted": 1e-20})


@pytest.mark.parametrize("shape", [None, pytest.param("rows", marks=pytest.mark.slow)])
def test_a_kept_factor_bounds_every_later_hessian(shape):
    """A third of the rows gone, with the first factor: eigenvalues by NumPy, and distances beside a new factor."""
    data = datasets.synthetic(150, 3, seed=1).train
    objective = Objective(l2=1e-2, fairness=2.0, penalty="individual", reweigh=True)
    fitted = fit(objective, data)
    state = stream.start(objective, fitted, data, noise=None, sigma=1.0, delta=1e-5, budget=1.0)
    shape = None if shape is None else data.x.T @ data.x / 4 + jnp.eye(data.x.shape[1])
    held = jax.jit(factor.factorise)(state, shape)
    kept = np.isin(np.arange(len(data.y)), [np.flatnonzero(2 * data.group + data.y == c)[0] for c in range(4)])
    order = put(np.random.default_rng(0).permutation(np.flatnonzero(~kept))[: len(data.y) // 3])

    def request(state, row):
        state = stream.delete(state, jax.tree.map(lambda leaf: leaf[row], data))
        q, own = factor.quadratic(state), factor.factorise(state, shape)
        omega, one = factor.weakest(q, held), jnp.ones(())
        kept, unwidened = factor.distance(state, held, omega), factor.distance(state, held, one)
        return state, (q.hessian, omega, kept, unwidened, factor.distance(state, own, one))

    after, (hessian, omega, kept_bound, unwidened, own_bound) = jax.jit(lambda s: jax.lax.scan(request, s, order))(
        state
    )
    least = [np.linalg.eigvalsh(held.dual @ h @ held.dual.T)[0] for h in np.asarray(hessian)]
    assert (np.asarray(omega) <= least).all()
    assert omega[0] > 0.9
    assert (omega[:10] > 0.7).all()
    used = np.asarray(omega) > 0.7
    assert (own_bound[used] <= kept_bound[used] * 1.2).all()
    assert (kept_bound[used] <= own_bound[used] * 1.6).all()
    # A Hessian that is weaker by omega leaves 1 / sqrt(omega) more room.
    assert (kept_bound * np.sqrt(omega) >= unwidened * (1 - 1e-12))[used].all()
    # And so does the way from where the Hessian was taken, along which no row loses more than exp(-shift).
    still, shift = after._replace(params=after.anchor), after.row_norm * jnp.linalg.norm(after.params - after.anchor)
    assert shift > 0.1
    for bound in (
        lambda at: stream.distance_to_retrained(at, shape=shape),
        lambda at: stream.retrained_region(at).radius,
    ):
        assert bound(after) >= bound(still) * jnp.exp(shift / 2)
    left = data._replace(weight=data.weight.at[order].set(0))
    gap = after.params - fit(objective, left, init=after.params).params
    assert jnp.sqrt(gap @ (gap if shape is None else shape @ gap)) <= own_bound[-1]


@pytest.mark.slow
def test_ten_adaptive_releases_cost_what_the_series_was_planned_for():
    """The requester picks each next row from the last published model; the likelihood ratio of 8,000 series a world."""
    data, size = datasets.synthetic(40, 1, seed=2, test_fraction=0.1).train, 8000
    n = data.x.shape[0]
    objective = Objective(l2=1e-2)
    before = fit(objective, data).params
    sign = (2 * data.y - 1).astype(data.x.dtype)
    # One row of every cell stays.
    cell = np.asarray(2 * data.group + data.y)
    kept = np.isin(np.arange(n), [np.flatnonzero(cell == c)[0] for c in np.unique(cell)])

    def series(key, world, scale, admitted):
        def request(carry, key):
            gone, published, ratio = carry
            # The row that the published model fits worst.
            margins = jnp.where(gone | kept, jnp.inf, sign * (data.x @ published))
            gone = gone.at[jnp.argmin(margins)].set(True)
            removal = remove(objective, before, data, gone, throw=False)
            exact = fit(objective, removal.data, init=removal.params, throw=False).params
            bound = releases.distance_to_retrained(objective, removal)
            # The refresh: where the bound is not admitted, the retrained model itself.
            fine = bound <= admitted
            unlearned, bound = jnp.where(fine, removal.params, exact), jnp.where(fine, bound, 0)
            centre = jnp.where(world, unlearned, exact)
            published = releases.release(centre, bound, key=key, scale=scale, admitted=admitted).params
            near, far = (jnp.sum((published - at) ** 2) for at in (unlearned, exact))
            return (gone, published, ratio + (far - near) / (2 * scale**2)), fine

        start = (jnp.zeros(n, bool), before, jnp.zeros(()))
        (_, _, ratio), fine = jax.lax.scan(request, start, jax.random.split(key, 10))
        return ratio, fine.mean()

    run = jax.jit(jax.vmap(series, (0, None, None, None)))
    admitted = 0.2
    for share, holds in ((1.0, True), (0.02, False)):
        scale = share * releases.scale_for(admitted, mu=1.0, releases=10)
        (fooled, at), (found, _) = (
            run(jax.random.split(jax.random.key(w), size), w == 1, scale, admitted) for w in (0, 1)
        )
        assert 0.2 < at.mean() < 0.98  # both happen, unlearning and refreshes
        cut = np.quantile(np.asarray(fooled), np.linspace(0.02, 0.98, 25))
        false, seen = (np.array([(np.asarray(r) > c).sum() for c in cut]) for r in (fooled, found))
        alpha = np.asarray(clopper_pearson(false, size, confidence=0.9999)[1])
        most = np.asarray(clopper_pearson(size - seen, size, confidence=0.9999)[1])
        assert bool((most >= np.asarray(releases.trade_off(1.0, alpha))).all()) == holds


def test_many_releases_are_single_ones_and_shapes_are_those_of_the_definition():
    data = datasets.synthetic(60, 3, seed=1).train
    data = data._replace(weight=data.weight.at[jnp.array([3, 7])].set(0))
    x, n = np.asarray(data.x)[np.asarray(data.weight) > 0], int(data.weight.sum())
    objective = Objective(l2=1e-2, fairness=2.0)
    assert releases.noise_shape(objective, data, "isotropic") is None
    ridge = n * 1e-2 * np.eye(x.shape[1])
    np.testing.assert_allclose(releases.noise_shape(objective, data, "scores"), x.T @ x / 4 + ridge, rtol=1e-12)
    # All scores alike, so that no penalty is felt; and the penalty as a sum over rows, along a direction.
    shape, v = releases.noise_shape(objective, data, "objective"), jnp.arange(1.0, x.shape[1] + 1)

    def value(t):
        return value_of(objective, t * v, data) - value_of(Objective(l2=1e-2), t * v, data)

    penalty = float(value(1.0)) * 2
    np.testing.assert_allclose(v @ shape @ v, v @ (x.T @ x / 4 + ridge) @ v + penalty, rtol=1e-9)
    with pytest.raises(ValueError, match="isotropic, scores or objective, got 'shaped'"):
        releases.noise_shape(objective, data, "shaped")
    params, keys = jnp.arange(float(x.shape[1])), jax.random.split(jax.random.key(0), 3)
    how = {"scale": 0.1, "admitted": 0.01, "shape": shape}
    many = releases.release_many(params, 0.005, keys=keys, **how)
    np.testing.assert_allclose(
        many, [releases.release(params, 0.005, key=key, **how).params for key in keys], atol=1e-6
    )
    assert np.isnan(releases.release_many(params, 0.02, keys=keys, **how)).all()  # Beyond what is admitted.
