"""Training rows with labels, groups and 0/1 weights."""

from typing import NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class Data(NamedTuple):
    """Rows of a data set; a removed row keeps its place and has weight zero.

    Static shapes are the point: whatever is forgotten, nothing recompiles.

    Attributes:
      x: features, ``(n, d)``, floating. For the linear model the last column is the constant 1.
      y: labels, ``(n,)`` int32, 0 or 1.
      group: group codes, ``(n,)`` int32, 0 or 1.
      weight: ``(n,)``, dtype of ``x``; 1 for a row that counts, 0 for one that was removed.
    """

    x: Float[Array, "n *features"]
    y: Int[Array, " n"]
    group: Int[Array, " n"]
    weight: Float[Array, " n"]


class DataSummary(NamedTuple):
    """What the eager checks need to know about a ``Data``, in one device pass.

    Attributes:
      counts: rows of weight one by (group, label), ``(2, 2)`` int32.
      finite: no feature is NaN or infinite.
      bad_labels, bad_groups, bad_weights: numbers of offending entries, int32 scalars.
    """

    counts: Int[Array, "2 2"]
    finite: Bool[Array, ""]
    bad_labels: Int[Array, ""]
    bad_groups: Int[Array, ""]
    bad_weights: Int[Array, ""]


def make_data(x, y, group, weight=None) -> Data:
    """Builds a checked ``Data`` from anything array-like.

    Args:
      x: ``(n, d)`` finite features. Integers become the default float; a float keeps its dtype
        (as far as ``jax_enable_x64`` allows).
      y: ``(n,)`` labels in {0, 1} (bool, int or float).
      group: ``(n,)`` group codes in {0, 1}.
      weight: ``(n,)`` zeros and ones; None means all ones.

    Returns:
      The ``Data``; ``x`` stays on the device that it is on.

    Raises:
      ValueError: shapes differ, a feature is NaN or infinite, or a label, group or weight is neither 0 nor 1.

    >>> data = make_data([[0.5, 1.0], [0.1, 1.0], [0.2, 1.0], [0.9, 1.0]], y=[0, 1, 0, 1], group=[0, 0, 1, 1])
    >>> data.x.shape, float(data.weight.sum())
    ((4, 2), 4.0)
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(jnp.result_type(float))
    codes = {}
    for name, values in (("y", y), ("group", group)):
        values = np.asarray(values)
        numeric = values.dtype.kind in "biuf" and np.all(np.isfinite(values))
        codes[name] = values.astype(np.int32) if numeric else np.zeros(0, np.int32)
        if not np.array_equal(codes[name], values):
            seen = np.unique(values)[:5].tolist()
            raise ValueError(f"`{name}` must hold only 0 and 1, got values such as {seen}; recode it first")
    weight = jnp.ones(x.shape[:1], x.dtype) if weight is None else jnp.asarray(weight).astype(x.dtype)
    data = Data(x, jnp.asarray(codes["y"]), jnp.asarray(codes["group"]), weight)
    check_data(data)
    return data


def is_traced(*trees) -> bool:
    """Whether any leaf is being traced (inside ``jit``, ``vmap`` or ``grad``), so that no value can be looked at."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def cell_counts(data: Data) -> Int[Array, "2 2"]:
    """Number of remaining rows by (group, label), in integers, so exact at any ``n``."""
    kept = data.weight > 0
    return jnp.array(
        [[jnp.sum(kept & (data.group == g) & (data.y == y), dtype=jnp.int32) for y in (0, 1)] for g in (0, 1)]
    )


@jax.jit
def summarise(data: Data) -> DataSummary:
    """Counts rows per (group, label) and offending entries in one pass."""

    def count(bad):
        return jnp.sum(bad, dtype=jnp.int32)

    return DataSummary(
        counts=cell_counts(data),
        finite=jnp.all(jnp.isfinite(data.x)),
        bad_labels=count((data.y != 0) & (data.y != 1)),
        bad_groups=count((data.group != 0) & (data.group != 1)),
        bad_weights=count((data.weight != 0) & (data.weight != 1)),
    )


def check_data(data: Data, *, what: str = "the data") -> None:
    """Raises unless the rows can be trained on; does nothing under tracing, where no value can be seen.

    Args:
      data: the rows to check.
      what: what to call them in the message.

    Raises:
      ValueError: shapes or dtypes differ from those of ``Data``; a feature is NaN or infinite; a label, group or
        weight is neither 0 nor 1; a group is empty or only one label is left among rows of weight one.
    """
    check_values(data, what=what)
    if not is_traced(data):
        check_cells(np.asarray(cell_counts(data)), what=what)


