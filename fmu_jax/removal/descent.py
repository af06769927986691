"""Descent-to-delete: a few full-gradient steps on what remains, then noise before publishing.

Source: Neel et al. (2021), "Descent-to-delete: gradient-based methods for machine unlearning".
"""

from functools import partial

import jax
import numpy as np
import optax

from fmu_jax import linalg
from fmu_jax import objective as objectives
from fmu_jax.data import Data
from fmu_jax.objective import Objective, Params, Scalar
from fmu_jax.removal.update import Update, exact_update
from fmu_jax.row_blocks import gram
from fmu_jax.tracing import is_traced


@partial(jax.jit, static_argnames=("steps",))
def _descend(objective, params, remaining, noise, step_size, steps) -> tuple[Params, Params]:
    if step_size is None:
        step_size = default_step_size(objective, remaining)

    def step(_, carry):
        params, _ = carry
        grad = objectives.gradient(objective, params, remaining, noise)
        return optax.tree.add_scale(params, -step_size, grad), params

    return jax.lax.fori_loop(0, steps, step, (params, params))


def descent(
    objective: Objective,
    params: Params,
    data: Data,
    remaining: Data,
    *,
    noise: Params | None = None,
    steps: int = 50,
    step_size: Scalar | None = None,
    publish_sigma: Scalar = 0.0,
    key: jax.Array | None = None,
) -> Update:
    """Gradient descent on the fair objective of what remains, from the trained parameters.

    Args:
      objective: Objective on which ``params`` was trained.
      params: The trained parameters.
      data: The rows before removal (not read).
      remaining: The same rows with the forgotten ones at weight zero.
      noise: The perturbation ``b`` of the training objective.
      steps: Number of full-gradient steps.
      step_size: Sum-form step size; None is ``2 / (M + m)`` from the smoothness ``M`` and strong convexity ``m`` of
        the linear model, and is an error for any other model.
      publish_sigma: Standard deviation of the Gaussian noise added to the published parameters.
      key: PRNG key, required when ``publish_sigma`` is positive.

    Returns:
      The ``Update``.

    Raises:
      ValueError: ``steps`` or ``step_size`` out of range, no ``step_size`` for a model that is not linear, or no
        ``key`` for published noise.
    """
    del data
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1, got {steps}")
    if step_size is not None and not is_traced(step_size) and not np.asarray(step_size) > 0:
        raise ValueError(f"`step_size` must be positive, got {step_size}; a negative one ascends")
    if step_size is None and not objective.linear:
        raise ValueError("`step_size` is required for a model that is not linear")
    noisy = is_traced(publish_sigma) or bool(np.asarray(publish_sigma) != 0)
    if noisy and key is None:
        raise ValueError(f"publish_sigma={publish_sigma} draws noise and needs `key`")
    params, start = _descend(objective, params, remaining, noise, step_size, steps)
    if noisy and key is not None:
        params = optax.tree.add(params, objectives.sample_noise(params, key=key, sigma=publish_sigma))
    return exact_update(params, start, remaining.x.dtype)


def curvature_range(objective: Objective, data: Data) -> tuple[jax.Array, jax.Array]:
    """Smoothness ``M`` and strong convexity ``m`` of the linear model's objective, sum form.

    The losses' curvature lies between 0 and ``X'WX / 4``; everything else is quadratic.
    """
    quadratic = objectives.quadratic_part(objective, data)
    weight = objectives.row_weights(objective, data)
    largest = gram(data.x, weight / 4) + quadratic
    return linalg.eigenvalues(largest)[-1], linalg.eigenvalues(quadratic)[0]


def default_step_size(objective: Objective, data: Data) -> jax.Array:
    """``2 / (M + m)`` for the linear model."""
    largest, smallest = curvature_range(objective, data)
    return 2 / (largest + smallest)
