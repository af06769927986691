"""Noise for each image, and the unit steps along its parts on and off the manifold."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pags_jax.bases import parts
from pags_jax.chunks import check_counts
from pags_jax.images import as_wide, check_array, is_traced, wide


class OnOff(NamedTuple):
    """One value along the manifold and one across it, of each image.

    Attributes:
      on: Part on the manifold.
      off: Off the manifold.
    """

    on: Array
    off: Array


def directions(basis: Float[Array, "n k ..."], noise: Float[Array, "n ..."]) -> OnOff:
    """Unit vectors along the parts of noise on and off the manifold; for several draws, use ``vmap``.

    They are orthogonal, and ``|P u| v_on + |u - P u| v_off = u``. What is off the manifold is projected a second time,
    so that they are orthogonal also where little of ``u`` is left. A part of at most ``4 epsilon sqrt(features) |u|``,
    with the machine epsilon, is the rounding of projecting, and no direction.

    Args:
      basis: Basis of each image's tangent space.
      noise: One draw ``u`` for each image.

    Returns:
      Directions shaped as ``noise``. Zero where there is none: on the manifold where the basis has rank 0 or ``u`` is
      orthogonal to it, off it where the basis spans everything or ``u`` lies in its span.

    Raises:
      ValueError: A basis for other shapes.

    >>> on, off = directions(jnp.array([[[1.0, 0.0]]]), jnp.array([[3.0, 4.0]]))
    >>> on.tolist(), off.tolist()
    ([[1.0, 0.0]], [[0.0, 1.0]])
    """
    noise = as_wide(noise)
    largest = jnp.max(jnp.abs(noise), tuple(range(1, noise.ndim)), keepdims=True)
    noise = noise / jnp.where(largest > 0, largest, 1)  # Squares of tiny or huge noise leave the range of floats.
    on, off = parts(basis, noise)
    off = parts(basis, off)[1]  # Twice is enough (Parlett, "The Symmetric Eigenvalue Problem", section 6.9).
    floor = 4 * jnp.finfo(noise.dtype).eps * noise[0].size ** 0.5 * _length(noise)
    return OnOff(_unit(on, floor), _unit(off, floor))


def _length(v: Array) -> Array:
    return jnp.sqrt(jnp.sum(v**2, tuple(range(1, v.ndim)), keepdims=True))


def _unit(v: Array, floor: Array) -> Array:
    length = _length(v)
    # Not "kept if above": what is not finite must make NaN, not a direction of zero.
    return jnp.where(length <= floor, 0, v / jnp.where(length <= floor, 1, length))


def draw(x: Array, key: Any, draws: Any, noise: Any) -> Array:
    """Draws of noise, ``(draws, n, ...)``, from the key, or the given ones.

    Raises:
      ValueError: Both or none, or a shape or a count that does not fit.
    """
    if (key is None) == (noise is None):
        raise ValueError("give exactly one of `key` and `noise`")
    dtype = wide(x.dtype)
    if noise is not None:
        if noise.shape not in (x.shape, (*noise.shape[:1], *x.shape)) or noise.size == 0:
            raise ValueError(f"`noise` must have the shape (draws, *{x.shape}) or {x.shape}, got {noise.shape}")
        return jnp.asarray(noise, dtype).reshape(-1, *x.shape)
    check_counts(draws=draws)
    return jax.random.normal(key, (int(draws), *x.shape), dtype)


def check_scales(scales: Any, name: str, x: Array) -> Array:
    """One number, or an axis of them, in the type that is measured in.

    Raises:
      ValueError: Another shape, or a number that is negative or not finite.
    """
    check_array(f"`{name}`", scales, "numbers", jnp.floating, jnp.integer)
    values = jnp.asarray(scales, wide(x.dtype))
    numbers = np.zeros(()) if is_traced(scales) else np.asarray(scales)
    if values.ndim > 1 or values.size == 0 or not np.all(np.isfinite(numbers) & (numbers >= 0)):
        raise ValueError(f"`{name}` must be a finite number of at least 0, or one axis of them, got {scales}")
    return values
