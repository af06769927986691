"""A deletion request: wholly done, with its certificate, or not begun."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fmu_jax import NotConvergedError, stream
from fmu_jax.deletion import exports, ledger, model, people, records, seal, words
from fmu_jax.deletion.ledger import Ledger, Record
from fmu_jax.deletion.model import Settings


class UnwrittenError(Exception):
    """A request is done and in the ledger, but not all files that follow it could be written."""


class Chosen(NamedTuple):
    """Whom a request deletes: their hashes, the positions of their rows, and how many ids it passes over, and why."""

    hashes: list[bytes]
    positions: np.ndarray
    ignored: dict[str, int]


def delete(folder: Path, ids: Sequence[str], *, ignore_missing: bool = False, refresh: bool = False) -> Record:
    """Deletes people from a store, as one request.

    Args:
      folder: the store.
      ids: whom, as in the table that the store was trained on.
      ignore_missing: pass over ids that are unknown, repeated or already deleted, in place of refusing all.
      refresh: retrain on who remains even if the budget allows a streamed step, so that nothing in the store was
        computed from the deleted people's rows.

    Returns:
      The request's certificate.

    Raises:
      ValueError: ids are unknown, repeated or already deleted, or nobody of a group and label would be left. The
        store is then as it was.
      OSError: the store cannot be read or written; nobody was deleted.
      UnwrittenError: the request is done.
    """
    model.use_float64()
    record = None
    with words.outcome("nobody was deleted", OSError, ValueError, ledger.Error):
        try:
            with ledger.opened(folder) as db:
                exports.catch_up(db, folder)
                with ledger.exclusive(db):
                    served = _serve(db, ids, ignore_missing, refresh)
                record = served  # From here on it is done.
                ledger.settle(db)
                exports.catch_up(db, folder)
                exports.check_certificate(folder, record)
        except (OSError, ValueError, ledger.Error) as error:
            if record is None:
                raise
            raise UnwrittenError(
                f"request {record.number} is done and in the ledger, but not all files could be written ({error}); do "
                "not send it again: report, or the next delete, writes them (exit status 3)"
            ) from error
    return record


def _serve(db: Ledger, ids: Sequence[str], ignore_missing: bool, refresh: bool) -> Record:
    settings = Settings.from_json(ledger.meta(db, "settings"))
    seal.check(db, settings.rows)
    previous = ledger.last_record(db)
    chosen = choose(db, ids, ignore_missing=ignore_missing)
    held_out = chosen.positions < settings.test_rows
    rows = ledger.rows_at(db, chosen.positions)
    trained = rows[~held_out]
    before = model.unpack(settings, ledger.meta(db, "state"))
    _check_cells(settings, before, trained)

    ledger.erase_rows(db, chosen.positions)
    ledger.mark_deleted(db, chosen.hashes, previous.number + 1)
    after, method = _without(db, settings, before, trained, refresh)
    test = model.as_data(ledger.rows_between(db, 0, settings.test_rows), len(settings.group_values))
    record = records.make(
        settings,
        after,
        previous,
        method=method,
        ids=chosen.hashes,
        deleted={"train": len(trained), "test": int(held_out.sum())},
        remaining={"train": int(np.asarray(after.counts).sum()), "test": int(np.asarray(test.weight).sum())},
        ignored=chosen.ignored,
        after=model.assess(after, test),
    )
    ledger.put_meta(db, "state", model.pack(after))
    ledger.add_record(db, record)
    seal.renew(db, chosen.hashes, chosen.positions, rows, record.number)
    return record


def choose(db: Ledger, ids: Sequence[str], *, ignore_missing: bool) -> Chosen:
    """Looks the ids up, and refuses those that cannot be deleted.

    Raises:
      ValueError: names them; or, with ``ignore_missing``, nobody is left to delete.
    """
    unique = list(dict.fromkeys(ids))
    hashes = people.hash_ids(ledger.meta(db, "salt"), unique)
    found = ledger.find_people(db, hashes)
    unknown, gone = found[:, 0] < 0, found[:, 1] > 0
    left_out = people.left_out(ledger.all_meta(db).get(people.LEFT_OUT, b""))
    absent = np.array([name in left_out for name in hashes], bool)
    wrong = {
        "unknown": [unique[k] for k in np.flatnonzero(unknown & ~absent)],
        "left out": [unique[k] for k in np.flatnonzero(absent)],
        "already deleted": [unique[k] for k in np.flatnonzero(gone)],
        "repeated": people.repeated(ids),
    }
    why = {"left out": "left out of the training for a missing value, so that no row of theirs is kept"}
    said = "; ".join(f"{why.get(what, what)}: {people.named(names)}" for what, names in wrong.items() if names)
    if said and not ignore_missing:
        raise ValueError(f"nobody was deleted, because ids are {said}; correct them, or pass --ignore-missing")
    kept = np.flatnonzero(~unknown & ~gone)
    if not len(kept):
        raise ValueError(f"none of the {len(unique)} ids can be deleted ({said})")
    ignored = {what.replace(" ", "_"): len(names) for what, names in wrong.items()}
    return Chosen([hashes[k] for k in kept], found[kept, 0], ignored)


def _check_cells(settings: Settings, state: stream.State, trained: np.ndarray) -> None:
    """Refuses to delete the last people of a group with a label: the fair objective would not be defined."""
    if not len(trained):
        return
    counts = np.asarray(state.counts)
    cell = 2 * trained[:, -1].astype(int) + trained[:, -2].astype(int)
    gone = np.bincount(cell, minlength=counts.size).reshape(counts.shape)
    for group, label in np.argwhere((gone > 0) & (gone >= counts)):
        raise ValueError(
            f"nobody was deleted: no one with {settings.group_name} {settings.group_values[group]!r} and "
            f"{settings.label_name} {settings.label_values[label]!r} would be left to train on (of "
            f"{counts[group, label]}), and fairness between groups would not be defined; train a new store without them"
        )


def _without(
    db: Ledger, settings: Settings, before: stream.State, trained: np.ndarray, refresh: bool
) -> tuple[stream.State, str]:
    """The model without these rows, within the budget, and how it was reached."""
    state, method = before, records.UNCHANGED
    if len(trained):
        state, method = model.delete(before, trained), records.STREAMED
    if refresh or bool(stream.needs_refresh(state)):
        held = ledger.rows_between(db, settings.test_rows, settings.rows)
        data = model.as_data(held, len(settings.group_values))
        try:
            state, method = stream.refresh(state, data), records.REFRESHED
        except NotConvergedError as error:
            raise ValueError(
                f"retraining on who remains failed ({error}); train a new store with a larger --l2"
            ) from error
    if bool(stream.needs_refresh(state)):
        raise ValueError(
            f"even the retrained model has epsilon {float(state.epsilon):.3g}, above the budget {settings.budget:g}; "
            "train a new store with a larger --sigma"
        )
    return state, method
