"""The audit's statistics against SciPy, scikit-learn, closed forms, and pairs of Gaussians of known epsilon."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score

from fmu_jax import audit, privacy, releases
from fmu_jax.audit.binomial import clopper_pearson
from fmu_jax.audit.roc import auc
from tests.placing import put


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_clopper_pearson_equals_scipy(confidence):
    for n in (1, 7, 5000):
        for k in sorted({0, 1, n // 3, n}):
            low, high = clopper_pearson(k, n, confidence=confidence)
            expected = scipy.stats.binomtest(k, n).proportion_ci(confidence, method="exact")
            np.testing.assert_allclose([low, high], expected, rtol=1e-8, atol=1e-12)


def test_auc_equals_sklearn_with_ties():
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, positive = rng.integers(0, 8, 60).astype(float), rng.random(60) < 0.4
        assert float(auc(put(scores), put(positive))) == pytest.approx(roc_auc_score(positive, scores))


@pytest.mark.parametrize("x64", [True, False])
def test_auc_equals_sklearn_whatever_the_scores_are(x64):
    """100,000 rows with ties, 64-bit numbers that float32 cannot tell apart, booleans; eager and traced."""
    rng = np.random.default_rng(0)
    n = 100_000  # More pairs than an int32 holds.
    hit = rng.random(n) < 0.5
    fine = rng.integers(0, 2**20, n)
    near = 2.0**30 + fine
    with jax.enable_x64(x64):
        for scores in (rng.integers(0, 5, n), fine + 2**40, near, near.astype(np.float32), fine % 3 == 0):
            expected = roc_auc_score(hit, scores)
            assert float(auc(scores, hit)) == pytest.approx(expected, rel=3e-6)
        for scores in (
            (fine % 7).astype(np.int32),
            near.astype(np.float32),
            fine % 3 == 0,
            np.full(n, 2**31 - 1, "i4"),
        ):
            scores, positive = put(scores), put(hit)
            traced = jax.jit(jax.vmap(auc, in_axes=(0, None)))(scores[None], positive)
            assert float(traced[0]) == pytest.approx(roc_auc_score(hit, scores), rel=3e-6)
        infinite = np.where(fine % 5 == 0, np.inf, np.where(fine % 5 == 1, -np.inf, fine))
        expected = roc_auc_score(hit, np.nan_to_num(infinite, posinf=2.0**21, neginf=-1.0))
        assert float(auc(infinite, hit)) == pytest.approx(expected, rel=3e-6)
        assert float(jax.jit(auc)(put(infinite), put(hit))) == pytest.approx(expected, rel=3e-6)


def test_auc_refuses_what_has_no_order():
    for scores, positive, said in (
        ([0.1, np.nan, 0.3], [True, False, True], "1 of 3 `scores` are NaN"),
        ([0.1, 0.2, 0.3], [0, 1, 2], "`positive` must be boolean, or hold 0 and 1 only; got 2"),
        ([0.1, 0.2], [0, 1, 1], r"vectors of one length, got \(2,\), \(3,\)"),
        ([[0.1, 0.2]], [[0, 1]], "vectors of one length"),
    ):
        with pytest.raises(ValueError, match=said):
            auc(scores, positive)
    assert np.isnan(jax.jit(auc)(jnp.array([0.1, jnp.nan]), jnp.array([True, False])))
    assert float(auc([0.1, 0.2], [True, True])) == 0.5


# It runs for longer than it compiles: worth XLA's optimiser.
@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 2})
def audits_of_gaussians(keys, shift):
    def one(key):
        p, q, split = jax.random.split(key, 3)
        far = jax.random.normal(p, (800, 3)).at[:, 1].add(shift)
        return audit.empirical_epsilon(far, jax.random.normal(q, (800, 3)), delta=1e-5, key=split).epsilon

    return jax.lax.map(one, keys)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0])
def test_empirical_epsilon_stays_below_the_exact_one(shift):
    """Valid at 95 %: of 100 audits of two Gaussians at most 11 may fail (probability 0.01 at a true rate of 5 %)."""
    exact = float(privacy.gaussian_epsilon(shift, 1.0, 1e-5))
    found = audits_of_gaussians(jax.random.split(jax.random.key(1), 100), shift)
    assert np.isfinite(found).all()
    assert (np.asarray(found) > exact).sum() <= 11


@pytest.mark.slow
def test_empirical_epsilon_finds_what_is_there():
    split = jax.random.key(0)
    other, rest = np.random.default_rng(0).normal(size=(2, 10_000, 2))
    near = audit.empirical_epsilon(other, rest, delta=1e-5, key=split)
    assert float(near.epsilon) < 0.1
    far = audit.empirical_epsilon(other + 1.0, rest, delta=1e-5, key=split)
    assert float(far.epsilon) > 0.3 * float(privacy.gaussian_epsilon(np.sqrt(2), 1.0, 1e-5))
    apart = audit.empirical_epsilon(rest + 100.0, rest, delta=1e-5, key=split)
    ceiling = float(audit.largest_bound(10_000, delta=1e-5))
    assert float(apart.epsilon) == pytest.approx(ceiling)
    assert float(far.epsilon) == max(float(value) for value in far.by_test.values()) < ceiling
    # A difference of spread alone is found too.
    assert float(audit.empirical_epsilon(2 * rest, rest, delta=1e-5, key=split).epsilon) > 0.5


def test_klom_equals_scipy_entropy():
    rng = np.random.default_rng(0)
    p, q = rng.normal(0.5, 1.0, (300, 4)), rng.normal(0.0, 1.3, (500, 4))
    found = audit.klom(put(p), put(q))
    for i in range(4):
        edges = np.linspace(min(p[:, i].min(), q[:, i].min()), max(p[:, i].max(), q[:, i].max()), 21)
        a, b = (np.histogram(values[:, i], edges)[0] / len(values) for values in (p, q))
        b = np.where(a > 0, np.maximum(b, 1e-5), b)
        expected = scipy.stats.entropy(a, b)  # normalises both
        assert float(found[i]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shift", [0.5, 0.0, 300.0])
def test_klom_is_that_of_the_benchmark(shift):
    """Its protocol by ``numpy.digitize``, which leaves the largest margin out; clipped, and constant, too."""
    rng = np.random.default_rng(1)
    p, q = rng.normal(shift, 1.0, (50, 3)), rng.normal(0.0, 1.3, (40, 3))
    p[:, 2] = q[:, 2] = 2.0
    found = audit.klom(put(p), put(q), closed=False)
    for i in range(3):
        a, b = np.clip(p[:, i], -100, 100), np.clip(q[:, i], -100, 100)
        low, high = min(a.min(), b.min()), max(a.max(), b.max())
        edges = np.linspace(low, high if high > low else low + 1, 21)
        a, b = ([np.sum(np.digitize(v, edges) == k) for k in range(1, 21)] for v in (a, b))
        a, b = np.array(a) / max(np.sum(a), 1), np.array(b) / np.sum(b)
        expected = scipy.stats.entropy(a, np.where(a > 0, np.maximum(b, 1e-5), b)) if a.any() else 0.0
        assert float(found[i]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_lira_equals_a_slow_attack():
    rng = np.random.default_rng(0)
    seen, unseen = rng.normal(0.8, 1.0, (60, 3)), rng.normal(0.0, 1.4, (60, 3))
    found = audit.lira(put(seen), put(unseen))
    for i in range(3):
        fitted = [scipy.stats.norm(v[:30, i].mean(), v[:30, i].std(ddof=1)) for v in (seen, unseen)]
        score = [fitted[0].logpdf(v[30:, i]) - fitted[1].logpdf(v[30:, i]) for v in (seen, unseen)]
        truth = np.repeat([1, 0], 30)
        assert float(found.auc[i]) == pytest.approx(roc_auc_score(truth, np.concatenate(score)))
        assert float(found.advantage[i]) == pytest.approx((score[0] > 0).mean() - (score[1] > 0).mean())


def test_membership_equals_sklearn():
    rng = np.random.default_rng(0)
    loss, member = rng.exponential(size=(5, 40)), rng.random((5, 40)) < 0.5
    found = audit.membership(put(loss), put(member))
    for i in range(5):
        assert float(found.auc[i]) == pytest.approx(roc_auc_score(member[i], -loss[i]))
        low = loss[i] < loss[i].mean()
        assert float(found.advantage[i]) == pytest.approx(low[member[i]].mean() - low[~member[i]].mean())


def test_bad_input_is_refused():
    sample, key = jnp.zeros((50, 2)), jax.random.key(0)
    for changed, said in (
        ({"unlearned": sample[:10], "retrained": sample[:10]}, "at least 40"),
        ({"unlearned": sample.at[0, 0].set(jnp.nan)}, "NaN"),
        ({"delta": 0.0}, "delta"),
    ):
        options = {"unlearned": sample, "retrained": sample, "delta": 1e-5, "key": key} | changed
        with pytest.raises(ValueError, match=said):
            audit.empirical_epsilon(options.pop("unlearned"), options.pop("retrained"), **options)
    with pytest.raises(ValueError, match="at least 4"):
        audit.lira(sample[:2], sample[:2])
    with pytest.raises(ValueError, match="bins"):
        audit.klom(sample, sample, bins=1)


@pytest.mark.slow
def test_empirical_mu_stays_below_the_truth_and_comes_near_it():
    """Valid at 95 %: of 60 audits of releases exactly at their mu at most 8 may fail (probability 0.02)."""

    def one(key):
        p, q, split = jax.random.split(key, 3)
        far = jax.random.normal(p, (800, 3)).at[:, 1].add(0.7)
        return audit.empirical_mu(far, jax.random.normal(q, (800, 3)), key=split).mu

    found = np.asarray(jax.lax.map(one, jax.random.split(jax.random.key(2), 60)))
    assert (found > 0.7).sum() <= 8
    assert found.mean() > 0.25


@pytest.mark.slow
def test_empirical_mu_catches_too_little_noise_and_no_removal():
    """Releases that claim mu = 0.5, of models 0.05 apart: right, at half the scale, and with nothing removed."""
    keys, split = jax.random.split(jax.random.key(3), 2 * 20_000).reshape(2, -1), jax.random.key(4)
    at = jnp.array([1.0, -0.5, 0.2])

    def publish(keys, params, scale):
        return jax.vmap(lambda key: releases.release(params, 0.05, key=key, scale=scale).params)(keys)

    for unlearned, scale, caught in ((0.05, 0.1, False), (0.05, 0.05, True), (0.2, 0.1, True)):
        near, far = publish(keys[0], at, scale), publish(keys[1], at.at[1].add(unlearned), scale)
        found = float(audit.empirical_mu(far, near, key=split).mu)
        assert (found > 0.5) == caught
        assert found > 0.75 * unlearned / scale


def test_attacks_find_who_was_a_member_and_nothing_where_nobody_differs():
    rng = np.random.default_rng(0)
    inside = rng.integers(0, 2, (400, 1, 3)).astype(bool)
    member, noise = np.concatenate([inside, ~inside], axis=1), rng.normal(size=(400, 2, 3))
    oracle = put(rng.normal(size=(800, 3)))
    found, wrong, alike = (
        audit.attack_columns(put(noise + shift * member), put(who), oracle)
        for shift, who in ((3.0, member), (3.0, ~member), (0.0, member))
    )
    # Two Gaussians 3 apart: the area is Phi(3 / sqrt 2), the divergence 9 / 2 of densities, of bins somewhat less.
    assert found["lira_auc"] == pytest.approx(0.983, abs=0.01)
    assert found["klom"] > 3
    assert wrong["klom"] < 0.2  # Non-members are as the retrained ones.
    assert alike["lira_auc"] == pytest.approx(0.5, abs=0.04)
    assert alike["klom"] <= alike["klom_quantile_95"] < 0.2
    assert found["lira_auc_worst"] >= found["lira_auc"]
