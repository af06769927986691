"""PyTorch's files, and pickles that hold tensors, read without PyTorch and without running anything.

Three containers: a zip archive (since PyTorch 1.6) of one pickle and a file for each storage; the legacy one, five
pickles and then the storages; a plain pickle, whose storages are legacy containers inside of it, as bytes. Tensors are
views of storages, checked to lie within them; storages are views of the file, which is mapped and not copied.
"""

import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np

from pags_jax.datasets import reading
from pags_jax.models import pickles, zips
from pags_jax.models.records import Global, described
from pags_jax.models.tensors import CONSTRUCTORS, Storage, dtype_of

_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_NESTED = 4
#: Where files of other kinds have which bytes, and what to do.
_OTHERS = (
    (257, b"ustar", "a tar archive, as PyTorch wrote before 2017; save it again with a later version"),
    (8, b'{"', "a safetensors file; what models.save wrote is read under a name that ends in .safetensors"),
    (0, b"\x93NUMPY", "an array of NumPy, no checkpoint of PyTorch; save the state_dict by torch.save"),
    (0, b"\x89HDF", "an HDF5 file, no checkpoint of PyTorch; save the state_dict by torch.save"),
    (0, b"PK\x05\x06", "an empty zip archive; get it again"),
    *((0, magic, "compressed; decompress it first") for magic in (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf")),
    *(
        (0, page, "a web page, from a download that failed; get the file itself")
        for page in (b"<", b"\n<", b"\xef\xbb\xbf<")
    ),
    (0, b"version https://git-lfs", "a pointer of Git LFS; get the file itself, by git lfs pull"),
)
#: Largest file that is read, bytes.
MOST_BYTES = 2**34


def load_file(path: str | Path, *, most_bytes: int = MOST_BYTES) -> Any:
    """Reads what ``torch.save`` or a pickle holds.

    Args:
      path: of the file.
      most_bytes: size of the largest file to read.

    Returns:
      As ``pickles.load``, with a ``Tensor`` for each tensor.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is too large, damaged, or refused; nothing was run.
    """
    path = Path(path)
    reading.check_size(path, most_bytes)
    try:
        with path.open("rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    return load(content, source=str(path))


def load(content: Any, *, source: str, depth: int = 0, used: dict[str, int] | None = None) -> Any:
    """As ``load_file``, of bytes or a view of them.

    Args:
      content: the bytes.
      source: what to call them in messages.
      depth: how many files they lie in.
      used: of the limits, by the files that they lie in (``pickles.load``).
    """
    view, used = memoryview(content).toreadonly().cast("B"), {} if used is None else used
    if depth > _NESTED:
        raise ValueError(f"{source} holds files within files, more than {_NESTED} deep")
    if bytes(view[:4]) == b"PK\x03\x04":
        return _load_zip(view, source, used)
    for begin, magic, kind in _OTHERS:
        if bytes(view[begin : begin + len(magic)]) == magic:
            raise ValueError(f"{source} is {kind}")
    constructors = {**CONSTRUCTORS, "torch.storage._load_from_bytes": _Within(source, depth + 1, used)}
    value, end = pickles.load(view, source=source, constructors=constructors, used=used)
    if value == _MAGIC and isinstance(value, int):
        value, end = _load_legacy(view, end, source, used)
    if end != len(view):
        raise ValueError(f"{source} has {len(view) - end} bytes after its end")
    return value


class _Within:
    """Reads files within a file: the same bytes, which may be named many times, once."""

    def __init__(self, source: str, depth: int, used: dict[str, int]):
        self.source, self.depth, self.used = source, depth, used
        self.read: dict[int, Any] = {}

    def __call__(self, data: Any) -> Any:
        if not isinstance(data, memoryview | bytes):
            raise ValueError(f"expected bytes, got {described(data)}")
        if id(data) not in self.read:
            value = load(data, source=f"a file within {self.source}", depth=self.depth, used=self.used)
            self.read[id(data)] = (data, value)  # As long as `data` lives, nothing else has its number.
        return self.read[id(data)][1]


# ------------------------------------------------------------------------------------------------- containers
class _Outside:
    """Resolves ("storage", type, key, device, count[, part]) to a storage, and ("module", class, ...) to a class."""

    def __call__(self, key: Any) -> Any:
        match key:
            case ("module", Global() as kind, *_):
                return kind
            case ("storage", Global() as kind, str() | int() as name, _, int() as count, *rest) if len(rest) < 2:
                name = str(name)
                if not (name.isascii() and name.isalnum()) or len(name) > 80:
                    raise ValueError(f"a storage has the name {described(name)}, expected up to 80 letters and digits")
                if isinstance(count, bool) or not 0 <= count < 2**60:
                    raise ValueError(f"storage {name} has {described(count)} numbers")
                if rest and rest[0] is not None:
                    raise ValueError(f"storage {name} is a part of another one, which is not supported")
                return self.storage(dtype_of(kind), name, count)
        raise ValueError("an identifier of something else than a storage")

    def storage(self, dtype: np.dtype, key: str, count: int) -> Storage:
        raise NotImplementedError


class _Legacy(_Outside):
    """Storages that come after the pickle."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}

    def storage(self, dtype: np.dtype, key: str, count: int) -> Storage:
        storage = self.storages.setdefault(key, Storage(dtype, count))
        if storage.dtype != dtype or storage.count != count:
            raise ValueError(f"storage {key} is {count} of {dtype} here and {storage.count} of {storage.dtype} there")
        return storage


class _Zip(_Outside):
    """Storages that are files of an archive."""

    def __init__(self, entries: dict[str, zips.Entry], folder: str):
        self.entries, self.folder = entries, folder
        self.read: dict[str, memoryview] = {}

    def storage(self, dtype: np.dtype, key: str, count: int) -> Storage:
        name = f"{self.folder}data/{key}"
        if name not in self.entries:
            raise ValueError(f"there is no {name} in the archive")
        if name not in self.read:
            self.read[name] = self.entries[name].read()
        data = self.read[name]
        if len(data) != count * dtype.itemsize:
            raise ValueError(f"storage {key} of {count} numbers of {dtype} has {len(data)} bytes")
        return Storage(dtype, count, data)


def _load_legacy(view: memoryview, at: int, source: str, used: dict[str, int]) -> tuple[Any, int]:
    """Four more pickles (version, system, content, keys), then each storage: its count and its numbers."""
    version, at = pickles.load(view, source=source, used=used, start=at)
    system, at = pickles.load(view, source=source, used=used, start=at)
    if version != _LEGACY_VERSION:
        raise ValueError(f"{source} has the version {described(version)}, expected {_LEGACY_VERSION}")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError(f"{source} does not say that its numbers are little-endian")
    outside = _Legacy()
    value, at = pickles.load(view, source=source, used=used, start=at, persistent=outside, constructors=CONSTRUCTORS)
    keys, at = pickles.load(view, source=source, used=used, start=at)
    if not isinstance(keys, list) or sorted(map(described, keys)) != sorted(outside.storages):
        raise ValueError(
            f"{source} lists {described(keys)} of storages that are not the {len(outside.storages)} it refers to"
        )
    for key in map(described, keys):
        storage = outside.storages[key]
        if at + 8 > len(view):
            raise ValueError(f"{source} is cut off: it ends at byte {len(view)}, before storage {key}")
        (count,) = struct.unpack_from("<q", view, at)
        if count != storage.count:
            raise ValueError(f"{source}: storage {key} has {count} numbers, and {storage.count} were named")
        end = at + 8 + count * storage.dtype.itemsize
        if end > len(view):
            raise ValueError(f"{source} is cut off: storage {key} ends at byte {end} of {len(view)}")
        storage.data, at = view[at + 8 : end], end
    return value, at


def _load_zip(view: memoryview, source: str, used: dict[str, int]) -> Any:
    """One pickle, ``NAME/data.pkl``, and storages, ``NAME/data/KEY``."""
    entries = zips.entries(view, source=source)
    found = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
    if len(found) != 1:
        listed = ", ".join(repr(name[:40]) for name in list(entries)[:3])
        raise ValueError(
            f"{source} is a zip archive of {len(found)} files named data.pkl, expected one: not PyTorch's, but of "
            f"{listed or 'nothing'}; unpack it, if the checkpoint is in it"
        )
    folder = found[0].removesuffix("data.pkl")
    if any(name.startswith(f"{folder}code/") for name in entries):
        raise ValueError(f"{source} is a TorchScript archive, which holds code; save the state_dict instead")
    if f"{folder}byteorder" in entries and bytes(entries[f"{folder}byteorder"].read()).strip() != b"little":
        raise ValueError(f"{source} does not say that its numbers are little-endian")
    content = entries[found[0]].read()
    source = f"{found[0]} in {source}"
    outside = _Zip(entries, folder)
    value, end = pickles.load(content, source=source, persistent=outside, constructors=CONSTRUCTORS, used=used)
    if end != len(content):
        raise ValueError(f"{source} has {len(content) - end} bytes after its end")
    return value
