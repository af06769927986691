"""Per-group thresholds give both groups the common rate, up to one row."""

import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax import make_data
from fmu_jax.thresholds import fit_thresholds, predict_with_thresholds

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
    thresholds = fit_thresholds(jnp.array(SCORES), DATA, rate=rate)
    predicted = np.asarray(predict_with_thresholds(jnp.array(SCORES), DATA.group, thresholds))
    for g in (0, 1):
        rows = counted & (g == S)
        assert abs(predicted[rows].mean() - target) <= 0.5 / rows.sum() + 1e-12
        assert abs((SCORES > 0)[rows].mean() - target) > 2 / rows.sum()  # not so before


def test_forgotten_rows_play_no_part():
    wild = jnp.where(DATA.weight > 0, jnp.array(SCORES), 1e6)
    np.testing.assert_array_equal(fit_thresholds(wild, DATA), fit_thresholds(jnp.array(SCORES), DATA))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_all_or_none_chosen_is_kept(sign):
    scores = jnp.array(sign * (np.abs(SCORES) + 0.1))
    thresholds = fit_thresholds(scores, DATA, rate="selection_rate")
    predicted = predict_with_thresholds(scores, DATA.group, thresholds)
    np.testing.assert_array_equal(np.asarray(predicted)[W == 1], int(sign > 0))


def test_unknown_rate_is_refused():
    with pytest.raises(ValueError, match="unknown rate 'tpr'; known: selection_rate, true_positive_rate"):
        fit_thresholds(jnp.array(SCORES), DATA, rate="tpr")
