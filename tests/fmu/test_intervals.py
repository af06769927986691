"""The fairness interval against brute force, and the retrained model inside it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax import Objective, datasets, fairness_interval, make_data, remove, sample_noise
from fmu_jax.data import cell_counts
from fmu_jax.distances import prediction_margins, retrained_region
from fmu_jax.intervals import rate_intervals
from fmu_jax.metrics import group_metrics
from tests import oracles
from tests.placing import put

#: Name in the oracle -> how to read the two ends from a FairnessInterval.
RATES = {
    "accuracy": lambda i: i.accuracy,
    "selection_rate_0": lambda i: i.selection_rate[0],
    "selection_rate_1": lambda i: i.selection_rate[1],
    "demographic_parity": lambda i: i.demographic_parity,
    "equal_opportunity": lambda i: i.equal_opportunity,
    "equalized_odds_max": lambda i: i.equalized_odds,
    "equalized_odds_mean": lambda i: i.equalized_odds_mean,
}


#: Differences between groups. Where the two rates can be equal as real numbers the interval starts at 0; counts come
#: in whole rows, so that the smallest gap that some labelling attains may be a fraction of a row larger.
GAPS = ("demographic_parity", "equal_opportunity", "equalized_odds_max", "equalized_odds_mean")


def check_equal(interval, expected, data):
    row = 1 / float(cell_counts(data).min())
    for name, read in RATES.items():
        low, high = np.asarray(read(interval))
        np.testing.assert_allclose(high, expected[name][1], atol=1e-12, err_msg=name)
        if name in GAPS:
            assert low - 1e-12 <= expected[name][0] <= low + row, name
        if name not in GAPS[2:] and low > 0:
            np.testing.assert_allclose(low, expected[name][0], atol=1e-12, err_msg=name)


def check_inside(interval, metrics):
    for name, read in RATES.items():
        low, high = np.asarray(read(interval))
        assert low - 1e-12 <= metrics[name] <= high + 1e-12, (name, low, metrics[name], high)


@pytest.mark.parametrize("seed", range(8))
def test_each_end_is_attained_by_some_labelling_and_none_is_outside(seed):
    rng = np.random.default_rng(seed)
    n = 24
    y, s = rng.permutation(np.arange(n) % 4 // 2), rng.permutation(np.arange(n) % 3 % 2)
    s[:4], y[:4] = [0, 0, 1, 1], [0, 1, 0, 1]
    w = (np.arange(n) < 4) | (rng.random(n) < 0.8)
    scores, margins = rng.normal(size=n), rng.exponential(0.3, size=n)
    undecided = (np.abs(scores) <= margins) & w
    margins[np.flatnonzero(undecided)[10:]] = 0  # brute force is exponential in them
    data = make_data(np.ones((n, 1)), y, s, w)
    found = rate_intervals(put(scores > 0), put(np.abs(scores) > margins), data)
    check_equal(found, oracles.fairness_interval_brute(scores, margins, y, s, w.astype(float)), data)
    assert int(found.undecided) == min(undecided.sum(), 10) > 0


@pytest.mark.parametrize(("seed", "penalty"), list(enumerate(["equalized_odds", "demographic_parity", "individual"])))
def test_interval_of_a_removal_equals_brute_force_and_holds_the_retrained_model(seed, penalty):
    x, y, s, w, removed, left = oracles.random_problem(20 + seed, 60, 3)
    noise = np.random.default_rng(seed).normal(size=3)
    tail = (0.02, 1.0, penalty, noise)
    before = put(oracles.minimise(x, y, s, w, *tail))
    objective, data = Objective(l2=0.02, fairness=1.0, penalty=penalty), make_data(x, y, s, w)
    removal = remove(objective, before, data, removed, noise=put(noise))
    found = fairness_interval(objective, removal, removal.data, noise=put(noise))
    region = retrained_region(objective, removal, noise=put(noise))
    margins = np.asarray(prediction_margins(region, removal.data.x))
    scores = x @ np.asarray(removal.params)
    check_equal(found, oracles.fairness_interval_brute(scores, margins, y, s, left), removal.data)
    best = oracles.minimise(x, y, s, left, *tail)
    assert (np.abs(x @ best - scores) <= margins).all()
    check_inside(found, oracles.group_metrics(x @ best > 0, y, s, left))


def test_retrained_models_stay_inside_on_many_rough_removals():
    """Influence steps from poor starts, so that the margins are wide and predictions do change."""
    changed = 0
    for seed in range(20):
        x, y, s, w, removed, left = oracles.random_problem(50 + seed, 60, 3, remove=0.3)
        objective, data = Objective(l2=0.05, fairness=1.0), make_data(x, y, s, w)
        start = put(oracles.minimise(x, y, s, w, 0.05, 1.0) + 0.3)
        removal = remove(objective, start, data, removed, method="influence")
        found = fairness_interval(objective, removal, removal.data)
        best = oracles.minimise(x, y, s, left, 0.05, 1.0)
        check_inside(found, oracles.group_metrics(x @ best > 0, y, s, left))
        changed += int((((x @ best > 0) != (x @ np.asarray(removal.params) > 0)) & (left == 1)).sum())
    assert changed > 0


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_holds_the_retrained_model_on_compas(share):
    split = datasets.load("compas", group="race", seed=0)
    x, y, s, w = (np.asarray(field) for field in jax.tree.leaves(split.train))
    noise = sample_noise(split.train.x[0], key=jax.random.key(0), sigma=1.0)
    tail = (1e-4, 1.0, "equalized_odds", np.asarray(noise))
    removed = np.random.default_rng(1).permutation(len(y)) < share * len(y)
    objective = Objective(l2=1e-4, fairness=1.0)
    before = put(oracles.minimise(x, y, s, w, *tail))
    removal = remove(objective, before, split.train, removed, noise=noise)
    best = oracles.minimise(x, y, s, w * ~removed, *tail)
    for data in (removal.data, split.test):
        x, y, s, w = (np.asarray(field) for field in jax.tree.leaves(data))
        found = fairness_interval(objective, removal, data, noise=noise)
        check_inside(found, oracles.group_metrics(x @ best > 0, y, s, w))
        # Worth having: few rows are undecided, so the interval is short.
        assert int(found.undecided) < 0.05 * w.sum()
        assert float(found.demographic_parity[1] - found.demographic_parity[0]) < 0.1


def test_with_nothing_undecided_the_interval_is_the_metric():
    x, y, s, _, _, left = oracles.random_problem(3, 50, 3)
    prediction = x[:, 0] > 0
    data = make_data(x, y, s, left)
    found = rate_intervals(put(prediction), jnp.ones(50, bool), data)
    metrics = group_metrics(jnp.array(prediction, jnp.int32), data)
    assert int(found.undecided) == 0
    for name in ("accuracy", "demographic_parity", "equal_opportunity", "equalized_odds", "equalized_odds_mean"):
        np.testing.assert_allclose(getattr(found, name), 2 * [getattr(metrics, name)], atol=1e-15, err_msg=name)
    np.testing.assert_allclose(found.selection_rate, np.stack(2 * [metrics.selection_rate], axis=1), atol=1e-15)


def test_a_model_that_is_not_linear_is_refused():
    x, y, s, w, removed, _ = oracles.random_problem(3, 50, 3)
    objective = Objective(l2=0.1, predict=lambda params, x: x @ params)
    removal = remove(objective, jnp.zeros(3), make_data(x, y, s, w), removed)
    with pytest.raises(ValueError, match="not linear"):
        fairness_interval(objective, removal, removal.data)
