"""The ledger: one SQLite file that holds everything a store knows, and all the SQL.

Write-ahead log, ``synchronous=FULL``, and one ``BEGIN IMMEDIATE`` transaction for each request: it is wholly done or
not begun, and two processes are serialised. What is deleted is overwritten where it stands (incremental blobs, so that
no page is split and no copy stays behind; ``secure_delete`` for what SQLite frees itself), and after every commit the
log is copied into the database and cut to nothing, so that no old page stays in it.

Rows of the table lie in chunks of `CHUNK` rows of float64; a removed row is all zeros.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

NAME = "ledger.sqlite"
CHUNK = 512
WAIT_S = 600.0
"""How long one process waits for another's request."""
LEFT_OUT = "left out"
"""Name under which the hashes of the people are kept whom the training left out; older stores have none."""
_APPLICATION = 0x464D5544
_VERSION = 2
_FLOAT = np.dtype("<f8")

_SCHEMA = f"""
PRAGMA journal_mode = WAL;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
BEGIN IMMEDIATE;
CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL);
-- request: the number of the request that deleted this person, 0 while nobody has.
CREATE TABLE people (id BLOB PRIMARY KEY, position INTEGER NOT NULL, request INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE chunks (number INTEGER PRIMARY KEY, rows BLOB NOT NULL);
CREATE TABLE records (number INTEGER PRIMARY KEY, certificate TEXT NOT NULL, digest TEXT NOT NULL);
COMMIT;
"""

Ledger = sqlite3.Connection
Error = sqlite3.Error


class Record(NamedTuple):
    """A certificate as the ledger keeps it: its number, its exact text, and the text's SHA-256."""

    number: int
    text: str
    digest: str


@contextlib.contextmanager
def created(folder: Path) -> Iterator[Ledger]:
    """Makes a new ledger, readable by its owner only, and opens it.

    Args:
      folder: where; it must exist and hold none.

    Yields:
      The open ledger, without rows.

    Raises:
      OSError: it cannot be written.
    """
    path = folder / NAME
    os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    with _errors(path), contextlib.closing(_connect(path)) as db:
        db.executescript(_SCHEMA)
        yield db
        settle(db)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Ledger]:
    """Opens a store's ledger, and finishes what a killed process left: its log is copied into the database.

    Args:
      folder: the store.

    Yields:
      The open ledger.

    Raises:
      FileNotFoundError: there is no store.
      ValueError: the file is no ledger, or of another version.
      OSError: it cannot be read or written, or another process keeps it locked.
    """
    path = folder / NAME
    if not path.is_file():
        raise FileNotFoundError(f"there is no store in {folder} ({NAME} is missing); make one with the command train")
    for place in (folder, path):
        if not os.access(place, os.W_OK):
            why = "or its disk is; SQLite keeps its locks there, so make it writable also to look, or copy the store"
            raise PermissionError(f"{place} is read-only for you, {why}")
    with _errors(path), contextlib.closing(_connect(path)) as db:
        marks = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        if marks != [_APPLICATION, _VERSION]:
            raise ValueError(f"{path} is no ledger of version {_VERSION}")
        settle(db)
        yield db


def _connect(path: Path) -> Ledger:
    db = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, isolation_level=None, timeout=WAIT_S)
    for pragma in ("synchronous = FULL", "secure_delete = ON", "temp_store = MEMORY", "cache_size = -65536"):
        db.execute(f"PRAGMA {pragma}")
    return db


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    """SQLite's errors as errors of a file."""
    try:
        yield
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from error


