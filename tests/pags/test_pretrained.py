"""The denoiser and the autoencoder that come with the package do what they are for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import datasets, models, scores
from pags_jax.datasets import pretrained
from pags_jax.images import to_float


@pytest.fixture(scope="module")
def clothes():
    """Training images, and 100 test images with their labels; neither model was trained on any of the latter."""
    data = datasets.load("fashion_mnist")
    return data.train_x, to_float(data.test_x[:100]), data.test_y[:100]


@pytest.fixture(scope="module")
def spectrum(clothes):
    """Mean, eigenvalues and eigenvectors of the training pixels in [0, 1]."""
    flat = clothes[0][:4000].reshape(4000, -1) / 255
    return flat.mean(0), *np.linalg.eigh(np.cov(flat.T))


def test_shipped_files_are_small_and_say_how_they_were_trained():
    for name in ("denoiser", "autoencoder"):
        path = getattr(pretrained, name.upper())
        assert path.stat().st_size <= 3e6
        about = models.files.about(path)
        assert about["config"]["dataset"] == "fashion_mnist_full"
        assert about["measured"]["train_rows"] == 60_000


@pytest.fixture(scope="module")
def denoised(clothes):
    """Mean squared errors per pixel in [-1, 1] by level and by what is told: nothing, the class, or another one."""
    model, variables = pretrained.fashion_mnist_denoiser()
    x, y = 2 * clothes[1] - 1, jnp.asarray(clothes[2])
    noise = jax.random.normal(jax.random.key(5), x.shape, x.dtype)
    denoise = jax.jit(lambda labels, x, sigma: scores.denoiser(model, variables, labels)(x, sigma))
    told = {"nothing": jnp.full_like(y, 10), "class": y, "another": (y + 1) % 10}
    return {
        (sigma, name): float(jnp.mean((denoise(labels, x + jnp.float32(sigma) * noise, sigma) - x) ** 2))
        for sigma in (0.1, 0.5, 1.2)
        for name, labels in told.items()
    }, np.asarray(noise)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.2])
def test_the_shipped_denoiser_beats_the_best_linear_one(sigma, denoised, clothes, spectrum):
    """And so the noisy image itself, and the mean image."""
    errors, noise = denoised
    mean, values, vectors = spectrum
    x = np.asarray(clothes[1], float).reshape(len(noise), -1)
    noisy = x + sigma / 2 * noise.reshape(x.shape)
    shrunk = mean + ((noisy - mean) @ vectors * (values / (values + sigma**2 / 4))) @ vectors.T
    linear, constant = (4 * np.mean((guess - x) ** 2) for guess in (shrunk, mean))
    assert errors[sigma, "nothing"] < 0.8 * linear
    assert errors[sigma, "nothing"] < 0.8 * min(constant, sigma**2)
    assert errors[sigma, "class"] < errors[sigma, "another"]


@pytest.mark.slow
def test_the_shipped_denoiser_uses_the_class_where_noise_hides_it(denoised):
    errors, _ = denoised
    assert errors[1.2, "class"] < errors[1.2, "nothing"] < errors[1.2, "another"]


@pytest.mark.slow
def test_the_shipped_denoisers_loss_is_the_stated_one(denoised):
    """On other noise and other test images, so about."""
    measured = models.files.about(pretrained.DENOISER)["measured"]
    stated = measured["test_rms_error"][measured["sigma_pm1"].index(0.5)]
    assert np.sqrt(denoised[0][0.5, "nothing"]) == pytest.approx(stated, rel=0.1)


def test_the_shipped_autoencoder_beats_as_many_principal_components(clothes, spectrum):
    model, variables = pretrained.fashion_mnist_autoencoder()
    mean, _, vectors = spectrum
    x = clothes[1]
    decoded = models.decoder(model, variables)(models.encoder(model, variables)(x))
    assert decoded.min() >= 0
    assert decoded.max() <= 1
    error = float(jnp.mean((decoded - x) ** 2))
    flat = np.asarray(x, float).reshape(len(x), -1)
    basis = vectors[:, -model.latent :]
    principal = np.mean((mean + (flat - mean) @ basis @ basis.T - flat) ** 2)
    assert error < 0.9 * principal
    assert error < 0.2 * np.mean((mean - flat) ** 2)
    stated = models.files.about(pretrained.AUTOENCODER)["measured"]["test_error"]
    assert error == pytest.approx(stated, rel=0.15)
