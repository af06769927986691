"""How far a run is: a bar on a terminal, plain lines in a log."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import tqdm

T = TypeVar("T")
EVERY_S = 10.0
"""Seconds between two lines of a log, at least."""
PLAIN = "SCRIPTS_PLAIN_PROGRESS"
"""Environment variable: lines also on a terminal, for processes that share one."""


def track(items: Iterable[T], *, total: int, finished: int = 0, label: str = "", what: str = "unit") -> Iterator[T]:
    """Yield the items, showing how far along they are and how long the rest takes.

    On a terminal a bar is shown. Elsewhere a line is printed before the first item, then after an
    item, but not more than one in `EVERY_S` seconds, and after the last.

    ``total`` counts those as well that the run which this one resumes has ``finished``. ``label`` is shown first, and
    an item is called a ``what``.
    """
    if sys.stderr.isatty() and not os.environ.get("CI") and not os.environ.get(PLAIN):
        yield from tqdm.tqdm(items, total=total, initial=finished, desc=label, dynamic_ncols=True)
        return
    began = spoke = time.perf_counter()
    done, whole = finished, counted(total, what)
    if done < total:
        say(f"{label}: {counted(total - done, what)} to do" + (f", {done} done earlier" if done else ""))
    for item in items:
        yield item
        done, now = done + 1, time.perf_counter()
        if done == total:
            say(f"{label}: {done} of {whole} done in {now - began:.0f} s")
        elif now - spoke >= EVERY_S:
            left = (now - began) / (done - finished) * (total - done)
            say(f"{label}: {done} of {whole} done, {now - began:.0f} s so far, about {left:.0f} s to go")
            spoke = now


def counted(count: int, what: str) -> str:
    """A number of things in words.

    >>> counted(1, "unit"), counted(2, "unit")
    ('1 unit', '2 units')
    """
    return f"{count} {what}{'s' * (count != 1)}"


def say(line: str) -> None:
    """Print a line of progress."""
    print(line.removeprefix(": "), flush=True)
