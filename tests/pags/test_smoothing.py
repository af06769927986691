"""Certificates against closed forms of linear models, SciPy's binomial, exact coverage, and NumPy twins."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp, softmax

from pags_jax import gradients, wrappers
from pags_jax.binomial import least_wins, lower_bounds
from pags_jax.smoothing import ABSTAINED, Certified, certified, certified_accuracy, certify, class_counts, predict

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
W = RNG.normal(size=6)
X = jnp.asarray(RNG.uniform(size=(5, 6)))
BIAS = float(-np.median(X @ W) - 0.1)


def linear(x):
    """Two classes, whose border is the plane ``W.x + BIAS = 0``."""
    f = x @ jnp.asarray(W, x.dtype) + jnp.asarray(BIAS, x.dtype)
    return jnp.stack([-f, f], 1)


MARGIN = np.abs(X @ W + BIAS) / np.linalg.norm(W)
SIDE = (np.asarray(X @ W) + BIAS > 0).astype(int)


# ------------------------------------------------------------------------------------------------- binomial bounds
@pytest.mark.parametrize("alpha", [0.3, 0.01, 1e-6])
def test_lower_bounds_are_scipys(alpha):
    for n in (1, 7, 30):
        exact = [
            stats.binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, "exact").low for k in range(n + 1)
        ]
        np.testing.assert_allclose(lower_bounds(n, alpha), exact, rtol=1e-8, atol=1e-11)
    bounds = lower_bounds(100_000, alpha)
    for k in (1, 500, 50_000, 99_990, 100_000):  # At the bound, so many draws or more have the probability alpha.
        np.testing.assert_allclose(stats.binom.sf(k - 1, 100_000, bounds[k]), alpha, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.3, 0.01, 1e-6])
def test_least_wins_are_where_scipys_test_rejects(alpha):
    least = least_wins(40, alpha)
    for throws in range(1, 41):
        rejects = [k for k in range(throws // 2 + 1, throws + 1) if stats.binomtest(k, throws).pvalue <= alpha]
        assert least[throws] == (rejects[0] if rejects else throws + 1)
    assert least[0] > 0


@pytest.mark.parametrize("alpha", [0.2, 0.01])
def test_a_radius_is_too_large_with_a_probability_of_at_most_alpha(alpha):
    """Exactly, by summing over all counts; and by drawing counts of known probabilities. Also: not far below alpha."""
    n, truths = 200, np.array([0.55, 0.7, 0.9, 0.99])
    counts = np.arange(n + 1)
    radius = np.asarray(certified(jnp.asarray(counts), jnp.asarray(counts), n, sigma=0.7, alpha=alpha).radius)
    too_large = radius[None] > 0.7 * stats.norm.ppf(truths)[:, None]
    wrong = np.where(too_large, stats.binom.pmf(counts, n, truths[:, None]), 0).sum(1)
    assert np.all(wrong <= alpha)
    assert wrong.max() > alpha / 3
    drawn = np.random.default_rng(1).binomial(n, truths, size=(20_000, 4))
    seen = too_large[np.arange(4), drawn].mean(0)
    np.testing.assert_allclose(seen, wrong, atol=5 * np.sqrt(alpha / 20_000))


@pytest.mark.parametrize(("samples", "alpha"), [(20, 0.3), (50, 0.05)])
def test_images_whose_class_is_a_coin_flip_are_certified_no_more_often_than_alpha(samples, alpha):
    """Nothing holds of them. If the draws that choose the class were those that are counted, twice as many would be."""
    options = {"sigma": 0.5, "samples": samples, "selection_samples": samples, "alpha": alpha}
    run = jax.jit(partial(certify, lambda x: jnp.concatenate([-x, x], 1), **options))
    label = np.asarray(run(jnp.zeros((4000, 1)), key=KEY).label)
    exact = stats.binom.pmf(np.arange(samples + 1), samples, 0.5)[lower_bounds(samples, alpha) > 0.5].sum()
    assert alpha / 2 < exact <= alpha
    np.testing.assert_allclose(np.mean(label != ABSTAINED), exact, atol=5 * np.sqrt(exact / 4000))
    np.testing.assert_allclose(np.mean(label[label != ABSTAINED]), 0.5, atol=5 * np.sqrt(0.25 / (4000 * exact)))


def test_a_bound_is_never_rounded_up():
    counts = jnp.arange(1001)
    exact = stats.beta.ppf(0.001, np.maximum(counts, 1), 1000 - counts + 1) * (np.asarray(counts) > 0)
    sigma = np.float32(0.3)
    for dtype in (jnp.float32, jnp.float64):
        found = certified(counts, counts, 1000, sigma=jnp.asarray(sigma, dtype))
        assert found.radius.dtype == found.lower.dtype == dtype
        assert np.all(np.asarray(found.lower, float) <= exact)
        certain = np.maximum(float(sigma) * stats.norm.ppf(np.maximum(exact, 0.5)), 0)
        assert np.all(np.asarray(found.radius, float) <= certain)
        np.testing.assert_allclose(found.radius, certain, atol=1e-6)


# ----------------------------------------------------------------------------------------------------- closed form
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_certified_radii_of_a_linear_model_are_its_margins_up_to_the_bound(dtype):
    """The classes' border is a plane, so that p = Phi(margin / sigma) and the radius is the margin itself."""
    n, sigma = 20_000, 0.4
    run = jax.jit(partial(certify, linear, key=KEY, samples=n, draws_at_once=1000))
    found = run(X.astype(dtype), sigma=sigma)
    assert found.radius.dtype == dtype
    certain = np.asarray(found.label) != ABSTAINED
    np.testing.assert_array_equal(np.asarray(found.label)[certain], SIDE[certain])
    assert np.all(np.asarray(found.radius) <= MARGIN)
    # The smallest count that 6 standard deviations leave, and its bound.
    p = stats.norm.cdf(MARGIN / sigma)
    least = np.floor(n * p - 6 * np.sqrt(n * p * (1 - p)) - 1).astype(int)
    assert np.all(np.asarray(found.radius) >= sigma * stats.norm.ppf(np.maximum(lower_bounds(n, 0.001)[least], 0.5)))
    assert certain.sum() >= 4


