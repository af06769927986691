"""The instructions of a pickle, one after the other, as its bytes give them; nothing is carried out.

A pickle is a program for a stack machine (PEP 307, PEP 3154, PEP 574). Python's own ``pickletools`` lists it as well,
but imports the module that runs it, and copies every array on the way; here bytes are views of the file.
"""

import codecs
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

_LINE_BYTES = 2**20
_INTEGER_BYTES = 256
_TEXT_BYTES = 2**26


class Instruction(NamedTuple):
    """One step of a pickle.

    Attributes:
      name: As Python's documentation spells it.
      value: Its argument: a number, a text, a view of bytes, a pair of texts (GLOBAL, INST), or None.
      at: The position of its first byte.
    """

    name: str
    value: Any
    at: int


def instructions(content: memoryview, *, source: str, start: int = 0) -> Iterator[Instruction]:
    r"""Reads instructions up to and with STOP.

    Args:
      content: Bytes that hold a pickle of any protocol, 0 to 5.
      source: Name for messages.
      start: Where the pickle begins.

    Yields:
      The instructions; after the last one, ``at + 1`` is where the pickle ends.

    Raises:
      ValueError: A byte that is no instruction, a number or a text that is none, or an end before STOP.

    >>> [step.name for step in instructions(memoryview(b"K\x05."), source="five")]
    ['BININT1', 'STOP']
    """
    at = start
    while True:
        try:
            name, read = _TABLE[content[at]]
            value, end = read(content, at + 1)
        except (IndexError, struct.error):
            message = f"is cut off: it ends within or before the instruction at byte {at}"
            raise ValueError(f"{source} {message}{beginning(content, start, at)}") from None
        except KeyError:
            message = f"is no pickle: byte {at} is {content[at]:#04x}, no instruction"
            raise ValueError(f"{source} {message}{beginning(content, start, at)}") from None
        except ValueError as error:
            message = f"is no pickle: the instruction at byte {at} is malformed ({error})"
            raise ValueError(f"{source} {message}{beginning(content, start, at)}") from None
        yield Instruction(name, value, at)
        if name == "STOP":
            return
        at = end


def beginning(content: memoryview, start: int, at: int) -> str:
    """What a message of a failure at the begin adds: a text, or a file of another kind, may begin as a pickle does."""
    if start or at >= 4 or not len(content):
        return ""
    return f"; it begins with {bytes(content[:20])!r}, is it the file itself?"


def _nothing(content: memoryview, at: int) -> tuple[None, int]:
    return None, at


def _number(layout: str):
    size = struct.calcsize(layout)

    def read(content: memoryview, at: int) -> tuple[Any, int]:
        return struct.unpack_from(layout, content, at)[0], at + size

    return read


def _counted(layout: str, convert, most: int | None = None):
    """A reader of a number of bytes, which is written before them, and of what the bytes stand for."""
    number = _number(layout)

    def read(content: memoryview, at: int) -> tuple[Any, int]:
        size, begin = number(content, at)
        if size < 0 or (most is not None and size > most):
            raise ValueError(f"{size} bytes, expected 0 to {most}")
        if begin + size > len(content):
            raise IndexError
        return convert(content[begin : begin + size]), begin + size

    return read


def _line(content: memoryview, at: int) -> tuple[str, int]:
    """Text up to the end of a line, of which a view cannot be searched: in growing pieces."""
    size = 256
    while True:
        piece = bytes(content[at : at + size])
        end = piece.find(b"\n")
        if end >= 0:
            return piece[:end].decode("latin-1"), at + end + 1
        if len(piece) < size:
            raise IndexError
        if size >= _LINE_BYTES:
            raise ValueError(f"a line of more than {_LINE_BYTES} bytes")
        size *= 4


def _of_line(convert):
    def read(content: memoryview, at: int) -> tuple[Any, int]:
        text, end = _line(content, at)
        return convert(text), end

    return read


def _two_lines(content: memoryview, at: int) -> tuple[tuple[str, str], int]:
    first, at = _line(content, at)
    second, at = _line(content, at)
    return (first, second), at


def _text(view: memoryview) -> str:
    return str(view, "utf-8", "surrogatepass")


