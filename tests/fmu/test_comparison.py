"""All methods on the same rows: each leaves what ``remove`` leaves, and the columns are those of the definition."""

import jax
import numpy as np
import pytest

from fmu_jax import (
    Objective,
    certify,
    comparison,
    datasets,
    fairness_interval,
    fit,
    heads,
    metrics,
    predict_labels,
    removal,
    remove,
    sample_noise,
    thresholds,
)
from tests.placing import put

SPLIT = datasets.synthetic(300, 3, seed=0)
TRAIN, TEST = SPLIT.train, SPLIT.test
OBJECTIVE = Objective(l2=1e-2, fairness=1.0)
NOISE = sample_noise(TRAIN.x[0], key=jax.random.key(0), sigma=0.5)
FORGET = np.arange(6)


@pytest.fixture(scope="module")
def found():
    params = fit(OBJECTIVE, TRAIN, noise=NOISE).params
    ensemble = removal.fit_ensemble(OBJECTIVE, TRAIN, 2, key=jax.random.key(1))
    ticks = iter(range(100))
    options = {"noise": NOISE, "ensemble": ensemble, "clock": lambda: float(next(ticks))}
    return params, ensemble, comparison.compare(OBJECTIVE, params, TRAIN, FORGET, **options)


@pytest.mark.slow
def test_every_outcome_is_that_of_remove(found):
    params, ensemble, outcomes = found
    assert list(outcomes) == list(comparison.EVERY)
    assert set(outcomes) == {*removal.METHODS, "no_removal"}
    options = {"noise": NOISE, "allow_unfair": True}
    best = remove(OBJECTIVE, params, TRAIN, FORGET, method="retrain", **options).params
    for method, outcome in outcomes.items():
        if method == "no_removal":
            wanted, left = params, TRAIN.weight
            assert outcome.removal is outcome.seconds is None
        else:
            start, how = params, options
            if method == "sharded":
                start, how = ensemble.params, {"allow_unfair": True, "shard": ensemble.shard}
            wanted = remove(OBJECTIVE, start, TRAIN, FORGET, method=method, **how).params
            left = TRAIN.weight.at[FORGET].set(0)
            assert outcome.seconds == 1.0  # One tick between the calls of the clock, which a call before does not ask.
        np.testing.assert_array_equal(outcome.params, wanted)
        np.testing.assert_array_equal(outcome.remaining.weight, left)
        if method == "sharded":
            assert outcome.distance is None
        else:
            assert outcome.distance == pytest.approx(float(np.linalg.norm(wanted - best)))


def test_shards_are_dealt_and_trained_as_by_hand(found):
    _, ensemble, _ = found
    shard = removal.make_shards(len(TRAIN.y), 2, key=jax.random.key(1))
    np.testing.assert_array_equal(ensemble.shard, shard)
    np.testing.assert_array_equal(ensemble.params, removal.fit_shards(OBJECTIVE, TRAIN, shard).params)


def test_labels_are_measured_as_each_method_predicts(found):
    _, ensemble, outcomes = found
    row = comparison.measure(OBJECTIVE, outcomes["fair_newton"], TEST)
    labels = predict_labels(OBJECTIVE, outcomes["fair_newton"].params, TEST.x)
    assert row == metrics.columns(metrics.group_metrics(labels, TEST))
    assert row == metrics.measure(OBJECTIVE, outcomes["fair_newton"].params, TEST)
    votes = (np.asarray(TEST.x @ outcomes["sharded"].params.T) > 0).sum(axis=1) > len(ensemble.params) / 2
    row = comparison.measure(OBJECTIVE, outcomes["sharded"], TEST)
    assert row["accuracy"] == pytest.approx((votes == np.asarray(TEST.y)).mean())