def test_predictions_of_a_linear_model():
    x = jnp.concatenate([X, X[:1] - jnp.asarray((X[0] @ W + BIAS) / (W @ W) * W)[None]])  # The last on the border.
    found = np.asarray(predict(linear, x, key=KEY, sigma=0.2, samples=2000, draws_at_once=500))
    np.testing.assert_array_equal(found, [*np.where(MARGIN > 0.02, SIDE, found[:5]), ABSTAINED])


# ------------------------------------------------------------------------------------------------------ the counts
def test_counts_do_not_depend_on_how_many_draws_are_made_at_once_and_compile_once():
    traces = []

    @partial(jax.jit, static_argnames="draws_at_once")
    def counts(x, sigma, draws_at_once):
        traces.append(1)
        return class_counts(linear, x, key=KEY, sigma=sigma, samples=50, draws_at_once=draws_at_once)

    found = counts(X, 0.5, 1)
    for size in (7, 50, 64):
        np.testing.assert_array_equal(counts(X, 0.5, size), found)
    assert np.all(found.sum(1) == 50)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(class_counts(linear, X, key=KEY, sigma=0.5, samples=50), found)
    traces.clear()
    assert np.any(counts(X, 0.1, 1) != found)
    assert not traces
    assert np.any(class_counts(linear, X, key=jax.random.key(1), sigma=0.5, samples=50) != found)


def test_ties_and_logits_that_are_not_finite_are_no_votes_and_certify_nothing():
    def model(x):
        bad = jnp.stack([jnp.full(len(x), value, x.dtype) for value in (jnp.nan, 1.0, jnp.inf)], 1)
        return jnp.where(x[:, :1] > 0.5, bad, jnp.ones((1, 3), x.dtype))

    x = jnp.array([[0.0, 0.0], [1.0, 0.0]])
    assert class_counts(model, x, key=KEY, sigma=0.05, samples=20).sum() == 0
    found = certify(model, x, key=KEY, sigma=0.05, samples=100)
    assert found.label.tolist() == [ABSTAINED] * 2
    assert found.radius.tolist() == [0, 0]
    assert predict(model, x, key=KEY, sigma=0.05).tolist() == [ABSTAINED] * 2


