"""One test for each numbered deviation (fmu_jax/README.md, "Where this differs from the reference").

Where the reference computes something, a NumPy twin of its formula stands here, so that each test also shows what it
would have given.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from fmu_jax import (
    Objective,
    certify,
    datasets,
    fit,
    heads,
    make_data,
    penalties,
    predict_labels,
    privacy,
    remove,
    sample_noise,
)
from fmu_jax.removal import fit_shards, make_shards, predict_shards
from tests import oracles
from tests.placing import put

L2 = 1e-3
P = oracles.random_problem(5, 120, 4, remove=0.15)
DATA = make_data(P.x, P.y, P.s)
LEFT = 1.0 - P.removed
FAIR, PLAIN = Objective(l2=L2, fairness=1.0), Objective(l2=L2)


def exact(objective, weight):
    return oracles.minimise(P.x, P.y, P.s, weight, L2, float(objective.fairness))


def distance(params, objective):
    return np.linalg.norm(np.asarray(params) - exact(objective, LEFT))


def test_d1_cell_sums_equal_the_dense_array_of_pairs():
    x0, x1 = P.x[P.s == 0], P.x[P.s == 1]
    same = P.y[P.s == 0][:, None] == P.y[P.s == 1][None]
    c = ((x0[:, None] - x1[None]) * same[..., None]).sum((0, 1)) / (len(x0) * len(x1))
    np.testing.assert_allclose(penalties.quadratic_form("equalized_odds", DATA), np.outer(c, c), atol=1e-15)


def reference_fair_step(theta):
    """Reference: gradient of removed rows and change of the fair term, as if from the optimum; ridge n l2."""
    n, k = len(P.y), P.removed.sum()
    full = oracles.penalty_matrix("equalized_odds", P.x, P.y, P.s, np.ones(n))
    left = oracles.penalty_matrix("equalized_odds", P.x, P.y, P.s, LEFT)
    gone = P.x[P.removed]
    step = gone.T @ (expit(gone @ theta) - P.y[P.removed]) + k * L2 * theta
    step += 2 * n * full @ theta - 2 * (n - k) * left @ theta
    p = expit(P.x @ theta)
    curved = (P.x * (LEFT * p * (1 - p))[:, None]).T @ P.x
    return theta + np.linalg.solve(curved + n * L2 * np.eye(len(theta)) + 2 * (n - k) * left, step)


def test_d2_an_unconverged_start_is_repaired():
    start = exact(FAIR, np.ones(len(P.y))) + 0.05
    ours = remove(FAIR, put(start), DATA, P.removed).params
    assert distance(ours, FAIR) < distance(reference_fair_step(start), FAIR) / 2
    nothing = remove(FAIR, put(start), DATA, []).params
    optimum = exact(FAIR, np.ones(len(P.y)))
    assert np.linalg.norm(nothing - optimum) < np.linalg.norm(start - optimum) / 5


def test_d3_what_remains_sets_the_ridge():
    start = exact(FAIR, np.ones(len(P.y)))
    ours = remove(FAIR, put(start), DATA, P.removed).params
    assert distance(ours, FAIR) < distance(reference_fair_step(start), FAIR)
    p = expit(P.x @ start)
    curved = (P.x * (LEFT * p * (1 - p))[:, None]).T @ P.x + LEFT.sum() * L2 * np.eye(4)
    curved += 2 * LEFT.sum() * oracles.penalty_matrix("equalized_odds", P.x, P.y, P.s, LEFT)
    grad = oracles.gradient(start, P.x, P.y, P.s, LEFT, L2, 1.0, "equalized_odds")
    np.testing.assert_allclose(ours, start - np.linalg.solve(curved, grad), atol=1e-10)


def test_d4_the_bias_enters_once():
    start = exact(PLAIN, np.ones(len(P.y)))
    n, k, gone = len(P.y), P.removed.sum(), P.x[P.removed]
    step = gone.T @ (expit(gone @ start) - P.y[P.removed]) + k * L2 * start
    bias = []
    for twice in (0.0, start[-1]):
        p = expit(P.x @ start + twice)
        hessian = (P.x * (LEFT * p * (1 - p))[:, None]).T @ P.x + (n - k) * L2 * np.eye(4)
        bias.append(start + np.linalg.solve(hessian, step))
    ours = np.asarray(remove(PLAIN, put(start), DATA, P.removed, method="newton").params)
    np.testing.assert_allclose(ours, bias[0], atol=1e-10)
    assert np.linalg.norm(ours - bias[1]) > 1e-4


@pytest.mark.parametrize("rows", [[70], [70, 11], [3, 4, 118]])
def test_d5_d6_projective_attains_the_leave_k_out_predictions_of_the_removed_rows(rows):
    """Resolve the IRLS problem without the rows, at the ridge of what remains; fewer rows than features."""
    start = exact(PLAIN, np.ones(len(P.y)))
    keep = np.setdiff1d(np.arange(len(P.y)), rows)
    p = expit(P.x @ start)
    w, z = p * (1 - p), P.x @ start + (P.y - p) / (p * (1 - p))
    x = P.x[keep]
    without = np.linalg.solve((x * w[keep, None]).T @ x + len(keep) * L2 * np.eye(4), x.T @ (w * z)[keep])
    ours = np.asarray(remove(PLAIN, put(start), DATA, rows, method="projective").params)
    np.testing.assert_allclose(P.x[rows] @ ours, P.x[rows] @ without, atol=1e-9)
    minimum_norm = np.linalg.pinv(P.x[rows]) @ (P.x[rows] @ (without - start))
    np.testing.assert_allclose(ours - start, minimum_norm, atol=1e-9)


def test_d7_shards_are_drawn_and_counted_freely():
    a, b = (np.asarray(make_shards(len(P.y), 3, key=jax.random.key(k))) for k in (0, 1))
    assert a.shape == (3, 40)
    assert not np.array_equal(a, b)
    assert not np.array_equal(a.ravel(), np.sort(a.ravel()))
    params = fit_shards(PLAIN, DATA, put(a)).params
    votes = (P.x @ np.asarray(params).T > 0).sum(axis=1)
    np.testing.assert_array_equal(predict_shards(params, DATA.x), votes >= 2)


def test_d8_epsilon_divides_by_sigma():
    assert privacy.epsilon_from(0.3, 10.0, 1e-3) == pytest.approx(0.03 * np.sqrt(2 * np.log(1500)), rel=1e-12)
    reference = 0.3 * np.sqrt(-2 * np.log(1e-3 / 1.5)) / 10.0**2
    assert privacy.epsilon_from(0.3, 10.0, 1e-3) == pytest.approx(10 * reference, rel=1e-12)


def test_d14_delta_is_kept_at_every_epsilon():
    """The classical formula lets the true delta of two shifted Gaussians exceed the promised one; ours never does."""
    delta, broken = 1e-5, 0
    for mu in np.geomspace(1e-3, 50, 60):
        epsilon, classical = privacy.certified_epsilon(mu, 1.0, delta), privacy.epsilon_from(mu, 1.0, delta)
        assert oracles.gaussian_delta(float(epsilon), mu) <= delta * (1 + 1e-9)
        assert epsilon >= classical
        assert mu > 1 or epsilon == classical
        broken += oracles.gaussian_delta(float(classical), mu) > delta
    assert broken > 10


def test_d9_row_norms_are_measured():
    start = put(exact(FAIR, np.ones(len(P.y))))
    removal = remove(FAIR, start, DATA, P.removed)
    norms = np.linalg.norm(P.x, axis=1)
    assert norms[~P.removed].max() > 1.1
    moved = LEFT * (P.x @ np.asarray(removal.params - start)) ** 2
    certificate = certify(FAIR, start, removal, sigma=1.0, delta=1e-5)
    assert float(certificate.gram_bound) == pytest.approx(norms @ moved / (12 * np.sqrt(3)), rel=1e-6)
    assert float(certificate.gram_bound) > 1.05 * moved.sum() / (12 * np.sqrt(3))


def test_d10_float32_norms_are_widened_to_cover_the_truth():
    data = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf, DATA)
    start = jnp.asarray(exact(FAIR, np.ones(len(P.y))), jnp.float32)
    removal = remove(FAIR, start, data, P.removed)
    certificate = certify(FAIR, start, removal, sigma=1.0, delta=1e-5)
    x, theta = np.asarray(data.x, np.float64), np.asarray(removal.params, np.float64)
    truth = oracles.residual_norm(theta, x, P.y, P.s, LEFT, L2, 1.0, "equalized_odds")
    assert certificate.dtype == "float32"
    assert float(certificate.rounding_margin) > 0
    assert truth <= float(certificate.residual_norm)


def test_d11_training_ends_at_the_optimum():
    np.testing.assert_allclose(fit(FAIR, DATA).params, exact(FAIR, np.ones(len(P.y))), atol=1e-9)


def test_d12_every_draw_names_its_key_or_seed():
    for draw, name in (
        (sample_noise, "key"),
        (make_shards, "key"),
        (datasets.load, "seed"),
        (datasets.synthetic, "seed"),
    ):
        parameter = inspect.signature(draw).parameters[name]
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is parameter.empty


def test_d13_hsls_codes_have_no_order(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "X1TXMTSCOR": rng.normal(50, 10, 60),
            "X1RACE": rng.integers(1, 9, 60),
            "X1SEX": rng.integers(1, 3, 60),
            "X1SES": rng.normal(size=60),
            "X1LOCALE": np.arange(60) % 4 + 1,
        }
    )
    table.to_csv(tmp_path / "hsls.csv", index=False)
    split = datasets.load("hsls", group="race", seed=0, path=tmp_path / "hsls.csv")
    assert sum(name.startswith("X1LOCALE") for name in split.feature_names) == 4
    assert np.isfinite(predict_labels(PLAIN, jnp.zeros(len(split.feature_names)), split.test.x)).all()


def test_d15_a_row_of_features_is_scaled_by_itself():
    features = put(np.random.default_rng(0).normal(size=(6, 3)))
    longer = features.at[0].multiply(100)
    for radius in (None, 1.0):
        np.testing.assert_array_equal(
            heads.as_rows(features, radius=radius)[1:], heads.as_rows(longer, radius=radius)[1:]
        )
    # Already in the ball: training and test rows stay as they are, whatever their largest norm.
    short = features / 10
    np.testing.assert_allclose(heads.as_rows(short, radius=1.0)[:, :-1], short)
