"""Group metrics against fairlearn, scikit-learn and the counting oracle."""

import fairlearn.metrics as fairlearn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from fmu_jax import Objective, datasets, fit, heads, make_data, metrics
from fmu_jax.metrics import group_metrics
from tests import oracles
from tests.placing import put


def draw(seed, n=200):
    """Labels, groups, weights and predictions, each cell non-empty, groups and labels unbalanced."""
    rng = np.random.default_rng(seed)
    s = (rng.random(n) < 0.3).astype(int)
    y = (rng.random(n) < 0.3 + 0.3 * s).astype(int)
    prediction = (rng.random(n) < 0.2 + 0.4 * y + 0.2 * s).astype(np.int32)
    return y, s, (rng.random(n) < 0.8).astype(float), prediction


def rows(y, s, w):
    return make_data(np.ones((len(y), 1)), y, s, w)


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_fairlearn_on_the_rows_that_remain(seed):
    y, s, w, prediction = draw(seed)
    found = group_metrics(put(prediction), rows(y, s, w))
    kept = w == 1
    y_true, y_pred, group = y[kept], prediction[kept], s[kept]
    options = {"y_true": y_true, "y_pred": y_pred, "sensitive_features": group}
    by_group = fairlearn.MetricFrame(
        metrics={"accuracy": accuracy_score, "selection": fairlearn.selection_rate}, **options
    ).by_group
    close = {"rtol": 0, "atol": 1e-12}
    np.testing.assert_allclose(found.demographic_parity, fairlearn.demographic_parity_difference(**options), **close)
    np.testing.assert_allclose(found.equal_opportunity, fairlearn.equal_opportunity_difference(**options), **close)
    for field, agg in (("equalized_odds", "worst_case"), ("equalized_odds_mean", "mean")):
        expected = fairlearn.equalized_odds_difference(**options, agg=agg)
        np.testing.assert_allclose(getattr(found, field), expected, **close)
    np.testing.assert_allclose(found.group_accuracy, by_group["accuracy"].sort_index(), **close)
    np.testing.assert_allclose(found.selection_rate, by_group["selection"].sort_index(), **close)
    np.testing.assert_allclose(found.accuracy, accuracy_score(y_true, y_pred), **close)
    np.testing.assert_allclose(found.balanced_accuracy, balanced_accuracy_score(y_true, y_pred), **close)
    impact = y_pred[group == 0].mean() / y_pred[group == 1].mean()
    np.testing.assert_allclose(found.disparate_impact, impact, **close)
    assert impact < 1  # so that the other direction would be seen


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_the_counting_oracle(seed):
    y, s, w, prediction = draw(100 + seed)
    found = group_metrics(put(prediction), rows(y, s, w))
    expected = oracles.group_metrics(prediction, y, s, w)
    for field, name in {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced_accuracy",
        "demographic_parity": "demographic_parity",
        "equal_opportunity": "equal_opportunity",
        "equalized_odds": "equalized_odds_max",
        "equalized_odds_mean": "equalized_odds_mean",
        "disparate_impact": "disparate_impact",
    }.items():
        np.testing.assert_allclose(getattr(found, field), expected[name], atol=1e-12, err_msg=field)
    np.testing.assert_allclose(found.group_accuracy, [expected["accuracy_0"], expected["accuracy_1"]])
    np.testing.assert_allclose(found.selection_rate, [expected["selection_rate_0"], expected["selection_rate_1"]])


def test_equal_to_fairlearn_on_real_data():
    data = datasets.load("compas", group="gender", seed=0).test
    prediction = np.asarray(data.x[:, 3] > jnp.median(data.x[:, 3])).astype(np.int32)
    options = {"y_true": data.y, "y_pred": prediction, "sensitive_features": data.group}
    options = {name: np.asarray(value) for name, value in options.items()}
    found = group_metrics(put(prediction), data)
    np.testing.assert_allclose(found.demographic_parity, fairlearn.demographic_parity_difference(**options))
    np.testing.assert_allclose(found.equalized_odds, fairlearn.equalized_odds_difference(**options))


def test_vmapped_over_models_and_jitted():
    y, s, w, _ = draw(0)
    predictions = jnp.array([draw(seed)[3] for seed in range(4)])
    data = rows(y, s, w)
    batched = jax.vmap(group_metrics, in_axes=(0, None))(predictions, data)
    for model, prediction in enumerate(predictions):
        one = jax.jit(group_metrics)(prediction, data)
        jax.tree.map(lambda many, single, model=model: np.testing.assert_allclose(many[model], single), batched, one)
    assert batched.selection_rate.shape == (4, 2)


