r"""Scores: gradients of the log-density of noisy images, from denoisers trained by score matching.

A denoiser is a function ``denoise(x, sigma)`` of noisy images ``(n, ...)`` scaled to [-1, 1] and of the noise level in
the same units. The one with the least squared error gives the score of the data's density under noise (Vincent 2011):

    D(x; sigma) = E[clean | x],    grad log p(x; sigma) = (D(x; sigma) - x) / sigma^2

Networks are preconditioned and trained as by Karras, Aittala, Aila and Laine, *Elucidating the Design Space of
Diffusion-Based Generative Models* (NeurIPS 2022), called EDM here: with ``d`` the standard deviation of the data,

    D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)
    c_skip = d^2 / (sigma^2 + d^2)           c_in    = 1 / sqrt(sigma^2 + d^2)
    c_out  = sigma d / sqrt(sigma^2 + d^2)   c_noise = log(sigma) / 4
    loss   = (sigma^2 + d^2) / (sigma d)^2 |D(x + sigma u; sigma) - x|^2,   log sigma ~ N(-1.2, 1.2^2)

so that input and target of the network ``F`` have variance one at every level, and a network that returns zero has loss
one. In terms of ``F`` the score has no difference of nearly equal numbers,

    (D(x; sigma) - x) / sigma^2 = d F(c_in x; c_noise) / (sigma sqrt(sigma^2 + d^2)) - x / (sigma^2 + d^2),

so that it keeps its digits at any noise level. If only the values of a denoiser are known, the rounding of ``x`` and
``D`` is divided by ``sigma^2``; such a score is computed only if its error is at most 0.01 (``smallest_level``).
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from pags_jax.chunks import check_counts
from pags_jax.images import as_images, check_positive, check_unit_range, is_traced, wide
from pags_jax.preconditioning import Denoiser as Denoiser
from pags_jax.preconditioning import Preconditioned as Preconditioned
from pags_jax.preconditioning import Preconditioning as Preconditioning
from pags_jax.preconditioning import beside, denoised
from pags_jax.preconditioning import preconditioned as preconditioned
from pags_jax.preconditioning import preconditioning as preconditioning


def denoiser(model: Any, variables: Any, labels: Int[Array, "..."] | int | None = None) -> Denoiser:
    """The denoiser of a trained network, of one class or of all.

    Args:
      model: A ``models.UNet``, or another module of such a call and with ``classes`` and ``sigma_data``.
      variables: Its variables.
      labels: The class of each image, ``(n,)``, or one for all; None: whatever the class.

    Returns:
      ``denoise(x, sigma)``: a pytree, so that a function jitted with it as an argument compiles once for all variables
      and labels.

    Raises:
      ValueError: Labels that are no classes of the model. The network's own label for "none", the number of classes, is
        refused too; under tracing, where labels cannot be seen, it is left to the network.

    >>> from pags_jax.models import UNet
    >>> model, x = UNet(widths=(8,), blocks=1), jnp.ones((3, 28, 28, 1), jnp.float32)
    >>> variables = model.init(jax.random.key(0), x)
    >>> denoise = denoiser(model, variables, jnp.array([0, 4, 9]))
    >>> denoise(x, 0.5).shape
    (3, 28, 28, 1)
    """
    if labels is not None:
        labels = jnp.asarray(labels)
        if not jnp.issubdtype(labels.dtype, jnp.integer):
            raise ValueError(f"labels must be integers, got {labels.dtype}")
        if not is_traced(labels) and not np.all((np.asarray(labels) >= 0) & (np.asarray(labels) < model.classes)):
            raise ValueError(
                f"labels must be from 0 to {model.classes - 1} (None: whatever the class), "
                f"got {np.min(np.asarray(labels))} to {np.max(np.asarray(labels))}"
            )
    return preconditioned(Partial(model.apply, variables, labels=labels), sigma_data=model.sigma_data)


def score(denoise: Denoiser, x: Float[Array, "n ..."], *, sigma_pm1: Any) -> Float[Array, "n ..."]:
    """The gradient of the log-density of images under noise, at the images: ``(D(x'; sigma) - x') / sigma^2``.

    Here ``x' = 2 x - 1``, and the gradient is with respect to ``x'``. With respect to ``x``, the image in [0, 1], it is
    twice as large.

    Args:
      denoise: A denoiser of images in [-1, 1].
      x: Images in [0, 1], or noisy ones at this level.
      sigma_pm1: Noise level for images in [-1, 1], traced; Srinivas et al. (2023) take 0.5 for CIFAR-10.

    Returns:
      The score, shaped as ``x``, in float32 at least; by Vincent, *A Connection Between Score Matching and Denoising
      Autoencoders* (2011).

    Raises:
      ValueError: Images that cannot be used, a noise level that is not one number above 0, or one below
        ``smallest_level`` with a denoiser that was not made by ``preconditioned``; if traced, the score is NaN.

    >>> of_a_normal = lambda x, sigma: x / (1 + sigma**2)  # denoises data of N(0, 1)
    >>> score(of_a_normal, jnp.array([[1.0, 0.5]]), sigma_pm1=1.0).tolist()
    [[-0.5, 0.0]]
    """
    x, sigma = _scaled(x, sigma_pm1)
    if isinstance(denoise, Preconditioned):
        return denoise.score(x, sigma)
    return _divided(denoised(denoise, x, sigma), x, sigma, sigma_pm1)


def smallest_level(dtype: Any) -> float:
    """The noise level down to which ``(D - x) / sigma^2`` has an error of at most 0.01 by the rounding of ``D``.

    Pixels are of order 1, and so is a score, or larger.

    >>> f"{smallest_level(jnp.float32):.4f}", f"{smallest_level(jnp.float64):.0e}"
    ('0.0035', '1e-07')
    """
    return (float(jnp.finfo(dtype).eps) / 0.01) ** 0.5


def _divided(clean: Array, x: Array, sigma: Array, sigma_pm1: Any) -> Array:
    least = max(smallest_level(clean.dtype), smallest_level(x.dtype))
    if not is_traced(sigma_pm1) and float(sigma_pm1) < least:
        raise ValueError(
            f"`sigma_pm1` = {sigma_pm1} is below {least:.2g}: rounding in {clean.dtype} would be a visible part of "
            "(D - x) / sigma^2; give a denoiser made by `scores.preconditioned`, which needs no such difference, "
            "images in float64 (JAX_ENABLE_X64=1), or a larger `sigma_pm1`"
        )
    return jnp.where(sigma >= least, (clean - x).astype(x.dtype) / sigma**2, jnp.nan)


@jax.default_matmul_precision("highest")
def bayes_gradient(
    conditional: Denoiser, unconditional: Denoiser, x: Float[Array, "n ..."], *, sigma_pm1: Any
) -> Float[Array, "n ..."]:
    """The input gradient of the Bayes classifier of noisy images: conditional minus unconditional score.

        grad log p(y | x'; sigma) = grad log p(x' | y; sigma) - grad log p(x'; sigma) = (D_y - D)(x'; sigma) / sigma^2

    Args:
      conditional: A denoiser of images of the classes in question.
      unconditional: A denoiser of all images.
      x: Images in [0, 1].
      sigma_pm1: Noise level for images in [-1, 1], traced.

    Returns:
      The gradient by the image in [-1, 1], shaped as ``x``; by the image in [0, 1] it is twice that.

    Raises:
      ValueError: As ``score``.

    >>> one, other = (lambda x, sigma, m=m: (x + m * sigma**2) / (1 + sigma**2) for m in (1.0, 0.0))
    >>> bayes_gradient(one, other, jnp.ones((1, 2)), sigma_pm1=1.0).tolist()
    [[0.5, 0.5]]
    """
    if isinstance(conditional, Preconditioned) and isinstance(unconditional, Preconditioned):
        return score(conditional, x, sigma_pm1=sigma_pm1) - score(unconditional, x, sigma_pm1=sigma_pm1)
    x, sigma = _scaled(x, sigma_pm1)
    return _divided(denoised(conditional, x, sigma), denoised(unconditional, x, sigma), sigma, sigma_pm1)


def noise_levels(
    key: Array, n: int, *, log_mean: float = -1.2, log_std: float = 1.2, dtype: Any = jnp.float32
) -> Float[Array, " n"]:
    """Noise levels to train at: log-normal, around 0.3 (EDM, section 5)."""
    return jnp.exp(log_mean + log_std * jax.random.normal(key, (n,), dtype))


def denoising_loss(
    denoise: Denoiser,
    x: Float[Array, "n ..."],
    sigma: Any,
    noise: Float[Array, "n ..."],
    *,
    sigma_data: Any,
) -> Float[Array, " n"]:
    """Each image's weighted squared error, a mean over its pixels (EDM, equation 2 and section 5).

    Args:
      denoise: The denoiser.
      x: Clean images in [-1, 1].
      sigma: Noise levels, ``(n,)`` or one for all.
      noise: Draws of a standard normal.
      sigma_data: Parameter `sigma_data` of the preconditioning.

    Returns:
      One number for each image; about 1 for a fresh network.

    Raises:
      ValueError: Noise of another shape, which would be shared by images.

    >>> zero = preconditioned(lambda x, c_noise: jnp.zeros_like(x), sigma_data=0.5)
    >>> denoising_loss(zero, jnp.full((1, 4), 0.5), 1.0, jnp.zeros((1, 4)), sigma_data=0.5).round(3).item()
    0.8
    """
    if jnp.shape(noise) != x.shape:
        raise ValueError(f"`noise` must have the shape {x.shape} of `x`, got {jnp.shape(noise)}")
    levels = jnp.broadcast_to(jnp.asarray(sigma, x.dtype), x.shape[:1])
    squares = (denoised(denoise, x + beside(levels, x) * noise, levels) - x) ** 2
    return loss_weight(levels, sigma_data) * squares.reshape(x.shape[0], -1).mean(1)


def loss_weight(sigma: Any, sigma_data: Any) -> Any:
    """What multiplies the squared error at a noise level: ``(sigma^2 + d^2) / (sigma d)^2 = 1 / c_out^2``."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def noise_schedule(
    steps: int, *, sigma_max: float = 80.0, sigma_min: float = 0.002, rho: float = 7.0
) -> Float[np.ndarray, " levels"]:
    """Noise levels to sample along, ``steps`` from the largest to the smallest, then 0 (EDM, equation 5).

    >>> noise_schedule(3, sigma_max=8.0, sigma_min=1.0, rho=3.0).tolist()
    [8.0, 3.375, 1.0, 0.0]
    """
    check_counts(steps=steps)
    if steps < 2 or not np.inf > sigma_max > sigma_min > 0:
        raise ValueError(
            "expected at least 2 steps and a finite sigma_max > sigma_min > 0, "
            f"got {steps}, {sigma_max} and {sigma_min}"
        )
    check_positive("rho", rho)
    levels = np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps) ** rho
    return np.append(levels, 0.0)


