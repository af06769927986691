"""The files that follow the ledger: the published model and the certificates.

They are written after a request is committed, and what a kill left out is written by the next ``delete`` or ``report``;
``verify`` writes nothing. A certificate that is there is never overwritten, so that one that was tampered with stays to
be seen; ``model.json`` is, whenever it is not what the ledger says.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fmu_jax.deletion import files, ledger, records, seal
from fmu_jax.deletion.ledger import Ledger, Record
from fmu_jax.deletion.model import Settings
from fmu_jax.deletion.waiting import holder

MODEL = "model.json"
CERTIFICATES = "certificates"
REPORT = "report.html"
RELEASED = "released"
"""Name under which a ledger keeps the published parameters, as float64."""


def certificate_name(number: int) -> str:
    """The file name of a certificate.

    >>> certificate_name(7)
    '000007.json'
    """
    return f"{number:06d}.json"


@contextlib.contextmanager
def private() -> Iterator[None]:
    """New files and folders are for their owner only."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A folder beside a new store's place, which takes that place once it is whole; what a kill left is removed.

    Raises:
      ValueError: Another process is making a store there.
      OSError: Nothing can be written there.
    """
    place = folder.with_name(f"{files.TEMPORARY_PREFIX}{folder.name}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    place.mkdir(mode=0o700, exist_ok=True)
    lock = place / ".lock"
    with lock.open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{holder(lock)} is training for {folder}; wait for it") from None
        try:
            for leftover in place.iterdir():
                if leftover != lock:
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            yield place
            lock.unlink()
            files.sync_folder(place)
            place.rename(folder)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
    files.sync_folder(folder.parent)


def catch_up(db: Ledger, folder: Path) -> None:
    """Writes what is missing, and ``model.json`` unless it is the ledger's; nobody else writes meanwhile.

    Raises:
      ValueError: The ledger does not fit its seal, so that nothing of it is to be published.
      OSError: A file cannot be written.
    """
    with private(), ledger.exclusive(db):
        seal.check_books(db)
        certificates = folder / CERTIFICATES
        certificates.mkdir(exist_ok=True)
        for place in (folder, certificates):
            files.remove_leftovers(place)
        last = ledger.last_record(db)
        present = {path.name for path in certificates.iterdir()}
        missing = [number for number in range(last.number + 1) if certificate_name(number) not in present]
        for record in ledger.records(db, missing):
            files.write_text(certificates / certificate_name(record.number), record.text)
        settings = Settings.from_json(ledger.meta(db, "settings"))
        text = model_text(settings, released(db), last)
        path = folder / MODEL
        if not path.exists() or path.read_bytes() != text.encode():
            files.write_text(path, text)


def check_certificate(folder: Path, record: Record) -> None:
    """Raises OSError unless a certificate's file holds it: what was there before is not overwritten."""
    path = folder / CERTIFICATES / certificate_name(record.number)
    if not path.is_file() or path.read_bytes() != record.text.encode():
        raise FileExistsError(f"{path} is something else; move it away")


def released(db: Ledger) -> np.ndarray:
    """The parameters that are published now, ``(d,)``."""
    return np.frombuffer(ledger.meta(db, RELEASED), "<f8")


def model_text(settings: Settings, params: np.ndarray, last: Record) -> str:
    """``model.json``: all that is needed to predict, and nothing secret."""
    certificate = records.parse(last)
    content = {
        "format": records.FORMAT,
        "store": settings.store,
        "request": last.number,
        "certificate": last.digest,
        "predict": "label 1 where sum(params * [(features - center) / scale, 1]) > 0",
        "feature_names": settings.feature_names,
        "params": params.tolist(),
        "center": settings.center,
        "scale": settings.scale_of_features,
        "label_name": settings.label_name,
        "label_values": settings.label_values,
        "group_name": settings.group_name,
        "group_values": settings.group_values,
        "release": certificate["release"],
        "series": certificate["series"],
        "statement": certificate["statement"],
    }
    return records.to_json(content)
