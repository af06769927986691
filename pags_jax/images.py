"""What images and labels must be, checked before anything is traced."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def is_traced(*trees) -> bool:
    """Whether any leaf is being traced (inside ``jit``, ``vmap`` or ``grad``), so that no value can be looked at."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


def to_float(x: Any, dtype=jnp.float32) -> jax.Array:
    """Images from uint8 in 0..255 to floats in [0, 1].

    >>> to_float(np.array([[0, 255]], np.uint8))
    Array([[0., 1.]], dtype=float32)
    """
    return jnp.asarray(x).astype(dtype) / 255


def check_images(x: Any) -> None:
    """Raises ValueError unless ``x`` holds floats, the first axis counting examples."""
    if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        raise ValueError(f"images must be floats in [0, 1], got {jnp.result_type(x)}; see images.to_float")
    if jnp.ndim(x) < 2:
        raise ValueError(f"images must have an axis for examples and more, got the shape {jnp.shape(x)}")
    if not is_traced(x) and not bool(jnp.all(jnp.isfinite(x))):
        raise ValueError("images hold NaN or infinite values")


def check_labels(y: Any, x: Any) -> None:
    """Raises ValueError unless ``y`` holds one class number >= 0 for each image."""
    if not jnp.issubdtype(jnp.result_type(y), jnp.integer):
        raise ValueError(f"labels must be integers, got {jnp.result_type(y)}")
    if jnp.shape(y) != jnp.shape(x)[:1]:
        raise ValueError(f"expected {jnp.shape(x)[0]} labels, one for each image, got the shape {jnp.shape(y)}")
    if not is_traced(y) and np.min(y, initial=0) < 0:
        raise ValueError(f"labels must be at least 0, got {np.min(y)}")
