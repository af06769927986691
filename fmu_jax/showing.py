"""Prints results in one line of names, scalars and shapes, never the arrays themselves."""

import dataclasses
from typing import Any

import jax
import jax.core
import numpy as np

from fmu_jax.tracing import is_traced


def one_line(*, values: int = 0) -> Any:
    """A ``__repr__`` for a named tuple or a dataclass: every field, scalars as numbers, arrays as dtype and shape.

    Args:
      values: Vectors of up to so many entries are written out. Left at 0 where a field may be secret.

    >>> import typing
    >>> class Outcome(typing.NamedTuple):
    ...     params: typing.Any
    ...     steps: typing.Any
    ...     __repr__ = one_line()
    >>> Outcome(np.zeros(7, np.float32), np.array(3))
    Outcome(params=float32[7], steps=3)
    """

    def represent(self: Any) -> str:
        names = getattr(self, "_fields", None) or [field.name for field in dataclasses.fields(self)]
        shown = ", ".join(f"{name}={_short(getattr(self, name, None), values)}" for name in names)
        return f"{type(self).__name__}({shown})"

    represent.one_line = True  # pyright: ignore[reportFunctionMemberAccess]
    return represent


def _short(value: Any, values: int) -> str:
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return _array(value, values)
    if value is None or isinstance(value, bool | int | float | str) or hasattr(type(value).__repr__, "one_line"):
        return repr(value)
    leaves = jax.tree.leaves(value)
    if leaves and all(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves):
        return f"{type(value).__name__} of {len(leaves)} arrays, {sum(leaf.size for leaf in leaves)} numbers"
    return getattr(value, "__qualname__", None) or type(value).__name__


def _array(array: Any, values: int) -> str:
    known = not is_traced(array) and getattr(array, "is_fully_addressable", True)
    if known and array.dtype.kind in "biuf" and (array.ndim == 0 or 0 < array.size <= values):
        return _numbers(np.asarray(array).tolist())
    return f"{array.dtype}[{','.join(map(str, array.shape))}]"


def _numbers(entries: Any) -> str:
    if isinstance(entries, list):
        return f"[{', '.join(map(_numbers, entries))}]"
    return f"{entries:.6g}" if isinstance(entries, float) else str(entries)
