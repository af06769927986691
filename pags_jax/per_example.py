"""What a classifier must be: a function of images to logits that treats each example by itself.

A model that was left in training mode does not: batch normalisation by the statistics of the batch couples examples,
and dropout makes an image's logits depend on its place in the batch. Input gradients and robustness of such a function
are not those of the classifier that is used.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.errors import TraceContextError
from jaxtyping import Array, Float

from pags_jax.images import check_classes, check_labels, is_traced

ADVICE = (
    "put it into evaluation mode: `model.eval()` in flax.nnx, `train=False` (or what the module calls it) in "
    "flax.linen, `equinox.nn.inference_mode(model)` in equinox"
)
TOLERANCE = 0.02
"""Of the spread of the logits: more than rounding, also in bfloat16, and less than what batch statistics change."""


def check_classifier(apply_fn: Callable[[Any], Any], x: Float[Array, "n ..."], y: Any = None) -> None:
    """Raises ValueError unless a model makes logits of two classes at least, and of each image by itself.

    With labels ``y``, it also raises unless there is one for each image, and a class of the model. To find out whether
    examples influence each other, it calls the model twice, with different images beside the first one; under tracing
    it cannot.
    """
    if y is not None:
        check_labels(y, x)
    with in_evaluation():
        check_classes(apply_fn, x[:1], y)
    check_alone(apply_fn, x)


def check_alone(apply_fn: Callable[[Any], Any], x: Float[Array, "n ..."]) -> None:
    """Raises ValueError where logits of an image change with its place and company in a batch, if that can be seen."""
    if is_traced(x, jnp.zeros(())):  # Inside of `jit` whatever is made is traced.
        return
    image, dark, bright = x[:1], x[:1] / 3, 1 - x[:1] / 2
    first, last = apply_fn(jnp.concatenate([image, dark])), apply_fn(jnp.concatenate([bright, image]))
    if is_traced(first, last) or len(first) != 2:  # Of parameters that are; or logits of given images alone.
        return
    a, b = np.asarray(first, np.float64)[0], np.asarray(last, np.float64)[1]
    if not (np.isfinite(a).all() and np.isfinite(b).all()):  # Nothing to compare; the example is not right anyhow.
        return
    rounding = 8 * float(jnp.finfo(first.dtype).eps) * np.max(np.abs(a))
    if np.max(np.abs(a - b)) > TOLERANCE * np.max(np.abs(a - a.mean())) + rounding:
        raise ValueError(
            "the model does not treat each example by itself: logits of one image change by "
            f"{np.max(np.abs(a - b)):.3g} with its place and company in a batch, as batch statistics or dropout of a "
            f"model in training make them; {ADVICE}"
        )


@contextlib.contextmanager
def in_evaluation() -> Iterator[None]:
    """Raises ValueError in the user's words where a flax.nnx module changes its own state while it is traced."""
    try:
        yield
    except TraceContextError as error:
        raise ValueError(f"the model changes its own state when it is called ({error}); {ADVICE}") from error
