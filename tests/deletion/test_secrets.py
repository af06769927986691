"""What must be nowhere: deleted people and old models in the store, the model without noise in what is shown."""

import hashlib
import shutil

import numpy as np
import pytest

from fmu_jax.deletion import command, ledger, people, requests, seal
from tests.deletion import tables


def traces(row):
    """What a row could leave behind: its age and score, which nobody else has, as numbers and as text.

    Not the whole row, because a row may lie across two pages of the file.
    """
    return [*(number.tobytes() for number in row[:2]), *(f"{number:.6f}".encode() for number in row[:2])]


def found_in(folder, wanted):
    """Which of the wanted bytes occur in a file of the store, and in which."""
    return {
        (name, k) for name, content in tables.contents(folder).items() for k, w in enumerate(wanted) if w in content
    }


def row_of(folder, name):
    return tables.look(folder)[2][tables.position(folder, name)].copy()


@pytest.mark.parametrize("together", [1, 5])
def test_a_deleted_persons_row_is_gone_from_every_byte(store, together):
    deleted, kept = [f"{k:04d}" for k in range(30, 30 + together)], "0100"
    rows = {name: row_of(store, name) for name in [*deleted, kept]}
    for name, row in rows.items():
        assert found_in(store, traces(row)) == {(ledger.NAME, 0), (ledger.NAME, 1)}, name
    requests.delete(store, deleted)
    for name in deleted:
        assert found_in(store, traces(rows[name])) == set()
    assert found_in(store, traces(rows[kept])) == {(ledger.NAME, 0), (ledger.NAME, 1)}


def test_the_row_is_gone_while_the_store_is_open_and_after_a_kill(store):
    """Right after the commit the log still holds the page as it will be, and the file as it was; opening ends that."""
    row = row_of(store, "0040")
    snapshot = store.with_name("killed")
    with ledger.opened(store) as db:
        with ledger.exclusive(db):
            ledger.erase_rows(db, np.array([tables.position(store, "0040")]))
        shutil.copytree(store, snapshot)  # What a kill at this moment leaves.
    assert found_in(snapshot, traces(row)) >= {(ledger.NAME, 0), (ledger.NAME, 1)}
    with ledger.opened(snapshot):
        assert found_in(snapshot, traces(row)) == set()


def test_what_an_earlier_request_wrote_holds_nobody_deleted_later(store):
    """The pages of everybody's rows go through the log when many are deleted; then single people are."""
    later = [f"{k:04d}" for k in range(1, 400, 50)]
    rows = {name: row_of(store, name) for name in later}
    with ledger.opened(store):  # Keeps the log alive between the requests.
        requests.delete(store, [f"{k:04d}" for k in range(0, 400, 10)])
        for name in later:
            requests.delete(store, [name])
            assert found_in(store, traces(rows[name])) == set()


def test_raw_ids_and_the_csv_line_are_never_stored(store):
    line = store.with_name("people.csv")
    frame = tables.people(400)
    frame.to_csv(line, index=False)
    text = line.read_text().splitlines()[31].encode()
    assert text.startswith(b"0030,")
    requests.delete(store, ["0030"])
    joined = b"".join(tables.contents(store).values())
    for wanted in (text, text.split(b",")[1], b"0031,", b'"0031"', b"0030\n"):
        assert wanted not in joined
    assert text in line.read_bytes()
    salt = meta(store, "salt")
    assert people.hash_ids(salt, ["0031"])[0] in joined
    for guess in (hashlib.sha256(b"0031").digest()[:16], hashlib.sha256(salt + b"0031").digest()[:16]):
        assert guess not in joined


def meta(folder, name):
    with ledger.opened(folder) as db:
        return ledger.meta(db, name)


def vector_traces(values):
    values = np.asarray(values)
    return [values.tobytes(), values[1:3].tobytes(), repr(float(values[0])).encode(), repr(float(values[2])).encode()]


