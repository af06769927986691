"""The ledger: one SQLite file that holds everything a store knows, and all the SQL.

Write-ahead log, ``synchronous=FULL``, and one ``BEGIN IMMEDIATE`` transaction for each request: it is wholly done or
not begun, and two processes are serialised. What is deleted is overwritten where it stands (incremental blobs;
``secure_delete`` for what SQLite frees itself), and after every commit the log is copied into the database and cut to
nothing, so that no old page stays in it. Rows of the table lie in ``chunks``.
"""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from fmu_jax.deletion.chunks import CHUNK as CHUNK
from fmu_jax.deletion.chunks import add_rows as add_rows
from fmu_jax.deletion.chunks import erase_rows as erase_rows
from fmu_jax.deletion.chunks import one
from fmu_jax.deletion.chunks import padding as padding
from fmu_jax.deletion.chunks import rows_at as rows_at
from fmu_jax.deletion.chunks import rows_between as rows_between
from fmu_jax.deletion.waiting import patiently, place

NAME = "ledger.sqlite"
WAIT_S = 600.0
"""How long one process waits for another's request."""
_APPLICATION = 0x464D5544
_VERSION = 3

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
      folder: Folder for the ledger; it must exist and hold no ledger.

    Yields:
      The open ledger, without rows.

    Raises:
      OSError: It cannot be written.
    """
    path = folder / NAME
    os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    with _errors(path), contextlib.closing(_connect(path)) as db:
        db.executescript(_SCHEMA)
        yield db
        settle(db)


@contextlib.contextmanager
def opened(folder: Path, *, to_look: bool = False) -> Iterator[Ledger]:
    """Opens a store's ledger, and finishes what a killed process left: its log is copied into the database.

    Args:
      folder: The store.
      to_look: Nothing is going to be written, so that a store on a read-only disk will do; see `read_only`.

    Yields:
      The open ledger.

    Raises:
      FileNotFoundError: There is no store.
      PermissionError: The store cannot be written to, and is not only looked at, or holds an unfinished log.
      ValueError: The file is no ledger, or of another version.
      OSError: It cannot be read or written, another process keeps it locked, or changes it while it is looked at.
    """
    path = folder / NAME
    if not path.is_file():
        raise FileNotFoundError(f"there is no store in {folder} ({NAME} is missing); make one with the command train")
    closed = next((place for place in (folder, path) if not os.access(place, os.W_OK)), None)
    if closed and not to_look:
        raise PermissionError(f"{closed} is read-only for you, or its disk is; make it writable, or copy the store")
    before = _stamp(path)
    if closed and before[-1]:
        raise PermissionError(
            f"{path}-wal holds what a killed process has not copied into the ledger, and {closed} is read-only; run "
            "this command where the store can be written to, once, or copy the whole store to such a place"
        )
    with _errors(path), contextlib.closing(_connect(path, immutable=bool(closed))) as db:
        marks = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        if marks != [_APPLICATION, _VERSION]:
            raise ValueError(_otherwise(path, marks))
        if not closed:
            settle(db)
        yield db
        if closed and _stamp(path) != before:
            raise OSError(f"{path} was changed by another process while it was read; run this command again")


def _otherwise(path: Path, marks: list[int]) -> str:
    """Why a file is no ledger of this version, and what to do."""
    if marks[0] != _APPLICATION or marks[1] >= _VERSION:
        return f"{path} is no ledger of version {_VERSION}"
    return (
        f"{path} is of version {marks[1]}, whose models had secret noise in the training, a guarantee that a series of "
        "published models does not have; the store stays as it is, with its certificates. Take the people whom it "
        "deleted out of your table, and train a new store"
    )


def read_only(db: Ledger) -> bool:
    """Whether a ledger was opened on a read-only disk: nothing can be written, and no lock is held."""
    return bool(db.execute("PRAGMA query_only").fetchone()[0])


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when somebody writes: time and size of the file, size of its log."""
    found, log = path.stat(), path.with_name(f"{NAME}-wal")
    return found.st_mtime_ns, found.st_size, log.stat().st_size if log.exists() else 0


