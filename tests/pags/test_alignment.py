"""Cosines and LPIPS against slow float64 NumPy, closed forms and PyTorch; the weights are the published ones."""

import inspect
from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import alignment
from pags_jax.alignment import PAIRINGS, alexnet_features, cosine, lpips, perceptual_similarity, unit_scale
from pags_jax.datasets.lpips_weights import LpipsLayer, load_lpips_weights
from pags_jax.gradients import Target, input_gradients

SIZES = [(32, 32, 3), (64, 64, 3), (45, 51, 3), (33, 57, 1)]
measure = jax.jit(lpips)


@pytest.fixture(scope="module")
def weights():
    return load_lpips_weights()


@pytest.fixture(scope="module")
def small():
    """Layers of AlexNet's windows with few channels, which compile and run quickly."""
    rng, channels, windows = np.random.default_rng(0), (3, 6, 5, 7, 4, 5), (11, 5, 3, 3, 3)
    layers = []
    for window, before, after in zip(windows, channels[:-1], channels[1:], strict=True):
        kernel = rng.normal(size=(window, window, before, after)) / np.sqrt(window * window * before)
        layers.append(LpipsLayer(kernel, 0.1 * rng.normal(size=after), rng.uniform(size=after)))
    return jax.tree.map(jnp.asarray, tuple(layers))


def draw(seed, *shape, dtype=np.float64):
    """Images from smooth to rough, in [-1, 1]."""
    rng = np.random.default_rng(seed)
    n, height, width, channels = shape
    waves = rng.normal(size=(n, 1, 1, channels)) * np.arange(height)[:, None, None] / 9
    waves = waves + rng.normal(size=(n, 1, 1, channels)) * np.arange(width)[:, None] / 9
    noise = rng.uniform(0, 0.5, (n, 1, 1, 1)) * rng.uniform(-1, 1, shape)
    return jnp.asarray(np.clip(np.sin(waves) / 2 + noise, -1, 1), dtype)


# ----------------------------------------------------------------------------------------------- the slow LPIPS
def correlate(x, kernel, bias, stride, padding):
    """By a row for each window."""
    k = kernel.shape[0]
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), (1, 2))[:, ::stride, ::stride]
    rows = windows.transpose(0, 1, 2, 4, 5, 3).reshape(*windows.shape[:3], -1)
    return np.maximum(rows @ kernel.reshape(-1, kernel.shape[-1]) + bias, 0)


def pool(x):
    return np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2].max((-1, -2))


def activations(x, layers):
    """Of the network's five stages, its steps written out."""
    x = (x - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
    first = correlate(x, *layers[0][:2], stride=4, padding=2)
    second = correlate(pool(first), *layers[1][:2], stride=1, padding=2)
    third = correlate(pool(second), *layers[2][:2], stride=1, padding=1)
    fourth = correlate(third, *layers[3][:2], stride=1, padding=1)
    return first, second, third, fourth, correlate(fourth, *layers[4][:2], stride=1, padding=1)


def slow_lpips(a, b, weights):
    layers = [[np.asarray(leaf, np.float64) for leaf in layer] for layer in weights]
    total = 0
    for (*_, linear), f, g in zip(layers, activations(a, layers), activations(b, layers), strict=True):
        f, g = (h / (np.sqrt((h**2).sum(-1, keepdims=True)) + 1e-10) for h in (f, g))
        total = total + ((f - g) ** 2 @ linear).mean((1, 2))
    return total


def stretch(x, size, axis):
    """Linear interpolation between the centres of pixels, constant beyond the outermost."""
    old = x.shape[axis]
    at = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    low = np.minimum(at.astype(int), old - 2)
    share = (at - low).reshape(-1, *(1,) * (x.ndim - 1 - axis))
    return (1 - share) * x.take(low, axis) + share * x.take(low + 1, axis)


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_lpips_is_the_published_formula(shape, weights):
    a, b = draw(1, 2, *shape), draw(2, 2, *shape)
    expected = slow_lpips(np.asarray(a), np.asarray(b), weights)
    assert expected.min() > 0.05
    np.testing.assert_allclose(measure(a, b, weights=weights), expected, rtol=1e-10)
    single = measure(a.astype(jnp.float32), b.astype(jnp.float32), weights=weights)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, expected, rtol=0, atol=1e-5)


