"""A small network to unlearn from, or to take the features of a head from, and its training by full-batch Adam."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from fmu_jax.data import Data
from fmu_jax.objective import Objective, value


class Mlp(nn.Module):
    """One hidden layer of tanh units; ``hidden`` are its features.

    Attributes:
      width: hidden units.
      dtype: of the parameters.
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


def train_adam(
    objective: Objective, model: nn.Module, rows: Data, key: Array, *, steps: int, learning_rate: float
) -> Any:
    """Parameters after some steps of Adam on the mean objective, from the initialisation that ``key`` draws."""
    params, optimizer = model.init(key, rows.x[:1]), optax.adam(learning_rate)
    n = jnp.sum(rows.weight)

    def step(carry, _):
        params, moments = carry
        grad = jax.grad(lambda p: value(objective, p, rows) / n)(params)
        updates, moments = optimizer.update(grad, moments)
        return (optax.apply_updates(params, updates), moments), None

    return jax.lax.scan(step, (params, optimizer.init(params)), length=steps)[0][0]
