"""Scores against closed forms of Gaussian mixtures, and the preconditioned network against its NumPy twin."""

import inspect
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from pags_jax import models, scores
from pags_jax.models.patches import from_patches, to_patches
from tests.pags import oracles

SIGMAS = (0.002, 0.05, 0.3, 1.0, 7.0, 80.0)
RNG = np.random.default_rng(0)
MEANS, DEVIATIONS, WEIGHTS = RNG.normal(size=(4, 3)), np.array([0.1, 0.4, 0.7, 1.0]), np.array([0.1, 0.2, 0.3, 0.4])


# ------------------------------------------------------------------------------------------------ closed forms
def log_densities(x, sigma):
    """log w_k N(x; m_k, (s_k^2 + sigma^2) I) of the points ``(n, d)``, ``(n, k)``."""
    parts = [
        np.log(w) + np.atleast_1d(multivariate_normal.logpdf(x, m, (s**2 + sigma**2) * np.eye(x.shape[1])))
        for w, m, s in zip(WEIGHTS, MEANS, DEVIATIONS, strict=True)
    ]
    return np.stack(parts, axis=1)


def mixture_denoiser(chosen):
    """E[clean | noisy] for the mixture's components ``chosen``, in JAX."""
    means, variances, weights = (jnp.asarray(a[chosen]) for a in (MEANS, DEVIATIONS**2, WEIGHTS))

    def denoise(x, sigma):
        total = variances + sigma**2
        apart = x[:, None] - means[None]
        logits = jnp.log(weights)[None] - 1.5 * jnp.log(total)[None] - 0.5 * (apart**2).sum(2) / total[None]
        cleaned = means[None] + (variances / total)[None, :, None] * apart
        return (jax.nn.softmax(logits, axis=1)[:, :, None] * cleaned).sum(1)

    return denoise


ALL, SOME = np.arange(4), np.array([1, 3])
POINTS = RNG.uniform(size=(6, 3))


@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0])
def test_an_exact_denoiser_gives_the_closed_form_score_to_rounding(sigma):
    points = 2 * POINTS - 1
    logs = log_densities(points, sigma)
    shares = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
    expected = (shares[:, :, None] * (MEANS - points[:, None]) / (DEVIATIONS**2 + sigma**2)[:, None]).sum(1)
    found = scores.score(mixture_denoiser(ALL), jnp.asarray(POINTS), sigma_pm1=sigma)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-11 / sigma**2)
    for point, row in zip(points, found, strict=True):
        slope = oracles.central_differences(lambda x: logsumexp(log_densities(x, sigma), axis=1), point)
        np.testing.assert_allclose(row, slope, rtol=1e-6, atol=1e-6)


def normal_network(x, c_noise):
    """F of the exact denoiser of N(0.3, 0.5^2), for ``sigma_data`` = 0.5: both differences are done by hand.

    D = (0.25 x + 0.3 s^2) / t and c_skip = 0.25 / t, so F = 0.3 s^2 / t / c_out = 0.6 s / sqrt(t), t = s^2 + 0.25.
    """
    sigma = jnp.exp(4 * c_noise)[:, None]
    return jnp.broadcast_to(0.6 * sigma / jnp.sqrt(sigma**2 + 0.25), x.shape)


@pytest.mark.parametrize("sigma", [0.5, 0.05, 0.01, 0.002, 1e-4, 1e-6])
def test_float32_scores_of_preconditioned_networks_keep_their_digits(sigma):
    """At EDM's smallest level, 0.002, the difference D - x has two digits left, and at 1e-4 none."""
    x = jnp.full((1, 4), 0.7, jnp.float32)
    denoise = scores.preconditioned(normal_network, sigma_data=0.5)
    expected = (0.3 - 0.4) / (0.25 + sigma**2)
    np.testing.assert_allclose(scores.score(denoise, x, sigma_pm1=sigma), expected, rtol=1e-5)
    other = scores.preconditioned(lambda x, c: 2 * normal_network(x, c), sigma_data=0.5)  # of N(0.6, 0.5^2)
    gradient = scores.bayes_gradient(other, denoise, x, sigma_pm1=sigma)
    np.testing.assert_allclose(gradient, 0.3 / (0.25 + sigma**2), rtol=1e-5)


