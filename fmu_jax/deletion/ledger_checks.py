"""Checks of a store's files and of its books: the chain, the people, their rows, the numbers.

Each takes what there is to see, returns what it found in words, and raises when two things disagree.
"""

import stat
from pathlib import Path
from typing import Any

import numpy as np

from fmu_jax.deletion import exports, guarantee, ledger, records, seal
from fmu_jax.deletion.evidence import Seen, agree

_FOLLOWING = {exports.MODEL, exports.CERTIFICATES, exports.REPORT}


def check_database(seen: Seen) -> str:
    """SQLite's own checks, and that there are the tables of a ledger and nothing else."""
    agree(not seen.fault, seen.fault)
    return "whole"


def check_seal(seen: Seen) -> str:
    """The ledger is as it was sealed; see ``seal`` for what that shows."""
    kept = seen.meta[seal.NAME]
    everybody = zip(seen.hashes, seen.positions.tolist(), seen.requests.tolist(), strict=True)
    again = seal.whole(seen.meta, everybody, seen.rows, seen.kept[-1].digest)
    parts = {
        "people (hashes, positions, requests or rows)": slice(seal.BYTES),
        "books (salt, settings, state or certificates)": slice(seal.BYTES, None),
    }
    changed = [name for name, part in parts.items() if again[part] != kept[part]]
    agree(not changed, f"what the ledger holds is not what was sealed: {' and '.join(changed)}")
    return f"{len(seen.hashes)} people, {len(seen.meta) - 1} values and the certificates are as they were sealed"


def check_privacy(seen: Seen) -> str:
    """Nobody but the owner can read a file of the store."""
    places = [seen.folder, *seen.folder.rglob("*")]
    open_ = [str(path) for path in places if stat.S_IMODE(path.stat().st_mode) & 0o077]
    agree(not open_, f"others have access to {', '.join(open_[:3])}; chmod -R go= the store")
    known = {ledger.NAME, f"{ledger.NAME}-wal", f"{ledger.NAME}-shm"} | _FOLLOWING
    foreign = sorted({path.name for path in seen.folder.iterdir()} - known)
    rest = "report removes what a kill left (.tmp-...), the rest is yours to take away"
    agree(not foreign, f"files that do not belong to the store: {', '.join(foreign[:3])}; {rest}")
    return f"{len(places)} files and folders, the owner's only"


def check_chain(seen: Seen) -> str:
    """Each certificate has its digest and names the one before it."""
    previous = None
    for number, (record, said) in enumerate(zip(seen.kept, seen.said, strict=True)):
        agree(record.number == number == said["number"], f"certificate {number} is missing or numbered otherwise")
        agree(records.digest_of(record.text) == record.digest, f"certificate {number} does not have its digest")
        agree(said["previous"] == previous, f"certificate {number} does not name the one before it")
        agree(said["store"] == seen.settings.store, f"certificate {number} is of another store")
        agree(said["format"] == records.FORMAT, f"certificate {number} has another format")
        _check_form(number, said, seen.said[0])
        previous = record.digest
    return f"{len(seen.kept)} certificates, the last {previous}"


def _check_form(number: int, said: dict[str, Any], first: dict[str, Any]) -> None:
    """A certificate has the fields of the first one."""
    agree(said.keys() == first.keys(), f"certificate {number} has other fields than the first")
    versions = said["versions"]
    named = versions.keys() == records.versions().keys() and all(isinstance(text, str) for text in versions.values())
    agree(named and said["dtype"] == "float64", f"certificate {number} names other versions or another precision")


def check_certificates(seen: Seen) -> str:
    """The certificate files are those of the ledger."""
    folder = seen.folder / exports.CERTIFICATES
    texts = {exports.certificate_name(record.number): record.text.encode() for record in seen.kept}
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    wrong = {
        "missing": texts.keys() - there,
        "not what the ledger holds": {name for name in texts.keys() & there if not _holds(folder / name, texts[name])},
        "not of the ledger": there - texts.keys(),
    }
    said = "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in wrong.items() if names)
    agree(not said, f"in {folder} {said}; take away what should not be there, then report writes what is missing")
    return f"{len(texts)} files equal the ledger"


