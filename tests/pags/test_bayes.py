"""Synthetic manifolds against Bayes' rule by hand, Jacobians, differences and full-covariance densities, in float64."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal

from pags_jax import bayes, manifold, robustness, scores
from pags_jax.gradients import input_gradients
from pags_jax.likelihood import log_prob
from tests.pags import oracles

SHAPE, PIXELS = (4, 3, 2), 24
MEANS = np.array([[[1.0, 0.5], [-1.0, 0.0]], [[0.0, -1.2], [0.3, 1.1]], [[-0.4, 0.6], [1.5, -0.9]]])
WEIGHTS = np.array([[1.0, 2.0], [3.0, 1.0], [2.0, 2.0]])
STD, DISTRACTOR_STD, NOISE, RADIUS = 0.6, 0.8, 0.1, 2.5


# Jitted, since operation by operation each one is compiled for each shape.
sample_of = jax.jit(bayes.sample, static_argnums=1)
embed, coordinates_of, log_posterior = jax.jit(bayes.embed), jax.jit(bayes.coordinates), jax.jit(bayes.log_posterior)
tangent_basis, distractor_basis = jax.jit(bayes.tangent_basis), jax.jit(bayes.distractor_basis)
gradient_of, score_of = jax.jit(bayes.gradient), jax.jit(bayes.score)
off_share = jax.jit(robustness.off_manifold_share)


@jax.jit
def gradient_by_autodiff(problem, x, y):
    return input_gradients(partial(bayes.log_posterior, problem), x, y, target="log_prob")


@cache
def problem_of(kind, *, dtype=np.float64, **options):
    given = {"distractors": 2, "signal_std": STD, "distractor_std": DISTRACTOR_STD, "noise": NOISE, "weights": WEIGHTS}
    plane = bayes.linear(SHAPE, MEANS.astype(dtype), key=jax.random.key(0), **given | options)
    return plane if kind == "linear" else bayes.curved(plane, radius=RADIUS, key=jax.random.key(1))


@pytest.fixture(scope="module", params=["linear", "curved"])
def problem(request):
    return problem_of(request.param)


@pytest.fixture(scope="module")
def images(problem):
    return sample_of(problem, 40, key=jax.random.key(2))


def flat(array):
    return np.asarray(array).reshape(*array.shape[: array.ndim - len(SHAPE)], -1)


# ------------------------------------------------------------------------------------------------------ geometry
def test_frames_are_orthonormal(problem):
    frame = flat(problem.frame)
    assert len(frame) == (4 if problem.radius is None else 8)
    np.testing.assert_allclose(frame @ frame.T, np.eye(len(frame)), atol=1e-14)


def test_tangents_are_the_embeddings_jacobian_and_orthonormal(problem, images):
    jacobian = jax.jit(jax.vmap(jax.jacfwd(lambda t: embed(problem, t[None])[0])))(images.coordinates)
    basis = tangent_basis(problem, embed(problem, images.coordinates))
    np.testing.assert_allclose(np.moveaxis(np.asarray(jacobian), -1, 1), basis, atol=1e-13)
    gram = np.einsum("nkp,nlp->nkl", flat(basis), flat(basis))
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(4), gram.shape), atol=1e-13)
    np.testing.assert_allclose(distractor_basis(problem, images.x), tangent_basis(problem, images.x)[:, 2:], atol=1e-14)


def test_coordinates_are_those_that_noisy_images_were_made_from(problem, images):
    on_manifold = embed(problem, images.coordinates)
    assert np.abs(images.x - on_manifold).max() > NOISE
    np.testing.assert_allclose(coordinates_of(problem, images.x), images.coordinates, atol=1e-13)
    np.testing.assert_allclose(coordinates_of(problem, on_manifold), images.coordinates, atol=1e-13)


def test_no_point_of_the_manifold_is_nearer(problem):
    """From images in no relation to it: a thousand other points on it, near ones and far ones, are further away."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(0.5, 1, (5, *SHAPE)))
    t = coordinates_of(problem, x)
    nearest = np.linalg.norm(flat(x - embed(problem, t)), axis=1)
    for scale in (1e-3, 0.1, 3.0):
        others = t[:, None] + scale * rng.normal(size=(5, 300, 4))
        points = flat(embed(problem, others.reshape(-1, 4))).reshape(5, 300, -1)
        assert (np.linalg.norm(flat(x)[:, None] - points, axis=2) > nearest[:, None]).all()


