"""Checks of a store's files and of its books: the chain, the people, their rows, the numbers.

Each check takes the evidence, returns its finding in words, and raises if two things disagree.
"""

import stat
from pathlib import Path
from typing import Any

import numpy as np

from fmu_jax.deletion import exports, guarantee, ledger, records, seal
from fmu_jax.deletion.evidence import Evidence, agree

_FOLLOWING = {exports.MODEL, exports.CERTIFICATES, exports.REPORT}


def check_database(evidence: Evidence) -> str:
    """SQLite's own checks, and that there are the tables of a ledger and nothing else."""
    agree(not evidence.fault, evidence.fault)
    return "whole"


def check_seal(evidence: Evidence) -> str:
    """The ledger is as it was sealed; see ``seal`` for what that shows."""
    sealed = evidence.meta[seal.NAME]
    everybody = zip(evidence.hashes, evidence.positions.tolist(), evidence.requests.tolist(), strict=True)
    again = seal.whole(evidence.meta, everybody, evidence.rows, evidence.certificates[-1].digest)
    parts = {
        "people (hashes, positions, requests or rows)": slice(seal.BYTES),
        "books (salt, settings, state or certificates)": slice(seal.BYTES, None),
    }
    changed = [name for name, part in parts.items() if again[part] != sealed[part]]
    agree(not changed, f"what the ledger holds is not what was sealed: {' and '.join(changed)}")
    return (
        f"{len(evidence.hashes)} people, {len(evidence.meta) - 1} values and the certificates are as they were sealed"
    )


def check_privacy(evidence: Evidence) -> str:
    """Nobody but the owner can read a file of the store."""
    places = [evidence.folder, *evidence.folder.rglob("*")]
    open_ = [str(path) for path in places if stat.S_IMODE(path.stat().st_mode) & 0o077]
    agree(not open_, f"others have access to {', '.join(open_[:3])}; chmod -R go= the store")
    known = {ledger.NAME, f"{ledger.NAME}-wal", f"{ledger.NAME}-shm"} | _FOLLOWING
    foreign = sorted({path.name for path in evidence.folder.iterdir()} - known)
    rest = "report removes what a kill left (.tmp-...), the rest is yours to take away"
    agree(not foreign, f"files that do not belong to the store: {', '.join(foreign[:3])}; {rest}")
    return f"{len(places)} files and folders, the owner's only"


def check_chain(evidence: Evidence) -> str:
    """Each certificate has its digest and names the one before it."""
    previous = None
    for number, (record, content) in enumerate(zip(evidence.certificates, evidence.contents, strict=True)):
        agree(record.number == number == content["number"], f"certificate {number} is missing or numbered otherwise")
        agree(records.digest_of(record.text) == record.digest, f"certificate {number} does not have its digest")
        agree(content["previous"] == previous, f"certificate {number} does not name the one before it")
        agree(content["store"] == evidence.settings.store, f"certificate {number} is of another store")
        agree(content["format"] == records.FORMAT, f"certificate {number} has another format")
        _check_form(number, content, evidence.contents[0])
        previous = record.digest
    return f"{len(evidence.certificates)} certificates, the last {previous}"


def _check_form(number: int, content: dict[str, Any], first: dict[str, Any]) -> None:
    """A certificate has the fields of the first one."""
    agree(content.keys() == first.keys(), f"certificate {number} has other fields than the first")
    versions = content["versions"]
    named = versions.keys() == records.versions().keys() and all(isinstance(text, str) for text in versions.values())
    agree(named and content["dtype"] == "float64", f"certificate {number} names other versions or another precision")


def check_certificates(evidence: Evidence) -> str:
    """The certificate files are those of the ledger."""
    folder = evidence.folder / exports.CERTIFICATES
    texts = {exports.certificate_name(record.number): record.text.encode() for record in evidence.certificates}
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    wrong = {
        "missing": texts.keys() - there,
        "not what the ledger holds": {name for name in texts.keys() & there if not _holds(folder / name, texts[name])},
        "not of the ledger": there - texts.keys(),
    }
    differences = "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in wrong.items() if names)
    agree(
        not differences,
        f"in {folder} {differences}; take away what should not be there, then report writes what is missing",
    )
    return f"{len(texts)} files equal the ledger"


