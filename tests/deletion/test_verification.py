"""``verify`` passes on a store that was only used, and fails on every single thing that is changed by hand."""

import contextlib
import json
import sqlite3

import jax.numpy as jnp
import numpy as np
import pytest

from scripts import fmu_delete
from scripts.deletion import exports, ledger, model, records, requests, verification
from scripts.deletion.ledger import CHUNK
from scripts.deletion.model import Settings
from tests.deletion import tables


@pytest.fixture
def used(store):
    requests.delete(store, ["0001", "0002"])
    requests.delete(store, ["0003"])
    return store


@contextlib.contextmanager
def by_hand(folder):
    with contextlib.closing(sqlite3.connect(folder / ledger.NAME)) as db:
        yield db
        db.commit()


def failing(folder):
    return {name for name, outcome in verification.verify(folder) if not outcome.agrees}


def test_a_used_store_passes_every_check(used):
    found = dict(verification.verify(used))
    assert set(found) == set(verification.CHECKS)
    assert all(outcome.agrees and outcome.detail for outcome in found.values()), found
    requests.delete(used, ["0004"], refresh=True)
    requests.delete(used, [f"{k:04d}" for k in range(50, 60)])
    assert failing(used) == set()


def change_row(folder, name, change):
    """Applies ``change`` to the stored row of a person."""
    at = tables.position(folder, name)
    with by_hand(folder) as db, db.blobopen("chunks", "rows", at // CHUNK) as blob:
        rows = np.frombuffer(blob.read(), "<f8").reshape(CHUNK, -1).copy()
        change(rows[at % CHUNK])
        blob.seek(0)
        blob.write(rows.tobytes())


def someone(folder, part, label=None):
    """A person who was not deleted, trained on or held out."""
    settings, _, rows = tables.look(folder)
    for k in range(100, 400):
        at = tables.position(folder, f"{k:04d}")
        if (at < settings.test_rows) == (part == "test") and label in (None, rows[at, -2]):
            return f"{k:04d}"
    raise AssertionError


def change_state(folder, **fields):
    _, state, _ = tables.look(folder)
    changed = state._replace(**{name: change(getattr(state, name)) for name, change in fields.items()})
    with by_hand(folder) as db:
        db.execute("UPDATE state SET packed = ?", (model.pack(changed),))


def change_settings(folder, **fields):
    with by_hand(folder) as db:
        content = json.loads(ledger.meta(db, "settings")) | fields
        db.execute("UPDATE meta SET value = ? WHERE name = 'settings'", (json.dumps(content).encode(),))


def forge(folder, number, change):
    """Changes a certificate and makes the chain and the files after it fit."""
    with by_hand(folder) as db:
        previous = None
        for record in list(ledger.records(db)):
            content = records.parse(record)
            if record.number == number:
                change(content)
            content["previous"] = previous
            text = json.dumps(content, indent=1) + "\n"
            previous = records.digest_of(text)
            db.execute(
                "UPDATE records SET certificate = ?, digest = ? WHERE number = ?", (text, previous, record.number)
            )
            (folder / "certificates" / exports.certificate_name(record.number)).write_text(text)
        settings = Settings.from_json(ledger.meta(db, "settings"))
        state = model.unpack(settings, ledger.state(db))
        (folder / exports.MODEL).write_text(exports.model_text(settings, state, ledger.last_record(db)))


def execute(folder, command, *values):
    with by_hand(folder) as db:
        db.execute(command, values)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def nudge(values):
    return values.at[(0,) * values.ndim].add(1e-5)


def swap_request(folder):
    """Says that another person than the deleted one was deleted."""
    with by_hand(folder) as db:
        db.execute("UPDATE people SET request = 1 WHERE id = (SELECT id FROM people WHERE request = 0 LIMIT 1)")
        db.execute("UPDATE people SET request = 0 WHERE id = (SELECT id FROM people WHERE request = 2 LIMIT 1)")


TAMPERED = {
    "a certificate file is changed": (
        lambda s: edit(s / "certificates/000001.json", '"epsilon": ', '"epsilon": 0.0'),
        {"certificates"},
    ),
    "a certificate file is added": (lambda s: (s / "certificates/000009.json").write_text("{}"), {"certificates"}),
    "a certificate of the ledger is changed": (
        lambda s: execute(s, "UPDATE records SET certificate = replace(certificate, 'Z', 'Y') WHERE number = 1"),
        {"chain", "certificates"},
    ),
    "a digest is changed": (lambda s: execute(s, "UPDATE records SET digest = 'ab' WHERE number = 1"), {"chain"}),
    "a certificate is taken out": (lambda s: execute(s, "DELETE FROM records WHERE number = 1"), {"chain"}),
    "an old epsilon is forged, chain and all": (lambda s: forge(s, 1, lambda c: c.update(epsilon=1e-9)), {"numbers"}),
    "the last epsilon and bound are forged": (
        lambda s: forge(s, 2, lambda c: c.update(epsilon=0.0, residual_bound=0.0, epsilon_left=1.0)),
        {"residual"},
    ),
    "what remains is forged": (lambda s: forge(s, 1, lambda c: c["remaining"].update(train=400)), {"numbers"}),
    "how many were deleted is forged": (lambda s: forge(s, 1, lambda c: c["deleted"].update(train=0)), {"numbers"}),
    "the accuracy before is forged": (lambda s: forge(s, 2, lambda c: c["before"].update(accuracy=1.0)), {"numbers"}),
    "the accuracy after is forged": (lambda s: forge(s, 2, lambda c: c["after"].update(accuracy=1.0)), {"measures"}),
    "the method is forged": (lambda s: forge(s, 2, lambda c: c.update(method=records.REFRESHED)), {"numbers"}),
    "whom it was about is forged": (lambda s: forge(s, 1, lambda c: c["ids"].pop()), {"people"}),
    "another store's certificate": (lambda s: forge(s, 1, lambda c: c.update(store="ab")), {"chain"}),
    "somebody is said to be there still": (
        lambda s: execute(s, "UPDATE people SET request = 0 WHERE request = 2"),
        {"people", "rows", "numbers"},
    ),
    "somebody else is said to be deleted": (swap_request, {"people", "rows"}),
    "somebody is taken out": (
        lambda s: execute(s, "DELETE FROM people WHERE id = (SELECT min(id) FROM people)"),
        {"people"},
    ),
    "two people have one row": (
        lambda s: execute(s, "UPDATE people SET position = 7 WHERE id = (SELECT min(id) FROM people)"),
        {"people"},
    ),
    "a deleted row is back": (lambda s: change_row(s, "0001", lambda row: row.fill(1)), {"rows"}),
    "half a deleted row is back": (lambda s: change_row(s, "0001", lambda row: row[:2].fill(0.5)), {"rows"}),
    "somebody's row is gone": (
        lambda s: change_row(s, someone(s, "train"), lambda row: row.fill(0)),
        {"rows", "accumulators"},
    ),
    "a feature is changed": (
        lambda s: change_row(s, someone(s, "train"), lambda row: row[:1].__iadd__(1e-6)),
        {"accumulators"},
    ),
    "a label is changed": (
        lambda s: change_row(s, someone(s, "train"), lambda row: row[-2:-1].__imul__(-1).__iadd__(1)),
        {"accumulators", "parameters"},
    ),
    "a label is no label": (lambda s: change_row(s, someone(s, "train"), lambda row: row[-2:-1].fill(3)), {"rows"}),
    "a held-out group is changed": (
        lambda s: change_row(s, someone(s, "test"), lambda row: row[-1:].__imul__(-1).__iadd__(1)),
        {"measures"},
    ),
    "the parameters are nudged": (lambda s: change_state(s, params=nudge), {"parameters", "model.json"}),
    "the noise is changed": (lambda s: change_state(s, noise=nudge), {"parameters"}),
    "the anchor is changed": (lambda s: change_state(s, anchor=nudge), {"accumulators"}),
    "the gradient is changed": (
        lambda s: change_state(s, moments=lambda m: m._replace(gradient=nudge(m.gradient))),
        {"accumulators"},
    ),
    "the curvature is changed": (
        lambda s: change_state(s, moments=lambda m: m._replace(curvature=nudge(m.curvature))),
        {"accumulators"},
    ),
    "the reach is changed": (
        lambda s: change_state(s, moments=lambda m: m._replace(reach=nudge(m.reach))),
        {"accumulators"},
    ),
    "a cell sum is changed": (
        lambda s: change_state(s, moments=lambda m: m._replace(sums=nudge(m.sums))),
        {"accumulators"},
    ),
    "a count is changed": (
        lambda s: change_state(s, moments=lambda m: m._replace(counts=m.counts.at[0, 0].add(1))),
        {"accumulators"},
    ),
    "the longest row is shortened": (lambda s: change_state(s, row_norm=lambda v: v * 0), {"accumulators"}),
    "the bound is lowered": (
        lambda s: change_state(s, residual_bound=lambda v: v * 1e-9, epsilon=lambda v: v * 1e-9),
        {"residual"},
    ),
    "epsilon is lowered": (lambda s: change_state(s, epsilon=lambda v: v / 2), {"residual"}),
    "the state's sigma is changed": (lambda s: change_state(s, sigma=lambda v: v * 2), {"settings"}),
    "the state's fairness is changed": (
        lambda s: change_state(s, objective=lambda o: tables.reweighted(o, fairness=jnp.asarray(0.5))),
        {"settings"},
    ),
    "the state's penalty is changed": (
        lambda s: change_state(s, objective=lambda o: tables.reweighted(o, penalty="demographic_parity")),
        {"settings"},
    ),
    "the count of deletions is changed": (lambda s: change_state(s, deleted=lambda v: v + 1), {"numbers"}),
    "the count of refreshes is changed": (lambda s: change_state(s, refreshes=lambda v: v + 1), {"numbers"}),
    "the settings' sigma is changed": (lambda s: change_settings(s, sigma=40.0), {"settings", "numbers"}),
    "the settings' ridge is changed": (lambda s: change_settings(s, l2=0.1), {"settings", "parameters"}),
    "the settings' budget is changed": (lambda s: change_settings(s, budget=9.0), {"settings", "numbers"}),
    "the published model is changed": (
        lambda s: edit(s / "model.json", '"params": [\n  ', '"params": [\n  1'),
        {"model.json"},
    ),
    "the published model is of another request": (
        lambda s: edit(s / "model.json", '"request": 2', '"request": 7'),
        {"model.json"},
    ),
    "others can read the ledger": (lambda s: (s / ledger.NAME).chmod(0o644), {"privacy"}),
    "others can read the folder": (lambda s: s.chmod(0o755), {"privacy"}),
    "something else lies in the store": (lambda s: (s / "old_model.json").touch(0o600), {"privacy"}),
    "the log is not kept ahead": (lambda s: execute(s, "PRAGMA journal_mode = DELETE"), {"database"}),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_change_by_hand_is_seen(used, what):
    tamper, expected = TAMPERED[what]
    tamper(used)
    assert expected <= failing(used)


def test_what_fills_the_last_chunk_is_looked_at(used):
    settings, _, _ = tables.look(used)
    with by_hand(used) as db, db.blobopen("chunks", "rows", settings.rows // CHUNK) as blob:
        blob.seek(len(blob) - 8)
        blob.write(np.float64(0.25).tobytes())
    assert failing(used) == {"rows"}


@pytest.mark.parametrize(
    "tamper",
    [
        lambda s: edit(s / "certificates/000001.json", '"epsilon": ', '"epsilon": 1'),
        lambda s: execute(s, "UPDATE state SET packed = zeroblob(length(packed))"),
        lambda s: execute(s, "DELETE FROM state"),
        lambda s: execute(s, "DELETE FROM meta"),
        lambda s: execute(s, "DELETE FROM chunks"),
        lambda s: execute(s, "DELETE FROM records"),
        lambda s: change_settings(s, sigmas=1),
        lambda s: execute(s, "UPDATE records SET certificate = 'no JSON' WHERE number = 1"),
        lambda s: (s / ledger.NAME).write_bytes((s / ledger.NAME).read_bytes()[:9000]),
        lambda s: (s / ledger.NAME).unlink(),
    ],
)
def test_the_command_exits_with_1_and_one_line(used, tamper, capsys):
    assert fmu_delete.main(["verify", "--store", str(used)]) == 0
    said = capsys.readouterr()
    assert said.out.count("ok ") == len(verification.CHECKS)
    assert said.err == ""
    tamper(used)
    assert fmu_delete.main(["verify", "--store", str(used)]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1


def test_a_deleted_certificate_file_is_written_again(used):
    (used / "certificates/000001.json").unlink()
    (used / "model.json").unlink()
    assert failing(used) == set()
    assert (used / "certificates/000001.json").exists()
