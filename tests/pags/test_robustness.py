"""On- and off-manifold robustness against slow twins in NumPy, closed forms and the paper's Theorem 1."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax.likelihood import log_prob
from pags_jax.robustness import (
    REFERENCE_EPS,
    directions,
    manifold_robustness,
    off_manifold_share,
    off_manifold_share_by_noise,
    relative_noise_robustness,
    step_lengths,
)

SHAPE = (2, 3, 2)
FEATURES, N, DRAWS = 12, 4, 3
RANKS = (4, 1, 4, 2)
RNG = np.random.default_rng(0)
W, V = RNG.normal(size=(FEATURES, 8)), RNG.normal(size=(8, 3))
IMAGES = RNG.uniform(size=(N, *SHAPE))
NOISE = RNG.normal(size=(DRAWS, N, *SHAPE))


def make_basis():
    basis = np.zeros((N, 4, FEATURES))
    for number, rank in enumerate(RANKS):
        basis[number, :rank] = np.linalg.qr(RNG.normal(size=(FEATURES, rank)))[0].T
    return basis.reshape(N, 4, *SHAPE)


BASIS = make_basis()


def apply_fn(x):
    """A small smooth network."""
    return jnp.tanh(x.reshape(len(x), -1) @ jnp.asarray(W, x.dtype)) @ jnp.asarray(V, x.dtype)


def slow_softmax(image):
    """The class probabilities of one image, in NumPy."""
    logits = np.tanh(image.reshape(-1) @ W) @ V
    return np.exp(logits) / np.exp(logits).sum()


def slow_change(image, step):
    return np.abs(slow_softmax(image + step) - slow_softmax(image)).sum()


def slow_parts(basis, v):
    on = np.zeros_like(v)
    for vector in basis:
        on += vector * (vector * v).sum()
    return on, v - on


def slow_robustness(eps, noise):
    """(2, n): on and off, a mean over draws."""
    changes = np.zeros((2, len(noise), N))
    for draw, of_images in enumerate(noise):
        for i, u in enumerate(of_images):
            for which, part in enumerate(slow_parts(BASIS[i], u)):
                changes[which, draw, i] = slow_change(IMAGES[i], eps * part / np.sqrt((part**2).sum()))
    return changes.mean(1)


GRID = (0.0, 0.1, 1.0, REFERENCE_EPS[13])
x, basis, noise, grid = jnp.asarray(IMAGES), jnp.asarray(BASIS), jnp.asarray(NOISE), jnp.array(GRID)

# Compiled whole: an eager call compiles every operation by itself.
directions_of = jax.jit(directions)
of_manifold = jax.jit(manifold_robustness, static_argnames=("apply_fn", "draws", "bounds", "chunk_size"))
of_part = jax.jit(relative_noise_robustness, static_argnames=("apply_fn", "draws", "chunk_size"))
share_of = jax.jit(off_manifold_share)
share_by_noise = jax.jit(off_manifold_share_by_noise, static_argnames=("function", "draws", "chunk_size"))


# -------------------------------------------------------------------------------------------- directions
def test_directions_are_unit_orthogonal_and_complementary():
    on, off = directions_of(basis, noise[0])
    for i in range(N):
        parts = slow_parts(BASIS[i], NOISE[0, i])
        np.testing.assert_allclose([(on[i] ** 2).sum(), (off[i] ** 2).sum()], [1, 1], rtol=1e-13)
        np.testing.assert_allclose((on[i] * off[i]).sum(), 0, atol=1e-14)
        lengths = [np.sqrt((part**2).sum()) for part in parts]
        np.testing.assert_allclose(lengths[0] * on[i] + lengths[1] * off[i], NOISE[0, i], atol=1e-13)
        np.testing.assert_allclose(on[i], slow_parts(BASIS[i], np.asarray(on[i]))[0], atol=1e-14)


def test_there_is_no_direction_on_a_point_and_none_off_the_whole_space():
    """Rank 0, and all features: what rounding leaves of the off-manifold part there must not become a direction."""
    whole = np.linalg.qr(np.random.default_rng(2).normal(size=(FEATURES, FEATURES)))[0].reshape(FEATURES, *SHAPE)
    extremes = jnp.asarray(np.stack([np.zeros_like(whole), whole]))
    on, off = directions_of(extremes, noise[0, :2])
    assert [bool(np.any(v)) for v in (on[0], on[1], off[0], off[1])] == [False, True, True, False]
    measured = of_manifold(apply_fn, x[:2], extremes, eps_l2=[0.5, 1.0], noise=noise[:, :2])
    np.testing.assert_array_equal(np.isnan(measured.on), [[True, False]] * 2)
    np.testing.assert_array_equal(np.isnan(measured.off), [[False, True]] * 2)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize(("features", "rank"), [(3, 1), (784, 32)])
def test_what_rounding_leaves_of_noise_is_no_direction(features, rank, scale):
    """Noise in the span, and noise of which little is left: in float32, where once is not enough."""
    rng = np.random.default_rng(12)
    vectors = np.linalg.qr(rng.normal(size=(4, features, rank)))[0].swapaxes(1, 2).astype(np.float32)
    inside = np.einsum("nk,nkf->nf", rng.normal(size=(4, rank)), vectors)
    across = rng.normal(size=(4, features))
    across -= np.einsum("nk,nkf->nf", np.einsum("nf,nkf->nk", across, vectors), vectors)
    across *= np.linalg.norm(inside, axis=1, keepdims=True) / np.linalg.norm(across, axis=1, keepdims=True)
    on, off = directions(jnp.asarray(vectors), jnp.asarray(scale * inside, jnp.float32))
    np.testing.assert_allclose((np.asarray(on, float) ** 2).sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(off, np.zeros_like(off))
    on, off = directions(jnp.asarray(vectors), jnp.asarray(scale * across, jnp.float32))
    np.testing.assert_array_equal(on, np.zeros_like(on))
    np.testing.assert_allclose((np.asarray(off, float) ** 2).sum(1), 1, rtol=1e-5)
    on, off = (
        np.asarray(v, float)
        for v in directions(jnp.asarray(vectors), jnp.asarray(scale * (inside + 1e-3 * across), jnp.float32))
    )
    np.testing.assert_allclose([(on**2).sum(1), (off**2).sum(1)], np.ones((2, 4)), rtol=1e-5)
    np.testing.assert_allclose((on * off).sum(1), 0, atol=1e-6)


def test_noise_that_is_not_finite_makes_no_direction_of_zero():
    on, off = directions(basis, noise[0].at[0, 0, 0].set(jnp.nan))
    assert np.isnan(on[0]).all()
    assert np.isnan(off[0]).all()
    assert np.isfinite(on[1:]).all()


# ----------------------------------------------------------------------------------- on- and off-manifold
def test_manifold_robustness_equals_its_slow_twin_and_a_grid_the_loop_over_it():
    measured = of_manifold(apply_fn, x, basis, eps_l2=grid, noise=noise)
    assert measured.on.shape == measured.off.shape == (4, N)
    for number, eps in enumerate(GRID):
        alone = of_manifold(apply_fn, x, basis, eps_l2=eps, noise=noise)
        assert alone.on.shape == (N,)
        expected = slow_robustness(eps, NOISE)
        for found in (alone, (measured.on[number], measured.off[number])):
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-14)
    assert np.abs(measured.on - measured.off)[1:].min() > 1e-6


def test_the_grid_is_the_references():
    assert len(REFERENCE_EPS) == 20
    np.testing.assert_allclose(REFERENCE_EPS, [10 ** (-3 + 5 * i / 19) for i in range(20)], rtol=1e-12)
    assert round(REFERENCE_EPS[13], 3) == 2.637


def test_one_draw_may_come_without_its_axis():
    one = of_manifold(apply_fn, x, basis, eps_l2=1.0, noise=noise[0])
    np.testing.assert_allclose(one, slow_robustness(1.0, NOISE[:1]), rtol=1e-11)


def test_chunks_equal_the_whole():
    """Of four images, three at a time and then one; of three draws, two and then one."""
    mask = jnp.asarray(np.random.default_rng(1).uniform(size=(N, 2, 3)) < 0.5)
    manifold = partial(of_manifold, apply_fn, x, basis, eps_l2=grid, noise=noise)
    masked = partial(of_part, apply_fn, x, mask, sigma=grid, noise=noise)
    share = partial(share_by_noise, value, x, basis, sigma=0.1, noise=noise)
    for measure, chunk_size in ((manifold, 3), (masked, 3), (share, 2)):
        np.testing.assert_allclose(measure(chunk_size=chunk_size), measure(), rtol=1e-11, atol=1e-15)


def test_p16_all_models_see_the_same_images_and_directions():
    """Each of the `n` images, and from each the steps along every draw's two directions; nothing else."""
    seen = []

    def recording(x):
        jax.debug.callback(lambda x: seen.append(np.array(x)), x)
        return apply_fn(x)

    @jax.jit
    def measure(slope):
        options = {"key": jax.random.key(1), "draws": 2, "eps_l2": 0.7}
        return manifold_robustness(lambda x: slope * recording(x), x, basis, **options)

    of_models = []
    for slope in (1.0, -3.0):
        measure(slope)
        jax.effects_barrier()
        of_models.append(np.unique(np.concatenate(seen).reshape(-1, FEATURES), axis=0))
        seen.clear()
    np.testing.assert_array_equal(*of_models)
    assert len(of_models[0]) == N * (1 + 2 * 2)
    steps = np.sqrt(((of_models[0][:, None] - IMAGES.reshape(1, N, -1)) ** 2).sum(2)).min(1)
    assert sorted(np.round(steps, 12)) == [0.0] * N + [0.7] * 4 * N