def test_lpips_equals_pytorch(weights):
    """An independent network: windows, padding, pooling and the order of axes are PyTorch's."""
    torch = pytest.importorskip("torch")
    conv, max_pool = torch.nn.functional.conv2d, torch.nn.functional.max_pool2d

    def features(x):
        x = torch.tensor(np.array(x)).permute(0, 3, 1, 2)
        shift, scale = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
        x = (x - torch.tensor(shift)[:, None, None]) / torch.tensor(scale)[:, None, None]
        found = []
        for i, layer in enumerate(weights):
            x = max_pool(x, 3, 2) if i in (1, 2) else x
            kernel = torch.tensor(np.array(layer.kernel, np.float64)).permute(3, 2, 0, 1)
            bias = torch.tensor(np.array(layer.bias, np.float64))
            x = conv(x, kernel, bias, stride=(4, 1, 1, 1, 1)[i], padding=(2, 2, 1, 1, 1)[i]).relu()
            found.append(torch.nn.functional.normalize(x, eps=1e-10))
        return found

    a, b = draw(3, 2, 45, 51, 3), draw(4, 2, 45, 51, 3)
    expected = sum(
        conv((f - g) ** 2, torch.tensor(np.array(layer.linear, np.float64))[None, :, None, None]).mean((1, 2, 3))
        for f, g, layer in zip(features(a), features(b), weights, strict=True)
    )
    np.testing.assert_allclose(measure(a, b, weights=weights), expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (3, 6), (2, 11), (5, 5)], ids=str)
def test_convolutions_of_small_maps(shape):
    """Some are matrix products; all are correlations with zeros around."""
    rng = np.random.default_rng(0)
    convolve = jax.jit(alignment._convolve, static_argnums=(2, 3))
    for window in (3, 5):
        x, kernel = rng.normal(size=(2, *shape, 3)), rng.normal(size=(window, window, 3, 4))
        found = convolve(jnp.asarray(x), jnp.asarray(kernel), 1, window // 2)
        expected = correlate(np.concatenate([x, x]), np.concatenate([kernel, -kernel], -1), 0, 1, window // 2)[:2]
        np.testing.assert_allclose(found, expected[..., :4] - expected[..., 4:], atol=1e-13)


@pytest.mark.parametrize(("size", "widths"), [(32, [7, 3, 1, 1, 1]), (64, [15, 7, 3, 3, 3])])
def test_features_are_as_wide_as_published(size, widths, weights):
    features = jax.eval_shape(alexnet_features, jnp.zeros((2, size, size, 3)), weights)
    assert [f.shape for f in features] == [(2, w, w, c) for w, c in zip(widths, (64, 192, 384, 256, 256), strict=True)]


# ------------------------------------------------------------------------------------------- what LPIPS is besides
@pytest.mark.parametrize("shape", [(28, 28, 1), (20, 40, 3)], ids=str)
def test_p18_small_images_are_resized_to_32_pixels(shape, small):
    a, b = draw(5, 3, *shape), draw(6, 3, *shape)
    large = [stretch(stretch(np.asarray(x), max(32, shape[0]), 1), max(32, shape[1]), 2) for x in (a, b)]
    np.testing.assert_allclose(measure(a, b, weights=small), slow_lpips(*large, small), rtol=1e-10)


def test_p18_a_batch_is_its_pairs(small):
    a, b = draw(7, 4, 32, 32, 3), draw(8, 4, 32, 32, 3)
    whole = measure(a, b, weights=small)
    assert whole.shape == (4,)
    alone = [measure(a[i : i + 1], b[i : i + 1], weights=small)[0] for i in range(4)]
    np.testing.assert_allclose(whole, jnp.stack(alone), rtol=1e-12)


def test_lpips_is_symmetric_and_zero_for_equal_images(small):
    a, b = draw(9, 4, 32, 32, 3), draw(10, 4, 32, 32, 3)
    distance = measure(a, b, weights=small)
    np.testing.assert_allclose(distance, measure(b, a, weights=small), rtol=1e-12)
    np.testing.assert_allclose(measure(a, a, weights=small), np.zeros(4), atol=1e-25)
    assert (distance > 0).all()


def test_one_channel_is_repeated(small):
    a, b = draw(11, 4, 32, 32, 1), draw(12, 4, 32, 32, 1)
    in_colour = measure(jnp.tile(a, 3), jnp.tile(b, 3), weights=small)
    np.testing.assert_allclose(measure(a, b, weights=small), in_colour, rtol=1e-12)


def test_the_default_weights_are_the_packages(weights):
    a, b = draw(1, 2, 32, 32, 3, dtype=np.float32), draw(2, 2, 32, 32, 3, dtype=np.float32)
    np.testing.assert_allclose(measure(a, b), measure(a, b, weights=weights), rtol=1e-6)


@jax.jit
def slope(a, b, weights):
    return jax.grad(lambda a: lpips(a, b, weights=weights).sum())(a)


@pytest.mark.parametrize("dead", [False, True])
def test_lpips_has_gradients(dead, small):
    """Against differences; also where all of a layer's channels are zero, so that lengths have no derivative."""
    if dead:
        small = (*small[:4], small[4]._replace(bias=small[4].bias - 100))
    a, b, step = draw(15, 4, 32, 32, 3), draw(16, 4, 32, 32, 3), 1e-6 * draw(17, 4, 32, 32, 3)
    gradient = slope(a, b, small)
    change = (measure(a + step, b, weights=small) - measure(a - step, b, weights=small)) / 2
    assert (jnp.abs(change) > 1e-9).all()
    np.testing.assert_allclose(jnp.sum(gradient * step, (1, 2, 3)), change, rtol=1e-5)


# -------------------------------------------------------------------------------------------------- maps and angles
@pytest.mark.parametrize("scale", [1.0, 1e-36, 1e36])
def test_cosines_of_any_scale(scale):
    """Float32 maps whose squares underflow or overflow, against float64."""
    a, b = draw(17, 6, 5, 4, 3, dtype=np.float32), draw(18, 6, 5, 4, 3, dtype=np.float32)
    rows, others = (np.asarray(x, np.float64).reshape(6, -1) for x in (a * jnp.float32(scale), b))
    expected = (rows * others).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(others, axis=1)
    np.testing.assert_allclose(cosine(a * jnp.float32(scale), b), expected, rtol=0, atol=5e-7)


def test_cosines_are_those_of_known_angles():
    angles = np.linspace(0, np.pi, 7)
    a = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], 1) * np.arange(1, 8)[:, None])
    b = jnp.tile(jnp.array([[3.0, 0.0]]), (7, 1))
    np.testing.assert_allclose(cosine(a, b), np.cos(angles), atol=1e-15)
    assert jnp.abs(cosine(a, 7 * a)).max() <= 1
    np.testing.assert_allclose(cosine(a, -a), -np.ones(7), rtol=1e-15)


