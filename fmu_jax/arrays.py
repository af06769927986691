"""Reads whatever a user passes as an array of the numbers that it holds; all input comes through these functions.

JAX wraps 64-bit integers and cuts complex numbers before they can be checked. So NumPy reads whatever is not a JAX
array yet, it is checked, and only then put on the device. Every function here names the argument in its messages.
"""

import decimal
import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fmu_jax.tracing import as_arrays, at_once, is_traced

_UNSUITABLE = {
    "c": ("complex numbers", "pass the real and the imaginary part as two columns of real numbers"),
    "M": ("dates", "turn them into numbers, such as days since a date"),
    "m": ("durations", "turn them into numbers, such as seconds"),
    "U": ("text", "convert it with astype(float), or encode categories as numbers (datasets.from_table does)"),
    "S": ("bytes", "convert them with astype(float), or encode categories as numbers"),
    "T": ("text", "convert it with astype(float), or encode categories as numbers (datasets.from_table does)"),
    "V": ("records with fields", "pass the fields as the columns of one array (n, d)"),
}
_MISSING = ("NoneType", "NAType", "NaTType")
_INT32 = np.iinfo(np.int32)


def as_numbers(values: Any, name: str) -> np.ndarray | Array:
    """Reads booleans, integers or floats, and keeps their values and their precision.

    Args:
      values: An array of NumPy or JAX, a tracer, a list, a DataFrame or a Series, or whatever NumPy can read. Objects
        that are numbers (``Decimal``, ``Fraction``, integers of any size, pandas' nullable types) become numbers.
      name: The argument's name, for messages.

    Returns:
      A JAX array as it is; anything else as a NumPy array.

    Raises:
      ValueError: Sparse, masked, ragged or missing entries, text, dates, records, complex numbers, or no array at all.

    >>> as_numbers([decimal.Decimal("0.5"), 2], "x").tolist()
    [0.5, 2.0]
    """
    if not isinstance(values, jax.Array) and _holds_tracers(values):
        values = jnp.asarray(values)
    if isinstance(values, jax.Array):
        _check_kind(values.dtype, name)
        return values
    if hasattr(values, "todense"):
        raise ValueError(f"`{name}` is sparse ({type(values).__name__}); pass {name}.toarray()")
    if isinstance(values, np.ma.MaskedArray):
        hidden = int(np.ma.getmaskarray(values).sum())
        if hidden:
            raise ValueError(f"`{name}` hides {hidden} entries behind a mask; fill them, or leave their rows out")
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        ragged = "inhomogeneous" in str(error)
        why = "its rows differ in length" if ragged else str(error)
        raise ValueError(f"`{name}` cannot be read as an array: {why}; pass rows of one length") from error
    if array.dtype == object:
        array = _from_objects(array, name)
    _check_kind(array.dtype, name, array.ravel()[:1].tolist())
    return array


def as_floats(values: Any, name: str, *, dtype: Any = None, finite: bool = False) -> Float[Array, "..."]:
    """Reads floats onto the device: float32 and float64 as they are (as far as ``jax_enable_x64`` allows).

    Args:
      values: As for ``as_numbers``. Narrower floats become float32, which holds them exactly; integers and booleans
        become the default float.
      name: The argument's name, for messages.
      dtype: Dtype of the result; None is as said.
      finite: Refuse NaN and infinite numbers, where they are not being traced.

    Raises:
      ValueError: As ``as_numbers``; or a finite number is beyond the result's range.
    """
    array = as_numbers(values, name)
    if finite and not is_traced(array):
        known = jnp if isinstance(array, jax.Array) else np  # What lies on a device is looked at there.
        bad = int(at_once(lambda: known.sum(~known.isfinite(array))))
        if bad:
            raise ValueError(f"`{name}` holds {bad} NaN or infinite numbers; leave their rows out, or train again")
    dtype = jnp.dtype(jnp.result_type(dtype_as_float(array) if dtype is None else dtype))
    if array.dtype == dtype:
        return as_arrays(array)
    if isinstance(array, jax.Array):
        return at_once(jnp.astype, array, dtype)
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    beyond = np.isfinite(array) & ~np.isfinite(converted)
    if beyond.any():
        raise ValueError(
            f"`{name}` holds {array[beyond].ravel()[0]}, beyond the range of {dtype}; scale it, or use jax_enable_x64"
        )
    return as_arrays(converted)


def dtype_as_float(array: np.ndarray | Array) -> Any:
    """The float that holds an array's numbers: its own; float32 for a narrower one, the default for whole numbers."""
    narrow = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize <= 4
    return jnp.result_type(jnp.float32 if narrow else float)


