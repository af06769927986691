"""A convolutional autoencoder without normalisation, smooth everywhere: its decoder draws the manifold of the data."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from pags_jax.models import layers
from pags_jax.models.patches import from_patches, to_patches

# Variance 1 / fan_in, which keeps that of the input: nothing else here does.
_conv = partial(layers.conv, kernel_init=nn.initializers.lecun_normal(), use_bias=True)
_dense = partial(layers.dense, kernel_init=nn.initializers.lecun_normal())


class Autoencoder(nn.Module):
    """``encode(x) -> z`` and ``decode(z) -> x``; called, it decodes what it encodes.

    Attributes:
      shape: Shape of an image, (height, width, channels).
      latent: Size of ``z``.
      widths: Channels at each level, the first at half of the images' resolution, each next one at half of the last.
        For 32 x 32 x 3 images a latent of 128 and widths of (64, 144, 320) make a decoder of 3.2 million parameters.
    """

    shape: tuple[int, int, int]
    latent: int = 32
    widths: tuple[int, ...] = (32, 64)

    def setup(self) -> None:
        """Makes the two halves."""
        self.encoder = Encoder(self.latent, self.widths)
        self.decoder = Decoder(self.shape, self.widths)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Reconstructions of images in [0, 1]."""
        return self.decode(self.encode(x))

    def encode(self, x: Float[Array, "n h w c"]) -> Float[Array, "n d"]:
        """Latent codes of images in [0, 1].

        Raises:
          ValueError: Images of another shape than the autoencoder's.
        """
        layers.check_input(x, 1, "Autoencoder")
        if x.shape[1:] != tuple(self.shape):
            raise ValueError(f"this autoencoder is for images of the shape {tuple(self.shape)}, got {x.shape[1:]}")
        return self.encoder(x)

    def decode(self, z: Float[Array, "n d"]) -> Float[Array, "n h w c"]:
        """Images in [0, 1] of latent codes.

        Raises:
          ValueError: Codes of another size than the autoencoder's.
        """
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ValueError(f"this autoencoder has latent codes of size {self.latent}, got the shape {z.shape}")
        return self.decoder(z)


class Encoder(nn.Module):
    """From images to codes."""

    latent: int
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n d"]:
        """The codes of images."""
        for level, width in enumerate(self.widths):
            patches = to_patches(x, multiple=2 if level else 2 ** len(self.widths))
            size = 1 if level else 3
            x = Residual()(_conv(width, (size, size))(patches))
        return _dense(self.latent)(nn.silu(x).reshape(x.shape[0], -1))


class Decoder(nn.Module):
    """From codes to images."""

    shape: tuple[int, int, int]
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, z: Float[Array, "n d"]) -> Float[Array, "n h w c"]:
        """Images in (0, 1) of codes."""
        height, width, channels = self.shape
        shrink = 2 ** len(self.widths)
        rows, columns, last = -(-height // shrink), -(-width // shrink), self.widths[-1]
        x = Residual()(_dense(rows * columns * last)(z).reshape(-1, rows, columns, last))
        for finer in self.widths[-2::-1]:
            x = Residual()(from_patches(_conv(4 * finer, (1, 1))(x)))
        x = from_patches(_conv(4 * channels, (3, 3))(nn.silu(x)))
        return nn.sigmoid(x[:, :height, :width])


class Residual(nn.Module):
    """Adds two 3 x 3 convolutions, each after a SiLU; the identity when fresh."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """The block's output, shaped as ``x``."""
        out = _conv(x.shape[-1], (3, 3))(nn.silu(x))
        return x + _conv(x.shape[-1], (3, 3), kernel_init=nn.initializers.zeros_init())(nn.silu(out))


def encoder(model: Autoencoder, variables: Any) -> Callable[[Any], Any]:
    """``encode`` as a function of images alone; a pytree, so that ``jit`` compiles once for all variables."""
    return jax.tree_util.Partial(_Method(model, "encode"), variables)


def decoder(model: Autoencoder, variables: Any) -> Callable[[Any], Any]:
    """``decode`` as a function of codes alone; a pytree, as ``encoder``."""
    return jax.tree_util.Partial(_Method(model, "decode"), variables)


class _Method(NamedTuple):
    """A method of a module, equal to the same one of an equal module."""

    model: nn.Module
    name: str

    def __call__(self, variables: Any, x: Any) -> Any:
        return self.model.apply(variables, x, method=self.name)
