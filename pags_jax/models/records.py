"""What a pickle describes and what is not made of it, and the few constructors that are done by hand."""

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Refused(ValueError):
    """A pickle holds what it must not; raised inside a step; ``load`` adds the file and the place."""


class Global(NamedTuple):
    """A class or a function that a file names; nothing is imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return printable(f"{self.module}.{self.name}"[:120])


@dataclass(eq=False, repr=False)
class Record:
    """An object that a file describes, and that is not made.

    Attributes:
      what: What would be called to make it.
      args: The arguments of that call.
      kwargs: Keyword arguments of that call.
      state: What would be put into it, or None.
      items: What would be appended or added to it.
      entries: What would be set by key.
    """

    what: Any
    args: tuple = ()
    kwargs: dict = field(default_factory=dict)
    state: Any = None
    items: list = field(default_factory=list)
    entries: dict = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Record({described(self.what)})"


def printable(text: str) -> str:
    """A text of a file without what a terminal would act on: such characters as Python writes them in its code."""
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]


def described(value: Any) -> str:
    """A short name of a value for messages, whatever it is."""
    if isinstance(value, Global | int | float | str | None):
        return printable(str(value)[:80])
    if isinstance(value, Record) and isinstance(value.what, Global):
        return f"what {value.what} makes"
    return f"a {type(value).__name__}"


def checked_key(value: Any) -> Any:
    """A key, if no file can make many of one hash: of large integers, and of tuples of numbers, it can."""
    if isinstance(value, memoryview) and len(value) <= 256:
        return bytes(value)
    if isinstance(value, str | float | Record | None) or (isinstance(value, int) and abs(value) < 2**60):
        return value
    if isinstance(value, tuple) and len(value) <= 4 and all(_in_tuple(part) for part in value):
        return value
    raise Refused(f"a key that cannot be used, {described(value)}")


def _in_tuple(part: Any) -> bool:
    return isinstance(part, str | None) or (isinstance(part, int) and abs(part) < 2**15)


def dict_of(items: list[Any]) -> dict[Any, Any]:
    """A dict of keys and values in turn."""
    if len(items) % 2:
        raise Refused("a key without a value")
    return {checked_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


# ------------------------------------------------------------------------------------------ what is done by hand
def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    if isinstance(pairs, dict):
        return dict(pairs)
    if not isinstance(pairs, list | tuple) or any(not isinstance(p, list | tuple) or len(p) != 2 for p in pairs):
        raise ValueError(f"expected pairs, got {described(pairs)}")
    return dict_of([item for pair in pairs for item in pair])


def _set(items: Any = ()) -> set[Any]:
    """How protocols before 4 write a set."""
    if not isinstance(items, list | tuple):
        raise ValueError(f"expected a list, got {described(items)}")
    return {checked_key(item) for item in items}


def _encoded(text: Any, encoding: Any = "latin1") -> memoryview:
    """How protocols before 3 write bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError(f"expected a text and latin1, got {described(text)} and {described(encoding)}")
    return memoryview(text.encode("latin-1"))


def _scalar(dtype: Any, data: Any = None) -> bool | int | float:
    """A NumPy number, as Python's."""
    code = dtype.args[0] if isinstance(dtype, Record) and dtype.args else None
    layout = _SCALARS.get(code) if isinstance(code, str) else None
    order = dtype.state[1] if isinstance(dtype, Record) and isinstance(dtype.state, tuple) else "<"
    if isinstance(data, str):
        data = _encoded(data)
    if layout is None or not isinstance(data, bytes | memoryview) or order not in ("<", "|", "=", ">"):
        raise ValueError(f"expected a number's type and bytes, got {described(code)} and {described(data)}")
    return struct.unpack((">" if order == ">" else "<") + layout, data)[0]


_SCALARS = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q", "f2": "e",
    "f4": "f", "f8": "d",
}  # fmt: skip

#: Functions by the name that a file calls; all others become records.
CONSTRUCTORS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda factory=None: {},
    "dnnlib.util.EasyDict": _ordered,
    "builtins.set": _set,
    "__builtin__.set": _set,
    "_codecs.encode": _encoded,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
}

#: What no weights need: modules, and single names, whose call is refused instead of being recorded.
_HARMFUL = frozenset(
    {
        *("os", "posix", "nt", "sys", "subprocess", "pty", "socket", "shutil", "runpy", "importlib", "ctypes"),
        *("webbrowser", "marshal", "pickle", "_pickle", "cloudpickle", "commands", "platform", "pip", "asyncio"),
        *("code", "codeop", "bdb", "pdb", "profile", "cProfile", "trace", "timeit", "urllib", "requests", "http"),
        *("httplib", "ftplib", "smtplib", "builtins.exec", "builtins.eval", "builtins.compile", "builtins.execfile"),
        *("builtins.__import__", "builtins.open", "builtins.input", "builtins.breakpoint", "io.open", "_io.open"),
        *("operator.methodcaller", "operator.attrgetter", "dill.load", "dill.loads", "joblib.load", "numpy.load"),
        *("torch.load", "torch.hub", "torch.utils.cpp_extension", "doctest.debug_script", "pydoc.pipepager"),
        # A pickle names a function by the module that it is defined in.
        *("torch.serialization.load", "torch.jit.load", "torch.jit._serialization.load", "dill._dill.load"),
        *("dill._dill.loads", "joblib.numpy_pickle.load", "numpy.lib.npyio.load", "numpy.lib._npyio_impl.load"),
        *("pandas.read_pickle", "pandas.io.pickle", "imp", "zipimport", "pkgutil", "ensurepip", "venv"),
    }
)


def is_harmful(what: Any) -> bool:
    """Whether it is a function that only a file meant to do harm asks for."""
    return isinstance(what, Global) and _is_harmful(what)


@functools.lru_cache(maxsize=1000)
def _is_harmful(what: Global) -> bool:
    module = what.module.replace("__builtin__", "builtins")
    path = what.name.split(".")  # Since protocol 4 a name can lead through modules, as "path.os.system" would.
    parents = [".".join(module.split(".")[:i]) for i in range(1, 1 + len(module.split(".")))]
    return bool(_HARMFUL & {*parents, f"{module}.{path[0]}", *path[:-1]})
