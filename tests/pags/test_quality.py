"""Losses and errors of trained networks, against NumPy and a denoiser whose error is known."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import datasets, models, quality, samples, sampling, scores
from pags_jax.images import to_float


def images(train=7, test=12):
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (train + test, 8, 8, 1)).astype(np.uint8), draw.integers(0, 3, train + test)
    y = y.astype(np.int32)
    return datasets.Images(x[:train], y[:train], x[train:], y[train:], ("a", "b", "c"))


def test_means_are_those_of_all_rows_in_any_batches():
    x = np.random.default_rng(1).normal(size=(11, 3))
    for batch_size in (1, 4, 11, 100):
        found = quality.mean_over(lambda x, k: x.sum(1) * k, x, np.arange(11), batch_size=batch_size)
        assert found == pytest.approx(np.mean(x.sum(1) * np.arange(11)), rel=1e-12)
    for columns, said in (((x, x[:3]), r"got \[3, 11\]"), ((x[:0],), r"got \[0\]")):
        with pytest.raises(ValueError, match=said):
            quality.mean_over(lambda *columns: columns[0], *columns)


class Halves:
    """Returns half of the noisy image plus the class over 10 (none: 0), by EDM's formulas turned around."""

    classes, sigma_data = 3, 0.5

    def apply(self, variables, x, c_noise, labels=None):
        sigma = jnp.exp(4 * c_noise).reshape(-1, 1, 1, 1)
        skip, out, scale, _ = scores.preconditioning(sigma, self.sigma_data)
        shift = 0.0 if labels is None else labels.reshape(-1, 1, 1, 1) / 10
        noisy = x / scale
        return (noisy / 2 + shift - skip * noisy) / out


def test_losses_of_a_denoiser_are_its_weighted_squares_under_one_noise():
    """Against NumPy, of so many images as are asked for."""
    data, sigma, key = images(), 0.4, jax.random.key(3)
    found = quality.denoiser(Halves(), {}, data, sigma, key=key, rows=10)
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    for name, x, shift in (
        ("train_loss", data.train_x, 0.0),
        ("test_loss", data.test_x, 0.0),
        ("test_loss_labelled", data.test_x, data.test_y / 10),
    ):
        clean = 2 * (x[:10] / 255) - 1
        noise = np.asarray(jax.random.normal(key, clean.shape, jnp.float32))
        shift = np.reshape(np.broadcast_to(shift, len(x))[:10], (-1, 1, 1, 1))
        error = np.mean(((clean + sigma * noise) / 2 + shift - clean) ** 2)
        assert found[name] == pytest.approx(weight * error, rel=1e-4)
    assert found["test_rms_error"] == pytest.approx(np.sqrt(found["test_loss"] / weight), rel=1e-6)
    clean = 2 * (data.test_x[:10] / 255) - 1
    assert found["checkerboard"] == pytest.approx(sampling.checkerboard((clean / 2 - clean) / sigma**2), rel=1e-4)


def test_errors_of_an_autoencoder_are_those_of_its_reconstructions():
    data, model = images(), models.Autoencoder((8, 8, 1), 3, (4,))
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1), jnp.float32))
    found = quality.autoencoder(model, variables, data, rows=9)
    for name, x in (("train_error", data.train_x), ("test_error", data.test_x[:9])):
        x = np.asarray(to_float(x))
        assert found[name] == pytest.approx(
            np.mean((np.asarray(model.apply(variables, jnp.asarray(x))) - x) ** 2), rel=1e-4
        )
    mean = data.train_x.mean(0) / 255
    assert found["mean_image_error"] == pytest.approx(np.mean((data.test_x[:9] / 255 - mean) ** 2), rel=1e-9)


def test_sigma_data_is_the_deviation_of_pixels():
    x = images().train_x
    assert quality.sigma_data(x) == round(np.std(2 * (x / 255) - 1), 3)


def test_samples_of_a_seed_are_the_same_and_begin_alike():
    data = images()
    few, many = samples.draw(data, 4, seed=1), samples.draw(data, 12, seed=1)
    np.testing.assert_array_equal(few.x, many.x[:4])
    assert few.mask is None
    pairs = {(row.tobytes(), int(label)) for row, label in zip(data.test_x, data.test_y, strict=True)}
    found = np.rint(255 * np.asarray(many.x)).astype(np.uint8)
    assert {(row.tobytes(), int(label)) for row, label in zip(found, many.y, strict=True)} == pairs
    halves = np.arange(8) < np.arange(12)[:, None, None] % 5
    masked = samples.draw(data._replace(test_mask=np.broadcast_to(halves, (12, 8, 8))), 4, seed=1)
    chosen = np.random.default_rng(1).permutation(12)[:4]
    np.testing.assert_array_equal(masked.mask, np.broadcast_to(halves, (12, 8, 8))[chosen])
    with pytest.raises(ValueError, match="`count` must be a whole number from 1 to 12, got 13"):
        samples.draw(data, 13, seed=0)


def test_samples_of_classes_are_drawn_with_their_labels():
    """A denoiser that knows its class alone: every sample is the class's image, whatever the noise."""
    asked = SimpleNamespace(labels=None)

    def denoiser(labels):
        asked.labels = labels.tolist()
        return lambda x, sigma: jnp.broadcast_to((labels / 4 - 0.5).astype(x.dtype)[:, None, None, None], x.shape)

    found = sampling.of_classes(denoiser, 3, 2, (4, 4, 1), key=jax.random.key(0), steps=3, sigma_max=5.0)
    assert asked.labels == [0, 0, 1, 1, 2, 2]
    assert found.shape == (3, 2, 4, 4, 1)
    for label, image in enumerate(found):
        np.testing.assert_allclose(image, (label / 4 - 0.5 + 1) / 2, atol=1e-6)
