"""The sets that perturbations stay in: a ball around each image, cut to the values that images may take.

Lengths are computed in float32 at least, after division by the largest entry, because squares of float16 numbers can
leave its range, and squares of a confident model's gradients can leave that of float32.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pags_jax.images import check_array, is_traced, wide

#: Whether every example has a ball of its own, or the batch has one.
Scope = Literal["example", "batch"]
Norm = Literal["l2", "linf"]


@dataclass(frozen=True)
class Ball:
    """Where perturbations of ``x`` may lie.

    Attributes:
      x: The images, in float32 at least.
      eps: Radius, broadcastable against ``x``.
      norm: "l2" or "linf".
      scope: Scope of the ball.
      box: Least and largest value of ``x + delta``; None where images are not bounded.
    """

    x: Array
    eps: Array
    norm: Norm
    scope: str
    box: tuple[Array, Array] | None

    def project(self, delta: Array) -> Array:
        """The point of the ball next to ``delta``, cut to the bounds; so it stays inside of both."""
        if self.norm == "linf":
            delta = jnp.clip(delta, -self.eps, self.eps)
        else:
            size = length(delta, self.scope)
            delta = delta * jnp.where(size > self.eps, self.eps / jnp.where(size > 0, size, 1), 1)
        if self.box is None:
            return delta
        # Shortens `delta` alone: `clip(x + delta) - x` rounds, and may leave the ball again.
        lower, upper = self.box
        return jnp.clip(delta, lower - self.x, upper - self.x)

    def uphill(self, gradient: Array) -> tuple[Array, Array]:
        """The step of length one that rises most, and which examples have one: not zero, and finite throughout."""
        axes = tuple(range(0 if self.scope == "batch" else 1, gradient.ndim))
        usable = jnp.all(jnp.isfinite(gradient), axes, keepdims=True) & jnp.any(gradient != 0, axes, keepdims=True)
        gradient = jnp.where(usable, gradient, 0)
        if self.norm == "linf":
            step = jnp.sign(gradient)
        else:
            size = length(gradient, self.scope)
            step = gradient / jnp.where(size > 0, size, 1)
        return step, jnp.broadcast_to(usable.reshape(-1), self.x.shape[:1])

    def draw(self, key: Array, dtype: Any) -> Array:
        """Uniform in the ball; for a whole batch a random direction of length ``eps / 2``. Not cut to the bounds."""
        x = self.x
        if self.norm == "linf":
            return self.eps * jax.random.uniform(key, x.shape, dtype, -1, 1).astype(x.dtype)
        for_direction, for_radius = jax.random.split(key)
        direction = jax.random.normal(for_direction, x.shape, dtype).astype(x.dtype)
        direction = direction / length(direction, self.scope)
        if self.scope == "batch":
            return self.eps / 2 * direction
        # The radius of a uniform point in a ball of this dimension.
        uniform = jax.random.uniform(for_radius, (x.shape[0],) + (1,) * (x.ndim - 1), dtype).astype(x.dtype)
        return self.eps * uniform ** (x.shape[0] / x.size) * direction

    def settle(self, delta: Array, dtype: Any) -> Array:
        """``delta`` in the images' type, rounded towards zero where ``delta`` or ``x + delta`` would leave the set."""
        delta = jax.lax.stop_gradient(delta)  # `nextafter` has no derivative, and an attack needs none.
        settled = delta.astype(dtype)
        outside = jnp.abs(settled.astype(delta.dtype)) > jnp.abs(delta)
        if self.box is not None:
            lower, upper = (end.astype(dtype) for end in self.box)
            moved = self.x.astype(dtype) + settled
            outside |= (moved < lower) | (moved > upper)
        return jnp.where(outside, jnp.nextafter(settled, jnp.zeros_like(settled)), settled)


