"""Strengths of losses on a command line."""

import math
from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

from scripts.harness.lazy import pags_jax


def read_strengths(words: list[str]) -> tuple[float, ...]:
    """Strengths from the words of a command line: numbers, and START:STOP:COUNT for equal ratios.

    Raises:
      ValueError: A word is neither, or out of range.

    >>> read_strengths(["0", "1e-2:1:3"])
    (0.0, 0.01, 0.1, 1.0)
    """
    return tuple(value for word in words for value in _read_strength(word))


def _read_strength(word: str) -> tuple[float, ...]:
    try:
        if ":" not in word:
            values = (float(word),)
        else:
            start, stop, count = word.split(":")
            if not (0 < float(start) < math.inf and 0 < float(stop) < math.inf and int(count) >= 2):
                raise ValueError
            values = pags_jax.recipes.log_spaced(float(start), float(stop), int(count))
        if not all(0 <= value < math.inf for value in values):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"expected a finite number >= 0, or START:STOP:COUNT with START and STOP > 0 and COUNT >= 2, got {word!r}"
        ) from None
    return values


Strengths = Annotated[
    tuple[float, ...],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="[NUMBER >= 0|START:STOP:COUNT [...]]",
        instance_from_str=read_strengths,
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(item, int | float) for item in value),
        str_from_instance=lambda value: [repr(item) for item in value],
    ),
]
"""Several strengths: numbers, or START:STOP:COUNT, whose ratios are equal."""
