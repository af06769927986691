"""Residual networks whose blocks begin with normalisation: wide ones and PreActResNet (Zagoruyko and Komodakis 2016).

One module for four published ones, which differ where the attributes say: DeepMind's WideResNet and PreActResNet (Gowal
et al. 2020; Rebuffi et al. 2021; Wang et al. 2023), and those of TRADES and RobustBench.
"""

from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pags_jax.models.layers import BatchNorm, at_least_float32, conv, dense


class PreActivationResNet(nn.Module):
    """A residual network of stages, each but the first of which halves height and width.

    Attributes:
      classes: Number of classes.
      blocks: Blocks in each stage; (n, n, n) makes a WideResNet of 6 n + 4 layers.
      widths: Channels of each stage; (160, 320, 640) is a WideResNet ten times as wide as the first one.
      stem: Channels of the first convolution.
      activation: "silu" or "relu".
      padding: Padding of 3 x 3 convolutions of stride 2: "same" has zeros below and to the right, "symmetric" on all
        sides.
      shortcut: Kernel size of the convolution beside a block that changes the shape.
      shortcut_of: Whether it sees the block's input or that after normalisation and activation.
      final_norm: Normalisation and activation before the average.
      bias: Bias of the last layer.
      dtype: Type to compute in; by default that of images and parameters.
    """

    classes: int
    blocks: tuple[int, ...] = (4, 4, 4)
    widths: tuple[int, ...] = (160, 320, 640)
    stem: int = 16
    activation: Literal["silu", "relu"] = "silu"
    padding: Literal["same", "symmetric"] = "same"
    shortcut: int = 1
    shortcut_of: Literal["input", "activated"] = "activated"
    final_norm: bool = True
    bias: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool = False) -> Float[Array, "n k"]:
        """Logits; ``train`` uses, and updates, the statistics of the batch."""
        norm = partial(BatchNorm, use_running_average=not train, dtype=self.dtype)
        x = self._convolve(self.stem, 3, 1, "conv")(x)
        for stage, (count, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            for i in range(count):
                name, stride = f"stage{stage}_block{i}", 2 if stage and not i else 1
                out = self._activate(norm(name=f"{name}_norm0")(x))
                if x.shape[-1] != width or stride != 1:
                    shortcut_input = out if self.shortcut_of == "activated" else x
                    x = self._convolve(width, self.shortcut, stride, f"{name}_shortcut")(shortcut_input)
                out = self._convolve(width, 3, stride, f"{name}_conv0")(out)
                out = self._activate(norm(name=f"{name}_norm1")(out))
                x = x + self._convolve(width, 3, 1, f"{name}_conv1")(out)
        if self.final_norm:
            x = self._activate(norm(name="norm")(x))
        logits = dense(self.classes, use_bias=self.bias, dtype=self.dtype, name="dense")(x.mean((1, 2)))
        return at_least_float32(logits)

    def _activate(self, x: Array) -> Array:
        return nn.silu(x) if self.activation == "silu" else jax.nn.relu(x)

    def _convolve(self, width: int, size: int, stride: int, name: str) -> nn.Module:
        low = 0 if size > 1 and stride == 2 and self.padding == "same" else size // 2
        padding = ((low, size // 2),) * 2
        return conv(width, (size, size), strides=stride, padding=padding, dtype=self.dtype, name=name)


def wide_resnet(depth: int, factor: int, *, classes: int, **options: Any) -> PreActivationResNet:
    """The WideResNet of a depth and a factor of width, as in WRN-28-10.

    Args:
      depth: 6 n + 4.
      factor: Channels are 16, 32 and 64 times that.
      classes: Number of classes.
      **options: More attributes.

    Raises:
      ValueError: Another depth.

    >>> wide_resnet(28, 10, classes=10).widths
    (160, 320, 640)
    """
    count, rest = divmod(depth - 4, 6)
    if rest or count < 1:
        raise ValueError(f"a WideResNet has 6 n + 4 layers, n at least 1, got the depth {depth}")
    widths = (16 * factor, 32 * factor, 64 * factor)
    return PreActivationResNet(classes=classes, blocks=(count,) * 3, widths=widths, **options)


class Normalised(nn.Module):
    """A classifier of images in [0, 1] whose network takes them shifted and scaled, channel by channel.

    Attributes:
      network: The classifier of such images.
      mean, std: Mean and standard deviation of each channel, ``(network((x - mean) / std))``.
      clamp: Images are clipped to [0, 1] before, so that gradients vanish outside.
    """

    network: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    clamp: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool = False) -> Float[Array, "n k"]:
        """Logits.

        Raises:
          ValueError: Images of another number of channels.
        """
        if x.shape[-1] != len(self.mean):
            raise ValueError(f"this model is for images of {len(self.mean)} channels, got the shape {x.shape}")
        if self.clamp:  # A pixel at 0 or 1 still has its gradient, of which ``clip`` would take half.
            x = jnp.where((x >= 0) & (x <= 1), x, jax.lax.stop_gradient(jnp.clip(x, 0, 1)))
        mean, std = (jnp.asarray(values, x.dtype) for values in (self.mean, self.std))
        return self.network((x - mean[None, None, None]) / std[None, None, None], train=train)
