"""What the command says: in its own flags, whatever function a message comes from, and what is the case now."""

import ast
import errno
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fmu_jax.deletion import command, files, ledger, page, requests, verification, waiting
from fmu_jax.deletion.table import Table, read
from fmu_jax.deletion.words import in_flags, outcome
from tests.deletion import tables
from tests.deletion.test_command import train_words

ROOT = Path(__file__).resolve().parents[2]
READING = ("reading", "delimited", "columns", "suitability", "table", "tabular", "grouping", "split", "parts")
#: Python: backticks, an argument with a value, a constant, a name with an underscore.
PYTHON = re.compile(r"`|\w=['\"(\w]|\b(?:True|tuple|throw|jnp|make_data|mapping)\b|\b[a-z]+_\w+")
#: What to write in a program that made the table; and how features are named.
OTHERS = re.compile(r"\b(?:R|pandas): [\w.]+=\w+|column=c\b")
QUOTED = re.compile(r"""(?<!\w)(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?!\w)""")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("pass missing='drop' to leave them out", "pass --missing drop to leave them out"),
        ("pass that text in na_values=(...) with", "pass that text in --na-values VALUE ... with"),
        ("leave it out with drop=('first name',), or", "leave it out with --drop 'first name', or"),
        ("drop=(column, ...) to leave", "--drop COLUMN ... to leave"),
        ("more than max_categories=50; raise max_categories", "more than --max-categories 50; raise --max-categories"),
        ("fewer than min_group_rows=20 rows: 'a'", "fewer than --min-group-rows 20 rows: 'a'"),
        ("label='a' and group=('b', 'c'), not in drop=()", "--label a and --group b c, not in --drop"),
        ("pass na_values=('NA', 'x',), default_na=False if not", "pass --na-values NA x, --no-default-na if not"),
        ("raise `l2` or `max_steps`", "raise --l2 or max_steps"),
        ("(test_fraction=0.2, seed=3).", "(--test-fraction 0.2, draw 3)."),
        ("positive=('>50K',)", "--positive '>50K'"),
        ("column 'seed=3' has no \"drop=(x)\"", "column 'seed=3' has no \"drop=(x)\""),
        ("people's table isn't it's missing='drop'", "people's table isn't it's --missing drop"),
        ("runs/seed=3/max_categories.csv: seed=4", "runs/seed=3/max_categories.csv: draw 4"),
        ("seed=3.csv has seed=4", "seed=3.csv has draw 4"),
    ],
)
def test_arguments_become_flags_and_the_users_words_stay(said, expected):
    paths = ["runs/seed=3/max_categories.csv", "seed=3.csv", "max"]
    assert in_flags(said, command.FLAGS, verbatim=paths) == expected


