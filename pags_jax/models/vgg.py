"""VGG-11 with batch normalisation for small images (Simonyan and Zisserman 2015)."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from pags_jax.models.layers import (
    Activation,
    BatchNorm,
    activate,
    at_least_float32,
    check_input,
    conv,
    dense,
    max_pool,
    widened,
)


class VGG(nn.Module):
    """3 x 3 convolutions in stages, each ended by 2 x 2 maxima, and one dense layer.

    On 32 x 32 x 3 images VGG-11 has 9,231,114 parameters. Differs from the reference: P11 the last map is averaged, so
    that images may be larger than 32 x 32, the smallest for its five halvings.

    Attributes:
      classes: Number of classes.
      width: Multiplies the numbers of channels.
      stages: Channels of the convolutions of each stage.
      activation: Nonlinearity.
      beta: Beta of the softplus.
      dtype: Type to compute in; by default that of images and parameters.
    """

    classes: int
    width: float = 1.0
    stages: tuple[tuple[int, ...], ...] = ((64,), (128,), (256, 256), (512, 512), (512, 512))
    activation: Activation = "relu"
    beta: float = 20.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool = False) -> Float[Array, "n k"]:
        """Logits; ``train`` uses, and updates, the statistics of the batch."""
        check_input(x, 2 ** len(self.stages), f"VGG of {len(self.stages)} stages")
        for stage in self.stages:
            for channels in stage:
                x = conv(widened(channels, self.width), (3, 3), use_bias=True, dtype=self.dtype)(x)
                x = BatchNorm(use_running_average=not train, dtype=self.dtype)(x)
                x = activate(x, self.activation, self.beta)
            x = max_pool(x)
        return at_least_float32(dense(self.classes, dtype=self.dtype)(x.mean((1, 2))))
