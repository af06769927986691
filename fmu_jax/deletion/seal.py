"""The seal: a keyed digest of all that a ledger holds, kept in it alone and renewed with each request.

With ``h`` = BLAKE2b under the store's salt, the seal is two numbers of 256 bits,

    sum over everybody of h(hash of the id, position, request, row)  mod 2^256,    h(meta, last certificate's digest),

where the row of a deleted person is all zeros. A request checks all of it before it begins (3 us a person), and then
replaces its own people's terms.

The seal shows whether anything in the ledger differs from what the last request wrote, by decay, by mistake or on
purpose. It is no signature: anybody who can write the file and knows this code can seal it anew, since the salt lies
beside it, or can put an older copy of everything in its place. The seal never leaves the ledger and is overwritten
where it stands, because from the seals before and after a deletion, and the salt, a guess at the deleted row could be
checked.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

import numpy as np

from fmu_jax.deletion import ledger
from fmu_jax.deletion.ledger import Ledger

NAME = "seal"
BYTES = 32
"""Length of each of the two numbers."""
_MODULUS = 1 << (8 * BYTES)


def whole(meta: Mapping[str, bytes], people: Iterable[tuple[bytes, int, int]], rows: np.ndarray, last: str) -> bytes:
    """The seal of everything.

    Args:
      meta: All values that are kept by name.
      people: Everybody's hash, position and request.
      rows: Everybody's row, ``(n, width)`` float64, by position.
      last: Digest of the last certificate.

    Returns:
      ``2 * BYTES`` bytes: of the people, and of the rest.
    """
    total = sum(_person(meta["salt"], *person, rows[person[1]]) for person in people)
    return _joined(total, _books(meta, last))


def renew(db: Ledger, hashes: Sequence[bytes], positions: np.ndarray, rows: np.ndarray, request: int) -> None:
    """Seals a ledger again, after a request has changed all that it changes.

    Args:
      db: The ledger.
      hashes: Hashes of the people that the request deleted.
      positions: Positions of their rows.
      rows: The rows as they were, ``(k, width)``.
      request: Its number.
    """
    meta, gone = ledger.all_meta(db), np.zeros(rows.shape[1])
    total = int.from_bytes(meta[NAME][:BYTES], "little")
    for name, position, row in zip(hashes, positions.tolist(), rows, strict=True):
        total += _person(meta["salt"], name, position, request, gone) - _person(meta["salt"], name, position, 0, row)
    ledger.put_meta(db, NAME, _joined(total, _books(meta, ledger.last_record(db).digest)))


def check_books(db: Ledger) -> None:
    """Refuses settings, state or certificates that differ from the sealed ones.

    Raises:
      ValueError: They are not.
    """
    meta = ledger.all_meta(db)
    if meta.get(NAME, b"")[BYTES:] != _books(meta, ledger.last_record(db).digest):
        raise ValueError(
            "the ledger is damaged or was changed by hand: salt, settings, state or certificates do not fit its seal; "
            "nothing was done; verify tells more"
        )


def check(db: Ledger, people: int) -> None:
    """Refuses a ledger of so many people if anything in it differs from what was sealed.

    Reads everything: a deletion from swapped positions would erase one person and certify another.

    Raises:
      ValueError: Something is not.
    """
    meta, rows = ledger.all_meta(db), ledger.rows_between(db, 0, people)
    try:
        fits = meta.get(NAME) == whole(meta, ledger.all_people(db), rows, ledger.last_record(db).digest)
    except IndexError:  # A position beyond the rows.
        fits = False
    if not fits:
        raise ValueError(
            "the ledger is damaged or was changed by hand: people, positions or rows do not fit its seal; nobody was "
            "deleted; verify tells more"
        )


def _person(salt: bytes, name: bytes, position: int, request: int, row: np.ndarray) -> int:
    digest = blake2b(name, digest_size=BYTES, key=salt, person=b"person")
    for number in (position, request):
        digest.update(number.to_bytes(8, "little", signed=True))
    digest.update(row.tobytes())
    return int.from_bytes(digest.digest(), "little")


def _books(meta: Mapping[str, bytes], last: str) -> bytes:
    digest = blake2b(digest_size=BYTES, key=meta.get("salt", b""), person=b"books")
    for name, value in sorted([*meta.items(), ("last certificate", last.encode())]):
        if name != NAME:
            for part in (name.encode(), value):
                digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def _joined(total: int, books: bytes) -> bytes:
    return (total % _MODULUS).to_bytes(BYTES, "little") + books