def test_maps_are_divided_by_their_largest_absolute_value():
    maps = draw(19, 4, 6, 5, 2) * jnp.array([1e-200, 1.0, -3.0, 1e200])[:, None, None, None]
    scaled = np.asarray(unit_scale(maps))
    for one, whole in zip(scaled, np.asarray(maps), strict=True):
        np.testing.assert_allclose(one, whole / np.abs(whole).max(), rtol=1e-15)
    np.testing.assert_allclose(np.abs(scaled).max((1, 2, 3)), np.ones(4), rtol=1e-15)


def test_perceptual_similarity_is_of_scaled_maps(small):
    a, b = draw(21, 4, 32, 32, 1), draw(22, 4, 32, 32, 1)
    expected = 1 - slow_lpips(*(np.tile(x / np.abs(x).max((1, 2, 3), keepdims=True), 3) for x in (a, b)), small)
    similarity = jax.jit(partial(perceptual_similarity, weights=small))
    np.testing.assert_allclose(similarity(1e9 * a, 1e-9 * b), expected, rtol=1e-10)
    np.testing.assert_allclose(similarity(a, 2 * a), np.ones(4), rtol=1e-15)


measures = {"cosine": jax.jit(cosine), "perceptual_similarity": jax.jit(perceptual_similarity)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e-320])
def test_p17_unusable_maps_make_nan_and_touch_no_other(value, dtype, small):
    """Zero, not finite, or subnormal (in float32, zero)."""
    a, b = draw(23, 4, 32, 32, 3, dtype=dtype), draw(24, 4, 32, 32, 3, dtype=dtype)
    others = jnp.array([0, 2, 3])
    bad = a.at[1].set(0).at[1, 2, 3, 0].set(jnp.asarray(value, dtype))
    for name, options in (("cosine", {}), ("perceptual_similarity", {"weights": small})):
        for first, second in ((bad, b), (b, bad)):
            found, usual = (measures[name](*pair, **options) for pair in ((first, second), (a, b)))
            np.testing.assert_array_equal(jnp.isnan(found), [False, True, False, False])
            np.testing.assert_allclose(found[others], usual[others], rtol=1e-6)
    np.testing.assert_array_equal(jnp.isnan(unit_scale(bad)).all((1, 2, 3)), [False, True, False, False])


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_p17_lpips_of_an_image_that_is_not_finite_is_nan(value, small):
    a, b = draw(25, 4, 32, 32, 3), draw(26, 4, 32, 32, 3)
    bad = a.at[0, 31, 31, 2].set(value)
    for found in (measure(bad, b, weights=small), measure(b, bad, weights=small)):
        np.testing.assert_array_equal(jnp.isnan(found), [True, False, False, False])


