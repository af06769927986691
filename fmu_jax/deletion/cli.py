"""A program of several commands: each has a frozen dataclass whose fields are its flags.

Fields become flags, their docstrings the help, their annotations (`ranges`) the allowed values.
"""

import dataclasses
import sys
import traceback
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

import tyro

from fmu_jax.deletion.ranges import check_number

INTERRUPTED = 130
_UNIONS = (typing.Union, types.UnionType)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
    """Flags that every command has."""

    traceback: bool = False
    """Show where in the code an error came from."""


ConfigT = TypeVar("ConfigT", bound=Base)


def check(config: Any) -> None:
    """Checks every field of a configuration against its range, even if it was made in Python.

    Args:
      config: A dataclass instance.

    Raises:
      ValueError: If a number is outside its range, or a list is empty whose default is not; the message names flag,
        range and value.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        flag = "--" + field.name.replace("_", "-")
        hint, value = hints[field.name], getattr(config, field.name)
        if typing.get_origin(hint) is tuple:
            if not value and field.default != ():
                raise ValueError(f"{flag}: expected at least one value")
            for item in value:
                check_number(flag, typing.get_args(hint)[0], item)
        elif value is not None:
            for kind in typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else (hint,):
                check_number(flag, kind, value)


def run_command(
    commands: Mapping[str, tuple[type[Base], Callable[[Any], Any]]],
    *,
    description: str,
    prog: str | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Runs a program whose first word names one of several commands, and turns a user's errors into one line.

    Args:
      commands: By name, the command's configuration (a frozen dataclass derived from `Base`, whose fields without a
        default are required) and what does its work.
      description: What ``--help`` says of the program.
      prog: Its name there; by default what it was started as.
      argv: The words after the program's name; by default those of this process.

    Returns:
      The exit status: 0; 1 after an error (ValueError or OSError, shown as ``error: ...`` on standard error; other
      exceptions are bugs and keep their traceback); 130 after an interrupt.

    Raises:
      SystemExit: With status 2 and a message on standard error if the words are no valid command line, or with
        status 0 after ``--help``.
    """
    kinds = [
        Annotated[config_type, tyro.conf.subcommand(name, prefix_name=False)]
        for name, (config_type, _) in commands.items()
    ]
    words = list(sys.argv[1:] if argv is None else argv)
    either: Any = typing.Union[tuple(kinds)]  # noqa: UP007 - made of values
    config = checked(tyro.cli(either, prog=prog, args=words, description=description, config=TYRO))
    main = next(main for config_type, main in commands.values() if type(config) is config_type)
    return run_guarded(main, config)


TYRO = (tyro.conf.FlagCreatePairsOff,)
"""How all command lines are read: a switch has one spelling, not two."""


def run_guarded(main: Callable[[Any], Any], config: Base, *, interrupted: str = "interrupted") -> int:
    """Does a command's work, and prints in one line on standard error what is wrong.

    Args:
      main: What does the work.
      config: Its configuration.
      interrupted: What is printed after an interrupt.

    Returns:
      The exit status, as `run_command` returns it.
    """
    try:
        main(config)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as error:
        if config.traceback:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def checked(config: ConfigT) -> ConfigT:
    """The configuration, if every field is within its range.

    Raises:
      SystemExit: With status 2 and a message on standard error, if one is not.
    """
    try:
        check(config)
    except ValueError as error:
        refuse(str(error))
    return config


def refuse(message: str) -> NoReturn:
    """Ends the program as for a bad command line: with a message on standard error, and status 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)
