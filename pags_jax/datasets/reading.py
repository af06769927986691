"""Reading files and downloads, and refusing bad ones. Each message names the file, what it holds and what it should."""

import contextlib
import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pooch

CACHE = "pags_jax"
"""Folder for downloads in the user's cache folder."""


def listed(values: Iterable) -> str:
    """Writes values as a comma-separated list for a message."""
    return ", ".join(map(repr, values))


def read_bytes(path: Path) -> bytes:
    """Reads a whole file.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: It cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error})") from error


def check_size(path: Path, most_bytes: int) -> None:
    """Raises FileNotFoundError or ValueError unless there is a file of 1 to ``most_bytes`` bytes; it is not opened."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    if not 0 < (size := path.stat().st_size) <= most_bytes:
        raise ValueError(f"{path} has {size} bytes, expected 1 to {most_bytes}: it is damaged, or too large")


def gunzip(content: bytes, *, source: str) -> bytes:
    """Decompresses gzip.

    Raises:
      ValueError: The content is damaged or cut off.
    """
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{source} is damaged or cut off: {len(content)} bytes that are no whole gzip ({error})"
        ) from None


def check_sha256(content: bytes, expected: str, *, source: str) -> None:
    """Raises ValueError unless the content has this SHA-256 (hex)."""
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(f"{source} has contents of SHA-256 {found}, expected {expected}")


@contextlib.contextmanager
def advising(advice: str) -> Iterator[None]:
    """Ends the message of a ValueError or FileNotFoundError raised inside with what to do about it."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; {advice}") from error
    except ValueError as error:
        raise ValueError(f"{error}; {advice}") from error


def download(address: str, *, sha256: str, to: str) -> Path:
    """Downloads a file into the user's cache, or finds it there.

    Args:
      address: Address of the file.
      sha256: SHA-256 of its bytes (hex); a file with another one is not kept.
      to: Folder inside the cache.

    Returns:
      The path of the file, named as in its address.

    Raises:
      ValueError: It cannot be downloaded, or has another SHA-256.
    """
    name = address.rpartition("/")[2]
    try:
        path = pooch.retrieve(address, known_hash=f"sha256:{sha256}", fname=name, path=pooch.os_cache(CACHE) / to)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"cannot download {address}: {error}; download it by hand into a folder and pass folder="
        ) from error
    return Path(path)