def test_the_old_model_is_gone(store):
    """Its difference to the new one would tell the deleted row. The anchor is kept until a refresh moves it."""
    requests.delete(store, ["0001"])
    old = tables.look(store)[1]
    published = tables.released(store)
    in_ledger, in_file = {(ledger.NAME, 0), (ledger.NAME, 1)}, {("model.json", 2), ("model.json", 3)}
    assert found_in(store, vector_traces(old.params)) == in_ledger
    assert found_in(store, vector_traces(published)) == in_ledger | in_file
    requests.delete(store, ["0002"])
    assert found_in(store, vector_traces(old.params)) == set()
    assert found_in(store, vector_traces(published)) == set()
    assert found_in(store, vector_traces(old.anchor)) == in_ledger
    requests.delete(store, ["0003"], refresh=True)
    assert found_in(store, vector_traces(old.anchor)) == set()


def test_the_seal_is_in_the_ledger_alone_and_the_old_one_is_gone(store):
    """From two seals and the salt, a guess at the row that was deleted between them could be checked."""
    halves = []
    for name in ("0001", "0002"):
        requests.delete(store, [name])
        now = meta(store, seal.NAME)
        assert len(now) == 2 * seal.BYTES
        for old in halves:
            assert found_in(store, [old, old.hex().encode()]) == set()
        halves = [now[: seal.BYTES], now[seal.BYTES :]]
        for half in halves:
            assert found_in(store, [half, half.hex().encode()]) == {(ledger.NAME, 0)}


def spellings(number):
    """A number as it could be printed, from six significant digits on."""
    texts = {repr(number), str(np.float32(number)), number.hex()}
    texts |= {f"{number:.{digits}g}" for digits in range(6, 18)} | {f"{number:.{digits}f}" for digits in range(6, 18)}
    return {text.lstrip("-").encode() for text in texts} | {number.hex().encode()}


def test_the_model_without_noise_is_shown_nowhere(tmp_path, trained, capfd):
    """A whole session with every kind of error, tracebacks included; then everything that it printed and wrote."""
    store, ids = shutil.copytree(trained, tmp_path / "model"), tmp_path / "ids.txt"
    for content, flags, status in (
        ("0001\n", [], 0),
        ("0002\n0003\n", ["--refresh"], 0),
        ("0004\n", [], 0),
        ("0001\nnobody\n", [], 1),
        ("0001\n", ["--ignore-missing"], 1),
        ("\n", [], 1),
        ("".join(f"{k:04d}\n" for k in range(10, 400)), [], 1),
    ):
        ids.write_text(content)
        words = ["delete", "--store", str(store), "--ids", str(ids), "--traceback", *flags]
        assert command.main(words) == status, content[:20]
    assert command.main(["report", "--store", str(store), "--traceback"]) == 0
    assert command.main(["verify", "--store", str(store), "--traceback"]) == 0
    (store / "model.json").write_text("{}")
    assert command.main(["report", "--store", str(store), "--traceback"]) == 0

    _, state, _ = tables.look(store)
    exact, salt = np.asarray(state.params), meta(store, "salt")
    noise = tables.released(store) - exact
    out, err = capfd.readouterr()
    assert "Traceback" in err
    shown = {"stdout": out.encode(), "stderr": err.encode()} | tables.contents(store)
    assert (noise != 0).all()
    assert exact.tobytes() in shown.pop(ledger.NAME)  # So that the search can fail.
    assert {"report.html", "model.json", "certificates/000000.json", "certificates/000003.json"} <= set(shown)
    for name, content in shown.items():
        assert salt not in content
        assert salt.hex().encode() not in content
        for number in [*exact.tolist(), *noise.tolist()]:
            assert not [text for text in spellings(number) if text in content], name
            assert np.float64(number).tobytes() not in content
    published = tables.released(store).tolist()
    assert any(text in shown["model.json"] for text in spellings(published[0]))  # So that this search can, too.
