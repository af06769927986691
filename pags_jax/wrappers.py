"""Models of other makes as this package takes them: ``apply_fn(x) -> logits (n, classes)`` of images in [0, 1].

Both are pytrees where the model is one (``jax.tree_util.Partial(model.apply, variables)``), so that ``jit`` takes them
as arguments.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pags_jax.images import is_traced


def two_classes(apply_fn: Callable[[Any], Any]) -> jax.tree_util.Partial:
    """A model with one logit, of which the sigmoid is the probability of class 1, as one of two classes.

    Its logits become ``(0, f)``, so that ``softmax`` is ``(1 - sigmoid(f), sigmoid(f))``.

    Args:
      apply_fn: maps images to logits ``(n, 1)`` or ``(n,)``, before the sigmoid.

    Returns:
      A model with logits ``(n, 2)``.

    Raises:
      ValueError: when called, a model with more than one logit for each image.

    >>> apply_fn = two_classes(lambda x: x.sum(1) - 1)
    >>> apply_fn(jnp.array([[0.25, 0.25], [1.0, 1.0]])).tolist()
    [[0.0, -0.5], [0.0, 1.0]]
    """
    return jax.tree_util.Partial(_two_classes, apply_fn)


def normalized(
    apply_fn: Callable[[Any], Any], *, mean: Sequence[float] | Any, std: Sequence[float] | Any
) -> jax.tree_util.Partial:
    """A model of images that were standardised by channel, as a model of images in [0, 1].

    Radii, steps, bounds and gradients are then in the units of pixels, as published ones are.

    Args:
      apply_fn: maps ``(x - mean) / std`` to logits.
      mean: of each channel (the last axis of the images), or one number.
      std: likewise, above 0.

    Returns:
      A model of ``x``.

    Raises:
      ValueError: a standard deviation that is not above 0, or numbers that are not finite; when called, not as many
        as the images have channels.

    >>> apply_fn = normalized(lambda x: x, mean=[0.5, 0.25], std=[0.5, 0.25])
    >>> apply_fn(jnp.array([[1.0, 0.0]])).tolist()
    [[1.0, -1.0]]
    """
    for name, values, lowest in (("mean", mean, -np.inf), ("std", std, 0)):
        if np.ndim(values) > 1:
            raise ValueError(f"`{name}` must be one number or one for each channel, got the shape {np.shape(values)}")
        if not is_traced(values) and not np.all(np.isfinite(values) & (np.asarray(values) > lowest)):
            raise ValueError(f"`{name}` must be finite{' and above 0' if name == 'std' else ''}, got {values}")
    return jax.tree_util.Partial(_normalized, apply_fn, jnp.asarray(mean), jnp.asarray(std))


def _two_classes(apply_fn, x):
    logits = jnp.asarray(apply_fn(x))
    if logits.shape not in ((x.shape[0],), (x.shape[0], 1)):
        raise ValueError(f"expected one logit for each of {x.shape[0]} images, got the shape {logits.shape}")
    logit = logits.reshape(-1)
    return jnp.stack([jnp.zeros_like(logit), logit], axis=1)


def _normalized(apply_fn, mean, std, x):
    x = jnp.asarray(x)
    for name, values in (("mean", mean), ("std", std)):
        if values.shape not in ((), x.shape[-1:]):
            raise ValueError(f"`{name}` has {values.size} numbers for images of {x.shape[-1]} channels")
    mean, std = (jnp.broadcast_to(values.astype(x.dtype), x.shape[-1:]) for values in (mean, std))
    return apply_fn((x - _rows(mean, x)) / _rows(std, x))


def _rows(values, x):
    return values.reshape((1,) * (x.ndim - 1) + values.shape)
