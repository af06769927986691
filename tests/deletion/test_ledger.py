"""The ledger: rows by position across chunks, transactions, errors that name the file."""

import contextlib
import sqlite3
import stat

import numpy as np
import pytest

from fmu_jax.deletion import ledger
from fmu_jax.deletion.ledger import CHUNK, Record

N = 2 * CHUNK + 37
ROWS = np.random.default_rng(0).normal(size=(N, 5))


@pytest.fixture
def folder(tmp_path):
    with ledger.created(tmp_path) as db, ledger.exclusive(db):
        ledger.put_meta(db, "salt", b"\0\1")
        ledger.add_people(db, [bytes([k % 256, k // 256]) for k in range(N)], range(N))
        ledger.add_rows(db, ROWS)
        ledger.put_meta(db, "state", b"first state")
        ledger.add_record(db, Record(0, "{}\n", "abc"))
    return tmp_path


def test_rows_come_back_bit_for_bit(folder):
    positions = np.array([0, N - 1, CHUNK, CHUNK - 1, 3, 2 * CHUNK])
    with ledger.opened(folder) as db:
        np.testing.assert_array_equal(ledger.rows_at(db, positions), ROWS[positions])
        assert ledger.rows_at(db, positions[:0]).shape == (0, 5)
        for start, stop in ((0, N), (0, 1), (CHUNK - 1, CHUNK + 1), (5, 5), (CHUNK, 2 * CHUNK), (700, N)):
            np.testing.assert_array_equal(ledger.rows_between(db, start, stop), ROWS[start:stop])
        assert ledger.padding(db, N).shape == (CHUNK - 37, 5)
        assert not ledger.padding(db, N).any()


def test_erased_rows_are_zero_and_no_other_is(folder):
    positions = np.array([N - 1, 0, CHUNK, CHUNK + 1])
    with ledger.opened(folder) as db, ledger.exclusive(db):
        ledger.erase_rows(db, positions)
    expected = ROWS.copy()
    expected[positions] = 0
    with ledger.opened(folder) as db:
        np.testing.assert_array_equal(ledger.rows_between(db, 0, N), expected)
        assert ledger.fault(db) == ""


def test_people_are_found_in_the_order_asked(folder):
    asked = [bytes([7, 0]), b"nobody", bytes([0, 1]), bytes([7, 0])]
    with ledger.opened(folder) as db:
        with ledger.exclusive(db):
            ledger.mark_deleted(db, [bytes([0, 1])], 4)
        assert ledger.find_people(db, asked).tolist() == [[7, 0], [-1, 0], [256, 4], [7, 0]]
        assert ledger.find_people(db, []).shape == (0, 2)
        assert sum(request for _, _, request in ledger.all_people(db)) == 4


def test_a_person_cannot_be_added_twice(folder):
    with pytest.raises(OSError, match=r"ledger\.sqlite: UNIQUE"), ledger.opened(folder) as db, ledger.exclusive(db):
        ledger.add_people(db, [bytes([7, 0])], [N])


def test_a_transaction_is_kept_whole_or_not_at_all(folder):
    class Stop(Exception):
        pass

    with ledger.opened(folder) as db:
        with pytest.raises(Stop), ledger.exclusive(db):
            ledger.erase_rows(db, np.arange(N))
            ledger.put_meta(db, "state", b"other state")
            ledger.add_record(db, Record(1, "{}", "def"))
            raise Stop
        assert ledger.meta(db, "state") == b"first state"
        np.testing.assert_array_equal(ledger.rows_between(db, 0, N), ROWS)
        assert [record.number for record in ledger.records(db)] == [0]


def test_the_state_is_overwritten_where_it_stands(folder):
    with ledger.opened(folder) as db:
        with ledger.exclusive(db):
            ledger.put_meta(db, "state", b"later state")
        with pytest.raises(ValueError, match="has 5 bytes, the stored one 11"), ledger.exclusive(db):
            ledger.put_meta(db, "state", b"short")
        assert ledger.meta(db, "state") == b"later state"
    content = (folder / ledger.NAME).read_bytes()
    assert b"later state" in content
    assert b"first state" not in content


def test_files_are_the_owners_and_the_log_is_cut(folder):
    with ledger.opened(folder) as db:
        with ledger.exclusive(db):
            ledger.add_record(db, Record(1, "certificate of the first request", "def"))
        names = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        assert names == dict.fromkeys((ledger.NAME, f"{ledger.NAME}-wal", f"{ledger.NAME}-shm"), 0o600)
        assert b"first request" in (folder / f"{ledger.NAME}-wal").read_bytes()
        ledger.settle(db)
        assert (folder / f"{ledger.NAME}-wal").stat().st_size == 0
        assert b"first request" in (folder / ledger.NAME).read_bytes()


def test_the_pragmas_that_the_promises_rest_on(folder):
    with ledger.opened(folder) as db:
        found = {name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
        assert found == {"journal_mode": "wal", "synchronous": 2}  # 2 is FULL.
        assert db.execute("PRAGMA secure_delete").fetchone() == (1,)
        assert db.execute("PRAGMA temp_store").fetchone() == (2,)  # 2 is memory.


def test_a_read_only_ledger_says_so(folder, monkeypatch):
    monkeypatch.setattr(ledger.os, "access", lambda place, _: place != folder / ledger.NAME)  # Root may write anywhere.
    with pytest.raises(PermissionError, match=r"ledger\.sqlite is read-only for you, or its disk is; make it writable"):
        ledger.opened(folder).__enter__()


def test_every_table_is_a_ledgers(folder):
    changes = (
        "CREATE TABLE backup (a)",
        "CREATE INDEX places ON people (position)",
        "ALTER TABLE records ADD note TEXT",
    )
    for change, said in zip(changes, ("table backup", "index places", "table records"), strict=True):
        with contextlib.closing(sqlite3.connect(folder / ledger.NAME)) as db:
            assert said not in ledger.fault(db)
            db.execute(change)
            assert f"{said} is missing, changed or was added" in ledger.fault(db)


def test_no_store(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no store in .*; make one with the command train"):
        ledger.opened(tmp_path).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_ledger_is_refused(tmp_path):
    path = tmp_path / ledger.NAME
    path.write_bytes(b"not a database, but long enough to be looked at as one" * 40)
    with pytest.raises(OSError, match=r"ledger\.sqlite: file is not a database"), ledger.opened(tmp_path):
        pass
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE other (a)")
    with pytest.raises(ValueError, match="is no ledger of version 3"), ledger.opened(tmp_path):
        pass


def test_a_ledger_that_another_process_keeps_is_said_to_be_locked(folder, monkeypatch):
    monkeypatch.setattr(ledger, "WAIT_S", 0.05)
    busy = r"ledger\.sqlite: another process has kept the store busy"
    with ledger.opened(folder) as db, ledger.exclusive(db), pytest.raises(OSError, match=busy):
        ledger.opened(folder).__enter__()
