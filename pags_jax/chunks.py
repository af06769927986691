"""Work on the rows of arrays all at once, or in chunks that bound memory; and the checks of counts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def map_chunks(
    function: Callable, arrays: tuple[Array, ...], chunk_size: int | None, together: Callable | None = None
) -> Array:
    """``function`` of each row of the arrays, under ``vmap`` for all rows at once (None) or ``chunk_size`` at a time.

    A function that cannot be mapped, as a ``jax.pure_callback`` without ``vmap_method`` cannot, is called with one row
    after the other; or, where given, ``together`` is called with the rows of a chunk.

    Raises:
      ValueError: A ``chunk_size`` that is no whole number of at least 1.
    """
    if chunk_size is not None:
        check_counts(chunk_size=chunk_size)
    try:
        return jax.lax.map(lambda row: function(*row), arrays, batch_size=chunk_size or 0)
    except NotImplementedError:
        if together is None:
            return jax.lax.map(lambda row: function(*row), arrays)
        return map_batches(together, arrays, chunk_size)


def map_batches(function: Callable, arrays: tuple[Array, ...], chunk_size: int | None) -> Array:
    """``function`` of all rows of the arrays (None), or of ``chunk_size`` of them at a time, put together again.

    Raises:
      ValueError: A ``chunk_size`` that is no whole number of at least 1.
    """
    if chunk_size is not None:
        check_counts(chunk_size=chunk_size)
    rows = len(arrays[0])
    if chunk_size is None or chunk_size >= rows:
        return function(*arrays)
    whole = rows // chunk_size * chunk_size
    chunks = tuple(a[:whole].reshape(-1, chunk_size, *a.shape[1:]) for a in arrays)
    done = jax.lax.map(lambda chunk: function(*chunk), chunks)
    done = done.reshape(whole, *done.shape[2:])
    return done if whole == rows else jnp.concatenate([done, function(*(a[whole:] for a in arrays))])


def check_counts(most: int | None = None, **counts: Any) -> None:
    """Raises ValueError, with the name and the value, unless every count is a whole number from 1 to ``most``."""
    for name, count in counts.items():
        whole = isinstance(count, int | np.integer) and not isinstance(count, bool)
        if not whole or count < 1 or (most is not None and count > most):
            allowed = "of at least 1" if most is None else f"from 1 to {most}"
            raise ValueError(f"`{name}` must be a whole number {allowed}, got {count}")
