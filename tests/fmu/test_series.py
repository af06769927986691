"""Series whose guarantee is fixed beforehand: never beyond what is admitted, and refreshed when they would be."""

import itertools

import jax
import numpy as np
import pytest

from fmu_jax import Objective, datasets, fit, forget_sets, metrics, privacy, releases, remove, stream
from fmu_jax.data import select_rows

OBJECTIVE = Objective(l2=1e-2, fairness=1.0)


@pytest.fixture(scope="module")
def rows():
    data = datasets.synthetic(300, 4, seed=0).train
    batches = forget_sets.draw_batches(data, 6, 4, seed=0)
    return data, batches, forget_sets.draw_batches(data, 2, 4, seed=1)


@pytest.mark.parametrize("kind", ["isotropic", "objective"])
def test_no_state_is_further_than_admitted_and_each_distance_is_a_bound(rows, kind):
    data, batches, rehearsed = rows
    series = stream.serve_for_releases(OBJECTIVE, data, batches, rehearsed[:1], kind=kind, slack=2.0)
    assert len(series.batches) == len(batches)
    for count in (1, 4, 6):
        at = stream.published_after(OBJECTIVE, series, count)
        assert at.true_distance <= at.distance <= series.admitted
        retrained = remove(OBJECTIVE, fit(OBJECTIVE, data).params, data, batches[:count].ravel(), method="retrain")
        apart = np.asarray(at.params - retrained.params)
        shape = np.eye(len(apart)) if at.shape is None else np.asarray(at.shape)
        assert at.true_distance == pytest.approx(np.sqrt(apart @ shape @ apart), rel=1e-4, abs=1e-12)
        assert at.refreshes == sum(batch.refreshed for batch in series.batches[:count])
    assert 0 < at.refreshes < len(batches)


def test_noise_in_training_keeps_each_model_within_its_epsilon(rows):
    data, batches, rehearsed = rows
    keys = jax.random.split(jax.random.key(0), 2)
    found = stream.serve_perturbed(OBJECTIVE, data, batches, rehearsed, mu=1.0, delta=1e-5, slack=1.5, keys=keys)
    assert found.epsilon == pytest.approx(float(privacy.gaussian_epsilon(1.0, 1.0, 1e-5)))
    assert len(found.draws) == 2
    for served in found.draws:
        assert all(float(batch.state.epsilon) <= found.epsilon for batch in served)
    assert not np.allclose(found.draws[0][-1].state.params, found.draws[1][-1].state.params)


def test_costs_are_those_of_the_models_that_a_series_publishes(rows):
    """Means over draws, of releases drawn by hand and of each stream under noise in training."""
    data, batches, rehearsed = rows
    test, key = datasets.synthetic(300, 4, seed=0).test, jax.random.key(2)
    shared = OBJECTIVE, data, test, batches, rehearsed[:1]
    options = {"kind": "isotropic", "mus": (0.5, 2.0), "lengths": (1, 4), "slack": 2.0, "draws": 3, "key": key}
    clock = itertools.count(step=0.5).__next__  # Every look at the clock takes half a second.
    table = stream.release_costs(*shared, **options, clock=clock)
    assert {(row["ms"], row["publish_ms"]) for row in table} == {(500.0, 500 / 3)}
    assert [(row["releases"], row["mu"]) for row in table] == [(1, 0.5), (1, 2.0), (4, 0.5), (4, 2.0)]
    series = stream.serve_for_releases(OBJECTIVE, data, batches, rehearsed[:1], kind="isotropic", slack=2.0)
    at, row = stream.published_after(OBJECTIVE, series, 4), table[-1]
    assert (row["admitted"], row["distance"], row["refreshes"]) == (series.admitted, at.distance, at.refreshes)
    assert row["scale"] == float(releases.scale_for(series.admitted, mu=2.0, releases=4))
    each = [
        releases.release(at.params, at.distance, key=one, scale=row["scale"], admitted=series.admitted).params
        for one in jax.random.split(jax.random.fold_in(key, 4), 3)
    ]
    accuracy = [metrics.measure(OBJECTIVE, params, test)["accuracy"] for params in each]
    assert row["accuracy"] == pytest.approx(np.mean(accuracy))
    assert row["accuracy_spread"] == pytest.approx(np.std(accuracy))
    options = {"mu": 1.0, "delta": 1e-5, "slack": 1.5, "keys": jax.random.split(key, 2)}
    (row,) = stream.perturbation_costs(*shared, lengths=(4,), **options)
    found = stream.serve_perturbed(OBJECTIVE, data, batches, rehearsed[:1], **options)
    assert (row["epsilon"], row["scale"], row["releases"]) == (found.epsilon, found.sigma, 4)
    assert row["refreshes"] == np.mean([sum(batch.refreshed for batch in served[:4]) for served in found.draws])
    accuracy = [metrics.measure(OBJECTIVE, served[3].state.params, test)["accuracy"] for served in found.draws]
    assert row["accuracy"] == pytest.approx(np.mean(accuracy))


def test_retraining_is_that_of_the_rows_that_are_left(rows):
    """By rows taken out of the table, not by weights of zero."""
    data, batches, _ = rows
    test = datasets.synthetic(300, 4, seed=0).test
    before, clock = fit(OBJECTIVE, data).params, itertools.count(step=2.0).__next__
    table = stream.retraining_costs(OBJECTIVE, before, data, test, batches, lengths=(1, 3), clock=clock)
    assert [(row["releases"], row["ms"], row["accuracy_spread"]) for row in table] == [(1, 2e3, 0), (3, 2e3, 0)]
    gone = np.concatenate(batches[:3])
    left = select_rows(data, np.setdiff1d(np.arange(len(data.y)), gone))
    retrained = fit(OBJECTIVE, left).params
    measured = metrics.measure(OBJECTIVE, retrained, test)
    assert table[1]["accuracy"] == pytest.approx(measured["accuracy"])
    found = stream.beside_retrained(OBJECTIVE, before, left, test, noise=None)
    apart = np.asarray(before) - np.asarray(retrained)
    assert found["distance"] == pytest.approx(float(np.linalg.norm(apart)), rel=1e-5)
    assert found["retrained_odds"] == pytest.approx(measured["equalized_odds_mean"])
    assert found["streamed_accuracy"] == pytest.approx(metrics.measure(OBJECTIVE, before, test)["accuracy"])


@pytest.mark.parametrize("slack", [0.0, float("nan"), float("inf")])
def test_a_slack_that_admits_nothing_or_all_is_refused(rows, slack):
    data, batches, rehearsed = rows
    with pytest.raises(ValueError, match="`slack` must be"):
        stream.serve_for_releases(OBJECTIVE, data, batches, rehearsed, kind="isotropic", slack=slack)