def test_scores_by_differences_are_right_or_refused():
    def denoise(x, sigma):
        return (0.25 * x + sigma**2 * 0.3) / (0.25 + sigma**2)

    for dtype, least in ((jnp.bfloat16, 0.0035), (jnp.float32, 0.0035), (jnp.float64, 1.5e-7)):
        x = jnp.full((1, 4), 0.7, dtype)
        centre = 2 * np.asarray(x, float) - 1
        for sigma in (0.5, 0.05, 1.1 * least):
            found = scores.score(denoise, x, sigma_pm1=sigma)
            assert found.dtype == (jnp.float32 if dtype == jnp.bfloat16 else dtype)
            np.testing.assert_allclose(found, (0.3 - centre) / (0.25 + sigma**2), atol=0.02)
        with pytest.raises(ValueError, match=r"`sigma_pm1` = .* below .*: rounding in float.*scores\.preconditioned"):
            scores.score(denoise, x, sigma_pm1=0.9 * least)
        with pytest.raises(ValueError, match="rounding in"):
            scores.bayes_gradient(denoise, denoise, x, sigma_pm1=0.9 * least)
        traced = jax.jit(partial(scores.score, denoise))(x, sigma_pm1=0.9 * least)
        assert np.isnan(traced).all()


@pytest.mark.parametrize(("scale", "shift"), [(255.0, 0.0), (1 / 0.229, -0.485 / 0.229)])
def test_images_of_other_ranges_are_refused(scale, shift):
    x = scale * jnp.linspace(0, 1, 50)[None] + shift
    for call in (
        lambda: scores.score(mixture_denoiser(ALL), x, sigma_pm1=0.5),
        lambda: scores.bayes_gradient(mixture_denoiser(ALL), mixture_denoiser(SOME), x, sigma_pm1=0.5),
    ):
        with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], .* got values from .* divide .* by 255"):
            call()


def test_by_the_image_in_0_1_the_gradient_is_twice_the_score():
    def log_density(x):
        return logsumexp(log_densities(2 * x - 1, 0.5), axis=1)

    found = scores.score(mixture_denoiser(ALL), jnp.asarray(POINTS), sigma_pm1=0.5)
    for point, row in zip(POINTS, found, strict=True):
        np.testing.assert_allclose(oracles.central_differences(log_density, point), 2 * row, rtol=1e-6, atol=1e-6)


def test_conditional_minus_unconditional_is_the_gradient_of_the_log_posterior():
    def log_posterior(x, sigma):
        logs = log_densities(x, sigma)
        return logsumexp(logs[:, SOME], axis=1) - logsumexp(logs, axis=1)

    one, other = mixture_denoiser(SOME), mixture_denoiser(ALL)
    for sigma in (0.3, 2.0):
        found = scores.bayes_gradient(one, other, jnp.asarray(POINTS), sigma_pm1=sigma)
        for point, row in zip(2 * POINTS - 1, found, strict=True):
            slope = oracles.central_differences(partial(log_posterior, sigma=sigma), point)
            np.testing.assert_allclose(row, slope, rtol=1e-6, atol=1e-6)
        apart = (scores.score(f, jnp.asarray(POINTS), sigma_pm1=sigma) for f in (one, other))
        np.testing.assert_allclose(found, np.subtract(*apart), rtol=1e-9, atol=1e-10)


# --------------------------------------------------------------------------------------------- preconditioning
@pytest.mark.parametrize("sigma_data", [0.5, 0.7])
def test_input_and_target_of_the_network_have_variance_one(sigma_data):
    """At every level, for data of variance sigma_data^2; so the weight undoes c_out^2."""
    sigma = np.array(SIGMAS)
    skip, out, scale, noise = (np.asarray(c) for c in scores.preconditioning(jnp.asarray(sigma), sigma_data))
    np.testing.assert_allclose(scale**2 * (sigma**2 + sigma_data**2), 1, rtol=1e-12)
    np.testing.assert_allclose(((1 - skip) ** 2 * sigma_data**2 + skip**2 * sigma**2) / out**2, 1, rtol=1e-9)
    np.testing.assert_allclose(scores.loss_weight(sigma, sigma_data) * out**2, 1, rtol=1e-12)
    np.testing.assert_allclose(np.exp(4 * noise), sigma, rtol=1e-12)
    # The skip is the one that keeps c_out smallest: there its derivative vanishes.
    for nearby in (skip - 1e-3, skip + 1e-3):
        assert ((1 - nearby) ** 2 * sigma_data**2 + nearby**2 * sigma**2 >= out**2).all()