def texts(path):
    """All strings of a module but its docstrings, with a quoted x in place of what is put into them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    parts |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(_rendered(part) for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def _rendered(part):
    if isinstance(part, ast.Constant):
        return str(part.value)
    return "positive" if ast.unparse(part.value) == "option" else "'x'"


def test_no_message_of_the_reading_or_of_the_command_speaks_python():
    paths = [ROOT / "fmu_jax" / "datasets" / f"{name}.py" for name in READING]
    paths += sorted((ROOT / "fmu_jax" / "deletion").glob("*.py"))
    checked = spoke = 0
    for path in paths:
        for text in texts(path):
            if len(text.split()) > 3 and not re.search(r"\b(SELECT|PRAGMA|INSERT|CREATE|UPDATE)\b", text):
                said = QUOTED.sub("", in_flags(OTHERS.sub("", text), command.FLAGS))
                assert not PYTHON.search(said), f"{path.name}: {said}"
                checked += 1
                spoke += bool(PYTHON.search(QUOTED.sub("", text)))
    assert checked > 80
    assert spoke > 5  # So that there is something to translate.


def bad_tables(folder):
    """Tables that the library refuses, with the words beside them, and what the command must say."""
    many, gap = tables.people(120), tables.people(120)
    gap.loc[3, "age"] = np.nan
    text = many.assign(job=[f"job {k}" for k in range(120)])
    typo = many.assign(score=["1O" if k == 5 else f"{k + 0.5}" for k in range(120)])
    towns = many.assign(town=["a", "b", "c"] * 39 + ["d", "d", "d"])
    three = many.assign(paid=["yes", "no", "maybe"] * 40)
    for name, table, more, said in (
        ("gap", gap, [], "--missing drop"),
        ("text", text, [], "raise --max-categories). To leave columns out, pass --drop job"),
        ("typo", typo, ["--max-categories", "20"], "1O"),
        ("towns", towns, ["--group", "town"], "--min-group-rows 20 rows: 'd' (3 rows); pass --small-groups merge"),
        ("three", three, [], "--positive VALUE"),
        ("one", many.assign(sex="woman"), [], "must hold two"),
        ("same", many, ["--group", "paid"], "--label paid and --group paid"),
        ("none", many.head(0), [], "no records"),
        ("share", many, ["--test-fraction", "0.999"], "--test-fraction 0.999"),
        ("few", many.head(4), [], ""),
        ("unknown", many, ["--drop", "salary"], "no column 'salary'"),
        ("many ones", towns, ["--group", "town", "sex", "--group-one", "a"], "--group-one"),
    ):
        path = folder / f"{name}.csv"
        table.to_csv(path, index=False)
        yield path, more, said


def test_a_refused_table_is_refused_in_flags(tmp_path, capsys):
    for path, more, said in bad_tables(tmp_path):
        assert command.main(train_words(path, tmp_path / "new", *more)) == 1, path.name
        streams = capsys.readouterr()
        assert said in streams.err, path.name
        assert streams.err.count("\n") == 1
        assert not PYTHON.search(QUOTED.sub("", streams.err).replace(str(path), "")), streams.err
        assert not (tmp_path / "new").exists()


def test_small_groups_can_be_merged_or_allowed(tmp_path, capsys):
    path = tmp_path / "people.csv"
    towns = tables.people(600).assign(town=["a", "b", "c"] * 195 + ["d"] * 8 + ["e"] * 7)
    towns.to_csv(path, index=False)
    words = train_words(path, tmp_path / "model", "--group", "town", "--min-group-rows", "12")
    assert command.main(words) == 1
    assert "'d' (8 rows), 'e' (7 rows); pass --small-groups merge" in capsys.readouterr().err
    source = Table(path, "id", "paid", "town", test_fraction=0.4)
    merged = read(source._replace(min_group_rows=12, small_groups="merge"), seed=0)[1]
    assert merged.group_values == ("a", "b", "c", "other")
    with pytest.raises(ValueError, match=r"'d' \(8 rows\), 'e' \(7 rows\)"):
        read(source._replace(min_group_rows=9), seed=0)


def test_a_missing_file_is_named_by_its_flag(tmp_path, store, capsys):
    for words, said in (
        (train_words(tmp_path / "none.csv", tmp_path / "new"), "error: --csv: there is no file "),
        (train_words(tmp_path, tmp_path / "new"), "error: --csv: there is no file "),
        (
            ["delete", "--store", str(store), "--ids", str(tmp_path / "no.txt")],
            "nobody was deleted: --ids: there is no file",
        ),
        (["delete", "--store", str(store), "--ids", str(tmp_path)], "nobody was deleted: "),
        (
            ["delete", "--store", str(tmp_path / "x"), "--ids", str(ROOT / "LICENSE")],
            "nobody was deleted: there is no store",
        ),
    ):
        assert command.main(words) == 1
        streams = capsys.readouterr()
        assert said in streams.err
        assert streams.err.count("\n") == 1


@pytest.mark.parametrize(
    ("stage", "write"), [("before", 1), ("before", 2), ("before", 4), ("after", 1), ("after", 2), ("after", 3)]
)
def test_a_disk_that_is_full_at_any_write_of_a_request(store, tmp_path, capsys, monkeypatch, stage, write):
    """Files that are due before the request, and those of the request itself; the ledger's are in test_crashes."""
    ids = tmp_path / "ids.txt"
    ids.write_text("0001\n")
    before = tables.look(store)[2]
    if stage == "before":
        (store / "model.json").unlink()
        (store / "certificates" / "000000.json").unlink()
    calls, real = [0], files.write_bytes

    def full(path, content):
        calls[0] += 1
        if calls[0] == write:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(files, "write_bytes", full)
        status = command.main(["delete", "--store", str(store), "--ids", str(ids)])
    said = capsys.readouterr().err
    due = 2 if stage == "before" else 0
    if write <= due:
        assert (status, said.count("\n")) == (1, 1)
        assert said.startswith("error: nobody was deleted: ")
        assert "No space left on device; when that is mended, run the same command again" in said
        np.testing.assert_array_equal(tables.look(store)[2], before)
    elif write <= due + 2:
        assert (status, said.count("\n")) == (3, 1)
        assert said.startswith("error: request 1 is done and in the ledger, but not all files could be written (")
    else:
        assert (status, said) == (0, "")
    command.main(["delete", "--store", str(store), "--ids", str(ids)])
    assert all(found.agrees for found in verification.verify(store).values())
    assert len(list((store / "certificates").iterdir())) == 2


