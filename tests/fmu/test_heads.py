"""Heads on features: all that the linear model shows, for two classes and for many, through the same functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from fmu_jax import Objective, certify, fit, heads, make_data, privacy, remove
from pags_jax import models
from tests import oracles
from tests.fmu.test_compilation import counted
from tests.placing import put

N, D, K = 120, 5, 3
X, Y, S, W, REMOVED, W_LEFT = oracles.random_problem(3, N, D, remove=0.1, already_removed=4)
LABELS = np.random.default_rng(1).integers(0, K, N)
ROWS = np.flatnonzero(REMOVED)
L2, FAIRNESS, PENALTY, SIGMA, DELTA = 0.01, 2.0, "equalized_odds", 2.0, 1e-5
OBJECTIVE = Objective(l2=L2, fairness=FAIRNESS)


def problem(classes):
    """Data, 0/1 labels of each class, and noise, with or without a class axis."""
    noise = 2.0 * np.random.default_rng(9).normal(size=(K, D))
    if classes == 2:
        return make_data(X, Y, S, W), [Y], put(noise[0])
    return heads.one_vs_rest(X, LABELS, S, classes=K, weight=W), [c == LABELS for c in range(K)], put(noise)


def each(noise):
    return np.atleast_2d(noise)


# Two classes are the linear model bit for bit, as a test below says, which has tests of its own.
both = pytest.mark.parametrize("classes", [pytest.param(2, marks=pytest.mark.weekly), K])


@both
def test_fitted_unlearned_and_retrained_as_the_oracles(classes):
    data, ys, noise = problem(classes)
    before = heads.fit_head(OBJECTIVE, data, noise=noise)
    assert np.all(before.converged)
    tail = [(L2, FAIRNESS, PENALTY, b) for b in each(noise)]
    for theta, y, rest in zip(each(before.params), ys, tail, strict=True):
        np.testing.assert_allclose(theta, oracles.minimise(X, y.astype(int), S, W, *rest), atol=1e-8)
    cases = {
        "fair_newton": lambda t, y, rest: oracles.newton_step_fair(t, X, y, S, W_LEFT, *rest),
        "influence": lambda t, y, rest: oracles.influence_step(t, X, y, S, W, W_LEFT, *rest),
        "retrain": lambda _, y, rest: oracles.minimise(X, y, S, W_LEFT, *rest),
    }
    for method, expected in cases.items():
        removal = heads.remove_head(OBJECTIVE, before.params, data, ROWS, noise=noise, method=method)
        np.testing.assert_array_equal(removal.data.weight, W_LEFT)
        np.testing.assert_array_equal(removal.forgotten, REMOVED)
        for theta, start, y, rest in zip(each(removal.params), each(before.params), ys, tail, strict=True):
            np.testing.assert_allclose(theta, expected(start, y.astype(int), rest), atol=1e-8)


@both
@pytest.mark.parametrize("method", ["fair_newton", "influence"])
def test_the_certificate_is_that_of_all_classes_stacked(classes, method):
    data, ys, noise = problem(classes)
    before = heads.fit_head(OBJECTIVE, data, noise=noise).params
    removal = heads.remove_head(OBJECTIVE, before, data, ROWS, noise=noise, method=method)
    found = heads.certify_head(OBJECTIVE, before, removal, sigma=SIGMA, delta=DELTA, noise=noise)
    tail = (L2, FAIRNESS, PENALTY)
    stacked = zip(each(removal.params), ys, each(noise), strict=True)
    gradient = np.concatenate([oracles.gradient(t, X, y.astype(int), S, W_LEFT, *tail, b) for t, y, b in stacked])
    residual = np.linalg.norm(gradient)
    assert residual <= found.residual_norm <= residual + 1e-9
    assert float(found.epsilon) == pytest.approx(float(privacy.certified_epsilon(found.residual_norm, SIGMA, DELTA)))
    assert found.residual_norm <= found.row_bound <= found.gram_bound
    retrained = heads.remove_head(OBJECTIVE, before, data, ROWS, noise=noise, method="retrain").params
    distance = np.linalg.norm(removal.params - retrained)
    assert distance <= found.local_distance_bound
    assert distance <= found.distance_bound
    assert (float(found.sigma), float(found.delta)) == (SIGMA, DELTA)


def test_two_classes_are_the_linear_model_bit_for_bit():
    data, _, noise = problem(2)
    before, head = fit(OBJECTIVE, data, noise=noise), heads.fit_head(OBJECTIVE, data, noise=noise)
    jax.tree.map(np.testing.assert_array_equal, before, head)
    removal = remove(OBJECTIVE, before.params, data, ROWS, noise=noise)
    jax.tree.map(
        np.testing.assert_array_equal, removal, heads.remove_head(OBJECTIVE, head.params, data, ROWS, noise=noise)
    )
    options = {"sigma": SIGMA, "delta": DELTA, "noise": noise}
    one, other = (f(OBJECTIVE, before.params, removal, **options) for f in (certify, heads.certify_head))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_without_noise_in_one_class_nothing_is_certified():
    data, _, noise = problem(K)
    noise = noise.at[1].set(0)
    before = heads.fit_head(OBJECTIVE, data, noise=noise).params
    removal = heads.remove_head(OBJECTIVE, before, data, ROWS, noise=noise)
    assert np.isinf(heads.certify_head(OBJECTIVE, before, removal, sigma=SIGMA, delta=DELTA, noise=noise).epsilon)


def test_another_forget_set_compiles_nothing():
    data, _, noise = problem(K)
    before = heads.fit_head(OBJECTIVE, data, noise=noise).params

    def serve(forget):
        removal = heads.remove_head(OBJECTIVE, before, data, forget, noise=noise)
        heads.certify_head(OBJECTIVE, before, removal, sigma=SIGMA, delta=DELTA, noise=noise)

    serve(ROWS[:2])
    serve(ROWS[:3])
    with counted() as seen:
        serve(ROWS)
        serve(ROWS[1:])
    assert not seen


def test_private_features_add_their_price_once_for_each_removed_row():
    data, _, noise = problem(2)
    before = fit(OBJECTIVE, data, noise=noise).params
    removal = remove(OBJECTIVE, before, data, ROWS[:3], noise=noise)
    head = certify(OBJECTIVE, before, removal, sigma=SIGMA, delta=DELTA, noise=noise)
    one = heads.with_features(head, epsilon=0.5, delta=1e-6, rows=1)
    assert float(one.epsilon - head.epsilon) == pytest.approx(0.5)
    assert float(one.delta - head.delta) == pytest.approx(1e-6)
    three = heads.with_features(head, epsilon=0.5, delta=1e-6, rows=3)
    assert float(three.epsilon - head.epsilon) == pytest.approx(1.5)
    # Step by step, as group privacy composes: delta_m = e^eps delta_(m-1) + delta.
    assert float(three.delta - head.delta) == pytest.approx(1e-6 * (1 + np.exp(0.5) + np.exp(1.0)))
    with pytest.raises(ValueError, match="`rows` must be a whole number of at least 1, got 0"):
        heads.with_features(head, epsilon=1.0, delta=0.0, rows=0)
    free = heads.with_features(head, epsilon=0.0, delta=0.0, rows=3)
    assert (float(free.epsilon), float(free.delta)) == (float(head.epsilon), float(head.delta))


def test_rows_are_mapped_one_by_one_within_the_unit_ball():
    features = 3 * np.random.default_rng(0).normal(size=(20, 2, 3))
    features[4] = 0
    for radius in (None, 5.0):
        rows = heads.as_rows(put(features), radius=radius)
        assert rows.shape == (20, 7)
        np.testing.assert_array_equal(rows[:, -1], 1)
        assert float(jnp.linalg.norm(rows[:, :-1], axis=1).max()) <= 1 + 1e-12
        alone = heads.as_rows(put(features[7:8]), radius=radius)
        np.testing.assert_allclose(alone[0], rows[7], rtol=1e-12)
    flat, norms = features.reshape(20, 6), np.linalg.norm(features.reshape(20, 6), axis=1)
    short = norms < 5
    assert short.any()
    assert not short.all()
    np.testing.assert_allclose(rows[short, :-1], flat[short] / 5, rtol=1e-12)


def test_features_of_any_image_model():
    model = models.create("lenet", classes=K, width=0.1)
    images = jax.random.uniform(jax.random.key(0), (12, 28, 28, 1), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(1), images)
    found = heads.layer_features(model, variables, images, layer="Dense_0")
    dense = variables["params"]["Dense_1"]
    expected = jax.nn.relu(found) @ dense["kernel"] + dense["bias"][None]
    np.testing.assert_allclose(jax.jit(model.apply)(variables, images), expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"calls no layer 'Dense_7'; it calls: .*Dense_0"):
        heads.layer_features(model, variables, images, layer="Dense_7")


def test_predicts_the_largest_score():
    params = np.random.default_rng(0).normal(size=(K, D))
    np.testing.assert_array_equal(heads.predict_head(put(params), put(X)), (X @ params.T).argmax(1))
    np.testing.assert_array_equal(heads.predict_head(put(params[0]), put(X)), X @ params[0] > 0)


def test_bad_input_is_refused():
    data, _, noise = problem(K)
    with pytest.raises(ValueError, match="holds 3, but there are 3 classes, 0 to 2"):
        heads.one_vs_rest(X, LABELS + 1, S, classes=K)
    with pytest.raises(ValueError, match="label 1 is left in class 2 of the data"):
        heads.one_vs_rest(X, LABELS % 2, S, classes=K)
    with pytest.raises(ValueError, match=r"`noise` must have shape \(3, 5\), a head for each class"):
        heads.fit_head(OBJECTIVE, data, noise=noise[0])
    with pytest.raises(ValueError, match="label 1 is left in class 0 of what remains"):
        heads.remove_head(OBJECTIVE, noise, data, (LABELS == 0) & (W > 0))
    with pytest.raises(ValueError, match="a head is a linear model"):
        heads.fit_head(Objective(l2=L2, predict=linen.Dense(1).apply), data)
    with pytest.raises(ValueError, match="`radius` must be positive"):
        heads.as_rows(jnp.ones((2, 2)), radius=0.0)


@pytest.mark.slow
def test_many_classes_and_many_groups_are_the_linear_models_side_by_side():
    three = (np.arange(N) % 3).astype(np.int32)
    data, noise = (
        heads.one_vs_rest(X, LABELS, three, classes=K),
        put(np.random.default_rng(2).normal(size=(K, D))),
    )
    assert data.groups == 3
    before = heads.fit_head(OBJECTIVE, data, noise=noise).params
    removal = heads.remove_head(OBJECTIVE, before, data, ROWS, noise=noise)
    whole = heads.certify_head(OBJECTIVE, before, removal, sigma=SIGMA, delta=DELTA, noise=noise)
    residuals = []
    for c in range(K):
        alone = make_data(X, c == LABELS, three)
        one = fit(OBJECTIVE, alone, noise=noise[c]).params
        np.testing.assert_allclose(before[c], one, atol=1e-9)
        step = remove(OBJECTIVE, before[c], alone, ROWS, noise=noise[c])
        np.testing.assert_allclose(removal.params[c], step.params, atol=1e-10)
        residuals.append(certify(OBJECTIVE, before[c], step, sigma=SIGMA, delta=DELTA, noise=noise[c]).residual_norm)
    np.testing.assert_allclose(whole.residual_norm, np.linalg.norm(residuals), rtol=1e-6)
