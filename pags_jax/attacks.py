r"""Adversarial perturbations by projected gradient ascent on the cross-entropy (Madry et al. 2018).

A perturbation ``delta`` starts inside the ball ``|delta| <= eps`` and takes ``steps`` steps of length ``alpha`` uphill,

    L2:   delta <- project(delta + alpha g / |g|),        g = d loss / d delta,
    Linf: delta <- project(delta + alpha sign(g)),

with ``alpha = 2 eps / steps`` unless told otherwise. Nothing is differentiated with respect to parameters, and no
running statistics are touched: an attack needs ``apply_fn`` alone.

Differs from the reference: P2 a ball for each example; there one ball for the whole batch, so that what ``eps`` means
depends on the batch size (``scope="batch"`` is that). P3 random starts are centred; there they brighten every image.
P4 a zero gradient moves nothing; there it makes NaN.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pags_jax.images import check_classes, check_images, check_labels, is_traced
from pags_jax.likelihood import log_prob

ApplyFn = Callable[[Any], Any]
#: Whether every example has a ball of its own, or the batch has one.
Scope = Literal["example", "batch"]


def pgd(
    apply_fn: ApplyFn,
    x: Float[Array, "n ..."],
    y: Int[Array, " n"],
    *,
    key: Array | None,
    eps_l2: Any = None,
    eps_linf: Any = None,
    steps: int,
    scope: Scope = "example",
    start: Float[Array, "n ..."] | None = None,
    step_size: Any = None,
    bounds: tuple[Any, Any] | None = None,
    unroll: bool = False,
) -> Float[Array, "n ..."]:
    """Finds perturbations in a ball that raise the cross-entropy.

    Args:
      apply_fn: maps images to logits ``(n, classes)``; with batch statistics inside, examples are coupled.
      x: images in [0, 1].
      y: labels.
      key: PRNG key of the random start; not used, and may be None, where ``start`` is given.
      eps_l2: radius in the Euclidean norm, traced.
      eps_linf: radius in the largest absolute value, traced; exactly one of the two radii is given.
      steps: number of steps.
      scope: "example", or "batch" for one L2 ball around all images together, as in the reference.
      start: where to start, shaped as ``x``; outside of the ball it is projected after the first step. By default
        uniform in the ball; for "batch" a random direction of length ``eps / 2``.
      step_size: length of a step; by default ``2 eps / steps``.
      bounds: lowest and highest value that ``x + delta`` may take. By default images may leave [0, 1], as in the
        reference; to measure accuracy under attack use ``(0, 1)``.
      unroll: write the steps out instead of looping: twice as fast on CPUs, where convolutions inside of loops
        are slow, and slower to compile.

    Returns:
      ``delta``, shaped as ``x``.

    Raises:
      ValueError: a radius, step count, scope, start, image or label that does not fit.

    >>> x, y = jnp.zeros((2, 3)), jnp.array([0, 1])
    >>> delta = pgd(lambda x: x, x, y, key=jax.random.key(0), eps_l2=0.5, steps=10)
    >>> [round(float(norm), 6) for norm in jnp.linalg.norm(delta, axis=1)]
    [0.5, 0.5]
    """
    check_images(x)
    check_labels(y, x)
    check_classes(apply_fn, x, y)
    _check_ball(eps_l2, eps_linf, scope)
    _check_path(x, key, steps, start, step_size, bounds)
    eps = jnp.asarray(eps_linf if eps_l2 is None else eps_l2, x.dtype)
    alpha = eps * (2 / steps) if step_size is None else jnp.asarray(step_size, x.dtype)

    def project(delta):
        if eps_l2 is None:
            delta = jnp.clip(delta, -eps, eps)
        else:
            length = _norm(delta, scope)
            delta = delta * jnp.where(length > eps, eps / jnp.where(length > 0, length, 1), 1)
        # Shortens `delta` alone: `clip(x + delta) - x` rounds, and may leave the ball again.
        return delta if bounds is None else jnp.clip(delta, bounds[0] - x, bounds[1] - x)

    def total_loss(delta):
        return -log_prob(apply_fn(x + delta), y).sum()

    def ascend(_, delta):
        gradient = jax.grad(total_loss)(delta)
        if eps_l2 is None:
            return project(delta + alpha * jnp.sign(gradient))
        length = _norm(gradient, scope)
        return project(delta + alpha * (gradient / jnp.where(length > 0, length, 1)))

    delta = _start(key, x, eps, eps_l2 is None, scope) if start is None else jnp.asarray(start, x.dtype)
    delta = jax.lax.stop_gradient(delta)
    if bounds is not None:
        delta = project(delta)
    if unroll:
        for step in range(steps):
            delta = ascend(step, delta)
    else:
        delta = jax.lax.fori_loop(0, steps, ascend, delta)
    return jax.lax.stop_gradient(delta)


def _norm(values: Array, scope: Scope) -> Array:
    """Euclidean norms, kept broadcastable: of each example, or of everything."""
    axes = tuple(range(0 if scope == "batch" else 1, values.ndim))
    largest = jnp.max(jnp.abs(values), axes, keepdims=True)
    # Scaled first: the squares of a confident model's gradients underflow in float32.
    scale = jnp.where(largest > 0, largest, 1)
    return scale * jnp.sqrt(jnp.sum((values / scale) ** 2, axes, keepdims=True)) * (largest > 0).astype(values.dtype)


def _start(key: Any, x: Array, eps: Array, linf: bool, scope: Scope) -> Array:
    if linf:
        return eps * jax.random.uniform(key, x.shape, x.dtype, -1, 1)
    for_direction, for_radius = jax.random.split(key)
    direction = jax.random.normal(for_direction, x.shape, x.dtype)
    direction = direction / _norm(direction, scope)
    if scope == "batch":
        return eps / 2 * direction
    # The radius of a uniform point in a ball of this dimension.
    radius = jax.random.uniform(for_radius, (x.shape[0],) + (1,) * (x.ndim - 1), x.dtype) ** (x.shape[0] / x.size)
    return eps * radius * direction


def _check_ball(eps_l2, eps_linf, scope) -> None:
    if (eps_l2 is None) == (eps_linf is None):
        raise ValueError("give exactly one radius: `eps_l2` or `eps_linf`")
    eps = eps_linf if eps_l2 is None else eps_l2
    if jnp.ndim(eps) or not (is_traced(eps) or 0 <= float(eps) < np.inf):
        raise ValueError(f"the radius must be one finite number of at least 0, got {eps}")
    if scope not in get_args(Scope):
        raise ValueError(f"unknown scope {scope!r}; known: {', '.join(get_args(Scope))}")
    if scope == "batch" and eps_l2 is None:
        raise ValueError('`scope="batch"` is defined for `eps_l2`')


def _check_path(x, key, steps, start, step_size, bounds) -> None:
    if not isinstance(steps, int | np.integer) or steps < 1:
        raise ValueError(f"`steps` must be a whole number of at least 1, got {steps}")
    if start is None and key is None:
        raise ValueError("give a `key` for the random start, or a `start`")
    if start is not None and jnp.shape(start) != x.shape:
        raise ValueError(f"`start` must have the shape {x.shape} of `x`, got {jnp.shape(start)}")
    if step_size is not None and not (is_traced(step_size) or 0 < float(step_size) < np.inf):
        raise ValueError(f"`step_size` must be finite and above 0, got {step_size}")
    if bounds is None:
        return
    lower, upper = bounds
    if not lower < upper:
        raise ValueError(f"`bounds` must be (lowest, highest), got {bounds}")
    if not is_traced(x):
        with jax.ensure_compile_time_eval():
            inside = bool(jnp.all((x >= lower) & (x <= upper)))
        if not inside:
            raise ValueError(f"images must lie inside `bounds` = {bounds}")
