"""Deletion requests: the model equals one fair Newton step, bad requests leave no trace, certificates form a chain."""

import json
import sqlite3

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax import fit, remove
from fmu_jax.deletion import command, exports, guarantee, ledger, model, page, records, requests, training, verification
from fmu_jax.deletion.model import as_data
from fmu_jax.deletion.table import Table
from tests import oracles
from tests.deletion import tables


def names(*numbers):
    return [f"{k:04d}" for k in numbers]


def said_by(receipt):
    """What the certificate of a request says."""
    return receipt.certificate


def certificates(folder):
    with ledger.opened(folder) as db:
        kept = list(ledger.records(db))
    return kept, [records.parse(record) for record in kept]


def expected_params(folder, anchor, deleted, original):
    """One step of the core's ``fair_newton`` from the anchor, for the union of everybody deleted."""
    settings, _, _ = tables.look(folder)
    positions = np.array([tables.position(folder, name) for name in deleted])
    train = as_data(original[settings.test_rows :])
    forget = positions[positions >= settings.test_rows] - settings.test_rows
    return remove(tables.OBJECTIVE, anchor, train, forget).params


def test_requests_add_up_to_one_step(store):
    """In any batching, held-out people among them: the parameters are those of the one-shot removal."""
    _, start, original = tables.look(store)
    batches = [names(3), names(10, 11, 12), names(*range(20, 25)), names(399)]
    for batch in batches:
        requests.delete(store, batch)
    deleted = [name for batch in batches for name in batch]
    _, state, rows = tables.look(store)
    expected = expected_params(store, start.anchor, deleted, original)
    np.testing.assert_allclose(state.params, expected, rtol=1e-9, atol=1e-9)
    gone = np.array([tables.position(store, name) for name in deleted])
    kept = original.copy()
    kept[gone] = 0
    np.testing.assert_array_equal(rows, kept)
    assert json.loads((store / exports.MODEL).read_text())["params"] == tables.released(store).tolist()


def test_the_distance_holds_and_measures_are_the_oracles(store):
    """The distance to the retrained model, and the rates of what is published, in NumPy from the rows that are left."""
    receipt = requests.delete(store, names(*range(3)))
    said = receipt.certificate
    settings, state, rows = tables.look(store)
    train, test = as_data(rows[settings.test_rows :]), as_data(rows[: settings.test_rows])
    x = np.asarray(train.x)
    shape = x.T @ x / (4 * np.asarray(train.weight).sum()) + settings.l2 * np.eye(x.shape[1])
    apart = np.asarray(state.params - fit(tables.OBJECTIVE, train).params)
    assert 0 < np.sqrt(apart @ shape @ apart) <= receipt.distance <= receipt.admitted == settings.admitted
    residual = oracles.residual_norm(
        *(np.asarray(part) for part in (state.params, train.x, train.y, train.group, train.weight)),
        tables.OBJECTIVE.l2,
        tables.OBJECTIVE.fairness,
        "equalized_odds",
        noise=np.zeros(x.shape[1]),
    )
    assert 0 < residual <= float(state.residual_bound)
    x, y, alive = np.asarray(test.x), np.asarray(test.y), np.asarray(test.weight) > 0
    right = (x @ tables.released(store) > 0) == (y == 1)
    assert said["after"]["accuracy"] == round(right[alive].mean(), 3)
    for group in (0, 1):
        members = alive & (np.asarray(test.group) == group)
        assert said["after"]["group_accuracy"][group] == round(right[members].mean(), 3)
    assert said["remaining"]["test"] == alive.sum()
    assert said["remaining"]["train"] == int((np.asarray(train.weight) > 0).sum())


def test_it_is_retrained_when_the_admitted_distance_is_passed(store):
    """Two people cost less than the planned share; a fifth of all costs more."""
    assert requests.delete(store, names(0, 1)).how == requests.UNLEARNED
    receipt = requests.delete(store, names(*range(2, 80)))
    assert receipt.how == requests.RETRAINED
    assert receipt.distance <= receipt.admitted * 1e-3
    settings, state, rows = tables.look(store)
    retrained = fit(tables.OBJECTIVE, as_data(rows[settings.test_rows :])).params
    np.testing.assert_allclose(state.anchor, retrained, atol=1e-8)
    assert int(state.refreshes) == 1
    first, second = certificates(store)[1][1:]
    told = first.keys() | first["release"].keys() | first["series"].keys()
    assert not told & {"method", "distance", "residual_bound", "how"}
    assert first["release"] | {"number": 2} == second["release"]  # Nothing tells which of them was retrained.


