r"""Adversarial perturbations by projected gradient ascent with fixed steps (Madry et al. 2018).

A perturbation ``delta`` starts inside the ball ``|delta| <= eps`` and takes ``steps`` steps of length ``alpha`` uphill,

    L2:   delta <- project(delta + alpha g / |g|),        g = d loss / d delta,
    Linf: delta <- project(delta + alpha sign(g)),

with ``alpha = 2 eps / steps`` unless you pass another length. The loss is one of ``pags_jax.margins``. An attack needs
only ``apply_fn``: it takes no derivative with respect to parameters and changes no running statistics.
``pags_jax.apgd`` has stronger attacks at the same price.

A gradient that is zero or not finite moves nothing, and an attack with such a gradient proves nothing. ``with_outcome``
says where this happened, as ``evaluation.under_attack`` does.

Differs from the reference: P2 a ball for each example; there one ball for the whole batch, so that what ``eps`` means
depends on the batch size (``scope="batch"`` is that). P3 random starts are centred; there they brighten every image.
P4 a zero gradient moves nothing; there it makes NaN. P19 for the cross-entropy ``log(1 + exp(gap))`` the
attack increases ``gap``, which has the same direction, even where the model is so sure that their gradient is zero.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from pags_jax.ascent import ApplyFn, Found, Point, ascent_of, best_of, better, first, loop, starts
from pags_jax.balls import Scope, for_each
from pags_jax.images import check_array, is_traced
from pags_jax.margins import Loss


def pgd(
    apply_fn: ApplyFn,
    x: Float[Array, "n ..."],
    y: Integer[Array, " n"],
    *,
    key: Array | None,
    eps_l2: Any = None,
    eps_linf: Any = None,
    steps: int,
    scope: Scope = "example",
    start: Float[Array, "n ..."] | None = None,
    step_size: Any = None,
    bounds: tuple[Any, Any] | None = None,
    loss: Loss = "cross_entropy",
    targets: Integer[Array, " n"] | None = None,
    restarts: int = 1,
    best_step: bool = False,
    with_outcome: bool = False,
    unroll: bool = False,
) -> Any:
    """Finds perturbations in a ball that raise a loss.

    Args:
      apply_fn: Maps images to logits ``(n, classes)``, at least two; with batch statistics inside, examples are
        coupled. For models with one logit, or of standardised images, see ``wrappers``.
      x: Images in [0, 1].
      y: Labels, in any type of integers. A traced one that is no class has no gradient, and counts as fooled.
      key: PRNG key of the random start; not used, and may be None, where ``start`` is given.
      eps_l2: Radius in the Euclidean norm, traced: one, or one for each example.
      eps_linf: Radius in the largest absolute value, likewise; exactly one of the two is given.
      steps: Number of steps.
      scope: "example", or "batch" for one L2 ball around all images together, as in the reference.
      start: Where to start, shaped as ``x``; outside of the ball it is projected after the first step. By default
        uniform in the ball; for "batch" a random direction of length ``eps / 2``.
      step_size: Length of a step, one or one for each example; by default ``2 eps / steps``.
      bounds: Lowest and highest value that ``x + delta`` may take, each one number or one for each channel. By default
        images may leave [0, 1], as in the reference; to measure accuracy under attack use ``(0, 1)``.
      loss: "cross_entropy", "margin" or "dlr", see ``margins``.
      targets: Classes to lead to, instead of away from ``y`` alone.
      restarts: Number of random starts; of several the best result is kept.
      best_step: Keep the best point on the way instead of the last: one that fools the model, then of largest loss.
      with_outcome: Return ``Found`` instead of ``delta`` alone.
      unroll: Write the steps out instead of looping: twice as fast on CPUs, where convolutions inside of loops
        are slow, and slower to compile.

    Returns:
      ``delta``, shaped as ``x``; or what was found.

    Raises:
      ValueError: A radius, count, scope, loss, start, image, label, target or model that does not fit.

    >>> x, y = jnp.zeros((2, 3)), jnp.array([0, 1])
    >>> delta = pgd(lambda x: x, x, y, key=jax.random.key(0), eps_l2=0.5, steps=10)
    >>> [round(float(norm), 6) for norm in jnp.linalg.norm(delta, axis=1)]
    [0.5, 0.5]
    """
    ascent = ascent_of(
        apply_fn, x, y, targets, eps_l2, eps_linf, bounds, loss, scope, key=key, start=start, steps=steps,
        restarts=restarts,
    )  # fmt: skip
    ball, x, y = ascent.ball, ascent.x, ascent.labels
    if step_size is None:
        alpha = ball.eps * (2 / steps)
    else:
        step_size = check_array("`step_size`", step_size, "numbers", jnp.floating, jnp.integer)
        if not is_traced(step_size) and not np.all((np.asarray(step_size) > 0) & np.isfinite(step_size)):
            raise ValueError(f"`step_size` must be finite and above 0, got {step_size}")
        alpha = for_each(step_size, "step_size", ball.x)
    keeps_best = best_step or restarts > 1

    def attack(origin):
        def ascend(_, state):
            delta, best, no_gradient = state
            point = ascent.look(delta)
            direction, usable = ball.uphill(point.gradient)
            best = better(best, point._replace(gradient=None)) if keeps_best else best
            return ball.project(delta + alpha * direction), best, no_gradient | ~usable

        delta = first(ball, origin, start is None, x.dtype)
        nothing = jnp.zeros_like(y, bool)
        worst = Point(delta, jnp.full(y.shape, -jnp.inf, ball.x.dtype), nothing) if keeps_best else None
        delta, best, no_gradient = loop(steps, ascend, (delta, worst, nothing), unroll=unroll)
        if not (keeps_best or with_outcome):
            return Found(ball.settle(delta, x.dtype), nothing, nothing, no_gradient)
        last = ascent.judge(delta)
        return ascent.found(better(best, last) if keeps_best else last, no_gradient)

    found = jax.lax.stop_gradient(best_of(attack, starts(key, start, restarts), unroll=unroll))
    return found if with_outcome else found.delta
