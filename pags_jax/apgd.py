r"""Auto-PGD: projected gradient ascent whose steps adapt, and its targeted form.

With ``alpha = 2 eps`` at first, and ``step`` the unit vector along the gradient (L2) or its signs (Linf),

    z     <- project(delta + alpha step)
    delta <- project(delta + 0.75 (z - delta) + 0.25 (delta - delta before)),

``alpha`` being halved where ascent stalls. Everything else is as in ``pags_jax.attacks``.

Source: Croce and Hein 2020, *Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks*, algorithm 1 and section 4. Starts are uniform in the ball, as the paper has them.
"""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from pags_jax.ascent import ApplyFn, Point, ascent_of, best_of, better, first, loop, select, starts
from pags_jax.chunks import check_counts
from pags_jax.images import as_images, as_labels, check_classes, check_labels
from pags_jax.margins import DLR_CLASSES, Loss
from pags_jax.per_example import in_evaluation


class _Adaptive(NamedTuple):
    """The state of ``apgd``: the last two perturbations, the one of largest loss, the one to return.

    Attributes:
      at: The current point.
      previous: The perturbation before.
      top: The point of largest loss.
      best: Result of ``better``.
      alpha: Step length.
      rises: How often the loss rose since the last checkpoint.
      top_loss: The largest loss at the last checkpoint.
      halved: Whether the step was halved there.
      no_gradient: As in ``Found``.
    """

    at: Point
    previous: Array
    top: Point
    best: Point
    alpha: Array
    rises: Array
    top_loss: Array
    halved: Array
    no_gradient: Array


def apgd(
    apply_fn: ApplyFn,
    x: Float[Array, "n ..."],
    y: Integer[Array, " n"],
    *,
    key: Array | None,
    eps_l2: Any = None,
    eps_linf: Any = None,
    steps: int,
    start: Float[Array, "n ..."] | None = None,
    bounds: tuple[Any, Any] | None = None,
    loss: Loss = "cross_entropy",
    targets: Integer[Array, " n"] | None = None,
    restarts: int = 1,
    with_outcome: bool = False,
    unroll: bool = False,
) -> Any:
    """Ascends with momentum, and halves the steps of an example when they no longer help.

    At each of ``checkpoints(steps)`` the step of an example is halved, and its ascent goes on from its best point, if
    fewer than three in four of the steps since the last checkpoint raised the loss, or if neither the step was halved
    there nor the largest loss has risen since.

    Args:
      apply_fn: As for ``attacks.pgd``, as are all other arguments.
      x: Images.
      y: Labels.
      key: PRNG key of the random start.
      eps_l2: Radius.
      eps_linf: Radius.
      steps: Number of steps; each needs one gradient, and the start another.
      start: Where to start, by default uniform in the ball.
      bounds: Bounds of ``x + delta``.
      loss: "cross_entropy" (APGD-CE), "dlr" (APGD-DLR) or "margin".
      targets: Classes to lead to.
      restarts: Number of random starts.
      with_outcome: Return ``Found``.
      unroll: Write the steps out.

    Returns:
      ``delta``, shaped as ``x``: the best point on the way, see ``best_step`` of ``attacks.pgd``; or what was found.

    Raises:
      ValueError: As ``attacks.pgd``.

    >>> x, y = jnp.array([[0.5, 0.4]]), jnp.array([0])
    >>> apgd(lambda x: x, x, y, key=jax.random.key(0), eps_linf=0.25, steps=5).tolist()
    [[-0.25, 0.25]]
    """
    ascent = ascent_of(
        apply_fn, x, y, targets, eps_l2, eps_linf, bounds, loss, "example", key=key, start=start, steps=steps,
        restarts=restarts,
    )  # fmt: skip
    ball, x, y = ascent.ball, ascent.x, ascent.labels
    ends = checkpoints(steps)
    since = np.zeros(steps, np.int32)  # Steps since the last checkpoint, where there is one after this step.
    since[[end - 1 for end in ends]] = np.diff([0, *ends])

    def ascend(step, state):
        at, previous = state.at, state.previous
        direction, usable = ball.uphill(at.gradient)
        ahead = ball.project(at.delta + state.alpha * direction)
        share = jnp.where(step > 0, 0.75, 1).astype(ahead.dtype)
        moved = at.delta + share * (ahead - at.delta) + (1 - share) * (at.delta - previous)
        point = ascent.look(ball.project(moved))
        state = state._replace(
            at=point,
            previous=at.delta,
            top=select(point.loss > state.top.loss, point, state.top),
            best=better(state.best, point._replace(gradient=None)),
            rises=state.rises + (point.loss > at.loss).astype(jnp.int32),
            no_gradient=state.no_gradient | ~usable,
        )
        window = jnp.asarray(since)[step]
        return jax.tree.map(lambda new, old: jnp.where(window > 0, new, old), _checked(state, window), state)

    def attack(origin):
        point = ascent.look(first(ball, origin, start is None, x.dtype))
        zeros = jnp.zeros(y.shape, jnp.int32)
        never = jnp.zeros(y.shape, bool)
        alpha = jnp.broadcast_to(2 * ball.eps, (x.shape[0], *(1,) * (x.ndim - 1)))
        bare = point._replace(gradient=None)
        state = _Adaptive(point, point.delta, point, bare, alpha, zeros, point.loss, never, never)
        state = loop(steps, ascend, state, unroll=unroll)
        return ascent.found(state.best, state.no_gradient)

    found = jax.lax.stop_gradient(best_of(attack, starts(key, start, restarts), unroll=unroll))
    return found if with_outcome else found.delta


