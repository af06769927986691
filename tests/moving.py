"""Arrays that NumPy makes for JAX where JAX would compile a program for each shape, and nothing is computed.

Outside of ``jit`` JAX compiles a program to take a NumPy array (``jnp.asarray``), to fill one with a number
(``jnp.zeros``), to count (``jnp.arange``), to give one another shape and to take a part of it: a quarter of all
programs that the tests would compile. What is traced, sharded, made within a mesh, or bound to a device goes the way it
always does, and so does all that rounds.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def by_numpy() -> None:
    """Lets NumPy move what is moved outside of ``jit``, from here on and for the whole process."""
    from jax._src.lax import lax, slicing  # Not public names: another version may have another way.

    moves = {
        "stage_p": lambda operand: operand,
        "convert_element_type_p": _converted,
        "broadcast_in_dim_p": _spread,
        "iota_p": _counted,
        "reshape_p": _reshaped,
        "squeeze_p": lambda operand, *, dimensions: operand.squeeze(dimensions),
        "transpose_p": lambda operand, *, permutation: operand.transpose(permutation),
        "concatenate_p": lambda *operands, dimension: np.concatenate(operands, dimension),
        "dynamic_slice_p": _part,
        "slice_p": _strided,
    }
    for name, move in moves.items():
        primitive = getattr(lax, name, getattr(slicing, name, None))
        if primitive is not None:
            _add(primitive, move)


def _add(primitive: Any, move: Callable[..., Any]) -> None:
    compiled = primitive.impl

    def moved(*operands, **parameters):
        if jax.sharding.get_abstract_mesh().empty and all(map(_plain, operands)):
            array = move(*map(np.asarray, operands), **parameters)
            if array is not None and array.dtype == jax.dtypes.canonicalize_dtype(array.dtype):
                return jax.device_put(np.array(array, order="C"))  # A copy: JAX may keep the memory that it is given.
        return compiled(*operands, **parameters)

    moved.__wrapped__ = compiled  # What JAX would do, for the test of this.
    primitive.def_impl(moved)


def _plain(operand: Any) -> bool:
    """Whether it is an array of NumPy's, or one of JAX's that is nothing but its values."""
    if not isinstance(operand, jax.Array):  # JAX wraps arrays of NumPy's, to remember their type.
        return hasattr(operand, "dtype") and not getattr(
            operand, "weak_type", isinstance(operand, int | float | complex)
        )
    return (
        isinstance(operand.dtype, np.dtype)
        and not operand.weak_type
        and not operand.committed
        and operand.is_fully_addressable
    )


def _converted(operand, *, new_dtype, weak_type, sharding):
    return operand if operand.dtype == new_dtype and not weak_type and sharding is None else None


def _spread(operand, *dynamic, shape, broadcast_dimensions, sharding):
    if dynamic or sharding is not None:
        return None
    axes = [1] * len(shape)
    for axis, size in zip(broadcast_dimensions, operand.shape, strict=True):
        axes[axis] = size
    return np.broadcast_to(operand.reshape(axes), shape)


def _counted(*dynamic, dtype, shape, dimension, sharding):
    if dynamic or sharding is not None or not isinstance(dtype, np.dtype):
        return None
    axes = [-1 if axis == dimension else 1 for axis in range(len(shape))]
    return np.broadcast_to(np.arange(shape[dimension]).astype(dtype).reshape(axes), shape)


def _reshaped(operand, *dynamic, new_sizes, dimensions, sharding):
    return None if dynamic or dimensions is not None or sharding is not None else operand.reshape(new_sizes)


def _part(operand, *start, slice_sizes):
    if len(start) != len(slice_sizes):
        return None
    first = [min(max(int(i), 0), n - k) for i, n, k in zip(start, operand.shape, slice_sizes, strict=True)]
    return operand[tuple(slice(i, i + k) for i, k in zip(first, slice_sizes, strict=True))]


def _strided(operand, *, start_indices, limit_indices, strides):
    steps = strides or [None] * len(start_indices)
    return operand[tuple(map(slice, start_indices, limit_indices, steps))]
