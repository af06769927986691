"""Sums over cells, a cell being the rows of one group with one label.

Everything a fairness penalty needs to know of ``n`` rows is a few cell sums, so that a penalty costs O(n) where
the pairwise definition costs O(n_a n_b).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmu_jax.data import Data, cell_counts
from fmu_jax.row_blocks import in_blocks


@jax.custom_jvp
def counts(data: Data) -> Float[Array, "groups 2"]:
    """Number of remaining rows by (group, label), ready for arithmetic with the features.

    Counted in integers; its derivative is that of the sum of weights, which for weights 0 and 1 is the same number.

    Args:
      data: ``n`` rows.

    Returns:
      ``(groups, 2)`` in the dtype of ``x``, indexed ``[group, label]``.
    """
    return cell_counts(data).astype(data.x.dtype)


@counts.defjvp
def _(primals, tangents):
    (data,), (moved,) = primals, tangents
    return counts(data), sums(jnp.ones_like(data.weight), data._replace(weight=moved.weight))


@jax.custom_jvp
def size(data: Data) -> Float[Array, ""]:
    """Number of remaining rows ``n_w``, in the dtype of ``x``; derivative as for ``counts``."""
    return jnp.sum(data.weight > 0, dtype=jnp.int32).astype(data.x.dtype)


@size.defjvp
def _(primals, tangents):
    (data,), (moved,) = primals, tangents
    return size(data), jnp.sum(moved.weight)


def members(data: Data) -> Float[Array, "n cells"]:
    """The weight of each row in the column of its cell, else 0; cells in the order (0, 0), (0, 1), (1, 0), ..."""
    return jax.nn.one_hot(2 * data.group + data.y, 2 * data.groups, dtype=data.x.dtype) * data.weight[:, None]


def sums(values: Float[Array, "n *k"], data: Data) -> Float[Array, "groups 2 *k"]:
    """Sum of ``weight * values`` over each cell.

    Args:
      values: A number ``(n,)`` or a vector ``(n, k)`` for each row.
      data: The rows.

    Returns:
      ``(groups, 2)`` or ``(groups, 2, k)``, indexed ``[group, label]``.
    """
    if values.ndim > 1:
        total = in_blocks(
            lambda values, data: members(data).T @ values,
            lambda found: jnp.concatenate(found).sum(axis=0),
            values,
            data._replace(x=data.weight),  # It gives the dtype alone.
        )
        return total.reshape(data.groups, 2, *values.shape[1:])
    cell, nothing = 2 * data.group + data.y, jnp.zeros((), data.weight.dtype)
    # Numbers cell by cell: three to four times faster on a CPU than with `members`, which would be in memory.
    total = [jnp.dot(jnp.where(cell == k, data.weight, nothing), values) for k in range(2 * data.groups)]
    return jnp.stack(total).reshape(data.groups, 2)


def spread(table: Float[Array, "groups 2"], data: Data) -> Float[Array, " n"]:
    """Gives each row its cell's entry of ``table``."""
    return table[data.group, data.y]
