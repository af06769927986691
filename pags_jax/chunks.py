"""Work on the rows of arrays all at once, or in chunks that bound memory; and what counts must be."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array


def map_chunks(function: Callable, arrays: tuple[Array, ...], chunk_size: int | None) -> Array:
    """``function`` of each row of the arrays, for all rows at once (None) or for ``chunk_size`` at a time.

    Raises:
      ValueError: a ``chunk_size`` that is no whole number of at least 1.
    """
    if chunk_size is not None:
        check_counts(chunk_size=chunk_size)
    return jax.lax.map(lambda row: function(*row), arrays, batch_size=chunk_size or 0)


def check_counts(most: int | None = None, **counts: Any) -> None:
    """Raises ValueError, with the name and the value, unless every count is a whole number from 1 to ``most``."""
    for name, count in counts.items():
        if not isinstance(count, int | np.integer) or count < 1 or (most is not None and count > most):
            allowed = "of at least 1" if most is None else f"from 1 to {most}"
            raise ValueError(f"`{name}` must be a whole number {allowed}, got {count}")
