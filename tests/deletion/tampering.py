"""What somebody could change by hand in a store that was used for two requests, and which checks must see it."""

import contextlib
import json
import shutil
import sqlite3

import jax
import jax.numpy as jnp
import numpy as np

from fmu_jax.deletion import exports, ledger, model, records, verification
from fmu_jax.deletion.ledger import CHUNK
from fmu_jax.deletion.model import Settings
from tests.deletion import tables


@contextlib.contextmanager
def by_hand(folder):
    with contextlib.closing(sqlite3.connect(folder / ledger.NAME)) as db:
        yield db
        db.commit()


def failing(folder):
    return {name for name, outcome in verification.verify(folder).items() if not outcome.agrees}


def stored(folder):
    """All that the ledger holds, as SQLite reads it."""
    with by_hand(folder) as db:
        return [*db.iterdump(), *ledger.all_meta(db).items()]


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
        db.execute("UPDATE meta SET value = ? WHERE name = 'state'", (model.pack(changed),))


def change_settings(folder, **fields):
    """Changes settings, and makes ``model.json`` fit if they can still be read."""
    with by_hand(folder) as db:
        content = json.dumps(json.loads(ledger.meta(db, "settings")) | fields).encode()
        db.execute("UPDATE meta SET value = ? WHERE name = 'settings'", (content,))
        with contextlib.suppress(ValueError):
            settings = Settings.from_json(content)
            text = exports.model_text(settings, exports.released(db), ledger.last_record(db))
            (folder / exports.MODEL).write_text(text)


def change_release(folder, change):
    """Publishes something else, and makes the last certificate and ``model.json`` fit."""
    params = np.asarray(change(tables.released(folder)))
    with by_hand(folder) as db:
        db.execute("UPDATE meta SET value = ? WHERE name = 'released'", (params.tobytes(),))
    forge(folder, 2, lambda said: said.update(model=records.digest_of_params(params)))


def louder(folder, params, factor):
    """What would be published with the same noise, so many times as large."""
    exact = np.asarray(tables.look(folder)[1].params)
    return exact + factor * (params - exact)


def swap_rows(folder, part):
    """Two people who remain change places: deleting one would erase the other's row."""
    settings, _, _ = tables.look(folder)
    held_out = f"position {'<' if part == 'test' else '>='} {settings.test_rows}"
    with by_hand(folder) as db:
        chosen = f"SELECT id, position FROM people WHERE request = 0 AND {held_out} LIMIT 2"
        (one, first), (two, second) = db.execute(chosen).fetchall()
        db.executemany("UPDATE people SET position = ? WHERE id = ?", [(second, one), (first, two)])


