"""A small network to unlearn from, or to take the features of a head from, and its training by full-batch Adam."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from fmu_jax.data import Data
from fmu_jax.fitting import fit
from fmu_jax.heads import as_rows
from fmu_jax.objective import Objective
from fmu_jax.removal.first_order import finetune
from fmu_jax.showing import one_line


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
    return continue_adam(objective, model.init(key, rows.x[:1]), rows, steps=steps, learning_rate=learning_rate)


def continue_adam(objective: Objective, params: Any, rows: Data, *, steps: int, learning_rate: float) -> Any:
    """Parameters after more steps of Adam on the mean objective, without noise; as they are if there are no steps.

    Args:
      objective: Its ``predict`` takes ``params``.
      params: A pytree of parameters at which the first step starts.
      rows: Rows to train on; those of weight zero play no part.
      steps: Number of steps, each on all rows.
      learning_rate: Adam's.
    """
    if not steps:
        return params
    return finetune(objective, params, rows, rows, steps=steps, learning_rate=learning_rate).params


def continue_side_by_side(
    objective: Objective, models: Sequence[Any], rows: Data, *, checkpoints: Sequence[int], learning_rate: float
) -> Iterator[tuple[int, list[Any]]]:
    """Trains several networks of one structure by the same steps of Adam, and yields all at each checkpoint.

    Args:
      objective: As for ``continue_adam``, as ``rows`` and ``learning_rate``.
      models: Parameters of each network.
      rows: Rows to train on.
      checkpoints: Numbers of steps since the start, ascending. Adam starts anew at each of them.
      learning_rate: Adam's.

    Yields:
      The number of steps, and the parameters of each network after it.

    Raises:
      ValueError: Checkpoints that do not ascend.
    """
    if list(checkpoints) != sorted(checkpoints):
        raise ValueError(f"`checkpoints` must ascend, got {list(checkpoints)}")
    stacked, done = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models), 0
    for steps in checkpoints:
        options = {"steps": steps - done, "learning_rate": learning_rate}
        stacked = jax.vmap(lambda params, options=options: continue_adam(objective, params, rows, **options))(stacked)
        done = steps
        yield steps, [jax.tree.map(lambda leaf, k=k: leaf[k], stacked) for k in range(len(models))]


def hidden_rows(model: Any, params: Any, data: Data, *, dtype: Any = None) -> Data:
    """The rows with a network's hidden units as features, on which a certified head can be trained; see ``heads``.

    Each row is scaled by itself within the ball that holds all rows of units in [-1, 1], ``radius = sqrt(width)``.

    Args:
      model: A network of this module, or another that has ``width`` and a method ``hidden``.
      params: Its variables.
      data: ``n`` rows that the network takes.
      dtype: Dtype of the head; by default that of the units.

    Returns:
      ``Data`` of ``(n, width + 1)`` features, the last of them 1; labels, groups and weights are those of ``data``.
    """
    hidden = jnp.asarray(model.apply(params, data.x, method="hidden"), dtype)
    rows = as_rows(hidden, radius=model.width**0.5)
    return data._replace(x=rows, weight=data.weight.astype(rows.dtype))


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


class HeadRows(NamedTuple):
    """What a head is trained and measured on, and what its features cost.

    Attributes:
      train, test: Rows on the features.
      price: (epsilon, delta) of the features for one row of ``train``; see ``heads.with_features``.
    """

    train: Data
    test: Data
    price: tuple[float, float]

    __repr__ = one_line()


def head_rows(
    kind: str, public: Data, own: Data, test: Data, *, width: int, l2: float,
    epsilon: float, delta: float, steps: int, key: Array,
) -> HeadRows:  # fmt: skip
    """Rows for a certified head, on features that no row to be removed has a part in, or at the price of one that has.

    Args:
      kind: "raw" takes the columns as they are; "frozen" the hidden units of an ``Mlp`` that ``frozen_features`` trains
        on the public rows; "private" those of one that ``private_features`` trains on the head's own rows.
      public: Rows that nobody asks to remove.
      own: Rows to train the head on.
      test: Rows to measure it on.
      width: Number of hidden units.
      l2: Ridge of the frozen extractor.
      epsilon: Epsilon of the private extractor, as ``delta`` and ``steps``.
      delta: Its failure probability.
      steps: Its number of steps of DP-SGD.
      key: PRNG key of the initialisation and of the private noise.

    Returns:
      The ``HeadRows``; the price is zero but for "private".

    Raises:
      ValueError: Another kind.
    """
    if kind == "raw":
        return HeadRows(own, test, (0.0, 0.0))
    model, price = Mlp(width, own.x.dtype), (0.0, 0.0)
    for_init, for_noise = jax.random.split(key)
    params = model.init(for_init, own.x[:1])
    if kind == "frozen":
        params = frozen_features(model, public, l2=l2, init=params)
    elif kind == "private":
        found = private_features(model, own, init=params, key=for_noise, epsilon=epsilon, delta=delta, steps=steps)
        params, price = found.params, (float(found.epsilon), float(found.delta))
    else:
        raise ValueError(f"unknown features {kind!r}; known: raw, frozen, private")
    return HeadRows(hidden_rows(model, params, own), hidden_rows(model, params, test), price)
