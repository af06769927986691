"""Error messages of the command, in its own flags, with what was and what was not done.

The library's messages speak Python: ``missing='drop'``, `` `l2` ``. A user of the command has flags, so every message
that reaches the command is put into them, whatever function it comes from.
"""

import ast
import contextlib
import re
import shlex
from collections.abc import Collection, Iterator, Mapping

_LITERAL = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_VALUE = rf"(?:{_LITERAL}|\((?:{_LITERAL}|[^()'\"])*\)|[^\s,;:()]*[^\s,;:().])"
_TRANSLATED = re.compile(
    rf"`(?P<quoted>\w+)`|(?<![\w./=-])(?P<name>[a-z][a-z0-9_]*)=(?P<value>{_VALUE})"
    rf"|(?<!\w)(?:{_LITERAL})(?!\w)|(?<![\w./-])(?P<bare>[a-z]+(?:_[a-z]+)+)(?![\w./=-])"
)


class UnwrittenError(Exception):
    """A request is done and in the ledger, but not all files that follow it could be written."""


@contextlib.contextmanager
def outcome(state: str, *kinds: type[Exception]) -> Iterator[None]:
    """Prefixes errors of these kinds by what is the case now, such as "nobody was deleted".

    Raises:
      OSError, ValueError: The same error in other words.
    """
    try:
        yield
    except kinds as error:
        text = str(error)
        if isinstance(error, OSError) and error.strerror:
            text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        kind = ValueError if isinstance(error, ValueError) else OSError
        if isinstance(error, FileNotFoundError | PermissionError):
            kind = type(error)
        elif kind is OSError:
            text += "; when that is mended, run the same command again"
        raise kind(text if state in text else f"{state}: {text}") from error


def in_flags(message: str, flags: Mapping[str, str], *, verbatim: Collection[str] = ()) -> str:
    """Turns a message of the library into the command's words.

    Args:
      message: It names arguments as Python does: ``name=value``, `` `name` ``, and names that hold an underscore.
      flags: The flag of each argument, such as ``{"missing": "--missing"}``.
      verbatim: What the user wrote, such as the table's path; it stays as it is, as does whatever is quoted.

    Returns:
      The message with flags.

    >>> flags = {"missing": "--missing", "drop": "--drop", "max_categories": "--max-categories"}
    >>> in_flags("pass missing='drop', drop=('a b', 'c') or drop=(column, ...), or raise max_categories", flags)
    "pass --missing drop, --drop 'a b' c or --drop COLUMN ..., or raise --max-categories"
    """
    # What holds nothing to translate needs no protection, and would cut words in two: a store may be called "max".
    protected = "|".join(re.escape(text) for text in verbatim if _TRANSLATED.search(text))
    parts = re.split(f"({protected})", message) if protected else [message]

    def put(found: re.Match[str]) -> str:
        name = found["quoted"] or found["name"] or found["bare"]
        if name not in flags:
            return found["quoted"] or found[0]
        written = _written(found["value"]) if found["value"] else ""
        return f"{flags[name]} {written}".strip()

    return "".join(part if number % 2 else _TRANSLATED.sub(put, part) for number, part in enumerate(parts))


def _written(value: str) -> str:
    """How a value is written on a command line."""
    if value.endswith("...)"):  # An example, such as (column, ...).
        return f"{value.strip('().,').rstrip('., ').upper() or 'VALUE'} ..."
    try:
        read = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    several = read if isinstance(read, tuple | list | set) else (read,)
    return " ".join(shlex.quote(str(item)) for item in several if item is not None and not isinstance(item, bool))
