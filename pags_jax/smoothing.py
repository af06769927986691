r"""Certified robustness by randomised smoothing (Cohen, Rosenfeld and Kolter, ICML 2019).

For a classifier ``f`` and noise of standard deviation ``sigma``, the smoothed classifier is

    g(x) = the class that f most probably predicts for x + sigma u,    u ~ N(0, I).

If ``f`` predicts class ``c`` with a probability of at least ``p > 1/2``, then ``g(x + delta) = c`` wherever ``|delta|_2
< sigma Phi^-1(p)``, whatever ``f`` is. The probability is estimated from draws: if ``k`` of ``n`` draws are in class
``c``, ``p`` is the lower end of Clopper and Pearson's interval, the ``alpha`` quantile of Beta(k, n - k + 1), which is
below the true one with a probability of at least ``1 - alpha``. So of many certified images a share of up to ``alpha``
may be certified in error. The class is chosen by other draws than those that are counted.

A draw on which no logit is above all others, or one is not finite, counts for no class. Bounds are computed in float64,
for every possible count, when ``samples`` and ``alpha`` are seen; what follows is rounded towards zero.

Noise and radii are in the units of the images. ``wrappers.denoised`` puts a denoiser in front of any classifier (Salman
et al. 2020; Carlini et al., ICLR 2023), and ``wrappers.smoothed`` is ``g`` as a differentiable model.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import stats

from pags_jax.binomial import check_alpha, least_wins, lower_bounds
from pags_jax.chunks import check_counts
from pags_jax.images import as_images, as_labels, check_array, check_labels, check_positive, is_traced, wide
from pags_jax.per_example import check_classifier

ABSTAINED = -1
"""The class of an image about which nothing can be certified at the given confidence."""


class Certified(NamedTuple):
    """The certified class and radius of each image.

    Attributes:
      label: The smoothed classifier's class, or `ABSTAINED`.
      radius: Within which it stays so, in the Euclidean norm; 0 where it abstained.
      lower: The lower bound on the probability of the class that was tried, also where it abstained.
    """

    label: Int[Array, " n"]
    radius: Float[Array, " n"]
    lower: Float[Array, " n"]


class Curve(NamedTuple):
    """Certified accuracy.

    Attributes:
      accuracy: For each radius, the share of images whose class is right and certified beyond that radius.
      abstained: The share of images of which nothing is certain; they count as wrong.
      error: Standard error of each ``accuracy`` ``p`` over the images: ``sqrt(p (1 - p) / n)``.
    """

    accuracy: Float[Array, "..."]
    abstained: Float[Array, ""]
    error: Float[Array, "..."]


def class_counts(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    *,
    key: Array,
    sigma: Any,
    samples: int,
    draws_at_once: int = 1,
) -> Int[Array, "n classes"]:
    """Counts how often the classifier predicts each class for an image under noise.

    Args:
      apply_fn: Maps images to logits of two classes at least, each image by itself.
      x: Images.
      key: PRNG key, required.
      sigma: Standard deviation of the noise, in the units of ``x``, traced: one number above 0.
      samples: Number of draws for each image.
      draws_at_once: How many of them are computed together; it changes memory and speed, no draw.

    Returns:
      Counts, whose sum over classes is ``samples`` less the draws that count for none.

    Raises:
      ValueError: Images, a model, a noise level or a count that cannot be used.

    >>> counts = class_counts(lambda x: x, jnp.array([[9.0, 0.0]]), key=jax.random.key(0), sigma=0.5, samples=100)
    >>> counts.tolist()
    [[100, 0]]
    """
    x = as_images(x)
    check_counts(samples=samples, draws_at_once=draws_at_once)
    check_positive("sigma", sigma)
    check_classifier(apply_fn, x)
    sigma, dtype = jnp.asarray(sigma, wide(x.dtype)), wide(x.dtype)

    def counts_of(numbers):
        def noisy(number):
            noise = jax.random.normal(jax.random.fold_in(key, number), x.shape, dtype)
            return (x.astype(dtype) + sigma * noise).astype(x.dtype)

        logits = apply_fn(jax.vmap(noisy)(numbers).reshape(-1, *x.shape[1:]))
        return jnp.sum(_votes(logits).reshape(len(numbers), len(x), -1), 0, dtype=jnp.int32)

    whole = samples // draws_at_once * draws_at_once
    numbers = jnp.arange(samples, dtype=jnp.uint32)
    start = jnp.zeros(jax.eval_shape(counts_of, numbers[:1]).shape, jnp.int32)
    steps = numbers[:whole].reshape(-1, draws_at_once)
    total = jax.lax.scan(lambda total, some: (total + counts_of(some), None), start, steps)[0]
    return total if whole == samples else total + counts_of(numbers[whole:])


def certify(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    *,
    key: Array,
    sigma: Any,
    samples: int = 100_000,
    selection_samples: int = 100,
    alpha: float = 0.001,
    draws_at_once: int = 1,
) -> Certified:
    """The smoothed classifier's class of each image, and a radius within which it stays the same (Cohen et al.,
    CERTIFY).

    Args:
      apply_fn: As for ``class_counts``, as are ``x``, ``key``, ``sigma`` and ``draws_at_once``.
      x: Images.
      key: PRNG key, required.
      sigma: Standard deviation of the noise.
      samples: Draws that are counted; with ``n`` of them no radius exceeds ``sigma Phi^-1(alpha^(1/n))``, which is
        3.8 ``sigma`` by default.
      selection_samples: Draws that the class is chosen by.
      alpha: Probability, at most, that an image is certified in error; not traced.
      draws_at_once: Draws computed together.

    Returns:
      Classes, radii and bounds; abstentions are where the bound is at most 1/2.

    Raises:
      ValueError: As ``class_counts``, or an ``alpha`` that is not between 0 and 1.

    >>> found = certify(lambda x: x, jnp.array([[9.0, 0.0], [0.0, 0.0]]), key=jax.random.key(0), sigma=0.5, samples=100)
    >>> found.label.tolist(), np.asarray(found.radius).round(2).tolist()  # Phi^-1(0.001^(1/100)) / 2
    ([0, -1], [0.75, 0.0])
    """
    check_counts(samples=samples, selection_samples=selection_samples)
    for_choice, for_bound = jax.random.split(key)
    check_positive("sigma", sigma)
    sigma = jnp.asarray(sigma, wide(as_images(x).dtype))
    draws: dict[str, Any] = {"sigma": sigma, "draws_at_once": draws_at_once}
    chosen = class_counts(apply_fn, x, key=for_choice, samples=selection_samples, **draws).argmax(1)
    counts = class_counts(apply_fn, x, key=for_bound, samples=samples, **draws)
    return certified(jnp.take_along_axis(counts, chosen[:, None], 1)[:, 0], chosen, samples, sigma=sigma, alpha=alpha)


def certified(
    count: Int[Array, " n"], label: Int[Array, " n"], samples: int, *, sigma: Any, alpha: float = 0.001
) -> Certified:
    """The certificate of images with ``count`` of ``samples`` draws in a class that other draws chose.

    Args:
      count: Draws in the class.
      label: The class.
      samples: Number of draws, not traced.
      sigma: Standard deviation of the noise.
      alpha: As for ``certify``.

    Raises:
      ValueError: Counts, a noise level or an ``alpha`` that cannot be.

    >>> found = certified(jnp.array([100, 60, 50]), jnp.array([3, 3, 3]), 100, sigma=1.0, alpha=0.05)
    >>> np.asarray(found.radius).round(3).tolist()
    [1.888, 0.033, 0.0]
    """
    check_positive("sigma", sigma)
    bounds = lower_bounds(samples, alpha)
    count = jnp.asarray(check_array("`count`", count, "integers", jnp.integer))
    if not is_traced(count) and not np.all((np.asarray(count) >= 0) & (np.asarray(count) <= samples)):
        raise ValueError(f"`count` must be from 0 to `samples` = {samples}, got {count}")
    label = check_array("`label`", label, "integers", jnp.integer)
    if label.shape != count.shape or not (is_traced(label) or np.all(np.asarray(label) >= 0)):
        raise ValueError(f"`label` must be one class of at least 0 for each `count`, {count.shape}, got {label}")
    quantiles = np.where(bounds > 0.5, stats.norm.ppf(bounds), 0.0)
    given = jnp.result_type(sigma)
    dtype = wide(given) if jnp.issubdtype(given, jnp.floating) else np.dtype(jnp.result_type(float))
    # Down by more than what SciPy rounds, and then to the type.
    radius = jnp.asarray(sigma, dtype) * jnp.asarray(_down(quantiles * (1 - 1e-12), dtype))[count]
    radius = jnp.where(radius > 0, jnp.nextafter(radius, jnp.zeros_like(radius)), 0)
    label = jnp.where(radius > 0, jnp.asarray(label).astype(jnp.int32), ABSTAINED)
    return Certified(label, radius, jnp.asarray(_down(bounds, dtype))[count])


def predict(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    *,
    key: Array,
    sigma: Any,
    samples: int = 1000,
    alpha: float = 0.001,
    draws_at_once: int = 1,
) -> Int[Array, " n"]:
    """The smoothed classifier's class of each image, or `ABSTAINED` (Cohen et al., PREDICT).

    The two classes that are predicted most often are compared by a two-sided binomial test: another class than ``g``'s
    is returned with a probability of at most ``alpha``. Arguments and errors as for ``certify``.

    >>> predict(lambda x: x, jnp.array([[9.0, 0.0], [0.0, 0.0]]), key=jax.random.key(0), sigma=0.5).tolist()
    [0, -1]
    """
    check_alpha(alpha)
    counts = class_counts(apply_fn, x, key=key, sigma=sigma, samples=samples, draws_at_once=draws_at_once)
    (first, second), label = jax.lax.top_k(counts, 2)[0].T, counts.argmax(1).astype(jnp.int32)
    return jnp.where(first >= jnp.asarray(least_wins(samples, alpha))[first + second], label, ABSTAINED)


def certified_accuracy(found: Certified, y: Int[Array, " n"], radii: Any) -> Curve:
    """The share of images that are right and certified beyond each radius; all others count as wrong, also abstentions.

    Args:
      found: Result of ``certify``.
      y: Labels.
      radii: One radius or an axis of them, at least 0.

    Raises:
      ValueError: Labels that do not fit, or radii that are negative or not finite.

    >>> found = Certified(jnp.array([0, 1, -1]), jnp.array([0.5, 1.0, 0.0]), jnp.array([0.7, 0.8, 0.4]))
    >>> certified_accuracy(found, jnp.array([0, 1, 0]), jnp.array([0.0, 0.5])).accuracy.round(3).tolist()
    [0.667, 0.333]
    """
    check_labels(y, found.label[:, None])
    radii = jnp.asarray(check_array("`radii`", radii, "numbers", jnp.floating, jnp.integer))
    if radii.ndim > 1 or not (is_traced(radii) or np.all((np.asarray(radii) >= 0) & np.isfinite(radii))):
        raise ValueError(f"`radii` must be finite numbers of at least 0, one or an axis of them, got {radii}")
    dtype = found.radius.dtype
    # The radius of an image that is wrong is beyond nothing.
    reached = jnp.where(jnp.equal(found.label.astype(jnp.int32), as_labels(y)), found.radius, 0)
    accuracy = jax.lax.map(lambda radius: jnp.mean(reached > radius, dtype=dtype), jnp.atleast_1d(radii).astype(dtype))
    accuracy = accuracy.reshape(radii.shape)
    error = jnp.sqrt(accuracy * (1 - accuracy) / len(found.label))
    return Curve(accuracy, jnp.mean(found.label == ABSTAINED, dtype=dtype), error)


def _votes(logits: Array) -> Array:
    """One vote for the class whose logit is above all others; none where no logit is, or one is not finite."""
    # Not "equal to the largest": a compiler may compute a logit twice, and round it in two ways.
    (first, second), label = jnp.moveaxis(jax.lax.top_k(logits, 2)[0], -1, 0), jnp.argmax(logits, -1)
    clear = (first > second) & jnp.all(jnp.isfinite(logits), -1)
    return jax.nn.one_hot(label, logits.shape[-1], dtype=bool) & clear[..., None]


def _down(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Values of at least 0 in another type, rounded towards zero."""
    rounded = values.astype(dtype)
    return np.where(rounded.astype(np.float64) > values, np.nextafter(rounded, np.zeros_like(rounded)), rounded)
