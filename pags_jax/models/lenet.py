"""The small convolutional network of PyTorch's MNIST example, which the reference calls LeNet.

Differs from the reference: P10 no dropout, and logits instead of log-probabilities.
"""

from functools import partial
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from pags_jax.models.layers import Activation, activate, at_least_float32, check_input, conv, dense, max_pool, widened


class LeNet(nn.Module):
    """Two 3 x 3 convolutions of 32 and 64 channels, 2 x 2 maxima, a layer of 128: 1,199,882 parameters on 28 x 28 x 1.

    Images have at least 6 x 6 pixels.

    Attributes:
      classes: Number of classes.
      width: Multiplies the numbers of channels.
      activation: Nonlinearity.
      beta: Beta of the softplus.
      dtype: Type to compute in; by default that of images and parameters.
    """

    classes: int
    width: float = 1.0
    activation: Activation = "relu"
    beta: float = 20.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool = False) -> Float[Array, "n k"]:
        """Logits; training and evaluation are the same."""
        del train
        check_input(x, 6, "LeNet")
        convolve = partial(conv, kernel_size=(3, 3), padding="VALID", use_bias=True, dtype=self.dtype)
        x = activate(convolve(widened(32, self.width))(x), self.activation, self.beta)
        # Nonlinearities that rise commute with maxima, of which there are fewer.
        x = activate(max_pool(convolve(widened(64, self.width))(x)), self.activation, self.beta)
        x = x.reshape(x.shape[0], -1)
        x = activate(dense(widened(128, self.width), dtype=self.dtype)(x), self.activation, self.beta)
        return at_least_float32(dense(self.classes, dtype=self.dtype)(x))