def test_retraining_on_demand(store):
    receipt = requests.delete(store, names(5, 6), refresh=True)
    assert receipt.how == requests.RETRAINED
    settings, state, rows = tables.look(store)
    retrained = fit(tables.OBJECTIVE, as_data(rows[settings.test_rows :])).params
    np.testing.assert_allclose(state.anchor, retrained, atol=1e-8)
    np.testing.assert_allclose(state.params, retrained, atol=1e-8)


def test_held_out_people_leave_the_model_as_it_is(store):
    settings, before, _ = tables.look(store)
    held_out = [name for name in names(*range(400)) if tables.position(store, name) < settings.test_rows][:3]
    said = said_by(requests.delete(store, held_out))
    _, after, rows = tables.look(store)
    assert said["release"] is None
    assert said["series"]["released"] == 0
    assert said["deleted"] == {"train": 0, "test": 3}
    np.testing.assert_array_equal(after.params, before.params)
    np.testing.assert_array_equal(tables.released(store), before.params)
    assert int((rows[: settings.test_rows, -3] == 1).sum()) == settings.test_rows - 3


def test_all_held_out_people_can_be_deleted(store):
    """Nobody is left to measure on; the certificate then says nothing rather than something wrong."""
    settings, _, _ = tables.look(store)
    held_out = [name for name in names(*range(400)) if tables.position(store, name) < settings.test_rows]
    said = said_by(requests.delete(store, held_out))
    assert said["remaining"]["test"] == 0
    assert said["after"]["accuracy"] is None
    assert said_by(requests.delete(store, [next(n for n in names(*range(9)) if n not in held_out)]))["number"] == 2


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["0001", "9999", "ann"], r"nobody was deleted, because ids are unknown: '9999', 'ann'; correct them"),
        (["1"], r"unknown: '1'"),
        (["0007", "0008", "0007"], r"repeated: '0007'"),
        (["0399", "0001"], r"already deleted: '0399'"),
        (["0399", "nobody", "0001", "0001"], r"unknown: 'nobody'; already deleted: '0399'; repeated: '0001'"),
        ([f"x{k}" for k in range(100)], "unknown: " + ", ".join(f"'x{k}'" for k in range(100)) + "; correct"),
        ([f"x{k}" for k in range(130)], r"unknown: 'x0', 'x1', .*, 'x98', 'x99' and 30 more; correct"),
    ],
)
def test_bad_ids_are_named_and_nothing_changes(store, ids, message):
    requests.delete(store, ["0399"])
    before = tables.contents(store)
    with pytest.raises(ValueError, match=message):
        requests.delete(store, ids)
    assert tables.contents(store) == before


def test_ignore_missing_goes_on_with_the_rest(store):
    requests.delete(store, ["0399"])
    said = said_by(requests.delete(store, ["0399", "nobody", "0001", "0001", "0002"], ignore_missing=True))
    assert said["ignored"] == {"unknown": 1, "left_out": 0, "already_deleted": 1, "repeated": 1}
    assert sum(said["deleted"].values()) == len(said["ids"]) == 2
    before = tables.contents(store)
    with pytest.raises(ValueError, match=r"none of the 2 ids can be deleted \(unknown: 'x'; already deleted: '0001'\)"):
        requests.delete(store, ["0001", "x"], ignore_missing=True)
    assert tables.contents(store) == before


def test_the_last_people_of_a_cell_are_refused(store):
    settings, state, rows = tables.look(store)
    train = {name: tables.position(store, name) for name in names(*range(400))}
    cell = [
        name
        for name, at in train.items()
        if at >= settings.test_rows and rows[at, -1] == 1 and rows[at, -2] == 0  # women who are not paid
    ]
    assert len(cell) == int(state.counts[1, 0])
    before = tables.contents(store)
    with pytest.raises(ValueError, match=rf"sex 'woman' and paid 'no' would be left .*of {len(cell)}\)"):
        requests.delete(store, cell)
    assert tables.contents(store) == before
    requests.delete(store, cell[1:])
    assert int(tables.look(store)[1].counts[1, 0]) == 1