def test_circles_have_their_radius_and_touch_the_plane():
    plane, rolled = problem_of("linear"), problem_of("curved")
    t = jnp.asarray(np.random.default_rng(1).normal(size=(6, 4)))
    frame = flat(rolled.frame)
    places = (flat(embed(rolled, t)) - 0.5) @ frame.T
    np.testing.assert_allclose(places[:, :4] ** 2 + (places[:, 4:] + RADIUS) ** 2, RADIUS**2, rtol=1e-13)
    np.testing.assert_array_equal(frame[:4], flat(plane.frame))
    gap = [np.abs(embed(rolled, h * t) - embed(plane, h * t)).max() for h in (1e-3, 5e-4)]
    assert gap[0] / gap[1] == pytest.approx(4, rel=1e-2)


# ------------------------------------------------------------------------------------------------------- samples
def test_samples_are_distributed_as_stated(problem):
    n = 20_000
    x, y, t = sample_of(problem, n, key=jax.random.key(3))
    p = WEIGHTS / WEIGHTS.sum()
    share = np.bincount(y, minlength=3) / n
    np.testing.assert_array_less(np.abs(share - p.sum(1)), 4 * np.sqrt(p.sum(1) / n))
    for label in range(3):
        u, q = np.asarray(t[y == label])[:, :2], p[label] / p[label].sum()
        mean = q @ MEANS[label]
        spread = STD**2 * np.eye(2) + np.einsum("m,mi,mj->ij", q, MEANS[label], MEANS[label]) - np.outer(mean, mean)
        assert np.abs(u.mean(0) - mean).max() < 4.5 * np.sqrt(spread.max() / len(u))
        assert np.abs(np.cov(u.T) - spread).max() < 6 * spread.max() * np.sqrt(2 / len(u))
        v = np.asarray(t[y == label])[:, 2:]
        assert np.abs(v.mean(0)).max() < 4.5 * DISTRACTOR_STD / np.sqrt(len(v))
        assert np.abs(v.var(0) / DISTRACTOR_STD**2 - 1).max() < 4.5 * np.sqrt(2 / len(v))
    e = x - embed(problem, t)
    along = np.einsum("np,nkp->nk", flat(e), flat(tangent_basis(problem, x)))
    assert np.abs(along).max() < 1e-12
    degrees = n * (PIXELS - 4)
    assert abs(np.sum(np.square(e)) / (NOISE**2 * degrees) - 1) < 4.5 * np.sqrt(2 / degrees)


def test_the_posterior_is_calibrated_against_everything_that_can_be_seen(problem):
    """E (1[y = k] - p(k | x)) h(x) = 0 for every h, which holds for the posterior given all of x, and for no other."""
    n = 20_000
    x, y, _ = sample_of(problem, n, key=jax.random.key(4))
    p = np.exp(np.asarray(log_posterior(problem, x)))
    places = (flat(x) - 0.5) @ flat(problem.frame).T
    off = np.linalg.norm(flat(x) - 0.5, axis=1) ** 2 - (places**2).sum(1)
    functions = np.concatenate([np.ones((n, 1)), places, places**2, off[:, None], flat(x)[:, :5], p, p**2], axis=1)
    terms = np.einsum("nk,nh->nkh", np.eye(3)[np.asarray(y)] - p, functions)
    z = np.sqrt(n) * terms.mean(0) / terms.std(0)
    assert np.abs(z).max() < 4.5
    wrong = np.einsum("nk,nh->nkh", np.eye(3)[np.asarray(y)] - p**1.1 / (p**1.1).sum(1, keepdims=True), functions)
    assert np.abs(np.sqrt(n) * wrong.mean(0) / wrong.std(0)).max() > 4.5


# ----------------------------------------------------------------------------------------- posterior, gradients
def posterior_by_hand(u):
    joint = np.zeros(3)
    for label in range(3):
        for mode in range(2):
            joint[label] += WEIGHTS[label, mode] * np.exp(-np.sum((u - MEANS[label, mode]) ** 2) / (2 * STD**2))
    return joint / joint.sum()


