"""Times what is compiled, by a clock that the caller hands in: this package has none."""

from collections.abc import Callable
from typing import Any

import jax


def timed(call: Callable[[], Any], clock: Callable[[], float]) -> tuple[Any, float]:
    """Calls a function twice, since the first call compiles, and times the second.

    Args:
      call: Called without arguments; its result is waited for.
      clock: Such as ``time.perf_counter``.

    Returns:
      The result of the second call, and its duration in the clock's unit.

    >>> ticks = iter([1.0, 3.5])
    >>> timed(lambda: 7, lambda: next(ticks))
    (7, 2.5)
    """
    jax.block_until_ready(call())
    begin = clock()
    result = jax.block_until_ready(call())
    return result, clock() - begin
