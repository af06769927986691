"""Sampling beside ``scores.sample`` with Heun's step: Euler's step, and in-painting.

``checkerboard`` measures whether a network's layers leave a pattern in its samples.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pags_jax.chunks import check_counts
from pags_jax.images import as_mask, check_batch
from pags_jax.scores import Denoiser, heun_step, noise_schedule, sample


def euler_step(denoise: Denoiser, x: Float[Array, "n ..."], sigma: Any, following: Any) -> Float[Array, "n ..."]:
    """One step of Euler's method along ``dx / dsigma = (x - D(x; sigma)) / sigma``: half of the cost of Heun's.

    Args:
      denoise: The denoiser.
      x: Images at level ``sigma``, in the units of [-1, 1].
      sigma: The level, above 0, traced.
      following: The level to go to.

    Returns:
      Images at level ``following``.

    >>> euler_step(lambda x, sigma: 0 * x, jnp.ones((1, 2)), 2.0, 1.0).tolist()
    [[0.5, 0.5]]
    """
    sigma, following = (jnp.asarray(level, x.dtype) for level in (sigma, following))
    return x + (following - sigma) * (x - denoise(x, sigma)) / sigma


def inpaint(
    denoise: Denoiser,
    x: Float[Array, "n h w c"],
    known: Any,
    levels: Float[np.ndarray, " levels"],
    *,
    key: Array,
    repeats: int = 1,
    step: Callable[..., Any] = heun_step,
) -> Float[Array, "n h w c"]:
    """Fills in pixels by a denoiser: at each noise level the known pixels are put back, under noise of that level.

    After each step the images are noised again and the step is repeated, so that what is filled in comes to fit what is
    known (Lugmayr et al., *RePaint*, CVPR 2022); with ``repeats=1`` it only fits roughly (Song et al. 2021).

    Args:
      denoise: A denoiser of images in [-1, 1].
      x: Images in [-1, 1]; what is not known in them is not looked at.
      known: Which pixels are kept: booleans of a shape that broadcasts to that of ``x``.
      levels: As from ``scores.noise_schedule``, the last being 0.
      key: PRNG key of the noise.
      repeats: How often each step is made.
      step: ``scores.heun_step`` or ``euler_step``, best under a ``jit`` of your own.

    Returns:
      Images in about [-1, 1], equal to ``x`` where it is known.

    Raises:
      ValueError: Images that are no floats, a mask that is not boolean or of another shape, levels that do not fall to
        0, or no repeats.
    """
    check_counts(repeats=repeats)
    check_batch(x)
    x = jnp.asarray(x)
    levels, known = np.asarray(levels), as_mask("known", known, x)
    if len(levels) < 2 or levels[-1] != 0 or not (np.diff(levels) < 0).all():
        raise ValueError(f"`levels` must fall to 0, as those of scores.noise_schedule do, got {levels.tolist()}")
    current = float(levels[0]) * jax.random.normal(jax.random.fold_in(key, 0), x.shape, x.dtype)
    steps = itertools.chain.from_iterable(
        itertools.repeat(pair, repeats if pair[1] else 1) for pair in itertools.pairwise(levels.tolist())
    )
    last = float(levels[0])
    for number, (sigma, following) in enumerate(steps, start=1):
        again, over = jax.random.normal(jax.random.fold_in(key, number), (2, *x.shape), x.dtype)
        # Back up to the level that this step starts from, if the last one went below it.
        current = current + max(sigma**2 - last**2, 0.0) ** 0.5 * again
        current = jnp.where(known, x + sigma * over, current)
        current, last = step(denoise, current, sigma, following), following
    return jnp.where(known, x, current)


def of_classes(
    denoiser: Callable[..., Denoiser], classes: int, each: int, shape: Sequence[int], *, key: Array, steps: int = 18,
    sigma_max: float = 80.0, step: Callable[..., Any] = heun_step,
) -> Float[Array, "classes each h w c"]:  # fmt: skip
    """Draws images of each class by ``scores.sample``.

    Args:
      denoiser: ``denoiser(labels)`` gives that of images of these classes, such as ``partial(scores.denoiser, model,
        variables)``.
      classes: Number of classes, counted from the first.
      each: Number of images of each.
      shape: Shape of an image.
      key: Draws noise.
      steps: Noise levels that samples pass through, see ``scores.noise_schedule``.
      sigma_max: The largest of them, for images in [-1, 1].
      step: As for ``scores.sample``.

    Returns:
      Images in about [0, 1].

    >>> of_point = lambda labels: lambda x, sigma: jnp.full_like(x, 0.5)  # Of data that are 0.5 everywhere.
    >>> of_classes(of_point, 2, 3, (2, 2, 1), key=jax.random.key(0), steps=2)[1, 2, :, 0, 0].tolist()
    [0.75, 0.75]
    """
    labels = jnp.repeat(jnp.arange(classes), each)
    noise = jax.random.normal(key, (len(labels), *shape), jnp.float32)
    drawn = sample(denoiser(labels), noise, noise_schedule(steps, sigma_max=sigma_max), step=step)
    return (drawn.reshape(classes, each, *shape) + 1) / 2


def checkerboard(maps: Float[np.ndarray, "n h w c"]) -> float | None:
    """Mean power of maps at the highest frequency along both axes, over that one below: far above 1 for a checkerboard.

    A network whose layers overlap unevenly draws such patterns (Odena, Dumoulin and Olah, *Deconvolution and
    Checkerboard Artifacts*, 2016).

    Args:
      maps: Scores or images; each weighs alike, whatever its scale.

    Returns:
      The ratio; None if there is no power below.

    >>> noise = np.random.default_rng(0).normal(size=(500, 8, 8, 1))
    >>> round(checkerboard(noise))
    1
    >>> checkerboard(noise + np.indices((8, 8)).sum(0)[None, :, :, None] % 2) > 10
    True
    """
    size = np.sqrt((maps**2).mean((1, 2, 3), keepdims=True))
    power = (np.abs(np.fft.fft2(maps / np.where(size > 0, size, 1), axes=(1, 2))) ** 2).mean((0, 3))
    top, across = (length // 2 for length in power.shape)
    below = power[top - 1, across - 1]
    return float(power[top, across] / below) if below else None
