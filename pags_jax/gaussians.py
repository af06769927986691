"""A Gaussian for each class of images, with the covariance of shrunken images: where synthesis starts.

Santurkar et al., *Image Synthesis with a Single (Robust) Classifier* (NeurIPS 2019), section 3.1. The mean is that of
whole images. A covariance of all pairs of pixels would be too large, so the covariance is that of deviations from the
mean in which blocks of pixels are averaged; draws of these are enlarged bilinearly.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pags_jax.chunks import check_counts
from pags_jax.images import as_images, as_labels, check_array, check_examples, is_traced, wide
from pags_jax.linalg import left_singular_vectors


class ClassGaussians(NamedTuple):
    """The mean of each class and a root of its covariance.

    Attributes:
      mean: Mean of the images.
      root: ``R`` with ``R R^T`` the covariance of shrunken images of ``p`` by ``q`` blocks, ``r = p q c``.
    """

    mean: Float[Array, "classes h w c"]
    root: Float[Array, "classes p q c r"]


def fit(x: Float[Array, "n h w c"], y: Int[Array, " n"], *, classes: int, shrink: int = 4) -> ClassGaussians:
    """Fits a Gaussian to the images of each class.

    Args:
      x: Images.
      y: Labels.
      classes: Number of classes, each of which needs an image; of a single one the covariance is zero.
      shrink: Height and width of the blocks that are averaged; a divisor of both of the images'.

    Returns:
      Means and roots, in float32 at least. Under tracing a class without images is NaN.

    Raises:
      ValueError: Images, labels or a ``shrink`` that do not fit, or a class without images.

    >>> fitted = fit(jnp.ones((2, 4, 4, 1)), jnp.array([0, 1]), classes=2, shrink=2)
    >>> fitted.mean.shape, fitted.root.shape
    ((2, 4, 4, 1), (2, 2, 2, 1, 4))
    """
    x = as_images(x)
    check_counts(classes=classes, shrink=shrink)
    if x.ndim != 4 or x.shape[1] % shrink or x.shape[2] % shrink:
        raise ValueError(f"expected images (n, h, w, c) with h and w divisible by `shrink` = {shrink}, got {x.shape}")
    check_examples(x, y, classes)
    if not is_traced(y) and len(np.unique(np.asarray(y))) < classes:
        missing = sorted(set(range(classes)) - set(np.asarray(y).tolist()))
        raise ValueError(f"expected images of every class, got none of class {missing[0]}")
    x = x.astype(wide(x.dtype))
    of_class = jax.nn.one_hot(as_labels(y), classes, dtype=x.dtype)
    share = of_class / jnp.sum(of_class, 0, keepdims=True)
    highest = jax.lax.Precision.HIGHEST
    mean = jnp.einsum("nk,nhwc->khwc", share, x, precision=highest)
    rest = shrunken(x - mean[as_labels(y)], shrink)
    blocks = rest.shape[1:]
    rest = rest.reshape(len(x), -1)
    covariance = jax.lax.map(lambda weight: jnp.matmul((weight[:, None] * rest).T, rest, precision=highest), share.T)
    vectors, values = jax.vmap(left_singular_vectors)(covariance)
    return ClassGaussians(mean, (vectors * jnp.sqrt(values)[:, None]).reshape(classes, *blocks, -1))


def draw(gaussians: ClassGaussians, y: Int[Array, " n"], *, key: Array) -> Float[Array, "n h w c"]:
    """Draws an image of each class that is named.

    Args:
      gaussians: By ``fit``.
      y: The classes.
      key: PRNG key, required.

    Returns:
      Images, not cut to any range; NaN where a traced class has no Gaussian.

    Raises:
      ValueError: Classes that are no axis of integers, or without a Gaussian.
    """
    mean, root = gaussians
    y = check_array("classes", y, "integers", jnp.integer)
    if y.ndim != 1 or len(y) == 0:
        raise ValueError(f"expected one axis of classes, got the shape {y.shape}")
    check_examples(np.empty((len(y), 1)), y, len(mean))
    normal = jax.random.normal(key, (len(y), root.shape[-1]), root.dtype)

    def one(label: Any, normal: Any) -> Any:
        centre, spread = (part.at[label].get(mode="fill", fill_value=jnp.nan) for part in (mean, root))
        low = jnp.matmul(spread, normal, precision=jax.lax.Precision.HIGHEST)
        return centre + jax.image.resize(low, centre.shape, "bilinear")

    return jax.lax.map(lambda row: one(*row), (as_labels(y), normal))


def shrunken(x: Float[Array, "n h w c"], shrink: int) -> Float[Array, "n p q c"]:
    """Means of square blocks of ``shrink`` by ``shrink`` pixels, a divisor of both sides."""
    n, height, width, channels = x.shape
    return x.reshape(n, height // shrink, shrink, width // shrink, shrink, channels).mean((2, 4))
