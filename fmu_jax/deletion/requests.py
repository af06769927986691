"""A deletion request, which is either wholly done, with its certificate, or not begun."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fmu_jax import NotConvergedError, stream
from fmu_jax.deletion import exports, guarantee, ledger, model, people, records, seal, words
from fmu_jax.deletion.ledger import Ledger, Record
from fmu_jax.deletion.model import Settings
from fmu_jax.deletion.words import UnwrittenError


class Chosen(NamedTuple):
    """The people whom a request deletes: hashes, positions of rows, and how many ids it skips, by reason."""

    hashes: list[bytes]
    positions: np.ndarray
    ignored: dict[str, int]


UNCHANGED = "unchanged, because only held-out people were deleted"
UNLEARNED = "unlearned by one fair Newton step"
RETRAINED = "retrained on who remains"


class Receipt(NamedTuple):
    """The result of a request, for the owner of the store.

    Attributes:
      certificate: Its content, which may be handed out.
      path: Path of the certificate's file.
      how: Whether the model was unlearned, retrained or left unchanged. Do not publish it.
      distance: Certified distance to the retrained model, None where the model did not change. Do not publish it.
      admitted: The largest distance that this release may have.
    """

    certificate: dict[str, Any]
    path: Path
    how: str
    distance: float | None
    admitted: float


@model.in_float64
def delete(store: str | Path, ids: Sequence[str], *, ignore_missing: bool = False, refresh: bool = False) -> Receipt:
    """Deletes people from a store as one request, and publishes a model without them: ``model.json`` and a certificate.

    A process that keeps running compiles once: its first request takes seconds, later ones a fraction of a second.

    Args:
      store: The store's folder.
      ids: Identifiers of the people to delete, exactly as text in the table of the training. More of them in one
        request cost no more of the guarantee than one.
      ignore_missing: Pass over ids that are unknown, repeated or already deleted, in place of refusing all.
      refresh: Retrain on who remains even where an unlearned model may be released, so that nothing in the store was
        computed from the deleted people's rows. Where only held-out people are deleted, it changes nothing.

    Returns:
      The ``Receipt``.

    Raises:
      ValueError: Ids are unknown, repeated or already deleted, or nobody of a group and label would be left. The
        store is then as it was.
      OSError: The store cannot be read or written; nobody was deleted.
      UnwrittenError: The request is done, but not all its files could be written; do not repeat it.
    """
    folder, done = Path(store), None
    with words.outcome("nobody was deleted", OSError, ValueError, ledger.Error):
        try:
            with ledger.opened(folder) as db:
                exports.catch_up(db, folder)
                with ledger.exclusive(db):
                    record, receipt = _serve(db, folder, list(ids), ignore_missing, refresh)
                done = receipt  # From here on it is done.
                ledger.settle(db)
                exports.catch_up(db, folder)
                exports.check_certificate(folder, record)
        except (OSError, ValueError, ledger.Error) as error:
            if done is None:
                raise
            raise UnwrittenError(
                f"request {done.certificate['number']} is done and in the ledger, but not all files could be written "
                f"({error}); do not send it again: report, or the next delete, writes them (exit status 3)"
            ) from error
    return done


def _serve(db: Ledger, folder: Path, ids: Sequence[str], ignore_missing: bool, refresh: bool) -> tuple[Record, Receipt]:
    """All of a request that is in the ledger."""
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
    number = records.parse(previous)["series"]["released"] + bool(len(trained))
    after = Model(before, UNCHANGED, None, exports.released(db))
    if len(trained):
        held = ledger.rows_between(db, settings.test_rows, settings.rows)
        after = _without(settings, before, trained, held, number, refresh)
    test = model.as_data(ledger.rows_between(db, 0, settings.test_rows), len(settings.group_values))
    record = records.make(
        settings,
        after.params,
        previous,
        fresh=len(trained) > 0,
        ids=chosen.hashes,
        deleted={"train": len(trained), "test": int(held_out.sum())},
        remaining={"train": int(np.asarray(after.state.counts).sum()), "test": int(np.asarray(test.weight).sum())},
        ignored=chosen.ignored,
        after=model.assess(after.params, test),
    )
    ledger.put_meta(db, "state", model.pack(after.state))
    ledger.put_meta(db, exports.RELEASED, np.asarray(after.params, "<f8").tobytes())
    ledger.add_record(db, record)
    seal.renew(db, chosen.hashes, chosen.positions, rows, record.number)
    path = folder / exports.CERTIFICATES / exports.certificate_name(record.number)
    admitted = guarantee.admitted(settings, max(number, 1))
    return record, Receipt(records.parse(record), path, after.how, after.distance, admitted)


def choose(db: Ledger, ids: Sequence[str], *, ignore_missing: bool) -> Chosen:
    """Looks the ids up, and refuses those that cannot be deleted.

    Raises:
      ValueError: Names them; or, with ``ignore_missing``, nobody is left to delete.
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
    problems = "; ".join(f"{why.get(what, what)}: {people.named(names)}" for what, names in wrong.items() if names)
    if problems and not ignore_missing:
        raise ValueError(f"nobody was deleted, because ids are {problems}; correct them, or pass ignore_missing=True")
    chosen = np.flatnonzero(~unknown & ~gone)
    if not len(chosen):
        raise ValueError(f"none of the {len(unique)} ids can be deleted ({problems})")
    ignored = {what.replace(" ", "_"): len(names) for what, names in wrong.items()}
    return Chosen([hashes[k] for k in chosen], found[chosen, 0], ignored)


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


class Model(NamedTuple):
    """A model without noise, how it was made, its bound on the distance to the retrained one, and what is published."""

    state: stream.State
    how: str
    distance: float | None
    params: np.ndarray


def _without(
    settings: Settings, before: stream.State, trained: np.ndarray, held: np.ndarray, number: int, refresh: bool
) -> Model:
    """The model without these rows, within the admitted distance of the retrained one, and release ``number`` of it."""
    state, how = model.delete(before, trained), UNLEARNED
    shape, admitted = guarantee.shape_of(held[:, :-2], settings.l2), guarantee.admitted(settings, number)
    distance = guarantee.distance(state, shape)
    if refresh or not distance <= admitted:
        try:
            state = stream.refresh(state, model.as_data(held, len(settings.group_values)))
        except NotConvergedError as error:
            raise ValueError(
                f"retraining on who remains failed ({error}); train a new store with a larger `l2`"
            ) from error
        distance, how = guarantee.distance(state, shape), RETRAINED
    if not distance <= admitted:
        raise ValueError(
            f"even the retrained model is certified only within {distance:.3g}, and {admitted:.3g} is admitted; train "
            "a new store with a larger `l2` or `admitted`"
        )
    return Model(state, how, distance, guarantee.publish(settings, state.params, distance, number, shape))
