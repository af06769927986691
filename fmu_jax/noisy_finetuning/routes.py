"""Four routes to a certified network at one guarantee, with the numbers under which experiments compare them.

- ``output`` only adds noise to the clipped model;
- ``gradient`` takes noisy steps of clipped gradients, ``model`` steps between clips of the model;
- ``blocks`` adds the noise to one layer after the other, and repairs the layers without noise in between.

Gradients and models are clipped to multiples of the start's clip, so that a route has one number to choose.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from fmu_jax.data import Data
from fmu_jax.noisy_finetuning.accounting import noise_for
from fmu_jax.noisy_finetuning.blocks import finetune_blocks, noise_for_blocks
from fmu_jax.noisy_finetuning.schedule import Schedule
from fmu_jax.noisy_finetuning.steps import Finetuned, dtype_of, finetune, rounded_down
from fmu_jax.objective import Objective, Params
from fmu_jax.privacy import check_positive
from fmu_jax.showing import one_line

ROUTES = ("output", "gradient", "model", "blocks")
#: Of the routes that follow gradients: the step size, the rows of a batch, the pull towards the center.
MOVES = {"step_size": 0.05, "batch": 256, "decay": 1.0}
#: Number of noisy steps of the route that clips the model.
MODEL_STEPS = 3


class Routed(NamedTuple):
    """A certified network and what it took.

    Attributes:
      model: The ``Finetuned``.
      noise: Standard deviation of each noise.
      gradients: Number of rows whose gradients were computed.
    """

    model: Finetuned
    noise: float
    gradients: int

    __repr__ = one_line()


def schedule_of(route: str, *, clip: float, steps: int = 20) -> Schedule:
    """The schedule of a route, its noise still to be chosen by ``noise_for``.

    Args:
      route: One of ``ROUTES``; ``blocks`` has that of ``output``, divided among the blocks later.
      clip: Radius of the ball to which the trained model is clipped, > 0.
      steps: Number of noisy steps of ``gradient``, at least 1.

    Raises:
      ValueError: Another route, or a number out of range.

    >>> schedule_of("model", clip=0.1).steps, schedule_of("gradient", clip=0.1).gradient_clip
    (3, 0.05)
    """
    if route == "gradient":
        return Schedule(start_clip=clip, noise=1.0, steps=steps, gradient_clip=0.5 * clip, **MOVES)
    if route == "model":
        return Schedule(start_clip=clip, noise=1.0, steps=MODEL_STEPS, model_clip=clip, **MOVES)
    if route not in ("output", "blocks"):
        raise ValueError(f"unknown route {route!r}; known: {', '.join(ROUTES)}")
    return Schedule(start_clip=clip, noise=1.0)


def finetune_by(
    route: str,
    objective: Objective,
    params: Params,
    data: Data,
    forget: Any,
    *,
    mu: float,
    clip: float,
    key: Array,
    center: Params,
    steps: int = 20,
    repair_steps: int = 50,
    learning_rate: float = 0.01,
) -> Routed:
    """Forgets rows by one route with the least noise that keeps ``mu``.

    Args:
      route: One of ``ROUTES``.
      objective: As for ``finetune``; for ``blocks`` an ``Objective``.
      params: The trained parameters; for ``blocks`` flax linen variables ``{"params": {layer: ...}}``. The guarantee is
        of their dtype, whatever that of the rows.
      data: As for ``finetune``, as ``forget``, ``key`` and ``center``.
      forget: Rows to remove.
      mu: Gaussian-DP parameter of the guarantee, > 0.
      clip: Radius of the ball to which the trained network is clipped, > 0; fixed beforehand.
      key: PRNG key.
      center: A pytree like ``params`` that no forgotten row had a part in.
      steps: Number of noisy steps of ``gradient``.
      repair_steps: Number of steps of Adam after each block but the last, of ``blocks``.
      learning_rate: Adam's, of ``blocks``.

    Returns:
      The ``Routed``; ``model.mu`` is at most ``mu``.

    Raises:
      ValueError: As ``finetune``, ``finetune_blocks``, ``noise_for`` and ``schedule_of``; ``blocks`` of parameters
        that are no ``{"params": {layer: ...}}``.
    """
    size, dtype = sum(leaf.size for leaf in jax.tree.leaves(params)), dtype_of(params)
    check_positive(mu=mu)
    mu = rounded_down(mu, dtype)  # What is reported is rounded up to the dtype.
    if route != "blocks":
        plan = noise_for(schedule_of(route, clip=clip, steps=steps), mu=mu, size=size, dtype=dtype)
        model = finetune(objective, params, data, forget, schedule=plan, key=key, center=center)
        return Routed(model, plan.noise, (plan.batch or 0) * plan.steps)
    layers = _layers(params)
    start_clip = clip / len(layers) ** 0.5
    noise = noise_for_blocks(params, layers, start_clip=start_clip, mu=mu)
    model = finetune_blocks(
        objective, params, data, forget, blocks=layers, start_clip=start_clip, noise=noise, repair_steps=repair_steps,
        learning_rate=learning_rate, key=key, center=center,
    )  # fmt: skip
    remaining = int(model.data.weight.sum())
    return Routed(model, noise, (len(layers) - 1) * repair_steps * remaining)


def _layers(params: Params) -> list[str]:
    """Names of the layers of a flax linen model's variables."""
    layers = params.get("params") if isinstance(params, Mapping) else None
    if not isinstance(layers, Mapping) or not layers:
        raise ValueError(
            'the route "blocks" takes the layers of flax linen variables {"params": {layer: ...}}, and `params` is '
            f"{type(params).__name__} without them; for another model name its blocks to `finetune_blocks`"
        )
    return list(layers)


def finetune_by_all(
    objective: Objective, params: Params, data: Data, forget: Any, *, centers: Mapping[str, Params],
    routes: Sequence[str], clips: Sequence[float], mus: Sequence[float], key: Array, **options: Any,
) -> list[tuple[dict[str, Any], Params]]:  # fmt: skip
    """A certified network for each center, route, clip and guarantee, each with noise of its own.

    Args:
      objective: As for ``finetune_by``, as ``params``, ``data`` and ``forget``.
      params: The trained variables.
      data: The rows.
      forget: Rows to remove.
      centers: Centers by name.
      routes: Routes, of ``ROUTES``.
      clips: Radii of the balls to which the trained network is clipped.
      mus: Gaussian-DP parameters to keep.
      key: PRNG key of all.
      **options: Other options of ``finetune_by``.

    Returns:
      Pairs of a description, which has the columns ``method`` (``noisy_ROUTE``), ``start`` (the center), ``clip``,
      ``mu``, ``certified_mu``, ``epsilon``, ``noise``, ``parameters`` (their number) and ``gradients``, and of the
      published parameters.

    Raises:
      ValueError: As ``finetune_by``.
    """
    size, made = sum(leaf.size for leaf in jax.tree.leaves(params)), []
    for index, (start, route, clip, mu) in enumerate(itertools.product(centers, routes, clips, mus)):
        options |= {"mu": mu, "clip": clip, "key": jax.random.fold_in(key, index), "center": centers[start]}
        found = finetune_by(route, objective, params, data, forget, **options)
        about = {"method": f"noisy_{route}", "start": start, "clip": clip, "mu": mu}
        about |= {"certified_mu": float(found.model.mu), "epsilon": float(found.model.epsilon)}
        about |= {"noise": found.noise, "parameters": size, "gradients": found.gradients}
        made.append((about, found.model.params))
    return made