def _latin(view: memoryview) -> str:
    return str(view, "latin-1")


def _integer(view: memoryview) -> int:
    return int.from_bytes(view, "little", signed=True)


def _quoted(text: str) -> str:
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"" or "\\" in text:
        raise ValueError(f"expected a text in quotes without backslashes, got {text[:40]!r}")
    return text[1:-1]


def _raw_unicode(text: str) -> str:
    return codecs.raw_unicode_escape_decode(text.encode("latin-1"))[0]  # Looking it up by name imports a module.


def _decimal(text: str) -> int | bool:
    if text in ("00", "01"):
        return text == "01"
    if len(text) > 2 * _INTEGER_BYTES:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text.removesuffix("L"))


_WITHOUT = {
    "MARK": "(", "STOP": ".", "POP": "0", "POP_MARK": "1", "DUP": "2", "NONE": "N", "BINPERSID": "Q", "REDUCE": "R",
    "APPEND": "a", "BUILD": "b", "DICT": "d", "EMPTY_DICT": "}", "APPENDS": "e", "LIST": "l", "EMPTY_LIST": "]",
    "OBJ": "o", "SETITEM": "s", "TUPLE": "t", "EMPTY_TUPLE": ")", "SETITEMS": "u", "NEWOBJ": "\x81", "TUPLE1": "\x85",
    "TUPLE2": "\x86", "TUPLE3": "\x87", "NEWTRUE": "\x88", "NEWFALSE": "\x89", "EMPTY_SET": "\x8f",
    "ADDITEMS": "\x90", "FROZENSET": "\x91", "NEWOBJ_EX": "\x92", "STACK_GLOBAL": "\x93", "MEMOIZE": "\x94",
    "NEXT_BUFFER": "\x97", "READONLY_BUFFER": "\x98",
}  # fmt: skip
_WITH = {
    "FLOAT": ("F", _of_line(float)), "INT": ("I", _of_line(_decimal)), "LONG": ("L", _of_line(_decimal)),
    "PERSID": ("P", _line), "STRING": ("S", _of_line(_quoted)), "UNICODE": ("V", _of_line(_raw_unicode)),
    "GLOBAL": ("c", _two_lines), "INST": ("i", _two_lines), "GET": ("g", _of_line(_decimal)),
    "PUT": ("p", _of_line(_decimal)),
    "BININT": ("J", _number("<i")), "BININT1": ("K", _number("<B")), "BININT2": ("M", _number("<H")),
    "BINFLOAT": ("G", _number(">d")), "BINGET": ("h", _number("<B")), "LONG_BINGET": ("j", _number("<I")),
    "BINPUT": ("q", _number("<B")), "LONG_BINPUT": ("r", _number("<I")), "PROTO": ("\x80", _number("<B")),
    "EXT1": ("\x82", _number("<B")), "EXT2": ("\x83", _number("<H")), "EXT4": ("\x84", _number("<i")),
    "FRAME": ("\x95", _number("<Q")),
    "BINSTRING": ("T", _counted("<i", _latin, _TEXT_BYTES)), "SHORT_BINSTRING": ("U", _counted("<B", _latin)),
    "BINUNICODE": ("X", _counted("<I", _text, _TEXT_BYTES)), "SHORT_BINUNICODE": ("\x8c", _counted("<B", _text)),
    "BINUNICODE8": ("\x8d", _counted("<Q", _text, _TEXT_BYTES)),
    "BINBYTES": ("B", _counted("<I", memoryview)), "SHORT_BINBYTES": ("C", _counted("<B", memoryview)),
    "BINBYTES8": ("\x8e", _counted("<Q", memoryview)), "BYTEARRAY8": ("\x96", _counted("<Q", memoryview)),
    "LONG1": ("\x8a", _counted("<B", _integer)), "LONG4": ("\x8b", _counted("<i", _integer, _INTEGER_BYTES)),
}  # fmt: skip
_TABLE = {
    **{ord(byte): (name, _nothing) for name, byte in _WITHOUT.items()},
    **{ord(byte): (name, read) for name, (byte, read) in _WITH.items()},
}