def test_the_posterior_is_bayes_rule(problem, images):
    expected = [posterior_by_hand(t[:2]) for t in np.asarray(images.coordinates)]
    posterior = np.exp(log_posterior(problem, images.x))
    np.testing.assert_allclose(posterior, expected, rtol=1e-11)
    np.testing.assert_allclose(posterior.sum(1), 1, rtol=1e-14)


@pytest.mark.parametrize("place", ["on the manifold", "near it", "anywhere"])
def test_the_gradient_equals_central_differences(problem, images, place):
    x, y = images.x[:4], jnp.array([0, 1, 2, 1])
    x = {
        "on the manifold": embed(problem, images.coordinates[:4]),
        "near it": x,
        "anywhere": jnp.asarray(np.random.default_rng(2).normal(0.5, 0.5, x.shape)),
    }[place]
    gradients = gradient_of(problem, x, y)
    for i in range(4):
        expected = oracles.central_differences(
            lambda points, i=i: np.asarray(log_posterior(problem, points))[:, y[i]], np.asarray(x[i])
        )
        np.testing.assert_allclose(gradients[i], expected, rtol=1e-7, atol=1e-9)


def test_the_gradient_equals_that_of_the_model(problem, images):
    by_autodiff = gradient_by_autodiff(problem, images.x, images.y)
    np.testing.assert_allclose(gradient_of(problem, images.x, images.y), by_autodiff, rtol=1e-10, atol=1e-13)


def test_float32_gradients_of_a_sure_model_keep_direction_and_length():
    """At the class's own mean, 20 standard deviations from the others', the posterior is one to rounding."""
    means = np.array([[[10.0, 0.0]], [[-10.0, 1.0]], [[-10.0, -3.0]]])
    exact, rounded = (
        bayes.linear((24,), means.astype(d), key=jax.random.key(0), distractors=0, signal_std=2.0)
        for d in (np.float64, np.float32)
    )
    exact = exact._replace(frame=rounded.frame.astype(jnp.float64))
    t, y = jnp.array([[10.0, 0.0], [9.0, 3.0]]), jnp.array([0, 0])
    x = embed(rounded, t.astype(jnp.float32))
    truth = np.asarray(gradient_of(exact, x.astype(jnp.float64), y))
    assert (np.linalg.norm(truth, axis=1) < 1e-15).all()
    got = np.asarray(gradient_of(rounded, x, y))
    assert got.dtype == np.float32
    error = np.linalg.norm(got - truth, axis=1) / np.linalg.norm(truth, axis=1)
    assert error.max() < 1e-4  # exponents are about 50 and rounded to 4e-6, places to 1e-6 times 5


# ------------------------------------------------------------------------------------------------------ theorems
@pytest.mark.parametrize(("dtype", "limit"), [(np.float32, 1e-6), (np.float64, 1e-24)])
@pytest.mark.parametrize("kind", ["linear", "curved"])
def test_theorem_2_the_bayes_optimal_gradient_is_in_the_signals_tangent_space(kind, dtype, limit):
    problem = problem_of(kind, dtype=dtype)
    x, y, _ = sample_of(problem, 40, key=jax.random.key(5))
    basis = tangent_basis(problem, x)
    for gradient in (gradient_by_autodiff(problem, x, y), gradient_of(problem, x, y)):
        assert gradient.dtype == dtype
        assert float(off_share(gradient, basis).max()) < limit
        assert float(off_share(gradient, basis[:, :2]).max()) < limit
        in_distractor = 1 - off_share(gradient, basis[:, 2:])
        assert float(in_distractor.max()) < np.sqrt(limit)  # 1 - share rounds to the machine epsilon


def test_theorem_2_the_bayes_optimal_model_does_not_see_noise_off_the_manifold(problem, images):
    """Of any size, not only in the limit; and noise along the distractor neither."""
    t = images.coordinates

    @jax.jit
    def move(x, basis, eps_l2):
        model = partial(bayes.log_posterior, problem)
        return robustness.manifold_robustness(model, x, basis, eps_l2=eps_l2, key=jax.random.key(6))

    clean = embed(problem, t)
    moved = move(clean, tangent_basis(problem, clean), jnp.array([0.01, 0.5, 1.5]))
    assert float(moved.off.max()) < 1e-12
    assert float(moved.on[1].min()) > 1e-4
    along = move(clean, distractor_basis(problem, clean), jnp.array([0.01])).on
    assert float(along.max()) < (1e-12 if problem.radius is None else 1e-3)


