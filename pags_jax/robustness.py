r"""How far a model's prediction moves on the data manifold, and off it.

For an image ``x``, the projection ``P`` to its tangent space (``pags_jax.manifold``), and noise ``u ~ N(0, I)``:

    directions                     v_on = P u / |P u|,        v_off = (u - P u) / |u - P u|
    manifold_robustness            E |p(x + eps v) - p(x)|_1  for v = v_on and v = v_off,  p = softmax(f)
    relative_noise_robustness      E |p(x + sigma m u) - p(x)|_1  for a mask m of the signal or of the distractor
    off_manifold_share             |g - P g|^2 / |g|^2        of a gradient g
    off_manifold_share_by_noise    the same from changes under noise, as sigma -> 0

A measure that is not defined for an image is NaN: never zero, and never a division by zero. To compare models on the
same images, directions and noise, give each the same ``key``, or the same ``noise``. Nothing is differentiated.
Images are in the units that the model takes, and so are distances and noise levels. A model is called with all steps
from several images as one batch, so it must treat each example by itself; eager calls refuse a model in training mode.
Accelerators take all products in full float32 precision, as their default hides small changes.

Source: Srinivas, Bordt and Lakkaraju 2023, Theorem 1, figures 3 and 5. Differs from the reference: P16 the same images
and directions for all models, any number of draws, and the change of the softmax; there fresh noise for each model, one
draw, one image more than asked for, and a figure that averages logits.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from pags_jax.balls import pixel_bounds
from pags_jax.chunks import map_batches
from pags_jax.images import as_images
from pags_jax.per_example import check_classifier
from pags_jax.shares import off_manifold_share as off_manifold_share
from pags_jax.shares import off_manifold_share_by_noise as off_manifold_share_by_noise
from pags_jax.steps import OnOff as OnOff
from pags_jax.steps import check_scales, draw
from pags_jax.steps import directions as directions

#: The reference's distances in L2. Its figures show the 14th, 2.637.
REFERENCE_EPS = tuple(np.logspace(-3, 2, 20).tolist())


@jax.default_matmul_precision("highest")
def manifold_robustness(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    basis: Float[Array, "n k ..."],
    *,
    eps_l2: Any,
    key: Array | None = None,
    draws: int = 1,
    noise: Float[Array, "..."] | None = None,
    bounds: tuple[Any, Any] | None = None,
    chunk_size: int | None = None,
) -> OnOff:
    """How far steps of length ``eps_l2`` on and off the manifold move the class probabilities, in L1: from 0 to 2.

    Steps start at the image itself, also where the basis belongs to its reconstruction ``decode(z)``, as in the
    reference.

    Args:
      apply_fn: Maps images to logits ``(n, classes)``, at least two, each by itself.
      x: Images in [0, 1].
      basis: Basis of each image's tangent space.
      eps_l2: Distance in the Euclidean norm, traced: one, or an axis of them such as ``REFERENCE_EPS``.
      key: PRNG key of the noise; where images come in several calls, one for each call.
      draws: How many draws of noise the key makes.
      noise: The noise instead, ``(draws, n, ...)`` or ``(n, ...)``; exactly one of ``key`` and ``noise`` is given.
      bounds: Lowest and highest value of a pixel, each one number or one for each channel, to which steps are cut; by
        default images may leave [0, 1], as in the reference. Where pixels lie at a bound, as black backgrounds do, cut
        steps are shorter than ``eps_l2``, and those on and off the manifold not by the same share: ``step_lengths``
        says how long they are.
      chunk_size: Images that are worked on at once, to bound memory; all by default.

    Returns:
      Means over draws, ``(n,)`` or ``(eps, n)``; NaN where an image has no such direction.

    Raises:
      ValueError: Images, a basis, noise or a number that cannot be used.

    >>> x, basis = jnp.zeros((1, 2)), jnp.array([[[1.0, 0.0]]])
    >>> apply_fn = lambda x: x * jnp.array([[2.0, 0.0]])
    >>> on, off = manifold_robustness(apply_fn, x, basis, eps_l2=1.0, noise=jnp.ones((1, 2)))
    >>> on.round(3).tolist(), off.round(3).tolist()
    ([0.762], [0.0])
    """
    x, ways, eps, limits = _steps(x, basis, eps_l2, key, draws, noise, bounds)
    return _on_off(_changes(apply_fn, x, ways, eps, limits, chunk_size))


def step_lengths(
    x: Float[Array, "n ..."],
    basis: Float[Array, "n k ..."],
    *,
    eps_l2: Any,
    key: Array | None = None,
    draws: int = 1,
    noise: Float[Array, "..."] | None = None,
    bounds: tuple[Any, Any] | None = None,
    chunk_size: int | None = None,
) -> OnOff:
    """Lengths of the steps of ``manifold_robustness`` after clipping to ``bounds``.

    Args:
      x: As for ``manifold_robustness``, as are all others.
      basis: Basis of each image's tangent space.
      eps_l2: Length before the cut.
      key: PRNG key of the noise.
      draws: How many draws of noise the key makes.
      noise: The noise instead.
      bounds: Lowest and highest value of a pixel.
      chunk_size: Images that are worked on at once.

    Returns:
      Mean Euclidean lengths over draws, ``(n,)`` or ``(eps, n)``, of at most ``eps_l2``; NaN where an image has no such
      direction.

    Raises:
      ValueError: As ``manifold_robustness``.

    >>> x, basis = jnp.zeros((1, 2)), jnp.array([[[1.0, 0.0]]])
    >>> on, off = step_lengths(x, basis, eps_l2=1.0, noise=jnp.array([[1.0, -1.0]]), bounds=(0, 1))
    >>> on.tolist(), off.tolist()
    ([1.0], [0.0])
    """
    x, ways, eps, limits = _steps(x, basis, eps_l2, key, draws, noise, bounds)

    def lengths(x, ways, *limits):
        points = _points(x, ways, eps, *limits)
        moved = points - x.astype(points.dtype)[:, None, None]
        return jnp.sqrt(jnp.sum(moved.reshape(*moved.shape[:3], -1) ** 2, -1))

    return _on_off(_of_ways(lengths, x, ways, eps, limits, chunk_size))


@jax.default_matmul_precision("highest")
def relative_noise_robustness(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    mask: Bool[Array, "n ..."],
    *,
    sigma: Any,
    key: Array | None = None,
    draws: int = 1,
    noise: Float[Array, "..."] | None = None,
    chunk_size: int | None = None,
) -> Float[Array, "... n"]:
    """How far noise on one part of each image moves the class probabilities, in L1: from 0 to 2.

    The paper's figure 5 divides the mean over images for the signal by that for the distractor. ``sigma`` is the
    noise on every value of the part, so that a part twice as large gets twice the energy: parts are comparable as they
    are where they have one size, as the halves of ``datasets.with_distractor`` have.

    Args:
      apply_fn: As for ``manifold_robustness``, as are ``key``, ``draws``, ``noise`` and ``chunk_size``. With the same
        key or noise the parts of an image see parts of the same noise.
      x: Images in [0, 1].
      mask: True where the part is, shaped as ``x`` or as its leading axes, such as ``(n, h, w)``.
      sigma: Standard deviation of the noise in the units of ``x``, traced: one, or an axis of them.
      key: PRNG key of the noise.
      draws: How many draws of noise the key makes.
      noise: Standard normal, instead of the key.
      chunk_size: Images that are worked on at once.

    Returns:
      Means over draws, ``(n,)`` or ``(sigma, n)``; NaN where the part is empty.

    Raises:
      ValueError: Images, a mask, noise or a number that cannot be used.

    >>> x, mask = jnp.zeros((1, 2)), jnp.array([[True, False]])
    >>> noise, apply_fn = jnp.ones((1, 2)), lambda x: x * jnp.array([[99.0, 0.0]])
    >>> signal = relative_noise_robustness(apply_fn, x, mask, sigma=0.5, noise=noise)
    >>> distractor = relative_noise_robustness(apply_fn, x, ~mask, sigma=0.5, noise=noise)
    >>> signal.tolist(), distractor.tolist()
    ([1.0], [0.0])
    """
    x = as_images(x)
    noise = draw(x, key, draws, noise)
    if mask.dtype != bool or mask.shape != x.shape[: mask.ndim]:
        raise ValueError(
            f"`mask` must be truth values for leading axes of {x.shape}, got {mask.dtype} of the shape {mask.shape}"
        )
    mask = jnp.asarray(mask).reshape(*mask.shape, *(1,) * (x.ndim - mask.ndim))
    changes = _changes(apply_fn, x, jnp.where(mask[None], noise, 0), check_scales(sigma, "sigma", x), (), chunk_size)
    return changes.mean(-2)


def _steps(x, basis, eps_l2, key, draws, noise, bounds) -> tuple[Array, Array, Array, tuple[Array, ...]]:
    """Checked images, unit steps ``(2 draws, n, ...)`` on the manifold and then off it, distances, and pixel bounds."""
    x = as_images(x)
    noise = draw(x, key, draws, noise)
    limits = () if bounds is None else pixel_bounds(bounds, x)
    on, off = jax.vmap(directions, (None, 0))(jnp.asarray(basis), noise)
    return x, jnp.concatenate([on, off]), check_scales(eps_l2, "eps_l2", x), limits


def _on_off(values: Array) -> OnOff:
    on, off = jnp.split(values, 2, axis=-2)
    return OnOff(on.mean(-2), off.mean(-2))


def _changes(apply_fn, x, ways, scales, limits, chunk_size) -> Array:
    """L1 changes of the softmax from ``x`` to ``x + scale * way``: ``(*scales, ways, n)``, NaN where a way is zero."""

    def changes(x, ways, *limits):
        points = _points(x, ways, scales, *limits)
        batch = jnp.concatenate([x, points.astype(x.dtype).reshape(-1, *x.shape[1:])])
        p = jax.nn.softmax(apply_fn(batch).astype(points.dtype))
        return jnp.abs(p[len(x) :].reshape(*points.shape[:3], -1) - p[: len(x), None, None]).sum(-1)

    check_classifier(apply_fn, x)
    return _of_ways(changes, x, ways, scales, limits, chunk_size)


def _points(x, ways, scales, *limits) -> Array:
    """``x + scale * way`` inside of the limits, ``(n, scales, ways, ...)``, of ways that have the examples first."""
    steps = scales.reshape(1, -1, *(1,) * ways[0].ndim) * ways[:, None]
    points = x.astype(steps.dtype)[:, None, None] + steps
    return jnp.clip(points, *(limit[:, None, None] for limit in limits)) if limits else points


def _of_ways(function, x, ways, scales, limits, chunk_size) -> Array:
    """``function(x, ways, *limits)`` of chunks of images, ``(*scales, ways, n)``; NaN where a way is zero."""
    values = map_batches(function, (x, jnp.moveaxis(ways, 1, 0), *limits), chunk_size)
    values = jnp.moveaxis(values, 0, -1).reshape(*scales.shape, len(ways), len(x))
    moves = jnp.any(ways.reshape(*ways.shape[:2], -1) != 0, -1)
    return jnp.where(jnp.broadcast_to(moves, values.shape), values, jnp.nan)