def test_certificates_form_a_chain_and_name_hashes_only(store):
    requests.delete(store, ["0001"])
    requests.delete(store, ["0002", "0003"])
    kept, said = certificates(store)
    assert [content["number"] for content in said] == [0, 1, 2]
    for number in (1, 2):
        assert said[number]["previous"] == kept[number - 1].digest == records.digest_of(kept[number - 1].text)
        assert said[number]["before"] == said[number - 1]["after"]
        assert (store / "certificates" / f"00000{number}.json").read_text() == kept[number].text
    wanted = {"time", "ids", "release", "series", "statement", "model", "versions", "store"}
    assert wanted <= set(said[2])
    assert len(said[2]["ids"]) == 2
    assert all(len(name) == 32 and int(name, 16) for name in said[2]["ids"])


def test_what_a_kill_left_out_is_written_when_the_store_is_next_opened(store, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(exports, "catch_up", lambda *_: None)
        patched.setattr(exports, "check_certificate", lambda *_: None)
        requests.delete(store, ["0001"])
        requests.delete(store, ["0002"])
    assert [path.name for path in (store / "certificates").iterdir()] == ["000000.json"]
    (store / ".tmp-1-model.json").write_text("half a file")
    with ledger.opened(store) as db:
        exports.catch_up(db, store)
    assert sorted(path.name for path in (store / "certificates").iterdir()) == [f"00000{k}.json" for k in range(3)]
    assert json.loads((store / exports.MODEL).read_text())["request"] == 2
    assert not list(store.glob(".tmp-*"))


def test_a_file_in_the_place_of_a_certificate_is_kept_and_reported(store, capsys):
    path = store / "certificates" / "000001.json"
    path.write_text("forged")
    (store.parent / "ids.txt").write_text("0001\n")
    words = ["delete", "--store", str(store), "--ids", str(store.parent / "ids.txt")]
    assert command.main(words) == command.UNWRITTEN
    assert "000001.json is something else; move it away" in capsys.readouterr().err
    assert path.read_text() == "forged"
    path.unlink()
    with ledger.opened(store) as db:
        exports.catch_up(db, store)
        assert path.read_text() == ledger.last_record(db).text


def test_swapped_positions_delete_nobody(store):
    with ledger.opened(store) as db, ledger.exclusive(db):
        (a, i, _), (b, j, _), *_ = (person for person in ledger.all_people(db) if person[1] > 200)
        db.execute("UPDATE people SET position = -1 WHERE id = ?", (a,))
        db.execute("UPDATE people SET position = ? WHERE id = ?", (i, b))
        db.execute("UPDATE people SET position = ? WHERE id = ?", (j, a))
    with pytest.raises(ValueError, match="do not fit its seal; nobody was deleted; verify tells more"):
        requests.delete(store, ["0001"])
    with ledger.opened(store) as db:
        assert ledger.last_record(db).number == 0


def test_a_failure_after_the_commit_says_that_the_request_is_done(store, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        calls = iter([None, OSError("no space left on device")])

        def catch_up(db, folder):
            if error := next(calls):
                raise error

        patched.setattr(exports, "catch_up", catch_up)
        (store.parent / "ids.txt").write_text("0001\n")
        words = ["delete", "--store", str(store), "--ids", str(store.parent / "ids.txt")]
        assert command.main(words) == command.UNWRITTEN == 3
    said = capsys.readouterr().err
    assert said.startswith("error: request 1 is done and in the ledger, but")
    assert "no space left" in said
    assert "exit status 3" in said
    assert said.count("\n") == 1
    with pytest.raises(ValueError, match="already deleted: '0001'"):
        requests.delete(store, ["0001"])
    assert (store / "certificates" / "000001.json").exists()


def test_an_error_of_sqlite_after_the_commit_is_no_refusal(store, monkeypatch):
    settle, calls = ledger.settle, []

    def locked(db):
        calls.append(db)
        if len(calls) > 1:
            raise sqlite3.OperationalError("database is locked")
        settle(db)

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "settle", locked)
        with pytest.raises(requests.UnwrittenError, match=r"request 1 is done .*database is locked"):
            requests.delete(store, ["0001"])
    assert said_by(requests.delete(store, ["0002"]))["number"] == 2


JUNK = ["", '{"request": Infinity}', "[" * 100_000 + "\udcff"]


@pytest.mark.parametrize("junk", JUNK)
def test_a_model_file_of_junk_is_written_again(store, junk):
    requests.delete(store, ["0001"])
    (store / exports.MODEL).write_text(junk, errors="surrogateescape")
    assert command.main(["verify", "--store", str(store)]) == 1
    requests.delete(store, ["0002"])
    assert json.loads((store / exports.MODEL).read_text())["request"] == 2
    assert command.main(["verify", "--store", str(store)]) == 0


def test_a_state_survives_its_bytes(store):
    settings, state, _ = tables.look(store)
    again = model.unpack(settings, model.pack(state))
    assert jax.tree.structure(again) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, again, state)
    with pytest.raises(ValueError, match="damaged"):
        model.unpack(settings, model.pack(state)[:-100])
    with pytest.raises(ValueError, match="damaged"):
        model.unpack(settings, model.pack(state._replace(anchor=jnp.zeros(3))))


