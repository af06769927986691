"""A small U-Net that denoises images, with or without knowing their class (Ronneberger et al. 2015; Ho et al. 2020).

Images are cut into 2 x 2 patches at once, so that a 28 x 28 image is worked on at 14 x 14 and 7 x 7. On the way up maps
are resized, each value repeated, before they are convolved: patches that are put together again, as transposed
convolutions do, leave a checkerboard in the score (Odena, Dumoulin and Olah 2016).
"""

import math
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from pags_jax.models.layers import check_input, conv, dense
from pags_jax.models.patches import from_patches, to_patches

_FREQUENCIES = 16
_zeros = nn.initializers.zeros_init()


class UNet(nn.Module):
    """The raw network of a denoiser: ``scores.denoiser`` makes a denoiser of it.

    One network serves all classes and none: labels are embedded, and so is a null label, number ``classes``, which
    training puts in their place now and then (``generative.denoising``; Ho and Salimans 2022).

    Attributes:
      channels: Number of channels of the images.
      classes: Number of classes.
      widths: Channels at each level, the first at half of the images' resolution, each next one at half of the last.
      blocks: Residual blocks at each level, on the way down and again on the way up.
      sigma_data: Standard deviation of the pixels of the data, images in [-1, 1] (``scores.preconditioned``).
      upsampling: "resize", or "patches" for networks that were trained before there was a choice.
    """

    channels: int = 1
    classes: int = 10
    widths: tuple[int, ...] = (32, 96)
    blocks: int = 2
    sigma_data: float = 0.5
    upsampling: Literal["patches", "resize"] = "patches"

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], c_noise: Any = 0.0, labels: Any = None) -> Float[Array, "n h w c"]:
        """Denoises before preconditioning.

        Args:
          x: Scaled noisy images, of any height and width.
          c_noise: ``log(sigma) / 4``, ``(n,)`` or one for all.
          labels: ``(n,)`` or one for all, from 0 to ``classes``, the last being the null label; None for it alone.

        Returns:
          Shaped as ``x``; zero in a fresh network.

        Raises:
          ValueError: Images with another number of channels.
        """
        check_input(x, 1, "UNet")
        n, height, width, channels = x.shape
        if channels != self.channels:
            raise ValueError(f"this network is for images of {self.channels} channels, got the shape {x.shape}")
        noise = jnp.broadcast_to(jnp.asarray(c_noise, x.dtype), (n,))
        labels = jnp.broadcast_to(jnp.asarray(self.classes if labels is None else labels), (n,))
        embedding = self._embedding(noise, labels)

        hidden = to_patches(x, multiple=2 ** len(self.widths))
        hidden = conv(self.widths[0], (3, 3), use_bias=True)(hidden)
        finer = []
        for level, channels in enumerate(self.widths):
            if level:
                finer.append(hidden)
                hidden = conv(channels, (1, 1), use_bias=True)(to_patches(hidden))
            for _ in range(self.blocks):
                hidden = Block(channels)(hidden, embedding)
        for channels in self.widths[-2::-1]:
            hidden = jnp.concatenate([self._finer(hidden, channels), finer.pop()], axis=-1)
            for _ in range(self.blocks):
                hidden = Block(channels)(hidden, embedding)
        hidden = nn.silu(_normalise(hidden.shape[-1])(hidden))
        if self.upsampling == "patches":
            patches = conv(4 * self.channels, (3, 3), use_bias=True, kernel_init=_zeros)(hidden)
            return from_patches(patches)[:, :height, :width]
        narrow = self.widths[0] // 2
        features = conv(narrow, (3, 3), use_bias=True)(x)
        hidden = jnp.concatenate([self._finer(hidden, narrow)[:, :height, :width], features], axis=-1)
        hidden = conv(narrow, (3, 3), use_bias=True)(nn.silu(hidden))
        return conv(self.channels, (3, 3), use_bias=True, kernel_init=_zeros)(nn.silu(hidden))

    def _finer(self, x: Array, channels: int) -> Array:
        """Maps made twice as high and wide."""
        if self.upsampling == "patches":
            return from_patches(conv(4 * channels, (1, 1), use_bias=True)(x))
        return conv(channels, (1, 1), use_bias=True)(x).repeat(2, 1).repeat(2, 2)

    def _embedding(self, noise: Array, labels: Array) -> Array:
        """The embedding ``(n, 2 widths[0])`` of noise level and class."""
        width = 2 * self.widths[0]
        out = dense(width)(nn.silu(dense(width)(fourier_features(noise))))
        return nn.silu(out + nn.Embed(self.classes + 1, width, dtype=noise.dtype)(labels))


class Block(nn.Module):
    """A residual block that noise level and class scale and shift; the identity, or a 1 x 1 convolution, when fresh."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], embedding: Float[Array, "n e"]) -> Float[Array, "n h w k"]:
        """The block's output, ``width`` wide."""
        out = conv(self.width, (3, 3), use_bias=True)(nn.silu(_normalise(x.shape[-1])(x)))
        scale, shift = jnp.split(dense(2 * self.width)(embedding)[:, None, None, :], 2, axis=-1)
        out = nn.silu(_normalise(self.width)(out) * (1 + scale) + shift)
        out = conv(self.width, (3, 3), use_bias=True, kernel_init=_zeros)(out)
        return out + (x if x.shape[-1] == self.width else conv(self.width, (1, 1))(x))


def fourier_features(values: Float[Array, " n"]) -> Float[Array, "n f"]:
    """Sine and cosine of each value times frequencies from 1/4 to 16, of equal ratios."""
    frequencies = 2.0 ** jnp.linspace(-2.0, 4.0, _FREQUENCIES, dtype=values.dtype)
    angles = values[:, None] * frequencies[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def _normalise(channels: int) -> nn.GroupNorm:
    """Group normalisation (Wu and He 2018), of eight groups where that divides the channels."""
    return nn.GroupNorm(num_groups=math.gcd(8, channels))
