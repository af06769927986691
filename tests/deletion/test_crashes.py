"""Kill -9 at any moment, two processes at once, a full disk, a folder that cannot be written to.

The processes have a stand-in for the model (``forking``), so what is computed is not looked at here.
"""

import contextlib
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest

from fmu_jax.deletion import evidence, exports, ledger, ledger_checks, people, records
from tests import strict
from tests.deletion import tables

ROOT = Path(__file__).resolve().parents[2]
KILLS = 24


@pytest.fixture(scope="module")
def order(trained):
    """Sends an order to a process of ``forking.py``, and waits for the answer."""
    _, state, _ = tables.look(trained)
    names = ["".join(map(str, path)) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    places = [str(names.index(name)) for name in (".moments.counts", ".deleted")]
    script = str(Path(__file__).with_name("forking.py"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = strict.one_device() | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, script, *places], env=environment, **pipes) as process:

        def send(do, **what):
            process.stdin.write(json.dumps({"do": do, **what}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield send
        process.stdin.close()


@pytest.fixture
def crashing(store):
    return store


CHECKS = ("database", "seal", "privacy", "chain", "certificates", "people", "rows", "numbers", "model")


def failing(folder):
    """The checks of the ledger and of its files that fail; not those of the model."""
    failed = set()
    with ledger.opened(folder, to_look=True) as db, ledger.exclusive(db):
        seen = evidence.look(db, folder)
        for name in CHECKS:
            try:
                getattr(ledger_checks, f"check_{name}")(seen)
            except ValueError:
                failed.add(name)
    return failed


def batch(number):
    """Whom request ``number`` (from 1 on) deletes: two people, so that half of it would show."""
    return [f"{2 * number:04d}", f"{2 * number + 1:04d}"]


EXPORTS = {"privacy", "certificates", "model"}
"""The checks that fail while files that follow the ledger are still to be written."""


def check(folder, answered, *, as_left=False):
    """Looks at a copy, so that the store itself is left as the kill left it; returns how many requests are done."""
    with tempfile.TemporaryDirectory() as copied:
        copy = shutil.copytree(folder, Path(copied) / "model")
        if as_left:
            assert failing(copy) <= EXPORTS
        with ledger.opened(copy) as db:
            exports.catch_up(db, copy)
        assert failing(copy) == set()
        with contextlib.closing(sqlite3.connect(copy / ledger.NAME)) as db:
            done = ledger.last_record(db).number
            found = {name: request for name, _, request in ledger.all_people(db)}
            salt = ledger.meta(db, "salt")
    assert answered <= done <= answered + 1, "a request was lost, or one was done that nobody sent"
    expected = dict.fromkeys(found, 0)
    for number in range(1, done + 1):
        expected |= dict.fromkeys(people.hash_ids(salt, batch(number)), number)
    assert found == expected
    return done


PHASES = ("before the transaction", "inside it", "after its commit")


def test_kills_at_random_moments_lose_and_repeat_nothing(crashing, order):
    """Uniform over each phase of a process's first two requests; a fifth or more lands in each phase."""
    store, draw, landed = str(crashing), random.Random(0), dict.fromkeys(PHASES, 0)
    order("timed", store=store, batches=[batch(1), batch(2)])  # So that files are in memory.
    pace = order("timed", store=store, batches=[batch(3), batch(4)])
    done, reach = check(crashing, 4), [1.0] * len(pace)
    for attempt in range(5 * KILLS):
        marks = attempt % len(pace)  # Three for each request, as its three phases begin.
        batches = [batch(number) for number in range(done + 1, done + 4)]
        end = order(
            "killed", store=store, batches=batches, marks=marks, delay=draw.uniform(0, reach[marks] * pace[marks])
        )
        if end["signal"] != signal.SIGKILL or len(end["said"]) > marks:
            reach[marks] /= 2  # On a busy machine the kill comes late: where it fell behind its phase, aim earlier.
        if end["signal"] == signal.SIGKILL:  # Else the process was faster than the delay, and done.
            phase, answered = len(end["said"]) % 3, end["said"].count(".")
            before, done = done, check(crashing, done + answered)
            committed = done - before - answered
            assert phase != 0 or not committed, "a request was done before it was begun"
            assert phase != 2 or committed, "a committed request was lost"
            landed[PHASES[2 if committed else phase]] += 1
        else:
            done = check(crashing, done + len(batches))
        if sum(landed.values()) >= KILLS and min(landed.values()) >= KILLS // 5:
            break
    assert sum(landed.values()) >= KILLS, landed
    assert min(landed.values()) >= KILLS // 5, landed


POINTS = {
    "rows erased": ("ledger", "erase_rows", 1, True),
    "before the certificate": ("ledger", "add_record", 1, False),
    "all but committed": ("seal", "renew", 1, True),
    "before the log is copied": ("ledger", "settle", 2, False),
    "after the log was copied": ("ledger", "settle", 2, True),
    "before the files": ("exports", "catch_up", 2, False),
    "certificate not yet in place": ("Path", "replace", 1, False),
    "certificate in place": ("Path", "replace", 1, True),
    "model not yet in place": ("Path", "replace", 2, False),
    "model in place": ("Path", "replace", 2, True),
}


@pytest.mark.parametrize("where", POINTS)
def test_a_kill_at_each_step(crashing, order, where):
    batches = [batch(number) for number in range(1, 5)]
    end = order("killed", store=str(crashing), batches=batches, point=POINTS[where])
    begun = where in ("rows erased", "before the certificate", "all but committed")
    said = "().(" if begun or where == "before the log is copied" else "().()"
    assert end == {"said": said, "signal": signal.SIGKILL}
    assert check(crashing, 1, as_left=True) == (1 if begun else 2)
    row = tables.look(crashing)[2][tables.position(crashing, batch(2)[0])]
    assert row.any() == begun


TRAINING = {
    "ledger made": (("ledger", "put_meta", 4, True), False),
    "model not yet in place": (("Path", "replace", 2, False), False),
    "before the folder takes its place": (("Path", "rename", 1, False), False),
    "in its place": (("Path", "rename", 1, True), True),
}


@pytest.mark.parametrize("where", TRAINING)
def test_a_killed_training_leaves_no_store_or_a_whole_one(trained, tmp_path, order, where):
    point, whole = TRAINING[where]
    how = {"template": str(trained), "store": str(tmp_path / "model")}
    assert order("built", point=point, **how) == signal.SIGKILL
    assert (tmp_path / "model").exists() == whole
    if not whole:
        assert order("built", point=("os", "fork", 9, True), **how) == 0
    assert failing(tmp_path / "model") == set()
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def write_ids(folder, name, ids):
    path = folder / name
    path.write_text("".join(f"{one}\n" for one in ids))
    return str(path)


def test_processes_at_once_are_serialised(crashing, tmp_path, order):
    words = ["delete", "--store", str(crashing), "--ids"]
    parts = [[f"{k:04d}" for k in range(start, start + 3)] for start in (100, 200, 300)]
    ends = order("together", commands=[[*words, write_ids(tmp_path, f"{k}.txt", part)] for k, part in enumerate(parts)])
    assert [end["status"] for end in ends] == [0, 0, 0], ends
    assert failing(crashing) == set()
    with ledger.opened(crashing) as db:
        said = [records.parse(record) for record in ledger.records(db)]
        hashes = [{name.hex() for name in people.hash_ids(ledger.meta(db, "salt"), part)} for part in parts]
    assert len(said) == 4
    assert sorted(sorted(content["ids"]) for content in said[1:]) == sorted(sorted(part) for part in hashes)
    assert {path.name for path in (crashing / "certificates").iterdir()} == {f"00000{k}.json" for k in range(4)}


def test_of_two_processes_that_delete_one_person_one_is_refused(crashing, tmp_path, order):
    words = ["delete", "--store", str(crashing), "--ids", write_ids(tmp_path, "ids.txt", ["0100"])]
    ends = order("together", commands=[words, words])
    assert sorted(end["status"] for end in ends) == [0, 1]
    (refused,) = (end for end in ends if end["status"])
    assert "already deleted: '0100'" in refused["err"]
    assert refused["err"].splitlines()[-1].startswith("error: nobody was deleted")  # It may have waited before.
    assert failing(crashing) == set()


@pytest.mark.parametrize("limit", [0, 8000])
def test_a_full_disk_is_an_error_that_leaves_the_store_usable(crashing, tmp_path, order, limit):
    words = ["delete", "--store", str(crashing), "--ids", write_ids(tmp_path, "ids.txt", ["0100", "0101"])]
    before = tables.look(crashing)
    end = order("command", words=words, limit=limit)
    assert end["status"] == 1, end
    assert end["err"].startswith("error: nobody was deleted: ")
    assert end["err"].count("\n") == 1
    assert "ledger.sqlite" in end["err"]
    np.testing.assert_array_equal(tables.look(crashing)[2], before[2])
    assert failing(crashing) == set()
    assert order("command", words=words)["status"] == 0
    assert failing(crashing) == set()


@pytest.mark.parametrize(
    ("command", "refused"),
    [("delete", "is read-only for you"), ("report", "such as page.html")],
)
def test_a_folder_that_cannot_be_written_to(crashing, tmp_path, order, command, refused):
    words = [command.split()[0], "--store", str(crashing)]
    if command == "delete":
        words += ["--ids", write_ids(tmp_path, "ids.txt", ["0100"])]
    before = tables.contents(crashing)
    crashing.chmod(0o500)
    end = order("command", words=words, obey=True)
    crashing.chmod(0o700)
    assert end["status"] == bool(refused), end
    assert end["err"].count("\n") == bool(refused)
    assert refused in end["err"]
    assert tables.contents(crashing) == before
    if command == "delete":
        assert order("command", words=words, obey=True)["status"] == 0


@pytest.mark.slow
def test_training_where_nothing_can_be_written(tmp_path, order):
    tables.people(300).to_csv(tmp_path / "people.csv", index=False)
    words = ["train", "--csv", str(tmp_path / "people.csv"), "--id", "id", "--label", "paid", "--group", "sex"]
    place = tmp_path / "place"
    place.mkdir(mode=0o500)
    end = order("command", words=[*words, "--store", str(place / "model")], obey=True)
    assert (end["status"], end["err"].count("\n")) == (1, 1), end
    assert "Permission denied" in end["err"]
    assert list(place.iterdir()) == []