def test_booleans_are_labels_too():
    y, s, w, prediction = draw(0)
    data = rows(y, s, w)
    as_bool = group_metrics(jnp.array(prediction, bool), data)
    jax.tree.map(np.testing.assert_array_equal, as_bool, group_metrics(put(prediction), data))


def test_a_rate_of_no_rows_is_nan_and_the_others_are_not():
    """No row of group 0 has label 1: its true positive rate does not exist."""
    data = rows([0, 0, 0, 1, 0], [0, 0, 1, 1, 1], np.ones(5))
    found = group_metrics(jnp.array([0, 1, 0, 1, 1], jnp.int32), data)
    for field in ("equal_opportunity", "equalized_odds", "equalized_odds_mean"):
        assert np.isnan(getattr(found, field)), field
    assert float(found.demographic_parity) == pytest.approx(2 / 3 - 1 / 2)
    assert float(found.accuracy) == pytest.approx(3 / 5)


@pytest.mark.parametrize("n", [4, 6])
def test_as_many_predictions_as_rows(n):
    with pytest.raises(ValueError, match=r"`prediction` must have shape \(5,\), one label a row; got"):
        group_metrics(jnp.zeros(n, jnp.int32), rows([0, 1, 0, 1, 1], [0, 0, 1, 1, 1], np.ones(5)))


def test_many_models_many_classes_and_gaps_of_scores_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    x, group = rng.normal(size=(40, 3)), rng.integers(0, 2, 40)
    weight = (np.arange(40) % 5 > 0).astype(float)
    data = make_data(x, rng.integers(0, 2, 40), group, weight)
    models = rng.normal(size=(4, 3))
    found = metrics.metrics_of_models(Objective(l2=1e-2), put(models), data)
    for k, theta in enumerate(models):
        np.testing.assert_allclose(found.equalized_odds[k], group_metrics(x @ theta > 0, data).equalized_odds)
    assert metrics.columns(group_metrics(x @ models[0] > 0, data))["selection_rate_1"] == pytest.approx(
        (x @ models[0] > 0)[(group == 1) & (weight > 0)].mean()
    )
    labels, label = rng.integers(0, 3, 40), rng.integers(0, 3, 40)
    many = heads.one_vs_rest(put(x), labels, put(group), classes=3, groups=2)._replace(weight=data.weight)
    row = metrics.metrics_of_classes(label, many)
    assert row["accuracy"] == pytest.approx((labels == label)[weight > 0].mean())
    alone = [group_metrics((label == c).astype(int), many._replace(y=many.y[c])).demographic_parity for c in range(3)]
    assert row["demographic_parity"] == pytest.approx(np.mean(alone))
    for wrong in (label + 1, label[:5]):
        with pytest.raises(ValueError, match="`label` must"):
            metrics.metrics_of_classes(wrong, many)
    scores = x @ models[0]
    of_group = [scores[(group == g) & (weight > 0)].mean() for g in (0, 1)]
    gap = metrics.score_gaps(Objective(l2=1e-2, fairness=1.0, penalty="demographic_parity"), put(scores), data)
    np.testing.assert_allclose(gap, [abs(of_group[0] - of_group[1]) / scores.std()], rtol=1e-9)
    objective = Objective(l2=1e-2, fairness=1.0, penalty="demographic_parity")
    row = metrics.measure_gaps(objective, put(models[0]), data)
    assert row.pop("score_gap") == row.pop("score_gap_mean") == pytest.approx(float(gap[0]))
    assert row == metrics.measure(objective, put(models[0]), data)
    assert row == metrics.columns(group_metrics(scores > 0, data))
    assert metrics.means(found, ["accuracy"]) == {"accuracy": pytest.approx(float(np.mean(found.accuracy)))}


def test_groupings_have_the_gaps_of_the_whole_and_of_each_attribute_by_name():
    split = datasets.synthetic(300, 4, seed=0)
    data, objective = split.test, Objective(l2=1e-2, fairness=0.0)
    params = fit(objective, split.train).params
    other = data._replace(group=jnp.asarray(np.arange(len(data.y)) % 2, data.group.dtype))
    found = metrics.measure_groupings(objective, params, {"parity": other, "both": data})
    whole, alone = (metrics.measure_gaps(objective, params, rows) for rows in (data, other))
    np.testing.assert_equal({name: found[name] for name in whole}, whole)
    more = ("equalized_odds_mean", "demographic_parity", "equal_opportunity", "score_gap")
    assert {name: found[f"parity_{name}"] for name in more} == {name: alone[name] for name in more}
    assert len(found) == len(whole) + len(more)
    assert found["parity_demographic_parity"] != found["demographic_parity"]  # A swapped grouping would show.
