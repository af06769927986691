"""Tables of removals, against fits, closed forms and counts of their own."""

import jax
import numpy as np
import pytest
import scipy.stats

from benchmarks import fmu_frontier
from fmu_jax import Objective, datasets, fit, removal_tables, remove, sample_noise
from fmu_jax.data import without
from fmu_jax.forget_sets import draw_rows

OBJECTIVE = Objective(l2=1e-2, fairness=1.0)
SPLIT = datasets.synthetic(300, 3, seed=0)
NOISE = sample_noise(SPLIT.train.x[0], key=jax.random.key(0), sigma=1.0)
PARAMS = fit(OBJECTIVE, SPLIT.train, noise=NOISE).params


@pytest.mark.slow
def test_removals_are_beside_the_model_that_was_trained_on_what_remains():
    group = np.asarray(SPLIT.train.group)
    minority = np.bincount(group).argmin()
    table = removal_tables.removal_table(
        OBJECTIVE, PARAMS, SPLIT.train, SPLIT.test, noise=NOISE, sigma=1.0, delta=1e-5, subsets=("random", "minority"),
        fractions=(0.1,), of_subset=True, shards=2, seed=0, key=jax.random.key(1),
    )  # fmt: skip
    counts = {"random": round(0.1 * len(group)), "minority": round(0.1 * (group == minority).sum())}
    for subset, count in counts.items():
        rows = {row["method"]: row for row in table if row["subset"] == subset}
        forget = draw_rows(SPLIT.train, count, subset=subset, seed=0)
        mask = np.zeros(len(group), bool)
        mask[np.asarray(forget)] = True
        assert subset == "random" or (group[mask] == minority).all()
        again = fit(OBJECTIVE, without(SPLIT.train, jax.numpy.asarray(mask)), noise=NOISE).params
        assert {row["rows_removed"] for row in rows.values()} == {count}
        assert rows["retrain"]["distance"] == 0
        apart = np.linalg.norm(np.asarray(PARAMS) - np.asarray(again))
        assert rows["no_removal"]["distance"] == pytest.approx(apart, rel=1e-5)
        assert rows["fair_newton"]["distance"] < 0.1 * apart
        right = ((np.asarray(SPLIT.test.x) @ np.asarray(again) > 0) == np.asarray(SPLIT.test.y)).mean()
        assert rows["retrain"]["accuracy"] == pytest.approx(right, abs=1e-6)


def test_bounds_lie_above_the_gradient_and_epsilon_is_that_of_two_gaussians():
    sigma, delta = 0.7, 1e-3
    (row,) = removal_tables.bounds_table(
        OBJECTIVE, PARAMS, SPLIT.train, noise=NOISE, sigma=sigma, deltas=(delta,), fractions=(0.1,), seed=0
    )
    forget = draw_rows(SPLIT.train, row["rows_removed"], seed=0)
    removal = remove(OBJECTIVE, PARAMS, SPLIT.train, forget, noise=NOISE)
    assert row["residual_norm"] <= min(row[name] for name in removal_tables.BOUNDS[1:])
    assert np.linalg.norm(np.asarray(removal.params) - np.asarray(PARAMS)) > 0
    shift, epsilon = row["residual_norm"] / sigma, row["epsilon_gaussian"]
    below, above = scipy.stats.norm.cdf([shift / 2 - epsilon / shift, -shift / 2 - epsilon / shift])
    assert epsilon == 0 or below - np.exp(epsilon) * above == pytest.approx(delta, rel=1e-3)


@pytest.mark.slow
def test_what_nothing_is_penalised_in_is_the_plain_model():
    columns = ("a", "b")
    rng = np.random.default_rng(0)
    groups = {name: rng.integers(0, 2, len(SPLIT.train.y)).astype(np.int32) for name in columns}
    tests = {name: rng.integers(0, 2, len(SPLIT.test.y)).astype(np.int32) for name in columns}
    groups["a x b"], tests["a x b"] = (2 * each["a"] + each["b"] for each in (groups, tests))
    trains, tested = (
        {name: rows._replace(group=jax.numpy.asarray(of), groups=int(of.max()) + 1) for name, of in given.items()}
        for rows, given in ((SPLIT.train, groups), (SPLIT.test, tests))
    )
    objectives = {"individual": Objective(l2=1e-2, fairness=1.0, penalty="individual")}
    table = removal_tables.groupings_table(
        objectives, trains, tested, noise=NOISE, sigma=1.0, delta=1e-5, fractions=(0.05,), seed=0
    )
    cells = [(row["penalty"], row["penalised"], row["method"]) for row in table]
    assert len(cells) == len(set(cells)) == len(objectives) * (1 + len(trains)) * len(removal_tables.OF_GROUPINGS)
    plain = [row for row in table if (row["penalised"], row["method"]) == (removal_tables.NOTHING, "newton")]
    exact = [row for row in table if (row["penalised"], row["method"]) == (removal_tables.NOTHING, "fair_newton")]
    np.testing.assert_allclose([row["distance"] for row in plain], [row["distance"] for row in exact], rtol=1e-5)


def test_the_frontier_has_one_row_a_seed():
    """Of five data sets; another clip, checkpoint or file's rows would make more."""
    folder = fmu_frontier.Config().out
    table = fmu_frontier.rows_of(folder, fmu_frontier.RUNS)
    for dataset in ("adult", "compas", "hsls", "fashion_mnist", "cifar10"):
        rows = [row for row in table if row["dataset"] == dataset and (row["method"] != "head" or row["mu"] == 1.0)]
        for look, found in fmu_frontier.series(rows):
            seeds = [row["seed"] for row in found]
            assert len(seeds) == len(set(seeds)), look.label
            assert len(seeds) == 5 or (look.marker == "D" and dataset == "hsls")
