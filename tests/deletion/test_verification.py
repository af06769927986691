"""``verify`` passes on a store that was only used, and fails on every single thing that is changed by hand."""

import hashlib
import random
import struct

import numpy as np
import pytest

from fmu_jax.deletion import command, exports, ledger, requests, verification
from fmu_jax.deletion.ledger import CHUNK
from tests.deletion import tables
from tests.deletion.tampering import (
    TAMPERED,
    by_hand,
    change_row,
    change_settings,
    edit,
    execute,
    failing,
    someone,
    stored,
)


def test_a_used_store_passes_every_check(used):
    found = verification.verify(used)
    assert set(found) == set(verification.CHECKS)
    assert all(outcome.agrees and outcome.detail for outcome in found.values()), found
    requests.delete(used, ["0004"], refresh=True)
    requests.delete(used, [f"{k:04d}" for k in range(50, 60)])
    assert failing(used) == set()


@pytest.mark.parametrize("what", TAMPERED)
def test_a_change_by_hand_is_seen(used, what):
    tamper, expected = TAMPERED[what]
    tamper(used)
    before = tables.contents(used)
    assert expected <= failing(used)
    assert {name: held for name, held in tables.contents(used).items() if not name.startswith(ledger.NAME)} == {
        name: held for name, held in before.items() if not name.startswith(ledger.NAME)
    }


def test_a_flipped_bit_is_seen_or_changes_nothing_that_is_stored(used):
    """Anywhere in the file; most of a small one is people, rows, certificates and values."""
    path, draw = used / ledger.NAME, random.Random(0)
    whole, before = path.read_bytes(), stored(used)
    seen = 0
    for _ in range(20):
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        try:
            found = failing(used)
        except (ValueError, OSError):
            found = {"the ledger does not read"}
        seen += bool(found)
        assert found or stored(used) == before
        for leftover in used.glob(f"{ledger.NAME}-*"):
            leftover.unlink()
    assert seen > 7
    path.write_bytes(whole)
    assert failing(used) == set()


@pytest.mark.parametrize("what", ["the salt is changed", "the rounding errors are zeroed", "the bound is raised"])
def test_nothing_is_built_on_a_ledger_whose_books_were_changed(used, what, tmp_path, capsys):
    TAMPERED[what][0](used)
    (used / exports.MODEL).unlink()
    (tmp_path / "ids.txt").write_text("0005\n")
    before = stored(used)
    for words in (["delete", "--ids", str(tmp_path / "ids.txt")], ["report"]):
        assert command.main([words[0], "--store", str(used), *words[1:]]) == 1
        assert "do not fit its seal; nothing was done; verify tells more" in capsys.readouterr().err
    assert stored(used) == before
    assert not (used / exports.MODEL).exists()


def test_nobody_is_deleted_from_a_ledger_with_a_changed_row(used):
    name = someone(used, "test")
    change_row(used, name, lambda row: row[:1].__iadd__(1e-9))
    with pytest.raises(ValueError, match="rows do not fit its seal; nobody was deleted"):
        requests.delete(used, [name])
    assert failing(used) == {"seal"}


def test_a_file_that_sqlite_will_not_write_is_seen(used):
    """Its header holds the version that writers must know; a reader does not mind."""
    name, path = someone(used, "test"), used / "ledger.sqlite"
    content = bytearray(path.read_bytes())
    content[18] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(OSError, match="readonly"):
        requests.delete(used, [name])
    assert failing(used)


