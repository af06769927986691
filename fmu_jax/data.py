"""Training rows with labels, groups and 0/1 weights."""

import dataclasses
from typing import Any, NamedTuple, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fmu_jax import row_blocks
from fmu_jax.arrays import as_codes, as_floats, as_numbers
from fmu_jax.showing import one_line
from fmu_jax.tracing import as_arrays, at_once, is_traced, lies_here, when_concrete

#: What is computed by cell is written out cell by cell, so that thousands would never be compiled.
MOST_GROUPS = 100


@no_type_check  # A tree may hold anything (shapes, batches, NumPy arrays); `check_data` looks at rows.
@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """Rows of a data set; a removed row keeps its place and has weight zero.

    Shapes are static, so nothing recompiles, whatever is forgotten. ``Data`` is a pytree of its four arrays; the number
    of groups is static and so belongs to the shape of everything that is computed by group.

    Attributes:
      x: Features, ``(n, d)``, floating. For the linear model the last column is the constant 1.
      y: Labels, ``(n,)`` int32, 0 or 1.
      group: Group codes, ``(n,)`` int32, 0 to ``groups - 1``.
      weight: ``(n,)``, dtype of ``x``; 1 for a row that counts, 0 for one that was removed.
      groups: The number of groups, at least 2.
    """

    x: Float[Array, "n *features"]
    y: Int[Array, " n"]
    group: Int[Array, " n"]
    weight: Float[Array, " n"]
    groups: int = 2

    __repr__ = one_line()

    def _replace(self, **changes: Any) -> "Data":
        """A copy with other fields, as the package's named tuples make it."""
        return dataclasses.replace(self, **changes)


jax.tree_util.register_dataclass(Data, data_fields=["x", "y", "group", "weight"], meta_fields=["groups"])


class DataSummary(NamedTuple):
    """What the eager checks need to know about a ``Data``.

    Attributes:
      counts: Rows of weight one by (group, label), ``(groups, 2)`` int32.
      finite: No feature is NaN or infinite.
      bad_labels, bad_groups, bad_weights: Numbers of offending entries, int32 scalars.
    """

    counts: Int[Array, "groups 2"]
    finite: Bool[Array, ""]
    bad_labels: Int[Array, ""]
    bad_groups: Int[Array, ""]
    bad_weights: Int[Array, ""]


def make_data(x, y, group, weight=None, *, groups: int | np.integer | None = None) -> Data:
    """Builds a checked ``Data`` from anything array-like.

    Args:
      x: ``(n, d)`` finite features: an array, lists, a DataFrame. Integers become the default float; float32 and
        float64 stay (as far as ``jax_enable_x64`` allows), narrower floats become float32.
      y: ``(n,)`` labels in {0, 1} (bool, int or float).
      group: ``(n,)`` group codes 0, 1, ..., ``groups - 1``.
      weight: ``(n,)`` zeros and ones; None means all ones.
      groups: The number of groups; None is one more than the largest code, and at least 2.

    Returns:
      The ``Data``; ``x`` stays on the device that it is on.

    Raises:
      ValueError: Shapes differ, a feature is NaN or infinite, a label or weight is neither 0 nor 1, or a group code is
        none of 0 to ``groups - 1``; or entries are no real numbers (text, dates, complex, missing, masked, sparse).

    >>> data = make_data([[0.5, 1.0], [0.1, 1.0], [0.2, 1.0], [0.9, 1.0]], y=[0, 1, 0, 1], group=[0, 0, 1, 1])
    >>> data.x.shape, float(data.weight.sum())
    ((4, 2), 4.0)
    """
    x = as_floats(x, "x")
    y, group = as_codes(y, "y", rule="only 0 and 1"), as_codes(group, "group")
    if groups is None:
        if is_traced(group):
            raise ValueError("`group` is being traced, so that nobody can count its codes; pass `groups`, how many")
        groups = max(2, int(np.asarray(group).max(initial=0)) + 1)
    elif isinstance(groups, np.integer):
        groups = int(groups)
    weight = jnp.ones(x.shape[:1], x.dtype) if weight is None else as_floats(weight, "weight", dtype=x.dtype)
    data = Data(x, y, group, weight, groups)
    check_data(data)
    return data