def test_without_noise_the_denoiser_changes_nothing():
    denoise = scores.preconditioned(lambda x, c: jnp.cos(30 * x) + c[:, None], sigma_data=0.5)
    x = jnp.asarray(RNG.normal(size=(5, 7)))
    for sigma in (1e-3, 1e-6):
        assert jnp.abs(denoise(x, sigma) - x).max() < 10 * sigma


def twin(x, sigma, sigma_data, w, v):
    """The preconditioned ``tanh(x W + c_noise) V``, one image at a time."""
    out = []
    for image, level in zip(x, sigma, strict=True):
        total = level**2 + sigma_data**2
        network = np.tanh(image / np.sqrt(total) @ w + np.log(level) / 4) @ v
        out.append(sigma_data**2 / total * image + level * sigma_data / np.sqrt(total) * network)
    return np.array(out)


def test_loss_and_denoiser_equal_a_numpy_twin_at_given_draws():
    w, v, x, noise = (RNG.normal(size=shape) for shape in ((6, 9), (9, 6), (5, 6), (5, 6)))
    sigma, d = np.exp(RNG.normal(size=5)), 0.6
    denoise = scores.preconditioned(lambda x, c: jnp.tanh(x @ w + c[:, None]) @ v, sigma_data=d)
    noisy = x + sigma[:, None] * noise
    np.testing.assert_allclose(denoise(jnp.asarray(noisy), jnp.asarray(sigma)), twin(noisy, sigma, d, w, v), rtol=1e-11)
    squares = ((twin(noisy, sigma, d, w, v) - x) ** 2).mean(1)
    expected = (sigma**2 + d**2) / (sigma * d) ** 2 * squares
    args = (jnp.asarray(x), jnp.asarray(sigma), jnp.asarray(noise))
    np.testing.assert_allclose(scores.denoising_loss(denoise, *args, sigma_data=d), expected, rtol=1e-11)
    images = [jnp.asarray(a.reshape(5, 1, 3, 2)) for a in (x, noise)]

    def of_images(x, sigma):
        return denoise(x.reshape(5, 6), sigma).reshape(x.shape)

    found = scores.denoising_loss(of_images, images[0], jnp.asarray(sigma), images[1], sigma_data=d)
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    one_level = scores.denoising_loss(denoise, args[0], sigma[2], args[2], sigma_data=d)
    assert one_level[2] == pytest.approx(expected[2], rel=1e-11)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_network_that_returns_zero_has_loss_one(sigma):
    """Over data of +-d and noise of +-sigma, whose four combinations are equally likely."""
    d = 0.5
    x, noise = np.array(list(itertools.product((-d, d), (-1.0, 1.0)))).T[:, :, None]
    zero = scores.preconditioned(lambda x, c: jnp.zeros_like(x), sigma_data=d)
    loss = scores.denoising_loss(zero, jnp.asarray(x), sigma, jnp.asarray(noise), sigma_data=d)
    assert loss.mean() == pytest.approx(1, rel=1e-9)


def test_noise_levels_are_log_normal():
    logs = np.log(scores.noise_levels(jax.random.key(0), 20_000, dtype=jnp.float64))
    assert abs(logs.mean() + 1.2) < 4 * 1.2 / np.sqrt(20_000)
    assert abs(logs.std() - 1.2) < 4 * 1.2 / np.sqrt(40_000)
    np.testing.assert_allclose(np.quantile(logs, [0.1, 0.9]), -1.2 + 1.2 * 1.28155 * np.array([-1, 1]), atol=0.06)


# --------------------------------------------------------------------------------------------------- sampling
def test_the_schedule_is_edms():
    levels = scores.noise_schedule(18)
    i = np.arange(18)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(levels, [*expected, 0], rtol=1e-12)
    for wrong in ({"steps": 1}, {"sigma_min": 0.0}, {"sigma_max": 0.001}, {"sigma_max": np.inf}, {"sigma_min": np.nan}):
        with pytest.raises(ValueError, match="at least 2 steps and a finite sigma_max > sigma_min > 0"):
            scores.noise_schedule(**{"steps": 5, **wrong})


