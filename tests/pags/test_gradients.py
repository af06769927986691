"""Input gradients against Jacobians, differences, hand-written derivatives and closed forms, in float64."""

import inspect
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax.gradients import UNLABELLED, as_pictures, input_gradients, integrated_gradients, smoothed_gradients
from tests.pags import oracles

TARGETS = ("logit_sum", "logit", "log_prob", "loss", "log_sum_exp")


class Net(nn.Module):
    """A small smooth convolutional network with running statistics."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.softplus(nn.BatchNorm(use_running_average=True)(x))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(0), (7, 4, 4, 2), jnp.float64), jnp.arange(7) % 3


@pytest.fixture(scope="module")
def apply_fn(images):
    variables = Net().init(jax.random.key(1), images[0].astype(jnp.float32))
    rng = np.random.default_rng(2)
    variables = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf) + rng.uniform(0, 1, leaf.shape)), variables)
    return lambda x: Net().apply(variables, x)


def value_of(logits, label, target):
    """The differentiated number, of one example, in NumPy."""
    logits = np.asarray(logits)
    log_prob = logits[label] - np.log(np.sum(np.exp(logits)))
    values = {"logit_sum": logits.sum(), "logit": logits[label], "log_prob": log_prob, "loss": -log_prob}
    return (values | {"log_sum_exp": np.log(np.sum(np.exp(logits)))})[target]


@pytest.mark.parametrize("target", TARGETS)
def test_gradients_are_combinations_of_the_jacobian_of_the_whole_batch(target, apply_fn, images):
    """J (n, k, n, ...) of all logits by all images: zero between examples; each target weighs its rows."""
    x, y = images
    jacobian = np.asarray(jax.jit(jax.jacrev(apply_fn))(x))
    logits = np.asarray(apply_fn(x))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    e = np.eye(3)[np.asarray(y)]
    weights = {"logit_sum": np.ones((7, 3)), "logit": e, "log_prob": e - p, "loss": p - e, "log_sum_exp": p}[target]
    expected = np.einsum("nk,nkmhwc->mhwc", weights, jacobian)
    gradients = jax.jit(partial(input_gradients, apply_fn, target=target))(x, y)
    np.testing.assert_allclose(gradients, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("target", TARGETS)
def test_gradients_equal_central_differences(target, apply_fn, images):
    x, y = np.asarray(images[0][:2]), images[1][:2]
    gradients = jax.jit(partial(input_gradients, apply_fn, target=target))(x, y)
    forward = jax.jit(apply_fn)
    for i in range(2):
        expected = oracles.central_differences(
            lambda points, i=i: [value_of(logits, y[i], target) for logits in forward(points)], x[i]
        )
        np.testing.assert_allclose(gradients[i], expected, rtol=1e-8, atol=1e-9)  # the differences' own rounding


def test_the_loss_equals_the_hand_written_derivative():
    rng = np.random.default_rng(0)
    x, y, params = rng.normal(size=(5, 8)), np.array([0, 1, 2, 1, 0]), oracles.draw_params(1, 8)
    gradients = jax.jit(partial(input_gradients, mlp(params), target="loss"))(x, y)
    np.testing.assert_allclose(gradients, oracles.input_gradients(params, x, y), rtol=1e-11, atol=1e-14)


def mlp(params):
    w, b, v, c = (jnp.asarray(array) for array in params)
    return lambda x: jax.nn.softplus(x @ w + b[None]) @ v + c[None]


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_chunks_equal_the_whole(chunk_size, apply_fn, images):
    x, y = images
    whole = jax.jit(partial(input_gradients, apply_fn, target="log_prob"))(x, y)
    in_chunks = partial(input_gradients, apply_fn, target="log_prob", chunk_size=chunk_size)
    chunked = (in_chunks if chunk_size == 3 else jax.jit(in_chunks))(x, y)
    np.testing.assert_allclose(chunked, whole, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_no_example_touches_another(chunk_size, apply_fn, images):
    """Not even one whose gradient is NaN."""
    x, y = images
    gradients = jax.jit(lambda x: input_gradients(apply_fn, x, y, target="loss", chunk_size=chunk_size))
    alone, beside = gradients(x), gradients(x.at[4].set(jnp.nan).at[2].multiply(-30.0))
    others = np.array([0, 1, 3, 5, 6])
    np.testing.assert_array_equal(beside[others], alone[others])
    assert np.isnan(beside[4]).all()
    assert not np.allclose(beside[2], alone[2])


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_models_see_one_image_at_a_time(chunk_size, images):
    """So that batch statistics, should a model take them, couple nothing: a batch of one, centred, is zero.

    Only under `jit`, where what a model does cannot be seen: called eagerly it is refused."""
    x, y = images

    def centred(x):
        return (x - x.mean(axis=0, keepdims=True)).reshape(x.shape[0], -1)

    gradients = partial(input_gradients, centred, target="logit", chunk_size=chunk_size)
    np.testing.assert_array_equal(jax.jit(gradients)(x, y), jnp.zeros_like(x))
    with pytest.raises(ValueError, match=r"does not treat each example by itself.*model\.eval\(\)"):
        gradients(x, y)


def test_logit_sums_are_no_function_of_the_classifier(apply_fn, images):
    """Adding c(x) = |x|^2 to all logits changes no probability; d c / d x = 2 x."""
    x, y = images

    def shifted(x):
        return apply_fn(x) + jnp.sum(x**2, axis=(1, 2, 3))[:, None]

    def change(target):
        after, before = (jax.jit(partial(input_gradients, f, target=target))(x, y) for f in (shifted, apply_fn))
        return after - before

    np.testing.assert_allclose(change("logit_sum"), 3 * 2 * x, rtol=1e-10)
    np.testing.assert_allclose(change("logit"), 2 * x, rtol=1e-10)
    np.testing.assert_allclose(change("log_sum_exp"), 2 * x, rtol=1e-10)
    for target in ("log_prob", "loss"):
        np.testing.assert_allclose(change(target), jnp.zeros_like(x), atol=1e-13)


def test_labels_may_be_left_out_for_what_needs_none(apply_fn, images):
    x, y = images
    for target in UNLABELLED:
        np.testing.assert_array_equal(
            input_gradients(apply_fn, x, target=target), input_gradients(apply_fn, x, y, target=target)
        )
    for target in ("logit", "log_prob", "loss"):
        with pytest.raises(ValueError, match=f"'{target}' needs labels"):
            input_gradients(apply_fn, x, target=target)


@pytest.mark.parametrize("target", ["log_prob", "loss"])
def test_float32_gradients_of_a_sure_model_keep_direction_and_length(target):
    """A linear model whose labels lead by up to 100: with `log_softmax` directions turn by a right angle."""
    rng = np.random.default_rng(3)
    weights, x = rng.normal(size=(20, 10)).astype(np.float32), (8 * rng.normal(size=(64, 20))).astype(np.float32)
    logits = x.astype(np.float64) @ weights
    y = logits.argmax(axis=1)
    # p_y - 1 = - sum of the others, so that nothing cancels here either.
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p[np.arange(64), y] = 0
    p /= 1 + p.sum(axis=1, keepdims=True)
    p[np.arange(64), y] = -p.sum(axis=1)
    expected = (-p if target == "log_prob" else p) @ weights.T
    lead = np.sort(logits, axis=1)[:, -1] - np.sort(logits, axis=1)[:, -2]
    assert (lead > 20).sum() > 10
    gradients = np.asarray(jax.jit(partial(input_gradients, lambda x: x @ weights, target=target))(x, y))
    assert gradients.dtype == np.float32
    scale = np.linalg.norm(expected, axis=1)
    seen = scale > 1e-30
    error = np.linalg.norm(gradients - expected, axis=1)[seen] / scale[seen]
    assert error.max() < 1e-4  # the logits are about 100 and rounded to 1e-5


# ------------------------------------------------------------------------------------- smoothed, integrated
def quadratic(matrix):
    """Two logits, x'Ax / 2 and minus that."""
    return lambda x: jnp.stack([0.5 * jnp.sum((x @ matrix) * x, axis=1), -0.5 * jnp.sum((x @ matrix) * x, axis=1)], 1)