def test_an_output_that_takes_no_more_does_not_undo_a_request(store, tmp_path, capsys, monkeypatch):
    ids = tmp_path / "ids.txt"
    ids.write_text("0001\n")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(command, "show_request", full)
        assert command.main(["delete", "--store", str(store), "--ids", str(ids)]) == command.UNWRITTEN
    said = capsys.readouterr().err
    assert said.startswith(
        "error: request 1 is done and in the ledger; do not send it again, but this could not be shown"
    )
    assert (store / "certificates" / "000001.json").exists()


def test_a_report_goes_where_it_is_told_and_over_nothing(store, tmp_path, capsys):
    out = tmp_path / "deep" / "page.html"
    assert command.main(["report", "--store", str(store), "--out", str(out)]) == 0
    assert out.stat().st_mode & 0o777 == 0o600
    before = tables.contents(store)
    for place, said in (
        (out, "exists and stays as it is"),
        (store / "ledger.sqlite", "exists"),
        (tmp_path / "a", ".html"),
    ):
        assert command.main(["report", "--store", str(store), "--out", str(place)]) == 1
        assert said in capsys.readouterr().err
    assert tables.contents(store) == before


def test_a_store_on_a_read_only_disk_is_looked_at_without_locks(store, tmp_path, monkeypatch, capsys):
    requests.delete(store, ["0001"])
    before = tables.contents(store)
    monkeypatch.setattr(ledger.os, "access", lambda *_: False)  # Root may write anywhere but on such a disk.
    seen = []
    real = ledger.read_only
    monkeypatch.setattr(ledger, "read_only", lambda db: seen.append(sorted(store.iterdir())) or real(db))
    assert all(found.agrees for found in verification.verify(store).values())
    assert page.report(store, tmp_path / "page.html").exists()
    assert len(seen) >= 2
    assert not any(path.name.endswith(("-shm", "-wal")) for paths in seen for path in paths)
    assert command.main(["report", "--store", str(store)]) == 1
    assert "say with --out where it goes, such as page.html" in capsys.readouterr().err
    ids = tmp_path / "ids.txt"
    ids.write_text("0002\n")
    assert command.main(["delete", "--store", str(store), "--ids", str(ids)]) == 1
    assert "error: nobody was deleted: " in capsys.readouterr().err
    assert tables.contents(store) == before


def test_a_read_only_store_that_is_not_whole_or_changes_is_refused(store, monkeypatch):
    monkeypatch.setattr(ledger.os, "access", lambda *_: False)
    changed = pytest.raises(OSError, match="was changed by another process while it was read")
    with changed, ledger.opened(store, to_look=True):
        (store / ledger.NAME).touch()
    (store / f"{ledger.NAME}-wal").write_bytes(b"pages")
    with pytest.raises(PermissionError, match="holds what a killed process has not copied"):
        ledger.opened(store, to_look=True).__enter__()


LOCKED = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
"""


def test_who_waits_says_for_whom(store, monkeypatch, capsys):
    words = [sys.executable, "-c", LOCKED, str(store / ledger.NAME)]
    monkeypatch.setattr(waiting, "NOTICE_S", 0.05)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        monkeypatch.setattr(waiting.time, "sleep", lambda _: capsys_said(other, store, capsys))
        with ledger.opened(store) as db, ledger.exclusive(db):
            pass
    (said,) = NOTICES
    assert said.startswith(f"waiting for process {other.pid} ({sys.executable} -c import sqlite3, sys db = ")
    assert said.endswith(f", which uses {store}\n")
    assert said.count("\n") == 1


NOTICES = []


def capsys_said(other, store, capsys):
    """Lets the other process go as soon as something was said."""
    said = capsys.readouterr().err
    if said:
        NOTICES.append(said)
        other.stdin.close()
        other.wait()


def test_outcome_keeps_what_an_error_says():
    with pytest.raises(FileNotFoundError, match=r"^nothing: no file$"), outcome("nothing", OSError):
        raise FileNotFoundError("no file")
    with pytest.raises(ValueError, match=r"^nothing was done$"), outcome("nothing", ValueError):
        raise ValueError("nothing was done")
    with pytest.raises(KeyError), outcome("nothing", ValueError):
        raise KeyError("a")