def test_p16_the_softmax_is_compared_and_not_the_logits():
    """Adding c(x) = |x|^2 to all logits changes no probability."""

    def shifted(x):
        return apply_fn(x) + jnp.sum(x**2, axis=(1, 2, 3))[:, None]

    measured = [of_manifold(f, x, basis, eps_l2=2.0, noise=noise) for f in (apply_fn, shifted)]
    np.testing.assert_allclose(*measured, rtol=1e-10)


def test_keys_draw_standard_normal_noise_anew_for_each_image_and_draw():
    """A model of two classes with logits (a.u, 0) moves by |a.u| / 2 for small steps: half a normal, folded."""
    n = 400
    images = jnp.zeros((n, 5))
    direction = jnp.array([[0.6, 0.0, 0.8, 0.0, 0.0]]).T

    def model(x):
        return jnp.pad(x @ direction, ((0, 0), (0, 1)))

    options = {"sigma": 1e-4, "mask": jnp.ones((n, 5), bool), "key": jax.random.key(3)}
    moved = 2 * np.asarray(of_part(model, images, draws=8, **options)) / 1e-4
    # A folded normal has mean sqrt(2 / pi) and variance 1 - 2 / pi.
    variance = 1 - 2 / np.pi
    assert np.abs(moved.mean() - np.sqrt(2 / np.pi)) < 4 * np.sqrt(variance / (8 * n))
    assert np.abs(moved.var() / (variance / 8) - 1) < 4 * np.sqrt(2.3 / n)