@pytest.fixture(scope="module")
def matrix():
    half = np.random.default_rng(4).normal(size=(5, 5))
    return half + half.T


def test_smoothing_averages_the_gradients_at_the_noisy_images():
    seen = []
    params = oracles.draw_params(1, 8)
    network = mlp(params)

    def recording(x):
        jax.debug.callback(lambda x: seen.append(np.array(x)), x)
        return network(x)

    x, y = jnp.full((1, 8), 0.5), jnp.array([1])
    options = {"target": "loss", "key": jax.random.key(0), "sigma": 0.3, "samples": 6}
    smoothed = jax.jit(partial(smoothed_gradients, recording, **options))(x, y)
    jax.effects_barrier()
    draws = np.unique(np.concatenate(seen).reshape(-1, 8), axis=0)
    assert draws.shape == (6, 8)
    expected = oracles.input_gradients(params, draws, np.ones(6, int)).mean(axis=0)
    np.testing.assert_allclose(smoothed[0], expected, rtol=1e-11)


def test_smoothing_draws_noise_of_the_stated_deviation_anew_for_each_example_and_sample(matrix):
    """For a quadratic the smoothed gradient is A (x + sigma times a mean of draws), so the draws can be solved for."""
    x, sigma, samples = jnp.ones((400, 5)), 0.7, 4
    smoothed = smoothed_gradients(
        quadratic(matrix), x, jnp.zeros(400, int), target="logit", key=jax.random.key(1), sigma=sigma, samples=samples
    )
    noise = (np.linalg.solve(matrix, np.asarray(smoothed).T).T - 1) / sigma * np.sqrt(samples)
    assert np.abs(noise.mean()) < 4 / np.sqrt(noise.size)
    assert np.abs(noise.var() - 1) < 4 * np.sqrt(2 / noise.size)
    assert np.abs(np.corrcoef(noise.T) - np.eye(5)).max() < 4 / np.sqrt(400)


