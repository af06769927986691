"""Files in a zip archive as views of it: stored plainly, each in its own place, under names that lead nowhere else."""

import io
import itertools
import struct
import zipfile
import zlib
from typing import NamedTuple

_MOST_ENTRIES = 50_000
_MOST_LISTED = 2**22
_HEADER = 30


class Entry(NamedTuple):
    """One file of an archive.

    Attributes:
      name: in the archive.
      data: a view of its bytes.
      crc: their checksum, as the archive says it.
      source: what to call the archive in messages.
    """

    name: str
    data: memoryview
    crc: int
    source: str

    def read(self) -> memoryview:
        """The bytes.

        Raises:
          ValueError: they are not those that were written.
        """
        if zlib.crc32(self.data) != self.crc:
            raise ValueError(
                f"{self.source} is damaged: {self.name} does not have its checksum, unless it was saved without "
                "(torch.serialization.set_crc32_options): get it again, or save it with checksums"
            )
        return self.data


def entries(view: memoryview, *, source: str) -> dict[str, Entry]:
    """The files of an archive by name.

    Args:
      view: the archive.
      source: what to call it in messages.

    Returns:
      The entries; no content has been looked at.

    Raises:
      ValueError: it is damaged or cut off, or has an entry that is compressed or encrypted, overlaps another one, or
        has a name that occurs twice or leads out of a folder.
    """
    try:
        with zipfile.ZipFile(io.BufferedReader(_View(view))) as archive:
            listed = archive.infolist()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, LookupError, NotImplementedError, struct.error) as error:
        raise ValueError(f"{source} is damaged or cut off: no whole zip archive ({error})") from None
    if len(listed) > _MOST_ENTRIES:
        raise ValueError(f"{source} has {len(listed)} entries, expected at most {_MOST_ENTRIES}")
    found: dict[str, Entry] = {}
    places = []
    for info in listed:
        name = info.filename
        if not name.isprintable():
            raise ValueError(f"{source} is refused: the name {name[:80]!r} is of characters that cannot be printed")
        if not name or name.startswith("/") or ".." in name.split("/") or any(c in name for c in "\\:\0"):
            raise ValueError(f"{source} is refused: the name {name[:80]!r} leads out of the archive")
        if name in found:
            raise ValueError(f"{source} is refused: two entries are named {name[:80]!r}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise ValueError(
                f"{source} is refused: {name[:80]!r} is compressed or encrypted, as no file of torch.save is; "
                "of a TorchScript archive, save the state_dict"
            )
        begin = info.header_offset
        header = bytes(view[max(begin, 0) : begin + _HEADER])
        if len(header) < _HEADER or header[:4] != b"PK\x03\x04":
            raise ValueError(f"{source} is damaged: no entry where {name[:80]!r} should be")
        size, extra = struct.unpack_from("<HH", header, 26)
        start = begin + _HEADER + size + extra
        encoding = "utf-8" if info.flag_bits & 0x800 else "cp437"
        if bytes(view[begin + _HEADER : begin + _HEADER + size]) != info.orig_filename.encode(encoding):
            raise ValueError(f"{source} is refused: the entry listed as {name[:80]!r} has another name")
        end = start + info.file_size
        if end > len(view):
            raise ValueError(f"{source} is cut off: {name[:80]!r} ends at byte {end} of {len(view)}")
        found[name] = Entry(name, view[start:end], info.CRC, source)
        places.append((begin, end, name))
    places.sort()
    for (_, end, name), (begin, _, following) in itertools.pairwise(places):
        if begin < end:
            raise ValueError(f"{source} is refused: {following[:80]!r} begins within {name[:80]!r}")
    return found


class _View(io.RawIOBase):
    """A view as a file to read, without copying it."""

    def __init__(self, view: memoryview):
        self._view, self._at, self._read = view, 0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, len(self._view))[whence]
        if self._at < 0:
            raise OSError("a position before the begin")
        return self._at

    def readinto(self, buffer) -> int:
        part = self._view[self._at : self._at + len(buffer)]
        self._read += len(part)
        if self._read > _MOST_LISTED:
            raise OSError(f"its list of entries takes more than {_MOST_LISTED} bytes")
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)