def network(x):
    rng = np.random.default_rng(7)
    first, second = jnp.asarray(rng.normal(size=(PIXELS, 16))), jnp.asarray(rng.normal(size=(16, 3)))
    return jnp.tanh(x.reshape(len(x), -1) @ first) @ second


def test_theorem_1_relative_noise_robustness_tends_to_the_share_of_the_gradient(problem, images):
    """At the rate sigma^2. Draws along all axes have the second moments of Gaussian noise, so nothing is random."""
    x, y = images.x[:6], images.y[:6]
    basis = tangent_basis(problem, x)
    share = off_share(jax.jit(partial(input_gradients, network, target="log_prob"))(x, y), basis)
    axes = np.sqrt(PIXELS) * np.eye(PIXELS).reshape(PIXELS, 1, *SHAPE)
    noise = jnp.asarray(np.broadcast_to(axes, (PIXELS, 6, *SHAPE)))
    by_noise = jax.jit(
        lambda sigma: robustness.off_manifold_share_by_noise(
            lambda x: log_prob(network(x), y), x, basis, sigma=sigma, noise=noise
        )
    )
    assert np.abs(by_noise(0.3) - share).max() > 1e-3
    errors = [np.abs(by_noise(sigma) - share) for sigma in (2e-3, 1e-3)]
    np.testing.assert_allclose(errors[0] / errors[1], 4, rtol=0.05)
    assert errors[1].max() < 1e-4


# -------------------------------------------------------------------------------------------- scores, denoisers
def covariance(problem, sigma):
    frame, identity = flat(problem.frame), np.eye(PIXELS)
    variances = np.array([STD**2, STD**2, DISTRACTOR_STD**2, DISTRACTOR_STD**2])
    return (frame.T * variances) @ frame + NOISE**2 * (identity - frame.T @ frame) + sigma**2 * identity


def log_density(problem, sigma, label=None):
    """Of one noisy image, from the full covariance."""
    centres = 0.5 + MEANS @ flat(problem.frame)[:2]
    log_weights = np.log(WEIGHTS / WEIGHTS.sum())
    chosen = range(3) if label is None else [label]

    def value(x):
        parts = [
            log_weights[k, m] + multivariate_normal.logpdf(x.reshape(-1), centres[k, m], covariance(problem, sigma))
            for k in chosen
            for m in range(2)
        ]
        return jax.nn.logsumexp(jnp.stack(parts))

    return value


@pytest.mark.parametrize("sigma", [0.0, 0.4])
def test_scores_are_gradients_of_the_log_density(sigma):
    problem = problem_of("linear")
    x = jnp.asarray(np.random.default_rng(3).normal(0.5, 0.4, (3, *SHAPE)))
    expected = jax.jit(jax.vmap(jax.grad(log_density(problem, sigma))))(x)
    np.testing.assert_allclose(score_of(problem, x, sigma=sigma), expected, rtol=1e-9, atol=1e-9)
    for label in range(3):
        expected = jax.jit(jax.vmap(jax.grad(log_density(problem, sigma, label))))(x)
        scored = score_of(problem, x, jnp.full(3, label), sigma=sigma)
        np.testing.assert_allclose(scored, expected, rtol=1e-9, atol=1e-9)


def test_the_gradient_is_the_conditional_score_less_the_unconditional():
    problem = problem_of("linear")
    x, y, _ = sample_of(problem, 40, key=jax.random.key(7))
    difference = score_of(problem, x, y) - score_of(problem, x)
    np.testing.assert_allclose(difference, gradient_of(problem, x, y), rtol=1e-9, atol=1e-11)


def denoised_by_hand(problem, x, sigma, label=None):
    """Sum over modes of p(mode | x) times the conditional mean of a Gaussian, all in NumPy, images in [0, 1]."""
    clean, noisy = covariance(problem, 0.0), covariance(problem, sigma)
    centres = 0.5 + MEANS @ flat(problem.frame)[:2]
    log_p, means = [], []
    for k in range(3) if label is None else [label]:
        for m in range(2):
            gap = x - centres[k, m]
            solved = np.linalg.solve(noisy, gap)
            log_p.append(np.log(WEIGHTS[k, m]) - gap @ solved / 2)
            means.append(centres[k, m] + clean @ solved)
    p = np.exp(np.array(log_p) - np.max(log_p))
    return (p / p.sum()) @ np.array(means)


