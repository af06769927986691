r"""Input gradients of a classifier, for one example at a time, vectorised.

Of example ``x`` with logits ``f``, label ``y`` and class probabilities ``p = softmax(f)``, by ``target``:

    "logit_sum"    d sum_k f_k / dx      the paper's; not a function of the classifier: adding c(x) to all logits
                                         changes it, and no probability
    "logit"        d f_y / dx
    "log_prob"     d log p_y / dx        what a score can equal
    "loss"         - d log p_y / dx

Everything here is pure and meant to be called under ``jit``; eager calls run operation by operation.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from pags_jax.images import as_labels, check_classes, check_images, check_labels
from pags_jax.likelihood import label_logit, log_prob

#: What is differentiated with respect to the image.
Target = Literal["logit_sum", "logit", "log_prob", "loss"]


def input_gradients(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    y: Integer[Array, " n"] | None = None,
    *,
    target: Target,
    chunk_size: int | None = None,
) -> Float[Array, "n ..."]:
    """The gradient of one number by each image; no example sees another.

    Args:
      apply_fn: maps images to logits ``(n, classes)``, at least two; called with batches of one under ``vmap``. For
        models with one logit see ``wrappers.two_classes``.
      x: images in [0, 1].
      y: labels; may be left out for "logit_sum". A traced one that is no class makes NaN, for the other targets.
      target: see the module.
      chunk_size: examples that are computed at once, to bound memory; all by default.

    Returns:
      Gradients, shaped as ``x``.

    Raises:
      ValueError: an unknown target, missing labels, or images, labels or a model that cannot be used.

    >>> weights = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    >>> input_gradients(lambda x: x @ weights, jnp.zeros((1, 3)), jnp.array([1]), target="logit").tolist()
    [[0.0, 0.0, 3.0]]
    """
    if target not in get_args(Target):
        raise ValueError(f"unknown target {target!r}; known: {', '.join(get_args(Target))}")
    check_images(x)
    if y is None:
        if target != "logit_sum":
            raise ValueError(f"target {target!r} needs labels `y`")
        y = jnp.zeros(x.shape[0], jnp.int32)
    check_labels(y, x)
    check_classes(apply_fn, x[:1], y)

    y = as_labels(y)

    def one(image, label):
        return jax.grad(lambda image: _value(apply_fn(image[None])[0], label, target))(image)

    if chunk_size is None:
        return jax.vmap(one)(x, y)
    _check_count(chunk_size=chunk_size)
    return jax.lax.map(lambda pair: one(*pair), (x, y), batch_size=chunk_size)


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
      apply_fn: as for ``input_gradients``, as are ``x``, ``y`` and ``target``.
      x: images.
      y: labels.
      target: what to differentiate.
      key: PRNG key, required.
      sigma: standard deviation of the noise, in the units of ``x``.
      samples: number of draws; computed one after the other, so that memory does not grow with them.
      chunk_size: as for ``input_gradients``.

    Returns:
      Gradients, shaped as ``x``.

    Raises:
      ValueError: as ``input_gradients``, or ``samples`` below 1.
    """
    _check_count(samples=samples)
    check_images(x)
    sigma = jnp.asarray(sigma, x.dtype)

    def draw(total, key):
        noisy = x + sigma * jax.random.normal(key, x.shape, x.dtype)
        return total + input_gradients(apply_fn, noisy, y, target=target, chunk_size=chunk_size), None

    total, _ = jax.lax.scan(draw, jnp.zeros_like(x), jax.random.split(key, samples))
    return total / samples


def integrated_gradients(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    y: Integer[Array, " n"] | None = None,
    *,
    target: Target,
    baseline: Float[Array, "n ..."] | float = 0.0,
    steps: int = 32,
    chunk_size: int | None = None,
) -> Float[Array, "n ..."]:
    """Integrated gradients from a baseline, by the midpoint rule (Sundararajan et al. 2017).

    Summed over an image they approach the difference of the target's values between image and baseline.

    Args:
      apply_fn: as for ``input_gradients``, as are ``x``, ``y`` and ``target``.
      x: images.
      y: labels.
      target: what to differentiate.
      baseline: where the straight path starts, shaped as ``x`` or one number.
      steps: points on the path.
      chunk_size: as for ``input_gradients``.

    Returns:
      ``(x - baseline)`` times the mean gradient on the path, shaped as ``x``.

    Raises:
      ValueError: as ``input_gradients``, or ``steps`` below 1.
    """
    _check_count(steps=steps)
    check_images(x)
    origin = jnp.broadcast_to(jnp.asarray(baseline, x.dtype), x.shape)

    def add(total, share):
        point = origin + share * (x - origin)
        return total + input_gradients(apply_fn, point, y, target=target, chunk_size=chunk_size), None

    shares = (jnp.arange(steps, dtype=x.dtype) + 0.5) / steps
    total, _ = jax.lax.scan(add, jnp.zeros_like(x), shares)
    return (x - origin) * total / steps


def _value(logits: Array, label: Array, target: Target) -> Array:
    if target == "logit_sum":
        return logits.sum()
    if target == "logit":
        return label_logit(logits, label)
    return log_prob(logits, label) if target == "log_prob" else -log_prob(logits, label)


def _check_count(**counts: Any) -> None:
    for name, count in counts.items():
        if not isinstance(count, int | np.integer) or count < 1:
            raise ValueError(f"`{name}` must be a whole number of at least 1, got {count}")