def as_codes(values: Any, name: str, *, rule: str = "whole numbers 0, 1, ...") -> Int[Array, "..."]:
    """Reads whole numbers, such as labels and group codes, as int32 on the device.

    Args:
      values: As for ``as_numbers``; floats must be whole.
      name: The argument's name, for messages.
      rule: What it must hold, for messages.

    Raises:
      ValueError: As ``as_numbers``; or a number is not whole or beyond int32; or floats are being traced, so that
        nobody can see whether they are whole.
    """
    array = as_numbers(values, name)
    whole = array.dtype == bool or jnp.issubdtype(array.dtype, jnp.integer)
    if is_traced(array) and not whole:
        raise ValueError(f"`{name}` must hold {rule}, got {array.dtype} while tracing; convert it to int32 first")
    if isinstance(array, jax.Array) and whole and jnp.can_cast(array.dtype, jnp.int32):
        return array if array.dtype == jnp.int32 else at_once(jnp.astype, array, jnp.int32)
    if is_traced(array):
        # What cannot be looked at must not wrap around: what is out of range stays so.
        least = _INT32.min if jnp.issubdtype(array.dtype, jnp.signedinteger) else 0
        return jnp.clip(array, least, _INT32.max).astype(jnp.int32)
    array = np.asarray(array)
    if not whole and array.dtype.itemsize < 8:
        array = array.astype(float)  # No float16 holds the largest int32.
    fits = np.isfinite(array.astype(float)) & (array >= _INT32.min) & (array <= _INT32.max) & (array == np.trunc(array))
    if not np.all(fits):
        examples = np.unique(array[~fits])[:5].tolist()
        raise ValueError(f"`{name}` must hold {rule}, got values such as {examples}; recode it first")
    return as_arrays(array.astype(np.int32))


def as_mask(values: Any, name: str) -> Bool[Array, "..."]:
    """Reads booleans, or zeros and ones, as booleans on the device.

    Raises:
      ValueError: As ``as_numbers``; or another number than 0 and 1, or numbers that are being traced.
    """
    array = as_numbers(values, name)
    if array.dtype != bool:
        if is_traced(array):
            raise ValueError(f"`{name}` must be boolean, got {array.dtype} while tracing; compare it with 0 first")
        array = np.asarray(array)
        other = array[(array != 0) & (array != 1)]
        if other.size:
            raise ValueError(f"`{name}` must be boolean, or hold 0 and 1 only; got {other.ravel()[0]}")
        array = array.astype(bool)
    return as_arrays(array)


def check_ordered(**arrays: np.ndarray | Array) -> None:
    """Raises ValueError where a named array holds NaN, which has no order; nothing is said of what is traced."""
    for name, array in arrays.items():
        if not is_traced(array) and jnp.issubdtype(array.dtype, jnp.floating):
            unordered = int(np.isnan(np.asarray(array)).sum())
            if unordered:
                raise ValueError(f"{unordered} of {array.size} `{name}` are NaN, which have no order; leave them out")


def _holds_tracers(values: Any) -> bool:
    nested = isinstance(values, list | tuple)
    return nested and any(is_traced(leaf) for leaf in jax.tree.leaves(values))


def _check_kind(dtype: Any, name: str, first: Sequence[Any] = ()) -> None:
    kind = getattr(dtype, "kind", "")
    # NumPy counts durations among the integers; bfloat16 and its like are of kind V, too.
    if kind != "m" and any(jnp.issubdtype(dtype, known) for known in (jnp.bool_, jnp.integer, jnp.floating)):
        return
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        raise ValueError(f"`{name}` must hold numbers, got {dtype}; pass an array")
    what, fix = _UNSUITABLE[kind]
    example = f" such as {first[0]!r}" if first else ""
    raise ValueError(f"`{name}` must hold numbers, got {what}{example}; {fix}")


def _from_objects(array: np.ndarray, name: str) -> np.ndarray:
    """Python objects as bool, int64 or float64; ValueError that names the first that is no number."""
    entries = array.ravel().tolist()
    if array.ndim == 0:
        raise ValueError(f"`{name}` must be an array or a list, got {type(entries[0]).__name__}; pass list(...) of it")
    suitable = (numbers.Real, decimal.Decimal, np.bool_)
    kinds = {type(entry) for entry in entries}
    for kind in kinds:
        if not issubclass(kind, suitable):
            first = next(entry for entry in entries if type(entry) is kind)
            raise ValueError(f"`{name}` {_of_object(kind, first)}")
    if kinds and all(issubclass(kind, bool | np.bool_) for kind in kinds):
        return array.astype(bool)
    try:
        if all(issubclass(kind, numbers.Integral | np.bool_) for kind in kinds):
            whole = [int(entry) for entry in entries]
            if all(-(2**63) <= entry < 2**63 for entry in whole):
                return np.array(whole, np.int64).reshape(array.shape)
        return np.array([float(entry) for entry in entries]).reshape(array.shape)
    except (OverflowError, ValueError) as error:
        raise ValueError(f"`{name}` holds a number that no float64 holds ({error}); scale it") from error


def _of_object(kind: type, first: Any) -> str:
    if kind.__name__ in _MISSING:
        return f"holds missing entries ({first!r}); fill them, or leave their rows out"
    if issubclass(kind, str):
        return f"must hold numbers, got text such as {first!r}; {_UNSUITABLE['U'][1]}"
    if hasattr(kind, "__len__"):
        return f"must hold numbers, got entries of type {kind.__name__}; pass rows of one length, (n, d)"
    return f"must hold numbers, got {kind.__name__} such as {first!r}; convert it to numbers first"
