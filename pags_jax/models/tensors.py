"""Tensors of PyTorch's files: views of storages, checked to lie within them, made by hand of what a pickle says."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np

from pags_jax.models.records import Global, described

_AXES = 8
_DTYPES = {
    "Double": np.dtype("<f8"), "Float": np.dtype("<f4"), "Half": np.dtype("<f2"), "BFloat16": np.dtype(jnp.bfloat16),
    "Long": np.dtype("<i8"), "Int": np.dtype("<i4"), "Short": np.dtype("<i2"), "Char": np.dtype("i1"),
    "Byte": np.dtype("u1"), "Bool": np.dtype("?"), "Untyped": np.dtype("u1"),
}  # fmt: skip
_NAMED = {
    "float64": "Double", "float32": "Float", "float16": "Half", "bfloat16": "BFloat16", "int64": "Long",
    "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte", "bool": "Bool",
}  # fmt: skip


@dataclass(eq=False)
class Storage:
    """Numbers of one type in a row: where tensors keep their elements.

    Attributes:
      dtype: of the numbers.
      count: how many there are.
      data: their bytes; a legacy file names its storages before it has them.
    """

    dtype: np.dtype
    count: int
    data: memoryview | None = None


@dataclass(eq=False)
class Tensor:
    """Elements of a storage, which are known to lie within it.

    Attributes:
      storage: where they are.
      offset: number of the first one.
      shape: numbers of elements along each axis.
      strides: steps along each axis, in elements.
      dtype: of an element.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    def array(self) -> np.ndarray:
        """The elements as an array that cannot be written to, a view of the file."""
        size = self.dtype.itemsize
        strides = tuple(size * stride for stride in self.strides)
        if 0 in self.shape:
            return np.frombuffer(b"", self.dtype).reshape(self.shape)
        return np.ndarray(self.shape, self.dtype, self.storage.data, self.offset * size, strides)


def dtype_of(kind: Any) -> np.dtype:
    """The type of the numbers of a storage's class, or of PyTorch's name of a type."""
    name = kind.name if isinstance(kind, Global) and kind.module in _MODULES else ""
    name = _NAMED.get(name, name.removesuffix("Storage").removeprefix("_"))
    if name not in _DTYPES:
        raise ValueError(f"numbers of the type {described(kind)} are not read: save them as float32")
    return _DTYPES[name]


_MODULES = ("torch", "torch.cuda", "torch.storage")


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _: Any = None, __: Any = None, metadata: Any = None,
    *, dtype: np.dtype | None = None,
) -> Tensor:  # fmt: skip
    if not isinstance(storage, Storage):
        raise ValueError(f"a tensor needs a storage, got {described(storage)}")
    if metadata and (not isinstance(metadata, dict) or any(metadata.values())):
        raise ValueError("a tensor that is to be negated or conjugated: save its resolve_neg().resolve_conj()")
    dtype = dtype or storage.dtype
    shape, strides = _sizes(shape), _sizes(strides)
    if len(shape) != len(strides):
        raise ValueError(f"a tensor of {len(shape)} axes with {len(strides)} strides, expected as many")
    numbers = (offset, *shape, *strides)
    if wrong := [n for n in numbers if isinstance(n, bool) or not isinstance(n, int) or n < 0]:
        raise ValueError(
            f"offset, shape and strides of a tensor must be whole numbers of at least 0, got {described(wrong[0])}"
        )
    count = storage.count * storage.dtype.itemsize // dtype.itemsize
    elements = prod(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if elements > count and elements and last < count:
        raise ValueError(
            f"a tensor of the shape {shape} repeats the {count} elements of its storage: save its contiguous()"
        )
    if elements > count or (elements and last >= count) or offset > count:
        raise ValueError(f"a tensor of the shape {shape} reaches element {last} of a storage of {count}")
    return Tensor(storage, offset, shape, strides, dtype)


def _sizes(values: Any = ()) -> tuple[Any, ...]:
    """A shape, or strides."""
    if not isinstance(values, tuple | list) or len(values) > _AXES:
        raise ValueError(f"expected the sizes of up to {_AXES} axes, got {described(values)}")
    return tuple(values)


def _tensor_v3(storage: Any, offset: Any, shape: Any, strides: Any, _, __, dtype: Any, metadata: Any = None) -> Tensor:
    return _tensor(storage, offset, shape, strides, metadata=metadata, dtype=dtype_of(dtype))


def _of_type(function: Any, _: Any, args: Any, __: Any) -> Tensor:
    """A tensor with attributes of its own, which are left out."""
    if str(function) not in _REBUILDERS or not isinstance(args, tuple):
        raise ValueError(f"tensors made by {described(function)} are not read")
    return _REBUILDERS[str(function)](*args)


_REBUILDERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
}
#: Functions that make tensors, by the name that a file calls.
CONSTRUCTORS: dict[str, Callable[..., Any]] = {
    **_REBUILDERS,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.Size": _sizes,
}