def test_bounds_cut_what_leaves_them():
    measured = of_manifold(apply_fn, x, basis, eps_l2=3.0, noise=noise, bounds=(0.0, 1.0))
    expected = np.zeros((2, DRAWS, N))
    for draw in range(DRAWS):
        for i in range(N):
            for which, part in enumerate(slow_parts(BASIS[i], NOISE[draw, i])):
                stepped = np.clip(IMAGES[i] + 3 * part / np.sqrt((part**2).sum()), 0, 1)
                expected[which, draw, i] = slow_change(IMAGES[i], stepped - IMAGES[i])
    np.testing.assert_allclose(measured, expected.mean(1), rtol=1e-11)


# ----------------------------------------------------------------------------------------- signal, distractor
def test_cut_steps_are_shorter_and_said_to_be():
    """A bound at the images' own values in one channel, none in the others."""
    low, high = x.min((0, 1, 2)), jnp.full(x.shape[-1], jnp.inf)
    low = low.at[1:].set(-jnp.inf)
    eps = jnp.array([0.1, 2.0])
    found = step_lengths(x, basis, eps_l2=eps, noise=noise, bounds=(low, high), chunk_size=3)
    for part, lengths in zip(zip(*(directions(basis, u) for u in noise), strict=True), found, strict=True):
        for row, distance in enumerate(eps):
            cut = [np.clip(x + distance * way, low, high) - x for way in part]
            expected = np.mean([np.linalg.norm(step.reshape(N, -1), axis=1) for step in cut], axis=0)
            np.testing.assert_allclose(lengths[row], expected, rtol=1e-10)
    assert (found.off[1] < 1.99).any()
    for lengths in step_lengths(x, basis, eps_l2=eps, noise=noise):
        np.testing.assert_allclose(lengths, jnp.broadcast_to(eps[:, None], (2, N)), rtol=1e-10)


