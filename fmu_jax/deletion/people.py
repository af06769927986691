"""People: identifiers as exact text, and the salted hashes that stand for them in a store."""

import hmac
from collections.abc import Iterable, Sequence
from pathlib import Path

HASH_BYTES = 16
"""Length of a hash; two of a hundred million people share one with probability below 10^-22."""

LEFT_OUT = "left out"
"""Name under which a ledger keeps the hashes of the people whom the training left out, if there are any."""

NAMED = 100
"""How many identifiers a message names."""


def read_ids(path: Path, encoding: str = "utf-8") -> list[str]:
    """Reads identifiers, one a line; white space around them and blank lines do not count.

    Args:
      path: A text file.
      encoding: Encoding of the file.

    Returns:
      The identifiers, in order, repeated ones included.

    Raises:
      OSError: The file cannot be read.
      ValueError: It is of another encoding, or holds no identifier.
    """
    try:
        lines = path.read_text(encoding=encoding).removeprefix("\ufeff").split("\n")
    except FileNotFoundError:
        raise FileNotFoundError(f"--ids: there is no file {path}; it is a text file that holds one id a line") from None
    except LookupError as error:
        raise ValueError(f"--encoding {encoding}: {error}") from None
    except UnicodeError as error:
        at = f"{error.reason} at byte {error.start}" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ValueError(
            f"{path} is no text in {encoding.upper()} ({at}); save it in UTF-8, or pass --encoding"
        ) from None
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise ValueError(f"{path} holds no id; write one a line")
    return ids


def repeated(ids: Iterable[str]) -> list[str]:
    """The identifiers that occur more than once, each once, in order.

    >>> repeated(["7", "007", "7", "8", "7"])
    ['7']
    """
    names: set[str] = set()
    twice: dict[str, None] = {}
    for name in ids:
        if name in names:
            twice[name] = None
        names.add(name)
    return list(twice)


def named(ids: Sequence[str]) -> str:
    """Identifiers for a message: up to `NAMED` of them, and how many more there are.

    >>> named(["7", "007"])
    "'7', '007'"
    """
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return ", ".join(map(repr, ids[:NAMED])) + more


def check_ids(ids: Sequence[str], *, source: str) -> None:
    """Refuses a table in which a person has no identifier, two rows have the same one, or one is more than a line.

    Args:
      ids: Ids of the rows, in order.
      source: Name of the table for messages.

    Raises:
      ValueError: The identifiers have such a fault; the message names it.
    """
    missing = [row for row, name in enumerate(ids) if not name]
    if missing:
        raise ValueError(f"{source} has no id in {len(missing)} rows (first: record {missing[0] + 1}); fill them in")
    twice = repeated(ids)
    if twice:
        raise ValueError(f"{source} repeats the id {named(twice)}; each row needs an id of its own")
    marked = [name for name in ids if "\ufeff" in name]
    if marked:
        raise ValueError(
            f"{source} has a byte order mark in the id {named(marked)}, as where files were joined; take it out, or "
            "nobody sees whom the id means"
        )
    broken = [name for name in ids if name.splitlines() != [name]]
    if broken:
        raise ValueError(
            f"{source} has a line break in the id {named(broken)}; whom to delete is named one a line, so that nobody "
            "could name these people: take the breaks out"
        )


def hash_ids(salt: bytes, ids: Iterable[str]) -> list[bytes]:
    """HMAC-SHA256 of each identifier under the store's salt, cut to `HASH_BYTES`.

    Without the salt a hash can be neither inverted nor guessed, so that a certificate names nobody.

    >>> hash_ids(b"salt", ["7"]) == hash_ids(b"salt", ["007"])
    False
    """
    return [hmac.digest(salt, name.encode(), "sha256")[:HASH_BYTES] for name in ids]


def left_out(hashes: bytes) -> set[bytes]:
    """The hashes, joined, of the people whom a training left out."""
    return {hashes[k : k + HASH_BYTES] for k in range(0, len(hashes), HASH_BYTES)}
