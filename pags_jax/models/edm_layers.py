"""What the U-Nets of Karras et al. (2022) are made of: their residual block, resampling and embeddings of noise levels.

Submodules are named as in the original, so that a weight's path is its name there.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pags_jax.models.layers import at_least_float32, conv, dense

conv3 = partial(conv, kernel_size=(3, 3), padding=1, use_bias=True)
conv1 = partial(conv, kernel_size=(1, 1), use_bias=True)


class GroupNorm(nn.Module):
    """Group normalisation of at most 32 groups, each of at least 4 channels, in float32 at least (Wu and He 2018).

    Attributes:
      epsilon: Added to variances.
      dtype: Dtype of the result; by default that of ``x``.
    """

    epsilon: float
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """``(x - mean) / sqrt(variance + epsilon) * scale + bias``."""
        n, *_, channels = x.shape
        scale = self.param("scale", nn.initializers.ones_init(), (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,), jnp.float32)
        groups = min(32, channels // 4)
        dtype, wide = self.dtype or x.dtype, at_least_float32(x)
        parts = wide.reshape(n, -1, groups, channels // groups)
        parts = parts - parts.mean((1, 3), keepdims=True)
        parts = parts * jax.lax.rsqrt((parts**2).mean((1, 3), keepdims=True) + self.epsilon)
        scale, bias = (values.astype(wide.dtype)[None, None, None] for values in (scale, bias))
        return (parts.reshape(x.shape) * scale + bias).astype(dtype)


class UNetBlock(nn.Module):
    """A residual block that the noise level moves, with resampling before and attention after it where asked for.

    Attributes:
      width: Channels of the result.
      heads: Number of heads of the attention; 0: none.
      up, down: Twice, or half, as high and wide.
      taps: Taps of the filter along an axis that resamples.
      scale: Multiplies the sum of both branches.
      epsilon: Epsilon of the group normalisations.
      adaptive: The embedding scales and shifts what is normalised; otherwise it is added before.
      project: The other branch is convolved where the block resamples, and not only where widths differ.
      dtype: Type to compute in.
    """

    width: int
    heads: int = 0
    up: bool = False
    down: bool = False
    taps: tuple[float, ...] = (1.0, 1.0)
    scale: float = 1.0
    epsilon: float = 1e-5
    adaptive: bool = True
    project: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], embedding: Float[Array, "n e"]) -> Float[Array, "n p q k"]:
        """The block's output."""
        norm = partial(GroupNorm, epsilon=self.epsilon, dtype=self.dtype)
        out = nn.silu(norm(name="norm0")(x))
        out = conv3(self.width, dtype=self.dtype, name="conv0")(self._resampled(out))
        moved = dense((1 + self.adaptive) * self.width, name="affine")(embedding).astype(out.dtype)[:, None, None]
        if self.adaptive:
            scale, shift = jnp.split(moved, 2, axis=-1)
            out = nn.silu(shift + norm(name="norm1")(out) * (scale + 1))
        else:
            out = nn.silu(norm(name="norm1")(out + moved))
        out = conv3(self.width, dtype=self.dtype, name="conv1")(out)
        other = self._resampled(x)
        if x.shape[-1] != self.width or (self.project and (self.up or self.down)):
            other = conv1(self.width, dtype=self.dtype, name="skip")(other)
        out = (out + other) * self.scale
        if self.heads:
            out = (out + self._attention(norm(name="norm2")(out))) * self.scale
        return out

    def _resampled(self, x: Array) -> Array:
        if self.up:
            return upsample(x, self.taps)
        return downsample(x, self.taps) if self.down else x

    def _attention(self, x: Array) -> Array:
        """Every place attends to every place; channels are ordered by head, place in it, and query, key or value."""
        n, height, width, channels = x.shape
        parts = conv1(3 * channels, dtype=self.dtype, name="qkv")(x)
        parts = parts.reshape(n, height * width, self.heads, channels // self.heads, 3)
        query, key, value = (parts[..., i] for i in range(3))
        key = key / np.sqrt(channels // self.heads).item()
        weight = jnp.einsum("nqhc,nkhc->nhqk", at_least_float32(query), at_least_float32(key))
        weight = jax.nn.softmax(weight, axis=-1).astype(x.dtype)
        out = jnp.einsum("nhqk,nkhc->nqhc", weight, value).reshape(x.shape)
        return conv1(channels, dtype=self.dtype, name="proj")(out)


def downsample(x: Float[Array, "n h w c"], taps: tuple[float, ...], padding: int | None = None) -> Array:
    """Makes maps half as high and wide: a filter along each axis, at every second place.

    Args:
      x: Maps.
      taps: Taps of the filter, scaled to the sum 1; (1, 1) takes the mean of each 2 x 2 patch.
      padding: Zeros on each side; by default those that halve an even size.

    >>> downsample(jnp.arange(4.0).reshape(1, 2, 2, 1), (1.0, 1.0)).item()
    1.5
    """
    pad = (len(taps) - 1) // 2 if padding is None else padding
    for axis in (1, 2):
        x = jnp.pad(x, [(pad, pad) if a == axis else (0, 0) for a in range(4)])
        count = (x.shape[axis] - len(taps)) // 2 + 1
        x = sum(tap / sum(taps) * jax.lax.slice_in_dim(x, i, i + 2 * count - 1, 2, axis) for i, tap in enumerate(taps))  # pyright: ignore[reportAssignmentType]
    return x


def upsample(x: Float[Array, "n h w c"], taps: tuple[float, ...]) -> Array:
    """Makes maps twice as high and wide: the transpose of ``downsample``, times 4; (1, 1) repeats each place.

    >>> upsample(jnp.ones((1, 1, 1, 1)), (1.0, 1.0))[0, :, :, 0].tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    pad = (len(taps) - 1) // 2
    for axis in (1, 2):
        size = 2 * x.shape[axis] - 2 - 2 * pad + len(taps)
        spread = jnp.stack([x, jnp.zeros_like(x)], axis=axis + 1).reshape(
            [2 * s if a == axis else s for a, s in enumerate(x.shape)]
        )
        around = len(taps)
        spread = jnp.pad(spread, [(around, around) if a == axis else (0, 0) for a in range(4)])
        x = sum(
            2 * tap / sum(taps) * jax.lax.slice_in_dim(spread, around + pad - i, around + pad - i + size, 1, axis)
            for i, tap in enumerate(taps)
        )  # pyright: ignore[reportAssignmentType]
    return x


def positional_embedding(noise: Float[Array, " n"], width: int, *, endpoint: bool) -> Float[Array, "n width"]:
    """Cosines, then sines, of noise levels times ``width / 2`` frequencies from 1 down to 1e-4.

    Args:
      noise: Levels as the network sees them.
      width: Even.
      endpoint: The last frequency is 1e-4; otherwise the one after it would be.
    """
    half = width // 2
    # In float32, as the original's, whatever the levels are in.
    exponents = np.arange(half, dtype=np.float32) / np.float32(half - endpoint)
    frequencies = jnp.asarray(np.float32(1 / 10000) ** exponents, noise.dtype)
    return _waves(noise, frequencies)


class FourierEmbedding(nn.Module):
    """Cosines, then sines, of noise levels times random frequencies, which the file keeps (Song et al. 2021)."""

    width: int

    @nn.compact
    def __call__(self, noise: Float[Array, " n"]) -> Float[Array, "n width"]:
        """The embedding."""
        freqs = self.variable(
            "buffers", "freqs", lambda: 16 * jax.random.normal(self.make_rng("params"), (self.width // 2,), jnp.float32)
        )
        return _waves(noise, (2 * np.pi * freqs.value).astype(noise.dtype))


def _waves(noise: Array, frequencies: Array) -> Array:
    angles = noise[:, None] * frequencies[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)
