"""Waits for another process that uses a store, and names it."""

import os
import sqlite3
import sys
import time
from pathlib import Path

NOTICE_S = 2.0
"""After how long a process says that it is waiting."""
_PAUSE_S = 0.02
_SHOWN = 100


def place(db: sqlite3.Connection) -> Path:
    """The file of a database."""
    return Path(db.execute("PRAGMA database_list").fetchone()[2])


def patiently(db: sqlite3.Connection, statement: str, *, most_s: float) -> None:
    """Runs a statement that waits for other processes, and says on standard error for whom.

    Args:
      db: The database.
      statement: A transaction's beginning, or a checkpoint, whose first answer is 1 while another process is busy.
      most_s: How long to wait.

    Raises:
      OSError: Another process was busy all that time.
    """
    path, begin, announced = place(db), time.monotonic(), False
    while not _done(db, statement):
        waited = time.monotonic() - begin
        if waited > most_s:
            raise OSError(f"{path}: {holder(path)} has kept the store busy for {most_s:.0f} s")
        if waited > NOTICE_S and not announced:
            print(f"waiting for {holder(path)}, which uses {path.parent}", file=sys.stderr, flush=True)
            announced = True
        time.sleep(_PAUSE_S)


def _done(db: sqlite3.Connection, statement: str) -> bool:
    (before,) = db.execute("PRAGMA busy_timeout").fetchone()
    db.execute("PRAGMA busy_timeout = 0")
    try:
        return not (db.execute(statement).fetchone() or (0,))[0]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    finally:
        db.execute(f"PRAGMA busy_timeout = {before}")


def holder(*paths: Path) -> str:
    """Who has locked one of these files, or what SQLite keeps beside it, for writing.

    Returns:
      "process 123 (its command line)", or "another process" where the system does not tell (it is Linux that does).
    """
    files = [Path(f"{path}{end}") for path in paths for end in ("", "-shm", "-wal")]
    inodes = {str(file.stat().st_ino) for file in files if file.exists()}
    try:
        locks = [line.split() for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines()]
        # Such as "1: POSIX ADVISORY WRITE 123 fe:00:2154729 120 120"; who waits has an arrow in the second place.
        of_files = (lock for lock in locks if lock[1] != "->" and lock[5].split(":")[-1] in inodes)
        pid = next(lock[4] for lock in of_files if lock[3] == "WRITE" and int(lock[4]) not in (0, os.getpid()))
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except (OSError, StopIteration, IndexError, ValueError):
        return "another process"
    command = " ".join(" ".join(words).split())
    return f"process {pid} ({command if len(command) <= _SHOWN else command[:_SHOWN] + '...'})"
