"""Writes checkpoint files in PyTorch's formats, instruction by instruction, without PyTorch and without ``pickle``."""

import io
import struct
import zipfile
from typing import Any, NamedTuple

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "f8": "Double",
    "f4": "Float",
    "f2": "Half",
    "V2": "BFloat16",
    "i8": "Long",
    "i4": "Int",
    "u1": "Byte",
    "b1": "Bool",
}


class Named(NamedTuple):
    """A class or function."""

    module: str
    name: str


class Call(NamedTuple):
    """What REDUCE makes, what BUILD puts into it, and what SETITEMS sets in it."""

    what: Any
    args: tuple
    state: Any = None
    entries: Any = None


class Outside(NamedTuple):
    """A persistent identifier."""

    key: Any


class Raw(NamedTuple):
    """Instructions as they are."""

    content: bytes


ORDERED = Call(Named("collections", "OrderedDict"), ())


def instructions(value: Any, tensor=None) -> bytes:
    """The instructions that leave a value on the stack; ``tensor`` says what stands for an array."""

    def write(value):
        return instructions(value, tensor)

    match value:
        case Raw(content):
            return content
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case Named(module, name):
            return f"c{module}\n{name}\n".encode()
        case Outside(key):
            return write(key) + b"Q"
        case Call(what, args, state, entries):
            more = b"" if entries is None else write(entries).removeprefix(b"}")
            return write(what) + write(tuple(args)) + b"R" + more + (b"" if state is None else write(state) + b"b")
        case np.ndarray():
            return write(tensor(value))
        case int() if 0 <= value < 256:
            return b"K" + struct.pack("<B", value)
        case int():
            size = value.bit_length() // 8 + 1
            return b"\x8a" + struct.pack("<B", size) + value.to_bytes(size, "little", signed=True)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case bytes():
            return b"B" + struct.pack("<I", len(value)) + value
        case tuple():
            return b"(" + b"".join(map(write, value)) + b"t"
        case list():
            return b"](" + b"".join(map(write, value)) + b"e"
        case dict():
            return b"}(" + b"".join(write(part) for item in value.items() for part in item) + b"u"
    raise TypeError(type(value))


def pickled(value: Any, tensor=None) -> bytes:
    return b"\x80\x02" + instructions(value, tensor) + b"."


class Storages:
    """Numbers the arrays of a file, each in a storage of its own, the same array in the same one."""

    def __init__(self):
        self.arrays: dict[str, np.ndarray] = {}
        self.keys: dict[int, str] = {}

    def kind(self, array: np.ndarray) -> Named:
        return Named("torch", f"{STORAGES[array.dtype.str[1:]]}Storage")

    def tensor(self, array: np.ndarray) -> Call:
        key = self.keys.setdefault(id(array), str(len(self.keys)))
        self.arrays[key] = array
        storage = Outside(("storage", self.kind(array), key, "cuda:0", array.size, *self.more))
        return rebuilt(array, storage)

    more: tuple = ()


def rebuilt(array: np.ndarray, storage: Any, *more: Any) -> Call:
    """The call that makes a tensor; an array in Fortran's order stays in it, as ``channels_last`` does."""
    strides = tuple(step // array.itemsize for step in array.strides)
    args = (storage, 0, array.shape, strides, False, ORDERED, *more)
    return Call(Named("torch._utils", "_rebuild_tensor_v2"), args)


def flat(array: np.ndarray) -> bytes:
    """The bytes of an array in the order in which it lies in memory."""
    return array.tobytes("A")


def legacy(value: Any, **system: Any) -> bytes:
    storages = Storages()
    storages.more = (None,)
    content = pickled(value, storages.tensor)
    about = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}, **system}
    parts = [pickled(MAGIC), pickled(1001), pickled(about), content, pickled(sorted(storages.arrays))]
    for key in sorted(storages.arrays):
        array = storages.arrays[key]
        parts.append(struct.pack("<q", array.size) + flat(array))
    return b"".join(parts)


def zipped(value: Any, name: str = "archive", extra=()) -> bytes:
    storages, file = Storages(), io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}/data.pkl", pickled(value, storages.tensor))
        archive.writestr(f"{name}/byteorder", "little")
        for key, array in storages.arrays.items():
            archive.writestr(f"{name}/data/{key}", flat(array))
        archive.writestr(f"{name}/version", "3\n")
        for more, content in extra:
            archive.writestr(more, content)
    return file.getvalue()


def within(array: np.ndarray) -> Call:
    """A tensor whose storage is a legacy file inside of the pickle, as in the pickles of EDM."""
    storage = legacy_storage(array)
    return rebuilt(array, Call(Named("torch.storage", "_load_from_bytes"), (storage,)))


def legacy_storage(array: np.ndarray) -> bytes:
    storages = Storages()
    kind = storages.kind(array)
    key = ("storage", kind, "7", "cpu", array.size, None)
    about = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    parts = [pickled(part) for part in (MAGIC, 1001, about, Outside(key), ["7"])]
    return b"".join([*parts, struct.pack("<q", array.size), flat(array)])


def plain(value: Any) -> bytes:
    return pickled(value, within)