@pytest.mark.parametrize("own", [False, True])
def test_changes_are_counted(own, found):
    _, _, outcomes = found
    chosen = {name: outcomes[name] for name in ("retrain", "newton", "sharded")}
    table = comparison.changes(chosen, TRAIN, TEST, thresholds=own)
    assert [row["method"] for row in table] == list(chosen)
    labels = []
    for outcome in chosen.values():
        theta = np.atleast_2d(outcome.params).mean(axis=0)
        limit = np.zeros(2)
        if own:
            limit = np.asarray(thresholds.fit_thresholds(TRAIN.x @ theta, outcome.remaining))
        labels.append(np.asarray(TEST.x) @ theta > limit[np.asarray(TEST.group)])
    for row, label in zip(table, labels, strict=True):
        assert row["disagreement"] == pytest.approx((label != labels[0]).mean())
        gaps = [metrics.group_metrics(each, TEST) for each in (label, labels[0])]
        change = gaps[0].equalized_odds_mean - gaps[1].equalized_odds_mean
        assert row["odds_gap_change"] == pytest.approx(float(change), abs=1e-12)
        change = gaps[0].demographic_parity - gaps[1].demographic_parity
        assert row["parity_gap_change"] == pytest.approx(float(change), abs=1e-12)
    assert table[0]["disagreement"] == table[0]["odds_gap_change"] == 0


def test_columns_of_a_certificate(found):
    params, _, outcomes = found
    level = {"sigma": 0.5, "delta": 1e-5, "noise": NOISE}
    row = comparison.certificate_columns(OBJECTIVE, params, outcomes["fair_newton"], TEST, **level)
    made = outcomes["fair_newton"].removal
    certificate = certify(OBJECTIVE, params, made, **level)
    interval = fairness_interval(OBJECTIVE, made, TEST, noise=NOISE)
    assert row == {name: float(getattr(certificate, name)) for name in comparison.CERTIFIED} | {
        "undecided": int(interval.undecided),
        "odds_low": float(interval.equalized_odds_mean[0]),
        "odds_high": float(interval.equalized_odds_mean[1]),
    }
    few = comparison.certificate_columns(OBJECTIVE, params, outcomes["fair_newton"], TEST, names=("epsilon",), **level)
    assert set(few) == {"epsilon", "undecided", "odds_low", "odds_high"}
    silent = level | {"sigma": 0.0}
    assert comparison.certificate_columns(OBJECTIVE, params, outcomes["fair_newton"], TEST, **silent) == {}
    with pytest.raises(ValueError, match="'no_removal' removes nothing"):
        comparison.certificate_columns(OBJECTIVE, params, outcomes["no_removal"], TEST, **level)


@pytest.mark.slow
def test_columns_of_heads_of_many_classes():
    """Of three classes: distances and accuracy of all together, and a price that counts once for each removed row."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, len(TRAIN.y))
    rows = heads.one_vs_rest(heads.as_rows(TRAIN.x), labels, TRAIN.group, classes=3)
    noise = put(rng.normal(size=(3, rows.x.shape[1])))
    before = heads.fit_head(OBJECTIVE, rows, noise=noise).params
    methods = ("retrain", "no_removal", "fair_newton")
    outcomes = comparison.compare(OBJECTIVE, before, rows, FORGET, methods=methods, noise=noise)
    apart = np.linalg.norm(np.asarray(before - outcomes["retrain"].params))
    assert outcomes["no_removal"].distance == pytest.approx(float(apart))
    row = comparison.measure(OBJECTIVE, outcomes["fair_newton"], rows)
    right = np.argmax(np.asarray(rows.x @ outcomes["fair_newton"].params.T), axis=1) == labels
    assert row["accuracy"] == pytest.approx(right.mean())
    level = {"sigma": 1.0, "delta": 1e-5, "noise": noise}
    row = comparison.head_columns(OBJECTIVE, before, outcomes["fair_newton"], (0.25, 0.0), **level)
    head = heads.certify_head(OBJECTIVE, before, outcomes["fair_newton"].removal, **level)
    assert row["head_epsilon"] == float(head.epsilon)
    assert row["total_epsilon"] == pytest.approx(float(head.epsilon) + 0.25 * len(FORGET))
    assert (row["extractor_epsilon"], row["total_delta"]) == (0.25, 1e-5)
    assert comparison.head_columns(OBJECTIVE, before, outcomes["no_removal"], (0.25, 0.0), **level) == {}


def test_shards_must_be_given(found):
    params, _, _ = found
    with pytest.raises(ValueError, match="'sharded' needs `ensemble`"):
        comparison.compare(OBJECTIVE, params, TRAIN, FORGET, noise=NOISE)
