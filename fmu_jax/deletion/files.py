"""Atomic writes: a reader, or a run that resumes after a kill, finds either the old file or the new one."""

import contextlib
import os
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically and durably.

    The content goes to a temporary file in the same folder, is flushed to the disk, and takes the place of ``path`` by
    a rename; then the folder itself is flushed, so that the rename outlives a power cut.

    Args:
      path: Where the file goes; missing parent folders are made.
      content: The whole content.

    Raises:
      OSError: If the folder cannot be written to, or the disk is full; ``path`` is then as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_bytes(Path(folder) / "a" / "b.txt", b"hello")
    ...     (Path(folder) / "a" / "b.txt").read_bytes()
    b'hello'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}"[:200])
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text(path: Path, content: str) -> None:
    """Writes a text file as UTF-8, as `write_bytes` does; lone surrogates, which UTF-8 cannot hold, are backslashed."""
    write_bytes(path, content.encode("utf-8", errors="backslashreplace"))


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries to the disk.

    Args:
      folder: An existing folder.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files that a killed writer left in a folder; call it only while nobody else writes."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        leftover.unlink(missing_ok=True)
