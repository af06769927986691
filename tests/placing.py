"""Puts NumPy's arrays on the device without a program for each shape."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def put(array: Any) -> jax.Array:
    """``jnp.asarray``, which compiles a program for each shape of an array that it is not told the dtype of."""
    if isinstance(array, np.ndarray):
        return jnp.asarray(array.copy(), jax.dtypes.canonicalize_dtype(array.dtype))
    return jnp.asarray(array)


def drawn_like(init: Any, x: Any, seed: int = 0) -> Any:
    """Variables of the shapes that ``init(key, x)`` gives, which is not compiled: that takes longer than most tests.

    And where a module makes them as it is imported, every worker would compile it, whether or not it runs the tests.
    """
    rng, shapes = np.random.default_rng(seed), jax.eval_shape(init, jax.random.key(0), x)

    def draw(path, leaf):
        values = rng.normal(size=leaf.shape) / math.sqrt(math.prod(leaf.shape[:-1]))
        return put((1 + abs(values) if path[-1].key in ("scale", "var") else values).astype(leaf.dtype))

    return jax.tree_util.tree_map_with_path(draw, shapes)
