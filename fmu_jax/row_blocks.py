"""Sums and maxima over rows, in blocks if there are many rows, so that no copy of them is made.

A product such as ``x * q[:, None]`` is as large as the rows, and compilers may make one copy for each. So a function of
rows is called with one block after another, and only what it returns of a block is kept. A block has some rows of every
piece (``pieces``): rows which lie on several devices are worked on where they lie. Few rows are one block, so that
nothing changes for them. On a CPU blocks are so small that they stay in its cache, elsewhere so large that starting
them costs nothing. Derivatives of both modes compute each block anew, and keep no copy either.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float, Int, Shaped

#: Numbers in the rows from which they are worked on in blocks, and how many blocks at most.
LEAST = 2**25
MOST_BLOCKS = 64
#: The same on a CPU, and the numbers in a block there: a few copies of it stay in a core's cache.
CPU_LEAST = 2**18
CPU_NUMBERS = 2**16
CPU_MOST_BLOCKS = 1024
#: Pieces of many rows: a multiple of every usual number of devices, 2^6 3 5.
PIECES = 960
_PIECE_ROWS = 32
#: Rows of a tile of XLA:TPU, which lays the rows along its lanes: pieces of whole tiles are cut without a copy.
TILE = 128
_TILE_COLUMNS = 8
_IN_ORDER = Layout((0, 1, 2, 3, 4))


def pieces(values: Shaped[Array, "n ..."]) -> Shaped[Array, "pieces rows ..."]:
    """Rows as ``PIECES`` contiguous pieces of equal length, if they are many and divide so; else as one. No copy."""
    return values.reshape(piece_count(values.shape[0]), -1, *values.shape[1:])


def piece_count(n: int) -> int:
    """Into how many pieces ``pieces`` cuts ``n`` rows."""
    return PIECES if n % PIECES == 0 and n >= PIECES * _PIECE_ROWS else 1


def block_rows(n: int, columns: int) -> int:
    """Rows of a block on accelerators: all ``n`` where they are few."""
    return n if n * columns < LEAST else _whole_rows(n, MOST_BLOCKS)


def cpu_block_rows(n: int, columns: int) -> int:
    """Rows of a block on a CPU; as elsewhere where they are in pieces, as several devices would meet in each block."""
    blocks = min(n * columns // CPU_NUMBERS, CPU_MOST_BLOCKS)
    if piece_count(n) > 1:
        return block_rows(n, columns)
    return n if n * columns < CPU_LEAST or blocks < 2 else _whole_rows(n, blocks)


def _whole_rows(n: int, blocks: int) -> int:
    number = piece_count(n)
    return number * whole_tiles(-(-n // (number * blocks)))


def whole_tiles(rows: int) -> int:
    """So many rows or a few more: whole tiles, unless half a tile holds them."""
    return -(-rows // TILE) * TILE if 2 * rows > TILE else max(rows, 1)


def in_blocks(
    function: Callable[..., Any], together: Callable[..., Any], *rows: Any, only_on_cpus: bool = False
) -> Any:
    """``together`` of what ``each_block`` gives, in blocks of the size that suits the machine.

    Args:
      function: Function of rows; arrays that it closes over are the same in every block.
      together: Function of the list of stacked results; its result is to have the same shapes for any size of a block.
      *rows: Arrays whose first axis are the rows; the first is the largest.
      only_on_cpus: All rows are one block elsewhere.

    Returns:
      What ``together`` returns.
    """
    n, columns = rows[0].shape[0], math.prod(rows[0].shape[1:])
    elsewhere = n if only_on_cpus else block_rows(n, columns)
    here = cpu_block_rows(n, columns)

    def work(size: int) -> Callable[..., Any]:
        return lambda *rows: together(each_block(function, rows, size))

    if here == elsewhere:
        return work(here)(*rows)
    return jax.lax.platform_dependent(*rows, cpu=work(here), default=work(elsewhere))


def each_block(function: Callable[..., Any], rows: Any, size: int) -> list[Any]:
    """What a function returns of every block, stacked, and of what is left over; of all rows if they are one block.

    Args:
      function: Function of rows; arrays that it closes over are the same in every block.
      rows: Arrays whose first axis are the rows, a tuple of arguments.
      size: Rows of a block, a multiple of the number of pieces, or all rows.

    Returns:
      Trees of arrays with a first axis of blocks, one or two of them.
    """
    n = jax.tree.leaves(rows)[0].shape[0]
    if size >= n:
        return [jax.tree.map(lambda leaf: leaf[None], function(*rows))]
    cut, whole, rest = _cut(rows, size)
    again = jax.checkpoint(lambda begin: function(*cut(begin, size)))
    number = piece_count(n)
    stacked = jax.lax.map(again, jnp.arange(whole, dtype=jnp.int32) * (size // number))
    if not rest:
        return [stacked]
    last = jax.checkpoint(lambda begin: function(*cut(begin, rest)))(jnp.asarray(whole * (size // number), jnp.int32))
    return [stacked, jax.tree.map(lambda leaf: leaf[None], last)]


def _cut(rows: Any, size: int) -> tuple[Callable[[Any, int], Any], int, int]:
    """A function of the first row in each piece and of a size, the number of whole blocks, and the rows left over."""
    n = jax.tree.leaves(rows)[0].shape[0]
    number = piece_count(n)
    length, own = n // number, size // number
    tiles = length % TILE == 0 and own % TILE == 0

    def cut(begin: Any, size: int) -> Any:
        return jax.tree.map(lambda leaf: (_whole_tiles if tiles else _part)(leaf, begin, size // number), rows)

    return cut, length // own, n - length // own * size


def _part(values: Shaped[Array, "n ..."], begin: Any, count: int) -> Shaped[Array, "k ..."]:
    """``count`` rows of every piece, from number ``begin`` on."""
    return jax.lax.dynamic_slice_in_dim(pieces(values), begin, count, axis=1).reshape(-1, *values.shape[1:])


def _whole_tiles(values: Shaped[Array, "n ..."], begin: Any, count: int) -> Shaped[Array, "k ..."]:
    """``_part`` where pieces, ``begin`` and ``count`` are whole tiles of rows."""
    by_row = functools.partial(_by_row, count=count)
    if not _by_columns_on_tpus(values):
        return by_row(values, begin)
    return jax.lax.platform_dependent(values, begin, tpu=functools.partial(_by_column, count=count), default=by_row)


def _by_columns_on_tpus(values: Shaped[Array, "n ..."]) -> bool:
    """Whether XLA:TPU lays such rows column by column: where tiles of whole rows would be filled up with zeros."""
    return values.ndim == 2 and values.shape[1] % TILE != 0


def _by_row(values, begin, *, count):
    tiles = values.reshape(piece_count(len(values)), -1, TILE, *values.shape[1:])
    return jax.lax.dynamic_slice_in_dim(tiles, begin // TILE, count // TILE, axis=1).reshape(-1, *values.shape[1:])


def _by_column(values, begin, *, count):
    """The same, as XLA:TPU lays such rows: column by column, in tiles of 8 columns by ``TILE`` rows.

    Unless all these axes are spelled out and told to stay in this order, it lays all rows anew before it cuts blocks
    off them. It copies what ends with a tile that is not full.
    """

    def part(values: Array) -> Array:
        cut = jax.lax.dynamic_slice_in_dim(_tiles(values), begin // TILE, count // TILE, axis=2)
        return with_layout_constraint(cut, _IN_ORDER).transpose(1, 2, 4, 0, 3).reshape(-1, values.shape[1])

    return _full_tiles_first(part, values)


def _tiles(values: Shaped[Array, "n columns"]) -> Shaped[Array, "bands pieces tiles sublanes lanes"]:
    """All rows in the order in which XLA:TPU keeps them."""
    n, columns = values.shape
    number = piece_count(n)
    tiles = values.T.reshape(-1, min(_TILE_COLUMNS, columns), number, n // number // TILE, TILE)
    return with_layout_constraint(tiles.transpose(0, 2, 3, 1, 4), _IN_ORDER)


def _full_tiles_first(part: Callable[[Array], Array], values: Shaped[Array, "n columns"]) -> Array:
    """``part`` of the columns that fill tiles, and of those that are left."""
    columns = values.shape[1]
    full = columns - columns % _TILE_COLUMNS
    if full in (0, columns):
        return part(values)
    return jnp.concatenate([part(values[:, :full]), part(values[:, full:])], axis=1)


def rows_at(values: Shaped[Array, "n ..."], index: Int[Array, " k"]) -> Shaped[Array, "k ..."]:
    """Rows by their numbers, ``values[index]``; XLA:TPU, too, takes them out of many rows without a copy of all."""
    n = len(values)
    if not _by_columns_on_tpus(values) or block_rows(n, values.shape[1]) >= n or n // piece_count(n) % TILE:
        return values[index]
    return jax.lax.platform_dependent(values, index, tpu=_at_by_column, default=lambda values, index: values[index])


def _at_by_column(values, index):
    """``rows_at``, as XLA:TPU lays many rows: it would lay all of them row by row first."""
    per_piece = len(values) // piece_count(len(values))
    piece, tile, lane = index // per_piece, index % per_piece // TILE, index % TILE
    return _full_tiles_first(
        lambda values: _tiles(values)[:, piece, tile, :, lane].reshape(-1, values.shape[1]), values
    )


def fold(function: Callable[..., Any], rows: Any, size: int, plus: Callable[[Any, Any], Any]) -> Any:
    """``function`` of one block ``plus`` that of the next, and so on; nothing of a block is kept."""
    cut, whole, rest = _cut(rows, size)
    number = piece_count(jax.tree.leaves(rows)[0].shape[0])

    def add(i, total):
        return plus(total, function(*cut(i * (size // number), size)))

    if rest:
        return jax.lax.fori_loop(0, whole, add, function(*cut(whole * (size // number), rest)))
    return jax.lax.fori_loop(1, whole, add, function(*cut(0, size)))


def largest(function: Callable[..., Float[Array, " n"]], *rows: Any) -> Float[Array, ""]:
    """The largest number that ``function`` gives any row."""
    return in_blocks(lambda *part: jnp.max(function(*part)), lambda found: jnp.max(jnp.concatenate(found)), *rows)


def by_row(function: Callable[..., Any], *rows: Any, only_on_cpus: bool = False) -> Any:
    """Numbers of each row, in the order of the rows, of a function that works on rows one by one, as ``in_blocks``."""
    n = rows[0].shape[0]
    number = piece_count(n)

    def ordered(*parts):
        first, *others = (jnp.moveaxis(part, 0, 1) for part in parts)
        flat = [each.reshape(number, -1, *each.shape[3:]) for each in (first, *others)]
        return jnp.concatenate(flat, axis=1).reshape(n, *flat[0].shape[2:])

    return in_blocks(
        lambda *part: jax.tree.map(lambda leaf: leaf.reshape(number, -1, *leaf.shape[1:]), function(*part)),
        lambda found: jax.tree.map(ordered, *found),
        *rows,
        only_on_cpus=only_on_cpus,
    )


def gram(x: Float[Array, "n d"], weight: Float[Array, " n"]) -> Float[Array, "d d"]:
    """``X' diag(weight) X`` by matrix products; ``rounding.block_gram`` is the one whose error is bounded."""
    return in_blocks(lambda x, w: (x * w[:, None]).T @ x, lambda found: jnp.concatenate(found).sum(axis=0), x, weight)


def weighted_sum(x: Float[Array, "n d"], weight: Float[Array, " n"]) -> Float[Array, " d"]:
    """``X' weight``; XLA:CPU reads rows several times for it, which costs little where they stay in the cache."""
    if piece_count(x.shape[0]) > 1:  # Devices meet once.
        return weight @ x
    return in_blocks(lambda x, w: w @ x, lambda found: jnp.concatenate(found).sum(axis=0), x, weight, only_on_cpus=True)


def held(tree: Any, step: Any) -> tuple[Any, Any]:
    """Both arguments, at the start of a loop's body: rows that it closes over, and what changes from step to step.

    In a loop that is not run at once, but in a branch or another loop, XLA:TPU lays what no step changes as it likes
    best there, and so copies all rows. Where they hang on the step it leaves them as they are.
    """
    return jax.lax.platform_dependent(
        tree, step, tpu=lambda *both: jax.lax.optimization_barrier(both), default=lambda *both: both
    )
