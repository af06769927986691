"""Denoisers made of networks, with the preconditioning of Karras et al. 2022; the mathematics is in ``scores``."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pags_jax.images import check_positive

#: ``denoise(x_pm1, sigma_pm1)``.
Denoiser = Callable[[Any, Any], Any]


class Preconditioning(NamedTuple):
    """The coefficients around the network at a noise level (EDM, Table 1, last column).

    Attributes:
      c_skip: Multiplies the noisy image in the result.
      c_out: Multiplies what the network returns.
      c_in: Multiplies the noisy image that the network sees.
      c_noise: The noise level that it sees.
    """

    c_skip: Float[Array, "..."]
    c_out: Float[Array, "..."]
    c_in: Float[Array, "..."]
    c_noise: Float[Array, "..."]


def preconditioning(sigma: Float[Array, "..."], sigma_data: Any) -> Preconditioning:
    """The four coefficients at noise levels above 0, for data of the standard deviation ``sigma_data``.

    >>> preconditioning(jnp.float32(0.5), 0.5).c_skip.item()
    0.5
    """
    return _coefficients(sigma, sigma_data)


@partial(jax.jit, inline=True)  # One program, where every operation would be one by itself.
def _coefficients(sigma, sigma_data):
    total = sigma**2 + sigma_data**2
    return Preconditioning(
        sigma_data**2 / total, sigma * sigma_data / jnp.sqrt(total), 1 / jnp.sqrt(total), jnp.log(sigma) / 4
    )


def preconditioned(network: Callable[[Any, Any], Any], *, sigma_data: Any) -> Denoiser:
    """A denoiser made of a network.

    Args:
      network: ``network(x, c_noise)``, with ``c_noise`` of shape ``(n,)``, returns something shaped as ``x``.
      sigma_data: Standard deviation of the pixels of the data, images in [-1, 1]: one finite number above 0.

    Returns:
      ``denoise(x, sigma)``, with one ``sigma`` for all images, or one for each, ``(n,)``. If the network is a pytree
      (``jax.tree_util.Partial``), so is the denoiser, and ``jit`` can take it as an argument.

    Raises:
      ValueError: Another ``sigma_data``.

    >>> denoise = preconditioned(lambda x, c_noise: jnp.zeros_like(x), sigma_data=0.5)
    >>> denoise(jnp.ones((1, 2)), 0.5).tolist()
    [[0.5, 0.5]]
    """
    check_positive("sigma_data", sigma_data)
    return Preconditioned(network, sigma_data)


@partial(jax.tree_util.register_dataclass, data_fields=("network", "sigma_data"), meta_fields=())
@dataclass(frozen=True)
class Preconditioned:
    """A denoiser made of a network, see ``preconditioned``.

    Attributes:
      network: ``F(c_in x, c_noise)``.
      sigma_data: Standard deviation of the pixels of the data.
    """

    network: Callable[[Any, Any], Any]
    sigma_data: Any

    def __call__(self, x: Any, sigma: Any) -> Any:
        """``D(x; sigma)``."""
        c, out = self._run(x, sigma)
        return beside(c.c_skip, x) * x + beside(c.c_out, x) * out

    def score(self, x: Any, sigma: Any) -> Any:
        """``(D(x; sigma) - x) / sigma^2`` without their difference; ``x`` in [-1, 1]."""
        c, out = self._run(x, sigma)
        slope = jnp.asarray(self.sigma_data, x.dtype) * c.c_in / jnp.asarray(sigma, x.dtype)
        return beside(slope, x) * out - beside(c.c_in**2, x) * x

    def _run(self, x: Any, sigma: Any) -> tuple[Preconditioning, Any]:
        levels = jnp.broadcast_to(jnp.asarray(sigma, x.dtype), x.shape[:1])
        c = preconditioning(levels, jnp.asarray(self.sigma_data, x.dtype))
        return c, denoised(self.network, beside(c.c_in, x) * x, c.c_noise)


def denoised(denoise: Denoiser, x: Any, sigma: Any) -> Any:
    """``denoise(x, sigma)``; raises ValueError unless it is shaped as ``x``, against which it would be broadcast."""
    out = denoise(x, sigma)
    if getattr(out, "shape", None) != x.shape:
        got = out.shape if hasattr(out, "shape") else f"a {type(out).__name__}"
        raise ValueError(f"a denoiser must return one array shaped as its images, {x.shape}, got {got}")
    return out


def beside(values: Float[Array, " n"], x: Any) -> Array:
    """One value for each image, ready to multiply its pixels."""
    return values.reshape(-1, *(1,) * (x.ndim - 1))
