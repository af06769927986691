"""A function of each of many elements, in batches that share one compiled body."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def map_in_batches(function: Callable[[Any], Any], elements: Any, *, batch_size: int) -> Any:
    """``jax.lax.map`` in batches of equal size, the last of which is filled up with the last element.

    ``jax.lax.map`` traces and compiles ``function`` a second time for the elements that whole batches leave over, which
    costs more than to compute a few elements twice.

    Args:
      function: Of one element, as for ``jax.vmap``.
      elements: Arrays with one leading axis, of at least one element.
      batch_size: Elements that are computed at once, at most.

    Returns:
      What ``function`` returns, with the leading axis in front.

    >>> map_in_batches(lambda x: 2 * x, jnp.arange(5), batch_size=3)
    Array([0, 2, 4, 6, 8], dtype=int64)
    """
    count = jax.tree.leaves(elements)[0].shape[0]
    batches = -(-count // batch_size)
    size = -(-count // batches)
    if batches * size > count:
        filled = jnp.minimum(jnp.arange(batches * size, dtype=jnp.int32), count - 1)
        elements = jax.tree.map(lambda leaf: leaf[filled], elements)
    found = jax.lax.map(function, elements, batch_size=size)
    return jax.tree.map(lambda leaf: leaf[:count], found)
