"""Residual networks (He et al. 2016): 14, 18, 34 and 50 layers, for small and for large images.

The one of 14 layers has three stages of two blocks, as He et al. build networks for CIFAR-10 (section 4.2, n = 2).
With patches as its stem and twice their width it costs half of what ResNet-18 at a quarter of its width does.

Differs from the reference: P11 the last map is averaged whole; there a window of 4 x 4, which leaves out rows of other
images than 32 x 32. P12 every nonlinearity is the chosen one; there a bottleneck ends in a ReLU.
"""

from typing import Any, Literal

import flax.linen as nn
from jaxtyping import Array, Float

from pags_jax.models.layers import Activation, BatchNorm, activate, at_least_float32, check_input, conv, dense, widened
from pags_jax.models.patches import to_patches


class Block(nn.Module):
    """A residual block: two 3 x 3 convolutions, or a bottleneck of 1 x 1, 3 x 3 and 1 x 1."""

    width: int
    stride: int
    bottleneck: bool
    inner: float
    activation: str
    beta: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """The block's output."""

        def convolved(x, width, size, stride=1):
            x = conv(width, (size, size), strides=stride, padding=size // 2, dtype=self.dtype)(x)
            return BatchNorm(use_running_average=not train, dtype=self.dtype)(x)

        if self.bottleneck:
            inner = widened(self.width, self.inner)
            shape = ((inner, 1, 1), (inner, 3, self.stride), (4 * self.width, 1, 1))
        else:
            shape = ((self.width, 3, self.stride), (self.width, 3, 1))
        out = x
        for layer, (width, size, stride) in enumerate(shape):
            out = activate(out, self.activation, self.beta) if layer else out
            out = convolved(out, width, size, stride)
        if self.stride != 1 or x.shape[-1] != out.shape[-1]:  # Not whether maps shrink: those of one pixel do not.
            x = convolved(x, out.shape[-1], 1, self.stride)
        return activate(x + out, self.activation, self.beta)


class ResNet(nn.Module):
    """A residual network whose stages are 64, 128, 256, ... wide.

    ResNet-18 for CIFAR-10 (stem 3) has 11,173,962 parameters.

    Attributes:
      classes: Number of classes.
      blocks: Blocks in each stage.
      width: Multiplies the numbers of channels.
      bottleneck: Which kind of block.
      inner: Multiplies the channels within bottlenecks: 2 for Wide ResNet-50-2 (Zagoruyko and Komodakis 2016).
      stages: Channels of each stage, for others than 64 times ``width``, doubled at each.
      stem: 2 for patches of 2 x 2 pixels, 3 for one 3 x 3 convolution (CIFAR), 7 for a 7 x 7 one and 3 x 3 maxima,
        stride 2 each (ImageNet).
      activation: Nonlinearity.
      beta: Beta of the softplus.
      dtype: Type to compute in, such as ``bfloat16``; by default that of images and parameters.
    """

    classes: int
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    width: float = 1.0
    bottleneck: bool = False
    inner: float = 1.0
    stages: tuple[int, ...] | None = None
    stem: Literal[2, 3, 7] = 3
    activation: Activation = "relu"
    beta: float = 20.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool = False) -> Float[Array, "n k"]:
        """Logits; ``train`` uses, and updates, the statistics of the batch."""
        check_input(x, 1, "ResNet")
        first = widened(64, self.width)
        if self.stem == 2:  # As a product: strided convolutions have slow gradients on CPUs.
            x = conv(first, (1, 1), dtype=self.dtype)(to_patches(x))
        else:
            size, strides = (self.stem, self.stem), 1 if self.stem == 3 else 2
            x = conv(first, size, strides=strides, padding=self.stem // 2, dtype=self.dtype)(x)
        x = BatchNorm(use_running_average=not train, dtype=self.dtype)(x)
        x = activate(x, self.activation, self.beta)
        if self.stem == 7:
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))  # pyright: ignore[reportArgumentType]
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                width = self.stages[stage] if self.stages else first * 2**stage
                x = Block(width, stride, self.bottleneck, self.inner, self.activation, self.beta, self.dtype)(
                    x, train=train
                )
        return at_least_float32(dense(self.classes, dtype=self.dtype)(x.mean((1, 2))))