def test_the_seal_is_what_it_says(used):
    """Written out: a sum of keyed BLAKE2b over everybody, and one over the rest."""
    _, _, rows = tables.look(used)
    with by_hand(used) as db:
        meta, last = ledger.all_meta(db), ledger.last_record(db).digest
        everybody = list(ledger.all_people(db))
    total = 0
    for name, position, request in everybody:
        text = name + struct.pack("<qq", position, request) + struct.pack(f"<{rows.shape[1]}d", *rows[position])
        total += int.from_bytes(
            hashlib.blake2b(text, key=meta["salt"], person=b"person", digest_size=32).digest(), "little"
        )
    assert meta["seal"][:32] == (total % 2**256).to_bytes(32, "little")
    parts = [
        b"last certificate",
        last.encode(),
        b"released",
        meta["released"],
        b"salt",
        meta["salt"],
        b"settings",
        meta["settings"],
        b"state",
        meta["state"],
    ]
    text = b"".join(struct.pack("<q", len(part)) + part for part in parts)
    assert meta["seal"][32:] == hashlib.blake2b(text, key=meta["salt"], person=b"books", digest_size=32).digest()


def test_what_fills_the_last_chunk_is_looked_at(used):
    settings, _, _ = tables.look(used)
    with by_hand(used) as db, db.blobopen("chunks", "rows", settings.rows // CHUNK) as blob:
        blob.seek(len(blob) - 8)
        blob.write(np.float64(0.25).tobytes())
    assert failing(used) == {"rows"}


@pytest.mark.parametrize(
    "tamper",
    [
        lambda s: edit(s / "certificates/000001.json", '"epsilon": 0.', '"epsilon": 10.'),
        lambda s: execute(s, "UPDATE meta SET value = zeroblob(length(value)) WHERE name = 'state'"),
        lambda s: execute(s, "DELETE FROM meta WHERE name = 'state'"),
        lambda s: execute(s, "DROP TABLE people"),
        lambda s: execute(s, "UPDATE people SET id = 'text' WHERE position = 7"),
        lambda s: execute(s, "DELETE FROM meta"),
        lambda s: execute(s, "DELETE FROM chunks"),
        lambda s: execute(s, "DELETE FROM records"),
        lambda s: change_settings(s, scales=1),
        lambda s: execute(s, "UPDATE records SET certificate = 'no JSON' WHERE number = 1"),
        lambda s: (s / ledger.NAME).write_bytes((s / ledger.NAME).read_bytes()[:9000]),
        lambda s: (s / ledger.NAME).unlink(),
    ],
)
def test_the_command_exits_with_1_and_one_line(used, tamper, capsys):
    tamper(used)
    assert command.main(["verify", "--store", str(used)]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1


def test_the_command_exits_with_0_where_all_agrees(used, capsys):
    assert command.main(["verify", "--store", str(used)]) == 0
    said = capsys.readouterr()
    assert said.out.count("ok ") == len(verification.CHECKS)
    assert said.err == ""


def test_a_falsified_model_and_a_deleted_certificate_are_said_and_left_and_report_writes_them(used, capsys):
    model_file, certificate = used / "model.json", used / "certificates/000001.json"
    whole = certificate.read_bytes()
    certificate.unlink()
    edit(model_file, '"request": 2', '"request": Infinity')
    falsified = model_file.read_bytes()
    assert command.main(["verify", "--store", str(used)]) == 1
    said = capsys.readouterr().out
    assert "missing: 000001.json; take away what should not be there, then report writes what is missing" in said
    assert "model.json is not what the ledger says; report writes it anew" in said
    assert model_file.read_bytes() == falsified
    assert not certificate.exists()
    assert command.main(["report", "--store", str(used)]) == 0
    assert certificate.read_bytes() == whole
    assert command.main(["verify", "--store", str(used)]) == 0


def test_every_wrong_certificate_file_is_named(used, capsys):
    folder = used / "certificates"
    (folder / "000000.json").unlink()
    edit(folder / "000002.json", '"epsilon": 0.', '"epsilon": 0.0')
    (folder / "000007.json").write_text("{}")
    assert command.main(["verify", "--store", str(used)]) == 1
    wrong = "missing: 000000.json; not what the ledger holds: 000002.json; not of the ledger: 000007.json; take away"
    assert wrong in capsys.readouterr().out
