"""What images and labels must be, checked before anything is traced."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def is_traced(*trees) -> bool:
    """Whether any leaf is being traced (inside ``jit``, ``vmap`` or ``grad``), so that no value can be looked at."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


#: Values up to which NumPy has looked at an array before a program for its shape is found, let alone compiled.
_FEW_VALUES = 2**16


def lies_here(x: Any) -> bool:
    """Whether an array that is not traced is small and in this machine's memory, so that NumPy may look at it."""
    if np.size(x) > _FEW_VALUES:
        return False
    if not isinstance(x, jax.Array):
        return True
    return x.is_fully_addressable and all(device.platform == "cpu" for device in x.devices())


def wide(dtype: Any) -> Any:
    """The dtype in which sums and norms are computed: float32 at least.

    >>> wide(jnp.float16), wide(jnp.float64)
    (dtype('float32'), dtype('float64'))
    """
    return np.promote_types(dtype, np.float32)


def to_float(x: Any, dtype=jnp.float32) -> jax.Array:
    """Images from uint8 in 0..255 to floats in [0, 1].

    >>> to_float(np.array([[0, 255]], np.uint8))
    Array([[0., 1.]], dtype=float32)
    """
    if jnp.result_type(x) != jnp.uint8:
        raise ValueError(f"expected images in uint8 to be scaled to [0, 1], got {jnp.result_type(x)}")
    return jnp.asarray(x).astype(dtype) / 255