def _connect(path: Path, *, immutable: bool = False) -> Ledger:
    how = "mode=ro&immutable=1" if immutable else "mode=rw"  # SQLite's locks are files beside the ledger.
    db = sqlite3.connect(f"file:{quote(str(path.absolute()))}?{how}", uri=True, isolation_level=None, timeout=WAIT_S)
    pragmas = ["synchronous = FULL", "secure_delete = ON", "temp_store = MEMORY", "cache_size = -65536"]
    try:
        for pragma in [*pragmas, *(["query_only = ON"] if immutable else [])]:
            db.execute(f"PRAGMA {pragma}")
    except BaseException:
        db.close()
        raise
    return db


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    """SQLite's errors as errors of a file."""
    try:
        yield
    except sqlite3.Error as error:
        failed = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
        left = f" (its disk has {shutil.disk_usage(path.parent).free} bytes left)" if failed else ""
        raise OSError(f"{path}: {error}{left}") from error


@contextlib.contextmanager
def exclusive(db: Ledger) -> Iterator[None]:
    """One transaction, alone: what is done inside is kept as a whole, or, after an error, not at all.

    Raises:
      OSError: Another process keeps the store busy.
    """
    if read_only(db):
        db.execute("BEGIN")
    else:
        patiently(db, "BEGIN IMMEDIATE", most_s=WAIT_S)
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
      OSError: Another process keeps the store busy, or the disk is full; the log stays until the store is next opened.
    """
    with _errors(place(db)):
        # SQLite waits for another process's transaction, but not for its checkpoint.
        patiently(db, "PRAGMA wal_checkpoint(TRUNCATE)", most_s=WAIT_S)


def fault(db: Ledger) -> str:
    """What is wrong with the file, its tables or its mode; empty if nothing."""
    tables = "SELECT type, name, tbl_name, sql FROM sqlite_master"
    with contextlib.closing(sqlite3.connect(":memory:")) as new:
        new.executescript(_SCHEMA)
        differing = {f"{kind} {name}" for kind, name, *_ in set(new.execute(tables)) ^ set(db.execute(tables))}
    found = [line for (line,) in db.execute("PRAGMA integrity_check(5)") if line != "ok"]
    found += [f"{what} is missing, changed or was added" for what in sorted(differing)]
    with place(db).open("rb") as file:
        versions = file.read(20)[18:]
    found += ["the file header asks for no write-ahead log"] if versions != b"\x02\x02" else []
    return "; ".join(found)


def put_meta(db: Ledger, name: str, value: bytes) -> None:
    """Keeps a value by name; every later one is written over the first, byte by byte, and must be as long."""
    db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, value))
    with db.blobopen("meta", "value", one(db, "SELECT rowid FROM meta WHERE name = ?", name)[0]) as blob:
        if len(blob) != len(value):
            raise ValueError(f"the new {name} has {len(value)} bytes, the stored one {len(blob)}")
        blob.write(value)


def meta(db: Ledger, name: str) -> bytes:
    """The value kept under a name."""
    return one(db, "SELECT CAST(value AS BLOB) FROM meta WHERE name = ?", name)[0]


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
      db: The ledger.
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


def add_record(db: Ledger, record: Record) -> None:
    """Adds a certificate."""
    db.execute("INSERT INTO records VALUES (?, ?, ?)", record)


def last_record(db: Ledger) -> Record:
    """The newest certificate."""
    return Record(*one(db, "SELECT * FROM records ORDER BY number DESC LIMIT 1"))


def records(db: Ledger, numbers: Iterable[int] | None = None) -> Iterator[Record]:
    """All certificates from the first on, or those of the given numbers, as far as there are such."""
    if numbers is None:
        yield from (Record(*row) for row in db.execute("SELECT * FROM records ORDER BY number"))
        return
    for number in numbers:
        yield from (Record(*row) for row in db.execute("SELECT * FROM records WHERE number = ?", (number,)))
