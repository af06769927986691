"""Numbers in a range, as annotations: what `cli` reads, shows in the help and enforces."""

import dataclasses
import math
from typing import Annotated, Any

from tyro.constructors import PrimitiveConstructorSpec


def _short(value: float | int) -> str:
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

    low: float | int = -math.inf
    high: float | int = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float | int) -> bool:
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


def number(kind: Any, allowed: Range) -> Any:
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


def check_number(flag: str, hint: Any, value: Any) -> None:
    """Check a value against the range in its annotation, if there is one.

    Args:
      flag: What to call the value in the message.
      hint: The annotation.
      value: The value.

    Raises:
      ValueError: If the value is no number of that kind, or outside the range.

    >>> check_number("--share", Share, 2.0)
    Traceback (most recent call last):
    ValueError: --share: expected a number in (0, 1], got 2.0
    """
    for mark in getattr(hint, "__metadata__", ()):
        if id(mark) in _RANGES:
            _, kind, allowed = _RANGES[id(mark)]
            what = _article("integer" if kind is int else "number")
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not (whole or (kind is float and isinstance(value, float))) or value not in allowed:
                raise ValueError(f"{flag}: expected {what} {allowed}, got {value!r}")
