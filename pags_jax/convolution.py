r"""Convolution whose derivatives of every order are convolutions that compilers know well.

With images ``x``, a kernel ``w`` and outputs ``y``, everything comes from one trilinear form ``<y, convolve(x, w)>``:

    forward   convolve(x, w)      its derivative by y
    backward  (y, w) -> x         its derivative by x
    kernel    (x, y) -> w         its derivative by w

so that the derivatives of each of the three are the other two. ``jax.lax.conv_general_dilated`` differentiates its own
derivatives by other formulas: right, but outside of what XLA has fast code for. Twice differentiated, as for the
gradient-norm loss, single ones took 40 to 75 times as long on a CPU (jaxlib 0.10.2). On CPUs the backward form to
images of one channel has a formula of its own, three times as fast.
"""

import math
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "i j c k"],
    *,
    strides: Sequence[int] = (1, 1),
    padding: str | Sequence[tuple[int, int]] = "SAME",
) -> Float[Array, "n p q k"]:
    """Cross-correlates images with a kernel, as ``jax.lax.conv_general_dilated`` in the layout NHWC, HWIO does.

    Args:
      x: Images.
      kernel: Weights.
      strides: Steps of the window.
      padding: "SAME", "VALID", or zeros before and after each of the two axes.

    Returns:
      The outputs.

    >>> convolve(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 5)), padding="VALID")[0, 0, 0, 0].item()
    18.0
    """
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], tuple(strides), padding)
    options = {
        "strides": tuple(strides),
        "padding": tuple((int(low), int(high)) for low, high in padding),
        "image": x.shape[1:3],
        "window": kernel.shape[:2],
        # Read here, as the primitive is lowered when a `jax.default_matmul_precision` around this call may be over.
        "precision": jax.config.jax_default_matmul_precision,  # pyright: ignore[reportAttributeAccessIssue]
    }
    return _forward.bind(x, kernel, **options)


def conv_general_dilated(
    x: Array,
    kernel: Array,
    window_strides: Sequence[int],
    padding: Any,
    *,
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
) -> Array:
    """``convolve`` with the signature that ``flax.linen.Conv(conv_general_dilated=...)`` calls.

    Raises:
      ValueError: Dilations, groups or a precision, which ``convolve`` does not have.
    """
    del dimension_numbers  # flax's are those of ``LAYOUT``.
    dilations = (*(lhs_dilation or ()), *(rhs_dilation or ()))
    if any(rate != 1 for rate in dilations) or feature_group_count != 1 or precision is not None:
        raise ValueError("this convolution has neither dilations nor groups nor a precision; use flax's own")
    return convolve(x, kernel, strides=window_strides, padding=padding)


def _convolve(x, kernel, *, strides, padding, image, window, precision):
    del image, window
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT, precision=precision)


def _by_image(y, kernel, *, image, **options):
    x = jax.ShapeDtypeStruct((y.shape[0], *image, kernel.shape[2]), y.dtype)
    return jax.linear_transpose(lambda x: _convolve(x, kernel, image=image, **options), x)(y)[0]


def _by_kernel(x, y, *, window, **options):
    kernel = jax.ShapeDtypeStruct((*window, x.shape[3], y.shape[3]), x.dtype)
    return jax.linear_transpose(lambda kernel: _convolve(x, kernel, window=window, **options), kernel)(y)[0]


def _by_grey_image(y, kernel, *, padding, **options):
    """For images of one channel: one product for all weights, whose columns are shifted back and added.

    The forward pass could do without a convolution as well. But then XLA writes the whole chain of steps of an attack
    into each place that reads its image, ten times as slow.
    """
    if not (
        kernel.shape[2] == 1
        and options["strides"] == (1, 1)
        and math.prod(options["window"]) <= 9
        and y.dtype.itemsize >= 4
    ):
        return _by_image(y, kernel, padding=padding, **options)
    (height, width), (rows, columns) = options["image"], options["window"]
    weights = kernel.reshape(rows * columns, -1)
    parts = jnp.einsum("npqk,tk->npqt", y, weights, precision=options["precision"])
    shifted = (
        jnp.pad(parts[..., i * columns + j], ((0, 0), (i, rows - 1 - i), (j, columns - 1 - j)))
        for i, j in np.ndindex(rows, columns)
    )
    (above, _), (left, _) = padding
    return sum(shifted, jnp.zeros((), y.dtype))[:, above : above + height, left : left + width, None]


def _primitive(name: str, compute, on_cpus=None) -> Primitive:
    primitive = Primitive(name)

    def shape(*avals, **options):
        out = jax.eval_shape(partial(compute, **options), *(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals))
        return ShapedArray(out.shape, out.dtype)

    def batched(args, axes, **options):
        a, b = args
        if axes[1] is None and compute is not _by_kernel:  # More images.
            a = jnp.moveaxis(a, axes[0], 0)
            out = primitive.bind(a.reshape(-1, *a.shape[2:]), b, **options)
            return out.reshape(*a.shape[:2], *out.shape[1:]), 0
        return jax.vmap(partial(compute, **options), axes)(a, b), 0

    primitive.def_abstract_eval(shape)
    compiled = cache(lambda **options: jax.jit(partial(primitive.bind, **options)))  # One for all eager calls.
    primitive.def_impl(jax.disable_jit(False)(lambda *args, **options: compiled(**options)(*args)))
    mlir.register_lowering(primitive, mlir.lower_fun(compute, multiple_results=False))
    if on_cpus is not None:
        mlir.register_lowering(primitive, mlir.lower_fun(on_cpus, multiple_results=False), platform="cpu")
    batching.primitive_batchers[primitive] = batched
    return primitive


_forward = _primitive("convolve", _convolve)
_backward = _primitive("convolve_by_image", _by_image, _by_grey_image)
_kernel = _primitive("convolve_by_kernel", _by_kernel)

# Each rule gets the cotangent first; of the two arguments the one that it is the derivative by is not used.
ad.defbilinear(
    _forward,
    lambda y, _, kernel, **options: _backward.bind(y, kernel, **options),
    lambda y, x, _, **options: _kernel.bind(x, y, **options),
)
ad.defbilinear(
    _backward,
    lambda x, _, kernel, **options: _forward.bind(x, kernel, **options),
    lambda x, y, _, **options: _kernel.bind(x, y, **options),
)
ad.defbilinear(
    _kernel,
    lambda kernel, _, y, **options: _backward.bind(y, kernel, **options),
    lambda kernel, x, _, **options: _forward.bind(x, kernel, **options),
)