@pytest.mark.parametrize("sigma", [0.0, 2.5, np.float32(1.0)])
def test_smoothing_leaves_linear_models_alone(sigma):
    weights = jnp.asarray(np.random.default_rng(5).normal(size=(6, 3)))
    x, y = jnp.ones((3, 6)), jnp.array([0, 1, 2])
    options = {"target": "logit", "key": jax.random.key(2), "sigma": sigma, "samples": 3}
    smoothed = jax.jit(partial(smoothed_gradients, lambda x: x @ weights, **options))(x, y)
    np.testing.assert_allclose(smoothed, weights.T, rtol=1e-13)


@pytest.mark.parametrize("target", TARGETS)
def test_integrated_gradients_are_complete(target, apply_fn, images):
    """Their sum is the difference of the target. The midpoint rule misses it by O(1 / steps^2), which extrapolates."""
    x, y = images
    baseline = jnp.asarray(np.random.default_rng(6).uniform(size=x.shape))

    @partial(jax.jit, static_argnames="steps")
    def total(steps):
        return integrated_gradients(apply_fn, x, y, target=target, baseline=baseline, steps=steps).sum((1, 2, 3))

    ends = [[value_of(f, label, target) for f, label in zip(apply_fn(z), y, strict=True)] for z in (x, baseline)]
    coarse, fine = total(20), total(40)
    np.testing.assert_allclose((4 * fine - coarse) / 3, np.subtract(*ends), rtol=1e-5, atol=1e-6)
    assert np.abs(fine - np.subtract(*ends)).max() < 1e-3


