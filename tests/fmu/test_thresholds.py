"""Per-group thresholds give both groups the common rate, up to one row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax import make_data
from fmu_jax.data import Data
from fmu_jax.thresholds import fit_thresholds, predict_with_thresholds
from tests.placing import put

RNG = np.random.default_rng(0)
N = 300
S = (RNG.random(N) < 0.3).astype(int)
Y = (RNG.random(N) < 0.3 + 0.3 * S).astype(int)
W = (RNG.random(N) < 0.9).astype(float)
SCORES = RNG.normal(size=N) + Y + S  # so that threshold zero selects group 1 far more often
DATA = make_data(np.ones((N, 1)), Y, S, W)


@pytest.mark.parametrize("rate", ["selection_rate", "true_positive_rate"])
def test_both_groups_get_the_rate_of_all_rows(rate):
    counted = (W == 1) & ((Y == 1) | (rate == "selection_rate"))
    target = (SCORES > 0)[counted].mean()
    thresholds = fit_thresholds(put(SCORES), DATA, rate=rate)
    predicted = np.asarray(predict_with_thresholds(put(SCORES), DATA.group, thresholds))
    for g in (0, 1):
        rows = counted & (g == S)
        assert abs(predicted[rows].mean() - target) <= 0.5 / rows.sum() + 1e-12
        assert abs((SCORES > 0)[rows].mean() - target) > 2 / rows.sum()  # not so before


def test_forgotten_rows_play_no_part():
    wild = jnp.where(DATA.weight > 0, put(SCORES), 1e6)
    np.testing.assert_array_equal(fit_thresholds(wild, DATA), fit_thresholds(put(SCORES), DATA))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_all_or_none_chosen_is_kept(sign):
    scores = put(sign * (np.abs(SCORES) + 0.1))
    thresholds = fit_thresholds(scores, DATA, rate="selection_rate")
    predicted = predict_with_thresholds(scores, DATA.group, thresholds)
    np.testing.assert_array_equal(np.asarray(predicted)[W == 1], int(sign > 0))


def test_unknown_rate_is_refused():
    with pytest.raises(ValueError, match="unknown rate 'tpr'; known: selection_rate, true_positive_rate"):
        fit_thresholds(put(SCORES), DATA, rate="tpr")


def by_sorting(scores, data, rate):
    """The definition: the scores of each group in order, and a threshold midway between two of them."""
    weight, y, group = (np.asarray(part) for part in (data.weight, data.y, data.group))
    counted = (weight > 0) & ((y == 1) | (rate == "selection_rate"))
    share = np.divide(np.sum(counted & (scores > 0)), max(counted.sum(), 1), dtype=scores.dtype)
    found = []
    for g in range(data.groups):
        ordered = np.sort(scores[counted & (group == g)])[::-1]
        chosen = int(np.round(share * scores.dtype.type(len(ordered))))
        if not len(ordered):
            found.append(0)
        elif chosen == 0:
            found.append(ordered[0])
        else:
            found.append((ordered[chosen - 1] + ordered[chosen]) / 2 if chosen < len(ordered) else -np.inf)
    return np.array(found, scores.dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rate", ["selection_rate", "true_positive_rate"])
def test_thresholds_are_those_of_sorted_scores(rate, dtype):
    """With ties, zeros of both signs, the largest and smallest numbers, and a group of which nothing counts."""
    rng = np.random.default_rng(1)
    extremes = np.array([0.0, -0.0, np.finfo(dtype).max, -np.finfo(dtype).max, 4 * np.finfo(dtype).tiny, -1.0], dtype)
    for trial in range(30):
        shift, spread, digits = rng.choice([-8, -1, 0, 1, 8]), rng.choice([0.3, 30]), rng.integers(0, 4)
        scores = np.round(shift + spread * rng.normal(size=101), digits).astype(dtype)
        scores[:6] = extremes if trial % 3 else -0.0
        y, group, weight = (rng.integers(0, most, 101) for most in (2, 3 if trial % 4 else 2, 2))
        data = Data(*map(jnp.asarray, (np.ones((101, 1), dtype), y, group, weight.astype(dtype))), groups=3)
        found = fit_thresholds(put(scores), data, rate=rate)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, by_sorting(scores, data, rate))


def test_moving_a_score_moves_the_threshold_between_it_and_the_next():
    scores, ones = jnp.arange(1.0, 7.0) - 4.5, jnp.ones(6)
    data = Data(ones[:, None], jnp.ones(6, jnp.int32), jnp.array([0, 1, 0, 1, 0, 1]), ones)
    moved = jax.jacobian(lambda scores: fit_thresholds(scores, data))(scores)
    np.testing.assert_allclose(moved, [[0, 0, 0.5, 0, 0.5, 0], [0, 0, 0, 0.5, 0, 0.5]])