def check_values(data: Data, *, what: str = "the data") -> None:
    """As ``check_data``, for rows that need not be of every group and label."""
    check_shapes(data)
    if is_traced(data):
        return
    summary = jax.device_get(summarise(data))
    bad_features = 0 if summary.finite else int(jnp.sum(~jnp.isfinite(data.x), dtype=jnp.int32))
    for count, name, fix in (
        (bad_features, "features are NaN or infinite", "impute or drop them (removed rows count too)"),
        (summary.bad_labels, "labels are neither 0 nor 1", "recode `y` to 0 and 1"),
        (summary.bad_groups, "group codes are neither 0 nor 1", "recode `group` to 0 and 1"),
        (summary.bad_weights, "weights are neither 0 nor 1", "a row is kept (1) or removed (0)"),
    ):
        if count:
            raise ValueError(f"{count} {name} in {what}; {fix}")


def check_shapes(data: Data) -> None:
    """Raises ValueError unless ``x`` is floating and the four fields agree in length and dtype."""
    n = data.x.shape[0] if data.x.ndim else 0
    for name in ("y", "group", "weight"):
        shape = getattr(data, name).shape
        if shape != (n,):
            raise ValueError(f"`{name}` must have shape ({n},), one entry for each row of `x`; got {shape}")
    for name in ("y", "group"):
        if not jnp.issubdtype(getattr(data, name).dtype, jnp.integer):
            raise ValueError(f"`{name}` must be integer codes, got {getattr(data, name).dtype}; use make_data")
    if data.x.dtype not in (jnp.float32, jnp.float64) or data.weight.dtype != data.x.dtype:
        raise ValueError(
            f"`x` must be float32 or float64 and `weight` of the same dtype, got {data.x.dtype} and {data.weight.dtype}"
        )


def check_cells(counts, *, what: str) -> None:
    """Raises ValueError when a group is empty or only one label is left.

    Args:
      counts: rows by (group, label), ``(2, 2)``.
      what: what to call the rows in the message.
    """
    counts = np.asarray(counts)
    for group in (0, 1):
        if counts[group].sum() == 0:
            raise ValueError(f"group {group} has no rows in {what}; fairness between groups needs both")
    for label in (0, 1):
        if counts[:, label].sum() == 0:
            raise ValueError(f"no row with label {label} is left in {what}; a classifier needs both labels")


def forget_mask(forget, n: int) -> Bool[Array, " n"]:
    """Turns row indices or a boolean mask into a boolean mask.

    Args:
      forget: row indices ``(k,)`` in [0, n), each at most once, or a boolean mask ``(n,)``.
      n: number of rows.

    Returns:
      The mask, ``(n,)``.

    Raises:
      ValueError: an index is out of range, repeated or not an integer, or the mask's length is not ``n``.
    """
    if is_traced(forget):
        if forget.dtype == jnp.bool_ and forget.shape == (n,):
            return forget
        if forget.ndim != 1 or not jnp.issubdtype(forget.dtype, jnp.integer):
            raise ValueError(
                f"`forget` must be row indices (k,) or a boolean mask ({n},), got {forget.dtype} {forget.shape}"
            )
        # What cannot be checked while tracing must not wrap around: an index that is out of range forgets nothing.
        return jnp.zeros(n, bool).at[jnp.where(forget < 0, n, forget)].set(True, mode="drop")
    rows = np.asarray(forget)
    if rows.dtype == np.bool_:
        if rows.shape != (n,):
            raise ValueError(f"a boolean `forget` must have shape ({n},), one entry for each row; got {rows.shape}")
        return jnp.asarray(rows)
    if rows.size == 0:
        return jnp.zeros(n, bool)
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(f"`forget` must be a vector of row indices or a boolean mask, got {rows.dtype} {rows.shape}")
    outside = rows[(rows < 0) | (rows >= n)]
    if outside.size:
        raise ValueError(f"`forget` holds row {outside[0]}, but rows are numbered 0 to {n - 1}")
    mask = np.zeros(n, bool)
    mask[rows] = True
    if mask.sum() != rows.size:
        values, times = np.unique(rows, return_counts=True)
        raise ValueError(f"`forget` holds row {values[times > 1][0]} more than once; list each row once")
    return jnp.asarray(mask)


def without(data: Data, forget: Bool[Array, " n"]) -> Data:
    """The rows that remain: the same arrays with the weight of forgotten rows set to zero."""
    return data._replace(weight=_zero_where(forget, data.weight))


@jax.jit
def _zero_where(mask, weight):
    return jnp.where(mask, jnp.zeros((), weight.dtype), weight)
