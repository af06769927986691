"""Intervals and rank correlations against SciPy, closed forms, and enumerations in NumPy."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pags_jax import means, statistics

KEY = jax.random.key(5)
rank_correlation = jax.jit(statistics.rank_correlation, static_argnames="permutations")


def test_intervals_are_scipys_percentiles_and_paired():
    rng = np.random.default_rng(0)
    easy = rng.normal(size=60)  # What the models have in common.
    values = easy[:, None] + 0.1 * rng.exponential(size=(60, 3))
    differences = values[:, 1:] - values[:, :1]
    found = statistics.mean_interval(jnp.asarray(differences), key=KEY, resamples=20_000, level=0.9)
    for k in range(2):
        expected = stats.bootstrap(
            (differences[:, k],), np.mean, method="percentile", n_resamples=20_000, confidence_level=0.9, rng=1
        ).confidence_interval
        spread = differences[:, k].std() / np.sqrt(60)
        np.testing.assert_allclose([found.low[k], found.high[k]], expected, atol=0.05 * spread)
        assert spread < 0.2 * values[:, k].std() / np.sqrt(60)
    np.testing.assert_allclose(found.estimate, differences.mean(0), rtol=1e-12)
    # The same images for all measures: a measure and its double have the same ends, but for the unit.
    twice = statistics.mean_interval(jnp.asarray(differences[:, :1] * [1, 2]), key=KEY)
    np.testing.assert_allclose(2 * np.array(twice)[:, 0], np.array(twice)[:, 1], rtol=1e-12)


def test_an_image_without_a_value_counts_in_no_measure():
    values = np.random.default_rng(1).normal(size=(30, 2))
    spoiled = values.copy()
    spoiled[3, 0], spoiled[17, 1] = np.nan, np.inf
    kept = np.delete(values, [3, 17], 0)
    found = statistics.mean_interval(jnp.asarray(spoiled), key=KEY)
    np.testing.assert_allclose(found.estimate, kept.mean(0), rtol=1e-12)
    expected = statistics.mean_interval(jnp.asarray(kept), key=jax.random.key(6))
    widths = np.asarray(expected.high - expected.low)
    np.testing.assert_allclose(found.low, expected.low, atol=0.05 * widths.max())
    np.testing.assert_allclose(found.high, expected.high, atol=0.05 * widths.max())
    nothing = statistics.mean_interval(jnp.full((4, 2), jnp.nan), key=KEY, resamples=9)
    assert np.isnan(np.array(nothing)).all()


def test_a_peak_of_noise_alone_is_no_peak():
    """Chosen and measured on the same images, the peak of equal curves would rise almost always."""
    curves = jax.random.normal(jax.random.key(0), (100, 40, 6))
    test = jax.jit(jax.vmap(lambda v, key: statistics.rise_and_fall(v, key=key, resamples=100)))
    found = test(curves, jax.random.split(KEY, 100))
    said = np.asarray((found.rise.low > 0) & (found.fall.low > 0))
    assert said.mean() < 0.05
    whole = np.asarray(curves).mean(1)
    assert ((whole.max(1) > whole[:, 0]) & (whole.max(1) > whole[:, -1])).mean() > 0.5
    small = np.asarray(curves[0]) / 10
    clear = statistics.rise_and_fall(jnp.asarray(small + np.array([0.0, 1, 3, 2, 1, 1])), key=KEY)
    assert int(clear.place) == 2
    np.testing.assert_allclose([clear.rise.estimate, clear.fall.estimate], [3, 2], atol=0.1)
    end = statistics.rise_and_fall(jnp.asarray(small + np.arange(6.0)), key=KEY)
    assert (int(end.place), *map(float, end.fall)) == (5, 0.0, 0.0, 0.0)


def test_halves_are_of_the_images_that_count():
    """A half without such an image would name a peak that nothing shows, and measure it on the other half."""
    curve, there = np.array([[0.0, 2.0, 1.0]]), np.arange(8) < 2
    values = jnp.asarray(np.where(there[:, None], np.repeat(curve, 8, 0), np.nan))
    test = jax.jit(lambda key, values: statistics.rise_and_fall(values, key=key, resamples=9))
    for key in jax.random.split(KEY, 10):
        place, rise, fall = test(key, values)
        assert (int(place), float(rise.estimate), float(fall.estimate)) == (1, 2.0, 1.0)
        one = test(key, values.at[1].set(jnp.nan))
        assert np.isnan([*one.rise, *one.fall]).all()


def test_without_groups_it_is_spearmans():
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 9, 14).astype(float), rng.normal(size=14)
    found = rank_correlation(jnp.asarray(x), jnp.asarray(y), key=KEY)
    np.testing.assert_allclose(found.rho, stats.spearmanr(x, y).statistic, rtol=1e-12)
    expected = stats.permutation_test(
        (x,), lambda x: stats.spearmanr(x, y).statistic, permutation_type="pairings", n_resamples=2000, rng=0
    ).pvalue
    assert abs(found.p - expected) < 5 * np.sqrt(expected * (1 - expected) / 2000)


def test_partial_correlations_are_the_closed_form():
    rng = np.random.default_rng(3)
    z = rng.normal(size=25)
    x, y = z + 0.5 * rng.normal(size=25), z + 0.5 * rng.normal(size=25)
    xy, xz, yz = (stats.spearmanr(*pair).statistic for pair in ((x, y), (x, z), (y, z)))
    found = rank_correlation(jnp.asarray(x), jnp.asarray(y), key=KEY, given=jnp.asarray(z), permutations=9)
    np.testing.assert_allclose(found.rho, (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)), rtol=1e-10)
    both = jnp.asarray(np.stack([z, z**3], 1))
    twice = rank_correlation(jnp.asarray(x), jnp.asarray(y), key=KEY, given=both, permutations=9)
    np.testing.assert_allclose(twice.rho, found.rho, rtol=1e-8)
    nothing = rank_correlation(jnp.asarray(x), jnp.asarray(y), key=KEY, given=jnp.asarray(x), permutations=9)
    assert np.isnan(nothing.rho)
    assert np.isnan(nothing.p)


@pytest.mark.parametrize("partial_out", [False, True])
def test_p_values_within_groups_are_those_of_all_orders(partial_out):
    rng = np.random.default_rng(4)
    groups = np.array([7, 2, 7, 2, 7, 2, 7, 5])
    x, y, z = rng.normal(size=(3, 8)) + groups / 2
    design = np.stack([np.ones(8), stats.rankdata(z)], 1)[:, : 1 + partial_out]

    def without(v):
        return v - design @ np.linalg.lstsq(design, v)[0]

    one, other = without(stats.rankdata(x)), without(stats.rankdata(y))
    members = [np.flatnonzero(groups == group) for group in (2, 5, 7)]
    every = []
    for orders in itertools.product(*(itertools.permutations(m) for m in members)):
        shuffled = np.empty(8)
        for member, order in zip(members, orders, strict=True):
            shuffled[member] = other[list(order)]
        every.append(np.corrcoef(one, without(shuffled))[0, 1])
    rho = np.corrcoef(one, other)[0, 1]
    expected = np.mean(np.abs(every) >= abs(rho) - 1e-9)
    given = jnp.asarray(z) if partial_out else None
    correlate = jax.jit(partial(statistics.rank_correlation, permutations=9999))
    found = correlate(jnp.asarray(x), jnp.asarray(y), key=KEY, groups=jnp.asarray(groups), given=given)
    np.testing.assert_allclose(found.rho, rho, rtol=1e-10)
    assert abs(found.p - expected) < 5 * np.sqrt(expected * (1 - expected) / 9999)


def test_chance_alone_gives_uniform_p_values_within_groups():
    """Groups that differ in both measures correlate; within them there is nothing."""
    groups = jnp.repeat(jnp.arange(4), 5)
    x, y = jax.random.normal(jax.random.key(1), (2, 300, 20)) + 3.0 * groups.astype(jnp.float64)[None, None]
    test = jax.jit(
        jax.vmap(lambda x, y, key: statistics.rank_correlation(x, y, key=key, groups=groups, permutations=99))
    )
    found = test(x, y, jax.random.split(KEY, 300))
    assert float(found.rho.mean()) > 0.7
    assert (
        stats.kstest(np.asarray(found.p) - 0.005 * np.asarray(jax.random.uniform(KEY, (300,))), "uniform").pvalue > 1e-3
    )


@pytest.mark.parametrize("dtype", [pytest.param(jnp.float16, marks=pytest.mark.slow), jnp.bfloat16])
def test_small_floats_are_computed_with_in_float32(dtype):
    """Squared ranks of 20 models sum up beyond float16, and bfloat16 has two or three digits."""
    x, y, z = np.random.default_rng(5).normal(size=(3, 20))
    small = [jnp.asarray(values, dtype) for values in (x, x + y, z)]
    exact = [values.astype(jnp.float64) for values in small]
    for given in (False, True):
        one, other = (
            rank_correlation(*kept[:2], key=KEY, given=kept[2] if given else None, permutations=99)
            for kept in (small, exact)
        )
        assert one.rho.dtype == jnp.float32
        np.testing.assert_allclose(one.rho, other.rho, atol=1e-5)
        assert one.p < 0.05
    values = jnp.asarray(np.array([0.85, 0.95, 0.8]) + 0.05 * x[:, None], dtype)
    ends = [
        (
            statistics.mean_interval(kept, key=KEY, resamples=99),
            *statistics.rise_and_fall(kept, key=KEY, resamples=99)[1:],
        )
        for kept in (values, values.astype(jnp.float64))
    ]
    for one, other in zip(*ends, strict=True):
        assert {part.dtype for part in one} == {jnp.dtype(jnp.float32)}
        np.testing.assert_allclose(np.array(one), np.array(other), atol=1e-5)
    sums = np.full(3, 3e4, dtype) * np.array([0.5, 1, 2], dtype)
    found = means.means_of({"on": sums})
    assert found["on"] == pytest.approx(sums.astype(float).mean(), rel=1e-6)
    assert found["on_error"] == pytest.approx(sums.astype(float).std() / np.sqrt(3), rel=1e-6)


def test_measures_of_unlike_types_are_not_rounded_to_one():
    x, y = jnp.arange(8, dtype=jnp.float16), 1 + 1e-9 * jnp.arange(8.0)
    found = rank_correlation(x, y, key=KEY, permutations=9)
    np.testing.assert_allclose(found.rho, 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: statistics.mean_interval(jnp.zeros((0, 2)), key=KEY), "with an axis of images"),
        (lambda: statistics.mean_interval(jnp.zeros(3), key=KEY, resamples=0), "`resamples` must be"),
        (lambda: statistics.mean_interval(jnp.zeros(3), key=KEY, level=1.0), "`level` must be above 0"),
        (lambda: statistics.rise_and_fall(jnp.zeros((1, 3)), key=KEY), "of two images or more"),
        (lambda: statistics.rank_correlation(jnp.zeros(2), jnp.zeros(2), key=KEY), "three models or more"),
        (
            lambda: statistics.rank_correlation(jnp.zeros(3), jnp.zeros(3), key=KEY, groups=jnp.zeros(2, int)),
            "of 3 models",
        ),
        (
            lambda: statistics.rank_correlation(jnp.array([0, jnp.nan, 1]), jnp.zeros(3), key=KEY),
            "`x` holds values that are not finite",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_means_are_over_the_images_that_have_every_measure():
    row = {"eps": 0.5, "on": np.array([1.0, 3.0, np.nan, 8.0]), "off": np.array([2.0, 4.0, 6.0, np.inf])}
    found = statistics.means_of(row)
    error = pytest.approx(1 / np.sqrt(2))
    assert found == {"eps": 0.5, "on": 2.0, "on_error": error, "off": 3.0, "off_error": error, "invalid": 2}
    assert statistics.means_of({"eps": 0.5}) == {"eps": 0.5}
    none = statistics.means_of({"on": np.array([np.nan])})
    assert none == {"on": None, "on_error": None, "invalid": 1}


def test_means_of_batches_pool_to_the_mean_over_all_images():
    """Of images that have every measure; a measure that no batch has is None."""
    draw = np.random.default_rng(0)
    values = {name: np.where(draw.random(30) < 0.2, np.nan, draw.normal(size=30)) for name in ("on", "off")}
    parts = [slice(0, 7), slice(7, 8), slice(8, 30)]
    rows = [
        {"images": len(values["on"][part])} | means.means_of({name: column[part] for name, column in values.items()})
        for part in parts
    ]
    whole = means.means_of(values)
    found = means.pooled([row | {"share": None} for row in rows], ["on", "off", "share"])
    assert found["images"] == 30 - whole["invalid"]
    assert found["on"] == pytest.approx(whole["on"], rel=1e-12)
    assert found["off"] == pytest.approx(whole["off"], rel=1e-12)
    assert found["share"] is None
