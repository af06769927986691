"""Draws the rows that an experiment forgets, from all rows or from a group, and orders of requests."""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Int

from fmu_jax.data import Data
from fmu_jax.sharding import on_host

Subset = Literal["random", "minority", "majority"]
"""All rows, or those of the smallest or of the largest group."""


def count_rows(data: Data) -> int:
    """How many rows count: those of weight one."""
    return int(on_host(data.weight > 0).sum())


def subset_rows(data: Data, subset: str) -> Int[np.ndarray, " k"]:
    """Indices of the rows of weight one that belong to a subset.

    Args:
      data: The training rows.
      subset: "random" (all rows), or the smallest ("minority") or largest ("majority") group; of groups that are
        equally large the first is the smallest, the last the largest.

    Raises:
      ValueError: Another subset.
    """
    if subset not in get_args(Subset):
        raise ValueError(f"unknown subset {subset!r}; known: {', '.join(get_args(Subset))}")
    group, weight = on_host((data.group, data.weight))
    if subset == "random":
        return np.flatnonzero(weight)
    smallest_first = np.argsort(np.bincount(group[weight > 0], minlength=data.groups), kind="stable")
    return np.flatnonzero((weight > 0) & (group == smallest_first[0 if subset == "minority" else -1]))


def draw_rows(data: Data, count: int, *, subset: str = "random", seed: int) -> Int[np.ndarray, " k"] | None:
    """Draws rows to forget, without repetition.

    Args:
      data: The training rows; of many classes (``heads.one_vs_rest``) the first stands for all.
      count: Number of rows to draw.
      subset: Subset from which rows are drawn; see ``subset_rows``.
      seed: Seed of the draw; the same rows come back for the same seed and count.

    Returns:
      Row indices ``(count,)`` for ``remove``, or None where the subset holds no row more than that, or forgetting them
      would leave a label of a group without rows.

    Raises:
      ValueError: Another subset, or a negative count.

    >>> from fmu_jax import datasets
    >>> data = datasets.synthetic(100, 3, seed=0).train
    >>> len(draw_rows(data, 5, seed=0)), draw_rows(data, 80, seed=0)
    (5, None)
    """
    if count < 0:
        raise ValueError(f"`count` must be at least 0, got {count}")
    pool = subset_rows(data, subset)
    if count >= len(pool):
        return None
    rows = np.random.default_rng([seed, count]).choice(pool, count, replace=False)
    group, y, weight = on_host((data.group, data.y if data.y.ndim == 1 else data.y[0], data.weight))
    left = np.setdiff1d(np.flatnonzero(weight), rows)
    cells = set(zip(group[left].tolist(), y[left].tolist(), strict=True))
    return rows if len(cells) == 2 * data.groups else None


def draw_requests(
    data: Data, count: int, *, subset: str = "random", seed: int, spared: int = 2, multiple: int = 100
) -> Int[np.ndarray, " k"]:
    """Draws rows in the order in which they ask to be forgotten, for ``stream.serve``.

    Args:
      data: The training rows.
      count: Number of rows to draw.
      subset: Subset from which rows are drawn; see ``subset_rows``.
      seed: Seed of the draw.
      spared: How many rows of every label of every group stay, the last ones, so that none runs out.
      multiple: Where fewer than ``count`` rows are left to draw from, as many of them as are a multiple of this:
        subsets of other seeds, which differ by a few rows, then share compiled programs.

    Returns:
      Row indices, at most ``count``.

    Raises:
      ValueError: Another subset.
    """
    pool = np.random.default_rng([seed, 7]).permutation(subset_rows(data, subset))
    group, y = on_host((data.group, data.y))
    cell = 2 * group[pool] + y[pool]
    stay = np.concatenate([np.flatnonzero(cell == c)[-spared:] for c in range(2 * data.groups)])
    order = np.delete(pool, stay)
    most = len(order) // multiple * multiple or len(order)
    return order[: count if count <= len(order) else most]


def draw_batches(data: Data, count: int, size: int, *, seed: int) -> Int[np.ndarray, "count size"]:
    """Draws the rows that each of several deletions asks for; every label of every group keeps its first row.

    Args:
      data: The training rows.
      count: Deletions.
      size: Rows of each.
      seed: Seed of the draw.

    Raises:
      ValueError: These are as many rows as may go, or more.
    """
    group, y, weight = on_host((data.group, data.y, data.weight))
    pool, cell = np.flatnonzero(weight > 0), 2 * group + y
    pool = np.setdiff1d(pool, [pool[cell[pool] == c][0] for c in np.unique(cell[pool])])
    if count * size >= len(pool):
        raise ValueError(f"{count} batches of {size} rows are more than the {len(pool)} that may go")
    return np.random.default_rng([seed, count]).permutation(pool)[: count * size].reshape(count, size)


def split_public(n: int, share: float, *, seed: int) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " k"]]:
    """Splits rows at random into public ones, which nobody asks to remove, and the others.

    Args:
      n: Number of rows.
      share: Share of the rows that is public, in [0, 1].
      seed: Seed of the split.

    Returns:
      Indices of the public rows, ``round(share n)`` of them, and those of the others, both in random order.

    Raises:
      ValueError: A share out of range.

    >>> public, others = split_public(10, 0.3, seed=0)
    >>> len(public), sorted([*public, *others]) == list(range(10))
    (3, True)
    """
    if not 0 <= share <= 1:
        raise ValueError(f"`share` must lie in [0, 1], got {share}")
    order = np.random.default_rng([seed, 5]).permutation(n)
    public = round(share * n)
    return order[:public], order[public:]


def group_to_forget(data: Data, most: int) -> int:
    """The smallest group with at least twice as many rows as will be forgotten, or else the largest."""
    sizes = np.bincount(on_host(data.group), minlength=data.groups)
    enough = np.flatnonzero(sizes >= 2 * most)
    return int(enough[sizes[enough].argmin()] if len(enough) else sizes.argmax())