def test_bfloat16_images_are_measured_in_float32():
    small = x.astype(jnp.bfloat16)
    exact, found = (
        of_manifold(lambda z: apply_fn(z.astype(jnp.float64)), images, basis, eps_l2=0.5, noise=noise)
        for images in (small.astype(jnp.float64), small)
    )
    for a, b in zip(exact, found, strict=True):
        assert b.dtype == jnp.float32
        np.testing.assert_allclose(b, a, atol=0.02)


def test_relative_noise_robustness_equals_its_slow_twin():
    mask = np.random.default_rng(4).uniform(size=(N, 2, 3)) < 0.5
    of_pixels, of_values = (
        of_part(apply_fn, x, jnp.asarray(which), sigma=grid, noise=noise)
        for which in (mask, np.repeat(mask[..., None], 2, axis=3))
    )
    expected = np.zeros((4, DRAWS, N))
    for number, sigma in enumerate(GRID):
        for draw in range(DRAWS):
            for i in range(N):
                expected[number, draw, i] = slow_change(IMAGES[i], sigma * mask[i][..., None] * NOISE[draw, i])
    np.testing.assert_allclose(of_pixels, expected.mean(1), rtol=1e-11, atol=1e-14)
    np.testing.assert_array_equal(of_values, of_pixels)


def test_noise_on_what_a_model_does_not_look_at_changes_nothing():
    """A model that looks at the upper row, which is the signal in one image and the distractor in the others."""
    upper = jnp.zeros((N, 2, 3), bool).at[:, 0].set(True)
    signal = upper.at[1:].set(~upper[1:])

    def looks_at_upper(x):
        return apply_fn(x * jnp.array([1.0, 0.0]).reshape(1, 2, 1, 1))

    of_signal, of_distractor = (
        of_part(looks_at_upper, x, mask, sigma=[0.1, 10.0], noise=noise) for mask in (signal, ~signal)
    )
    seen, unseen = (
        np.where([True, False, False, False], *pair)
        for pair in ((of_signal, of_distractor), (of_distractor, of_signal))
    )
    assert (seen > 1e-3).all()
    np.testing.assert_allclose(unseen, np.zeros((2, N)), atol=1e-15)


def test_an_empty_part_is_reported():
    mask = jnp.asarray(np.arange(N) > 0)[:, None, None] & jnp.ones((N, 2, 3), bool)
    measured = of_part(apply_fn, x, mask, sigma=grid, noise=noise)
    assert np.isnan(measured).tolist() == [[True, False, False, False]] * 4


# -------------------------------------------------------------------------------------- shares of the gradient
def value(x):
    """The log-probability of the label, the number of the image modulo 3."""
    return log_prob(apply_fn(x), jnp.arange(N) % 3)


@pytest.fixture(scope="module")
def gradients():
    return jax.jit(jax.grad(lambda x: value(x).sum()))(x)