@contextlib.contextmanager
def exclusive(db: Ledger) -> Iterator[None]:
    """One transaction, alone: what is done inside is kept as a whole, or, after an error, not at all."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def settle(db: Ledger) -> None:
    """Copies the log into the database and cuts it to nothing: no page of the past is left.

    Raises:
      OSError: another process keeps the store busy, or the disk is full; the log stays until the store is next opened.
    """
    path = Path(db.execute("PRAGMA database_list").fetchone()[2])
    end = time.monotonic() + WAIT_S
    # SQLite waits for another process's transaction, but not for its checkpoint.
    with _errors(path):
        while db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > end:
                raise OSError(f"{path}: another process has kept the store busy for {WAIT_S:.0f} s")
            time.sleep(0.01)


def fault(db: Ledger) -> str:
    """What is wrong with the file, its tables or its mode; empty if nothing."""
    tables = "SELECT type, name, tbl_name, sql FROM sqlite_master"
    with contextlib.closing(sqlite3.connect(":memory:")) as new:
        new.executescript(_SCHEMA)
        differing = {f"{kind} {name}" for kind, name, *_ in set(new.execute(tables)) ^ set(db.execute(tables))}
    found = [line for (line,) in db.execute("PRAGMA integrity_check(5)") if line != "ok"]
    found += [f"{what} is missing, changed or was added" for what in sorted(differing)]
    mode = db.execute("PRAGMA journal_mode").fetchone()[0]
    found += [f"journal_mode is {mode}, not wal"] if mode != "wal" else []
    with Path(db.execute("PRAGMA database_list").fetchone()[2]).open("rb") as file:
        versions = file.read(20)[18:]
    found += ["the file header asks for another version of SQLite"] if versions != b"\x02\x02" else []
    return "; ".join(found)


def _one(db: Ledger, query: str, *values: Any) -> tuple[Any, ...]:
    """The first row that a query finds; ValueError where there is none, as the ledger is then not whole."""
    found = db.execute(query, values).fetchone()
    if found is None:
        raise ValueError(f"the ledger is damaged: nothing answers {query!r}")
    return found


def put_meta(db: Ledger, name: str, value: bytes) -> None:
    """Keeps a value by name; every later one is written over the first, byte by byte, and must be as long."""
    db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, value))
    with db.blobopen("meta", "value", _one(db, "SELECT rowid FROM meta WHERE name = ?", name)[0]) as blob:
        if len(blob) != len(value):
            raise ValueError(f"the new {name} has {len(value)} bytes, the stored one {len(blob)}")
        blob.write(value)


def meta(db: Ledger, name: str) -> bytes:
    """The value kept under a name."""
    return _one(db, "SELECT CAST(value AS BLOB) FROM meta WHERE name = ?", name)[0]


def all_meta(db: Ledger) -> dict[str, bytes]:
    """All values, by name."""
    return dict(db.execute("SELECT name, CAST(value AS BLOB) FROM meta"))


def add_people(db: Ledger, hashes: Sequence[bytes], positions: Iterable[int]) -> None:
    """Adds people by hash, each with the position of their row."""
    pairs = zip(hashes, (int(position) for position in positions), strict=True)
    db.executemany("INSERT INTO people VALUES (?, ?, 0)", sorted(pairs))


def find_people(db: Ledger, hashes: Iterable[bytes]) -> np.ndarray:
    """Looks people up.

    Args:
      db: the ledger.
      hashes: ``k`` hashes.

    Returns:
      ``(k, 2)`` int64: the position of each one's row, -1 for nobody; and the request that deleted them, 0 for none.
    """
    db.execute("CREATE TEMP TABLE asked (place INTEGER PRIMARY KEY, id BLOB NOT NULL)")
    db.executemany("INSERT INTO temp.asked VALUES (?, ?)", enumerate(hashes))
    found = db.execute(
        "SELECT coalesce(position, -1), coalesce(request, 0) FROM temp.asked LEFT JOIN people USING (id) ORDER BY place"
    ).fetchall()
    db.execute("DROP TABLE temp.asked")
    return np.array(found, np.int64).reshape(-1, 2)


def mark_deleted(db: Ledger, hashes: Iterable[bytes], request: int) -> None:
    """Notes which request deleted these people."""
    db.executemany("UPDATE people SET request = ? WHERE id = ?", ((request, name) for name in hashes))


def all_people(db: Ledger) -> Iterator[tuple[bytes, int, int]]:
    """Everybody: hash, position, and the request that deleted them (0: none)."""
    yield from db.execute("SELECT id, position, request FROM people")


def add_rows(db: Ledger, rows: np.ndarray) -> None:
    """Stores all rows, ``(n, width)`` float64; the last chunk is filled up with zeros."""
    rows = np.asarray(rows, _FLOAT)
    for number, begin in enumerate(range(0, len(rows), CHUNK)):
        part = rows[begin : begin + CHUNK]
        filled = np.concatenate([part, np.zeros((CHUNK - len(part), rows.shape[1]), _FLOAT)])
        db.execute("INSERT INTO chunks VALUES (?, ?)", (number, filled.tobytes()))


def rows_at(db: Ledger, positions: np.ndarray) -> np.ndarray:
    """The rows at these positions, ``(k, width)`` float64, in their order."""
    out = np.empty((len(positions), _chunk(db, 0).shape[1]), _FLOAT)
    for number, places in _by_chunk(positions):
        out[places] = _chunk(db, number)[positions[places] % CHUNK]
    return out


def rows_between(db: Ledger, start: int, stop: int) -> np.ndarray:
    """The rows at positions ``start`` to ``stop - 1``, ``(stop - start, width)`` float64."""
    numbers = range(start // CHUNK, -(-stop // CHUNK))
    out = np.empty((len(numbers) * CHUNK, _chunk(db, 0).shape[1]), _FLOAT)
    for place, number in enumerate(numbers):
        out[place * CHUNK : (place + 1) * CHUNK] = _chunk(db, number)
    return out[start % CHUNK :][: stop - start]


def erase_rows(db: Ledger, positions: np.ndarray) -> None:
    """Overwrites the rows at these positions with zeros, where they stand."""
    for number, places in _by_chunk(positions):
        with db.blobopen("chunks", "rows", number) as blob:
            width = len(blob) // CHUNK
            for position in positions[places]:
                blob.seek(int(position) % CHUNK * width)
                blob.write(bytes(width))


def padding(db: Ledger, rows: int) -> np.ndarray:
    """All that is stored after the first ``rows`` rows: what fills up the last chunk."""
    return rows_between(db, rows, _one(db, "SELECT count(*) FROM chunks")[0] * CHUNK)


def _chunk(db: Ledger, number: int) -> np.ndarray:
    (packed,) = _one(db, "SELECT rows FROM chunks WHERE number = ?", number)
    return np.frombuffer(packed, _FLOAT).reshape(CHUNK, -1)


def _by_chunk(positions: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each chunk that holds one of the positions, and which of them."""
    order = np.argsort(positions, kind="stable")
    numbers, starts, counts = np.unique(positions[order] // CHUNK, return_index=True, return_counts=True)
    for number, start, count in zip(numbers.tolist(), starts, counts, strict=True):
        yield number, order[start : start + count]


def add_record(db: Ledger, record: Record) -> None:
    """Adds a certificate."""
    db.execute("INSERT INTO records VALUES (?, ?, ?)", record)


def last_record(db: Ledger) -> Record:
    """The newest certificate."""
    return Record(*_one(db, "SELECT * FROM records ORDER BY number DESC LIMIT 1"))


def records(db: Ledger, numbers: Iterable[int] | None = None) -> Iterator[Record]:
    """All certificates from the first on, or those of the given numbers, as far as there are such."""
    if numbers is None:
        yield from (Record(*row) for row in db.execute("SELECT * FROM records ORDER BY number"))
        return
    for number in numbers:
        yield from (Record(*row) for row in db.execute("SELECT * FROM records WHERE number = ?", (number,)))
