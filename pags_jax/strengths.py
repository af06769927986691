"""The robust losses by name, and the strengths to train each with; without JAX, so that a command line can list them.

``pags_jax.recipes``, which uses them, has every name of this module too.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

COLOUR_PHOTOGRAPHS = ("cifar10", "cifar100", "imagenet64")
"""Data sets that have strengths of their own, and that the augmentation "auto" crops and flips."""


class Recipe(NamedTuple):
    """The strengths to train a loss with, and where its learning rate falls.

    Attributes:
      own: Strengths from weak to excessive, for LeNet on Fashion-MNIST; the losses here have six.
      photographs: For `COLOUR_PHOTOGRAPHS`, those first that a sweep can least do without if it is cut short.
      reference: The paper's sweep, in the reference's constants (``--strength-unit reference``); for a loss that the
        paper does not have, the strengths again.
      gentle_above: The reference's constant above which its learning rate falls in proportion; by default it never
        falls.
    """

    own: tuple[float, ...]
    photographs: tuple[float, ...]
    reference: tuple[float, ...]
    gentle_above: float = math.inf


def log_spaced(start: float, stop: float, count: int) -> tuple[float, ...]:
    """Numbers of equal ratio, to six digits.

    >>> log_spaced(0.01, 100.0, 5)
    (0.01, 0.1, 1.0, 10.0, 100.0)
    """
    return tuple(float(f"{value:.6g}") for value in np.geomspace(start, stop, count))


def read_strengths(words: Iterable[str]) -> tuple[float, ...]:
    """Strengths as people write them: numbers, and START:STOP:COUNT for ``log_spaced`` ones.

    Args:
      words: Such as those of a command line.

    Raises:
      ValueError: A word is neither, or a strength is negative or not finite; the message has the word.

    >>> read_strengths(["0", "1e-2:1:3"])
    (0.0, 0.01, 0.1, 1.0)
    """
    return tuple(strength for word in words for strength in _read_strength(word))


def _read_strength(word: str) -> tuple[float, ...]:
    try:
        if ":" not in word:
            values = (float(word),)
        else:
            start, stop, count = word.split(":")
            if not (0 < float(start) < math.inf and 0 < float(stop) < math.inf and int(count) >= 2):
                raise ValueError
            values = log_spaced(float(start), float(stop), int(count))
        if not all(0 <= value < math.inf for value in values):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"expected a finite number >= 0, or START:STOP:COUNT with START and STOP > 0 and COUNT >= 2, got {word!r}"
        ) from None
    return values


RECIPES = {
    "cross_entropy": Recipe((0.0,), (0.0,), (0.0,)),
    "gradient_norm": Recipe(
        (0.01, 0.1, 1.0, 10.0, 30.0, 100.0),
        (1.0, 10.0, 0.1, 30.0, 0.01, 3.0),
        log_spaced(1e-5, 1e2, 30),
        gentle_above=0.01,
    ),
    "smoothness": Recipe(
        (0.1, 1.0, 10.0, 30.0, 100.0, 300.0), (1.0, 10.0, 0.1), log_spaced(1e-4, 1e4, 30), gentle_above=10.0
    ),
    "randomized_smoothing": Recipe(
        (0.1, 0.25, 0.5, 1.0, 2.0, 4.0), (0.25, 0.5, 0.125, 0.05), log_spaced(1e-3, 1e2, 30)
    ),
    "adversarial": Recipe(
        (0.25, 0.5, 1.0, 1.5, 2.0, 2.5), (1.0, 0.25, 2.0, 0.5), log_spaced(1e-5, 1e4, 30), gentle_above=100.0
    ),
}
"""Of every loss in ``losses.LOSSES``, by its name; figures, and tables of losses, show the losses in this order."""

if TYPE_CHECKING:
    Loss = str
else:
    Loss = Literal[tuple(RECIPES)]
    """Type of a flag that names a loss."""
