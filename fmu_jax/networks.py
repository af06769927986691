"""A small network to unlearn from, or to take the features of a head from, and its training by full-batch Adam."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from fmu_jax.data import Data
from fmu_jax.fitting import fit
from fmu_jax.objective import Objective
from fmu_jax.removal.first_order import finetune


class Mlp(nn.Module):
    """One hidden layer of tanh units; ``hidden`` are its features.

    Attributes:
      width: Hidden units.
      dtype: Dtype of the parameters.
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


def train_adam(
    objective: Objective, model: nn.Module, rows: Data, key: Array, *, steps: int, learning_rate: float
) -> Any:
    """Parameters after some steps of Adam on the mean objective, from the initialisation that ``key`` draws.

    Args:
      objective: Its ``predict`` takes what ``model`` has.
      model: A flax linen network.
      rows: Rows to train on.
      key: PRNG key.
      steps: Number of steps, each on all rows.
      learning_rate: Adam's.

    Returns:
      The model's variables.
    """
    start = model.init(key, rows.x[:1])
    return finetune(objective, start, rows, rows, steps=steps, learning_rate=learning_rate).params


def frozen_features(model: Mlp, data: Data, *, l2: float, init: Any) -> Any:
    """Parameters of an extractor trained plainly, by L-BFGS, on rows that nobody asks to remove.

    Args:
      model: The network, whose last layer is the head.
      data: Those rows.
      l2: Ridge.
      init: Its variables at the start.
    """
    plain = Objective(l2=l2, predict=model.apply)
    return fit(plain, data, init=init, max_steps=300, throw=False).params


def private_features(model: Mlp, data: Data, *, init: Any, key: Array, epsilon: float, delta: float, steps: int) -> Any:
    """An extractor trained by DP-SGD on the head's own rows, with the price of one of them (extra ``private``).

    Args:
      model: The network, whose last layer is the head.
      data: The rows.
      init: Its variables at the start.
      key: PRNG key, secret.
      epsilon: Epsilon of the training, > 0.
      delta: Failure probability of the training, in (0, 1).
      steps: Number of steps of DP-SGD.

    Returns:
      What ``private_training.train_private`` does: ``params``, ``epsilon`` and ``delta``.
    """
    from fmu_jax.private_training import train_private  # Here, since it needs the extra.

    def loss(params, row):
        score = jnp.asarray(model.apply(params, row[0]))
        return jax.nn.softplus(score) - row[1] * score

    rows = (data.x, data.y.astype(data.x.dtype))
    return train_private(loss, init, rows, key=key, epsilon=epsilon, delta=delta, steps=steps)