def test_bad_levels_are_refused():
    with pytest.raises(ValueError, match="`rho` must be one finite number above 0, got nan"):
        scores.noise_schedule(5, rho=np.nan)
    for levels in ([1.0, 2.0], [np.inf, 1.0], [1.0, -1.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match="`levels` must be finite and fall to 0"):
            scores.sample(lambda x, sigma: x, jnp.ones((1, 2)), np.array(levels))


def test_sampling_follows_the_closed_form_of_a_normal_with_an_error_of_second_order():
    """Of data N(m, d^2) the path is m + (x - m) sqrt((d^2 + s'^2) / (d^2 + s^2))."""
    d, mean = 0.5, 0.2
    x = jnp.asarray(RNG.normal(size=(4, 3)))

    def denoise(x, sigma):
        return mean + d**2 / (d**2 + sigma**2) * (x - mean)

    errors = []
    for steps in (40, 80):
        levels = np.geomspace(5.0, 0.1, steps)
        found = scores.sample(denoise, x, levels)
        expected = mean + (5 * np.asarray(x) - mean) * np.sqrt((d**2 + 0.1**2) / (d**2 + 5**2))
        errors.append(np.abs(found - expected).max())
    assert errors[1] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)
    last = scores.heun_step(denoise, x, 0.3, 0.0)
    np.testing.assert_allclose(last, denoise(x, 0.3), rtol=1e-12)


# ------------------------------------------------------------------------------------------------- the network
MODEL = models.UNet(channels=2, classes=3, widths=(8, 12), blocks=1, sigma_data=0.7)


@pytest.fixture(scope="module")
def variables():
    """Of no fresh network, whose last layer would be zero."""
    x = jax.ShapeDtypeStruct((1, 8, 8, 2), jnp.float32)
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), x)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


@pytest.mark.parametrize("shape", [(28, 28), (32, 32), (56, 28), (64, 64), (7, 9)])
def test_images_keep_their_size(shape, variables):
    x = jax.ShapeDtypeStruct((2, *shape, 2), jnp.float32)
    out = jax.eval_shape(lambda x: scores.denoiser(MODEL, variables)(x, 0.5), x)
    assert (out.shape, out.dtype) == (x.shape, x.dtype)


def test_patches_come_back():
    x = jnp.asarray(RNG.normal(size=(2, 4, 6, 3)))
    np.testing.assert_array_equal(from_patches(to_patches(x)), x)
    padded = to_patches(x, multiple=4)
    assert padded.shape == (2, 2, 4, 12)
    np.testing.assert_array_equal(from_patches(padded)[:, :, :6], x)
    np.testing.assert_array_equal(from_patches(padded)[:, :, 6:], 0)


def test_a_fresh_network_returns_zero():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 2), jnp.float32)
    model = models.UNet(channels=2, classes=3, widths=(4,), blocks=1, sigma_data=0.7)
    fresh = jax.jit(model.init)(jax.random.key(0), x)
    np.testing.assert_array_equal(jax.jit(model.apply)(fresh, x, 0.3, jnp.array([0, 1])), 0)
    denoised = jax.jit(scores.denoiser(model, fresh))(x, 0.7)
    np.testing.assert_allclose(denoised, x / 2, rtol=1e-6)


def test_no_label_is_the_null_label_and_classes_differ(variables):
    x = jax.random.normal(jax.random.key(0), (3, 8, 8, 2), jnp.float32)
    apply = jax.jit(lambda labels: scores.denoiser(MODEL, variables, labels)(x, 0.5))
    none = jax.jit(scores.denoiser(MODEL, variables))(x, 0.5)
    np.testing.assert_allclose(apply(jnp.full(3, 3)), none, rtol=1e-5, atol=1e-6)
    classes = [np.asarray(apply(jnp.full(3, k))) for k in range(3)]
    for one, other in itertools.combinations([*classes, np.asarray(none)], 2):
        assert np.abs(one - other).max() > 1e-3
    mixed = np.asarray(apply(jnp.array([2, 0, 1])))
    np.testing.assert_allclose(mixed, np.stack([classes[k][i] for i, k in enumerate((2, 0, 1))]), rtol=1e-5, atol=1e-6)


def test_the_whole_batch_equals_its_images_and_levels_one_by_one(variables):
    x = jax.random.normal(jax.random.key(2), (4, 8, 8, 2), jnp.float32)
    sigma, labels = jnp.array([0.1, 0.5, 2.0, 0.5], jnp.float32), jnp.array([0, 2, 1, 3])
    denoise = jax.jit(lambda x, sigma, labels: scores.denoiser(MODEL, variables, labels)(x, sigma))
    whole = denoise(x, sigma, labels)
    parts = [denoise(x[i : i + 1], sigma[i], labels[i : i + 1])[0] for i in range(4)]
    np.testing.assert_allclose(whole, np.stack(parts), rtol=1e-5, atol=1e-5)