def test_shares_equal_their_slow_twin_in_any_scale(gradients):
    off = np.stack([slow_parts(BASIS[i], np.asarray(gradients[i]))[1] for i in range(N)])
    expected = (off**2).sum((1, 2, 3)) / (np.asarray(gradients) ** 2).sum((1, 2, 3))
    assert 0.1 < expected.min() < expected.max() < 0.9999
    for scale in (1.0, 1e-200, 1e200):
        np.testing.assert_allclose(share_of(scale * gradients, basis), expected, rtol=1e-12)


def test_gradients_in_and_across_the_tangent_space_have_shares_of_nothing_and_all():
    np.testing.assert_allclose(share_of(basis[:, 0], basis), np.zeros(N), atol=1e-28)
    _, off = directions_of(basis, noise[0])
    np.testing.assert_allclose(share_of(off, basis), np.ones(N), rtol=1e-13)


def test_float32_shares_of_tiny_gradients_are_right(gradients):
    """Squares of 1e-30 are zero in float32."""
    tiny = (1e-30 * gradients).astype(jnp.float32)
    found = share_of(tiny, basis.astype(jnp.float32))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, share_of(gradients, basis), rtol=1e-5)


@pytest.mark.parametrize("bad", [0.0, jnp.nan, jnp.inf])
def test_gradients_without_a_share_are_reported(bad, gradients):
    shares = share_of(gradients.at[1].multiply(0).at[1, 0, 0, 0].set(bad), basis)
    assert np.isnan(shares).tolist() == [False, True, False, False]


def test_theorem_1_responses_to_noise_approach_the_share_of_the_gradient(gradients):
    """With the same draws, the error of central differences falls as sigma^2; with many, what is left is sampling."""
    draws = np.random.default_rng(5).normal(size=(4000, N, *SHAPE))
    shares = partial(share_by_noise, value, x, basis, noise=jnp.asarray(draws))
    along = [(np.asarray(gradients) * part).sum((2, 3, 4)) for part in parts_of_all(draws)]
    limit = (along[1] ** 2).sum(0) / (along[0] ** 2 + along[1] ** 2).sum(0)
    errors = [np.abs(shares(sigma=sigma) - limit).max() for sigma in (4e-2, 2e-2, 1e-4)]
    np.testing.assert_allclose(errors[0] / errors[1], 4, rtol=0.1)
    assert errors[2] < 1e-6
    exact = np.asarray(share_of(gradients, basis))
    assert (np.abs(limit - exact) < 4 * 2 * exact * (1 - exact) / np.sqrt(4000)).all()


def parts_of_all(v):
    on = np.einsum("nkhwc,dnk->dnhwc", BASIS, np.einsum("nkhwc,dnhwc->dnk", BASIS, v))
    return on, v - on


def test_responses_of_quadratic_functions_need_no_limit():
    """Central differences of a quadratic are exact at any sigma."""
    half = np.random.default_rng(6).normal(size=(FEATURES, FEATURES))
    matrix = jnp.asarray(half + half.T)

    def quadratic(x):
        rows = x.reshape(len(x), -1)
        return jnp.sum((rows @ matrix) * rows, 1) / 2

    gradients = (IMAGES.reshape(N, -1) @ np.asarray(matrix)).reshape(IMAGES.shape)
    along = [(gradients * part).sum((2, 3, 4)) for part in parts_of_all(NOISE)]
    expected = (along[1] ** 2).sum(0) / (along[0] ** 2 + along[1] ** 2).sum(0)
    for sigma in (0.01, 5.0):
        found = share_by_noise(quadratic, x, basis, sigma=sigma, noise=noise)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_function_that_does_not_change_has_no_share():
    constant = share_by_noise(lambda x: 0 * x.sum((1, 2, 3)), x, basis, sigma=0.1, noise=noise)
    assert np.isnan(constant).all()


def test_all_are_float32_for_float32_images():
    x32, mask = x.astype(jnp.float32), jnp.ones(x.shape, bool)
    eps = np.logspace(-1, 1, 3)
    on, off = of_manifold(apply_fn, x32, basis, eps_l2=eps, noise=noise)
    masked = of_part(apply_fn, x32, mask, sigma=eps, noise=noise)
    share = share_by_noise(value, x32, basis, sigma=np.float64(0.1), draws=2, key=jax.random.key(0))
    for measured in (on, off, masked, share):
        assert measured.dtype == jnp.float32
        assert np.isfinite(measured).all()


