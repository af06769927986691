"""Wrappers that turn other models into ``apply_fn(x) -> logits (n, classes)`` of images in [0, 1].

If the model is a pytree (``jax.tree_util.Partial(model.apply, variables)``), so is the wrapped model, and ``jit`` takes
it as an argument.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pags_jax.chunks import check_counts
from pags_jax.images import check_positive, is_traced
from pags_jax.preconditioning import Denoiser
from pags_jax.preconditioning import denoised as denoised_by


def two_classes(apply_fn: Callable[[Any], Any]) -> jax.tree_util.Partial:
    """Turns a model with one logit, whose sigmoid is the probability of class 1, into a model of two classes.

    Its logits become ``(0, f)``, so that ``softmax`` is ``(1 - sigmoid(f), sigmoid(f))``.

    Args:
      apply_fn: Maps images to logits ``(n, 1)`` or ``(n,)``, before the sigmoid.

    Returns:
      A model with logits ``(n, 2)``.

    Raises:
      ValueError: When called, a model with more than one logit for each image.

    >>> apply_fn = two_classes(lambda x: x.sum(1) - 1)
    >>> apply_fn(jnp.array([[0.25, 0.25], [1.0, 1.0]])).tolist()
    [[0.0, -0.5], [0.0, 1.0]]
    """
    return jax.tree_util.Partial(_two_classes, apply_fn)


def normalized(
    apply_fn: Callable[[Any], Any], *, mean: Sequence[float] | Any, std: Sequence[float] | Any
) -> jax.tree_util.Partial:
    """Turns a model of images that are standardised by channel into a model of images in [0, 1].

    Radii, steps, bounds and gradients are then in the units of pixels, as published ones are.

    Args:
      apply_fn: Maps ``(x - mean) / std`` to logits.
      mean: Mean of each channel (the last axis of the images), or one number.
      std: Likewise, above 0.

    Returns:
      A model of ``x``.

    Raises:
      ValueError: A standard deviation that is not above 0, or numbers that are not finite; when called, not as many
        as the images have channels.

    >>> apply_fn = normalized(lambda x: x, mean=[0.5, 0.25], std=[0.5, 0.25])
    >>> apply_fn(jnp.array([[1.0, 0.0]])).tolist()
    [[1.0, -1.0]]
    """
    for name, values, lowest in (("mean", mean, -np.inf), ("std", std, 0)):
        if np.ndim(values) > 1:
            raise ValueError(f"`{name}` must be one number or one for each channel, got the shape {np.shape(values)}")
        if not is_traced(values) and not np.all(np.isfinite(values) & (np.asarray(values) > lowest)):
            raise ValueError(f"`{name}` must be finite{' and above 0' if name == 'std' else ''}, got {values}")
    return jax.tree_util.Partial(_normalized, apply_fn, jnp.asarray(mean), jnp.asarray(std))


def denoised(apply_fn: Callable[[Any], Any], denoise: Denoiser, *, sigma: Any) -> jax.tree_util.Partial:
    """A classifier of noisy images: one step of a denoiser at the matching level, then the classifier.

    Use it with ``smoothing.certify`` and the same ``sigma``. Nothing is trained, and the certificate is fully valid.

    Args:
      apply_fn: A classifier of clean images in [0, 1].
      denoise: A denoiser of images in [-1, 1], such as ``scores.denoiser``, knowing no class.
      sigma: Noise level for images in [0, 1], traced; the denoiser is called with twice that.

    Returns:
      A model of noisy images, to which what the denoiser returns is cut to [0, 1]; a pytree where the two are.

    Raises:
      ValueError: A noise level that is not one finite number above 0; when called, a denoiser of other shapes.

    >>> model = denoised(lambda x: x, lambda x, sigma: x / (1 + sigma**2), sigma=0.5)
    >>> model(jnp.array([[1.0, 0.5]])).tolist()
    [[0.75, 0.5]]
    """
    check_positive("sigma", sigma)
    return jax.tree_util.Partial(_denoised, apply_fn, denoise, sigma)


def smoothed(apply_fn: Callable[[Any], Any], *, key: Array, sigma: Any, samples: int) -> jax.tree_util.Partial:
    """The smoothed classifier as a differentiable model: log of the mean probability over fixed draws of the noise.

    Salman et al., *Provably Robust Deep Learning via Adversarially Trained Smoothed Classifiers* (NeurIPS 2019),
    equation 6. All images get the same draws, so that the model treats each image by itself and always in the same way.
    Its gradients, attacks and generated images are those of the smoothed classifier, up to the number of draws.

    Args:
      apply_fn: The classifier.
      key: PRNG key of the draws.
      sigma: Standard deviation of the noise, in the units of the images, traced.
      samples: Number of draws, all of which are computed together.

    Returns:
      A model with logits ``log mean_j softmax(f(x + sigma u_j))``.

    Raises:
      ValueError: A noise level or a count that cannot be used.
    """
    check_counts(samples=samples)
    check_positive("sigma", sigma)
    return jax.tree_util.Partial(_smoothed, apply_fn, jax.random.split(key, samples), sigma)


def _two_classes(apply_fn, x):
    logits = jnp.asarray(apply_fn(x))
    if logits.shape not in ((x.shape[0],), (x.shape[0], 1)):
        raise ValueError(f"expected one logit for each of {x.shape[0]} images, got the shape {logits.shape}")
    logit = logits.reshape(-1)
    return jnp.stack([jnp.zeros_like(logit), logit], axis=1)


def _normalized(apply_fn, mean, std, x):
    x = jnp.asarray(x)
    for name, values in (("mean", mean), ("std", std)):
        if values.shape not in ((), x.shape[-1:]):
            raise ValueError(f"`{name}` has {values.size} numbers for images of {x.shape[-1]} channels")
    mean, std = (jnp.broadcast_to(values.astype(x.dtype), x.shape[-1:]) for values in (mean, std))
    return apply_fn((x - _rows(mean, x)) / _rows(std, x))


def _rows(values, x):
    return values.reshape((1,) * (x.ndim - 1) + values.shape)


def _denoised(apply_fn, denoise, sigma, x):
    clean = denoised_by(denoise, 2 * x - 1, 2 * jnp.asarray(sigma, x.dtype))
    return apply_fn(jnp.clip((clean + 1) / 2, 0, 1))


def _smoothed(apply_fn, keys, sigma, x):
    samples = len(keys)
    noise = jax.vmap(lambda key: jax.random.normal(key, (1, *x.shape[1:]), x.dtype))(keys)
    logits = apply_fn((x[None] + jnp.asarray(sigma, x.dtype) * noise).reshape(-1, *x.shape[1:]))
    logits = logits.reshape(samples, x.shape[0], -1)
    return jax.nn.logsumexp(jax.nn.log_softmax(logits), 0) - jnp.log(jnp.asarray(samples, logits.dtype))
