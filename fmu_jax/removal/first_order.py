"""First-order unlearning without a guarantee: the baselines of deep unlearning, on the fair objective.

All are Adam from the trained parameters on mean forms, in one compiled scan: of what remains alone (``finetune``),
minus a share of the forgotten rows' loss (``gradient_ascent``), or towards the trained model's predictions on what
remains and away from them on what is forgotten (``scrub``). Nothing certifies where they end: they are what certified
methods are compared with, and ``finetune`` is also the repair without noise that may follow ``noisy_finetuning``.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fmu_jax import cells
from fmu_jax import objective as objectives
from fmu_jax.data import Data
from fmu_jax.objective import Objective, Params, Scalar
from fmu_jax.privacy import check_not_negative, check_positive
from fmu_jax.removal.update import Update, exact_update


def finetune(
    objective: Objective,
    params: Params,
    data: Data,
    remaining: Data,
    *,
    noise: Params | None = None,
    steps: int = 100,
    learning_rate: Scalar = 0.01,
) -> Update:
    """Adam on the fair objective of what remains.

    Args:
      objective: Objective on which ``params`` was trained.
      params: The trained parameters.
      data: The rows before removal (not read).
      remaining: The same rows with the forgotten ones at weight zero.
      noise: The perturbation of the training objective.
      steps: Full-gradient steps.
      learning_rate: Adam's, > 0.

    Returns:
      The ``Update``.

    Raises:
      ValueError: A number out of range.
    """
    del data
    check_positive(learning_rate=learning_rate)
    moved = _adam(_remaining_value, (objective, remaining, noise), params, learning_rate, steps)
    return exact_update(moved, params, remaining.x.dtype)


def gradient_ascent(
    objective: Objective,
    params: Params,
    data: Data,
    remaining: Data,
    *,
    noise: Params | None = None,
    steps: int = 20,
    learning_rate: Scalar = 0.01,
    ascent: Scalar = 0.1,
) -> Update:
    """``finetune`` on the objective of what remains minus ``ascent`` times the forgotten rows' mean loss ("NegGrad+").

    Source: Kurmanji et al. (2023), "Towards unbounded machine unlearning", section 4. Arguments as for ``finetune``,
    and ``ascent`` >= 0.
    """
    check_positive(learning_rate=learning_rate)
    check_not_negative(ascent=ascent)
    gone = _gone(data, remaining)
    bound = (objective, remaining, noise, gone, jnp.asarray(ascent, remaining.x.dtype))
    moved = _adam(_ascending_value, bound, params, learning_rate, steps)
    return exact_update(moved, params, remaining.x.dtype)


def scrub(
    objective: Objective,
    params: Params,
    data: Data,
    remaining: Data,
    *,
    noise: Params | None = None,
    steps: int = 50,
    ascent_steps: int = 15,
    learning_rate: Scalar = 0.01,
    distillation: Scalar = 1.0,
) -> Update:
    """Like SCRUB: away from the trained model's predictions on forgotten rows, towards them on what remains.

    Each of the first ``ascent_steps`` steps ascends the mean divergence ``KL(trained | new)`` on forgotten rows and
    descends the fair objective of what remains plus ``distillation`` times the divergence there; the others only
    descend. Differs from the reference: both in one full-batch step, not in turns of epochs.

    Source: Kurmanji et al. (2023), section 3. Other arguments as for ``finetune``.
    """
    check_positive(learning_rate=learning_rate)
    check_not_negative(distillation=distillation, ascent_steps=ascent_steps)
    teacher = objectives.logits(objective, params, data.x)
    strength = jnp.asarray(distillation, remaining.x.dtype)
    bound = (objective, remaining, noise, _gone(data, remaining), teacher, strength)
    first = min(int(ascent_steps), int(steps))
    moved = params
    if first:
        moved = _adam(_scrubbing_value, (*bound, jnp.ones((), remaining.x.dtype)), moved, learning_rate, first)
    if steps > first:
        calm = (*bound, jnp.zeros((), remaining.x.dtype))
        moved = _adam(_scrubbing_value, calm, moved, learning_rate, steps - first)
    return exact_update(moved, params, remaining.x.dtype)


@partial(jax.jit, static_argnames=("value", "steps"))
def _adam(value: Callable[..., Any], bound: Any, params: Params, learning_rate: Any, steps: int) -> Params:
    optimizer = optax.scale_by_adam()

    def step(carry, _):
        params, moments = carry
        updates, moments = optimizer.update(jax.grad(value)(params, *bound), moments)
        moved = jax.tree.map(lambda p, u: p - jnp.asarray(learning_rate, p.dtype) * u.astype(p.dtype), params, updates)
        return (moved, moments), None

    with jax.numpy_dtype_promotion("standard"):
        return jax.lax.scan(step, (params, optimizer.init(params)), length=steps)[0][0]


def _gone(data: Data, remaining: Data) -> Data:
    return data._replace(weight=data.weight - remaining.weight)


def _remaining_value(params, objective, remaining, noise):
    return objectives.value(objective, params, remaining, noise) / cells.size(remaining)


def _value_and_scores(params, objective, remaining, noise):
    """The same, and the scores of all rows, of one forward pass."""
    scores = objectives.logits(objective, params, remaining.x)
    return objectives.value_at(objective, params, scores, remaining, noise) / cells.size(remaining), scores


def _mean(weight, values):
    return jnp.dot(weight, values) / jnp.maximum(weight.sum(), 1)


def _ascending_value(params, objective, remaining, noise, gone, ascent):
    value, scores = _value_and_scores(params, objective, remaining, noise)
    losses = jax.nn.softplus(scores) - gone.y.astype(scores.dtype) * scores
    return value - ascent * _mean(gone.weight, losses)


def _scrubbing_value(params, objective, remaining, noise, gone, teacher, distillation, ascent):
    value, scores = _value_and_scores(params, objective, remaining, noise)
    apart = jax.nn.sigmoid(teacher) * (teacher - scores) + jax.nn.softplus(scores) - jax.nn.softplus(teacher)
    towards, away = _mean(remaining.weight, apart), _mean(gone.weight, apart)
    return value + distillation * towards - ascent * away