@pytest.mark.parametrize("value", [0.0, 1e-300, 0.000123456, 0.99999, 1.0, 123456.7])
def test_rounding_up_never_rounds_down(value):
    up = guarantee.rounded_up(value, 4)
    assert value <= up <= value * (1 + 1.1e-3)
    assert len(f"{up:.17g}".replace(".", "").strip("0").split("e")[0]) <= 4 or float(f"{up:.4g}") == up


@pytest.mark.slow
def test_thousands_of_people_at_once(tmp_path):
    """One request for a quarter of a larger store: many chunks, a large batch, one certificate."""
    folder = tmp_path / "model"
    tables.make_store(folder, n=20_000)
    everybody = names(*range(20_000))
    deleted = everybody[: 3 * 5_000 : 3]
    said = said_by(requests.delete(folder, deleted))
    assert sum(said["deleted"].values()) == len(set(said["ids"])) == 5_000
    settings, state, rows = tables.look(folder)
    assert int((rows[:, -3] == 1).sum()) == 15_000
    assert int(np.asarray(state.counts).sum()) == said["remaining"]["train"]
    train = as_data(rows[settings.test_rows :])
    assert int(state.refreshes) == 1
    np.testing.assert_allclose(state.params, fit(tables.OBJECTIVE, train).params, atol=1e-8)


@pytest.mark.slow
def test_a_store_of_six_groups(tmp_path):
    """Intersections of two columns: train, delete, retrain, report, verify; a group is called what it means."""
    folder = tmp_path / "model"
    path = tmp_path / "people.csv"
    tables.people(600).to_csv(path, index=False)
    training.train(folder, Table(path, "id", "paid", ("sex", "job")), objective=tables.OBJECTIVE, seed=1)
    settings, start, original = tables.look(folder)
    assert settings.group_name == "sex x job"
    assert settings.group_values[:2] == ("man, clerk", "man, cook")
    assert start.counts.shape == (6, 2)
    requests.delete(folder, names(3, 4, 5))
    _, state, _ = tables.look(folder)
    train = as_data(original[settings.test_rows :], 6)
    positions = np.array([tables.position(folder, name) for name in names(3, 4, 5)])
    forget = positions[positions >= settings.test_rows] - settings.test_rows
    expected = remove(tables.OBJECTIVE, start.anchor, train, forget).params
    np.testing.assert_allclose(state.params, expected, rtol=1e-9, atol=1e-9)
    said = said_by(requests.delete(folder, names(6), refresh=True))["after"]
    assert len(said["group_accuracy"]) == 6
    assert "equalized_odds_mean_gap" not in said
    assert [name for name, outcome in verification.verify(folder).items() if not outcome.agrees] == []
    assert "man, clerk; man, cook" in page.report(folder).read_text()
    cell = tables.people(600).query("sex == 'woman' and job == 'cook' and paid == 'yes'")["id"].tolist()
    with pytest.raises(ValueError, match="no one with sex x job 'woman, cook' and paid 'yes' would be left"):
        requests.delete(folder, cell)


def test_one_group_value_is_for_one_column(tmp_path):
    path = tmp_path / "people.csv"
    tables.people(60).to_csv(path, index=False)
    source = Table(path, "id", "paid", ("sex", "job"), group_one=("man",))
    with pytest.raises(ValueError, match="`group_one` makes two groups of one column, and `group` names 2"):
        training.train(tmp_path / "model", source, objective=tables.OBJECTIVE, seed=1)