def as_data(data: Data) -> Data:
    """The same rows on the device, whatever arrays they were made of; ValueError where one of them cannot be."""
    if not isinstance(data, Data):
        raise ValueError(f"`data` must be a fmu_jax.Data, from make_data or of a split; got {type(data).__name__}")
    return data._replace(
        x=as_floats(data.x, "x"),
        y=as_codes(data.y, "y", rule="only 0 and 1"),
        group=as_codes(data.group, "group"),
        weight=as_floats(data.weight, "weight"),
    )


def cell_counts(data: Data) -> Int[Array, "groups 2"]:
    """Number of remaining rows by (group, label), in integers, so exact at any ``n``."""
    if lies_here(data.y, data.group, data.weight):
        return as_arrays(_counted(data))
    remaining = data.weight > 0
    return jnp.array(
        [
            [jnp.sum(remaining & (data.group == g) & (data.y == y), dtype=jnp.int32) for y in (0, 1)]
            for g in range(data.groups)
        ]
    )


def _counted(data: Data) -> np.ndarray:
    """``cell_counts`` by NumPy."""
    y, group, weight = map(np.asarray, (data.y, data.group, data.weight))
    counts = (weight > 0) & (group >= 0) & (group < data.groups) & ((y == 0) | (y == 1))
    return np.bincount((2 * group + y)[counts], minlength=2 * data.groups).reshape(-1, 2).astype(np.int32)


def summarise(data: Data) -> DataSummary:
    """Counts rows per (group, label) and offending entries in one pass; few rows by NumPy, so nothing is compiled."""
    if lies_here(data):
        return _summary(np, jax.tree.map(np.asarray, data), _counted(data))
    return jax.device_get(_summarise(data))


def _summary(xp, data: Data, counts: Any) -> Any:
    y, group, weight = data.y, data.group, data.weight
    bad = (y != 0) & (y != 1), (group < 0) | (group >= data.groups), (weight != 0) & (weight != 1)
    return DataSummary(counts, xp.all(xp.isfinite(data.x)), *(xp.sum(entry, dtype=np.int32) for entry in bad))


_summarise = jax.jit(lambda data: _summary(jnp, data, cell_counts(data)))


def check_data(data: Data, *, what: str = "the data") -> None:
    """Raises unless the rows can be trained on; does nothing under tracing, where no value can be seen.

    Args:
      data: The rows to check.
      what: Name for the message.

    Raises:
      ValueError: Shapes or dtypes differ from those of ``Data``; a feature is NaN or infinite; a label or weight is
        neither 0 nor 1, or a group code out of range; a group is empty or only one label is left among rows of weight
        one.
    """
    check_shapes(data)
    _check_rows(data, what)


@when_concrete
def _check_rows(data, what):
    check_cells(_check_entries(data, what).counts, what=what)


def check_values(data: Data, *, what: str = "the data") -> None:
    """As ``check_data``, for rows that need not be of every group and label."""
    check_shapes(data)
    when_concrete(_check_entries)(data, what)


def _check_entries(data: Data, what: str) -> DataSummary:
    """The summary of rows whose entries can be used; ValueError where one cannot."""
    summary = summarise(data)
    codes = "neither 0 nor 1" if data.groups == 2 else f"not between 0 and {data.groups - 1}"
    bad_features = 0 if summary.finite else int(jnp.sum(~jnp.isfinite(data.x), dtype=jnp.int32))
    for count, name, fix in (
        (bad_features, "features are NaN or infinite", "impute or drop them (removed rows count too)"),
        (summary.bad_labels, "labels are neither 0 nor 1", "recode `y` to 0 and 1"),
        (summary.bad_groups, f"group codes are {codes}", "recode `group`, or pass the number of groups as `groups`"),
        (summary.bad_weights, "weights are neither 0 nor 1", "a row is kept (1) or removed (0)"),
    ):
        if count:
            raise ValueError(f"{count} {name} in {what}; {fix}")
    return summary


