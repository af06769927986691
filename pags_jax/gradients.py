r"""Input gradients of a classifier, for one example at a time, vectorised.

For example ``x`` with logits ``f``, label ``y`` and class probabilities ``p = softmax(f)``, ``target`` selects:

    "logit_sum"    d sum_k f_k / dx      the paper's; not a function of the classifier: adding c(x) to all logits
                                         changes it, and no probability
    "logit"        d f_y / dx
    "log_prob"     d log p_y / dx        the one that a score can equal
    "loss"         - d log p_y / dx
    "log_sum_exp"  d log sum_k exp(f_k) / dx

``log_sum_exp`` is minus the gradient of the energy of Grathwohl et al., *Your Classifier is Secretly an Energy Based
Model and You Should Treat it Like One* (JEM, ICLR 2020). Where the logits are ``log p(x, y)`` up to a constant, it is
the score of the images; nothing else in a classifier's training makes it so, since it changes when ``c(x)`` is added to
all logits. "log_prob" is "logit" minus "log_sum_exp".

Images are in the units that the model takes, [0, 1] or normalised, and gradients are with respect to these units
(``wrappers.normalized`` turns a model of ``(x - mean) / std`` into a model of pixels). A function that sees more than
one image at once, such as a model in training with batch statistics, is refused in eager calls (``per_example``). Each
example is mapped by itself. For a model that JAX cannot map (``jax.pure_callback`` without ``vmap_method``) the
gradient is that of the sum over a batch, which is the same if examples do not influence each other.

Everything here is pure and meant to be called under ``jit``; eager calls run operation by operation.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from pags_jax.chunks import check_counts, map_chunks
from pags_jax.images import as_images, as_labels, check_array, check_number, is_traced, wide
from pags_jax.likelihood import label_logit, log_prob
from pags_jax.per_example import check_classifier

#: What is differentiated with respect to the image.
Target = Literal["logit_sum", "logit", "log_prob", "loss", "log_sum_exp"]
#: Targets that need no label.
UNLABELLED: tuple[Target, ...] = ("logit_sum", "log_sum_exp")


def input_gradients(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    y: Integer[Array, " n"] | None = None,
    *,
    target: Target,
    chunk_size: int | None = None,
) -> Float[Array, "n ..."]:
    """The gradient of one number with respect to each image; no example influences another.

    Args:
      apply_fn: Maps images to logits ``(n, classes)``, at least two, each by itself; called with batches of one under
        ``vmap``. For models with one logit see ``wrappers.two_classes``.
      x: Images.
      y: Labels; may be left out for `UNLABELLED` targets. A traced one that is no class makes NaN, for the others.
      target: See the module.
      chunk_size: Examples that are computed at once, to bound memory; all by default.

    Returns:
      Gradients, shaped as ``x``.

    Raises:
      ValueError: An unknown target, missing labels, images, labels or a model that cannot be used, or one in training.

    >>> weights = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    >>> input_gradients(lambda x: x @ weights, jnp.zeros((1, 3)), jnp.array([1]), target="logit").tolist()
    [[0.0, 0.0, 3.0]]
    """
    x, y = _checked(apply_fn, x, y, target)
    return _gradients(apply_fn, x, y, target, chunk_size)


def smoothed_gradients(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    y: Integer[Array, " n"] | None = None,
    *,
    target: Target,
    key: Array,
    sigma: Any,
    samples: int,
    chunk_size: int | None = None,
) -> Float[Array, "n ..."]:
    """SmoothGrad: mean input gradient over ``samples`` images with Gaussian noise added (Smilkov et al. 2017).

    Args:
      apply_fn: As for ``input_gradients``, as are ``x``, ``y`` and ``target``.
      x: Images.
      y: Labels.
      target: Number to differentiate.
      key: PRNG key, required.
      sigma: Standard deviation of the noise, in the units of ``x``, traced: one number.
      samples: Number of draws; computed one after the other, so that memory does not grow with them.
      chunk_size: As for ``input_gradients``.

    Returns:
      Gradients, shaped as ``x``; added up in float32 at least.

    Raises:
      ValueError: As ``input_gradients``, ``samples`` below 1, or a ``sigma`` that is not one finite number.
    """
    check_counts(samples=samples)
    check_number("sigma", sigma)
    x, y = _checked(apply_fn, x, y, target)
    sigma = jnp.asarray(sigma, x.dtype)

    def point(key):
        return x + sigma * jax.random.normal(key, x.shape, x.dtype)

    keys = jax.random.split(key, samples)
    return _mean_gradient(apply_fn, point, keys, y, target, chunk_size).astype(x.dtype)


def integrated_gradients(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    y: Integer[Array, " n"] | None = None,
    *,
    target: Target,
    baseline: Any = 0.0,
    steps: int = 32,
    chunk_size: int | None = None,
) -> Float[Array, "n ..."]:
    """Integrated gradients from a baseline, by the midpoint rule (Sundararajan et al. 2017).

    Summed over an image they approach the difference of the target's values between image and baseline.

    Args:
      apply_fn: As for ``input_gradients``, as are ``x``, ``y`` and ``target``.
      x: Images.
      y: Labels.
      target: Number to differentiate.
      baseline: Where the straight path starts: images shaped as ``x``, or one number for all pixels.
      steps: Points on the path.
      chunk_size: As for ``input_gradients``.

    Returns:
      ``(x - baseline)`` times the mean gradient on the path, shaped as ``x``; added up in float32 at least.

    Raises:
      ValueError: As ``input_gradients``, ``steps`` below 1, or a ``baseline`` of another shape or not finite.
    """
    check_counts(steps=steps)
    x, y = _checked(apply_fn, x, y, target)
    baseline = check_array("`baseline`", baseline, "numbers", jnp.floating, jnp.integer)
    if baseline.shape not in ((), x.shape):
        raise ValueError(f"`baseline` must be one number or have the shape {x.shape} of `x`, got {baseline.shape}")
    dtype = wide(x.dtype)
    path, origin = x.astype(dtype), jnp.broadcast_to(jnp.asarray(baseline, dtype), x.shape)
    if not is_traced(baseline) and not np.all(np.isfinite(np.asarray(baseline, np.float64))):
        raise ValueError("`baseline` holds NaN or infinite values")

    def point(share):
        return (origin + share * (path - origin)).astype(x.dtype)

    shares = (jnp.arange(steps, dtype=dtype) + 0.5) / steps
    return ((path - origin) * _mean_gradient(apply_fn, point, shares, y, target, chunk_size)).astype(x.dtype)


def _checked(apply_fn: Callable, x: Any, y: Any, target: Any) -> tuple[Array, Array]:
    """Images and labels as JAX arrays, after all checks that need no gradient."""
    if target not in get_args(Target):
        raise ValueError(f"unknown target {target!r}; known: {', '.join(get_args(Target))}")
    x = as_images(x)
    if y is None:
        if target not in UNLABELLED:
            raise ValueError(f"target {target!r} needs labels `y`")
        y = jnp.zeros(x.shape[0], jnp.int32)
    check_classifier(apply_fn, x, y)
    return x, as_labels(y)


def _gradients(apply_fn: Callable, x: Array, y: Array, target: Target, chunk_size: int | None) -> Array:
    def one(image, label):
        return jax.grad(lambda image: target_value(apply_fn(image[None])[0], label, target))(image)

    def together(x, y):
        return jax.grad(lambda x: jax.vmap(partial(target_value, target=target))(apply_fn(x), y).sum())(x)

    return map_chunks(one, (x, y), chunk_size, together)


def _mean_gradient(apply_fn, point, values: Array, y: Array, target: Target, chunk_size: int | None) -> Array:
    """The mean gradient over points of all ``values``, in turn, in float32 at least: 1 + 2^-8 is 1 in bfloat16."""

    def add(total, value):
        gradient = _gradients(apply_fn, point(value), y, target, chunk_size)
        return total + gradient.astype(total.dtype), None

    start = jax.eval_shape(point, values[0])
    total, _ = jax.lax.scan(add, jnp.zeros(start.shape, wide(start.dtype)), values)
    return total / len(values)


def as_pictures(maps: Float[Array | np.ndarray, "n ..."]) -> Float[Array, "n ..."]:
    """Gradients or scores as pictures: zero is mid-grey, the largest absolute value of each is 0 or 1.

    Args:
      maps: One for each image, of any scale.

    Returns:
      Images in [0, 1], shaped as ``maps``; all grey where a map is zero, or not finite.

    >>> as_pictures(jnp.array([[2.0, -4.0], [0.0, 0.0]])).tolist()
    [[0.75, 0.0], [0.5, 0.5]]
    """
    maps = jnp.asarray(maps)
    largest = jnp.abs(maps).max(tuple(range(1, maps.ndim)), keepdims=True)
    usable = jnp.isfinite(largest) & (largest > 0)
    return jnp.where(usable, maps / jnp.where(usable, largest, 1) / 2 + 0.5, 0.5)


def target_value(logits: Float[Array, " classes"], label: Any, target: Target) -> Float[Array, ""]:
    """The number to differentiate, from the logits and the label of one example."""
    if target == "logit_sum":
        return logits.sum()
    if target == "log_sum_exp":
        return jax.nn.logsumexp(logits)
    if target == "logit":
        return label_logit(logits, label)
    return log_prob(logits, label) if target == "log_prob" else -log_prob(logits, label)
