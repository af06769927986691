"""Random crops and flips of a batch, each example by its own draw, inside ``jit``.

Differs from the reference: P9 every example has its own crop and flip, on ImageNet too; there one draw served a batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

#: Maps ``(key, x)`` to images of the same shape.
Augmentation = Callable[[Array, Array], Array]


def unchanged(key: Array, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """The images as they are."""
    del key
    return x


def crop(key: Array, x: Float[Array, "n h w c"], *, padding: int = 4) -> Float[Array, "n h w c"]:
    """Pads with zeros on every side and cuts out a window of the old size at a random place."""
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    corners = jax.random.randint(key, (x.shape[0], 2), 0, 2 * padding + 1)

    def window(image, corner):
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), x.shape[1:])

    return jax.vmap(window)(padded, corners)


def flip(key: Array, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Mirrors each image left to right with probability one half."""
    mirrored = jax.random.bernoulli(key, 0.5, (x.shape[0], 1, 1, 1))
    return jnp.where(mirrored, x[:, :, ::-1], x)


def crop_and_flip(key: Array, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """What the reference trains CIFAR with: crops padded by 4, and flips."""
    for_crop, for_flip = jax.random.split(key)
    return flip(for_flip, crop(for_crop, x))
