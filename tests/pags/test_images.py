"""What is refused before anything is traced, and what may not be looked at."""

import inspect
import sys
import warnings
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import (
    alignment,
    apgd,
    attacks,
    evaluation,
    generation,
    gradients,
    images,
    losses,
    manifold,
    robustness,
    sampling,
    scores,
    smoothing,
)

unchecked = inspect.unwrap  # annotations, of JAX's arrays, are checked in tests only
X, Y = jnp.zeros((2, 3)), jnp.array([0, 1])


def test_uint8_becomes_the_unit_interval():
    pixels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    scaled = images.to_float(pixels)
    assert scaled.dtype == jnp.float32
    np.testing.assert_allclose(scaled, pixels / 255, rtol=1.2e-7)  # XLA multiplies by the rounded 1 / 255
    assert (scaled.min(), scaled.max()) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (lambda: images.to_float(X), "expected images in uint8"),
        (lambda: images.check_images(jnp.zeros((2, 3), jnp.uint8)), "must be floats in .* got uint8"),
        (lambda: images.check_images(jnp.zeros(3)), r"got the shape \(3,\)"),
        (lambda: images.check_images(jnp.zeros((0, 3))), "at least one image"),
        (lambda: images.check_images(X.at[1, 2].set(jnp.nan)), "NaN or infinite"),
        (lambda: images.check_labels(jnp.zeros(2), X), "labels must be integers, got float64"),
        (lambda: images.check_labels(jnp.array([0, 1, 1]), X), r"expected 2 labels, .* \(3,\)"),
        (lambda: images.check_labels(jnp.array([0, -2]), X), "at least 0, got -2"),
        (lambda: images.check_classes(lambda x: x, X, jnp.array([0, 3])), "below 3, the number of classes, got 3"),
    ],
)
def test_what_cannot_be_used_is_refused(check, said):
    with pytest.raises(ValueError, match=said):
        check()


def test_constants_inside_of_jit_are_checked_too():
    assert jax.jit(lambda: losses.cross_entropy(lambda x: x, X, Y))() == pytest.approx(np.log(3))
    broken = X.at[0, 0].set(jnp.nan)
    with pytest.raises(ValueError, match="NaN or infinite"):
        jax.jit(lambda: losses.cross_entropy(lambda x: x, broken, Y))()


def convolve(x):
    """Logits of two classes by a convolution, whose own error about other axes names no batch."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, jnp.ones((2, 2, 3, 2), x.dtype), (1, 1), "VALID", dimension_numbers=dimensions
    )[:, 0, 0]


class Linen(nn.Module):
    """A network of a library with errors of its own."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x.reshape(x.shape[0], -1))


PIXELS, KEY = jnp.full((2, 2, 2, 3), 0.5, jnp.float32), jax.random.key(0)
KNOWN, LABELS = jnp.array([True, False]).reshape(1, 1, 2, 1), jnp.array([0, 1])
ASCENT = {"eps_l2": 0.1, "steps": 1}
SMOOTH = {"key": KEY, "sigma": 0.1, "samples": 2}
LABELLED = {
    "gradients": lambda f, x, y: gradients.input_gradients(f, x, y, target="logit"),
    "smoothed gradients": lambda f, x, y: gradients.smoothed_gradients(f, x, y, target="loss", **SMOOTH),
    "pgd": lambda f, x, y: attacks.pgd(f, x, y, key=KEY, **ASCENT),
    "apgd": lambda f, x, y: apgd.apgd(f, x, y, key=KEY, **ASCENT),
    "apgd_targeted": lambda f, x, y: apgd.apgd_targeted(f, x, y, key=KEY, **ASCENT),
    "correct": lambda f, x, y: evaluation.correct(f, x, y),
    "under attack": lambda f, x, y: evaluation.under_attack(f, x, y, key=KEY, **ASCENT),
    "counterfactual": lambda f, x, y: generation.counterfactual(f, x, y, **ASCENT),
    "denoise": lambda f, x, y: generation.denoise(f, x, y, **ASCENT),
    "inpaint": lambda f, x, y: generation.inpaint(f, x, KNOWN[(0,) * (4 - jnp.ndim(x))], y, **ASCENT),
}
UNLABELLED = {
    "gradients": lambda f, x: gradients.input_gradients(f, x, target="log_sum_exp"),
    "noise": lambda f, x: unchecked(robustness.relative_noise_robustness)(
        f, x, jnp.ones(x.shape[:-1], bool), sigma=0.1, key=KEY
    ),
    "denoise": lambda f, x: generation.denoise(f, x, **ASCENT),
    "counts": lambda f, x: smoothing.class_counts(f, x, **SMOOTH),
    "certify": lambda f, x: smoothing.certify(f, x, **SMOOTH),
    "predict": lambda f, x: smoothing.predict(f, x, **SMOOTH),
}
MODELS = {"convolution": convolve, "linen": partial(Linen().apply, Linen().init(KEY, PIXELS))}


@pytest.fixture
def as_users(monkeypatch):
    """Without the check of annotations of any function in the package, also of those that others call."""
    for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "pags_jax"]:
        for name, thing in list(vars(module).items()):
            if inspect.isfunction(thing) and thing.__code__.co_name == "within_context":
                monkeypatch.setattr(module, name, thing.__wrapped__)


