"""Layers that the classifiers are made of.

Weights are drawn as PyTorch does by default, uniform with variance ``1 / (3 fan_in)``; the reference's recipes were
tuned for that.
"""

import math
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pags_jax.channels import channel_spread, channel_sum
from pags_jax.convolution import conv_general_dilated

#: Nonlinearities.
Activation = Literal["relu", "softplus"]

_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

conv = partial(nn.Conv, kernel_init=_uniform, use_bias=False, conv_general_dilated=conv_general_dilated)
dense = partial(nn.Dense, kernel_init=_uniform)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, with PyTorch's constants (Ioffe and Szegedy 2015).

    Variables are named as flax's. Statistics are computed in float32 at least; running variances are unbiased.

    Attributes:
      use_running_average: Normalise by running statistics; otherwise by those of the batch, which update them.
      dtype: Dtype of the result; by default that of ``x``.

    Raises:
      ValueError: One value a channel to take statistics of, whose variance is zero whatever it is.
    """

    use_running_average: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """``(x - mean) / sqrt(variance + 1e-5) * scale + bias``."""
        c, n = x.shape[-1], math.prod(x.shape[:-1])
        if n == 1 and not (self.use_running_average or self.is_initializing()):
            raise ValueError(
                f"batch normalisation in training needs more than one value a channel, got an input of the shape "
                f"{x.shape}: use a larger batch, or larger images"
            )
        scale = self.param("scale", nn.initializers.ones_init(), (c,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (c,), jnp.float32)
        running = {
            "mean": self.variable("batch_stats", "mean", jnp.zeros, (c,), jnp.float32),
            "var": self.variable("batch_stats", "var", jnp.ones, (c,), jnp.float32),
        }
        dtype, x = self.dtype or x.dtype, at_least_float32(x)
        mean, var = (running[name].value.astype(x.dtype) for name in ("mean", "var"))
        if not self.use_running_average:
            mean = channel_sum(x) / n
            # In two passes: the difference of two large numbers would lose the digits of a small variance.
            var = channel_sum((x - channel_spread(mean, x.shape[:-1])) ** 2) / n
            if not self.is_initializing():
                for name, new in (("mean", mean), ("var", var * (n / (n - 1)))):
                    old = running[name].value  # PyTorch's momentum of 0.1 is the share of what is new.
                    running[name].value = 0.9 * old + 0.1 * new.astype(old.dtype)
        slope = scale.astype(x.dtype) * jax.lax.rsqrt(var + 1e-5)
        shift = bias.astype(x.dtype) - mean * slope
        leading = x.shape[:-1]
        return (x * channel_spread(slope, leading) + channel_spread(shift, leading)).astype(dtype)


def widened(channels: int, width: float) -> int:
    """A number of channels times ``width``, rounded, at least 1.

    >>> widened(64, 0.25)
    16
    """
    return max(1, round(channels * width))


def check_input(x: Array, smallest: int, model: str) -> None:
    """Raises ValueError unless ``x`` are floats ``(n, height, width, channels)``, at least ``smallest`` high and wide.

    Smaller ones would leave maps of no size, whose means are NaN.
    """
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"{model} is for images (n, height, width, channels), got the shape {x.shape}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{model} is for floats in [0, 1], got {x.dtype}; see images.to_float")
    if min(x.shape[1:3]) < smallest:
        raise ValueError(
            f"{model} needs images of at least {smallest} x {smallest} pixels, got {x.shape[1]} x {x.shape[2]}; "
            "enlarge or pad them, or take another model"
        )


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


def at_least_float32(x: Any) -> Any:
    """``x`` in at least float32, whatever the layers compute in."""
    return x if jnp.finfo(x.dtype).bits >= 32 else x.astype(jnp.float32)