def check_shapes(data: Data) -> None:
    """Raises ValueError unless ``x`` is floating and the four arrays agree in length and dtype."""
    if not isinstance(data.groups, int) or not 2 <= data.groups <= MOST_GROUPS:
        raise ValueError(f"`groups` must be a whole number between 2 and {MOST_GROUPS}, got {data.groups!r}")
    if not data.x.ndim:
        raise ValueError("`x` must have shape (n, d), one row of features a person; got (), a single number")
    n = data.x.shape[0]
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
      counts: Rows by (group, label), ``(groups, 2)``.
      what: Name of the rows for the message.
    """
    counts = np.asarray(counts)
    for group in np.flatnonzero(counts.sum(axis=1) == 0)[:1]:
        raise ValueError(
            f"group {group} has no rows in {what}; fairness between groups needs all {len(counts)}, coded without gaps"
        )
    for label in (0, 1):
        if counts[:, label].sum() == 0:
            raise ValueError(f"no row with label {label} is left in {what}; a classifier needs both labels")


def forget_mask(forget, n: int) -> Bool[Array, " n"]:
    """Turns row indices or a boolean mask into a boolean mask.

    Args:
      forget: Row indices ``(k,)`` in [0, n), each at most once, or a boolean mask ``(n,)``.
      n: Number of rows.

    Returns:
      The mask, ``(n,)``.

    Raises:
      ValueError: An index is out of range, repeated or not an integer, or the mask's length is not ``n``.
    """
    rows = as_numbers(forget, "forget")
    if is_traced(rows):
        if rows.dtype == jnp.bool_ and rows.shape == (n,):
            return jnp.asarray(rows)
        if rows.ndim != 1 or not jnp.issubdtype(rows.dtype, jnp.integer):
            raise ValueError(
                f"`forget` must be row indices (k,) or a boolean mask ({n},), got {rows.dtype} {rows.shape}"
            )
        # What cannot be checked while tracing must not wrap around: an index that is out of range forgets nothing.
        return jnp.zeros(n, bool).at[jnp.where(rows < 0, n, rows)].set(True, mode="drop")
    rows = np.asarray(rows)
    if rows.dtype == np.bool_:
        if rows.shape != (n,):
            raise ValueError(f"a boolean `forget` must have shape ({n},), one entry for each row; got {rows.shape}")
        return as_arrays(rows)
    if rows.size == 0:
        return as_arrays(np.zeros(n, bool))
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
    return as_arrays(mask)


def select_rows(data: Data, rows: Any) -> Data:
    """Some of the rows, as ``Data`` of their own.

    Args:
      data: ``n`` rows.
      rows: Indices ``(k,)`` or a boolean mask ``(n,)``; with indices the rows come in their order.
    """
    at = jnp.asarray(rows)
    return jax.tree.map(lambda leaf: leaf[at], data)


def without(data: Data, forget: Bool[Array, " n"]) -> Data:
    """The rows that remain: the same arrays with the weight of forgotten rows set to zero."""
    return data._replace(weight=at_once(_zero_where, forget, data.weight))


@jax.jit
def _zero_where(mask, weight):
    return jnp.where(mask, jnp.zeros((), weight.dtype), weight)


@jax.jit
def rows_at(data: Data, index: Int[Array, " k"]) -> Data:
    """Rows by their numbers, in this order; large tables on TPUs are not copied for it, as ``leaf[index]`` would."""
    return jax.tree.map(lambda leaf: row_blocks.rows_at(leaf, index), data)
