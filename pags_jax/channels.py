r"""Sums over all but the last axis, and their transpose, for batch normalisation.

XLA:CPU adds up the columns of a tall matrix one after the other; a product with a row of ones does it seven times as
fast. Sum and spread are each other's transposes, so that gradients of every order sum in that way too.
"""

import math
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float


def channel_sum(x: Float[Array, "*n c"]) -> Float[Array, " c"]:
    """The sum over all axes but the last.

    >>> channel_sum(jnp.ones((2, 3, 4))).tolist()
    [6.0, 6.0, 6.0, 6.0]
    """
    return _sum.bind(x)


def channel_spread(values: Float[Array, " c"], leading: tuple[Any, ...]) -> Float[Array, "*n c"]:
    """The same values at every place of ``leading`` axes.

    >>> channel_spread(jnp.arange(2.0), (3,)).tolist()
    [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    """
    return _spread.bind(values, leading=tuple(leading))


def _summed(x):
    return jnp.sum(x, axis=tuple(range(x.ndim - 1)))


def _summed_by_product(x):
    ones = jnp.ones((1, math.prod(x.shape[:-1])), x.dtype)
    return jax.lax.dot(ones, x.reshape(-1, x.shape[-1]), precision="highest")[0]


def _spread_out(values, *, leading):
    return jax.lax.broadcast(values, leading)


def _primitive(name: str, compute, out_shape) -> Primitive:
    primitive = Primitive(name)
    primitive.def_abstract_eval(lambda a, **options: ShapedArray(out_shape(a, **options), a.dtype))
    compiled = cache(lambda **options: jax.jit(partial(primitive.bind, **options)))  # One for all eager calls.
    primitive.def_impl(jax.disable_jit(False)(lambda a, **options: compiled(**options)(a)))

    def batched(args: Any, axes: Any, **options):
        return jax.vmap(partial(compute, **options), axes)(*args), 0

    mlir.register_lowering(primitive, mlir.lower_fun(compute, multiple_results=False))
    batching.primitive_batchers[primitive] = batched
    return primitive


_sum = _primitive("channel_sum", _summed, lambda x: x.shape[-1:])
_spread = _primitive("channel_spread", _spread_out, lambda values, leading: (*leading, *values.shape))
mlir.register_lowering(_sum, mlir.lower_fun(_summed_by_product, multiple_results=False), platform="cpu")
ad.deflinear2(_sum, lambda total, x: [_spread.bind(total, leading=x.aval.shape[:-1])])
ad.deflinear2(_spread, lambda out, _, leading: [_sum.bind(out)])
