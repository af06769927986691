"""Noise on published models: the distances, noise levels and means of the functions that the tables are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax import (
    Objective,
    calibration,
    certify,
    certify_descent,
    datasets,
    fit,
    metrics,
    output_perturbation,
    publication,
    releases,
    remove,
    sample_noise,
)

SPLIT = datasets.synthetic(300, 3, seed=0)
TRAIN, TEST = SPLIT.train, SPLIT.test
OBJECTIVE = Objective(l2=1e-2, fairness=1.0)
FORGET, DELTA = np.array([3, 14]), 1e-5


@pytest.fixture(scope="module")
def before():
    return fit(OBJECTIVE, TRAIN).params


@pytest.fixture(scope="module")
def table(before):
    sizes = {"epsilons": (1.0,), "steps": (5,), "delta": DELTA, "draws": 3, "key": jax.random.key(0)}
    return publication.cost_table(OBJECTIVE, before, TRAIN, TEST, FORGET, **sizes)


def test_every_model_has_a_certified_distance_and_its_own_noise(before):
    found = publication.publishable(OBJECTIVE, before, TRAIN, FORGET, steps=(5,), delta=DELTA)
    assert [(each.method, each.bound, each.steps) for each in found] == [
        ("fair_newton", "a_posteriori", None),
        ("descent", "a_priori", 5),
        ("descent", "a_posteriori", 5),
    ]
    newton, priori, ours = found
    step = remove(OBJECTIVE, before, TRAIN, FORGET)
    certificate = certify(OBJECTIVE, before, step, sigma=1.0, delta=DELTA)
    assert newton.distance == min(float(certificate.distance_bound), float(certificate.local_distance_bound))
    moved = remove(OBJECTIVE, before, TRAIN, FORGET, method="descent", steps=5)
    c = certify_descent(OBJECTIVE, before, moved, publish_sigma=0.3, delta=DELTA, steps=5)
    assert (priori.distance, ours.distance) == (float(c.a_priori_distance), float(c.distance))
    retrained = remove(OBJECTIVE, before, TRAIN, FORGET, method="retrain").params
    for each in found:
        assert float(np.linalg.norm(each.params - retrained)) <= each.distance
    assert priori.sigma_from is output_perturbation.neel_sigma
    assert newton.sigma_from is ours.sigma_from is output_perturbation.publish_sigma_from


def test_costs_are_means_over_the_same_draws(before, table):
    keys = [(row["method"], row.get("noise"), row.get("bound"), row.get("steps"), row["epsilon"]) for row in table]
    assert keys == [
        ("retrain", None, None, None, 0.0),
        ("fair_newton", "published", "a_posteriori", None, 1.0),
        ("descent", "published", "a_priori", 5, 1.0),
        ("descent", "published", "a_posteriori", 5, 1.0),
        ("fair_newton", "objective", None, None, 1.0),
    ]
    unit = sample_noise(jnp.zeros((3, len(before))), key=jax.random.key(0), sigma=1.0)
    step = remove(OBJECTIVE, before, TRAIN, FORGET).params
    row = table[1]
    assert row["sigma"] == float(output_perturbation.publish_sigma_from(row["distance"], 1.0, DELTA))
    each = [metrics.measure(OBJECTIVE, step + row["sigma"] * draw, TEST) for draw in unit]
    for name in publication.MEASURES:
        assert row[name] == pytest.approx(np.mean([one[name] for one in each]))
    mask = jnp.zeros(len(TRAIN.y), bool).at[FORGET].set(True)
    found = calibration.calibrate_draws(OBJECTIVE, TRAIN, mask, unit, epsilon=1.0, delta=DELTA, init=before)
    assert table[-1]["sigma"] == float(jnp.median(found.sigma))
    each = [metrics.measure(OBJECTIVE, params, TEST) for params in found.params]
    assert table[-1]["accuracy"] == pytest.approx(np.mean([one["accuracy"] for one in each]))
    retrained = remove(OBJECTIVE, before, TRAIN, FORGET, method="retrain").params
    assert table[0]["accuracy"] == pytest.approx(metrics.measure(OBJECTIVE, retrained, TEST)["accuracy"])


def test_where_no_noise_certifies_the_cells_are_empty(before):
    sizes = {"epsilons": (1e-7,), "steps": (), "delta": DELTA, "draws": 1, "key": jax.random.key(0)}
    row = publication.cost_table(OBJECTIVE, before, TRAIN, TEST, np.arange(40), **sizes)[-1]
    assert row["noise"] == "objective"
    assert all(row[name] is None for name in ("sigma", "distance", *publication.MEASURES))


def test_a_release_beyond_what_is_admitted_has_no_metrics(before):
    removal = remove(OBJECTIVE, before, TRAIN, FORGET)
    distance = float(releases.distance_to_retrained(OBJECTIVE, removal))
    options = {"mus": (0.5, 2.0), "key": jax.random.key(0)}
    table = publication.release_table(OBJECTIVE, removal, TEST, admitted=2 * distance, **options)
    for row, mu in zip(table, (0.5, 2.0), strict=True):
        scale = releases.scale_for(2 * distance, mu=mu)
        assert (row["mu"], row["noise"], row["distance"]) == (mu, float(scale), distance)
        model = releases.release(removal.params, distance, key=options["key"], scale=scale, admitted=2 * distance)
        assert (row["certified_mu"], row["epsilon"]) == (float(model.mu), float(model.epsilon))
        assert row["accuracy"] == metrics.measure(OBJECTIVE, model.params, TEST)["accuracy"]
    refused = publication.release_table(OBJECTIVE, removal, TEST, admitted=distance / 2, **options)
    assert [set(row) for row in refused] == [{"mu", "noise", "distance"}] * 2