def check_people(evidence: Evidence) -> str:
    """Everybody has one row, and those deleted are whom the certificates name."""
    n = evidence.settings.rows
    agree(len(evidence.hashes) == n, f"there are {len(evidence.hashes)} people, not {n}")
    agree(np.array_equal(np.sort(evidence.positions), np.arange(n)), "people do not have one row each")
    by_request: dict[int, set[str]] = {number: set() for number in range(1, len(evidence.certificates))}
    for place in np.flatnonzero(evidence.requests):
        number = int(evidence.requests[place])
        agree(number in by_request, f"somebody was deleted by request {number}, which is not in the ledger")
        by_request[number].add(evidence.hashes[place].hex())
    for number, named in by_request.items():
        listed = evidence.contents[number]["ids"]
        agree(len(listed) == len(named) and set(listed) == named, f"certificate {number} names other people")
    return f"{n} people, {int((evidence.requests > 0).sum())} of them deleted"


def check_rows(evidence: Evidence) -> str:
    """The deleted people's rows are gone, and nobody else's is."""
    deleted = np.zeros(len(evidence.rows), bool)
    deleted[evidence.positions] = evidence.requests > 0
    left = np.flatnonzero(deleted & evidence.rows.any(axis=1))
    agree(not len(left), f"{len(left)} deleted people's rows are still there")
    there = evidence.rows[~deleted]
    lost = int((there[:, -3] != 1).sum())
    agree(not lost, f"{lost} rows of people who were not deleted are gone")
    agree(len(evidence.padding) < ledger.CHUNK, "there are more rows than people")
    groups = len(evidence.settings.group_values)
    valid = (
        np.isfinite(there).all() and np.isin(there[:, -2], (0, 1)).all() and np.isin(there[:, -1], range(groups)).all()
    )
    agree(valid, f"a row holds something that is no number, or a label or group that is none of the 2 and {groups}")
    agree(not evidence.padding.any(), "there is something after the last row")
    return f"{len(there)} rows there, {int(deleted.sum())} gone"


def check_numbers(evidence: Evidence) -> str:
    """The certificates' counts add up."""
    gone, held_out = evidence.requests > 0, evidence.positions < evidence.settings.test_rows
    train, test = (
        np.bincount(evidence.requests[gone & part], minlength=len(evidence.certificates))
        for part in (~held_out, held_out)
    )
    left = {"train": evidence.settings.train_rows, "test": evidence.settings.test_rows}
    for number, content in enumerate(evidence.contents):
        counted = {"train": int(train[number]), "test": int(test[number])}
        agree(content["deleted"] == counted, f"certificate {number} counts {content['deleted']}, the ledger {counted}")
        left = {part: left[part] - counted[part] for part in left}
        agree(content["remaining"] == left, f"certificate {number} says that {content['remaining']} remain, not {left}")
        before = evidence.contents[number - 1]["after"] if number else None
        agree(content["before"] == before, f"certificate {number} does not begin where the one before ends")
    stored = int(evidence.state.deleted)
    agree(stored == train.sum(), f"the state counts {stored} deleted, the certificates {train.sum()}")
    return f"{int(train.sum())} training and {int(test.sum())} held-out people deleted"


def check_guarantee(evidence: Evidence) -> str:
    """What each certificate promises follows from the settings and from how many models were released before."""
    settings, released = evidence.settings, 0
    for number, content in enumerate(evidence.contents):
        fresh = content["deleted"]["train"] > 0
        released += fresh
        expected = records.promise(settings, released, fresh)
        for name, value in expected.items():
            differing = f"certificate {number} says of its {name} {content[name]}, the settings {value}"
            agree(content[name] == value, differing)
        same = number == 0 or fresh or content["model"] == evidence.contents[number - 1]["model"]
        agree(same, f"certificate {number} is of another model than the one before, and no release came with it")
    spent = guarantee.cost(settings, released)
    planned = (
        f"mu {spent.series_mu:g} of {guarantee.limit_text(settings.mu, 4)} planned, epsilon {spent.series_epsilon:g}"
    )
    return f"{released} release{'s' * (released != 1)}, {planned}, {spent.left} left"


def check_model(evidence: Evidence) -> str:
    """The published model is the ledger's, and the one of the last certificate."""
    named = evidence.contents[-1]["model"] == records.digest_of_params(evidence.released)
    agree(named, "the published parameters are not those of the last certificate")
    expected = exports.model_text(evidence.settings, evidence.released, evidence.certificates[-1])
    path = evidence.folder / exports.MODEL
    agree(path.exists(), f"{path} is missing; report writes it")
    agree(_holds(path, expected.encode()), f"{path} is not what the ledger says; report writes it anew")
    return f"{path.name} is of request {evidence.certificates[-1].number}"


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
