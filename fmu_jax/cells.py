"""Sums over cells, a cell being the rows of one group with one label.

Everything a fairness penalty needs to know of ``n`` rows is a few cell sums, so that a penalty costs O(n) where
the pairwise definition costs O(n_a n_b).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmu_jax.data import Data, cell_counts


def counts(data: Data) -> Float[Array, "2 2"]:
    """Number of remaining rows by (group, label), ready for arithmetic with the features.

    Args:
      data: ``n`` rows.

    Returns:
      ``(2, 2)`` in the dtype of ``x``, indexed ``[group, label]``.
    """
    return cell_counts(data).astype(data.x.dtype)


def size(data: Data) -> Float[Array, ""]:
    """Number of remaining rows ``n_w``, in the dtype of ``x``."""
    return jnp.sum(data.weight > 0, dtype=jnp.int32).astype(data.x.dtype)


def sums(values: Float[Array, "n *k"], data: Data) -> Float[Array, "2 2 *k"]:
    """Sum of ``weight * values`` over each cell.

    Args:
      values: a number ``(n,)`` or a vector ``(n, k)`` for each row.
      data: the rows.

    Returns:
      ``(2, 2)`` or ``(2, 2, k)``, indexed ``[group, label]``.
    """
    member = jax.nn.one_hot(2 * data.group + data.y, 4, dtype=data.x.dtype) * data.weight[:, None]
    return (member.T @ values).reshape(2, 2, *values.shape[1:])


def spread(table: Float[Array, "2 2"], data: Data) -> Float[Array, " n"]:
    """Gives each row its cell's entry of ``table``."""
    return table[data.group, data.y]
