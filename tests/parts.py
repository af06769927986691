"""Several processes of one table, played by threads."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def read_together(read: Callable[..., Any], sources: Sequence[Any], *, timeout: float = 60) -> list[Any]:
    """``read(source, gather)`` of every source at once; an exception takes the place of a result."""
    said: list[Any] = [None] * len(sources)
    barrier = threading.Barrier(len(sources), timeout=timeout)

    def one(number):
        def gather(values):
            said[number] = values
            barrier.wait()
            every = list(said)
            barrier.wait()
            return every

        try:
            return read(sources[number], gather)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(sources)) as pool:
        return list(pool.map(one, range(len(sources))))