def flip_salt(folder):
    with by_hand(folder) as db:
        salt = bytearray(ledger.meta(db, "salt"))
        salt[5] ^= 1
        db.execute("UPDATE meta SET value = ? WHERE name = 'salt'", (bytes(salt),))


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
        text = exports.model_text(settings, exports.released(db), ledger.last_record(db))
        (folder / exports.MODEL).write_text(text)


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
        lambda s: edit(s / "certificates/000001.json", '"epsilon": 0.', '"epsilon": 0.0'),
        {"certificates"},
    ),
    "a certificate file is missing": (lambda s: (s / "certificates/000001.json").unlink(), {"certificates"}),
    "no certificate file is there": (lambda s: shutil.rmtree(s / "certificates"), {"certificates"}),
    "the salt is changed": (flip_salt, {"seal"}),
    "two people trained on change places": (lambda s: swap_rows(s, "train"), {"seal"}),
    "two people held out change places": (lambda s: swap_rows(s, "test"), {"seal"}),
    "a held-out person's feature is changed": (
        lambda s: change_row(s, someone(s, "test"), lambda row: row[:1].__iadd__(1e-9)),
        {"seal"},
    ),
    "a person's zero has another sign": (
        lambda s: change_row(s, someone(s, "test", 0), lambda row: row[-2:-1].__imul__(-1)),
        {"seal"},
    ),
    "a person was deleted by another request": (
        lambda s: execute(s, "UPDATE people SET request = 3 - request WHERE request > 0"),
        {"seal"},
    ),
    "there is a table too many": (lambda s: execute(s, "CREATE TABLE backup AS SELECT * FROM people"), {"database"}),
    "there are more values": (lambda s: execute(s, "INSERT INTO meta VALUES ('backup', 'people')"), {"seal"}),
    "there are more rows": (lambda s: execute(s, "INSERT INTO chunks SELECT number + 1, rows FROM chunks"), {"rows"}),
    "the seal is changed": (lambda s: execute(s, "UPDATE meta SET value = zeroblob(64) WHERE name = 'seal'"), {"seal"}),
    "the seal is gone": (lambda s: execute(s, "DELETE FROM meta WHERE name = 'seal'"), {"seal"}),
    **{
        f"the settings' {name} is changed, and model.json with it": (
            lambda s, fields={name: value}: change_settings(s, **fields),
            {"seal"},
        )
        for name, value in {
            "center": [9.0] * 6,
            "label_values": ["yes", "no"],
            "group_name": "age",
            "scaling": "maxnorm",
            "feature_names": list("abcdefg"),
        }.items()
    },
    "the rounding errors are zeroed": (
        lambda s: change_state(s, moments=lambda m: m._replace(errors=jax.tree.map(jnp.zeros_like, m.errors))),
        {"seal"},
    ),
    "a certificate's statement is another, chain and all": (
        lambda s: forge(s, 1, lambda c: c.update(statement=["all is well"])),
        {"guarantee", "seal"},
    ),
    "a certificate's version is no text, chain and all": (
        lambda s: forge(s, 1, lambda c: c["versions"].update(jax=1)),
        {"chain", "seal"},
    ),
    "a certificate has a field of its own, chain and all": (
        lambda s: forge(s, 2, lambda c: c.update(note="paid")),
        {"chain", "seal"},
    ),
    "a certificate's time is another, chain and all": (
        lambda s: forge(s, 1, lambda c: c.update(time="2020-01-01T00:00:00Z")),
        {"seal"},
    ),
    "the published model is gone": (lambda s: (s / "model.json").unlink(), {"model.json"}),
    "a certificate file is added": (lambda s: (s / "certificates/000009.json").write_text("{}"), {"certificates"}),
    "a certificate of the ledger is changed": (
        lambda s: execute(s, "UPDATE records SET certificate = replace(certificate, 'Z', 'Y') WHERE number = 1"),
        {"chain", "certificates"},
    ),
    "a digest is changed": (lambda s: execute(s, "UPDATE records SET digest = 'ab' WHERE number = 1"), {"chain"}),
    "a certificate is taken out": (lambda s: execute(s, "DELETE FROM records WHERE number = 1"), {"chain"}),
    "an old epsilon is forged, chain and all": (
        lambda s: forge(s, 1, lambda c: c["release"].update(epsilon=1e-9)),
        {"guarantee"},
    ),
    "what the series cost is forged": (lambda s: forge(s, 2, lambda c: c["series"].update(mu=1e-9)), {"guarantee"}),
    "a release is not counted": (lambda s: forge(s, 2, lambda c: c["series"].update(released=1)), {"guarantee"}),
    "a release is denied": (lambda s: forge(s, 1, lambda c: c.update(release=None)), {"guarantee"}),
    "the model without noise is published": (
        lambda s: change_release(s, lambda _: np.asarray(tables.look(s)[1].params)),
        {"release"},
    ),
    "a model with less noise is published": (
        lambda s: change_release(s, lambda p: np.round(louder(s, p, 1e-3) * 2.0**20) / 2.0**20),
        {"release"},
    ),
    "a model with more noise is published": (lambda s: change_release(s, lambda p: louder(s, p, 1e3)), {"release"}),
    "a model off the grid is published": (lambda s: change_release(s, lambda p: p * (1 + 2.0**-40)), {"release"}),
    "another model is published than the certificate names": (
        lambda s: execute(s, "UPDATE meta SET value = zeroblob(length(value)) WHERE name = 'released'"),
        {"model.json", "seal"},
    ),
    "a certificate names another model": (lambda s: forge(s, 2, lambda c: c.update(model="ab")), {"model.json"}),
    "what remains is forged": (lambda s: forge(s, 1, lambda c: c["remaining"].update(train=400)), {"numbers"}),
    "how many were deleted is forged": (lambda s: forge(s, 1, lambda c: c["deleted"].update(train=0)), {"numbers"}),
    "the accuracy before is forged": (lambda s: forge(s, 2, lambda c: c["before"].update(accuracy=1.0)), {"numbers"}),
    "the accuracy after is forged": (lambda s: forge(s, 2, lambda c: c["after"].update(accuracy=1.0)), {"measures"}),
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
    "the parameters are nudged": (lambda s: change_state(s, params=nudge), {"parameters"}),
    "the parameters are far off": (
        lambda s: change_state(s, params=lambda p: p + 10.0),
        {"parameters", "distance", "release"},
    ),
    "there is noise in the training": (lambda s: change_state(s, noise=nudge), {"settings"}),
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
    "the bound is lowered, the parameters not the model's": (
        lambda s: change_state(s, params=lambda p: p + 1e-3, residual_bound=lambda v: v * 1e-9),
        {"parameters", "distance"},
    ),
    "the bound is raised": (lambda s: change_state(s, residual_bound=lambda v: v * 1e9), {"distance"}),
    "the state's fairness is changed": (
        lambda s: change_state(s, objective=lambda o: tables.reweighted(o, fairness=jnp.asarray(0.5))),
        {"settings"},
    ),
    "the state's penalty is changed": (
        lambda s: change_state(s, objective=lambda o: tables.reweighted(o, penalty="demographic_parity")),
        {"settings"},
    ),
    "the count of deletions is changed": (lambda s: change_state(s, deleted=lambda v: v + 1), {"numbers"}),
    "the settings' scale is changed": (lambda s: change_settings(s, scale=1e-9), {"settings", "guarantee", "release"}),
    "the settings' admitted distance is changed": (
        lambda s: change_settings(s, admitted=9.0),
        {"settings", "guarantee"},
    ),
    "the settings' mu is changed": (lambda s: change_settings(s, mu=9.0), {"settings", "guarantee"}),
    "the settings' delta is changed": (lambda s: change_settings(s, delta=0.5), {"guarantee"}),
    "the settings' series is longer": (lambda s: change_settings(s, releases=9), {"settings", "guarantee"}),
    "the settings' ridge is changed": (lambda s: change_settings(s, l2=0.1), {"settings", "parameters"}),
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
