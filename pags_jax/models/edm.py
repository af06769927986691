"""The U-Nets of EDM, published as denoisers: ``SongUNet`` (DDPM++ and NCSN++) and ``DhariwalUNet`` (ADM).

Sources: Karras, Aittala, Aila and Laine, *Elucidating the Design Space of Diffusion-Based Generative Models* (NeurIPS
2022); Song et al., *Score-Based Generative Modeling through Stochastic Differential Equations* (ICLR 2021); Dhariwal
and Nichol, *Diffusion Models Beat GANs on Image Synthesis* (NeurIPS 2021). Modules are named as in EDM's files. There
is no dropout: these networks are for use, and not for training.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pags_jax.models import edm_layers
from pags_jax.models.edm_layers import GroupNorm, UNetBlock, conv3
from pags_jax.models.layers import at_least_float32, dense


class EDMUNet(nn.Module):
    """What both networks share; ``DhariwalUNet`` says what the attributes are."""

    channels: int = 3
    classes: int = 0
    resolution: int = 32
    width: int = 128
    multipliers: tuple[int, ...] = (2, 2, 2)
    embedding: int = 4
    blocks: int = 4
    attention: tuple[int, ...] = (16,)
    augment: int = 0
    sigma_data: float = 0.5
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], c_noise: Any = 0.0, labels: Any = None, augment: Any = None
    ) -> Float[Array, "n h w c"]:
        """Denoises before preconditioning.

        Args:
          x: Scaled noisy images.
          c_noise: ``log(sigma) / 4``, ``(n,)`` or one for all.
          labels: ``(n,)`` or one for all, from 0 to ``classes - 1``; None: no class is told.
          augment: ``(n, augment)``; None: not augmented.

        Returns:
          Shaped as ``x``.

        Raises:
          ValueError: Images of another number of channels, or of a size that cannot be halved often enough.
        """
        times = 2 ** (len(self.multipliers) - 1)
        if x.shape[-1] != self.channels or x.shape[1] % times or x.shape[2] % times:
            raise ValueError(
                f"this network is for images of {self.channels} channels, height and width multiples of {times}, "
                f"got the shape {x.shape}"
            )
        noise = jnp.broadcast_to(jnp.asarray(c_noise, x.dtype), x.shape[:1])
        told = self._told(noise, labels, augment)
        hidden, skips = self._encode(x, told)
        return at_least_float32(self._decode(hidden, skips, told))

    def _told(self, noise: Array, labels: Any, augment: Any) -> Array:
        raise NotImplementedError

    def _block(self, width: int, attends: bool, **options: Any) -> UNetBlock:
        raise NotImplementedError

    def _head(self, hidden: Array) -> Array:
        raise NotImplementedError

    def _level(self, level: int) -> tuple[str, bool]:
        """How names at a level begin, and whether it attends."""
        size = self.resolution >> level
        return f"{size}x{size}", size in self.attention

    def _first_width(self) -> int:
        return self.width * self.multipliers[0]

    def _beside(self, level: int, aside: Array, hidden: Array) -> tuple[Array, Array]:
        """What goes along the images beside the blocks, and is added at each level."""
        del level
        return aside, hidden

    def _encode(self, x: Array, told: Array) -> tuple[Array, list[Array]]:
        aside, hidden, skips = x, x, []
        for level, multiplier in enumerate(self.multipliers):
            name, attends = self._level(level)
            if level == 0:
                hidden = conv3(self._first_width(), dtype=self.dtype, name=f"enc.{name}_conv")(x)
            else:
                down = self._block(hidden.shape[-1], False, down=True, name=f"enc.{name}_down")
                aside, hidden = self._beside(level, aside, down(hidden, told))
            skips.append(hidden)
            for i in range(self.blocks):
                hidden = self._block(self.width * multiplier, attends, name=f"enc.{name}_block{i}")(hidden, told)
                skips.append(hidden)
        return hidden, skips

    def _decode(self, hidden: Array, skips: list[Array], told: Array) -> Array:
        for level in reversed(range(len(self.multipliers))):
            name, attends = self._level(level)
            if level == len(self.multipliers) - 1:
                hidden = self._block(hidden.shape[-1], True, name=f"dec.{name}_in0")(hidden, told)
                hidden = self._block(hidden.shape[-1], False, name=f"dec.{name}_in1")(hidden, told)
            else:
                hidden = self._block(hidden.shape[-1], False, up=True, name=f"dec.{name}_up")(hidden, told)
            for i in range(self.blocks + 1):
                hidden = jnp.concatenate([hidden, skips.pop()], axis=-1)
                attends_here = attends and (self._attends_always() or i == self.blocks)
                width = self.width * self.multipliers[level]
                hidden = self._block(width, attends_here, name=f"dec.{name}_block{i}")(hidden, told)
        return self._head(hidden)

    def _attends_always(self) -> bool:
        return True

    def _augmented(self, told: Array, augment: Any) -> Array:
        if not self.augment:
            return told
        augment = jnp.zeros((told.shape[0], self.augment), told.dtype) if augment is None else augment
        return told + dense(told.shape[1], use_bias=False, name="map_augment")(augment)

    def _classes(self, noise: Array, labels: Any) -> Array:
        """One row for each image with a one where its class is, or without one."""
        if labels is None:
            return jnp.zeros((noise.shape[0], self.classes), noise.dtype)
        return jax.nn.one_hot(jnp.broadcast_to(jnp.asarray(labels), noise.shape), self.classes, dtype=noise.dtype)


class SongUNet(EDMUNet):
    """The network of DDPM++ and, with other options, of NCSN++.

    The one published for CIFAR-10 has 55,733,891 parameters. Attributes beside those of ``DhariwalUNet``:

    Attributes:
      noise_width: Width of the embedding of noise levels in units of ``width``: 2 for NCSN++.
      frequencies: Frequencies of that embedding: "positional", or "fourier", which are random, for NCSN++.
      encoder: "standard", or "residual" for NCSN++, which adds downsampled images at each level.
      taps: Taps of the filter that resamples: (1, 3, 3, 1) for NCSN++.
    """

    noise_width: int = 1
    frequencies: Literal["positional", "fourier"] = "positional"
    encoder: Literal["standard", "residual"] = "standard"
    taps: tuple[float, ...] = (1.0, 1.0)

    def _told(self, noise: Array, labels: Any, augment: Any) -> Array:
        width = self.width * self.noise_width
        if self.frequencies == "fourier":
            told = edm_layers.FourierEmbedding(width, name="map_noise")(noise)
        else:
            told = edm_layers.positional_embedding(noise, width, endpoint=True)
        told = jnp.roll(told, width // 2, axis=1)  # Sines first.
        if self.classes:
            rows = self._classes(noise, labels) * np.sqrt(self.classes).item()
            told = told + dense(width, name="map_label")(rows)
        told = self._augmented(told, augment)
        for name in ("map_layer0", "map_layer1"):
            told = nn.silu(dense(self.width * self.embedding, name=name)(told))
        return told

    def _block(self, width: int, attends: bool, **options: Any) -> UNetBlock:
        return UNetBlock(
            width, int(attends), taps=self.taps, scale=np.sqrt(0.5).item(), epsilon=1e-6, adaptive=False, project=True,
            dtype=self.dtype, **options,
        )  # fmt: skip

    def _first_width(self) -> int:
        return self.width

    def _attends_always(self) -> bool:
        return False

    def _beside(self, level: int, aside: Array, hidden: Array) -> tuple[Array, Array]:
        if self.encoder == "standard":
            return aside, hidden
        # As the original's "fused" resampling: the border of zeros is convolved before it is filtered.
        pad = 1 + (len(self.taps) - 1) // 2
        name = f"enc.{self._level(level)[0]}_aux_residual"
        aside = conv3(hidden.shape[-1], padding=pad, dtype=self.dtype, name=name)(aside)
        hidden = (hidden + edm_layers.downsample(aside, self.taps, padding=0)) / np.sqrt(2).item()
        return hidden, hidden

    def _head(self, hidden: Array) -> Array:
        name, _ = self._level(0)
        hidden = nn.silu(GroupNorm(1e-6, self.dtype, name=f"dec.{name}_aux_norm")(hidden))
        return conv3(self.channels, dtype=self.dtype, name=f"dec.{name}_aux_conv")(hidden)


class DhariwalUNet(EDMUNet):
    """The network of ADM. The one published for ImageNet at 64 x 64 has 295,899,267 parameters.

    Attributes:
      channels: Number of channels of the images.
      classes: Number of classes; 0: the network knows none.
      resolution: Resolution of the images that it was trained on, which says where attention is.
      width: The unit of widths.
      multipliers: Width of each level in these units, from the finest to the coarsest, each at half of the last one's
        resolution.
      embedding: Width of the embedding in the same units.
      blocks: Residual blocks at each level on the way down; on the way up it is one more.
      attention: Resolutions whose blocks attend.
      augment: Size of the description of augmentation that training gives; 0: none.
      sigma_data: Standard deviation of the pixels of the data, images in [-1, 1] (``scores.preconditioned``).
      dtype: What the layers compute in; by default that of images and parameters.
    """

    def _told(self, noise: Array, labels: Any, augment: Any) -> Array:
        told = edm_layers.positional_embedding(noise, self.width, endpoint=False)
        told, width = self._augmented(told, augment), self.width * self.embedding
        told = nn.silu(dense(width, name="map_layer0")(told))
        told = dense(width, name="map_layer1")(told)
        if self.classes:
            told = told + dense(width, use_bias=False, name="map_label")(self._classes(noise, labels))
        return nn.silu(told)

    def _block(self, width: int, attends: bool, **options: Any) -> UNetBlock:
        return UNetBlock(width, width // 64 if attends else 0, dtype=self.dtype, **options)

    def _head(self, hidden: Array) -> Array:
        hidden = nn.silu(GroupNorm(1e-5, self.dtype, name="out_norm")(hidden))
        return conv3(self.channels, dtype=self.dtype, name="out_conv")(hidden)