def ball(x: Array, *, eps_l2: Any, eps_linf: Any, bounds: Any, scope: str = "example") -> Ball:
    """The ball around images, from the arguments that attacks take.

    Raises:
      ValueError: Not one radius, or one that is negative, not finite or not for these images; unknown scopes; bounds
        that do not fit, or images outside of them.
    """
    if (eps_l2 is None) == (eps_linf is None):
        raise ValueError("give exactly one radius: `eps_l2` or `eps_linf`")
    if scope not in get_args(Scope):
        raise ValueError(f"unknown scope {scope!r}; known: {', '.join(get_args(Scope))}")
    if scope == "batch" and (eps_l2 is None or np.ndim(eps_l2)):
        raise ValueError('`scope="batch"` is defined for one `eps_l2`')
    name, eps = ("eps_linf", eps_linf) if eps_l2 is None else ("eps_l2", eps_l2)
    eps = check_array(f"`{name}`", eps, "numbers", jnp.floating, jnp.integer)
    if not is_traced(eps) and not np.all((np.asarray(eps) >= 0) & np.isfinite(eps)):
        raise ValueError(f"`{name}` must be finite and at least 0, got {eps}")
    box = None if bounds is None else pixel_bounds(bounds, x)
    images = jnp.asarray(x)
    images = images.astype(wide(images.dtype))
    return Ball(images, for_each(eps, name, images), "linf" if eps_l2 is None else "l2", scope, box)


def length(values: Array, scope: str = "example") -> Array:
    """Euclidean norms, kept broadcastable: of each example, or of everything."""
    axes = tuple(range(0 if scope == "batch" else 1, values.ndim))
    largest = jnp.max(jnp.abs(values), axes, keepdims=True)
    scale = jnp.where(largest > 0, largest, 1)
    return scale * jnp.sqrt(jnp.sum((values / scale) ** 2, axes, keepdims=True)) * (largest > 0).astype(values.dtype)


def for_each(number: Any, name: str, x: Array) -> Array:
    """One number, or one for each example, broadcastable against ``x``.

    Raises:
      ValueError: Another shape.
    """
    if np.shape(number) not in ((), x.shape[:1]):
        raise ValueError(
            f"`{name}` must be one number or {x.shape[0]}, one for each image, got the shape {np.shape(number)}"
        )
    number = jnp.asarray(number, x.dtype)
    number = jnp.where(number >= 0, number, jnp.nan)  # Of traced ones: no ball, rather than one of another radius.
    return number if number.ndim == 0 else number.reshape(-1, *(1,) * (x.ndim - 1))


def pixel_bounds(bounds: Any, x: Array, *, inside: bool = True) -> tuple[Array, Array]:
    """The lowest and the highest value of each pixel of ``x``, shaped as ``x``, of ``(lowest, highest)``.

    Images must lie inside unless told otherwise.

    Raises:
      ValueError: Ends that are not one number or one for each channel, or in the wrong order; images outside of them.
    """
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ValueError(f"`bounds` must be (lowest, highest), got {bounds}")
    for end in bounds:
        check_array("`bounds`", end, "numbers", jnp.floating, jnp.integer)
        if np.shape(end) not in ((), x.shape[-1:]):
            raise ValueError(
                f"each of `bounds` must be one number or {x.shape[-1]}, one for each channel, got the shape "
                f"{np.shape(end)}"
            )
    if not is_traced(bounds):
        lower, upper = (np.asarray(end, x.dtype) for end in bounds)
        if not np.all(lower < upper):
            raise ValueError(f"`bounds` must be (lowest, highest), got {bounds}")
        if inside and not is_traced(x) and not np.all((np.asarray(x) >= lower) & (np.asarray(x) <= upper)):
            raise ValueError(
                f"images must lie inside `bounds` = {bounds}; for images that are standardised by channel give the "
                "bounds of each, or wrap the model in `wrappers.normalized`"
            )
    dtype = wide(jnp.asarray(x).dtype)
    lower, upper = (jnp.broadcast_to(jnp.asarray(end, dtype), x.shape) for end in bounds)
    return lower, upper
