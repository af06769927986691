"""Test images to measure models on: the same ones for every model, so that measures can be compared image by image."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from pags_jax.chunks import check_counts
from pags_jax.datasets.labelled_images import Images
from pags_jax.images import to_float


class Sample(NamedTuple):
    """Test images of a data set, on the device.

    Attributes:
      x: Images in [0, 1].
      y: Labels.
      mask: True where an image holds its signal; None unless that is known.
      data: The whole data set.
    """

    x: Float[Array, "n h w c"]
    y: Int32[Array, " n"]
    mask: Bool[Array, "n h w"] | None
    data: Images


def draw(data: Images, count: int, *, seed: int) -> Sample:
    """Draws test images, each at most once.

    Args:
      data: An image set.
      count: Number of images.
      seed: Seed of the draw; larger samples of a seed begin with the smaller ones.

    Raises:
      ValueError: A count that is no whole number from 1 to the number of test images.

    >>> x = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    >>> data = Images(x, np.arange(5, dtype=np.int32), x, np.arange(5, dtype=np.int32), tuple("abcde"))
    >>> sorted(draw(data, 5, seed=0).y.tolist()), draw(data, 2, seed=0).x.shape
    ([0, 1, 2, 3, 4], (2, 1, 1, 1))
    """
    check_counts(len(data.test_y), count=count)
    chosen = np.random.default_rng(seed).permutation(len(data.test_y))[:count]
    mask = None if data.test_mask is None else jnp.asarray(data.test_mask[chosen])
    return Sample(to_float(data.test_x[chosen]), jnp.asarray(data.test_y[chosen]), mask, data)
