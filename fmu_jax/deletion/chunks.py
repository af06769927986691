"""The rows of a ledger, in chunks of `CHUNK` rows of float64; a removed row is all zeros.

What is erased is overwritten where it stands (incremental blobs), so that no page is split and no copy stays behind.
"""

import sqlite3
from collections.abc import Iterator
from typing import Any

import numpy as np

CHUNK = 512
_FLOAT = np.dtype("<f8")


def one(db: sqlite3.Connection, query: str, *values: Any) -> tuple[Any, ...]:
    """The first row that a query finds; ValueError where there is none, as the ledger is then not whole."""
    found = db.execute(query, values).fetchone()
    if found is None:
        raise ValueError(f"the ledger is damaged: nothing answers {query!r}")
    return found


def add_rows(db: sqlite3.Connection, rows: np.ndarray) -> None:
    """Stores all rows, ``(n, width)`` float64; the last chunk is filled up with zeros."""
    rows = np.asarray(rows, _FLOAT)
    for number, begin in enumerate(range(0, len(rows), CHUNK)):
        part = rows[begin : begin + CHUNK]
        filled = np.concatenate([part, np.zeros((CHUNK - len(part), rows.shape[1]), _FLOAT)])
        db.execute("INSERT INTO chunks VALUES (?, ?)", (number, filled.tobytes()))


def rows_at(db: sqlite3.Connection, positions: np.ndarray) -> np.ndarray:
    """The rows at these positions, ``(k, width)`` float64, in their order."""
    out = np.empty((len(positions), _chunk(db, 0).shape[1]), _FLOAT)
    for number, places in _by_chunk(positions):
        out[places] = _chunk(db, number)[positions[places] % CHUNK]
    return out


def rows_between(db: sqlite3.Connection, start: int, stop: int) -> np.ndarray:
    """The rows at positions ``start`` to ``stop - 1``, ``(stop - start, width)`` float64."""
    numbers = range(start // CHUNK, -(-stop // CHUNK))
    out = np.empty((len(numbers) * CHUNK, _chunk(db, 0).shape[1]), _FLOAT)
    for place, number in enumerate(numbers):
        out[place * CHUNK : (place + 1) * CHUNK] = _chunk(db, number)
    return out[start % CHUNK :][: stop - start]


def erase_rows(db: sqlite3.Connection, positions: np.ndarray) -> None:
    """Overwrites the rows at these positions with zeros, where they stand."""
    for number, places in _by_chunk(positions):
        with db.blobopen("chunks", "rows", number) as blob:
            width = len(blob) // CHUNK
            for position in positions[places]:
                blob.seek(int(position) % CHUNK * width)
                blob.write(bytes(width))


def padding(db: sqlite3.Connection, rows: int) -> np.ndarray:
    """All that is stored after the first ``rows`` rows: what fills up the last chunk."""
    return rows_between(db, rows, one(db, "SELECT count(*) FROM chunks")[0] * CHUNK)


def _chunk(db: sqlite3.Connection, number: int) -> np.ndarray:
    (packed,) = one(db, "SELECT rows FROM chunks WHERE number = ?", number)
    return np.frombuffer(packed, _FLOAT).reshape(CHUNK, -1)


def _by_chunk(positions: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each chunk that holds one of the positions, and which of them."""
    order = np.argsort(positions, kind="stable")
    numbers, starts, counts = np.unique(positions[order] // CHUNK, return_index=True, return_counts=True)
    for number, start, count in zip(numbers.tolist(), starts, counts, strict=True):
        yield number, order[start : start + count]