def averaged(x: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels, as rows for a linear model.

    Args:
      x: Images ``(n, height, width, channels)`` with pixels 0 to 255; height and width are even.

    Returns:
      ``(n, height width channels / 4)`` in [0, 1], on the host.

    >>> averaged(np.array([0, 255, 255, 0], np.uint8).reshape(1, 2, 2, 1)).tolist()
    [[0.5]]
    """
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4)).reshape(n, -1) / 255


def as_images(x: Any) -> jax.Array:
    """Images as a JAX array, checked as by ``check_images``; NumPy's float64 becomes the float that JAX works in."""
    x = x if hasattr(x, "dtype") else np.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        check_images(x)
    x = jnp.asarray(x)
    check_images(x)
    return x


def as_wide(x: Any) -> jax.Array:
    """An array of floats as JAX's, in float32 at least."""
    x = jnp.asarray(x)
    return x.astype(wide(x.dtype))


def check_batch(x: Any) -> None:
    """Raises ValueError unless ``x`` holds floats, the first axis counting examples; looks at no value."""
    x = x if hasattr(x, "dtype") else np.asarray(x)  # JAX takes no lists, and no arrays of objects.
    if not isinstance(x, jax.Array) and x.dtype.kind in "OSU":
        raise ValueError(f"images must be floats in [0, 1], got {x.dtype}")
    if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        raise ValueError(f"images must be floats in [0, 1], got {jnp.result_type(x)}; see images.to_float")
    if jnp.ndim(x) < 2:
        raise ValueError(f"images must have an axis for examples and more, got the shape {jnp.shape(x)}")
    if jnp.shape(x)[0] == 0:
        raise ValueError(f"expected at least one image, got the shape {jnp.shape(x)}")


def check_images(x: Any) -> None:
    """Raises ValueError unless ``x`` holds finite floats, the first axis counting examples."""
    check_batch(x)
    if is_traced(x):
        return
    if lies_here(x):
        finite = np.isfinite(np.asarray(x)).all()
    else:  # A constant inside of `jit` is not traced, but what is done to it would be.
        with jax.ensure_compile_time_eval():
            finite = bool(jnp.all(jnp.isfinite(x)))
    if not finite:
        raise ValueError("images hold NaN or infinite values")


#: What a traced label that is no class becomes: no index, and equal to no class.
NO_CLASS = np.iinfo(np.int32).max


def check_array(name: str, value: Any, of: str, *kinds: Any) -> Any:
    """``value`` as an array, NumPy's unless it has a dtype; raises ValueError unless that is one of ``kinds``.

    JAX itself answers text, None and lists of them with an error that names no argument.
    """
    try:
        array = value if hasattr(value, "dtype") else (jnp if is_traced(value) else np).asarray(value)
    except ValueError as error:  # Ragged lists.
        raise ValueError(f"{name} must be an array of {of}, got {value!r}") from error
    if not any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
        raise ValueError(f"{name} must be {of}, got {array.dtype}")
    return array


def check_labels(y: Any, x: Any) -> None:
    """Raises ValueError unless ``y`` holds one class number >= 0 for each image."""
    y = check_array("labels", y, "integers", jnp.integer)
    if y.shape != jnp.shape(x)[:1]:
        if y.ndim == 0:
            raise ValueError(
                f"expected a batch of images and their labels, got one label and the shape {jnp.shape(x)}; "
                "give an image alone as `x[None]`, its label as `y[None]` or `[y]`"
            )
        raise ValueError(f"expected {jnp.shape(x)[0]} labels, one for each image, got the shape {y.shape}")
    if not is_traced(y) and np.min(np.asarray(y), initial=0) < 0:
        raise ValueError(f"labels must be at least 0, got {np.min(np.asarray(y))}")


def as_mask(name: str, mask: Any, x: Any) -> jax.Array:
    """Booleans shaped as ``x``; raises ValueError unless ``mask`` holds such, broadcastable and of as many axes."""
    mask = mask if hasattr(mask, "dtype") else np.asarray(mask)
    fits = mask.ndim == x.ndim and all(have in (1, want) for have, want in zip(mask.shape, x.shape, strict=True))
    if mask.dtype != bool or not fits:
        raise ValueError(f"`{name}` must be true or false for each pixel, {x.shape}, got {mask.dtype} of {mask.shape}")
    return jnp.broadcast_to(jnp.asarray(mask), x.shape)


def check_examples(x: Any, y: Any, classes: int | None) -> None:
    """Raises ValueError unless there is one label >= 0 for each image, and below ``classes`` where that is known.

    For data sets that are gathered by rows: beyond the end of the labels JAX takes the last one, again and again.
    """
    check_labels(y, x)
    if classes is not None and not is_traced(y) and np.max(np.asarray(y), initial=0) >= classes:
        raise ValueError(f"labels must be below {classes}, the number of classes, got {np.max(np.asarray(y))}")


def check_classes(apply_fn: Callable[[Any], Any], x: Any, y: Any = None) -> int:
    """The model's number of classes, at least two, of which every label is one; ``apply_fn(x) -> (n, classes)``.

    Only the model's output shape for ``x`` is looked up. Traced labels cannot be seen, and are not checked.

    Raises:
      ValueError: Logits of another shape or type, something beside them, fewer than two classes, or a label that is
        no class.
    """
    logits = _logits_of(apply_fn, x)
    if not hasattr(logits, "dtype"):
        raise ValueError(f"a model must return logits alone, got a {type(logits).__name__}; take them out of it")
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(f"logits must be floats, got {logits.dtype}")
    shape = logits.shape
    if len(shape) != 2 or shape[0] != jnp.shape(x)[0]:
        raise ValueError(f"expected logits of the shape ({jnp.shape(x)[0]}, classes), got {shape}{_ONE_LOGIT}")
    check_two_classes(shape)
    if y is not None and not is_traced(y) and np.max(np.asarray(y)) >= shape[-1]:
        raise ValueError(f"labels must be below {shape[-1]}, the number of classes, got {np.max(np.asarray(y))}")
    return shape[-1]


def _logits_of(apply_fn: Callable[[Any], Any], x: Any) -> Any:
    """The shape and type of a model's output; an error of the model's on what may be one image says how to give one."""
    try:
        return jax.eval_shape(apply_fn, x)
    except Exception as error:
        from flax.errors import TraceContextError  # It is of a model in training; flax is slow to import.

        if jnp.ndim(x) != 3 or isinstance(error, jax.errors.JAXTypeError | TraceContextError):
            raise
        raise ValueError(
            f"the model takes no images of the shape {jnp.shape(x)[1:]} ({error}); give an image alone as `x[None]`, "
            "and grey ones with an axis for their channel"
        ) from error


def check_two_classes(shape: tuple[int, ...]) -> None:
    """Raises ValueError unless logits of this shape distinguish two classes: one logit alone cannot be wrong."""
    if not shape or shape[-1] < 2:
        raise ValueError(f"expected logits of at least two classes, got the shape {shape}{_ONE_LOGIT}")


_ONE_LOGIT = "; wrap a model with one (sigmoid) logit in `wrappers.two_classes`"


def as_labels(y: Any) -> jax.Array:
    """Labels in int32, whatever integers they were; traced ones that no int32 holds become ``NO_CLASS``.

    >>> as_labels(np.array([3, 255], np.uint8))
    Array([  3, 255], dtype=int32)
    """
    return _in_int32(jnp.asarray(y))


@partial(jax.jit, inline=True)  # One program for each shape, where every operation would be one by itself.
def _in_int32(y):
    if y.dtype.itemsize >= 4:
        y = jnp.where((y < 0) | (y >= NO_CLASS), NO_CLASS, y)
    else:
        y = jnp.where(y < 0, NO_CLASS, y.astype(jnp.int32))
    return y.astype(jnp.int32)


def check_unit_range(x: Any, sigma_pm1: Any) -> None:
    """Raises ValueError unless images lie in [0, 1], or no further outside than noise of this level takes them.

    For what scales images to [-1, 1] itself: others may be in the units of their model. Six standard deviations of the
    noise, ``sigma_pm1 / 2`` in these units, are let pass. Traced images and levels are not looked at.
    """
    if is_traced(x, sigma_pm1):
        return
    if lies_here(x):
        low, high = float(np.min(x)), float(np.max(x))
    else:
        with jax.ensure_compile_time_eval():
            low, high = float(jnp.min(x)), float(jnp.max(x))
    margin = 3 * float(sigma_pm1) + 1e-3
    if low < -margin or high > 1 + margin:
        raise ValueError(
            f"images must lie in [0, 1], up to noise of `sigma_pm1`, got values from {low:.4g} to {high:.4g}; divide "
            "images in 0..255 by 255, and undo a normalisation by mean and deviation"
        )


def check_number(name: str, value: Any, *, least: float = 0.0) -> None:
    """Raises ValueError unless ``value`` is one finite number of at least ``least``; of a traced one only the shape.

    An array would be broadcast along whatever axis fits.
    """
    check_array(f"`{name}`", value, "a number", jnp.floating, jnp.integer)
    if jnp.ndim(value) != 0 or not (is_traced(value) or least <= float(value) < float("inf")):
        raise ValueError(f"`{name}` must be one finite number of at least {least:g}, got {value}")


def check_positive(name: str, value: Any) -> None:
    """Raises ValueError unless ``value`` is one finite number above 0; of a tracer only shape and type are checked."""
    check_array(f"`{name}`", value, "a number", jnp.floating, jnp.integer)
    if jnp.ndim(value) != 0 or not (is_traced(value) or 0 < float(value) < float("inf")):
        raise ValueError(f"`{name}` must be one finite number above 0, got {value}")