@pytest.mark.usefixtures("as_users")
@pytest.mark.parametrize("model", MODELS)
def test_an_image_without_a_batch_is_told_how_to_be_given_everywhere(model):
    """And not by what the model says of it."""
    for call in LABELLED.values():
        with pytest.raises(ValueError, match="give an image alone as `x\\[None\\]`"):
            call(MODELS[model], PIXELS[0], LABELS[0])
    for call in UNLABELLED.values():
        with pytest.raises(ValueError, match="give an image alone as `x\\[None\\]`"):
            call(MODELS[model], PIXELS[0])
    assert smoothing.predict(MODELS[model], PIXELS, **SMOOTH).shape == (2,)


def test_other_errors_of_a_model_stay_its_own():
    def broken(x):
        raise TypeError("broken")

    for call in UNLABELLED.values():
        with pytest.raises(TypeError, match=r"^broken"):
            call(broken, PIXELS)
    with pytest.raises(jax.errors.TracerBoolConversionError):
        smoothing.predict(lambda x: x[0] if x.sum() else x, jnp.ones((2, 3, 3)), **SMOOTH)


@pytest.mark.usefixtures("as_users")
def test_bytes_are_refused_everywhere_with_what_scales_them():
    pixels = jnp.asarray(255 * PIXELS, jnp.uint8)
    calls = [partial(call, y=LABELS) for call in LABELLED.values()] + list(UNLABELLED.values())
    levels = scores.noise_schedule(3)
    calls.append(lambda f, x: sampling.inpaint(lambda x, sigma: x, x, KNOWN, levels, key=KEY))
    for call in calls:
        with pytest.raises(ValueError, match=r"images must be floats in \[0, 1\], got uint8; see images.to_float"):
            call(convolve, pixels)


@pytest.mark.slow
def test_numpys_float64_images_are_used_without_a_word():
    """In a session without float64, where asking for it warns; warnings are errors here."""
    x, y = np.random.default_rng(0).uniform(size=(3, 2, 2, 3)), np.array([0, 1, 1])
    basis = np.eye(12)[None, :2].repeat(3, 0).reshape(3, 2, 2, 2, 3)
    noise = np.random.default_rng(1).normal(size=(1, 3, 2, 2, 3))
    key = jax.random.key(0)

    def apply_fn(x):
        return x.reshape(len(x), -1)[:, :4]

    calls = (
        lambda: unchecked(gradients.input_gradients)(apply_fn, x, y, target="loss"),
        lambda: unchecked(gradients.smoothed_gradients)(
            apply_fn, x, y, target="loss", key=key, sigma=np.float64(0.1), samples=2
        ),
        lambda: unchecked(gradients.integrated_gradients)(apply_fn, x, y, target="loss", baseline=0 * x, steps=2),
        lambda: unchecked(robustness.manifold_robustness)(apply_fn, x, basis, eps_l2=np.ones(2), noise=noise)[0],
        lambda: unchecked(robustness.step_lengths)(x, basis, eps_l2=1.0, noise=noise, bounds=(0, 1))[1],
        lambda: unchecked(robustness.relative_noise_robustness)(apply_fn, x, x > 0.5, sigma=0.1, key=key),
        lambda: unchecked(robustness.off_manifold_share)(x, basis),
        lambda: unchecked(scores.score)(lambda x, sigma: 0 * x, x, sigma_pm1=np.float64(0.5)),
        lambda: unchecked(alignment.cosine)(x, x**2),
        lambda: unchecked(alignment.unit_scale)(x),
        lambda: unchecked(manifold.local_pca)(x[None], rank=1),
        lambda: unchecked(manifold.nearest)(x, x, count=1, itself=np.arange(3)),
        lambda: unchecked(manifold.tangent_basis)(lambda z: z**2, x.reshape(3, -1)),
        lambda: unchecked(manifold.denoiser_basis)(lambda x, _: x, x, sigma_pm1=0.5, rank=1, key=key, iterations=1),
    )
    with jax.enable_x64(False), warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in calls:
            assert call().dtype in (jnp.float32, jnp.int32)


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (["cat", "dog"], r"labels must be integers, got <U3"),
        (np.array([0, 1], object), r"labels must be integers, got object"),
        ([0.0, 1.0], r"labels must be integers, got float64"),
        ([[0], [1, 2]], r"labels must be an array of integers, got \[\[0\], \[1, 2\]\]"),
        (None, r"labels must be integers, got object"),
        (1, r"got one label and the shape \(2, 3\); give an image alone as `x\[None\]`"),
        ([0, 1, 2], r"expected 2 labels, one for each image, got the shape \(3,\)"),
    ],
)
def test_labels_that_are_no_integers_are_named(y, said):
    with pytest.raises(ValueError, match=said):
        unchecked(evaluation.correct)(lambda x: x, jnp.ones((2, 3)), y)


def test_labels_may_be_a_list():
    logits = jnp.eye(3)
    assert unchecked(evaluation.correct)(lambda x: x, logits, [0, 1, 1]).tolist() == [True, True, False]
    assert unchecked(gradients.input_gradients)(lambda x: x, logits, [0, 1, 1], target="logit").tolist()[2] == [0, 1, 0]


def test_radii_and_baselines_that_are_no_numbers_are_named():
    x, y = jnp.ones((2, 3)), jnp.zeros(2, int)
    for eps in ("big", None, [1.0, None], np.array(["1", "2"])):
        with pytest.raises(ValueError, match=r"`eps_linf` must be numbers|give exactly one radius"):
            unchecked(attacks.pgd)(lambda x: x, x, y, key=jax.random.key(0), eps_linf=eps, steps=1)
    for baseline in (None, "black", [0.0, None, 0.0]):
        with pytest.raises(ValueError, match="`baseline` must be numbers"):
            unchecked(gradients.integrated_gradients)(lambda x: x, x, y, target="logit", baseline=baseline, steps=1)
