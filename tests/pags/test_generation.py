"""Generated images against closed forms on linear and Gaussian models, the optimum's conditions, ball, box and mask."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import gaussians, generation, gradients, wrappers
from pags_jax.generation import counterfactual, denoise, inpaint, outside_square, synthesize
from tests.pags import oracles

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
SHAPE = (4, 4, 2)
X = jnp.asarray(RNG.uniform(0.2, 0.8, size=(6, *SHAPE)))
Y = jnp.arange(6) % 3
MEANS = jnp.asarray(RNG.uniform(size=(3, *SHAPE)))
PARAMS = oracles.draw_params(1, 32)


def network(x):
    """A softplus network of three classes."""
    w, b, v, c = (jnp.asarray(part, x.dtype) for part in PARAMS)
    return jax.nn.softplus(x.reshape(x.shape[0], -1) @ w + b[None]) @ v + c[None]


def gaussian_classes(means, x, s=0.7):
    """Logits ``log p(x, y)`` of equally likely Gaussians around the means."""
    means = means.astype(x.dtype)
    return -jnp.sum((x[:, None] - means[None]) ** 2, (2, 3, 4)) / (2 * s**2)


def lengths(values):
    return np.linalg.norm(np.asarray(values, float).reshape(len(values), -1), axis=1)


# ----------------------------------------------------------------------------------------------------- closed forms
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_two_gaussian_classes_are_left_along_the_difference_of_their_means(norm):
    """``log p(y | x)`` rises with ``<m_y - m_other, x>`` alone, so that the best point of a ball is known."""
    eps, y = np.array([0.1, 0.5, 1.0, 2.0, 0.3, 0.0]), np.arange(6) % 2
    run = jax.jit(partial(counterfactual, partial(gaussian_classes, MEANS[:2]), steps=5, bounds=None))
    made = run(X, jnp.asarray(y), **{f"eps_{norm}": jnp.asarray(eps)})
    way = np.asarray(MEANS)[y] - np.asarray(MEANS)[1 - y]
    way = np.sign(way) if norm == "linf" else way / lengths(way)[:, None, None, None]
    np.testing.assert_allclose(made.images, np.asarray(X) + eps[:, None, None, None] * way, atol=1e-12)


def test_of_several_classes_the_result_meets_the_conditions_of_the_optimum():
    """Of linear logits ``log p`` is concave: its maximum in a ball is where the gradient points along ``delta``."""
    model = partial(gaussian_classes, MEANS)
    made = jax.jit(partial(counterfactual, model, steps=400, bounds=None))(X, Y, eps_l2=0.5, step_size=0.005)
    moved = (np.asarray(made.images) - np.asarray(X)).reshape(6, -1)
    slope = jax.jit(partial(gradients.input_gradients, model, target="log_prob"))(made.images, Y)
    slope = np.asarray(slope).reshape(6, -1)
    np.testing.assert_allclose(lengths(moved), 0.5, rtol=1e-9)
    np.testing.assert_allclose((moved * slope).sum(1) / lengths(moved) / lengths(slope), 1, atol=1e-4)


def test_denoising_a_linear_model_moves_along_its_weights():
    y = np.asarray(gaussian_classes(MEANS[:2], X).argmax(1))
    made = denoise(partial(gaussian_classes, MEANS[:2]), X, eps_l2=0.25, steps=3, bounds=None)
    way = np.asarray(MEANS)[y] - np.asarray(MEANS)[1 - y]
    np.testing.assert_allclose(made.images - X, 0.25 * way / lengths(way)[:, None, None, None], atol=1e-12)
    assert np.all(made.reached)
    other = denoise(partial(gaussian_classes, MEANS[:2]), X, jnp.asarray(1 - y), eps_l2=0.25, steps=3, bounds=None)
    np.testing.assert_allclose(other.images - X, X - made.images, atol=1e-12)


# ------------------------------------------------------------------------------------------------ what always holds
@pytest.mark.parametrize(("norm", "dtype"), [("l2", jnp.float32), ("linf", jnp.float16), ("l2", jnp.float64)])
def test_results_stay_in_ball_and_box_and_raise_the_class(norm, dtype):
    x, y = X.astype(dtype), (Y + 1) % 3
    bounds = (jnp.array([0.1, 0.15]), jnp.array([0.9, 0.85]))
    made = jax.jit(partial(counterfactual, network, steps=8, bounds=bounds, unroll=True))(x, y, **{f"eps_{norm}": 0.3})
    assert made.images.dtype == dtype
    moved = np.asarray(made.images, float) - np.asarray(x, float)
    size = lengths(moved) if norm == "l2" else np.abs(moved).max((1, 2, 3))
    # The sum x + delta is rounded; delta itself is not longer than the radius.
    assert np.all(size <= 0.3 + 6 * float(jnp.finfo(dtype).eps))
    low, high = (np.asarray(end.astype(dtype), float) for end in bounds)
    assert np.all((np.asarray(made.images, float) >= low) & (np.asarray(made.images, float) <= high))
    assert np.all(made.log_prob > 0.7 * made.log_prob_start)
    again = -oracles.cross_entropies(
        oracles.logits(PARAMS, np.asarray(made.images, float).reshape(6, -1)), np.asarray(y)
    )
    np.testing.assert_allclose(made.log_prob, again, atol=100 * float(jnp.finfo(dtype).eps))
    assert not np.any(made.no_gradient)


def test_a_model_without_gradients_moves_nothing_and_says_so():
    for value in (1.0, jnp.nan):
        made = counterfactual(lambda x, v=value: jnp.full((len(x), 3), v, x.dtype), X, Y, eps_l2=1.0, steps=3)
        np.testing.assert_array_equal(made.images, X)
        assert np.all(made.no_gradient)
        assert not np.any(made.reached)


def test_a_step_that_lowers_the_class_is_not_taken():
    """At the top of a hill every step leads down; an ascent of one large step ends lower, and the start is kept."""

    def hill(x):
        height = -jnp.sum((x - 0.5) ** 2, (1, 2, 3))
        return jnp.stack([height, jnp.zeros_like(height)], 1)

    x = jnp.full((1, *SHAPE), 0.5).at[0, 0, 0, 0].add(0.01)
    made = jax.jit(partial(counterfactual, hill, eps_l2=1.0, steps=1))(x, jnp.array([0]))
    np.testing.assert_array_equal(made.images, x)
    assert made.log_prob == made.log_prob_start
    assert not made.no_gradient[0]


def test_radii_steps_classes_and_keys_compile_once():
    traces = []
    fitted = gaussians.fit(X, Y, classes=3, shrink=2)

    @jax.jit
    def run(y, key, eps, step):
        traces.append(1)
        return synthesize(network, fitted, y, key=key, eps_l2=eps, steps=3, step_size=step)

    first = run(Y, KEY, 0.5, 0.3)
    np.testing.assert_array_equal(run(Y, KEY, 0.5, 0.3).images, first.images)
    others = [run(Y, jax.random.key(1), 0.5, 0.3), run((Y + 1) % 3, KEY, 0.5, 0.3), run(Y, KEY, 0.4, 0.1)]
    assert all(np.any(other.images != first.images) for other in others)
    assert len(traces) == 1


def test_traced_classes_that_are_none_move_nothing():
    made = jax.jit(lambda y: counterfactual(network, X, y, eps_l2=1.0, steps=2))(Y.at[0].set(7))
    np.testing.assert_array_equal(made.images[0], X[0])
    assert np.isnan(made.log_prob[0])
    assert made.no_gradient.tolist() == [True, *[False] * 5]


def test_a_smoothed_model_is_climbed_by_its_own_gradient():
    model = wrappers.smoothed(network, key=KEY, sigma=0.3, samples=8)
    made = jax.jit(partial(counterfactual, model, eps_l2=0.2, steps=1, step_size=0.1, bounds=None))(X, Y)
    slope = np.asarray(jax.jit(partial(gradients.input_gradients, model, target="log_prob"))(X, Y))
    np.testing.assert_allclose(
        np.asarray(made.images) - np.asarray(X), 0.1 * slope / lengths(slope)[:, None, None, None], atol=1e-9
    )


# --------------------------------------------------------------------------------------------------------- synthesis
def test_class_gaussians_are_numpys():
    """Means of whole images; covariances of 2 x 2 blocks' means, of shrink 1 those of the pixels."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 40)
    x = rng.uniform(size=(40, *SHAPE)) * (1 + y[:, None, None, None])
    for shrink in (1, 2):
        fitted = jax.jit(partial(gaussians.fit, classes=3, shrink=shrink))(jnp.asarray(x / 4), jnp.asarray(y))
        for c in range(3):
            of_class = x[y == c] / 4
            np.testing.assert_allclose(fitted.mean[c], of_class.mean(0), rtol=1e-12)
            blocks = (
                of_class.reshape(-1, 4 // shrink, shrink, 4 // shrink, shrink, 2)
                .mean((2, 4))
                .reshape(len(of_class), -1)
            )
            root = np.asarray(fitted.root[c]).reshape(blocks.shape[1], -1)
            np.testing.assert_allclose(root @ root.T, np.cov(blocks.T, bias=True), atol=1e-12)


def test_draws_have_the_mean_and_the_covariance_of_their_class():
    fitted = gaussians.fit(X, Y, classes=3, shrink=1)
    n = 20_000
    drawn = np.asarray(jax.jit(gaussians.draw)(fitted, jnp.full(n, 2), key=KEY)).reshape(n, -1)
    root = np.asarray(fitted.root[2]).reshape(drawn.shape[1], -1)
    spread = np.sqrt(np.diag(root @ root.T))
    np.testing.assert_allclose(drawn.mean(0), fitted.mean[2].ravel(), atol=5 * spread.max() / n**0.5)
    np.testing.assert_allclose(np.cov(drawn.T, bias=True), root @ root.T, atol=7 * spread.max() ** 2 / n**0.5)


def test_a_class_of_one_image_is_drawn_as_this_image():
    fitted = gaussians.fit(X[:3].astype(jnp.float32), jnp.arange(3), classes=3, shrink=2)
    drawn = gaussians.draw(fitted, jnp.array([2, 0]), key=KEY)
    np.testing.assert_allclose(drawn, X[jnp.array([2, 0])], atol=1e-6)
    assert drawn.dtype == jnp.float32


def test_synthesis_begins_with_draws_that_are_cut_to_the_box():
    fitted = gaussians.ClassGaussians(MEANS, 3 * jnp.ones((3, 2, 2, 2, 1)))
    made = synthesize(partial(gaussian_classes, MEANS), fitted, Y, key=KEY, eps_l2=3.0, steps=10)
    np.testing.assert_array_equal(made.start, jnp.clip(gaussians.draw(fitted, Y, key=KEY), 0, 1))
    assert np.any(made.start == 0)
    assert np.all(made.log_prob > made.log_prob_start)
    assert np.mean(made.reached) > np.mean(gaussian_classes(MEANS, made.start).argmax(1) == Y)


# --------------------------------------------------------------------------------------------------------- in-painting
def test_in_painting_leaves_known_pixels_untouched_and_looks_at_no_other():
    known = outside_square(KEY, X.shape, 2)
    run = jax.jit(partial(inpaint, network, steps=5))
    made = run(X, known, Y, eps_l2=0.6)
    wide = np.broadcast_to(known, X.shape)
    np.testing.assert_array_equal(np.asarray(made.images)[wide], np.asarray(X)[wide])
    moved = np.where(wide, 0, np.asarray(made.images) - 0.5)
    assert np.all(lengths(moved) <= 0.6 + 1e-12)
    assert np.all(lengths(moved) > 0)
    assert np.all(made.log_prob > made.log_prob_start)
    hidden = jnp.where(known, X, jnp.nan)
    np.testing.assert_array_equal(run(hidden, known, Y, eps_l2=0.6).images, made.images)
    eager = inpaint(network, hidden, known, Y, steps=5, eps_l2=0.6).images
    np.testing.assert_allclose(eager, made.images, rtol=1e-12)
    np.testing.assert_array_equal(np.asarray(eager)[wide], np.asarray(X)[wide])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_in_painting_leaves_every_bit_of_known_pixels(dtype):
    """Also the sign of zero, and numbers that arithmetic rounds to zero."""
    known = outside_square(KEY, X.shape, 2)
    x = jnp.where(
        jnp.arange(4).reshape(1, 1, 4, 1) % 2, -0.0, np.asarray(1e-40 if dtype == jnp.float32 else 6e-8, dtype)
    )
    x = jnp.broadcast_to(x, X.shape).astype(dtype)
    for bounds in ((0, 1), None):
        made = jax.jit(partial(inpaint, network, steps=2, bounds=bounds))(x, known, Y, eps_l2=0.6)
        assert np.all(made.log_prob > made.log_prob_start)
        for found in (made.images, made.start):
            bits = (np.where(known, values, 0).view(f"u{dtype.dtype.itemsize}") for values in (found, x))
            np.testing.assert_array_equal(*bits)


def test_in_painting_of_two_gaussian_classes_has_a_closed_form():
    """Only unknown pixels move, along the difference of the means there; they begin with the filling."""
    known, fill, y = outside_square(KEY, X.shape, 3), MEANS[jnp.zeros(6, int)], np.arange(6) % 2
    made = inpaint(partial(gaussian_classes, MEANS[:2]), X, known, jnp.asarray(y), fill=fill, eps_l2=0.2, steps=4,
                   bounds=None)  # fmt: skip
    way = np.where(known, 0, np.asarray(MEANS)[y] - np.asarray(MEANS)[1 - y])
    start = np.where(known, X, fill)
    np.testing.assert_array_equal(made.start, start)
    np.testing.assert_allclose(made.images, start + 0.2 * way / lengths(way)[:, None, None, None], atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_images_stay_in_the_ball_when_their_sum_with_the_step_is_rounded(dtype):
    x, eps = X.astype(dtype), 0.03
    model = partial(gaussian_classes, MEANS)
    made = inspect.unwrap(counterfactual)(lambda x: model(x.astype(jnp.float32)), x, Y, eps_linf=eps, steps=3)
    moved = np.abs(np.asarray(made.images, float) - np.asarray(x, float)).max((1, 2, 3))
    assert np.all(moved <= eps * (1 + 1e-7)), moved
    assert np.all(moved > eps / 2)


def test_lists_are_filled_in_as_arrays_are():
    known = np.asarray(X) > 0.4
    one, other = (inspect.unwrap(inpaint)(network, x, known, Y, eps_l2=0.5, steps=2) for x in (X, X.tolist()))
    np.testing.assert_array_equal(one.images, other.images)


def test_squares_lie_anywhere_inside():
    masks = ~np.asarray(outside_square(KEY, (500, 5, 7, 3), 3))[..., 0]
    assert masks.shape == (500, 5, 7)
    assert np.all(masks.sum((1, 2)) == 9)
    assert np.all(masks.any(2).sum(1) == 3)
    assert np.all(masks.any(1).sum(1) == 3)
    places = {(int(mask.any(1).argmax()), int(mask.any(0).argmax())) for mask in masks}
    assert len(places) == 3 * 5


# ----------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: counterfactual(network, X, Y, steps=1), "give exactly one radius"),
        (lambda: counterfactual(network, X, Y, eps_l2=-1.0, steps=1), "`eps_l2` must be finite and at least 0"),
        (lambda: counterfactual(network, X, Y, eps_l2=1.0, steps=0), "`steps` must be a whole number"),
        (lambda: counterfactual(network, 2 * X, Y, eps_l2=1.0, steps=1), "images must lie inside `bounds`"),
        (lambda: counterfactual(network, X, Y + 1, eps_l2=1.0, steps=1), "labels must be below 3"),
        (lambda: inspect.unwrap(counterfactual)(network, X, Y[:2], eps_l2=1.0, steps=1), "expected 6 labels"),
        (lambda: inspect.unwrap(inpaint)(network, X, X > 9, Y[:2], eps_l2=1.0, steps=1), "expected 6 labels"),
        (lambda: denoise(lambda x: x - x.mean(), X[:, :, 0, 0], eps_l2=1.0, steps=1), "treat each example by itself"),
        (lambda: inpaint(network, X, X, Y, eps_l2=1.0, steps=1), "`known` must be true or false for each pixel"),
        (lambda: inpaint(network, X, X > 0, Y, fill=X[:2], eps_l2=1.0, steps=1), "`fill` must be one number or have"),
        (lambda: outside_square(KEY, X.shape, 5), "`side` must be a whole number from 1 to 4, got 5"),
        (lambda: inspect.unwrap(outside_square)(KEY, X.shape, True), "`side` must be a whole number .* got True"),
        (lambda: inspect.unwrap(outside_square)(KEY, X.shape[:3], 2), "`shape` must be that of images"),
        (lambda: gaussians.fit(X, Y, classes=4), "got none of class 3"),
        (lambda: gaussians.fit(X, Y, classes=2), "labels must be below 2"),
        (lambda: gaussians.fit(X, Y, classes=3, shrink=3), "divisible by `shrink` = 3"),
        (
            lambda: synthesize(network, gaussians.ClassGaussians(MEANS, MEANS[..., None]), Y + 1, key=KEY, steps=1),
            "labels must be below 3",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_names_that_others_call():
    assert all(callable(getattr(generation, name)) for name in ("synthesize", "inpaint", "denoise", "counterfactual"))
