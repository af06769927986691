"""What is refused before anything is traced, and what may not be looked at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import images, losses

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