def test_traced_noise_levels_that_cannot_be_certify_nothing():
    run = jax.jit(lambda sigma: certified(jnp.array([100]), jnp.array([2]), 100, sigma=sigma))
    for sigma in (jnp.nan, -1.0, 0.0):
        assert run(sigma).label.tolist() == [ABSTAINED]
    assert run(1.0).label.tolist() == [2]


# ------------------------------------------------------------------------------------------------------- the curve
def test_the_curve_is_that_of_a_table():
    rng = np.random.default_rng(3)
    label, y = rng.integers(-1, 3, 50), rng.integers(0, 3, 50)
    radius = np.where(label >= 0, rng.uniform(0.1, 2, 50).round(1), 0)
    found = Certified(jnp.asarray(label), jnp.asarray(radius), jnp.asarray(radius))
    radii = np.array([0.0, 0.5, 1.0, 2.5])
    curve = certified_accuracy(found, jnp.asarray(y), radii)
    expected = [np.mean([a == b and r > at for a, b, r in zip(label, y, radius, strict=True)]) for at in radii]
    np.testing.assert_allclose(curve.accuracy, expected, rtol=1e-12)
    np.testing.assert_allclose(curve.abstained, np.mean(label < 0), rtol=1e-12)
    right = [[a == b and r > at for a, b, r in zip(label, y, radius, strict=True)] for at in radii]
    np.testing.assert_allclose(curve.error, np.std(right, axis=1) / np.sqrt(50), rtol=1e-12)
    assert certified_accuracy(found, jnp.asarray(y), 0.5).accuracy == curve.accuracy[1]


# ---------------------------------------------------------------------------------------------------- the wrappers
def test_denoised_smoothing_calls_the_denoiser_at_the_matching_level():
    """A linear denoiser before a linear classifier is a linear classifier: its margin by hand is the bound again."""

    def denoise(x, sigma):
        return x / (1 + sigma**2)

    x, sigma = 0.4 + 0.2 * X, 0.05  # So that nothing is cut.
    model = wrappers.denoised(linear, denoise, sigma=sigma)
    clean = ((2 * np.asarray(x) - 1) / (1 + (2 * sigma) ** 2) + 1) / 2
    np.testing.assert_allclose(jax.jit(model)(x), linear(jnp.asarray(clean)), rtol=1e-12)
    shrunk = W / (1 + 4 * sigma**2)
    margin = np.abs(clean @ W + BIAS) / np.linalg.norm(shrunk)
    found = jax.jit(partial(certify, model, key=KEY, sigma=sigma, samples=4000, draws_at_once=1000))(x)
    tight = margin < 2 * sigma
    assert np.all(np.asarray(found.radius) <= margin + 1e-12)
    assert tight.any()
    np.testing.assert_allclose(found.radius[tight], margin[tight], atol=0.15 * sigma)
    np.testing.assert_array_equal(model(jnp.full((1, 6), 9.0)), linear(jnp.ones((1, 6))))
    with pytest.raises(ValueError, match="one array shaped as its images"):
        wrappers.denoised(linear, lambda x, sigma: x[:, :2], sigma=0.1)(x)


def test_denoised_smoothing_by_the_true_denoiser_certifies_more():
    """Two images and noise between: the posterior mean says which one it was; the classifier alone is thrown off."""
    ends = np.stack([np.full(12, 0.35), np.full(12, 0.65)])

    def denoise(x, sigma):
        centres = jnp.asarray(2 * ends - 1)
        weights = jax.nn.softmax(-((x[:, None] - centres[None]) ** 2).sum(-1) / (2 * sigma**2))
        return weights @ centres

    def one_pixel(x):  # Trusts the first pixel alone.
        return jnp.stack([0.5 - x[:, 0], x[:, 0] - 0.5], 1)

    x, options = jnp.asarray(ends), {"key": KEY, "sigma": 0.2, "samples": 2000, "draws_at_once": 500}
    alone, with_denoiser = (
        jax.jit(partial(certify, model, **options))(x)
        for model in (one_pixel, wrappers.denoised(one_pixel, denoise, sigma=0.2))
    )
    assert np.all(np.asarray(with_denoiser.label) == np.arange(2))
    assert np.all(with_denoiser.radius > 2 * alone.radius)
    # The two images lie 0.52 from their border, and no certificate reaches beyond it.
    assert np.all(with_denoiser.radius < np.linalg.norm(ends[0] - ends[1]) / 2)