def test_one_compilation_serves_all_levels_variables_and_labels(variables):
    traces = []

    @jax.jit
    def of_denoiser(denoise, x, sigma):
        traces.append(1)
        return scores.score(denoise, x, sigma_pm1=sigma)

    x = jnp.full((2, 8, 8, 2), 0.5, jnp.float32)
    for k, sigma in enumerate((0.1, 0.5, 2.0)):
        moved = jax.tree.map(lambda leaf, k=k: leaf * (1 + k), variables)
        out = of_denoiser(scores.denoiser(MODEL, moved, jnp.array([k, 0])), x, sigma)
        assert (out.dtype, out.shape) == (jnp.float32, x.shape)
    assert len(traces) == 1


# ----------------------------------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("x", "sigma", "said"),
    [
        (jnp.ones((2, 3)), 0.0, "`sigma_pm1` must be one finite number above 0, got 0.0"),
        (jnp.ones((2, 3)), -1.0, "got -1.0"),
        (jnp.ones((2, 3)), np.nan, "got nan"),
        (jnp.ones((2, 3)), np.inf, "got inf"),
        (jnp.ones((2, 3)), np.ones(2), "must be one finite number"),
        (jnp.full((2, 3), jnp.nan), 1.0, "NaN or infinite"),
        (jnp.ones((0, 3)), 1.0, "at least one image"),
    ],
)
def test_what_cannot_be_scored_is_refused(x, sigma, said):
    for call in (scores.score, partial(scores.bayes_gradient, mixture_denoiser(ALL))):
        with pytest.raises(ValueError, match=said):
            call(mixture_denoiser(ALL), x, sigma_pm1=sigma)


def test_images_of_integers_are_refused():
    with pytest.raises(ValueError, match=r"images must be floats in \[0, 1\], got uint8"):
        inspect.unwrap(scores.score)(mixture_denoiser(ALL), jnp.ones((2, 3), jnp.uint8), sigma_pm1=1.0)


def test_labels_that_are_no_classes_are_refused(variables):
    for wrong, said in (
        (jnp.array([0, 4]), "from 0 to 2 .*got 0 to 4"),
        (-1, "got -1 to -1"),
        (jnp.array([3, 1]), "from 0 to 2 .*got 1 to 3"),
    ):
        with pytest.raises(ValueError, match=said):
            scores.denoiser(MODEL, variables, wrong)
    with pytest.raises(ValueError, match="labels must be integers, got float"):
        inspect.unwrap(scores.denoiser)(MODEL, variables, jnp.ones(2))
    with pytest.raises(ValueError, match=r"images of 2 channels, got the shape \(1, 8, 8, 3\)"):
        scores.denoiser(MODEL, variables)(jnp.ones((1, 8, 8, 3), jnp.float32), 0.5)


def test_a_denoiser_of_a_partial_is_a_pytree():
    denoise = scores.preconditioned(Partial(lambda w, x, c: w * x, jnp.float32(2)), sigma_data=0.5)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, denoise)
    x = jnp.ones((1, 2), jnp.float32)
    # Twice the weight and twice the deviation, 1: c_skip = 1/2, c_out c_in = 1/2.
    np.testing.assert_allclose(doubled(x, 1.0), (0.5 + 0.5 * 4) * x, rtol=1e-6)


@pytest.mark.parametrize(
    ("denoise", "got"),
    [(lambda x, _: x[0], r"\(2, 3\)"), (lambda x, _: x[:, :, :1], "1"), (lambda x, _: (x,), "a tuple")],
)
def test_denoisers_of_another_shape_are_not_broadcast(denoise, got):
    x, options = jnp.full((2, 2, 3), 0.5), {"sigma_pm1": 0.5}
    for call in (
        lambda: scores.score(denoise, x, **options),
        lambda: scores.bayes_gradient(lambda x, _: x, denoise, x, **options),
        lambda: scores.preconditioned(denoise, sigma_data=0.5)(x, 0.5),
        lambda: scores.denoising_loss(denoise, x, 0.5, x, sigma_data=0.5),
        lambda: scores.heun_step(denoise, x, 0.5, 0.0),
    ):
        with pytest.raises(ValueError, match=rf"one array shaped as its images, \(2, 2, 3\), got .*{got}"):
            call()