def apgd_targeted(
    apply_fn: ApplyFn,
    x: Float[Array, "n ..."],
    y: Integer[Array, " n"],
    *,
    key: Array,
    eps_l2: Any = None,
    eps_linf: Any = None,
    steps: int,
    bounds: tuple[Any, Any] | None = None,
    classes: int = 9,
    with_outcome: bool = False,
    unroll: bool = False,
) -> Any:
    """APGD-T: runs ``apgd`` towards each of the other classes that are largest at the image, and keeps the best result.

    The loss is "dlr", or "margin" where there are fewer than four classes.

    Args:
      apply_fn: As for ``attacks.pgd``, as are all other arguments.
      x: Images.
      y: Labels.
      key: PRNG key; every target has a random start of its own.
      eps_l2: Radius.
      eps_linf: Radius.
      steps: Towards each target.
      bounds: Bounds of ``x + delta``.
      classes: How many targets, at most; there is one fewer than classes.
      with_outcome: Return ``Found``.
      unroll: Write the steps out: compile time grows with steps times classes.

    Returns:
      ``delta``, shaped as ``x``; or what was found.

    Raises:
      ValueError: As ``attacks.pgd``.
    """
    x = as_images(x)
    check_labels(y, x)
    with in_evaluation():
        known = check_classes(apply_fn, x, y)
    check_counts(classes=classes)
    logits = jnp.asarray(apply_fn(x))
    logits = jnp.maximum(logits, jnp.finfo(logits.dtype).min)  # So that the label, at -inf, is last.
    is_label = jax.nn.one_hot(as_labels(y), known, dtype=bool)
    targets = jax.lax.top_k(jnp.where(is_label, -jnp.inf, logits), min(classes, known - 1))[1].T
    keys = starts(key, None, len(targets))
    loss: Literal["dlr", "margin"] = "dlr" if known >= DLR_CLASSES[1] else "margin"

    def attack(row):
        key, targets = row
        return apgd(
            apply_fn, x, y, key=key, eps_l2=eps_l2, eps_linf=eps_linf, steps=steps, bounds=bounds, loss=loss,
            targets=targets, with_outcome=True, unroll=unroll,
        )  # fmt: skip

    found = jax.lax.stop_gradient(best_of(attack, (keys, targets), unroll=unroll))
    return found if with_outcome else found.delta


def checkpoints(steps: int) -> list[int]:
    """After which steps ``apgd`` considers its step lengths: 22 % of them, then ever fewer, and 6 % at least.

    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    # In hundredths, whose sums are exact: p_1 = 22, p_(j+1) = p_j + max(p_j - p_(j-1) - 3, 6).
    shares, share, gain = [], 22, 22
    while share <= 100:
        shares.append(share)
        gain = max(gain - 3, 6)
        share += gain
    return sorted({math.ceil(share * steps / 100) for share in shares})


def _checked(state: _Adaptive, window: Array) -> _Adaptive:
    """The state after a checkpoint that comes ``window`` steps after the last one."""
    stalls = 4 * state.rises < 3 * window
    idle = ~state.halved & (state.top.loss <= state.top_loss)
    halve = stalls | idle
    return state._replace(
        at=select(halve, state.top, state.at),
        alpha=select(halve, state.alpha / 2, state.alpha),
        rises=jnp.zeros_like(state.rises),
        top_loss=state.top.loss,
        halved=halve,
    )
