"""Pickles read without being run: plain values come out, and for everything else a record of what the file asks for.

Unpickling calls whatever a file names. Here a small stack machine keeps plain values (numbers, texts, bytes, lists,
dicts) and never imports or calls anything that a file names: a class or a function becomes a ``Global``, what would be
made of it a ``Record``, except for a short list of harmless constructors, which are done by hand. Files that ask for a
function that can only be meant to do harm are refused by its name.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pags_jax.models.opcodes import beginning, instructions
from pags_jax.models.records import CONSTRUCTORS, Global, Record, Refused, checked_key, described, dict_of, is_harmful


class Limits(NamedTuple):
    """What a file's pickles may take at most, all of them together.

    Attributes:
      steps: Instructions.
      stack: Values on the stack at once, those below marks included.
      marks: Marks at once.
      memo: Values remembered.
      text: Characters of all its texts.
      encodings: Characters of texts that calls turn into bytes.
      copies: Values that calls look through: a list that is named many times would be copied as often.
    """

    steps: int = 2_000_000
    stack: int = 100_000
    marks: int = 1_000
    memo: int = 1_000_000
    text: int = 2**28
    encodings: int = 2**28
    copies: int = 4_000_000  # Whatever is written anew for each call takes half as many steps.


LIMITS = Limits()
_NAME = 300


def load(
    content: Any,
    *,
    source: str,
    start: int = 0,
    persistent: Callable[[Any], Any] | None = None,
    constructors: Mapping[str, Callable[..., Any]] | None = None,
    limits: Limits | None = None,
    used: dict[str, int] | None = None,
) -> tuple[Any, int]:
    r"""Reads one pickle.

    Args:
      content: Bytes, or a view of a file.
      source: Name for messages.
      start: Where the pickle begins.
      persistent: What stands for an identifier of something outside of the pickle; without it there may be none.
      constructors: More functions, by the dotted name that a file calls, each of which checks its arguments and raises
        ValueError.
      limits: What it may take; by default ``LIMITS``.
      used: How much of the limits other pickles of the same file have taken; what this one takes is added.

    Returns:
      The value: numbers, texts, tuples, lists, sets and dicts, ``memoryview`` for bytes, ``Global``, ``Record``; and
      the position after the pickle.

    Raises:
      ValueError: It is cut off, malformed, over a limit, or asks for what only harmful files ask for. Nothing was run.

    >>> load(b"}(K\x01K\x02u.", source="an example")[0]
    {1: 2}
    >>> load(b"cbuiltins\nprint\n)R.", source="an example")[0]
    Record(builtins.print)
    """
    view = memoryview(content).toreadonly().cast("B")
    machine = _Machine(
        persistent, {**CONSTRUCTORS, **(constructors or {})}, limits or LIMITS, {} if used is None else used
    )
    at = start
    for name, value, at in instructions(view, source=source, start=start):
        try:
            machine.step(name, value)
        except Refused as error:
            message = f"{source} is refused: at byte {at}, {error}; nothing was run"
            raise ValueError(message + beginning(view, start, at)) from None
    (result,) = machine.stack
    return result, at + 1


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(
        self, persistent: Any, constructors: Mapping[str, Callable[..., Any]], limits: Limits, used: dict[str, int]
    ):
        self.persistent, self.constructors, self.limits = persistent, constructors, limits
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # What was on the stack before each mark.
        self.used = used
        for what in Limits._fields:
            used.setdefault(what, 0)
        self.memo: dict[int, Any] = {}

    def step(self, name: str, value: Any) -> None:
        self.use("steps")
        if isinstance(value, str | tuple):
            self.use("text", len(value) if isinstance(value, str) else sum(map(len, value)))
        if name in _PUSHED:
            self.push(value)
        elif name in _MADE:
            self.push(_MADE[name]())
        elif name in _STEPS:
            _STEPS[name](self, value)
        elif name not in ("PROTO", "FRAME"):
            raise Refused(f"{name} needs what only the program that wrote it has")

    def use(self, what: str, count: int = 1) -> None:
        self.used[what] += count
        if self.used[what] > (most := getattr(self.limits, what)):
            raise Refused(f"it is over the limit of {most} for its {what}")

    def push(self, value: Any) -> None:
        self.stack.append(value)
        if len(self.stack) + self.used["stack"] > self.limits.stack:
            raise Refused(f"it is over the limit of {self.limits.stack} for its stack")

    def pop(self) -> Any:
        if not self.stack:
            raise Refused("the stack is empty")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        if not self.below:
            raise Refused("there is no mark")
        items, self.stack = self.stack, self.below.pop()
        self.used["stack"] -= len(self.stack)
        self.used["marks"] -= 1
        return items

    def mark(self, _) -> None:
        self.use("marks")
        self.below.append(self.stack)
        self.used["stack"] += len(self.stack)
        self.stack = []

    def top(self) -> Any:
        if not self.stack:
            raise Refused("the stack is empty")
        return self.stack[-1]

    def stop(self, _) -> None:
        if len(self.stack) != 1 or self.below:
            raise Refused(f"the end leaves {len(self.stack)} values and {len(self.below)} marks, expected 1 and 0")

    def discard(self, _) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def put(self, key: int) -> None:
        self.use("memo", key not in self.memo)
        self.memo[key] = self.top()

    def get(self, key: int) -> None:
        if key not in self.memo:
            raise Refused(f"the memo has no number {key}")
        self.push(self.memo[key])

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("a name that is no text")
        self.push(self.named(module, name))

    def named(self, module: str, name: str) -> Global:
        if (size := len(module) + len(name)) > _NAME:
            raise Refused(f"a name of {size} characters, expected at most {_NAME}")
        return Global(module, name)

    def stack_global(self, _) -> None:
        name, module = self.pop(), self.pop()
        self.name(module, name)

    def call(self, what: Any, args: Any, kwargs: Any = None) -> None:
        """What REDUCE, NEWOBJ, INST and OBJ do: by hand for a few, a record for all others."""
        if not isinstance(args, tuple) or not isinstance(kwargs or {}, dict):
            raise Refused(f"a call of {described(what)} with arguments that are no tuple")
        self.use("copies", len(args))
        name = str(what) if isinstance(what, Global) else ""
        if is_harmful(what):
            raise Refused(f"it asks to call {what}, which no weights need")
        if handed := next(filter(is_harmful, args), None):  # As functools.partial, map or getattr would call it.
            raise Refused(f"it hands {handed} to {described(what)}, which no weights need")
        made = self.constructors.get(name)
        for arg in args if made else ():
            if isinstance(arg, str):
                self.use("encodings", len(arg))
            elif isinstance(arg, tuple | list | dict):
                self.use("copies", len(arg))
        try:
            value = Record(what, args, kwargs or {}) if made is None or kwargs else made(*args)
        except (TypeError, ValueError, LookupError, OverflowError, struct.error) as error:
            raise Refused(f"{name} has arguments that it cannot have ({error})") from None
        self.push(value)

    def reduce(self, _) -> None:
        args, what = self.pop(), self.pop()
        self.call(what, args)

    def newobj_ex(self, _) -> None:
        kwargs, args, what = self.pop(), self.pop(), self.pop()
        self.call(what, args, kwargs)

    def inst(self, value: tuple[str, str]) -> None:
        self.call(self.named(*value), tuple(self.pop_mark()))

    def obj(self, _) -> None:
        items = self.pop_mark()
        if not items:
            raise Refused("an object of no class")
        self.call(items[0], tuple(items[1:]))

    def build(self, _) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict):  # Attributes of an ordered dict are of no use.
            raise Refused(f"a state for {described(target)}")

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Record):
            target = target.items
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(checked_key(item) for item in items)
        else:
            raise Refused(f"items for {described(target)}")

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Record):
            target = target.entries
        if not isinstance(target, dict):
            raise Refused(f"entries for {described(target)}")
        target.update(dict_of(items))

    def two(self) -> list[Any]:
        value, key = self.pop(), self.pop()
        return [key, value]

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise Refused("the stack is empty")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def outside(self, key: Any) -> None:
        if self.persistent is None:
            raise Refused(f"it points outside of itself, to {described(key)}")
        try:
            value = self.persistent(key)
        except ValueError as error:
            raise Refused(str(error)) from None
        self.push(value)


_PUSHED = {
    "FLOAT", "INT", "LONG", "STRING", "UNICODE", "BININT", "BININT1", "BININT2", "BINFLOAT", "BINSTRING",
    "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8", "LONG1", "LONG4",
}  # fmt: skip
_MADE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set,
}  # fmt: skip
_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "MARK": _Machine.mark, "STOP": _Machine.stop, "POP": _Machine.discard,
    "POP_MARK": lambda m, _: m.pop_mark(),
    "DUP": lambda m, _: m.push(m.top()), "PUT": _Machine.put, "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put, "MEMOIZE": lambda m, _: m.put(len(m.memo)), "GET": _Machine.get,
    "BINGET": _Machine.get, "LONG_BINGET": _Machine.get, "GLOBAL": lambda m, value: m.name(*value),
    "STACK_GLOBAL": _Machine.stack_global, "REDUCE": _Machine.reduce, "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.newobj_ex, "INST": _Machine.inst, "OBJ": _Machine.obj, "BUILD": _Machine.build,
    "APPEND": lambda m, _: m.append([m.pop()]), "APPENDS": lambda m, _: m.append(m.pop_mark()),
    "ADDITEMS": lambda m, _: m.append(m.pop_mark()), "SETITEM": lambda m, _: m.set_items(m.two()),
    "SETITEMS": lambda m, _: m.set_items(m.pop_mark()), "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2), "TUPLE3": lambda m, _: m.tuple_of(3),
    "TUPLE": lambda m, _: m.push(tuple(m.pop_mark())), "LIST": lambda m, _: m.push(m.pop_mark()),
    "DICT": lambda m, _: m.push(dict_of(m.pop_mark())),
    "FROZENSET": lambda m, _: m.push(frozenset(checked_key(item) for item in m.pop_mark())),
    "PERSID": _Machine.outside, "BINPERSID": lambda m, _: m.outside(m.pop()),
}  # fmt: skip
