"""How much of a gradient, or of a response to noise, is off the manifold; the mathematics is in ``robustness``."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pags_jax.bases import parts
from pags_jax.chunks import map_chunks
from pags_jax.images import as_images, as_wide
from pags_jax.per_example import in_evaluation
from pags_jax.steps import check_scales, draw


def off_manifold_share(gradient: Float[Array, "n ..."], basis: Float[Array, "n k ..."]) -> Float[Array, " n"]:
    """The share of a gradient's squared length that is off the manifold, ``|g - P g|^2 / |g|^2``.

    Args:
      gradient: One of each image, in any scale.
      basis: Basis of each image's tangent space.

    Returns:
      Shares from 0 to 1; NaN where the gradient is zero or not finite.

    Raises:
      ValueError: A basis for other shapes.

    >>> basis = jnp.array([[[1.0, 0.0]], [[1.0, 0.0]]])
    >>> off_manifold_share(jnp.array([[3.0, 4.0], [0.0, 0.0]]), basis).round(6).tolist()
    [0.64, nan]
    """
    return _share(*parts(basis, as_wide(gradient)))


@jax.default_matmul_precision("highest")
def off_manifold_share_by_noise(
    function: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    basis: Float[Array, "n k ..."],
    *,
    sigma: Any,
    key: Array | None = None,
    draws: int = 1,
    noise: Float[Array, "..."] | None = None,
    chunk_size: int | None = None,
) -> Float[Array, " n"]:
    r"""The share of a function's response to small noise that is due to the noise off the manifold.

    With the parts ``u_on = P u`` and ``u_off = u - P u``, not scaled, and central differences
    ``d(v) = F(x + sigma v) - F(x - sigma v)``, it is ``sum d(u_off)^2 / (sum d(u_on)^2 + sum d(u_off)^2)`` over the
    draws. As ``E (g.P u)^2 = |P g|^2``, it tends to ``off_manifold_share`` of ``g``, the gradient of ``F``, as
    ``sigma -> 0`` (Theorem 1 of the paper); for ``draws`` draws with a standard error of about
    ``2 s (1 - s) / sqrt(draws)`` at the share ``s``.

    Args:
      function: Maps images to one number each, ``(n,)``, as ``lambda x: log_prob(apply_fn(x), y)``.
      x: Images in [0, 1].
      basis: Basis of each image's tangent space.
      sigma: Standard deviation of the noise in the units of ``x``, traced.
      key: PRNG key of the noise, as for ``manifold_robustness``, as are ``draws`` and ``noise``.
      draws: How many draws of noise the key makes.
      noise: Standard normal, instead of the key.
      chunk_size: Draws, each for all images, that are worked on at once; all by default.

    Returns:
      Shares from 0 to 1; NaN where the function does not change, or is not finite.

    Raises:
      ValueError: Images, a basis, noise or a number that cannot be used.
    """
    x = as_images(x)
    noise = draw(x, key, draws, noise)
    sigma = check_scales(sigma, "sigma", x)
    if sigma.ndim:
        raise ValueError(f"`sigma` must be one number, got the shape {sigma.shape}")

    def change(noise):
        return jnp.stack([difference(step) for step in parts(basis, sigma * noise)])

    def difference(step):
        centre = x.astype(step.dtype)
        return function((centre + step).astype(x.dtype)) - function((centre - step).astype(x.dtype))

    with in_evaluation():
        found = jax.eval_shape(function, x)
    if found.shape != x.shape[:1]:
        raise ValueError(f"`function` must return one number for each of {len(x)} images, got the shape {found.shape}")
    on, off = jnp.moveaxis(map_chunks(change, (noise,), chunk_size), 1, 0)
    return _share(on.T, off.T)


def _share(on: Array, off: Array) -> Array:
    """``sum off^2 / (sum on^2 + sum off^2)`` over all axes but the first; NaN for 0 / 0."""
    both = jnp.stack([on.reshape(len(on), -1), off.reshape(len(off), -1)])
    largest = jnp.max(jnp.abs(both), (0, 2), keepdims=True)
    # Scaled first: the squares of a confident model's gradients underflow in float32.
    on, off = jnp.sum((both / jnp.where(largest > 0, largest, 1)) ** 2, 2)
    return jnp.where(on + off > 0, off / jnp.where(on + off > 0, on + off, 1), jnp.nan)
