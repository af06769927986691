"""How the learning rate changes while a classifier is trained; `training` says how its parts make the rate."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def milestones(epochs: int, steps_per_epoch: int) -> Int[Array, " 2"]:
    """The reference's milestones: after 75 % and 87.5 % of the epochs, rounded down.

    >>> milestones(200, 390).tolist()
    [58500, 68250]
    """
    return jnp.array([int(0.75 * epochs) * steps_per_epoch, int(0.875 * epochs) * steps_per_epoch], jnp.int32)


def schedule(hyper: Any, step: Any) -> Float[Array, ""]:
    """The factor of the learning rate at a step, counted from 0, in float32.

    Args:
      hyper: The ``training.Hyper``.
      step: Number of the step.

    >>> from pags_jax.training import Hyper
    >>> never = jnp.array([], jnp.int32)
    >>> [schedule(Hyper(0.0, 0.1, never, warm_up=2, total_steps=6), step).item() for step in (0, 1, 2, 4, 6)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    warm_up, total = (jnp.asarray(value, jnp.float32) for value in (hyper.warm_up, hyper.total_steps))
    passed = jnp.greater_equal(step, jnp.asarray(hyper.milestones, jnp.int32)).sum().astype(jnp.float32)
    step = jnp.asarray(step, jnp.float32)
    rise = jnp.minimum(1, (step + 1) / jnp.maximum(warm_up, 1))
    fall = jnp.clip(1 - (step - warm_up) / (total - warm_up), 0, 1)
    return 0.1**passed * rise * fall