# --------------------------------------------------------------------------------------------------------- pairings
def test_gradients_of_the_true_posterior_are_the_scores_they_are_paired_with():
    """Gaussian classes: logits ``log p(x, y)``, scores ``(m_y - x) / s^2`` and their mean weighted by ``p(y | x)``."""
    rng, s = np.random.default_rng(27), 0.7
    means, x, y = rng.normal(size=(3, 6)), rng.normal(size=(8, 6)), np.arange(8) % 3
    logits = -((x[:, None] - means) ** 2).sum(-1) / (2 * s**2)
    posterior = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    conditional, unconditional = (means[y] - x) / s**2, (posterior @ means - x) / s**2
    scores = {"conditional": conditional, "unconditional": unconditional, "bayes": conditional - unconditional}

    def log_joint(x):
        return -((x[:, None] - jnp.asarray(means)[None]) ** 2).sum(-1) / (2 * s**2)

    for target in ("logit", "log_prob", "log_sum_exp"):
        gradients = jax.jit(partial(input_gradients, log_joint, target=target))(jnp.asarray(x), jnp.asarray(y))
        np.testing.assert_allclose(cosine(gradients, jnp.asarray(scores[PAIRINGS[target]])), np.ones(8), rtol=1e-12)
    assert set(PAIRINGS) <= set(get_args(Target))
    assert set(PAIRINGS.values()) == set(get_args(alignment.ScoreKind))


def test_no_images_have_no_values():
    assert lpips(IMAGES[:0], IMAGES[:0]).shape == cosine(IMAGES[:0], IMAGES[:0]).shape == (0,)


# ---------------------------------------------------------------------------------------------------------- refusals
IMAGES = jnp.zeros((2, 32, 32, 3))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: lpips(IMAGES, IMAGES[:1]), r"one shape, got \(2, 32, 32, 3\) and \(1, 32, 32, 3\)"),
        (lambda: lpips(IMAGES[..., :2], IMAGES[..., :2]), r"1 or 3\), got the shape \(2, 32, 32, 2\)"),
        (lambda: lpips(IMAGES[0], IMAGES[0]), r"\(n, height, width, 1 or 3\), got the shape \(32, 32, 3\)"),
        (lambda: lpips(IMAGES[:, :0], IMAGES[:, :0]), r"at least one pixel, got the shape \(2, 0, 32, 3\)"),
        (lambda: cosine(IMAGES[:, :, :0], IMAGES[:, :, :0]), r"at least one pixel, got the shape \(2, 32, 0, 3\)"),
        (lambda: lpips(IMAGES, IMAGES - 255), r"in \[-1, 1\], got 255; see alignment\.unit_scale"),
        (lambda: cosine(IMAGES, IMAGES[:, 1:]), r"one shape, got"),
        (lambda: cosine(IMAGES[0, 0, 0], IMAGES[0, 0, 0]), r"an axis for examples and more, got the shape \(3,\)"),
        (lambda: unit_scale(IMAGES.astype(jnp.uint8)), r"expected floats, got uint8; see images\.to_float"),
    ],
)
def test_what_cannot_be_used_is_refused(call, said, monkeypatch):
    for function in ("lpips", "cosine", "unit_scale"):  # annotations are checked in tests only
        monkeypatch.setitem(globals(), function, inspect.unwrap(getattr(alignment, function)))
    with pytest.raises(ValueError, match=said):
        call()


def test_smaller_maps_are_means_of_the_neighbours_of_each_place():
    """As torchvision's Resize of a tensor without antialiasing; with it, all pixels between count."""
    maps = np.random.default_rng(0).normal(size=(2, 12, 12, 3))
    half, third = (np.asarray(alignment.resize(jnp.asarray(maps), size)) for size in (6, 4))
    np.testing.assert_allclose(half, maps.reshape(2, 6, 2, 6, 2, 3).mean((2, 4)), atol=1e-12)
    np.testing.assert_allclose(third, maps[:, 1::3, 1::3], atol=1e-12)  # The middle of each block alone.
    smooth = np.asarray(alignment.resize(jnp.asarray(maps), 4, antialias=True))
    assert smooth.var() < 0.5 * third.var()
    with pytest.raises(ValueError, match="`size` must be"):
        alignment.resize(jnp.asarray(maps), 0)