@pytest.mark.parametrize("sigma_pm1", [0.05, 0.5, 3.0])
def test_denoisers_are_conditional_means(sigma_pm1):
    problem = problem_of("linear")
    x, y = jnp.asarray(np.random.default_rng(4).normal(0.5, 0.6, (4, *SHAPE))), jnp.array([0, 1, 2, 0])
    for labels in (None, y):
        denoised = jax.jit(bayes.denoiser(problem, labels))(2 * x - 1, sigma_pm1)
        expected = [
            denoised_by_hand(problem, flat(x)[i], sigma_pm1 / 2, None if labels is None else y[i]) for i in range(4)
        ]
        np.testing.assert_allclose((flat(denoised) + 1) / 2, expected, rtol=1e-10, atol=1e-11)


def test_the_denoiser_is_the_mean_of_images_given_a_noisy_one():
    """By weighing many clean images with the density of the noise, on a plane that has no noise of its own."""
    problem = bayes.linear((3,), [[[0.6]], [[-0.5]]], key=jax.random.key(0), distractors=1, signal_std=0.4)
    clean = 2 * np.asarray(sample_of(problem, 200_000, key=jax.random.key(1)).x) - 1
    noisy, sigma = np.array([[0.3, -0.4, 0.8], [-0.5, 1.0, 0.1]]), 0.7
    denoised = np.asarray(jax.jit(bayes.denoiser(problem))(jnp.asarray(noisy), sigma))
    for k in range(2):
        weights = np.exp(-np.sum((clean - noisy[k]) ** 2, 1) / (2 * sigma**2))
        mean = weights @ clean / weights.sum()
        error = np.sqrt((weights**2) @ (clean - mean) ** 2) / weights.sum()
        assert (np.abs(denoised[k] - mean) < 4.5 * error).all()
        assert error.max() < 0.01


def test_the_score_of_the_denoiser_is_the_score():
    """``scores.score`` is by the image in [-1, 1], half of that by the image in [0, 1]."""
    problem = problem_of("linear")
    x, y, _ = sample_of(problem, 40, key=jax.random.key(8))
    for labels in (None, y):
        from_denoiser = jax.jit(partial(scores.score, bayes.denoiser(problem, labels)))(x, sigma_pm1=0.3)
        np.testing.assert_allclose(2 * from_denoiser, score_of(problem, x, labels, sigma=0.15), rtol=1e-8, atol=1e-9)


# ----------------------------------------------------------------------------- estimators of the tangent space
def largest_angle(a, b):
    return float(jax.jit(manifold.principal_angles)(a, b).max())


def test_the_decoders_jacobian_finds_the_tangent_space(problem, images):
    found = jax.jit(partial(manifold.tangent_basis, partial(bayes.embed, problem)))(images.coordinates)
    truth = tangent_basis(problem, images.x)
    assert (np.asarray(manifold.rank(found)) == 4).all()
    assert largest_angle(found, truth) < 1e-12


@jax.jit
def by_neighbours(x, data):
    return manifold.local_pca(data[manifold.nearest(x, data, count=40, itself=None)], rank=4)


def test_neighbours_find_the_tangent_space():
    """Exactly on a plane; on circles the angle falls with the distance of the neighbours, that is, with more images."""
    for kind in ("linear", "curved"):
        problem, angles = problem_of(kind, noise=0.0), []
        for count in (1_000, 16_000):
            data = embed(problem, jnp.asarray(np.random.default_rng(5).uniform(-1, 1, (count, 4))))
            x = embed(problem, jnp.asarray(np.random.default_rng(6).uniform(-0.5, 0.5, (10, 4))))
            angles.append(largest_angle(by_neighbours(x, data), tangent_basis(problem, x)))
        if kind == "linear":
            assert max(angles) < 1e-10
        else:
            assert angles[1] < 0.75 * angles[0]  # the distance falls by 16^(1/4) = 2
            assert angles[1] < 0.2