def product(weights, x):
    return x @ weights


def test_a_smoothed_model_is_the_mean_probability_over_its_draws():
    v = RNG.normal(size=(6, 3))
    model = wrappers.smoothed(lambda x: x @ jnp.asarray(v), key=KEY, sigma=0.5, samples=4)
    draws = [np.asarray(jax.random.normal(key, (6,), X.dtype)) for key in jax.random.split(KEY, 4)]
    expected = np.mean([softmax((np.asarray(X) + 0.5 * draw) @ v, 1) for draw in draws], 0)
    np.testing.assert_allclose(model(X), np.log(expected), rtol=1e-10)
    np.testing.assert_allclose(logsumexp(model(X), 1), 0, atol=1e-12)
    np.testing.assert_allclose(model(X[3:4]), model(X)[3:4], rtol=1e-12)

    traces = []

    @jax.jit
    def slope(model, x):
        traces.append(1)
        return gradients.input_gradients(model, x, jnp.zeros(5, int), target="log_prob")

    for key in (0, 1):
        linear_model = jax.tree_util.Partial(product, jnp.asarray(v))
        slope(wrappers.smoothed(linear_model, key=jax.random.key(key), sigma=0.5, samples=4), X)
    assert len(traces) == 1


# -------------------------------------------------------------------------------------------------------- refusals
def certified_as(label):
    return inspect.unwrap(certified)(jnp.array([100]), label, 100, sigma=1.0)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: certify(linear, X, key=KEY, sigma=0.0), "`sigma` must be one finite number above 0, got 0.0"),
        (lambda: certify(linear, X, key=KEY, sigma=jnp.ones(5)), "`sigma` must be one finite number"),
        (lambda: certify(linear, X, key=KEY, sigma=0.1, alpha=0.0), "`alpha` must be one number between 0 and 1"),
        (lambda: predict(linear, X, key=KEY, sigma=0.1, alpha=1.0), "`alpha` must be one number between 0 and 1"),
        (lambda: class_counts(linear, X, key=KEY, sigma=0.1, samples=0), "`samples` must be a whole number"),
        (
            lambda: certify(linear, X, key=KEY, sigma=0.1, selection_samples=0),
            "`selection_samples` must be a whole number",
        ),
        (lambda: class_counts(lambda x: x[:, :1], X, key=KEY, sigma=0.1, samples=1), "at least two classes"),
        (lambda: certify(lambda x: x - x.mean(0, keepdims=True), X, key=KEY, sigma=0.1), "treat each example by"),
        (lambda: certified(jnp.array([3]), jnp.array([0]), 2, sigma=0.1), "`count` must be from 0 to `samples` = 2"),
        (lambda: certify(linear, X, key=KEY, sigma=True), "`sigma` must be a number, got bool"),
        (lambda: certify(linear, X, key=KEY, sigma=None), "`sigma` must be a number, got object"),
        (lambda: certify(linear, X, key=KEY, sigma="1"), "`sigma` must be a number, got <U1"),
        (lambda: wrappers.smoothed(linear, key=KEY, sigma="1", samples=2), "`sigma` must be a number, got <U1"),
        (lambda: wrappers.denoised(linear, linear, sigma=True), "`sigma` must be a number, got bool"),
        (lambda: inspect.unwrap(lower_bounds)(9, "x"), "`alpha` must be a number"),
        (lambda: inspect.unwrap(lower_bounds)(9, None), "`alpha` must be a number"),
        (lambda: certified_as(jnp.array([0.5])), "`label` must be integers, got float"),
        (lambda: certified_as(jnp.array([-3])), "`label` must be one class of at least 0"),
        (lambda: certified_as(jnp.array([0, 1])), "`label` must be one class of at least 0 for each `count`"),
        (lambda: wrappers.smoothed(linear, key=KEY, sigma=-1.0, samples=2), "`sigma` must be one finite number"),
        (
            lambda: certified_accuracy(Certified(*jnp.ones((3, 2))), jnp.array([0, 1]), -1.0),
            "`radii` must be finite numbers of at least 0",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
