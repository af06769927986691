"""The network whose features and whose unlearning the experiments look at."""

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
