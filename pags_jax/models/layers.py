"""What the classifiers are made of.

Weights are drawn as PyTorch does by default, uniform with variance ``1 / (3 fan_in)``; the reference's recipes were
tuned for that.
"""

from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pags_jax.convolution import conv_general_dilated

#: Nonlinearities.
Activation = Literal["relu", "softplus"]

_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

conv = partial(nn.Conv, kernel_init=_uniform, use_bias=False, conv_general_dilated=conv_general_dilated)
dense = partial(nn.Dense, kernel_init=_uniform)


class BatchNorm(nn.BatchNorm):
    """Batch normalisation with PyTorch's constants; its momentum of 0.1 is the share of what is new."""

    momentum: float = 0.9

    def __call__(self, x: Array, *args: Any, **kwargs: Any) -> Array:
        """Normalised ``x``; statistics are in float32 at least, so that dtypes are mixed on purpose."""
        with jax.numpy_dtype_promotion("standard"):
            return super().__call__(x, *args, **kwargs)


def activate(x: Array, activation: str, beta: float) -> Array:
    """``max(x, 0)``, or ``log(1 + exp(beta x)) / beta``, which is smooth and tends to it for large ``beta``."""
    return jax.nn.relu(x) if activation == "relu" else jax.nn.softplus(beta * x) / beta


def max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n i j c"]:
    """Largest value of each 2 x 2 window; a last odd row or column is left out.

    By reshaping: the gradient of a windowed reduction is a scatter, several times slower on CPUs.
    """
    n, height, width, channels = x.shape
    even = x[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))


def as_logits(x: Any) -> Any:
    """Logits in at least float32, whatever the layers compute in."""
    return x if jnp.finfo(x.dtype).bits >= 32 else x.astype(jnp.float32)
