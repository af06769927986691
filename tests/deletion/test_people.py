"""Identifiers: exact text, one a line, and hashes that only the salt can make."""

import errno
import hashlib

import pytest

from fmu_jax.deletion import people
from fmu_jax.deletion.words import outcome


def test_ids_are_exact_text(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_bytes("\ufeff007\r\n\r\n 7 \nZoë, Ann\n\n1e3\na\u2028b\n007\n".encode())
    assert people.read_ids(path) == ["007", "7", "Zoë, Ann", "1e3", "a\u2028b", "007"]


@pytest.mark.parametrize("content", [b"", b"\n \n\r\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(tmp_path, content):
    path = tmp_path / "ids.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"ids\.txt holds no id"):
        people.read_ids(path)


def test_a_binary_file_is_named(tmp_path):
    (tmp_path / "ids.txt").write_bytes(b"7\n\xff\xfe")
    with pytest.raises(ValueError, match=r"ids\.txt is no text in UTF-8 .* at byte 2"):
        people.read_ids(tmp_path / "ids.txt")


def test_ids_of_other_encodings_are_read_when_said(tmp_path):
    path = tmp_path / "ids.txt"
    for encoding in ("cp1252", "utf-16"):
        path.write_bytes("Zoë\r\n007\r\n".encode(encoding))
        assert people.read_ids(path, encoding) == ["Zoë", "007"]
        with pytest.raises(ValueError, match=r"no text in UTF-8 .*--encoding"):
            people.read_ids(path)
    with pytest.raises(ValueError, match="--encoding utf-9: unknown encoding"):
        people.read_ids(path, "utf-9")


def test_repeated_and_missing_ids_of_a_table_are_named():
    people.check_ids(["7", "007", "07"], source="the table")
    with pytest.raises(ValueError, match=r"the table repeats the id '7', '8';"):
        people.check_ids(["7", "8", "7", "9", "8", "7"], source="the table")
    with pytest.raises(ValueError, match=r"no id in 2 rows \(first: record 2\)"):
        people.check_ids(["7", "", "8", ""], source="the table")


def test_an_id_with_an_invisible_mark_is_refused():
    """A list of ids may begin with that mark, and then means the person whose id lacks it."""
    with pytest.raises(ValueError, match=r"byte order mark in the id '\\ufeff5'"):
        people.check_ids(["5", "\ufeff5"], source="the table")


BREAKS = [chr(k) for k in range(0x3000) if len(f"a{chr(k)}b".splitlines()) > 1]


@pytest.mark.parametrize("mark", ["\r\n", *BREAKS])
def test_an_id_of_two_lines_is_refused_and_named(mark):
    assert set(BREAKS) >= set("\n\r\v\f\x85\u2028\u2029")
    for name in (f"a{mark}b", f"ab{mark}"):
        with pytest.raises(ValueError, match="line break in the id") as error:
            people.check_ids(["7", name, "8"], source="the table")
        assert repr(name) in str(error.value)


def test_a_message_names_a_hundred_ids_and_counts_the_rest():
    ids = [f"{k:03d}" for k in range(250)]
    assert people.named(ids[:100]) == ", ".join(map(repr, ids[:100]))
    assert people.named(ids) == ", ".join(map(repr, ids[:100])) + " and 150 more"


def test_hashes_are_hmac_sha256():
    """Against RFC 2104, written out."""
    salt, name = bytes(range(32)), "Zoë"
    block = salt.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + name.encode()).digest()
    outer = hashlib.sha256(bytes(b ^ 0x5C for b in block) + inner).digest()
    assert people.hash_ids(salt, [name]) == [outer[: people.HASH_BYTES]]
    assert people.hash_ids(bytes(32), [name]) != people.hash_ids(salt, [name])


def test_an_error_without_a_file_says_no_number():
    with pytest.raises(OSError, match=r"^nothing: No space left on device; when"), outcome("nothing", OSError):
        raise OSError(errno.ENOSPC, "No space left on device")