def heun_step(denoise: Denoiser, x: Float[Array, "n ..."], sigma: Any, following: Any) -> Float[Array, "n ..."]:
    """One step of Heun's method along ``dx / dsigma = (x - D(x; sigma)) / sigma`` (EDM, Algorithm 1).

    Args:
      denoise: The denoiser.
      x: Images at level ``sigma``, in the units of [-1, 1].
      sigma: The level, above 0, traced.
      following: The level to go to; 0 makes it a step of Euler's method, which ends at ``D(x; sigma)``.

    Returns:
      Images at level ``following``.
    """
    sigma, following = (jnp.asarray(level, x.dtype) for level in (sigma, following))
    slope = (x - denoised(denoise, x, sigma)) / sigma
    there = x + (following - sigma) * slope
    last = jnp.equal(following, 0)
    level = jnp.where(last, sigma, following)
    slope_there = jnp.where(last, slope, (there - denoise(there, level)) / level)
    return x + (following - sigma) * (slope + slope_there) / 2


def sample(
    denoise: Denoiser,
    noise: Float[Array, "n ..."],
    levels: Float[np.ndarray, " levels"],
    *,
    step: Callable[..., Any] = heun_step,
) -> Float[Array, "n ..."]:
    """Draws images by going down the noise levels; only the first noise is random.

    Args:
      denoise: A denoiser; the images are of its classes.
      noise: Draws of a standard normal.
      levels: As from ``noise_schedule``.
      step: ``heun_step``, best under a ``jit`` of your own; steps are driven from Python.

    Returns:
      Images in about [-1, 1].

    Raises:
      ValueError: Levels that are not finite, do not fall, or end below 0.
    """
    levels = np.asarray(levels)
    if levels.ndim != 1 or not np.all(np.diff(levels) < 0) or not (np.isfinite(levels).all() and levels[-1] >= 0):
        raise ValueError(f"`levels` must be finite and fall to 0, as `noise_schedule` makes them, got {levels}")
    x = noise * float(levels[0])
    for sigma, following in itertools.pairwise(levels):
        x = step(denoise, x, sigma, following)
    return x


def _scaled(x: Any, sigma_pm1: Any) -> tuple[Array, Array]:
    """Images in [-1, 1] and the level in their type, of float32 at least, both checked."""
    x = as_images(x)
    check_positive("sigma_pm1", sigma_pm1)
    check_unit_range(x, sigma_pm1)
    dtype = wide(x.dtype)
    return 2 * x.astype(dtype) - 1, jnp.asarray(sigma_pm1, dtype)
