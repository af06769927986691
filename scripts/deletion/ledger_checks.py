"""Checks of a store's files and of its books: the chain, the people, their rows, the numbers.

Each takes what there is to see, returns what it found in words, and raises when two things disagree.
"""

import stat
from collections import Counter
from typing import Any

import numpy as np

from fmu_jax import privacy
from scripts.deletion import exports, ledger, records
from scripts.deletion.evidence import Seen, agree
from scripts.deletion.model import Settings

_FOLLOWING = {exports.MODEL, exports.CERTIFICATES, exports.REPORT}
_ROUNDED = 4e-3
"""Relative error of numbers that a certificate rounds up to four digits."""


def check_database(seen: Seen) -> str:
    """SQLite's own checks."""
    agree(not seen.fault, seen.fault)
    return "whole"


def check_privacy(seen: Seen) -> str:
    """Nobody but the owner can read a file of the store."""
    places = [seen.folder, *seen.folder.rglob("*")]
    open_ = [str(path) for path in places if stat.S_IMODE(path.stat().st_mode) & 0o077]
    agree(not open_, f"others have access to {', '.join(open_[:3])}; chmod -R go= the store")
    known = {ledger.NAME, f"{ledger.NAME}-wal", f"{ledger.NAME}-shm"} | _FOLLOWING
    foreign = sorted({path.name for path in seen.folder.iterdir()} - known)
    agree(not foreign, f"files that do not belong to the store: {', '.join(foreign[:3])}")
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
        previous = record.digest
    return f"{len(seen.kept)} certificates, the last {previous}"


def check_certificates(seen: Seen) -> str:
    """The certificate files are those of the ledger."""
    folder = seen.folder / exports.CERTIFICATES
    for record in seen.kept:
        path = folder / exports.certificate_name(record.number)
        agree(path.read_bytes() == record.text.encode(), f"{path} is not what the ledger holds")
    extra = {path.name for path in folder.iterdir()} - {exports.certificate_name(r.number) for r in seen.kept}
    agree(not extra, f"{folder} holds {', '.join(sorted(extra)[:3])}, which the ledger does not")
    return f"{len(seen.kept)} files equal the ledger"


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
    valid = np.isfinite(there).all() and np.isin(there[:, -2:], (0, 1)).all()
    agree(valid, "a row holds something that is no number, or another label or group than 0 and 1")
    agree(not seen.padding.any(), "there is something after the last row")
    return f"{len(there)} rows there, {int(deleted.sum())} gone"


def check_numbers(seen: Seen) -> str:
    """The certificates' numbers add up."""
    gone, held_out = seen.requests > 0, seen.positions < seen.settings.test_rows
    train, test = (np.bincount(seen.requests[gone & part], minlength=len(seen.kept)) for part in (~held_out, held_out))
    left = {"train": seen.settings.train_rows, "test": seen.settings.test_rows}
    bounds = np.array([said["residual_bound"] for said in seen.said], float)
    costs = np.asarray(privacy.certified_epsilon(bounds, seen.settings.sigma, seen.settings.delta))
    for number, said in enumerate(seen.said):
        counted = {"train": int(train[number]), "test": int(test[number])}
        agree(said["deleted"] == counted, f"certificate {number} counts {said['deleted']}, the ledger {counted}")
        left = {part: left[part] - counted[part] for part in left}
        agree(said["remaining"] == left, f"certificate {number} says that {said['remaining']} remain, not {left}")
        before = seen.said[number - 1]["after"] if number else None
        agree(said["before"] == before, f"certificate {number} does not begin where the one before ends")
        _check_spent(seen.settings, number, said, float(costs[number]))
    refreshes = sum(said["method"] == records.REFRESHED for said in seen.said)
    for name, stored, counted in (
        ("deleted", seen.state.deleted, train.sum()),
        ("refreshes", seen.state.refreshes, refreshes),
    ):
        agree(int(stored) == counted, f"the state counts {int(stored)} {name}, the certificates {counted}")
    methods = Counter(said["method"].split(":")[0].split(",")[0] for said in seen.said)
    return ", ".join(f"{count} {method}" for method, count in methods.items())


def _check_spent(settings: Settings, number: int, said: dict[str, Any], expected: float) -> None:
    for name, value in (("epsilon_budget", settings.budget), ("delta", settings.delta), ("sigma", settings.sigma)):
        agree(said[name] == value, f"certificate {number} says {name} {said[name]}, the settings {value:g}")
    near = np.isclose(said["epsilon"], expected, rtol=_ROUNDED)
    agree(near, f"certificate {number}: its residual costs epsilon {expected:.4g}, not {said['epsilon']:.4g}")
    agree(said["epsilon"] <= settings.budget, f"certificate {number} passes the budget")
    left = said["epsilon_left"] + said["epsilon"]
    agree(np.isclose(left, settings.budget, atol=1e-8), f"certificate {number}: epsilon spent and left are not all")


def check_model(seen: Seen) -> str:
    """The published model is the ledger's."""
    expected = exports.model_text(seen.settings, seen.state, seen.kept[-1])
    path = seen.folder / exports.MODEL
    same = path.read_bytes() == expected.encode()
    agree(same, f"{path} is not the ledger's; delete it, and any command writes it anew")
    return f"{path.name} is of request {seen.kept[-1].number}"
