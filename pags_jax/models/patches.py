"""Patches of pixels as channels and back, instead of strided convolutions: these have slow gradients on CPUs."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def to_patches(x: Float[Array, "n h w c"], *, multiple: int = 2) -> Float[Array, "n i j d"]:
    """Each 2 x 2 patch becomes one place of four times as many channels.

    Args:
      x: Images or maps.
      multiple: Zeros are added below and to the right until height and width are multiples of this even number.

    Returns:
      Half as high and wide.

    >>> to_patches(jnp.arange(8.0).reshape(1, 2, 4, 1))[0, 0].tolist()
    [[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]
    """
    n, height, width, channels = x.shape
    below, right = -height % multiple, -width % multiple
    if below or right:
        x = jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)))
    x = x.reshape(n, (height + below) // 2, 2, (width + right) // 2, 2, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, (height + below) // 2, (width + right) // 2, 4 * channels)


def from_patches(x: Float[Array, "n i j d"]) -> Float[Array, "n h w c"]:
    """The inverse of ``to_patches``: twice as high and wide, a quarter of the channels."""
    n, height, width, channels = x.shape
    x = x.reshape(n, height, width, 2, 2, channels // 4)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * height, 2 * width, channels // 4)
