"""What sees gaps and grids, one run and three samples: against closed forms, and how often they are wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from fmu_jax import audit

N = 3000
KEYS = jax.random.split(jax.random.key(0), 4)
#: Laid out so that all cases share one compilation; in NumPy, as every worker makes them.
P, Q = np.array(jax.random.normal(KEYS[0], (N, 3))), np.array(jax.random.normal(KEYS[1], (N, 3)))
LENGTH = np.linalg.norm(P, axis=1, keepdims=True)
MOVED = P + 0.25 * ((P > 0.5) & (P < 0.75)) * np.array([[1, 0, 0]])
GAPS = {
    "nothing": (P, set()),
    # Some of one sample where there is nothing of the other: in a coordinate, and in the length.
    "coordinate": (MOVED, {"histogram"}),
    "length": (np.where((LENGTH > 1.5) & (LENGTH < 1.6), P * 1.07, P), {"histogram"}),
    "rounded": (np.round(P, 4), {"grid"}),
    "binary grid": (np.round(P * 2**20) / 2**20, {"grid"}),
}


@pytest.mark.parametrize("case", GAPS)
def test_gaps_and_grids_are_seen_where_half_lines_see_nothing(case):
    sample, seen = GAPS[case]
    found = audit.empirical_epsilon(jnp.asarray(sample), jnp.asarray(Q), delta=1e-5, key=KEYS[2]).by_test
    assert {name for name, bound in found.items() if bound > 1} == seen


def test_one_run_is_the_hypergeometric_tail_and_rarely_wrong():
    pytest.importorskip("jax_privacy")
    rng = np.random.default_rng(0)
    inside = np.arange(40) % 2 == 0
    scores = np.where(inside, 1.0, 0.0) + 0.01 * rng.normal(size=40)
    found = audit.one_run(scores, inside, delta=1e-5)
    # All 20 of the higher half are inside: one of the choices of 20 among 40.
    p = 1 / scipy.special.comb(40, 20)
    assert found.mu == pytest.approx(scipy.stats.norm.ppf(0.05) - scipy.stats.norm.ppf(p), rel=1e-6)
    assert found.epsilon > 1
    assert found.auc == 1
    # The area is that of the scores: by its convex hull those of no meaning, and their negatives, are both above 1/2.
    nothing, coins = rng.normal(size=100), rng.random(100) < 0.5
    areas = [audit.one_run(sign * nothing, coins, delta=1e-5).auc for sign in (1, -1)]
    pairs = scipy.stats.mannwhitneyu(nothing[coins], nothing[~coins]).statistic / (coins.sum() * (~coins).sum())
    assert areas == pytest.approx([pairs, 1 - pairs], abs=1e-12)
    # A release that says nothing: at most 5 % of runs may claim anything (13 of 100 has probability 0.002).
    wrong = [audit.one_run(rng.normal(size=30), rng.random(30) < 0.5, delta=1e-5).mu > 0 for _ in range(100)]
    assert sum(wrong) <= 12
    for scores, inside, said in (
        (np.zeros(3), np.array([True, False]), "one length"),
        (np.zeros(2), np.array([True, True]), "some canaries"),
        (np.array([0.0, np.nan]), np.array([True, False]), "NaN"),
    ):
        with pytest.raises(ValueError, match=said):
            audit.one_run(scores, inside, delta=1e-5)


@pytest.mark.slow
def test_the_relative_test_keeps_its_level_and_finds_what_is_nearer():
    """Unlearned and untouched models equally far: at most 5 % of tests may see a difference; 13 of 100 is rare."""
    n = 60

    def one(key):
        u, r, t = jax.random.normal(key, (3, n, 2))
        return audit.relative_test(u + 0.7, r, t.at[:, 0].add(0.7).at[:, 1].add(-0.7)).p_value

    p = np.asarray(jax.lax.map(one, jax.random.split(KEYS[3], 100)))
    assert (p < 0.05).sum() <= 12
    assert 0.3 < p.mean() < 0.7
    u, r, t = map(jnp.asarray, (P[:n], Q[:n], P[n : 2 * n] + 1))
    found = audit.relative_test(u, r, t)
    assert found.p_value < 1e-3
    # The estimates by definition.
    every = [np.asarray(sample, float) for sample in (u, r, t)]
    centre, scale = every[1].mean(0), np.concatenate(every).std(0)
    every = [(sample - centre) / scale for sample in every]
    some = np.concatenate(every)
    width = np.median(((some[:, None] - some[None]) ** 2).sum(-1))

    def kernel(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * width))

    def off(matrix):
        return (matrix.sum() - np.trace(matrix)) / (n * (n - 1))

    for mine, sample in ((found.unlearned, every[0]), (found.trained, every[2])):
        mmd = off(kernel(sample, sample)) + off(kernel(every[1], every[1])) - 2 * off(kernel(sample, every[1]))
        assert float(mine) == pytest.approx(mmd, rel=1e-9)
    with pytest.raises(ValueError, match="at least 40"):
        audit.relative_test(u[:10], r[:10], t[:10])