def test_the_denoisers_jacobian_finds_the_tangent_space():
    problem = problem_of("linear", noise=0.0)
    x = sample_of(problem, 40, key=jax.random.key(9)).x[:4]
    options = {"sigma_pm1": 0.2, "rank": 4, "key": jax.random.key(10), "iterations": 4}
    found = jax.jit(partial(manifold.denoiser_basis, bayes.denoiser(problem), **options))(x)
    assert largest_angle(found, tangent_basis(problem, x)) < 1e-10


# ------------------------------------------------------------------------------------------------------- the rest
@pytest.mark.parametrize("kind", ["linear", "curved"])
def test_everything_is_float32_for_float32_means(kind):
    problem = problem_of(kind, dtype=np.float32)
    x, y, t = sample_of(problem, 40, key=jax.random.key(5))
    assert (x.dtype, y.dtype, t.dtype) == (jnp.float32, jnp.int32, jnp.float32)
    assert x.shape == (40, *SHAPE)
    results = [embed(problem, t), coordinates_of(problem, x), log_posterior(problem, x), gradient_of(problem, x, y)]
    results += [score_of(problem, x, y, sigma=0.1)] if kind == "linear" else []
    assert {result.dtype for result in results} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(results[1], t, atol=2e-6)


def test_a_problem_is_a_pytree_to_map_over():
    problem = problem_of("curved")
    radii = jnp.array([2.5, 4.0])
    t = jnp.asarray(np.random.default_rng(8).normal(size=(3, 4)))
    many = jax.vmap(lambda radius: bayes.embed(problem._replace(radius=radius), t))(radii)
    for k in range(2):
        np.testing.assert_allclose(many[k], embed(problem._replace(radius=radii[k]), t), rtol=1e-13)


def made(**options):
    given = {"means": [[[1.0]], [[-1.0]]], "shape": (8,), "distractors": 1, "signal_std": 0.5}
    given |= options
    return bayes.linear(given.pop("shape"), given.pop("means"), key=jax.random.key(0), **given)


def rolled(problem, radius=3.0):
    return bayes.curved(problem, radius=radius, key=jax.random.key(1))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: made(means=[[1.0]]), "`means` must be floats .*, got float64 of .1, 1."),
        (lambda x: made(means=[[[1]]]), "`means` must be floats .*, got int64"),
        (lambda x: made(weights=[1.0, 2.0, 3.0]), "broadcast"),
        (lambda x: made(weights=[[1.0], [0.0]]), "`weights` must be above 0"),
        (lambda x: made(signal_std=0.0), "`signal_std` must be above 0, got 0.0"),
        (lambda x: made(distractor_std=-1.0), "`distractor_std` must be above 0, got -1.0"),
        (lambda x: made(noise=-0.1), "`noise` must be at least 0, got -0.1"),
        (lambda x: made(distractors=8), "9 pixels or more, got the shape .8,"),
        (lambda x: made(distractors=-1), "`distractors` must be at least 0, got -1"),
        (lambda x: rolled(made(distractors=4)), "10 pixels or more, got the shape .8,"),
        (lambda x: rolled(rolled(made())), "curved already"),
        (lambda x: rolled(made(), 1.0), r"`radius` must be at least 1.90986 .*, got 1.0"),
        (lambda x: rolled(made(noise=1.0), 3.0), "`radius` must be at least 6 .*, got 3.0"),
        (lambda x: bayes.log_posterior(made(), x[:, 1:]), r"expected images of the shape \(8,\), got \(7,\)"),
        (lambda x: bayes.gradient(made(), x * jnp.nan, jnp.zeros(2, int)), "NaN"),
        (lambda x: bayes.gradient(made(), x, jnp.array([0, 2])), "below 2, the number of classes, got 2"),
        (lambda x: bayes.score(made(), x), "no density; use `sigma` above 0"),
        (lambda x: bayes.score(made(noise=0.1), x, jnp.array([0, 2])), "below 2, the number of classes, got 2"),
        (lambda x: bayes.score(rolled(made()), x, sigma=0.1), "closed form for `linear` problems only"),
        (lambda x: bayes.denoiser(rolled(made()))(x, 0.1), "closed form for `linear` problems only"),
    ],
)
def test_what_cannot_be_used_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call(jnp.full((2, 8), 0.4))
