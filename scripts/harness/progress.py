"""A progress bar where somebody is looking: on a terminal, and not in CI or in a log file."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

import tqdm

T = TypeVar("T")


def track(items: Iterable[T], *, total: int, finished: int = 0, label: str = "") -> Iterator[T]:
    """Yield the items, showing how far along they are and how long the rest takes.

    Args:
        items: What is still to do.
        total: How many there are in all, those finished earlier included.
        finished: How many were finished earlier, by the run that this one resumes.
        label: Shown before the bar.

    Yields:
        The items, in order.

    >>> list(track("ab", total=3, finished=1))
    ['a', 'b']
    """
    hidden = bool(os.environ.get("CI")) or not sys.stderr.isatty()
    yield from tqdm.tqdm(items, total=total, initial=finished, desc=label, disable=hidden, dynamic_ncols=True)