def check_people(seen: Seen) -> str:
    """Everybody has one row, and those deleted are whom the certificates name."""
    n = seen.settings.rows
    agree(len(seen.hashes) == n, f"there are {len(seen.hashes)} people, not {n}")
    agree(np.array_equal(np.sort(seen.positions), np.arange(n)), "people do not have one row each")
    by_request: dict[int, set[str]] = {number: set() for number in range(1, len(seen.kept))}
    for place in np.flatnonzero(seen.requests):
        number = int(seen.requests[place])
        agree(number in by_request, f"somebody was deleted by request {number}, which is not in the ledger")
        by_request[number].add(seen.hashes[place].hex())
    for number, named in by_request.items():
        listed = seen.said[number]["ids"]
        agree(len(listed) == len(named) and set(listed) == named, f"certificate {number} names other people")
    return f"{n} people, {int((seen.requests > 0).sum())} of them deleted"


def check_rows(seen: Seen) -> str:
    """The deleted people's rows are gone, and nobody else's is."""
    deleted = np.zeros(len(seen.rows), bool)
    deleted[seen.positions] = seen.requests > 0
    left = np.flatnonzero(deleted & seen.rows.any(axis=1))
    agree(not len(left), f"{len(left)} deleted people's rows are still there")
    there = seen.rows[~deleted]
    lost = int((there[:, -3] != 1).sum())
    agree(not lost, f"{lost} rows of people who were not deleted are gone")
    agree(len(seen.padding) < ledger.CHUNK, "there are more rows than people")
    groups = len(seen.settings.group_values)
    valid = (
        np.isfinite(there).all() and np.isin(there[:, -2], (0, 1)).all() and np.isin(there[:, -1], range(groups)).all()
    )
    agree(valid, f"a row holds something that is no number, or a label or group that is none of the 2 and {groups}")
    agree(not seen.padding.any(), "there is something after the last row")
    return f"{len(there)} rows there, {int(deleted.sum())} gone"


def check_numbers(seen: Seen) -> str:
    """The certificates' counts add up."""
    gone, held_out = seen.requests > 0, seen.positions < seen.settings.test_rows
    train, test = (np.bincount(seen.requests[gone & part], minlength=len(seen.kept)) for part in (~held_out, held_out))
    left = {"train": seen.settings.train_rows, "test": seen.settings.test_rows}
    for number, said in enumerate(seen.said):
        counted = {"train": int(train[number]), "test": int(test[number])}
        agree(said["deleted"] == counted, f"certificate {number} counts {said['deleted']}, the ledger {counted}")
        left = {part: left[part] - counted[part] for part in left}
        agree(said["remaining"] == left, f"certificate {number} says that {said['remaining']} remain, not {left}")
        before = seen.said[number - 1]["after"] if number else None
        agree(said["before"] == before, f"certificate {number} does not begin where the one before ends")
    stored = int(seen.state.deleted)
    agree(stored == train.sum(), f"the state counts {stored} deleted, the certificates {train.sum()}")
    return f"{int(train.sum())} training and {int(test.sum())} held-out people deleted"


def check_guarantee(seen: Seen) -> str:
    """What each certificate promises follows from the settings and from how many models were released before."""
    settings, released = seen.settings, 0
    for number, said in enumerate(seen.said):
        fresh = said["deleted"]["train"] > 0
        released += fresh
        expected = records.promise(settings, released, fresh)
        for name, value in expected.items():
            differing = f"certificate {number} says of its {name} {said[name]}, the settings {value}"
            agree(said[name] == value, differing)
        same = number == 0 or fresh or said["model"] == seen.said[number - 1]["model"]
        agree(same, f"certificate {number} is of another model than the one before, and no release came with it")
    spent = guarantee.cost(settings, released)
    planned = f"mu {spent.series_mu:g} of {guarantee.said(settings.mu, 4)} planned, epsilon {spent.series_epsilon:g}"
    return f"{released} releases, {planned}, {spent.left} left"


def check_model(seen: Seen) -> str:
    """The published model is the ledger's, and the one of the last certificate."""
    named = seen.said[-1]["model"] == records.digest_of_params(seen.released)
    agree(named, "the published parameters are not those of the last certificate")
    expected = exports.model_text(seen.settings, seen.released, seen.kept[-1])
    path = seen.folder / exports.MODEL
    agree(path.exists(), f"{path} is missing; report writes it")
    agree(_holds(path, expected.encode()), f"{path} is not what the ledger says; report writes it anew")
    return f"{path.name} is of request {seen.kept[-1].number}"


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
