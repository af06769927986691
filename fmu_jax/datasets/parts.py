"""What several processes must agree on when each reads a part of one table: values, ranges and sums over all parts.

Each process passes what it found in its own part to a function ``gather``, which returns what all of them passed, in
the same order everywhere. No row is passed on. A table that is read whole is its own only part.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

Gather = Callable[[Any], list[Any]]
"""Passes lists, strings, numbers and truth values; returns those of all parts, in one order. All parts must call it."""


class Parts:
    """All parts of a table, seen from one of them.

    Args:
      gather: How to hear of the others; None if this part is the whole table.

    >>> apart = Parts(lambda mine: [mine, [5, 3]])
    >>> apart.union([1, 3]), apart.total(np.array([1, 2])), apart.least(np.array([4, 4])), apart.most(np.array([4, 4]))
    ([1, 3, 5], array([6, 5]), array([4, 3]), array([5, 4]))
    """

    def __init__(self, gather: Gather | None = None):
        self._gather = gather

    @contextlib.contextmanager
    def together(self, source: str) -> Iterator[None]:
        """Where one part cannot be read, all fail: none is left waiting for the others."""
        error: Exception | None = None
        try:
            yield
        except Exception as caught:
            error = caught
        messages = self._of_all([] if error is None else [str(error)])
        if error is not None:
            raise error
        for message in [message for part in messages for message in part][:1]:
            raise ValueError(f"another part of the table than {source} was refused: {message}")

    def union(self, values: list) -> list:
        """The distinct values of all parts, numbers before text."""
        every = [value for part in self._of_all(values) for value in part]
        # As one column of the whole table would hold them.
        if self._gather is not None and any(isinstance(value, float) for value in every):
            every = [float(value) if isinstance(value, int) else value for value in every]
        return sorted(set(every), key=lambda value: (isinstance(value, str), value))

    def total(self, values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """Sums over the parts, entry by entry."""
        return self._reduced(np.sum, values)

    def least(self, values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """Smallest of all parts, entry by entry; NaN where a part has NaN alone is passed over."""
        return self._reduced(np.fmin.reduce, values)

    def most(self, values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """Largest of all parts, as ``least``."""
        return self._reduced(np.fmax.reduce, values)

    def same(self, facts: Mapping[str, str], *, what: str, source: str) -> None:
        """Raises ValueError, in every process, unless all parts have the same facts in the same order."""
        pairs = [[name, fact] for name, fact in facts.items()]
        every = self._of_all(pairs)
        for other in every[1:]:
            differ = [f"{a} beside {b}" for a, b in zip(every[0], other, strict=False) if a != b][:3]
            if differ or len(every[0]) != len(other):
                found = "; ".join(differ) or f"{len(every[0])} beside {len(other)}"
                raise ValueError(
                    f"the parts of the table (here {source}) differ in {what}: {found}; save all of them with the same "
                    "columns of the same types (Parquet keeps types, CSV does not)"
                )

    def _reduced(self, how, values: np.ndarray) -> np.ndarray:
        if self._gather is None:
            return values
        every = [np.asarray(part, values.dtype) for part in self._gather(values.tolist())]
        return np.asarray(how(np.stack(every), axis=0), values.dtype)

    def _of_all(self, values: list) -> list[list]:
        if self._gather is None:
            return [values]
        plain = [value.item() if isinstance(value, np.generic) else value for value in values]
        return self._gather(plain)


WHOLE = Parts()
"""A table in one part."""
