"""The networks whose features and whose unlearning the experiments look at."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp


class Mlp(nn.Module):
    """One hidden layer of tanh units; ``hidden`` are its features.

    Attributes:
        width: Hidden units.
        dtype: Of the parameters.
    """

    width: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Make the two layers."""
        self.first = nn.Dense(self.width, param_dtype=self.dtype)
        self.last = nn.Dense(1, param_dtype=self.dtype)

    def hidden(self, x: Any) -> Any:
        """Units in [-1, 1], ``(n, width)``."""
        return jnp.tanh(self.first(x))

    def __call__(self, x: Any) -> Any:
        """Log-odds of label 1, ``(n,)``."""
        return self.last(self.hidden(x))[..., 0]


class LeNet(nn.Module):
    """Two convolutions and one hidden layer, on 14 x 14 grey images as rows of 196 pixels.

    Attributes:
        width: Hidden units.
    """

    width: int

    def setup(self) -> None:
        """Make the layers."""
        self.convolutions = [nn.Conv(channels, (3, 3), strides=2) for channels in (4, 8)]
        self.first, self.last = nn.Dense(self.width), nn.Dense(1)

    def hidden(self, x: Any) -> Any:
        """Units in [-1, 1], ``(n, width)``."""
        x = x[:, :196].reshape(len(x), 14, 14, 1)
        for convolution in self.convolutions:
            x = nn.relu(convolution(x))
        return jnp.tanh(self.first(x.reshape(len(x), -1)))

    def __call__(self, x: Any) -> Any:
        """Log-odds of label 1, ``(n,)``."""
        return self.last(self.hidden(x))[..., 0]
