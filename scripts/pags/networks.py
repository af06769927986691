"""The network that is compared with the Bayes-optimal model."""

import flax.linen as nn
import jax


class Network(nn.Module):
    """A smooth network of two hidden layers."""

    width: int
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of images."""
        x = x.reshape(x.shape[0], -1) - 0.5
        for _ in range(2):
            x = nn.silu(nn.Dense(self.width)(x))
        return nn.Dense(self.classes)(x)
