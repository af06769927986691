"""Typed command lines: a frozen dataclass is the interface of a script.

Fields become flags, their docstrings the help, their annotations the allowed values::

    @dataclass(frozen=True)
    class Config(cli.Common):
        \"\"\"Remove rows, and see what is left of fairness.\"\"\"

        PRESETS: ClassVar = {"quick": {"repeats": 1}, "paper": {"repeats": 20}}

        out: Path = Path("runs/removal")
        repeats: cli.Count = 5
        \"\"\"How often each deletion is drawn anew.\"\"\"
        shares: tuple[cli.Share, ...] = (0.01, 0.05)
        \"\"\"Shares of the training rows to remove.\"\"\"

    if __name__ == "__main__":
        sys.exit(cli.run(main, Config, plan=plan))
"""

import dataclasses
import math
import sys
import traceback
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from scripts.harness import rows, store


def _short(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e12 else f"{value:g}"


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@dataclasses.dataclass(frozen=True)
class Range:
    """An interval of numbers, to annotate a field with through `number`.

    Args:
        low: The lower end.
        high: The upper end.
        open_low: Whether the lower end itself is outside.
        open_high: Whether the upper end itself is outside.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and math.isfinite(value)

    def __str__(self) -> str:
        """As words: ``> 0``, ``>= 1``, ``in (0, 1]``, ``finite``."""
        if math.isinf(self.high):
            sign = ">" if self.open_low else ">="
            return "finite" if math.isinf(self.low) else f"{sign} {_short(self.low)}"
        left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"in {left}{_short(self.low)}, {_short(self.high)}{right}"


def number(kind: type[int] | type[float], allowed: Range) -> Any:
    """What to put into ``Annotated[kind, ...]`` for a number in a range; the range shows in the help.

    Args:
        kind: ``int`` or ``float``.
        allowed: The range, which `check` enforces.
    """
    what = "INTEGER" if kind is int else "NUMBER"

    def read(words: list[str]) -> int | float:
        try:
            return kind(words[0])
        except ValueError:
            raise ValueError(f"expected {_article(what.lower())} {allowed}, got {words[0]!r}") from None

    spec = PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{what} {allowed}",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, int | kind) and not isinstance(value, bool),
        str_from_instance=lambda value: [repr(value)],
    )
    _RANGES[id(spec)] = (spec, kind, allowed)
    return spec


_RANGES: dict[int, tuple[PrimitiveConstructorSpec[Any], type, Range]] = {}

Positive = Annotated[float, number(float, Range(0, open_low=True))]
"""A finite number above 0."""
NonNegative = Annotated[float, number(float, Range(0))]
"""A finite number, 0 or above."""
Share = Annotated[float, number(float, Range(0, 1, open_low=True))]
"""A share of a whole, in (0, 1]."""
Probability = Annotated[float, number(float, Range(0, 1, open_low=True, open_high=True))]
"""A probability strictly between 0 and 1."""
Count = Annotated[int, number(int, Range(1))]
"""A whole number, 1 or above."""
Seed = Annotated[int, number(int, Range(0, 2**32 - 1))]
"""What a random key is made from: a whole number of 32 bits."""


@dataclasses.dataclass(frozen=True)
class Common:
    """Flags that every script has; a script's Config derives from it."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Other defaults by preset name; flags that are given win."""

    preset: Literal["none", "quick", "paper"] = "none"
    """Other defaults: quick (a minute or less), paper (the paper's scale). Flags that are given win."""
    seed: Seed = 0
    """All randomness of the run follows from it."""
    out: Path = Path("runs/unnamed")
    """Run folder. The same configuration resumes there; another one is refused."""
    dry_run: bool = False
    """Print the configuration and the units of work that it leads to, and write nothing."""
    traceback: bool = False
    """Show where in the code an error came from."""


ConfigT = TypeVar("ConfigT", bound=Common)


def parse(config_type: type[ConfigT], argv: Sequence[str] | None = None) -> ConfigT:
    """Read a command line into a configuration.

    Args:
        config_type: A frozen dataclass derived from `Common`, with a default for every field.
        argv: The words after the program's name; by default those of this process.

    Returns:
        The configuration: given flags, then the preset's values, then the defaults.

    Raises:
        SystemExit: With status 2 and a message on standard error if the words are no valid command line, or with
            status 0 after ``--help``.

    >>> parse(Common, ["--seed", "7"]).seed
    7
    """
    words = list(sys.argv[1:] if argv is None else argv)
    config = _parse_with(config_type, words, config_type())
    if config.preset != "none":
        if config.preset not in config_type.PRESETS:
            known = ", ".join(["none", *config_type.PRESETS])
            _refuse(f"--preset: this script has no preset {config.preset!r}, only {known}")
        changed = dict(config_type.PRESETS[config.preset]) | {"preset": config.preset}
        config = _parse_with(config_type, words, dataclasses.replace(config_type(), **changed))
    try:
        check(config)
    except ValueError as error:
        _refuse(str(error))
    return config


def check(config: Any) -> None:
    """Check every field of a configuration against its range, also when it was made in Python.

    Args:
        config: A dataclass instance.

    Raises:
        ValueError: If a number is outside its range, or a list is empty; the message names flag, range and value.

    >>> check(Common(seed=-1))
    Traceback (most recent call last):
    ValueError: --seed: expected an integer in [0, 4294967295], got -1
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        flag = "--" + field.name.replace("_", "-")
        hint, value = hints[field.name], getattr(config, field.name)
        if typing.get_origin(hint) is tuple:
            if not value:
                raise ValueError(f"{flag}: expected at least one value")
            for item in value:
                _check_number(flag, typing.get_args(hint)[0], item)
        else:
            _check_number(flag, hint, value)


def describe(config: Any) -> dict[str, Any]:
    """A configuration as plain values by name, to show or to store; see `rows.flatten`."""
    return rows.flatten(config)


def run(
    main: Callable[[ConfigT], Any],
    config_type: type[ConfigT],
    *,
    plan: Callable[[ConfigT], Iterable[str | Mapping[str, Any]]] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Run a script: parse, then plan or do, and turn a user's errors into one line.

    Args:
        main: Does the work.
        config_type: The script's configuration.
        plan: Lists the units of work without doing any, for ``--dry-run``.
        argv: As in `parse`.

    Returns:
        The exit status: 0; 1 after an error (ValueError or OSError, shown as ``error: ...`` on standard error; other
        exceptions are bugs and keep their traceback); 130 after an interrupt.

    Raises:
        SystemExit: As `parse`.
    """
    config = parse(config_type, argv)
    try:
        if config.dry_run:
            _show_plan(config, list(plan(config)) if plan else [])
        else:
            main(config)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if config.traceback:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parse_with(config_type: type[ConfigT], words: list[str], default: ConfigT) -> ConfigT:
    return tyro.cli(config_type, args=words, default=default, config=(tyro.conf.FlagCreatePairsOff,))


def _check_number(flag: str, hint: Any, value: Any) -> None:
    for mark in getattr(hint, "__metadata__", ()):
        if id(mark) in _RANGES:
            _, kind, allowed = _RANGES[id(mark)]
            what = _article("integer" if kind is int else "number")
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not (whole or (kind is float and isinstance(value, float))) or value not in allowed:
                raise ValueError(f"{flag}: expected {what} {allowed}, got {value!r}")


def _show_plan(config: Common, units: list[str | Mapping[str, Any]]) -> None:
    print("configuration")
    for name, value in describe(config).items():
        print(f"  {name} = {value}")
    print(f"units of work: {len(units)}")
    for unit in units:
        print(f"  {store.unit_name(unit)}")


def _refuse(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)
