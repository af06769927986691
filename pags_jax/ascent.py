"""What attacks share: looking at a point, keeping the better of two, loops and restarts."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import itemgetter
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from pags_jax.balls import Ball, ball
from pags_jax.chunks import check_counts
from pags_jax.images import NO_CLASS, as_images, as_labels, check_classes, check_labels, is_traced
from pags_jax.margins import DLR_CLASSES, Loss, behind, correct_logits
from pags_jax.per_example import in_evaluation

ApplyFn = Callable[[Any], Any]


class Found(NamedTuple):
    """What an attack found for each example.

    Attributes:
      delta: The perturbation, shaped as the images.
      loss: What was raised (``margins.behind``), at ``delta``.
      fooled: Whether the label's logit is not the largest at ``delta``, or a logit is not finite.
      no_gradient: Whether the gradient was zero or not finite somewhere on the way; in every restart, where there are
        several. If such an example is not fooled, the attack failed: nothing is known.
    """

    delta: Float[Array, "n ..."]
    loss: Float[Array, " n"]
    fooled: Bool[Array, " n"]
    no_gradient: Bool[Array, " n"]


class Point(NamedTuple):
    """One perturbation for each example and the loss there; ``gradient`` by ``delta`` where it was asked for."""

    delta: Array
    loss: Array
    fooled: Array
    gradient: Any = None


@dataclass(frozen=True)
class Ascent:
    """What is attacked, where and by which loss."""

    apply_fn: ApplyFn
    x: Array
    labels: Array
    targets: Array | None
    loss: Loss
    ball: Ball

    def look(self, delta: Array) -> Point:
        """The loss at a perturbation, and its gradient."""
        (_, point), gradient = jax.value_and_grad(self._total, has_aux=True)(self.ball.settle(delta, self.x.dtype))
        return jax.lax.stop_gradient(point._replace(gradient=gradient.astype(self.ball.x.dtype)))

    def judge(self, delta: Array) -> Point:
        """The loss at a perturbation, without its gradient."""
        return self._total(self.ball.settle(delta, self.x.dtype))[1]

    def found(self, point: Point, no_gradient: Array) -> Found:
        """A point as a result."""
        return Found(self.ball.settle(point.delta, self.x.dtype), point.loss, point.fooled, no_gradient)

    def _total(self, delta: Array) -> tuple[Array, Point]:
        logits = self.apply_fn(self.x + delta)
        loss = behind(self.loss, logits, self.labels, self.targets)
        point = Point(delta.astype(self.ball.x.dtype), loss, ~correct_logits(logits, self.labels))
        if self.loss != "cross_entropy":
            return loss.sum(), point
        # The cross-entropy's gradient, sum_i sigmoid(gap_i) d gap_i, but for a factor: where the batch couples examples
        # or shares a ball, their weights matter. None is so small that a derivative of the model is lost beside it.
        weight = jax.nn.log_sigmoid(loss if self.targets is None else -loss)
        weight = jnp.exp(weight - jnp.nanmax(weight))
        weight = jnp.maximum(weight, jnp.asarray(jnp.finfo(logits.dtype).tiny ** 0.5, weight.dtype))
        return jnp.sum(jax.lax.stop_gradient(weight) * loss), point


def better(old: Any, new: Any) -> Any:
    """For each example the one of two points or results that fools the model; if both or none do, of larger loss."""
    wins = jnp.where(old.fooled == new.fooled, new.loss > old.loss, new.fooled)
    return select(wins, new, old)


def select(wins: Array, new: Any, old: Any) -> Any:
    """``new`` for the examples that win, else ``old``, in every array of two trees."""
    return jax.tree.map(lambda a, b: jnp.where(wins.reshape(-1, *(1,) * (a.ndim - 1)), a, b), new, old)


def loop(steps: int, body: Callable[[Any, Any], Any], state: Any, *, unroll: bool) -> Any:
    """``state = body(step, state)`` for every step; written out on CPUs, where convolutions are slow in loops."""
    if not unroll:
        return jax.lax.fori_loop(0, steps, body, state)
    for step in range(steps):
        state = body(step, state)
    return state


def best_of(attack: Callable[[Any], Found], inputs: Any, *, unroll: bool) -> Found:
    """The best result for each example of an attack on each of several inputs, stacked in the leading axis."""
    count = jax.tree.leaves(inputs)[0].shape[0]
    rows = [jax.tree.map(itemgetter(place), inputs) for place in range(count)]

    def improve(best: Found, row: Any) -> Found:
        new = attack(row)
        return better(best, new)._replace(no_gradient=best.no_gradient & new.no_gradient)

    if unroll or len(rows) == 1:
        return reduce(improve, rows[1:], attack(rows[0]))
    # An attack that found nothing at all, so that the loop alone is compiled.
    nothing = jax.tree.map(lambda part: jnp.zeros(part.shape, part.dtype), jax.eval_shape(attack, rows[0]))
    nothing = nothing._replace(loss=nothing.loss - jnp.inf, no_gradient=~nothing.no_gradient)
    return jax.lax.scan(lambda best, row: (improve(best, row), None), nothing, inputs)[0]


def starts(key: Any, start: Any, restarts: int) -> Any:
    """One key for each restart, of which the first is ``key`` itself; or the given start alone."""
    if start is not None:
        return jnp.asarray(start)[None]
    if restarts == 1:
        return key[None]
    return jnp.concatenate([key[None], jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(1, restarts))])


def ascent_of(apply_fn, x, y, targets, eps_l2, eps_linf, bounds, loss, scope, **path) -> Ascent:
    """What to attack, from the arguments of ``attacks.pgd``; raises the same errors."""
    x = as_images(x)
    _check(apply_fn, x, y, targets, loss=loss, **path)
    inside = ball(x, eps_l2=eps_l2, eps_linf=eps_linf, bounds=bounds, scope=scope)
    labels = as_labels(y)
    if targets is not None:  # Towards its own label an attack cannot fail: it has no gradient.
        targets = as_labels(targets)
        targets = jnp.where(targets == labels, NO_CLASS, targets)
    return Ascent(apply_fn, x, labels, targets, loss, inside)


def first(inside: Ball, origin: Array, is_key: bool, dtype: Any) -> Array:
    """The perturbation that an attack starts from: drawn by a key, or given; inside of the bounds."""
    delta = inside.draw(origin, dtype) if is_key else origin.astype(inside.x.dtype)
    delta = jax.lax.stop_gradient(delta)
    return delta if inside.box is None else inside.project(delta)


def _check(apply_fn, x, y, targets, *, loss, key, start, steps, restarts) -> None:
    check_labels(y, x)
    with in_evaluation():
        classes = check_classes(apply_fn, x, y)
    if targets is not None:
        try:
            check_labels(targets, x)
            check_classes(apply_fn, x, targets)
        except ValueError as error:
            raise ValueError(f"`targets`: {error}") from None
        if not is_traced(targets, y) and np.any(np.asarray(targets) == np.asarray(y)):
            row = int(np.argmax(np.asarray(targets) == np.asarray(y)))
            raise ValueError(f"`targets` must be other classes than the labels, row {row} has {targets[row]} for both")
    if loss not in get_args(Loss):
        raise ValueError(f"unknown loss {loss!r}; known: {', '.join(get_args(Loss))}")
    if loss == "dlr" and classes < DLR_CLASSES[targets is not None]:
        raise ValueError(
            f'loss "dlr" needs {DLR_CLASSES[targets is not None]} classes at least, got {classes}; use loss "margin"'
        )
    check_counts(steps=steps, restarts=restarts)
    if start is None and key is None:
        raise ValueError("give a `key` for the random start, or a `start`")
    if start is None and not isinstance(key, jax.Array | np.ndarray):
        raise ValueError(f"`key` must be a key such as `jax.random.key(0)`, got {key!r}")
    if start is not None and jnp.shape(start) != x.shape:
        raise ValueError(f"`start` must have the shape {x.shape} of `x`, got {jnp.shape(start)}")
    if start is not None and not is_traced(start) and not np.all(np.isfinite(start)):
        raise ValueError("`start` holds NaN or infinite values")
    if start is not None and restarts > 1:
        raise ValueError(f"`restarts` start at random, got {restarts} with a `start`; leave one of the two out")
