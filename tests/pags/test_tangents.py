"""Tangent spaces of many images: each image's is what the estimator gives for it alone."""

import jax
import jax.numpy as jnp
import numpy as np

from pags_jax import manifold, tangents

MIX = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 2)))[0].astype(np.float32)


def decode(codes):
    """Images (n, 2, 2, 1) on a plane."""
    return (codes @ MIX.T).reshape(-1, 2, 2, 1)


def projector(basis):
    rows = np.asarray(basis, np.float64).reshape(len(basis), -1)
    return rows.T @ rows


def test_a_decoders_are_its_plane_at_every_code():
    codes = jax.random.normal(jax.random.key(0), (3, 2), jnp.float32)
    found = tangents.of_decoder(decode, codes, basis=jax.jit(manifold.tangent_basis, static_argnames="decode"))
    assert found.shape == (3, 2, 2, 2, 1)
    for basis in found:
        np.testing.assert_allclose(projector(basis), MIX @ MIX.T, atol=1e-5)


def test_a_denoisers_hands_each_image_its_key_and_the_options():
    seen = []

    def basis(denoise, x, *, key, sigma_pm1, rank, iterations, unroll):
        seen.append((denoise, jax.random.key_data(key).tolist(), float(sigma_pm1), rank, iterations, unroll))
        return jnp.repeat(x[:, None], rank, 1)

    x, keys = jnp.arange(3.0).reshape(3, 1, 1, 1), jax.random.split(jax.random.key(0), 3)
    found = tangents.of_denoiser(abs, x, keys, sigma_pm1=0.5, rank=2, iterations=3, basis=basis)
    assert seen == [(abs, key, 0.5, 2, 3, True) for key in jax.random.key_data(keys).tolist()]
    np.testing.assert_array_equal(found[:, :, 0, 0, 0], [[0, 0], [1, 1], [2, 2]])


def test_neighbours_are_the_nearest_images_nearest_first():
    data = np.random.default_rng(1).normal(size=(20, 2, 2, 1)).astype(np.float32)
    x = data[:2] + np.float32(0.01)
    found = tangents.of_neighbours(jnp.asarray(x), jnp.asarray(data), 4)
    for image, around in zip(x, found, strict=True):
        order = np.argsort(((data - image) ** 2).sum((1, 2, 3)))[:4]
        np.testing.assert_array_equal(around, data[order])


def test_within_some_pixels_spaces_are_what_the_estimator_gives_there():
    """The plane's shadow on three of four pixels, which has its two dimensions; maps lose the other pixel."""
    codes = jax.random.normal(jax.random.key(0), (3, 2), jnp.float32)
    basis, mask = tangents.of_decoder(decode, codes), jnp.ones((3, 2, 2, 1), bool).at[:, 1, 1].set(False)
    found = tangents.within(basis, mask)
    shadow = np.linalg.qr(MIX * np.array([1, 1, 1, 0])[:, None])[0]
    for part in found.basis:
        np.testing.assert_allclose(projector(part), shadow @ shadow.T, atol=1e-5)
    assert (found.rank, found.size) == (2.0, 3.0)
    np.testing.assert_array_equal(found.only(jnp.ones(mask.shape)), mask.astype(float))
    whole = tangents.within(basis)
    assert (whole.rank, whole.size, whole.mask) == (2.0, 4.0, None)
    np.testing.assert_array_equal(whole.only(jnp.ones(mask.shape)), np.ones(mask.shape))