def test_integrated_gradients_of_quadratics_are_exact(matrix):
    """Of x'Ax / 2 from b: (x - b) * A (x + b) / 2, with one step."""
    rng = np.random.default_rng(7)
    x, b, y = rng.normal(size=(4, 5)), rng.normal(size=(4, 5)), jnp.zeros(4, int)
    for steps in (1, 5):
        parts = integrated_gradients(
            quadratic(matrix), jnp.asarray(x), y, target="logit", baseline=jnp.asarray(b), steps=steps
        )
        np.testing.assert_allclose(parts, (x - b) * ((x + b) @ matrix) / 2, rtol=1e-11, atol=1e-13)
    black = integrated_gradients(quadratic(matrix), jnp.asarray(x), y, target="logit", steps=1)
    np.testing.assert_allclose(black, x * (x @ matrix) / 2, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("function", [smoothed_gradients, integrated_gradients])
def test_chunks_of_examples_leave_averages_as_they_are(function, apply_fn, images):
    x, y = images
    draws = {"key": jax.random.key(3), "sigma": 0.2, "samples": 2} if function is smoothed_gradients else {"steps": 2}
    whole, chunked = (
        jax.jit(partial(function, apply_fn, target="log_prob", chunk_size=size, **draws))(x, y) for size in (None, 3)
    )
    np.testing.assert_allclose(chunked, whole, rtol=1e-11, atol=1e-14)


def test_all_are_float32_for_float32_images():
    x, y = jnp.ones((2, 5), jnp.float32), jnp.array([0, 1])
    weights = jnp.ones((5, 2), jnp.float32)
    noise = {"key": jax.random.key(0), "sigma": np.float64(0.1), "samples": 2}
    for function, options in ((input_gradients, {}), (smoothed_gradients, noise), (integrated_gradients, {})):
        of_model = partial(function, lambda x: x @ weights, target="loss", **options)
        gradients = jax.jit(of_model)(x, y)
        assert (gradients.dtype, gradients.shape) == (jnp.float32, (2, 5))


def smooth(f, x, y, *, sigma):
    return smoothed_gradients(f, x, y, target="loss", key=jax.random.key(0), sigma=sigma, samples=1)


@pytest.mark.parametrize("target", ["logit", "log_prob", "loss"])
def test_labels_that_are_no_classes_make_nan_under_jit(target):
    """They cannot be seen there; that of another class would be a wrong answer."""
    weights = jnp.asarray(np.random.default_rng(8).normal(size=(6, 3)))
    gradients = jax.jit(partial(input_gradients, lambda x: x @ weights, target=target))
    found = gradients(jnp.ones((4, 6)), jnp.array([2, 3, -1, 0]))
    np.testing.assert_array_equal(np.isnan(found).all(1), [False, True, True, False])
    assert np.isfinite(found[jnp.array([0, 3])]).all()


def test_bfloat16_gradients_are_added_up_in_float32():
    """A mean of 1,024 equal gradients of 0.37: in bfloat16 the sum stops growing after 256 of them."""
    x, y = jnp.ones((2, 5), jnp.bfloat16), jnp.zeros(2, int)

    def model(x):
        first = jnp.float32(0.37) * x.astype(jnp.float32).sum(1)
        return jnp.stack([first, 0 * first], 1)

    smoothed = smoothed_gradients(model, x, y, target="logit", key=jax.random.key(0), sigma=0.1, samples=1024)
    integrated = integrated_gradients(model, x, y, target="logit", steps=1024)
    for found in (smoothed, integrated):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(jnp.float32), 0.37, rtol=2**-8)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda f, x, y: input_gradients(f, x, -y, target="loss"), "at least 0, got -1"),
        (lambda f, x, y: input_gradients(f, x, y + 4, target="logit"), "below 5, the number of classes, got 5"),
        (lambda f, x, y: input_gradients(f, x, y, target="loss", chunk_size=0), "`chunk_size` .* at least 1, got 0"),
        (lambda f, x, y: integrated_gradients(f, x, y, target="loss", steps=0), "`steps` .* at least 1, got 0"),
        (lambda f, x, y: integrated_gradients(f, x * jnp.nan, y, target="loss"), "NaN or infinite"),
        (
            lambda f, x, y: integrated_gradients(f, x, y, target="loss", baseline=jnp.ones(5)),
            r"`baseline` must be one number or have the shape \(2, 5\) of `x`, got \(5,\)",
        ),
        (lambda f, x, y: integrated_gradients(f, x, y, target="loss", baseline=jnp.nan), "`baseline` holds NaN"),
        (lambda f, x, y: smooth(f, x, y, sigma=jnp.ones((2, 1))), "`sigma` must be one finite number"),
        (lambda f, x, y: smooth(f, x, y, sigma=jnp.nan), "`sigma` must be one finite number .* got nan"),
        (lambda f, x, y: smooth(f, x, y, sigma=-0.1), "`sigma` must be .* at least 0, got -0.1"),
        (lambda f, x, y: input_gradients(lambda x: f(x)[:, :1], x, 0 * y, target="loss"), r"two classes, .* \(1, 1\)"),
        (
            lambda f, x, y: input_gradients(lambda x: f(x)[:, 0], x, y, target="logit_sum"),
            r"\(1, classes\), got \(1,\)",
        ),
        (
            lambda f, x, y: smoothed_gradients(f, x, y, target="loss", key=jax.random.key(0), sigma=1.0, samples=0),
            "`samples` .* at least 1, got 0",
        ),
        (
            lambda f, x, y: smoothed_gradients(f, x / 0, y, target="loss", key=jax.random.key(0), sigma=1.0, samples=1),
            "NaN or infinite",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call(lambda x: x, jnp.ones((2, 5)), jnp.array([0, 1]))


def test_an_unknown_target_is_refused():
    unchecked = inspect.unwrap(input_gradients)  # annotations are checked in tests only
    with pytest.raises(ValueError, match="unknown target 'margin'; known: logit_sum, logit, log_prob, loss"):
        unchecked(lambda x: x, jnp.ones((2, 5)), jnp.array([0, 1]), target="margin")


def test_pictures_keep_signs_and_ratios_whatever_the_scale():
    maps = np.random.default_rng(0).normal(size=(3, 4, 4, 1))
    found = np.asarray(as_pictures(maps * np.array([1e-20, 1.0, 1e20]).reshape(3, 1, 1, 1)))
    np.testing.assert_allclose(found - 0.5, 0.5 * maps / np.abs(maps).max((1, 2, 3), keepdims=True), atol=1e-12)
    unusable = np.stack([np.zeros((2, 2)), np.array([[1.0, np.nan], [0, 0]]), np.array([[1.0, np.inf], [0, 0]])])
    np.testing.assert_array_equal(as_pictures(unusable), np.full((3, 2, 2), 0.5))