# ---------------------------------------------------------------------------------------------- refusals
ONE_STEP = {"eps_l2": 1.0, "noise": noise}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: manifold_robustness(apply_fn, x, basis, eps_l2=1.0), "exactly one of `key` and `noise`"),
        (lambda: manifold_robustness(apply_fn, x, basis, key=jax.random.key(0), **ONE_STEP), "exactly one of"),
        (lambda: manifold_robustness(apply_fn, x, basis, eps_l2=-1.0, noise=noise), "`eps_l2` .* at least 0.* got -1"),
        (lambda: manifold_robustness(apply_fn, x, basis, eps_l2=[1.0, np.inf], noise=noise), "`eps_l2` .* finite"),
        (lambda: manifold_robustness(apply_fn, x, basis, eps_l2=jnp.ones((2, 2)), noise=noise), "one axis of them"),
        (
            lambda: manifold_robustness(apply_fn, x, basis, eps_l2=1.0, noise=noise[:, :2]),
            "`noise` must have the shape",
        ),
        (
            lambda: manifold_robustness(apply_fn, x, basis, eps_l2=1.0, key=jax.random.key(0), draws=0),
            "`draws` must be .* at least 1, got 0",
        ),
        (lambda: manifold_robustness(apply_fn, x, basis, chunk_size=-1, **ONE_STEP), "`chunk_size` .* got -1"),
        (lambda: manifold_robustness(apply_fn, x, basis, bounds=(1, 0), **ONE_STEP), r"got \(1, 0\)"),
        (lambda: manifold_robustness(apply_fn, x, basis, bounds=(jnp.nan, 1), **ONE_STEP), r"`bounds` must be"),
        (lambda: manifold_robustness(apply_fn, x, basis, bounds=(jnp.zeros(N), 9), **ONE_STEP), "one for each channel"),
        (lambda: manifold_robustness(apply_fn, x + 9, basis, bounds=(0, 1), **ONE_STEP), "images must lie inside"),
        (lambda: manifold_robustness(apply_fn, x, basis, eps_l2=[], noise=noise), "`eps_l2` must be"),
        (lambda: manifold_robustness(lambda x: apply_fn(x)[:, :1], x, basis, **ONE_STEP), "at least two classes"),
        (lambda: manifold_robustness(lambda x: apply_fn(x)[:, 0], x, basis, **ONE_STEP), r"\(1, classes\), got \(1,\)"),
        (lambda: off_manifold_share_by_noise(apply_fn, x, basis, sigma=0.1, noise=noise), "one number for each of 4"),
        (lambda: manifold_robustness(apply_fn, x * jnp.nan, basis, **ONE_STEP), "NaN or infinite"),
        (lambda: manifold_robustness(apply_fn, x, basis[:, :, :1], **ONE_STEP), "need a basis"),
        (lambda: directions(basis[..., 0], noise[0]), "need a basis"),
        (lambda: directions(basis[:, :0], noise[0]), r"with k at least 1 .*, got the shape \(4, 0, "),
        (
            lambda: relative_noise_robustness(apply_fn, x, jnp.ones((N, 3), bool), sigma=1.0, noise=noise),
            r"`mask` must be truth values .* got bool of the shape \(4, 3\)",
        ),
        (
            lambda: off_manifold_share_by_noise(value, x, basis, sigma=[0.1, 0.2], noise=noise),
            r"`sigma` must be one number, got the shape \(2,\)",
        ),
        (lambda: off_manifold_share(noise[0], basis[..., :1]), "need a basis"),
        (lambda: off_manifold_share_by_noise(value, x, basis, sigma="1", noise=noise), "`sigma` must be numbers"),
        (lambda: manifold_robustness(apply_fn, x, basis, eps_l2=True, noise=noise), "`eps_l2` must be numbers"),
    ],
)
def test_what_cannot_be_used_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
